"""Average precision, equal to pycocotools; hand-made cases that can be counted on paper."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from recur.metrics.detection import KEYS, Found, Truth, evaluate_detections, merged
from recur.metrics.grounding import pointing


def truth(*rows: tuple[list[float], int] | tuple[list[float], int, bool]) -> Truth:
    boxes = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    crowd = np.array([len(row) > 2 and bool(row[2]) for row in rows], bool)  # type: ignore[misc]
    return Truth(boxes, np.array([row[1] for row in rows], np.int64), crowd)


def found(*rows: tuple[list[float], int, float]) -> Found:
    boxes = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    return Found(boxes, np.array([row[1] for row in rows], np.int64), np.array([row[2] for row in rows], np.float64))


def random_case(seed: int) -> tuple[list[Truth], list[Found]]:
    random = np.random.default_rng(seed)

    def boxes(count: int) -> Any:
        corner, sides = random.integers(0, 150, (count, 2)), random.integers(1, 140, (count, 2))
        return np.concatenate([corner, corner + sides], 1).astype(np.float64)

    there, seen = [], []
    for _ in range(8):
        objects, detections = int(random.integers(0, 8)), int(random.integers(0, 120))
        mine, theirs = boxes(objects), boxes(detections)
        if objects and detections:
            near = detections // 2
            theirs[:near] = mine[random.integers(0, objects, near)] + random.integers(-6, 7, (near, 4))
            theirs[:, 2:] = np.maximum(theirs[:, 2:], theirs[:, :2] + 1)
        there.append(Truth(mine, random.integers(0, 3, objects), random.random(objects) < 0.15))
        scores = np.round(random.random(detections), 2)  # with ties
        seen.append(Found(theirs, random.integers(0, 4, detections), scores))
    return there, seen


def published(there: list[Truth], seen: list[Found], classes: int) -> list[float]:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for image, (mine, theirs) in enumerate(zip(there, seen, strict=True)):
        for (x0, y0, x1, y1), label, crowd in zip(mine.boxes, mine.labels, mine.crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": int(label), "iscrowd": int(crowd),
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
                }
            )  # fmt: skip
        for (x0, y0, x1, y1), label, score in zip(theirs.boxes, theirs.labels, theirs.scores, strict=True):
            results.append(
                {
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(score),
                }
            )
    data = coco.COCO()
    data.dataset = {
        "images": [{"id": image, "width": 300, "height": 300} for image in range(len(there))],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        run = cocoeval.COCOeval(data, data.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    stats: list[float] = run.stats.tolist()
    return stats


@pytest.mark.parametrize("seed", range(6))
def test_the_table_is_that_of_pycocotools(seed: int) -> None:
    there, seen = random_case(seed)
    report = evaluate_detections(there, seen, ["a", "b", "c", "d"])
    mine = [-1.0 if report[key] is None else report[key] for key in KEYS]
    assert mine == pytest.approx(published(there, seen, 4), abs=1e-12)


def test_hand_made_cases_are_those_of_pycocotools() -> None:
    square, other = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    there = [truth((square, 0), (other, 0)), truth((square, 1)), truth((square, 0, True)), truth()]
    seen = [
        found((square, 0, 0.9), (square, 0, 0.8), ([0.0, 0.0, 10.0, 5.0], 0, 0.7)),
        found((other, 1, 0.5)),
        found((square, 0, 0.95), (square, 0, 0.94)),
        found((square, 0, 0.1)),
    ]
    report = evaluate_detections(there, seen, ["a", "b"])
    mine = [-1.0 if report[key] is None else report[key] for key in KEYS]
    assert mine == pytest.approx(published(there, seen, 2), abs=1e-12)
    # Class a: of two objects one is found by the first detection that counts (crowds do not): recall 0 to 0.5 at
    # precision 1, that is 51 of 101 levels; class b: nothing.
    assert report["classes"]["a"]["ap50"] == pytest.approx(51 / 101)
    assert report["classes"]["b"]["ap50"] == 0.0


def test_what_is_not_there_is_not_measured() -> None:
    report = evaluate_detections([truth()], [found(([0.0, 0.0, 1.0, 1.0], 0, 0.5))], ["a"])
    assert report["ap"] is None
    assert report["classes"]["a"] == {"ap": None, "ap50": None, "objects": 0}
    assert evaluate_detections([truth(([0.0, 0.0, 5.0, 5.0], 0))], [found()], ["a"])["ap"] == 0.0


def test_classes_taken_as_one_count_an_object_once() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    there, seen = merged(
        [truth((box, 0), (box, 1), (box, 2))], [found((box, 1, 0.9), (box, 2, 0.8), (box, 0, 0.7))], [0, 1]
    )
    assert there[0].boxes.tolist() == [box]
    assert seen[0].scores.tolist() == [0.9, 0.7]
    assert evaluate_detections(there, seen, ["one"])["ap50"] == pytest.approx(1.0)


def test_where_words_point() -> None:
    attention = np.array([[0.1, 0.7], [0.1, 0.1]], np.float32)
    right_upper, whole = np.array([[0.5, 0.0, 0.9, 0.4]]), np.array([[0.0, 0.0, 1.0, 1.0]])
    assert pointing(attention, None, right_upper) == (True, True, False)
    assert pointing(attention, (0.2, 0.8), right_upper) == (True, False, False)
    assert pointing(attention, (0.2, 0.8), whole) == (True, True, True)
