"""Attention as parts of a picture: the boxes of what words rest on, and boxes as cells of a grid.

T words, R regions, gy and gx rows and columns of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recur.engine.reference import Array, IntArray
from recur.predict.grounding import covered

GRID = 14  # cells a side that attention to boxes is shown on
REGION_THRESHOLD = 0.5  # a cell belongs to a word's region from this share of the strongest cell's attention on


def whole(box: Sequence[float]) -> tuple[int, int, int, int]:
    """A box in whole pixels."""
    x0, y0, x1, y1 = (round(side) for side in box)
    return x0, y0, x1, y1


def spread(attention: Array, boxes: Array) -> Array:
    """Attention [T, R] to regions with boxes [R, 4] (shares of the picture) as attention to the cells of a grid."""
    across, down = (
        np.stack([covered(box[low] * GRID, box[low + 2] * GRID, GRID) for box in boxes.clip(0, 1)]) for low in (0, 1)
    )
    shares = down[:, :, None] * across[:, None, :]
    shares /= np.maximum(shares.sum((1, 2), keepdims=True), 1e-9)
    return np.asarray(np.tensordot(attention, shares, 1), np.float32)


def attended_regions(
    attention: Array, width: int | IntArray, height: int | IntArray
) -> list[tuple[int, int, int, int]]:
    """The boxes (x0, y0, x1, y1) of what T words rest on: attention [T, gy, gx], pixels of a picture of that size;
    `width` and `height` [T] where the words are of several pictures.

    Starting from the strongest cell: all cells of at least `REGION_THRESHOLD` of its weight that can be reached side
    by side. The whole picture was squashed to a square, so a cell is a plain share of its width and height.
    """
    count, rows, columns = attention.shape
    flat = attention.reshape(count, rows * columns)
    strong = attention >= REGION_THRESHOLD * flat.max(axis=1)[:, None, None]
    reached = (np.arange(rows * columns) == flat.argmax(axis=1)[:, None]).reshape(attention.shape)
    while True:
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= strong
        if (grown == reached).all():
            break
        reached = grown
    in_row, in_column = reached.any(axis=2), reached.any(axis=1)
    sides = (
        in_column.argmax(axis=1) * (width / columns),
        in_row.argmax(axis=1) * (height / rows),
        (columns - in_column[:, ::-1].argmax(axis=1)) * (width / columns),
        (rows - in_row[:, ::-1].argmax(axis=1)) * (height / rows),
    )
    return [*map(tuple, np.stack(sides, 1).round().astype(int).tolist())]
