"""Questions about a story, answered.

>>> reader = recur.load("babi")
>>> reader("Mary took the football. Mary went to the garden.", "Where is the football?")  # doctest: +SKIP

B questions, S sentences, W words.
"""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, BundleError
from recur.data.lines import groups
from recur.data.stories import Story, sentences_of, words_of
from recur.data.text import UNK
from recur.engine.story import Reading, StoryNetwork
from recur.errors import InputError


@dataclass(frozen=True)
class Evidence:
    """A sentence that was read: its text, the probability that the answer rests on it, and how far the gates of each
    reading opened at it, 0..1.
    """

    sentence: str
    support: float
    gates: tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """An answer, with its probability as the network gives it, and the runners-up.

    `start` and `end` are the place of the answer in the passage, in characters; None, because stories are answered with
    a word of the model's own, which need not stand there. `unknown`: words of the question that the model never saw.
    """

    question: str
    answer: str
    confidence: float
    start: int | None
    end: int | None
    others: tuple[tuple[str, float], ...]
    evidence: tuple[Evidence, ...]
    unknown: tuple[str, ...]
    model: str

    def to_json(self) -> dict[str, Any]:
        """One plain object, ready for `json.dumps`."""
        return {
            "question": self.question,
            "answer": self.answer,
            "start": self.start,
            "end": self.end,
            "confidence": round(self.confidence, 4),
            "others": [[answer, round(p, 4)] for answer, p in self.others],
            "evidence": [
                [each.sentence, round(each.support, 4), [round(gate, 4) for gate in each.gates]]
                for each in self.evidence
            ],
            "unknown": list(self.unknown),
            "model": self.model,
        }

    def _repr_html_(self) -> str:
        """The answer, for a notebook; pointed at, it tells the sentences that it rests on."""
        rests = " ".join(each.sentence for each in self.evidence if each.support >= 0.5)
        sure = f"<small>confidence {self.confidence:.2f}</small>"
        told = f"{html.escape(self.question)} <b>{html.escape(self.answer)}</b> {sure}"
        return f'<p title="{html.escape(rests)}">{told}</p>'


class Reader:
    """Answers questions with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Errors: BundleError when the bundle is for something else."""
        if bundle.task != "answer":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'answer'; choose another")
        self.bundle, self.name, meta = bundle, bundle.name, bundle.meta
        self.answers: tuple[str, ...] = tuple(meta["answers"])
        self.sentences, self._places = int(meta["sentences"]), int(meta["places"])
        measured = (meta.get("results") or {}).get("held out") or {}
        self.tasks: tuple[str, ...] = tuple(measured.get("tasks") or ())  # that it was trained on, where it is told
        self._ids = {word: number for number, word in enumerate(bundle.vocabulary().tokens)}
        self._network = StoryNetwork(bundle.weights, int(meta["layers"]))
        self.threads = threads

    def __call__(self, passage: str | Iterable[str], question: str | Sequence[str]) -> Any:
        """The `Answer` to a question about a passage, or a list of them for several questions.

        Of a passage (a text, or its sentences one by one) the last `sentences` are read, so that memory does not grow
        with it. Errors: InputError for a passage or question without a word.
        """
        asked = [question] if isinstance(question, str) else list(question)
        found = self.answer([(self.story(passage), each) for each in asked])
        for each in found:
            if isinstance(each, InputError):
                raise each
        return found[0] if isinstance(question, str) else found

    def story(self, passage: str | Iterable[str]) -> tuple[str, ...]:
        """The sentences of a passage that are read. Errors: InputError when there is none."""
        parts = [passage] if isinstance(passage, str) else passage
        kept = deque((each for part in parts for each in sentences_of(part)), self.sentences)
        if not kept:
            raise InputError("passage", "no word in it", "give some sentences")
        return tuple(kept)

    def answer(self, items: Sequence[tuple[Sequence[str], str]]) -> list[Answer | InputError]:
        """Answers to questions about stories (their sentences), computed together, or what is wrong with one."""
        good = [place for place, (_, question) in enumerate(items) if words_of(question)]
        results: list[Answer | InputError] = [
            InputError(f"question {place}", "no word in it", "ask something") for place in range(1, len(items) + 1)
        ]
        if good:
            stories = [tuple(items[place][0])[-self.sentences :] for place in good]
            questions = [items[place][1] for place in good]
            reading = self.read(stories, questions)
            for column, place in enumerate(good):
                results[place] = self._answer(stories[column], questions[column], reading, column)
        return results

    def read(self, stories: Sequence[Sequence[str]], questions: Sequence[str]) -> Reading:
        """What the network makes of stories and a question about each, see `recur.engine.story`."""
        different = list(dict.fromkeys(sentence for story in stories for sentence in story))
        number = {sentence: place for place, sentence in enumerate(different)}
        story = np.zeros((max(map(len, stories)), len(stories)), np.int64)
        live = np.zeros(story.shape, np.bool_)
        for column, each in enumerate(stories):
            story[: len(each), column] = [number[sentence] for sentence in each]
            live[: len(each), column] = True
        return self._network.read(self._numbers(different), story, live, self._numbers(questions))

    def answers_to(self, stories: Sequence[Story], *, together: int = 250) -> list[str]:
        """The answers alone to the questions of many stories, in their order."""
        order = sorted(range(len(stories)), key=lambda place: len(stories[place].sentences))
        found = [""] * len(stories)
        for places in groups(order, together):
            reading = self.read(
                [stories[place].sentences[-self.sentences :] for place in places],
                [stories[place].question for place in places],
            )
            for place, best in zip(places, reading.answers.argmax(1).tolist(), strict=True):
                found[place] = self.answers[best]
        return found

    def _answer(self, story: Sequence[str], question: str, reading: Reading, column: int) -> Answer:
        shares = reading.answers[column]
        order = np.argsort(-shares, kind="stable")[:4].tolist()
        best = order[0]
        gates = reading.gates[:, :, column]
        return Answer(
            question=question,
            answer=self.answers[best],
            confidence=float(shares[best]),
            start=None,
            end=None,
            others=tuple((self.answers[each], float(shares[each])) for each in order[1:]),
            evidence=tuple(
                Evidence(sentence, float(reading.support[place, column]), tuple(gates[:, place].tolist()))
                for place, sentence in enumerate(story)
            ),
            unknown=tuple(word for word in words_of(question) if word not in self._ids),
            model=self.name,
        )

    def _numbers(self, texts: Sequence[str]) -> NDArray[np.int64]:
        read = [words_of(text)[: self._places] for text in texts]
        table = np.zeros((len(read), max(map(len, read))), np.int64)
        for row, words in zip(table, read, strict=True):
            row[: len(words)] = [self._ids.get(word, UNK) for word in words]
        return table
