"""Is what the page shows true? Hiding the region that a word is said to come from must cost that word more than hiding
another region of the same size.

N masked pictures, T words, R regions, F features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.data.images import Square
from recur.explain.inside import sentence_tokens, word_scores
from recur.predict.caption import Captioner
from recur.predict.regions import attended_regions

FELT = 0.1  # nats: a tenth of the probability
# Words that name nothing that could be hidden.
FUNCTION_WORDS = {
    "en": frozenset(
        ("a", "an", "the", "and", "or", "of", "in", "on", "at", "to", "with", "for", "by", "from", "as", "is", "are",
         "be", "being", "its", "his", "her", "their", "it", "he", "she", "they", "while", "who", "that", "this", "'s",
         "up", "down", "into", "over", "through", "near", "next")
    ),
    "zh": frozenset("的在着了和一个上里中下正是有与并从向到们"),
}  # fmt: skip


@dataclass
class Tally:
    """Words of one kind: how many, how often hiding their own region cost more, and the mean costs in nats."""

    words: int = 0
    own_costs_more: int = 0
    own: float = 0.0
    other: float = 0.0

    def add(self, own: float, other: float) -> None:
        self.words += 1
        self.own_costs_more += own > other
        self.own += own
        self.other += other

    def told(self) -> dict[str, Any]:
        count = max(1, self.words)
        return {
            "words": self.words,
            "own_costs_more": self.own_costs_more / count,
            "cost_own": self.own / count,
            "cost_other": self.other / count,
        }


def faithfulness(captioner: Captioner, squares: Iterable[Square], language: str, *, seed: int = 0) -> dict[str, Any]:
    """Measure it on pictures: for each word of each caption its region is hidden, and another box of that size.

    Hidden is what is painted in the mean colour of the picture; the other box is drawn at random among all places on
    the grid where at most half of it is in the region. A word whose region leaves no such place is not counted. The
    cost is by how much the word's log-probability falls, the words before it given. "all" counts every word that has a
    place, "content" those that are not `FUNCTION_WORDS`, "felt" those that at least one of the two boxes cost `FELT`.
    """
    random = np.random.default_rng(seed)
    voice = captioner.voice(language)
    every, content, felt = Tally(), Tally(), Tally()
    pictures = 0
    for square in squares:
        features = captioner.encode([square])
        ((caption,),) = captioner.describe([square], [language], features=features)
        pictures += 1
        words = [(place, word) for place, word in enumerate(caption.words) if word.attention is not None]
        grids = np.stack([word.attention for _, word in words if word.attention is not None]) if words else None
        if grids is None:
            continue
        rows, columns = grids.shape[1:]
        boxes = attended_regions(grids, columns, rows)  # in cells
        places, masked = [], []
        for (place, _), box in zip(words, boxes, strict=True):
            other = another_box(box, columns, rows, random)
            if other is None:
                continue
            places.append(place)
            masked += [hide(square.pixels, box, columns, rows), hide(square.pixels, other, columns, rows)]
        if not places:
            continue
        tokens = sentence_tokens(voice, [word.word for word in caption.words])
        seen = captioner.encoder(np.stack(masked))
        scores = word_scores(voice, seen, tokens)  # [2 * places, T]
        (before,) = word_scores(voice, features, tokens)
        for number, place in enumerate(places):
            own, other_cost = (float(before[place] - scores[2 * number + side][place]) for side in (0, 1))
            every.add(own, other_cost)
            if caption.words[place].word not in FUNCTION_WORDS.get(language, ()):
                content.add(own, other_cost)
            if max(own, other_cost) >= FELT:
                felt.add(own, other_cost)
    kinds = {"all": every.told(), "content": content.told(), "felt": felt.told()}
    return {"language": language, "pictures": pictures, **kinds}


def another_box(
    box: tuple[int, int, int, int], columns: int, rows: int, random: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box of the same size elsewhere on a grid, in cells (x0, y0, x1, y1), of which at most half is in `box` too.

    None where there is no such place.
    """
    x0, y0, x1, y1 = box
    wide, high = x1 - x0, y1 - y0
    spots = [
        (x, y)
        for y in range(rows - high + 1)
        for x in range(columns - wide + 1)
        if 2 * max(0, wide - abs(x - x0)) * max(0, high - abs(y - y0)) <= wide * high
    ]
    if not spots:
        return None
    x, y = spots[int(random.integers(len(spots)))]
    return x, y, x + wide, y + high


def hide(
    pixels: npt.NDArray[np.uint8], box: tuple[int, int, int, int], columns: int, rows: int
) -> npt.NDArray[np.uint8]:
    """A copy of pixels [Y, X, 3] with a box, in cells, painted in the picture's mean colour."""
    high, wide = pixels.shape[:2]
    x0, y0, x1, y1 = box
    out = pixels.copy()
    out[y0 * high // rows : y1 * high // rows, x0 * wide // columns : x1 * wide // columns] = pixels.mean(axis=(0, 1))
    return out
