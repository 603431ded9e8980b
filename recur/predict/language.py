"""Text from a language model: writing on without an end, and how surprising a given text is, character by character.

Everything is computed in pieces with the state carried on, so text of any length takes the same memory. A model has no
idea of a beginning: what is written without a prompt begins after a line end, and the first character of a text that
is measured is only read. Characters that the model does not know are read as unknown, are never written, and are left
out of scores; how many there were is told.

T characters, V known characters, L layers, H hidden units, G gates.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recur.bundle import Bundle, BundleError
from recur.data.characters import UNKNOWN, Characters
from recur.engine.native import Decoder, Precision, Reading
from recur.engine.reference import State
from recur.errors import RecurError

FloatArray = npt.NDArray[np.float64]
WRITTEN: Final = 32  # characters computed between two looks at the output: a terminal shows them as they come
READ: Final = 512
SURPRISING: Final = 6.0  # nats of a character that is shown in the full colour
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Surprise:
    """A piece of a text and what each of its characters cost: `nats` [T], -log of the probability that it was given.

    NaN where there is no cost: the very first character of a text, and those that the model does not know.
    """

    text: str
    nats: FloatArray

    def to_json(self) -> dict[str, Any]:
        """`{"text", "nats": [number or null, …]}`"""
        return {
            "text": self.text,
            "nats": [None if math.isnan(cost) else round(cost, 4) for cost in self.nats.tolist()],
        }

    def _repr_html_(self) -> str:
        """The text, for a notebook, the more orange, the more a character surprised; pointed at, it tells its cost."""
        parts = []
        for character, cost in zip(self.text, self.nats.tolist(), strict=True):
            if math.isnan(cost):
                parts.append(html.escape(character))
            else:
                style = f"background: rgba(222, 110, 18, {0.65 * min(1.0, cost / SURPRISING):.2f})"
                parts.append(f'<span title="{cost:.2f} nats" style="{style}">{html.escape(character)}</span>')
        return f'<p style="white-space: pre-wrap">{"".join(parts)}</p>'


@dataclass(frozen=True)
class Trace:
    """What happened inside while `text` was read: `nats` [T] as in `Surprise`, `hidden` and `cells` [L, T, H] after
    each character (`cells` is None for cells without one), `gates` [L, T, G·H], and `alternatives`: of each place the
    characters that the model expected most, with their probabilities, before it read the character there.
    """

    text: str
    nats: FloatArray
    hidden: npt.NDArray[np.float32]
    cells: npt.NDArray[np.float32] | None
    gates: npt.NDArray[np.float32]
    alternatives: tuple[tuple[tuple[str, float], ...], ...]


class LanguageModel:
    """Writes and measures text with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """`threads`: the most to use; all processors when None. Errors: RecurError for a bundle of another task."""
        if bundle.task != "language":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected 'language'; choose another")
        self.bundle, self.name, self.meta = bundle, bundle.name, bundle.meta
        self.characters = Characters.from_bytes(bundle.tokenizer)
        self._decoder = Decoder(
            bundle.weights,
            cell=bundle.meta["cell"],
            layers=int(bundle.meta["layers"]),
            precision=_precision(),
            words=range(UNKNOWN + 1, len(self.characters)),
            threads=threads,
        )

    def __call__(self, prompt: str = "", *, length: int = 500, **options: Any) -> str:
        """`length` characters after `prompt`; the options are those of `stream`."""
        return "".join(self.stream(prompt, length=length, **options))

    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """What follows `prompt`, in pieces as they are ready; without an end when `length` is None.

        At `temperature` 0 the most probable character each time; above 0 one is drawn: from the `top_k` most probable
        (all when 0), from the fewest that have `top_p` of the probability together. The same seed gives the same text,
        and a longer one begins like a shorter one.
        Errors: RecurError for options that make no sense.
        """
        if not (math.isfinite(temperature) and temperature >= 0) or top_k < 0 or not 0 < top_p <= 1 or seed < 0:
            raise RecurError(
                f"temperature {temperature}, top_k {top_k}, top_p {top_p}, seed {seed}; expected temperature >= 0, "
                "top_k >= 0, 0 < top_p <= 1, seed >= 0; give others"
            )
        if length is not None and length < 0:
            raise RecurError(f"length {length}; expected 0 or more, or none for text without an end; give another")
        return self._stream(prompt, length, temperature, top_k, top_p, seed)

    def _stream(
        self, prompt: str, length: int | None, temperature: float, top_k: int, top_p: float, seed: int
    ) -> Iterator[str]:
        ids = self.characters.encode(prompt or "\n")
        state: Sequence[State] | None = None
        for start in range(0, len(ids) - 1, READ):
            state = self._decoder.read(ids[None, start : min(start + READ, len(ids) - 1)], state=state).state
        last, written, piece = ids[-1:], 0, 0
        while length is None or written < length:
            # A piece is always computed whole, so that what is drawn does not depend on where a text is cut off.
            found = self._decoder.generate(
                last[None],
                length=WRITTEN,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=(seed << 64) + piece,
                state=state,
            )
            wanted = WRITTEN if length is None else min(WRITTEN, length - written)
            yield self.characters.decode(found.tokens[0, :wanted])
            last, state = found.tokens[0, -1:], found.state
            written, piece = written + wanted, piece + 1

    def surprises(self, pieces: Iterable[str]) -> Iterator[Surprise]:
        """How surprising each character is after all before it, for a text that comes in pieces of any size."""
        state: Sequence[State] | None = None
        last: npt.NDArray[np.int64] | None = None
        for piece in pieces:
            for start in range(0, len(piece), READ):
                text = piece[start : start + READ]
                ids = self.characters.encode(text)
                nats = np.full(len(ids), np.nan)
                given = ids[:-1] if last is None else np.concatenate([last, ids[:-1]])
                if len(given):
                    reading = self._decoder.read(given[None], state=state)
                    state = reading.state
                    nats[len(ids) - len(given) :] = _costs(reading, ids[len(ids) - len(given) :])
                last = ids[-1:]
                yield Surprise(text, nats)

    def trace(self, text: str, *, alternatives: int = 5) -> Trace:
        """The states and gates after every character of `text`, and what was expected before it.

        Memory grows with the text. Errors: RecurError for an empty text, and where the compiled core is missing.
        """
        if not text:
            raise RecurError("no text to trace; expected at least one character; give some")
        ids = self.characters.encode(text)
        try:
            reading = self._decoder.read(ids[None], trace=True)
        except ValueError as error:
            raise RecurError(f"states and gates are kept by the compiled core only ({error})") from error
        assert reading.hidden is not None
        assert reading.gates is not None
        nats = np.full(len(ids), np.nan)
        nats[1:] = _costs(reading, ids[1:])
        probs = np.exp(_log_softmax(reading.logits[0]))
        best = np.argsort(-probs, axis=-1, kind="stable")[:, :alternatives]
        expected = [
            tuple((self.characters.characters[place], float(probs[t, place])) for place in best[t])
            for t in range(len(ids))
        ]
        return Trace(
            text=text,
            nats=nats,
            hidden=reading.hidden[:, 0],
            cells=None if reading.cells is None else reading.cells[:, 0],
            gates=reading.gates[:, 0],
            alternatives=((), *expected[:-1]),
        )

    def evaluate(self, text: str | Iterable[str]) -> dict[str, float]:
        """Mean cost of a text, whole or in pieces: `nats` and `bits` a character, `perplexity`; `characters` counts
        those that have a cost, `unknown` those that the model does not know.

        Errors: RecurError when no character has a cost.
        """
        total = 0.0
        read = unknown = 0
        for each in self.surprises([text] if isinstance(text, str) else text):
            known = ~np.isnan(each.nats)
            total += float(each.nats[known].sum())
            read += int(known.sum())
            unknown += int((self.characters.encode(each.text) == UNKNOWN).sum())
        if not read:
            raise RecurError("nothing to measure; expected at least two characters, the second one known to the model")
        nats = total / read
        return {
            "characters": read,
            "unknown": unknown,
            "nats": nats,
            "bits": nats / math.log(2),
            "perplexity": math.exp(nats),
        }


def _costs(reading: Reading, ids: npt.NDArray[np.int64]) -> FloatArray:
    """The cost [T] of ids [T] as the followers of the first T that were read; NaN for unknown ones."""
    log_probs = _log_softmax(reading.logits[0, : len(ids)])
    costs: FloatArray = -log_probs[np.arange(len(ids)), np.maximum(ids - 1, 0)]
    costs[ids == UNKNOWN] = np.nan
    return costs


def _log_softmax(logits: npt.NDArray[np.float32]) -> FloatArray:
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    normalised: FloatArray = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return normalised


def _precision() -> Precision:
    """float32, unless `RECUR_PRECISION` names another: 8-bit arithmetic would cost a hundredth of a nat."""
    wanted = os.environ.get("RECUR_PRECISION", "") or "float32"
    for precision in PRECISIONS:
        if wanted == precision:
            return precision
    raise RecurError(f"RECUR_PRECISION {wanted!r}; expected one of {', '.join(PRECISIONS)}; set one of them, or none")
