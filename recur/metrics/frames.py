"""How well the labels of frames fit: by frame, by the order of segments, and by their overlap.

Edit score and F1@k as Lea et al. (2017), "Temporal Convolutional Networks for Action Segmentation and Detection",
define them: neither counts a shift of a border, both count every segment too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]


def segments(labels: Sequence[int] | Labels) -> list[tuple[int, int, int]]:
    """(label, first frame, frame after the last) of each run of one label."""
    y = np.asarray(labels)
    if not len(y):
        return []
    borders = [0, *(np.flatnonzero(y[1:] != y[:-1]) + 1).tolist(), len(y)]
    return [(int(y[start]), start, end) for start, end in pairwise(borders)]


def frame_accuracy(found: Labels, truth: Labels) -> float:
    """The share of frames with the right label."""
    return float((np.asarray(found) == np.asarray(truth)).mean())


def edit_score(found: Labels, truth: Labels) -> float:
    """1 - the Levenshtein distance of the two orders of segments, over the longer one's length."""
    p, y = [each[0] for each in segments(found)], [each[0] for each in segments(truth)]
    row = list(range(len(y) + 1))
    for i, a in enumerate(p, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(y, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return 1 - row[-1] / max(len(p), len(y), 1)


def overlap_counts(found: Labels, truth: Labels, least: float) -> tuple[int, int, int]:
    """Right, wrong and missed segments: one is right that overlaps a free one of its label by `least`."""
    wanted = segments(truth)
    used = [False] * len(wanted)
    right = wrong = 0
    for label, start, end in segments(found):
        shares = [
            (min(end, e) - max(start, s)) / (max(end, e) - min(start, s)) if other == label else -1.0
            for other, s, e in wanted
        ]
        best = int(np.argmax(shares))
        if shares[best] >= least and not used[best]:
            used[best], right = True, right + 1
        else:
            wrong += 1
    return right, wrong, used.count(False)


def frame_scores(pairs: Sequence[tuple[Labels, Labels]]) -> dict[str, float]:
    """Accuracy over all frames, mean edit score, and F1@10/25/50 over all segments, of (found, truth) pairs."""
    found = {
        "accuracy": float(np.mean(np.concatenate([np.asarray(p) == np.asarray(y) for p, y in pairs]))),
        "edit": float(np.mean([edit_score(p, y) for p, y in pairs])),
    }
    for percent in (10, 25, 50):
        right, wrong, missed = np.sum([overlap_counts(p, y, percent / 100) for p, y in pairs], 0)
        found[f"f1_{percent}"] = float(2 * right / max(2 * right + wrong + missed, 1))
    return found
