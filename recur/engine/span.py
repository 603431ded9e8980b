"""The span reader (`recur.nn.span`) without PyTorch: LSTMs by the core, the small rest in NumPy; and what both read.

B passages with a question each, R tokens of a passage, Q tokens of a question, E embedding, H units of a direction.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.engine.native import Stack
from recur.engine.native_stack import Precision

BUCKETS: Final = 8192
PARTS: Final = 4  # a token is the sum of as many vectors: of the word, its beginning, its end, its shape
FEATURES: Final = 6

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def numbers_of(words: Sequence[str]) -> Ids:
    """Hashed parts [T, 4] of words."""
    return np.array([_parts(word) for word in words], np.int64).reshape(-1, PARTS)


@lru_cache(1 << 16)  # training meets the same words at every step
def _parts(word: str) -> tuple[int, ...]:
    low = word.lower()
    shape = "".join("9" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in word[:6])
    return tuple(
        zlib.crc32(part.encode("utf-8", "replace")) % BUCKETS
        for part in (f"w{low}", f"b{low[:4]}", f"e{low[-3:]}", f"s{shape}")
    )


def features_of(passage: Sequence[str], question: Sequence[str]) -> Floats:
    """What tells where a question is spoken of, [R, 6]: the token is in it, one that begins so is, how dense such
    tokens are around, it is in it and rare here, it begins large, it has a digit.
    """
    asked = {word.lower() for word in question}
    beginnings = {word[:4] for word in asked if len(word) > 3}
    low = [word.lower() for word in passage]
    counts: dict[str, int] = {}
    for word in low:
        counts[word] = counts.get(word, 0) + 1
    table = np.zeros((len(passage), FEATURES), np.float32)
    for row, word, raw in zip(table, low, passage, strict=True):
        same = word in asked
        row[0], row[1] = same, same or word[:4] in beginnings
        row[3] = same * counts[word] ** -1.0
        row[4], row[5] = raw[0].isupper(), any(c.isdigit() for c in raw)
    near = np.exp(-np.abs(np.arange(-16, 17)) / 6)
    table[:, 2] = np.convolve(table[:, 3], near, "full")[16 : 16 + len(table)]
    return table


@dataclass(frozen=True)
class Reading:
    """What one reading gave. Log-probabilities that the answer starts and ends at each token, [R + 1] each, the last:
    there is none; how much of each token of the question its summary holds, [Q], and how much of its attention each
    token of the passage gave to each of the question, [R, Q]; shares that add up to 1.
    """

    start: Floats
    end: Floats
    asked: Floats
    aligned: Floats


class SpanNetwork:
    """The network with its weights. One may serve several threads."""

    def __init__(
        self, weights: Mapping[str, Floats], *, precision: Precision = "float32", threads: int | None = None
    ) -> None:
        def stack(name: str) -> Stack:
            parts = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
            return Stack(parts, cell="lstm", bidirectional=True, precision=precision, threads=threads)

        self._weights = weights
        self._question, self._passage = stack("question."), stack("passage.")

    def read(self, passage: Ids, features: Floats, question: Ids) -> Reading:
        """passage [R, 4] and question [Q, 4] are hashed parts, features [R, 6]."""
        weights = self._weights
        x, q = (weights["embedding.weight"][ids].sum(1) for ids in (passage, question))
        asked = self._question.scan(q[None]).outputs[0]
        share = _softmax(asked @ weights["pool.weight"][0])
        summary = share @ asked  # [2H]
        keys = np.tanh(x @ weights["align.weight"].T), np.tanh(q @ weights["align.weight"].T)
        attention = _softmax(keys[0] @ keys[1].T)
        told = np.broadcast_to(np.tanh(weights["told.weight"] @ summary), (len(x), weights["told.weight"].shape[0]))
        states = self._passage.scan(np.concatenate([x, attention @ q, features, told], 1)[None]).outputs[0]
        found = []
        for name in ("start", "end"):
            scores = states @ (weights[f"{name}.weight"] @ summary + weights[f"{name}.bias"])
            none = weights[f"{name}_none.weight"][0] @ np.concatenate([summary, states.max(0)])
            scores = np.append(scores, none + weights[f"{name}_none.bias"][0])
            scores = scores - scores.max()
            found.append(scores - np.log(np.exp(scores).sum()))
        return Reading(found[0], found[1], share, attention)


def _softmax(x: Floats) -> Floats:
    part: Floats = np.exp(x - x.max(-1, keepdims=True))
    whole: Floats = part / part.sum(-1, keepdims=True)
    return whole
