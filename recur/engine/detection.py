"""From the scores and boxes of all cells to a few objects: threshold, and one box for each object.

Of two boxes of one class that overlap, the better-scored one stays (greedy non-maximum suppression). Classes that are
alike, so that one thing may be called by any of them (man, boy, person), say the same of a place in part: each of their
scores rises with what all of them together say of it. And they would put several boxes on one person: the score of a
box sinks by its overlap with a better one of another such class (Bodla et al. 2017, "Soft-NMS").

A cells, N classes; boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recur.engine.reference import Array

OVERLAP = 0.5  # IoU from which on two boxes of one class are taken for one object
ALIKE = 0.5  # IoU from which on boxes of classes that are alike are
JOINT = 0.5  # how much classes that are alike raise each other: 0 not at all, 1 the best one to what all together say
LEAST_SUNK = 0.2  # share of its score that a box keeps at least
MOST_CANDIDATES = 400  # best-scored boxes of one picture that are looked at
Labels = npt.NDArray[np.int64]


def pick(
    scores: Array,
    boxes: Array,
    *,
    min_score: float,
    most: int = 100,
    alike: Sequence[Sequence[int]] = (),
) -> tuple[Array, Labels, Array]:
    """Boxes [K, 4], labels [K] and scores [K] of one picture, best first, from scores [A, N] and boxes [A, 4].

    `alike`: groups of classes that one object may have any of.
    """
    scores = _raise(scores, alike)
    cells, labels = np.nonzero(scores >= min_score)
    found = scores[cells, labels]
    if len(found) > MOST_CANDIDATES:
        best = np.argpartition(-found, MOST_CANDIDATES)[:MOST_CANDIDATES]
        cells, labels, found = cells[best], labels[best], found[best]
    order = np.lexsort((cells, labels, -found))  # of equal scores the same one first, on every machine
    cells, labels, found = cells[order], labels[order], found[order]
    chosen = boxes[cells].clip(0, 1)
    solid = (chosen[:, 2] > chosen[:, 0]) & (chosen[:, 3] > chosen[:, 1])
    chosen, labels, found = chosen[solid], labels[solid].astype(np.int64), found[solid]
    overlap = box_overlaps(chosen, chosen)
    kept = _suppress(overlap, labels)
    chosen, labels, found, overlap = chosen[kept], labels[kept], found[kept], overlap[np.ix_(kept, kept)]
    if alike:
        found = _sink(found, overlap, labels, alike)
        order = np.argsort(-found, kind="stable")
        order = order[found[order] >= min_score]
        chosen, labels, found = chosen[order], labels[order], found[order]
    return chosen[:most], labels[:most], found[:most]


def _raise(scores: Array, alike: Sequence[Sequence[int]]) -> Array:
    """The scores [A, N], those of each group times (any / best) ** JOINT: `any` the probability that one of the group
    is there, were they independent; `best` the greatest of them.
    """
    out = scores.copy() if alike else scores
    for group in alike:
        part = scores[:, list(group)]
        best = part.max(1, keepdims=True)
        joint = 1 - (1 - part).prod(1, keepdims=True)
        out[:, list(group)] = part * (joint / np.maximum(best, 1e-12)) ** JOINT
    return out


def _suppress(overlap: Array, labels: Labels) -> npt.NDArray[np.int64]:
    """Rows that stay; they come best first."""
    rival = (overlap >= OVERLAP) & (labels[:, None] == labels[None, :])
    free = np.ones(len(labels), bool)
    kept = []
    for row in range(len(labels)):
        if free[row]:
            kept.append(row)
            free &= ~rival[row]
    return np.array(kept, np.int64)


def _sink(found: Array, overlap: Array, labels: Labels, alike: Sequence[Sequence[int]]) -> Array:
    out = found.copy()
    for group in alike:
        rows = np.flatnonzero(np.isin(labels, group))
        for place, row in enumerate(rows):
            above = overlap[row, rows[:place]] if place else np.zeros(0)
            closest = float(above.max(initial=0.0))
            if closest >= ALIKE:
                out[row] = found[row] * max(1 - closest, LEAST_SUNK)
    return out


def box_overlaps(a: Array, b: Array) -> Array:
    """IoU [N, M] of boxes [N, 4] and [M, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.maximum(high - low, 0).prod(2)
    areas = [(each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None] - inner
    return np.asarray(inner / np.maximum(union, 1e-12))
