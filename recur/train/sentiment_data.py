"""Labelled texts as numbers, and the parts of them that each step of a training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sys import intern

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.data.labelled import Labelled
from recur.data.sentiment import WINDOW, language_of, ngrams, tokens
from recur.data.text import UNK, Vocabulary
from recur.errors import RecurError

WORDLESS = "no text has a word in it; expected some in what is learned from and in what is held out; give others"
MIN_COUNT = 5
MAX_WORDS = 30_000
STEP_TOKENS = 8_000
STEP_TEXTS = 64
LONGEST = 2 * WINDOW  # tokens of a text that a step of the training reads at most; the finished model reads them all
CROPS = 0.5  # of the texts are cut to a part of one window: short texts should be understood too
REPEATS = 2  # times that the texts of a small data set are read at most, where a larger one is read once


@dataclass
class Corpus:
    """R texts: `words` [all tokens], `ends` [R], the hashed n-grams, language and label (second one: true) of each,
    and which data set it is from.
    """

    words: NDArray[np.int32]
    ends: NDArray[np.int64]
    rows: list[NDArray[np.int64]]
    languages: NDArray[np.str_]
    good: NDArray[np.bool_]
    source: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def text(self, row: int) -> NDArray[np.int32]:
        return self.words[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)


def cut(parts: Sequence[Labelled]) -> list[list[list[str]]]:
    """The tokens of every text of every part; equal ones are one object, so that millions of them fit."""
    return [[[intern(token) for token in tokens(text)] for text in part.texts] for part in parts]


def languages_of(read: Sequence[Sequence[Sequence[str]]]) -> tuple[str, ...]:
    """The languages of cut texts, the one with most texts first. Errors: RecurError when there is none."""
    counts = Counter(language_of(text) for part in read for text in part if text)
    if not counts:
        raise RecurError(WORDLESS)
    return tuple(lang for lang, _ in counts.most_common())


def build_vocabulary(read: Sequence[Sequence[Sequence[str]]], languages: Sequence[str], min_count: int) -> Vocabulary:
    """The tokens of cut texts that are seen often enough, the most frequent first."""
    counts = Counter(token for part in read for text in part for token in text)
    kept = [(word, count) for word, count in counts.most_common(MAX_WORDS) if count >= min_count]
    kept.sort(key=lambda entry: (-entry[1], entry[0]))
    first = 3 + len(languages)
    everything = range(first, first + len(kept))
    return Vocabulary(
        [word for word, _ in kept], languages, dict.fromkeys(languages, everything), [count for _, count in kept]
    )


def encode(
    parts: Sequence[Labelled], read: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary, second: str
) -> Corpus:
    """All texts that have a token, `read` by `cut`; `second` is the label that counts as true.

    Errors: RecurError when there is none.
    """
    ids = {word: number for number, word in enumerate(vocabulary.tokens)}
    words: list[NDArray[np.int32]] = []
    rows: list[NDArray[np.int64]] = []
    languages: list[str] = []
    good: list[bool] = []
    source: list[int] = []
    for number, (part, texts) in enumerate(zip(parts, read, strict=True)):
        for found, label in zip(texts, part.labels, strict=True):
            if found:
                words.append(np.fromiter((ids.get(word, UNK) for word in found), np.int32, len(found)))
                rows.append(ngrams(found))
                languages.append(language_of(found))
                good.append(label == second)
                source.append(number)
    if not words:
        raise RecurError(WORDLESS)
    ends = np.cumsum([len(text) for text in words])
    return Corpus(
        np.concatenate(words), ends, rows, np.array(languages), np.array(good, bool), np.array(source, np.int64)
    )


@dataclass(frozen=True)
class Batch:
    """Windows [N, T] of tokens, their lengths [N] and texts [N], and the labels of the texts [R] as 0 or 1."""

    windows: Tensor
    lengths: Tensor
    owner: Tensor
    labels: Tensor


def make_batch(corpus: Corpus, spans: Sequence[tuple[int, int, int]]) -> Batch:
    """Texts cut into windows; each span is (text, first token, one after the last)."""
    pieces: list[NDArray[np.int32]] = []
    owner: list[int] = []
    for place, (row, start, stop) in enumerate(spans):
        text = corpus.text(row)[start:stop]
        for at in range(0, len(text), WINDOW):
            pieces.append(text[at : at + WINDOW])
            owner.append(place)
    lengths = np.array([len(piece) for piece in pieces])
    windows = np.zeros((len(pieces), int(lengths.max())), np.int64)
    for line, piece in zip(windows, pieces, strict=True):
        line[: len(piece)] = piece
    labels = corpus.good[[row for row, _, _ in spans]].astype(np.float32)
    return Batch(*map(torch.from_numpy, (windows, lengths, np.array(owner), labels)))


def epoch_spans(corpus: Corpus, *, seed: int, epoch: int) -> Iterator[list[tuple[int, int, int]]]:
    """What each step of an epoch reads: a function of its arguments alone."""
    random = np.random.default_rng([seed, epoch])
    sizes = np.bincount(corpus.source)
    times = np.clip(sizes.max() // np.maximum(sizes, 1), 1, REPEATS)
    order = random.permutation(np.repeat(np.arange(len(corpus)), times[corpus.source]))
    chances = random.random((len(order), 3))
    step: list[tuple[int, int, int]] = []
    total = 0
    lengths = corpus.lengths
    for row, (crop, size, place) in zip(order.tolist(), chances.tolist(), strict=True):
        length = int(lengths[row])
        wanted = min(length, LONGEST)
        if crop < CROPS and length > 16:
            wanted = min(wanted, 8 + int(size * WINDOW))
        start = int(place * (length - wanted + 1))
        step.append((row, start, start + wanted))
        total += wanted
        if total >= STEP_TOKENS or len(step) == STEP_TEXTS:
            yield step
            step, total = [], 0
    if step:
        yield step
