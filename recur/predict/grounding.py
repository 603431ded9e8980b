"""Which box a word speaks of: the nouns of a caption tied to the objects that a detector found.

T words of a caption, gy and gx rows and columns of the attention grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recur.engine.reference import Array
from recur.predict.detect import Detected, Detector


def tie(
    words: Sequence[str],
    language: str,
    attention: Sequence[Array | None],
    objects: Sequence[Detected],
    detector: Detector,
    *,
    width: int,
    height: int,
) -> list[int | None]:
    """The place in `objects` that each of T words speaks of, None for words without one.

    A noun speaks of an object of its class, or, where there is none, of a class that is alike. Of several it is the one
    with the greatest product of score and of the attention [gy, gx] that lies in its box when the word is said.
    """
    found: list[int | None] = []
    alike = {detector.classes[i]: {detector.classes[k] for k in group} for group in detector.alike for i in group}
    for name, grid in zip(detector.nouns.classes_of(words, language), attention, strict=True):
        places = [place for place, each in enumerate(objects) if each.label == name]
        if name is not None and not places:
            places = [place for place, each in enumerate(objects) if each.label in alike.get(name, ())]
        rated = [
            objects[place].score * (1.0 if grid is None else attention_inside(grid, objects[place].box, width, height))
            for place in places
        ]
        found.append(places[int(np.argmax(rated))] if places else None)
    return found


def attention_inside(grid: Array, box: Sequence[float], width: int, height: int) -> float:
    """The share of the attention [gy, gx] that lies in a box of a picture of that size; cells count in part."""
    rows, columns = grid.shape
    x0, y0, x1, y1 = box
    across = covered(x0 / width * columns, x1 / width * columns, columns)
    down = covered(y0 / height * rows, y1 / height * rows, rows)
    return float(down @ grid @ across)


def covered(start: float, stop: float, count: int) -> Array:
    """How much of each of `count` cells of length 1 lies between `start` and `stop`."""
    edges = np.arange(count, dtype=np.float32)
    return np.asarray((np.minimum(edges + 1, stop) - np.maximum(edges, start)).clip(0, 1), np.float32)
