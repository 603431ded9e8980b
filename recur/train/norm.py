"""Batch normalisation over the pictures of a step, whichever processes have them.

With the statistics of its own part alone, each process would compute another function than one that has all pictures.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from recur.train.team import Team


class _Sum(torch.autograd.Function):
    """What all processes have, summed; the gradient is the sum of theirs, because each uses the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.summed(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        team: Team = ctx.team
        return team.summed(grads[0]), None


class TeamNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` (Ioffe & Szegedy 2015) with means and variances over what all processes have."""

    def __init__(self, like: nn.BatchNorm2d, team: Team) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.team = team
        self.load_state_dict(like.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, Y, X], B pictures of this process, one at least."""
        if not self.training:
            return super().forward(x)
        exact = x.float()
        places = exact.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])
        sums = self._sum(torch.cat([exact.sum((0, 2, 3)), places]))
        count = sums[-1]
        mean = sums[:-1] / count
        apart = exact - mean[:, None, None]
        variance = self._sum(apart.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            for kept, new in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
                cast(Tensor, kept).lerp_(new, cast(float, self.momentum))
            cast(Tensor, self.num_batches_tracked).add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        out: Tensor = (apart * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
        return out

    def _sum(self, values: Tensor) -> Tensor:
        return cast(Tensor, _Sum.apply(values, self.team))  # type: ignore[no-untyped-call]


def share_norms(network: nn.Module, team: Team) -> None:
    """Let every batch normalisation of a network count the pictures of all processes."""
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, TeamNorm(child, team))
