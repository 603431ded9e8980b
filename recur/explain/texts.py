"""Why a model of texts said what it said: the numbers behind a reading, a judgement, a translation.

Each function gives a `TextExplanation`: `data` is what `--json` prints, and the offline page and a notebook show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recur.data.lines import Line
from recur.engine.reference import GATES
from recur.errors import InputError
from recur.explain.follow import follows
from recur.explain.inside import GATE_NAMES, OPEN_OR_SHUT, SATURATED, packed, saturation
from recur.predict.language import LanguageModel, Trace
from recur.predict.sentiment import SentimentClassifier
from recur.predict.translation import Translator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READ: Final = 20_000  # characters of a text that are read at most
SHOWN: Final = 2_000  # characters of it that the page colours at most
SHOWN_NUMBERS: Final = 900_000  # outputs of units that a page holds at most, one byte each before base64


@dataclass(frozen=True, eq=False)
class TextExplanation:
    """What the page shows of one text; `data` has its `task`, and is ready for `json.dumps` (docs/explain.md)."""

    data: dict[str, Any]

    def write(self, path: str | Path) -> Path:
        """Write the offline page to `path`, whole or not at all. Raises OSError."""
        from recur.explain.words_page import write_texts_page

        return write_texts_page(path, [self])

    def figure(self) -> Figure:
        """What can be drawn of it for a paper. Errors: RecurError without matplotlib, and where there is nothing."""
        from recur.explain.figure import draw_text

        return draw_text(self.data)

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its script can reach nothing of the notebook."""
        from recur.explain.page import framed
        from recur.explain.words_page import render_texts_page

        return framed(render_texts_page([self]))


def explain_reading(model: LanguageModel, text: str) -> TextExplanation:
    """What surprises a character model in a text, what its units do while it reads, and what they follow.

    The first 20,000 characters are read, and of at most 2,000 of them everything is told. Errors: RecurError for an
    empty text, and where the compiled core is missing.
    """
    trace = model.trace(text[:READ])
    layers, steps, units = trace.hidden.shape
    cell = model.meta["cell"]
    shown = max(1, min(steps, SHOWN, SHOWN_NUMBERS // (layers * units)))
    gates = trace.gates.reshape(layers, steps, GATES[cell], units)
    known = trace.nats[~np.isnan(trace.nats)]
    return TextExplanation(
        {
            "task": "generate",
            **characters_told(trace, shown),
            "read": steps,
            "left_out": max(0, len(text) - steps),
            "mean_nats": round(float(known.mean()), 4) if len(known) else None,
            "shape": [layers, shown, units],
            "hidden": packed(trace.hidden[:, :shown]),
            "follows": follows(trace.text, trace.hidden),
            "saturated": [
                {**kind, "units": _of_units(gates[kind["layer"] - 1], GATE_NAMES[cell].index(kind["gate"]))}
                for kind in saturation(gates, cell)
            ]
            if OPEN_OR_SHUT[cell]
            else [],
            "model": model.name,
        }
    )


def characters_told(trace: Trace, count: int | None = None) -> dict[str, Any]:
    """The first characters of a trace: `text`, `nats` of each, and what was `expected` in its place."""
    return {
        "text": trace.text[:count],
        "nats": [None if math.isnan(cost) else round(cost, 3) for cost in trace.nats[:count].tolist()],
        "expected": [[[each, round(p, 3)] for each, p in place] for place in trace.alternatives[:count]],
    }


def _of_units(gates: np.ndarray[Any, Any], number: int) -> list[list[float]]:
    """For each unit of gates [T, G, H] how much of the time gate `number` was shut, and open."""
    shut = (gates[:, number] < SATURATED[0]).mean(axis=0)
    opened = (gates[:, number] > SATURATED[1]).mean(axis=0)
    return [[round(float(a), 3), round(float(b), 3)] for a, b in zip(shut, opened, strict=True)]


def explain_sentiment(
    classifier: SentimentClassifier, texts: Iterable[str | Line | InputError]
) -> Iterator[TextExplanation | InputError]:
    """Judgements with what each word had to do with them, and the probability of the second label after each."""
    for found in classifier.stream(texts, words=True, running=True):
        yield found if isinstance(found, InputError) else TextExplanation({"task": "sentiment", **found.to_json()})


def explain_translation(
    translator: Translator,
    texts: Iterable[str | Line | InputError],
    *,
    source: str | None = None,
    target: str | None = None,
    beam: int | None = None,
) -> Iterator[TextExplanation | InputError]:
    """Translations with the share of attention that each of their words gave to each word of the source."""
    for found in translator.stream(texts, source=source, target=target, beam=beam):
        if isinstance(found, InputError):
            yield found
        else:
            parts = [part.to_json() for part in found.parts]
            yield TextExplanation({"task": "translate", **found.to_json(), "parts": parts})
