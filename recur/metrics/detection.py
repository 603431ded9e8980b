"""How well objects are found: average precision as COCO counts it (Lin et al. 2014), equal to its `pycocotools`.

A detection is right when it overlaps an object of its class by at least the threshold and no better-scored one has
taken that object; AP is the mean precision at 101 levels of recall, here over ten thresholds from 0.50 to 0.95. Objects
that are to be ignored (crowds, or of another size than asked for) count neither for nor against.

N detections, M objects of one picture and class; T thresholds; boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THRESHOLDS: Final[Floats] = np.linspace(0.5, 0.95, 10)
RECALLS: Final[Floats] = np.linspace(0.0, 1.0, 101)
SIZES: Final = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
KEYS: Final = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar100_small", "ar100_medium", "ar100_large",
)  # fmt: skip
MOST: Final = 100  # detections of a picture and class that are looked at


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of one picture: boxes [M, 4], labels [M], and which of them are crowds [M]."""

    boxes: Floats
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one picture: boxes [N, 4], labels [N], scores [N]."""

    boxes: Floats
    labels: NDArray[np.int64]
    scores: Floats


@dataclass(frozen=True, eq=False)
class Matches:
    """Of one class and size, the detections of all pictures, best score first.

    right, ignored [T, D]; scores [D]; objects: how many there are to be found.
    """

    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    scores: Floats
    objects: int


def overlaps(found: Floats, truth: Floats, crowd: NDArray[np.bool_]) -> Floats:
    """IoU [N, M]; for a crowd, the share of the detection that lies in it."""
    x0, y0 = np.maximum(found[:, None, 0], truth[None, :, 0]), np.maximum(found[:, None, 1], truth[None, :, 1])
    x1, y1 = np.minimum(found[:, None, 2], truth[None, :, 2]), np.minimum(found[:, None, 3], truth[None, :, 3])
    inner = np.maximum(x1 - x0, 0) * np.maximum(y1 - y0, 0)
    mine = _areas(found)[:, None]
    union = np.where(crowd[None, :], mine, mine + _areas(truth)[None, :] - inner)
    out: Floats = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    return out


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def match(
    truth: Sequence[Truth], found: Sequence[Found], label: int, *, size: str = "all", most: int = MOST
) -> Matches:
    """Detections of class `label` against its objects, picture by picture, as COCO does it."""
    return _matched(_pairs(truth, found, label), size, most)


_Pair = tuple[Floats, Floats, Floats, NDArray[np.bool_], Floats]  # overlaps, scores, areas of both sides, crowd


def _pairs(truth: Sequence[Truth], found: Sequence[Found], label: int) -> list[_Pair]:
    pairs = []
    for there, seen in zip(truth, found, strict=True):
        mine, theirs = np.flatnonzero(seen.labels == label), np.flatnonzero(there.labels == label)
        if not len(mine) and not len(theirs):
            continue
        order = mine[np.argsort(-seen.scores[mine], kind="mergesort")][:MOST]
        crowd = there.crowd[theirs]
        boxes, objects = seen.boxes[order], there.boxes[theirs]
        pairs.append((overlaps(boxes, objects, crowd), seen.scores[order], _areas(boxes), crowd, _areas(objects)))
    return pairs


def _matched(pairs: Sequence[_Pair], size: str, most: int) -> Matches:
    low, high = SIZES[size]
    right, ignored, scores = [], [], []
    objects = 0
    for iou, score, area, crowd, object_area in pairs:
        skip = crowd | (object_area < low) | (object_area > high)
        order = np.argsort(skip, kind="mergesort")  # those that count are tried first
        hit, hit_skipped = _greedy(iou[:most, order], skip[order], crowd[order])
        outside = (area[:most] < low) | (area[:most] > high)
        right.append(hit & ~hit_skipped)
        ignored.append(hit_skipped | (~hit & outside[None]))
        scores.append(score[:most])
        objects += int((~skip).sum())
    if not scores:
        none = np.zeros((len(THRESHOLDS), 0), bool)
        return Matches(none, none, np.zeros(0), objects)
    joined = np.concatenate(scores)
    ranked = np.argsort(-joined, kind="mergesort")
    return Matches(np.concatenate(right, 1)[:, ranked], np.concatenate(ignored, 1)[:, ranked], joined[ranked], objects)


def _greedy(
    iou: Floats, skip: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections [T, N] take an object, and which of these one that is skipped; best score first.

    Objects that count stand before those that are skipped; of equal overlaps the later object is taken.
    """
    count = len(iou)
    hit = np.zeros((len(THRESHOLDS), count), bool)
    hit_skipped = np.zeros_like(hit)
    counting = int((~skip).sum())
    for t, threshold in enumerate(THRESHOLDS):
        least = min(threshold, 1 - 1e-10)
        free = np.ones(len(skip), bool)
        candidates = np.flatnonzero(iou.max(1, initial=0.0) >= least)
        for row in candidates:
            for start, stop in ((0, counting), (counting, len(skip))):
                possible = np.where(free[start:stop] | crowd[start:stop], iou[row, start:stop], -1.0)
                best = float(possible.max(initial=-1.0))
                if best >= least:
                    place = start + len(possible) - 1 - int(np.argmax(possible[::-1]))
                    free[place] = False
                    hit[t, row] = True
                    hit_skipped[t, row] = skip[place]
                    break
    return hit, hit_skipped


