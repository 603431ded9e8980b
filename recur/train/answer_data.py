"""Stories as numbers, and the batches that training reads.

B questions, S sentences, U different sentences of a batch, W words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.data.stories import Story, words_of
from recur.data.text import UNK, Vocabulary

LANGUAGE = "en"


@dataclass
class Stories:
    """Questions as numbers: different sentences [N, W] and, for each question, which of them its story has, the
    question [R, W], the answer [R] (-1 when it is none of those known), the sentences it rests on, and its task.
    """

    table: NDArray[np.int64]
    story: list[NDArray[np.int64]]
    question: NDArray[np.int64]
    answer: NDArray[np.int64]
    support: list[tuple[int, ...]]
    task: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.story)


@dataclass
class Batch:
    """What the network reads at once, see `StoryNetwork.forward`."""

    sentences: Tensor
    story: Tensor
    live: Tensor
    question: Tensor
    answer: Tensor
    support: Tensor

    def part(self, rows: slice, device: torch.device) -> Batch:
        """Some of the questions, with the sentences of all, on a device."""
        story, live, support = (each[:, rows].to(device) for each in (self.story, self.live, self.support))
        question, answer = (each[rows].to(device) for each in (self.question, self.answer))
        return Batch(self.sentences.to(device), story, live, question, answer, support)


def build_words(stories: Sequence[Story]) -> tuple[Vocabulary, list[str], int]:
    """The words of stories, their answers, and the words of the longest sentence."""
    texts = dict.fromkeys(text for story in stories for text in (*story.sentences, story.question))
    read = [words_of(text) for text in texts]
    words = sorted({word for each in read for word in each})
    first = 4
    vocabulary = Vocabulary(words, (LANGUAGE,), {LANGUAGE: range(first, first + len(words))})
    return vocabulary, sorted({story.answer for story in stories}), max(len(each) for each in read)


def encode(stories: Sequence[Story], vocabulary: Vocabulary, answers: Sequence[str], places: int, most: int) -> Stories:
    """Numbers of stories, of each the last `most` sentences."""
    ids = {word: number for number, word in enumerate(vocabulary.tokens)}
    number_of: dict[str, int] = {}
    rows: list[list[int]] = []

    def row(text: str) -> list[int]:
        found = [ids.get(word, UNK) for word in words_of(text)[:places]]
        return found + [0] * (places - len(found))

    def place(text: str) -> int:
        if text not in number_of:
            number_of[text] = len(rows)
            rows.append(row(text))
        return number_of[text]

    story = [np.array([place(text) for text in each.sentences[-most:]]) for each in stories]
    known = {answer: number for number, answer in enumerate(answers)}
    return Stories(
        np.array(rows),
        story,
        np.array([row(each.question) for each in stories]),
        np.array([known.get(each.answer, -1) for each in stories]),
        [
            tuple(at - max(len(each.sentences) - most, 0) for at in each.support if at >= len(each.sentences) - most)
            for each in stories
        ],
        np.array([each.task for each in stories]),
    )


def batch_of(data: Stories, rows: NDArray[np.int64]) -> Batch:
    """The batch of some questions."""
    lengths = [len(data.story[row]) for row in rows]
    used, inverse = np.unique(np.concatenate([data.story[row] for row in rows]), return_inverse=True)
    story = np.zeros((max(lengths), len(rows)), np.int64)
    live, support = np.zeros(story.shape, np.bool_), np.zeros(story.shape, np.float32)
    at = 0
    for place, (row, length) in enumerate(zip(rows.tolist(), lengths, strict=True)):
        story[:length, place] = inverse[at : at + length]
        live[:length, place] = True
        support[list(data.support[row]), place] = 1
        at += length
    sentences, question = data.table[used], data.question[rows]
    return Batch(
        torch.from_numpy(_tight(sentences)),
        torch.from_numpy(story),
        torch.from_numpy(live),
        torch.from_numpy(_tight(question)),
        torch.from_numpy(data.answer[rows]),
        torch.from_numpy(support),
    )


def _tight(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without the columns in which no row has a word."""
    return np.ascontiguousarray(table[:, : int((table != 0).any(0).sum())])


def batches(data: Stories, *, size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The questions of an epoch in groups of nearly equal length, in a new order each time."""
    random = np.random.default_rng([seed, epoch])
    lengths = np.array([len(each) for each in data.story])
    order = np.argsort(lengths + random.uniform(0, 3, len(data)), kind="stable")
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    for group in random.permutation(len(groups)):
        yield groups[group]
