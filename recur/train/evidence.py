"""What the whole picture says of the classes, learned from the maps that a detection head was trained on.

A logistic regression from the mean of the coarsest map to which classes have a box in the picture; a convex problem,
solved to its minimum in seconds, so there is nothing to resume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from recur.nn.detection import Evidence
from recur.train.pyramid import Pyramids

# These three were chosen on Flickr8k's dev pictures.
PENALTY = 1e-2  # times the squared weights, of features that have a spread of 1
POWER = 0.5  # how much the factor counts
ALIKE_POWER = 0.1  # for classes that one object may have any of
WHOLE = 2  # views that show all of the picture: itself and its mirror image
STEPS = 60
LOOK = 100  # pictures whose maps are read together


def learn_evidence(
    pyramids: Pyramids,
    truth: Sequence[tuple[NDArray[np.float64], NDArray[np.float32]]],
    *,
    alike: Sequence[Sequence[int]] = (),
) -> Evidence:
    """What the whole picture says, from `truth` (boxes [M, 4], labels [M, N]) of the pictures in `pyramids`.

    It says nothing of classes without an example, and little of those of `alike`: which of them a person is called is
    not read better from the picture, and what they say of a place together would be out of proportion.
    """
    features = _means(pyramids)
    there = torch.from_numpy(np.array([truth[row][1].any(0) for row in pyramids.kept], np.float32))
    evidence = Evidence(features.shape[2], there.shape[1])
    _fit(evidence, features.flatten(0, 1), there.repeat_interleave(features.shape[1], 0))
    with torch.no_grad():
        said = evidence.linear(features[:, 0] / evidence.spread).sigmoid()
        known = there.any(0)
        usual = (said * there).sum(0) / there.sum(0).clamp_min(1)
        evidence.usual.copy_(torch.where(known, usual, torch.ones(())))
        evidence.power.fill_(POWER)
        evidence.power[[label for group in alike for label in group]] = ALIKE_POWER
        evidence.power.mul_(known)
    return evidence


def _means(pyramids: Pyramids) -> Tensor:
    """The mean features float [N, V, C] of the whole views of all pictures."""
    maps, level = pyramids.maps[-1], pyramids.levels[-1]
    parts = [
        maps[pyramids.kept[begin : begin + LOOK], :WHOLE].mean((3, 4), dtype=np.float32) * np.float32(level / 255)
        for begin in range(0, len(pyramids.kept), LOOK)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _fit(evidence: Evidence, features: Tensor, targets: Tensor) -> None:
    evidence.spread.copy_(features.std(0, correction=0) + 1e-3)
    mean = features.mean(0) / evidence.spread
    scaled = features / evidence.spread - mean
    share = targets.mean(0).clamp(1e-3, 1 - 1e-3)
    weight = torch.zeros(targets.shape[1], features.shape[1], requires_grad=True)
    bias = (share / (1 - share)).log().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        wrong = functional.binary_cross_entropy_with_logits(scaled @ weight.T + bias, targets, reduction="none")
        value = wrong.sum(1).mean() + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        evidence.linear.weight.copy_(weight)
        evidence.linear.bias.copy_(bias - weight @ mean)
