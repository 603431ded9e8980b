"""Is a confidence honest? Calibration errors, risk-coverage curve, and the logistic fit that makes it honest.

Everywhere: p [N] are probabilities between 0 and 1, y [N] is 1 (right, acceptable) or 0. Everything is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def _pair(p: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    probabilities, outcomes = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if probabilities.ndim != 1 or probabilities.shape != outcomes.shape or not probabilities.size:
        raise ValueError(f"got shapes {probabilities.shape} and {outcomes.shape}; give two vectors of one length")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("a probability is outside 0..1")
    _check_outcomes(outcomes)
    return probabilities, outcomes


def _check_outcomes(outcomes: Floats) -> None:
    if not np.isin(outcomes, (0.0, 1.0)).all():
        raise ValueError("an outcome is neither 0 nor 1")


def expected_calibration_error(p: ArrayLike, y: ArrayLike, *, bins: int = 15, equal: str = "mass") -> float:
    """Mean over the bins, weighted by their sizes, of |mean p - mean y|; 0 is perfect, 1 the worst.

    equal="mass": bins of as many items as one another (by rank of p; items of the same p, which no bin should tell
    apart, count with their common mean outcome). equal="width": bins [0, 1/bins), ..., [1 - 1/bins, 1]; empty ones do
    not count. With more bins than items, each item is a bin. Naeini, Cooper and Hauskrecht 2015; Nixon et al. 2019.
    """
    probabilities, outcomes = _pair(p, y)
    if bins < 1:
        raise ValueError(f"got {bins} bins; give at least one")
    if equal == "width":
        place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    elif equal == "mass":
        order = np.argsort(probabilities, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) * min(bins, len(order)) // len(order)
        _, group = np.unique(probabilities, return_inverse=True)
        outcomes = (np.bincount(group, outcomes) / np.bincount(group))[group]
    else:
        raise ValueError(f"got equal={equal!r}; give 'mass' or 'width'")
    gaps = np.bincount(place, probabilities, minlength=bins) - np.bincount(place, outcomes, minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))


def brier_score(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared difference of probability and outcome; 0 is perfect, 0.25 what p = 0.5 gets. Brier 1950."""
    probabilities, outcomes = _pair(p, y)
    return float(np.mean((probabilities - outcomes) ** 2))


