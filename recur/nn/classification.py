"""The classification head: what is in a picture, from the mean of the trunk's features."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.nn.vision import Trunk


class ClassificationHead(nn.Module):
    """Features [B, F, gy, gx], or their mean [B, F], to scores [B, N].

    `several`: any number of the N may be there at once, each with a probability of its own (sigmoid); otherwise it is
    exactly one (softmax).
    """

    def __init__(self, channels: int, classes: int, *, several: bool) -> None:
        super().__init__()
        self.channels, self.classes, self.several = channels, classes, several
        self.linear = nn.Linear(channels, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean((2, 3)) if features.ndim == 4 else features
        out: Tensor = self.linear(pooled)
        return out


def classification_loss(scores: Tensor, targets: Tensor, *, several: bool) -> Tensor:
    """Cross-entropy of scores [B, N] with targets [B, N] in 0..1, averaged over pictures."""
    if several:
        return functional.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1).mean()
    return -(targets * functional.log_softmax(scores, 1)).sum(1).mean()


def pooled_features(trunk: Trunk, pixels: Tensor) -> Tensor:
    """The mean of the trunk's features [B, F] of pixels [B, 3, Y, X], without a gradient."""
    with torch.inference_mode():
        out: Tensor = trunk(pixels).mean((2, 3))
    return out
