"""Calibration: errors and curves by hand, and the logistic fit against the definition of its optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recur.metrics.calibration import (
    brier_score,
    cross_validate,
    cross_validated_ece,
    expected_calibration_error,
    fit_logistic,
    risk_coverage,
    risk_coverage_area,
    sigmoid,
)


def sample(seed: int, count: int = 400) -> tuple[Any, Any, Any]:
    """Features of very different scale, the probability that they truly give, and outcomes drawn from it."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)) * (1.0, 100.0, 0.01) + (5.0, -300.0, 0.0)
    p = sigmoid(1.5 * (x[:, 0] - 5) - 0.01 * (x[:, 1] + 300) + 0.4)
    return x, p, (random.random(count) < p).astype(int)


def test_expected_calibration_error_by_hand() -> None:
    p, y = [0.1, 0.2, 0.3, 0.4, 0.8, 0.9], [0, 1, 0, 0, 1, 1]
    # mass: (0.1, 0.2) 0.15 to 0.5; (0.3, 0.4) 0.35 to 0; (0.8, 0.9) 0.85 to 1
    assert expected_calibration_error(p, y, bins=3) == pytest.approx((0.35 + 0.35 + 0.15) / 3)
    # width: [0, 1/2) holds four, 0.25 to 0.25; [1/2, 1] two
    assert expected_calibration_error(p, y, bins=2, equal="width") == pytest.approx(0.15 / 3)
    assert expected_calibration_error(p, y, bins=1) == pytest.approx(abs(2.7 / 6 - 0.5))
    assert expected_calibration_error([0.0, 1.0], [0, 1], equal="width") == 0.0
    assert expected_calibration_error([0.0, 1.0], [1, 0], bins=100) == 1.0


def test_equal_confidences_are_one_group() -> None:
    """Bins of equal mass must not sort rights from wrongs that have the same confidence."""
    y = [0] * 50 + [1] * 50
    assert expected_calibration_error([0.5] * 100, y, bins=10) == pytest.approx(0)
    assert expected_calibration_error([0.7] * 100, y, bins=10) == pytest.approx(0.2)


def test_order_does_not_matter() -> None:
    _, p, y = sample(3)
    mixed = np.random.default_rng(0).permutation(len(p))
    for equal in ("mass", "width"):
        one = expected_calibration_error(p, y, equal=equal)
        assert expected_calibration_error(p[mixed], y[mixed], equal=equal) == pytest.approx(one)
        assert one < 0.09  # 400 draws from p itself
        assert expected_calibration_error(1 - p, y, equal=equal) > 0.2
    assert risk_coverage_area(p[mixed], y[mixed]) == pytest.approx(risk_coverage_area(p, y))


def test_brier_by_hand() -> None:
    assert brier_score([1.0, 0.0, 0.5, 0.2], [1, 0, 1, 1]) == pytest.approx((0.25 + 0.64) / 4)


def test_risk_coverage_by_hand() -> None:
    coverage, risk = risk_coverage([0.9, 0.8, 0.8, 0.1], [1, 0, 1, 0])
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 3, 1 / 2])
    # the two of 0.8 come in either order: 0, 0.5 / 2, 1 / 3, 2 / 4
    assert risk_coverage_area([0.9, 0.8, 0.8, 0.1], [1, 0, 1, 0]) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)
    assert risk_coverage_area([3.0, 2.0, 1.0], [1, 1, 1]) == 0
    assert risk_coverage_area([0.5] * 10, [1, 0] * 5) == pytest.approx(0.5)  # no knowledge: the error rate


def test_fit_finds_the_optimum() -> None:
    """At the optimum the gradient is zero: checked here from the definition, in the units of the data."""
    x, _, y = sample(1)
    weights, bias = fit_logistic(x, y, l2=2.0)
    ones = y.sum()
    targets = np.where(y == 1, (ones + 1) / (ones + 2), 1 / (len(y) - ones + 2))
    residual = sigmoid(x @ weights + bias) - targets
    spread = x.std(axis=0)
    assert residual.sum() == pytest.approx(0, abs=1e-7)
    scaled = (x - x.mean(axis=0)) / spread
    assert scaled.T @ residual == pytest.approx(-2.0 * weights * spread, abs=1e-6)
    assert weights[0] == pytest.approx(1.5, abs=0.4)
    assert weights[1] == pytest.approx(-0.01, abs=0.004)