def risk_coverage(confidence: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    """(coverage [M], risk [M]): answering only the most confident share `coverage`, the share `risk` of it is wrong.

    Confidence is any score, higher is surer. Items of the same confidence are answered together, so M is the number of
    distinct confidences; the last coverage is 1. El-Yaniv and Wiener 2010.
    """
    scores, outcomes = np.asarray(confidence, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != outcomes.shape or not scores.size:
        raise ValueError(f"got shapes {scores.shape} and {outcomes.shape}; give two vectors of one length, not empty")
    if np.isnan(scores).any():
        raise ValueError("a confidence is not a number")
    _check_outcomes(outcomes)
    order = np.argsort(-scores, kind="stable")
    ranked, wrong = scores[order], np.cumsum(1.0 - outcomes[order])
    last = np.append(ranked[1:] != ranked[:-1], True)  # the last item of each confidence
    answered = np.arange(1, len(ranked) + 1, dtype=np.float64)
    return answered[last] / len(ranked), wrong[last] / answered[last]


def risk_coverage_area(confidence: ArrayLike, y: ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages; 0 is perfect, the error rate is chance.

    Each item adds its risk; items of the same confidence count as if they came in random order.
    """
    coverage, risk = risk_coverage(confidence, y)
    total = len(np.asarray(confidence))
    answered, wrong = np.rint(coverage * total), np.rint(coverage * risk * total)
    items = np.arange(1, total + 1, dtype=np.float64)
    return float(np.mean(np.interp(items, np.append(0.0, answered), np.append(0.0, wrong)) / items))


def sigmoid(z: ArrayLike) -> Floats:
    """1 / (1 + exp(-z)) without overflow."""
    values = np.asarray(z, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def fit_logistic(x: ArrayLike, y: ArrayLike, *, l2: float = 1.0, iterations: int = 100) -> tuple[Floats, float]:
    """(weights [D], bias) such that sigmoid(x @ weights + bias) is the probability of y = 1; x [N, D], y [N].

    Minimises the summed cross-entropy plus l2 / 2 times the squared weights of the STANDARDISED features (the bias is
    free); the weights returned apply to x as given. A constant feature gets weight 0. Newton's method with halved steps
    where a whole one overshoots, from zero. Outcomes are softened as in Platt 1999 ((n1 + 1) / (n1 + 2) and
    1 / (n0 + 2) for n1 ones and n0 zeros), so that separable data, or data of one class, stay finite.
    Raises ValueError for shapes that do not fit, numbers that are not finite, or outcomes other than 0 and 1.
    """
    features, outcomes = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if features.ndim != 2 or outcomes.shape != features.shape[:1] or not outcomes.size:
        raise ValueError(f"got x {features.shape} and y {outcomes.shape}; give x [N, D] and y [N], not empty")
    if not np.isfinite(features).all():
        raise ValueError("a feature is not a finite number")
    if l2 < 0:
        raise ValueError(f"got l2 {l2}; give 0 or more")
    _check_outcomes(outcomes)
    ones = outcomes.sum()
    targets = np.where(outcomes > 0, (ones + 1) / (ones + 2), 1 / (len(outcomes) - ones + 2))
    centre, spread = features.mean(axis=0), features.std(axis=0)
    constant = spread <= 1e-12 * np.maximum(1.0, np.abs(centre))
    spread = np.where(constant, 1.0, spread)
    design = np.hstack([np.where(constant, 0.0, (features - centre) / spread), np.ones((len(features), 1))])
    # the tiny ridge keeps the system solvable when l2 is 0 and features repeat one another
    ridge = np.append(np.full(features.shape[1], max(l2, 1e-9)), 1e-12)

    def loss(parameters: Floats) -> float:
        z = design @ parameters
        return float(np.sum(np.logaddexp(0.0, z) - targets * z) + 0.5 * np.sum(ridge * parameters**2))

    parameters = np.zeros(design.shape[1])
    value = loss(parameters)
    for _ in range(iterations):
        p = sigmoid(design @ parameters)
        gradient = design.T @ (p - targets) + ridge * parameters
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while scale > 1e-6 and loss(parameters - scale * step) > value:
            scale /= 2
        if scale <= 1e-6:
            break
        parameters = parameters - scale * step
        value = loss(parameters)
        if np.abs(step).max() < 1e-10:
            break
    weights = np.where(constant, 0.0, parameters[:-1] / spread)
    return weights, float(parameters[-1] - weights @ centre)


def cross_validate(
    x: ArrayLike,
    y: ArrayLike,
    *,
    folds: int = 5,
    l2: float = 1.0,
    groups: ArrayLike | None = None,
    fit: Callable[..., tuple[Floats, float]] = fit_logistic,
) -> Floats:
    """Probability [N] of each item from a fit that has not seen it (nor, with groups [N], anything of its group).

    Item (or group) i, in order of first appearance, is held out in fold i mod folds.
    """
    features, outcomes = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    labels: NDArray[Any] = np.arange(len(outcomes)) if groups is None else np.asarray(groups)
    if labels.shape != outcomes.shape:
        raise ValueError(f"got {labels.shape} groups for {outcomes.shape} outcomes; give one each")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    if not 2 <= folds <= len(first):
        raise ValueError(f"got {folds} folds for {len(first)} items or groups; give 2 to {len(first)}")
    fold = number[inverse] % folds
    held_out = np.empty(len(outcomes))
    for part in range(folds):
        test = fold == part
        weights, bias = fit(features[~test], outcomes[~test], l2=l2)
        held_out[test] = sigmoid(features[test] @ weights + bias)
    return held_out


def cross_validated_ece(
    x: ArrayLike, y: ArrayLike, *, folds: int = 5, bins: int = 15, l2: float = 1.0, groups: ArrayLike | None = None
) -> float:
    """Expected calibration error (bins of equal mass) of the logistic fit on items it has not seen."""
    held_out = cross_validate(x, y, folds=folds, l2=l2, groups=groups)
    return expected_calibration_error(held_out, y, bins=bins)