def precision_recall(matches: Matches) -> tuple[Floats, Floats]:
    """The precision at each of `RECALLS` [T, 101], and the highest recall [T]; NaN where nothing is to be found."""
    count = len(THRESHOLDS)
    if not matches.objects:
        return np.full((count, len(RECALLS)), np.nan), np.full(count, np.nan)
    right = np.cumsum(matches.right, 1, dtype=np.float64)
    wrong = np.cumsum(~matches.right & ~matches.ignored, 1, dtype=np.float64)
    precision = np.zeros((count, len(RECALLS)))
    highest = np.zeros(count)
    for t in range(count):
        if not right.shape[1]:
            continue
        recall = right[t] / matches.objects
        exact = right[t] / (right[t] + wrong[t] + np.spacing(1))
        envelope = np.maximum.accumulate(exact[::-1])[::-1]
        places = np.searchsorted(recall, RECALLS, side="left")
        inside = places < len(recall)
        precision[t, inside] = envelope[places[inside]]
        highest[t] = recall[-1]
    return precision, highest


def evaluate_detections(truth: Sequence[Truth], found: Sequence[Found], classes: Sequence[str]) -> dict[str, Any]:
    """COCO's table: ap, ap50, ap75, by size; ar1, ar10, ar100 and by size; and ap, ap50 and objects of each class.

    What cannot be measured, because nothing of it is there, is None. Means are over classes that have objects.
    """
    table: dict[str, list[float]] = {}
    by_class: dict[str, dict[str, Any]] = {}

    def note(key: str, value: float) -> None:
        table.setdefault(key, []).append(value)

    for label, name in enumerate(classes):
        pairs = _pairs(truth, found, label)
        for size in SIZES:
            matches = _matched(pairs, size, MOST)
            precision, recall = precision_recall(matches)
            tail = "" if size == "all" else f"_{size}"
            note(f"ap{tail}", float(precision.mean()))
            note(f"ar100{tail}", float(recall.mean()))
            if size == "all":
                note("ap50", float(precision[0].mean()))
                note("ap75", float(precision[5].mean()))
                by_class[name] = {
                    "ap": _known(float(precision.mean())),
                    "ap50": _known(float(precision[0].mean())),
                    "objects": matches.objects,
                }
        for most in (1, 10):
            note(f"ar{most}", float(precision_recall(_matched(pairs, "all", most))[1].mean()))
    return {
        "pictures": len(truth),
        **{key: _mean(table.get(key, [])) for key in KEYS},
        "classes": by_class,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else None


def merged(truth: Sequence[Truth], found: Sequence[Found], labels: Sequence[int]) -> tuple[list[Truth], list[Found]]:
    """The same with all of `labels` as class 0 and nothing else; an object that has several of them counts once."""
    there, seen = [], []
    for before in truth:
        rows = np.flatnonzero(np.isin(before.labels, labels))
        _, first = np.unique(before.boxes[rows], axis=0, return_index=True)
        rows = rows[np.sort(first)]
        there.append(Truth(before.boxes[rows], np.zeros(len(rows), np.int64), before.crowd[rows]))
    for each in found:
        rows = np.flatnonzero(np.isin(each.labels, labels))
        seen.append(Found(each.boxes[rows], np.zeros(len(rows), np.int64), each.scores[rows]))
    return there, seen
