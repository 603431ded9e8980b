"""Questions answered with a part of a passage, and where it stands; or told that there is none.

R tokens of a passage.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, BundleError
from recur.bundle.span import CALIBRATED
from recur.data.passages import Asked, tokens_of
from recur.engine.span import Reading, SpanNetwork, features_of, numbers_of
from recur.errors import InputError
from recur.metrics.calibration import expected_calibration_error
from recur.metrics.spans import span_scores
from recur.predict.voice import calibrated, precision_of

QUESTION: Final = 64  # tokens of a question that are read
OTHERS: Final = 4  # runners-up
SMALLEST: Final = 1e-12  # probability that has a logarithm
ACCEPTABLE: Final = 50.0  # F1 in percent from which on an answer counts as right, where confidence is concerned


@dataclass(frozen=True)
class Candidate:
    """A part of the passage, from character `start` to before `end`, or None for no answer, with its probability: all
    parts that an answer could be, and no answer, add up to 1.
    """

    answer: str | None
    probability: float
    start: int | None
    end: int | None


@dataclass(frozen=True)
class Span:
    """A part of the passage, from character `start` to before `end`; `answer`, `start` and `end` are None when the
    network finds it more likely that there is no answer.

    `confidence`: the probability that this is right, where the bundle is calibrated, else `probability`, which is that
    of the network alone. `others` are the runners-up, no two of which overlap, and no answer.
    """

    question: str
    answer: str | None
    confidence: float
    start: int | None
    end: int | None
    model: str
    probability: float = 0.0
    others: tuple[Candidate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One plain object, ready for `json.dumps`."""
        return {
            "question": self.question,
            "answer": self.answer,
            "start": self.start,
            "end": self.end,
            "confidence": round(self.confidence, 4),
            "probability": round(self.probability, 4),
            "others": [[each.answer, round(each.probability, 4), each.start, each.end] for each in self.others],
            "model": self.model,
        }

    def _repr_html_(self) -> str:
        """The answer, for a notebook; pointed at, it tells the runners-up."""
        others = ", ".join(f"{each.answer or 'no answer'} {each.probability:.2f}" for each in self.others)
        told = "<i>no answer</i>" if self.answer is None else f"<b>{html.escape(self.answer)}</b>"
        sure = f"<small>confidence {self.confidence:.2f}</small>"
        return f'<p title="{html.escape(others)}">{html.escape(self.question)} {told} {sure}</p>'


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a passage that was read: its `tokens` with their places in characters, those of the question, and the
    reading."""

    tokens: list[tuple[int, int]]
    asked: list[str]
    reading: Reading


class SpanReader:
    """Answers questions with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Errors: BundleError when the bundle is for something else."""
        if bundle.task != "span":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'span'; choose another")
        self.bundle, self.name = bundle, bundle.name
        self.window, self.longest = int(bundle.meta["window"]), int(bundle.meta["longest"])
        self._network = SpanNetwork(bundle.weights, precision=precision_of(bundle), threads=threads)
        self._calibration: Mapping[str, Any] | None = bundle.meta.get("calibration")

    def __call__(self, passage: str, question: str | Sequence[str]) -> Any:
        """The `Span` that answers a question about a passage, or a list of them for several questions.

        Errors: InputError for a passage or question without a word.
        """
        story = self.story(passage)
        found = self.answer([(story, each) for each in ([question] if isinstance(question, str) else question)])
        for each in found:
            if isinstance(each, InputError):
                raise each
        return found[0] if isinstance(question, str) else found

    def story(self, passage: str | Iterable[str]) -> str:
        """The passage as one text, of its lines. Errors: InputError when it has no word."""
        text = passage if isinstance(passage, str) else "\n".join(passage)
        if not tokens_of(text):
            raise InputError("passage", "no word in it", "give some sentences")
        return text

    def answer(self, items: Sequence[tuple[str, str]]) -> list[Span | InputError]:
        """Answers to questions about passages, or what is wrong with one."""
        return [
            self._answer(passage, question)
            if tokens_of(question)
            else InputError(f"question {place}", "no word in it", "ask something")
            for place, (passage, question) in enumerate(items, 1)
        ]

    def windows(self, passage: str, question: str) -> Iterable[Window]:
        """The passage as it is read, in windows that overlap by the longest answer."""
        asked = [question[start:end] for start, end in tokens_of(question)][:QUESTION]
        places = tokens_of(passage)
        step = self.window - self.longest
        for first in range(0, max(len(places) - self.longest, 1), step):
            part = places[first : first + self.window]
            yield Window(part, asked, self.read([passage[start:end] for start, end in part], asked))

    def read(self, words: Sequence[str], asked: Sequence[str]) -> Reading:
        """One reading of words of a passage, with the words of a question."""
        return self._network.read(numbers_of(words), features_of(words, asked), numbers_of(asked))

    def features(self, passage: str, question: str) -> tuple[Span, dict[str, float]]:
        """An answer without calibration, and what its confidence is made from (`recur.bundle.span.CALIBRATED`)."""
        best, *rest = self._ranked(passage, question)
        log = [float(np.log(max(each.probability, SMALLEST))) for each in (best, rest[0])]
        values = (float(best.answer is None), log[0], log[0] - log[1], float(len(tokens_of(best.answer or ""))))
        told = Span(
            question, best.answer, best.probability, best.start, best.end, self.name, best.probability, tuple(rest)
        )
        return told, dict(zip(CALIBRATED, values, strict=True))

    def _answer(self, passage: str, question: str) -> Span:
        told, features = self.features(passage, question)
        return told if self._calibration is None else replace(told, confidence=calibrated(self._calibration, features))

    def _ranked(self, passage: str, question: str) -> list[Candidate]:
        """No answer and the best parts of the passage that do not overlap, most probable first; two at least.

        What a window says of a part is its odds against no answer; so windows are compared. A part that two windows
        hold belongs to the first.
        """
        ranks: list[tuple[float, int, int]] = []
        whole = 0.0  # the logarithm of all odds together; those of no answer are 1
        for number, window in enumerate(self.windows(passage, question)):
            odds = self.odds(window.reading)
            if number:
                owned = np.add.outer(np.arange(min(self.longest, len(odds))), np.arange(self.longest)) >= self.longest
                odds[: self.longest][~owned] = -np.inf
            whole = float(np.logaddexp(whole, np.logaddexp.reduce(odds, axis=None)))
            for _ in range(OTHERS):
                at, more = divmod(int(odds.argmax()), self.longest)
                best = float(odds[at, more])
                if best == -np.inf:
                    break
                ranks.append((best, window.tokens[at][0], window.tokens[at + more][1]))
                rows = np.arange(len(odds))[:, None]
                odds[(rows <= at + more) & (rows + np.arange(self.longest) >= at)] = -np.inf
        ranks.sort(key=lambda each: -each[0])
        kept: list[tuple[float, int, int]] = []
        for odd, start, end in ranks:
            if len(kept) < OTHERS and all(end <= low or start >= high for _, low, high in kept):
                kept.append((odd, start, end))
        found = [Candidate(passage[low:high], float(np.exp(odd - whole)), low, high) for odd, low, high in kept]
        place = sum(odd > 0 for odd, _, _ in kept)
        return [*found[:place], Candidate(None, float(np.exp(-whole)), None, None), *found[place:]]

    def odds(self, reading: Reading) -> NDArray[np.float64]:
        """The log-odds against no answer of every part, [R, longest]: the row is the first token, the column how many
        follow; -inf where the window ends before.
        """
        start, end = reading.start.astype(np.float64), reading.end.astype(np.float64)
        ends = np.lib.stride_tricks.sliding_window_view(
            np.pad(end[:-1], (0, self.longest - 1), constant_values=-np.inf), self.longest
        )
        found: NDArray[np.float64] = start[:-1, None] + ends - (start[-1] + end[-1])
        return found


def is_right(answer: str | None, asked: Asked) -> bool:
    """Whether an answer is acceptable: an F1 of 50 % or more with one of those that are known, or no answer where there
    is none."""
    known = [asked.passage[start:end] for start, end in asked.answers]
    return span_scores([answer], [known])["f1"] >= ACCEPTABLE


def measure(reader: SpanReader, asked: Sequence[Asked]) -> dict[str, float | int]:
    """F1, exact match, the share of acceptable answers, and the expected calibration error of the confidence."""
    given = [reader(each.passage, each.question) for each in asked]
    right = [is_right(told.answer, each) for told, each in zip(given, asked, strict=True)]
    known = [[each.passage[start:end] for start, end in each.answers] for each in asked]
    return {
        **span_scores([told.answer for told in given], known),
        "acceptable": round(float(np.mean(right)), 4),
        "ece": round(expected_calibration_error([told.confidence for told in given], right), 4),
    }
