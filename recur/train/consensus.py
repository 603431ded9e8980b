"""The second opinion of a captioner: what people are likely to say of a picture, learned by ridge regression.

`recur.predict.consensus` says what it is for. Fitted after the networks, on what the finished encoder sees, in seconds;
being linear and held back it generalises better than a decoder that has read each sentence many times.

N pictures, F channels, G phrases.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from recur.bundle.consensus import PREFIX
from recur.data.text import UNK, Vocabulary
from recur.engine.weights import Stored, dequantize, quantized
from recur.predict.consensus import NO_WORD, Phrase, phrases, shares
from recur.train.caption_data import Split

LEAST = 15  # pictures that a phrase is said of before it is foreseen
MOST = 20_000  # pictures to learn from: more say the same
RIDGE = 1 / 6  # of the number of pictures, on features of variance 1
RARE = 3  # pictures that a phrase which is not foreseen counts as said of
# What a nat a word of the search's own opinion may count, what the sentences of a beam say on average, and a word more.
LOG_PROB, OTHERS, LENGTH = (0.05, 0.1, 0.2), (0.0, 0.02), (0.0, -0.004, -0.008)

Tensors = dict[str, NDArray[np.float32]]


def fit_consensus(
    pooled: NDArray[np.float32], split: Split, vocabulary: Vocabulary, lang: str, stored: Stored = "float32"
) -> tuple[Tensors, float] | None:
    """The tensors of one language, rounded as they are `stored`, and the rarity of phrases without a row, from pooled
    features [N, 2F] of pictures.

    None when no phrase is said of enough pictures.
    """
    kept = [place for place, rows in enumerate(split.tokens[lang]) if rows]
    sentences = [[vocabulary.encode(words) for words in split.tokens[lang][place]] for place in kept]
    said: Counter[Phrase] = Counter()
    for rows in sentences:
        said.update({phrase for words in rows for phrase in phrases(words)})
    known = [phrase for phrase, count in said.items() if count >= LEAST and UNK not in phrase]
    if not known:
        return None
    rows_of = {phrase: row for row, phrase in enumerate(known)}
    rarity = [math.log(len(kept) / said[phrase]) for phrase in known]
    rare = math.log(max(1.0, len(kept) / RARE))
    targets = np.zeros((len(kept), len(known)), np.float32)
    for line, rows in zip(targets, sentences, strict=True):
        for words in rows:
            for row, share in shares(words, rows_of, rarity, rare).items():
                line[row] += share / len(rows)
    weight, bias = ridge(pooled[kept], targets, stored)
    pairs = [(*phrase, NO_WORD)[:2] for phrase in known]
    name = f"{PREFIX}{lang}"
    return {
        f"{name}.phrases": np.array(pairs, np.float32).reshape(-1),
        f"{name}.weight": weight,
        f"{name}.bias": bias,
        f"{name}.rarity": np.array(rarity, np.float32),
    }, rare


def ridge(
    x: NDArray[np.float32], y: NDArray[np.float32], stored: Stored = "float32"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight [G, D], rounded as it is `stored`, and bias [G] that foresee y [N, G] from x [N, D], for x as it is.

    The bias makes up for what the rounding would change on average.
    """
    mean, spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64) + 1e-3
    scaled = (x - mean) / spread
    centre = y.mean(0, dtype=np.float64)
    inner = scaled.T @ scaled + RIDGE * len(x) * np.eye(x.shape[1])
    exact = (np.linalg.solve(inner, scaled.T @ (y - centre)) / spread[:, None]).T.astype(np.float32)
    weight = dequantize(quantized({"weight": exact}, stored))["weight"]
    return weight, (centre - weight @ mean).astype(np.float32)


def thinned(split: Split) -> list[int]:
    """The pictures to learn from: all, or so many spread over all of them."""
    places = np.linspace(0, len(split) - 1, min(len(split), MOST)).round().astype(int)
    return [*map(int, np.unique(places))]
