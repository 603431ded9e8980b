"""What people are likely to say of a picture: a second opinion on the sentences that a search has found.

A linear model foresees, from the features of a picture, how much each word and each pair of words weighs in what
people say of it, in the terms of CIDEr (Vedantam et al. 2015); of the sentences in the beam the one goes first that
would agree best with that. Choosing by consensus is Devlin et al. 2015 ("Exploring Nearest Neighbor Approaches for
Image Captioning"); there the captions of similar pictures are looked up, here a regression has read them all. What the
search itself thinks, what the other sentences of the beam say and the length of a sentence count too: by such agreement
alone, sentences that say more than people do would win.

R regions, F channels, G phrases, T words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recur.bundle.consensus import PREFIX
from recur.engine.hypotheses import Hypothesis
from recur.engine.reference import Array, IntArray

Phrase = tuple[int, ...]
ORDERS = (1, 2)  # words of a phrase
NO_WORD = -1  # in the place of the second word of a phrase of one


def phrases(words: Sequence[int]) -> Iterator[Phrase]:
    """The phrases of a sentence, T + T - 1 of them."""
    for order in ORDERS:
        yield from (tuple(words[at : at + order]) for at in range(len(words) - order + 1))


def shares(words: Sequence[int], rows: Mapping[Phrase, int], rarity: Sequence[float], rare: float) -> dict[int, float]:
    """How much each of the known phrases weighs in a sentence, by row: counts times rarity, of length 1 an order.

    `rarity` [G] is the inverse document frequency of each, `rare` that of all that are not known.
    """
    found: dict[int, float] = {}
    counts = Counter(phrases(words))
    for order in ORDERS:
        several = {phrase: count for phrase, count in counts.items() if len(phrase) == order}
        weights = {
            phrase: count * (rarity[rows[phrase]] if phrase in rows else rare) for phrase, count in several.items()
        }
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        if length:
            found |= {rows[phrase]: weight / length for phrase, weight in weights.items() if phrase in rows}
    return found


def pooled(features: Array) -> Array:
    """Mean and greatest value of each channel, [.., 2F], of features [.., R, F]."""
    return np.concatenate([features.mean(-2), features.max(-2)], -1)


@dataclass(frozen=True)
class Consensus:
    """One language: `rows` from phrases of places to rows of `weight` [G, 2F], `bias` and `rarity` [G].

    `rare` is the rarity of other phrases; `log_prob` says how much a nat a word of the search's own opinion counts,
    `others` how much what the sentences of the beam say on average, and `length` how much a word more.
    """

    rows: Mapping[Phrase, int]
    weight: Array
    bias: Array
    rarity: tuple[float, ...]
    rare: float
    log_prob: float
    others: float = 0.0
    length: float = 0.0

    def scores(self, features: Array, found: Sequence[Hypothesis]) -> list[float]:
        """Of each hypothesis, the higher the better, for a picture with features [R, F]."""
        told = self._told(found)
        expected = self._expected(features, told)
        for each in told:
            for row, share in each.items():
                expected[row] += self.others * share / len(told)
        return [
            fit + self.log_prob * each.log_prob / (len(each.tokens) + 1) + self.length * len(each.tokens)
            for fit, each in zip(_fits(told, expected), found, strict=True)
        ]

    def agreement(self, features: Array, found: Sequence[Hypothesis]) -> list[float]:
        """How well each hypothesis agrees with what people are likely to say, whatever the search thinks of it."""
        told = self._told(found)
        return _fits(told, self._expected(features, told))

    def _told(self, found: Sequence[Hypothesis]) -> list[dict[int, float]]:
        return [shares(each.tokens.tolist(), self.rows, self.rarity, self.rare) for each in found]

    def _expected(self, features: Array, told: Sequence[Mapping[int, float]]) -> dict[int, float]:
        """What people are likely to say of a picture, of all that is told here."""
        asked = sorted({row for each in told for row in each})
        return dict(zip(asked, (self.weight[asked] @ pooled(features) + self.bias[asked]).tolist(), strict=True))


def _fits(told: Sequence[Mapping[int, float]], expected: Mapping[int, float]) -> list[float]:
    return [sum(share * expected[row] for row, share in each.items()) for each in told]


def consensus_of(
    weights: Mapping[str, Array], settings: Mapping[str, Any], language: str, ids: IntArray
) -> Consensus | None:
    """The second opinion of a bundle in one language, None when it has none; `ids` are the words' by place.

    Errors: KeyError, TypeError, ValueError for settings that make no sense.
    """
    if language not in settings:
        return None
    rare, log_prob = (float(settings[language][name]) for name in ("rare", "log_prob"))
    others, length = (float(settings[language].get(name, 0.0)) for name in ("others", "length"))
    if not (all(map(math.isfinite, (rare, log_prob, others, length))) and min(log_prob, others) >= 0):
        raise ValueError(f"consensus {settings[language]}; expected finite numbers")
    pairs = weights[f"{PREFIX}{language}.phrases"].reshape(-1, 2).astype(np.int64)
    places = np.searchsorted(ids, pairs.clip(0)).tolist()
    rows: dict[Phrase, int] = {
        (first,) if second == NO_WORD else (first, after): row
        for row, ((first, after), (_, second)) in enumerate(zip(places, pairs.tolist(), strict=True))
    }
    return Consensus(
        rows,
        weights[f"{PREFIX}{language}.weight"],
        weights[f"{PREFIX}{language}.bias"],
        tuple(weights[f"{PREFIX}{language}.rarity"].tolist()),
        rare,
        log_prob,
        others,
        length,
    )