def test_fit_is_deterministic_and_does_not_mind_units() -> None:
    x, _, y = sample(2)
    weights, bias = fit_logistic(x, y)
    again, _ = fit_logistic(x, y)
    assert weights.tolist() == again.tolist()
    scaled, other = fit_logistic(x * 1000 + 7, y)
    assert sigmoid((x * 1000 + 7) @ scaled + other) == pytest.approx(sigmoid(x @ weights + bias), abs=1e-8)


def test_fit_survives_odd_data() -> None:
    x = np.array([[-2.0, 7.0], [-1.0, 7.0], [1.0, 7.0], [2.0, 7.0]])
    weights, bias = fit_logistic(x, [0, 0, 1, 1], l2=0.0)  # separable, one feature constant
    assert np.isfinite([*weights, bias]).all()
    assert weights[1] == 0
    assert (sigmoid(x @ weights + bias) > 0.5).tolist() == [False, False, True, True]
    weights, bias = fit_logistic(x, [1, 1, 1, 1])
    assert sigmoid(x @ weights + bias) == pytest.approx(5 / 6)  # never certain
    weights, bias = fit_logistic(np.hstack([x, x]), [0, 1, 0, 1], l2=0.0)  # the same feature twice
    assert np.isfinite([*weights, bias]).all()
    weights, bias = fit_logistic([[1e8], [1e8 + 1]], [0, 1])
    assert np.isfinite([*weights, bias]).all()


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid([-1e9, 0.0, 1e9]).tolist() == [0.0, 0.5, 1.0]


def test_cross_validation_holds_out() -> None:
    x, _, y = sample(4)
    held_out = cross_validate(x, y, folds=4)
    test = np.arange(len(y)) % 4 == 1
    weights, bias = fit_logistic(x[~test], y[~test])
    assert held_out[test] == pytest.approx(sigmoid(x[test] @ weights + bias))
    assert cross_validated_ece(x, y, folds=4) == expected_calibration_error(held_out, y)
    assert cross_validated_ece(x, y, folds=4) < 0.1


def test_groups_stay_together() -> None:
    """Three captions of one picture are never on both sides of a split; groups count from their first appearance."""
    seen: list[set[float]] = []

    def fit(x: Any, y: Any, *, l2: float) -> tuple[Any, float]:
        seen.append({float(value) for value in x[:, 0]})
        return np.zeros(1), 0.0

    groups = ["b", "b", "a", "c", "a", "b", "c", "d"]
    x = np.array([[float(ord(group))] for group in groups])
    cross_validate(x, [0, 1] * 4, folds=2, groups=groups, fit=fit)
    assert seen == [{float(ord("a")), float(ord("d"))}, {float(ord("b")), float(ord("c"))}]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="outside"):
        brier_score([1.5], [1])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        brier_score([0.5], [0.5])
    with pytest.raises(ValueError, match="vectors of one length"):
        expected_calibration_error([0.5, 0.5], [1])
    with pytest.raises(ValueError, match="vectors of one length"):
        risk_coverage([], [])
    with pytest.raises(ValueError, match="not a number"):
        risk_coverage([float("nan")], [1])
    with pytest.raises(ValueError, match="'mass' or 'width'"):
        expected_calibration_error([0.5], [1], equal="size")
    with pytest.raises(ValueError, match="at least one"):
        expected_calibration_error([0.5], [1], bins=0)
    with pytest.raises(ValueError, match="x \\[N, D\\]"):
        fit_logistic([1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="finite"):
        fit_logistic([[float("inf")]], [0])
    with pytest.raises(ValueError, match="l2"):
        fit_logistic([[1.0]], [0], l2=-1)
    with pytest.raises(ValueError, match="folds"):
        cross_validate([[1.0], [2.0]], [0, 1], folds=3)
