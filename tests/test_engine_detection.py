"""From scores and boxes of all cells to a few objects."""

from __future__ import annotations

import numpy as np
import pytest

from recur.engine.detection import ALIKE, JOINT, LEAST_SUNK, OVERLAP, box_overlaps, pick

LEFT, NEARLY, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.4, 0.38], [0.6, 0.6, 1.0, 1.0]
BOXES = np.array([LEFT, NEARLY, RIGHT], np.float32)


def test_one_box_for_each_object() -> None:
    scores = np.array([[0.8, 0.0], [0.9, 0.0], [0.5, 0.0]], np.float32)
    boxes, labels, found = pick(scores, BOXES, min_score=0.1)
    assert found.tolist() == pytest.approx([0.9, 0.5])
    assert boxes.tolist() == [pytest.approx(NEARLY), pytest.approx(RIGHT)]
    assert labels.tolist() == [0, 0]


def test_other_classes_stay_unless_they_are_alike() -> None:
    scores = np.array([[0.8, 0.0], [0.0, 0.9], [0.0, 0.5]], np.float32)
    assert pick(scores, BOXES, min_score=0.1)[2].tolist() == pytest.approx([0.9, 0.8, 0.5])
    _, labels, found = pick(scores, BOXES, min_score=0.01, alike=[[0, 1]])
    assert labels.tolist() == [1, 1, 0]
    assert found.tolist() == pytest.approx([0.9, 0.5, 0.8 * LEAST_SUNK], abs=1e-5)
    assert pick(scores, BOXES, min_score=0.3, alike=[[0, 1]])[1].tolist() == [1, 1]
    apart = BOXES + np.array([[0.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    closest = float(box_overlaps(apart[:1], apart[1:2])[0, 0])
    assert ALIKE < closest < 1 - LEAST_SUNK
    found = pick(scores, apart, min_score=0.01, alike=[[0, 1]])[2]
    assert found.tolist() == pytest.approx([0.9, 0.5, 0.8 * (1 - closest)], abs=1e-5)


def test_classes_that_are_alike_raise_each_other() -> None:
    boxes = np.array([LEFT, RIGHT], np.float32)
    scores = np.array([[0.2, 0.2, 0.0, 0.5], [0.25, 0.0, 0.0, 0.25]], np.float32)
    alone = pick(scores, boxes, min_score=0.1)
    assert alone[1].tolist() == [3, 0, 3, 0, 1]
    where, labels, found = pick(scores, boxes, min_score=0.1, alike=[[0, 1, 2]])
    # 0.36 is the probability of either on the left, as much as 1.8 times the best one's; its root is what they rise by.
    assert labels.tolist()[:2] == [3, 0]
    assert where[1].tolist() == pytest.approx(LEFT)
    assert found[:4].tolist() == pytest.approx([0.5, 0.2 * 1.8**JOINT, 0.25, 0.25], abs=1e-5)
    assert scores[0].tolist() == pytest.approx([0.2, 0.2, 0.0, 0.5]), "the caller's scores stay"
    assert np.isfinite(pick(np.zeros((2, 4), np.float32), boxes, min_score=0.0, alike=[[0, 1]])[2]).all()


def test_boxes_are_cut_and_empty_ones_left_out() -> None:
    boxes = np.array([[-1.0, -1.0, 0.5, 2.0], [1.2, 0.0, 1.5, 1.0], [0.5, 0.5, 0.4, 0.9]], np.float32)
    where, _, _ = pick(np.full((3, 1), 0.9, np.float32), boxes, min_score=0.1)
    assert where.tolist() == [[0.0, 0.0, 0.5, 1.0]]


def test_nothing_and_very_many() -> None:
    assert len(pick(np.zeros((3, 2), np.float32), BOXES, min_score=0.1)[2]) == 0
    random = np.random.default_rng(0)
    corner = random.random((3000, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + 0.05], 1)
    scores = random.random((3000, 4)).astype(np.float32)
    where, labels, found = pick(scores, boxes, min_score=0.0, most=100)
    assert len(found) == 100
    assert (np.diff(found) <= 0).all()
    for label in range(4):
        rows = labels == label
        assert (box_overlaps(where[rows], where[rows]) - np.eye(rows.sum()) < OVERLAP).all()


def test_overlaps_are_those_of_the_loss() -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.detection import overlaps

    random = np.random.default_rng(0)
    corner = random.random((9, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + random.random((9, 2)).astype(np.float32)], 1)
    rows = torch.from_numpy(boxes)
    assert box_overlaps(boxes, boxes) == pytest.approx(overlaps(rows[:, None], rows[None])[0].numpy(), abs=1e-4)
