"""Questions answered with a part of a passage, and where it stands; or told that there is none.

R tokens of a passage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recur.bundle import Bundle, BundleError
from recur.data.passages import Asked, tokens_of
from recur.engine.span import SpanNetwork, features_of, numbers_of
from recur.errors import InputError
from recur.metrics.spans import span_scores
from recur.predict.voice import precision_of

QUESTION = 64  # tokens of a question that are read


@dataclass(frozen=True)
class Span:
    """A part of the passage, from character `start` to before `end`, with its probability as the network gives it;
    `answer`, `start` and `end` are None when the network finds it more likely that there is no answer.
    """

    question: str
    answer: str | None
    confidence: float
    start: int | None
    end: int | None
    model: str

    def to_json(self) -> dict[str, Any]:
        """One plain object, ready for `json.dumps`."""
        return {
            "question": self.question,
            "answer": self.answer,
            "start": self.start,
            "end": self.end,
            "confidence": round(self.confidence, 4),
            "model": self.model,
        }


class SpanReader:
    """Answers questions with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Errors: BundleError when the bundle is for something else."""
        if bundle.task != "span":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'span'; choose another")
        self.bundle, self.name = bundle, bundle.name
        self.window, self.longest = int(bundle.meta["window"]), int(bundle.meta["longest"])
        self._network = SpanNetwork(bundle.weights, precision=precision_of(bundle), threads=threads)

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

    def _answer(self, passage: str, question: str) -> Span:
        """A long passage is read in windows that overlap; the best span of all of them is the answer, unless no window
        finds it likelier than that there is none.
        """
        asked = [question[start:end] for start, end in tokens_of(question)][:QUESTION]
        numbers = numbers_of(asked)
        places = tokens_of(passage)
        step = self.window - self.longest
        best, where, none = -np.inf, (0, 0), 0.0
        for first in range(0, max(len(places) - self.longest, 1), step):
            part = places[first : first + self.window]
            words = [passage[start:end] for start, end in part]
            start, end = self._network.read(numbers_of(words), features_of(words, asked), numbers)
            # Row: where it starts; column: how many tokens follow.
            ends = np.lib.stride_tricks.sliding_window_view(
                np.pad(end[:-1], (0, self.longest - 1), constant_values=-np.inf), self.longest
            )
            scores = start[:-1, None] + ends
            at, more = divmod(int(scores.argmax()), self.longest)
            score, without = float(scores[at, more]), float(start[-1] + end[-1])
            if score - without > best - none:
                best, none, where = score, without, (part[at][0], part[at + more][1])
        if none >= best:
            return Span(question, None, float(np.exp(none)), None, None, self.name)
        return Span(question, passage[where[0] : where[1]], float(np.exp(best)), *where, self.name)


def measure(reader: SpanReader, asked: Sequence[Asked]) -> dict[str, float | int]:
    """F1 and exact match of a reader."""
    given = [reader(each.passage, each.question).answer for each in asked]
    return span_scores(given, [[each.passage[start:end] for start, end in each.answers] for each in asked])
