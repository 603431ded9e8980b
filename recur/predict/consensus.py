"""What people are likely to say of a picture: a second opinion on the sentences that a search has found.

A linear model foresees, from the features of a picture, how much each word and each pair of words weighs in what
people say of it, in the terms of CIDEr (Vedantam et al. 2015); of the sentences in the beam the one goes first that
would agree best with that. Choosing by consensus is Devlin et al. 2015 ("Exploring Nearest Neighbor Approaches for
Image Captioning"); there the captions of similar pictures are looked up, here a regression has read them all. What the
search itself thinks, what the other sentences of the beam say and the length of a sentence count too: by such agreement
alone, sentences that say more than people do would win.

B pictures, R regions, F channels, G phrases, H hypotheses, T words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from recur.bundle.consensus import PREFIX
from recur.engine.hypotheses import Hypothesis
from recur.engine.reference import Array, IntArray

Phrase = tuple[int, ...]
ORDERS = (1, 2)  # words of a phrase
NO_WORD = -1  # in the place of the second word of a phrase of one
NO_PHRASE = -(1 << 62)  # where a sentence has no word any more


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

    def scores(self, features: Array, found: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """Of the hypotheses of each picture, the higher the better, for pictures with features [B, R, F]."""
        each = [one for several in found for one in several]
        lengths = np.array([len(one.tokens) for one in each])
        own = np.array([one.log_prob for one in each]) / (lengths + 1)
        total = self._fits(features, found, self.others) + self.log_prob * own + self.length * lengths
        return _as(found, total)

    def agreement(self, features: Array, found: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """How well each hypothesis agrees with what people are likely to say, whatever the search thinks of it."""
        return _as(found, self._fits(features, found, 0.0))

    def _fits(self, features: Array, found: Sequence[Sequence[Hypothesis]], others: float) -> Array:
        """The agreement [H] of all hypotheses, and as much of that with the rest of their beam as `others` says."""
        count = sum(map(len, found))
        picture = np.repeat(np.arange(len(found)), [len(several) for several in found])
        which, row, share = self._told([one.tokens for several in found for one in several])
        asked, place = np.unique(picture[which] * len(self.rarity) + row, return_inverse=True)
        foreseen = self._foreseen(features, *np.divmod(asked, len(self.rarity)))
        if others:
            beam = np.array([len(several) for several in found])
            said = np.bincount(place, share, minlength=len(asked))
            foreseen += others * said / beam[asked // len(self.rarity)]
        return cast(Array, np.bincount(which, share * foreseen[place], minlength=count))

    def _foreseen(self, features: Array, picture: IntArray, row: IntArray) -> Array:
        """What the model foresees of `row` [N] in `picture` [N], which rises."""
        values = pooled(features)
        # Picture by picture: a product of matrices would call threads, which those of the pictures have no room for.
        ends = np.searchsorted(picture, np.arange(len(values) + 1))
        parts = [self.weight[row[a:b]] @ x for x, a, b in zip(values, ends[:-1], ends[1:], strict=True)]
        return np.concatenate([np.zeros(0), *parts]) + self.bias[row]

    def _told(self, sentences: Sequence[IntArray]) -> tuple[IntArray, IntArray, Array]:
        """What `shares` says of sentences [T], all at once: of which one, of which row, and how much."""
        lengths = np.array([len(words) for words in sentences])
        width = max(2, int(lengths.max(initial=0)))
        words = np.full((len(sentences), width), NO_WORD, np.int64)
        words[np.arange(width) < lengths[:, None]] = np.concatenate([np.zeros(0, np.int64), *sentences])
        known_keys, known_rows = self._sorted
        parts = []
        for keys in (_key(words, NO_WORD), _key(words[:, :-1], words[:, 1:])):
            keys = np.sort(keys, axis=1)
            first = np.ones(keys.shape, bool)
            first[:, 1:] = keys[:, 1:] != keys[:, :-1]  # of equal ones, which lie side by side now
            at = np.flatnonzero(first)
            counts = np.diff(at, append=keys.size)
            key, which = keys.reshape(-1)[at], at // keys.shape[1]
            real = key != NO_PHRASE
            key, which, counts = key[real], which[real], counts[real]
            place = np.searchsorted(known_keys, key).clip(max=len(known_keys) - 1)
            row = np.where(known_keys[place] == key, known_rows[place], len(self.rarity))
            weight = counts * self.rarities[row]
            length = np.sqrt(np.bincount(which, weight * weight, minlength=len(sentences)))
            known = (row < len(self.rarity)) & (length[which] > 0)
            parts.append((which[known], row[known], weight[known] / length[which[known]]))
        return tuple(map(np.concatenate, zip(*parts, strict=True)))  # type: ignore[return-value]

    @cached_property
    def rarities(self) -> Array:
        """The rarity of each row, and last of phrases without one. [G + 1]"""
        return np.array([*self.rarity, self.rare])

    @cached_property
    def _sorted(self) -> tuple[IntArray, IntArray]:
        """The keys of all phrases that have a row, in rising order, and their rows. [G] each"""
        pairs = np.array([(*phrase, NO_WORD)[:2] for phrase in self.rows], np.int64).reshape(-1, 2)
        keys, rows = (pairs[:, 0] << 32) + pairs[:, 1], np.array([*self.rows.values()], np.int64)
        order = np.argsort(keys)
        return keys[order], rows[order]


def _key(first: IntArray, second: IntArray | int) -> IntArray:
    """One number for a phrase; `NO_PHRASE` where a sentence is over."""
    over = first == NO_WORD
    if not isinstance(second, int):
        over |= second == NO_WORD
    return np.where(over, NO_PHRASE, (first << 32) + second)


def _as(found: Sequence[Sequence[Hypothesis]], values: Array) -> list[list[float]]:
    """The values [H] by picture."""
    ends = np.cumsum([len(several) for several in found])
    return [part.tolist() for part in np.split(values, ends[:-1])] if len(found) else []


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
    if not rows:
        return None
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
