"""Muon: steps of equal length in every direction of a weight matrix (Jordan et al. 2024, "Muon: An optimizer for
hidden layers in neural networks").

The momentum of a matrix is replaced by the nearest orthogonal one, found by Newton-Schulz iterations, so that rare
directions are learned as fast as common ones: on small texts a recurrent network then needs about half as many steps
as with Adam. The gates of a recurrent layer are matrices of their own and are treated one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# The quintic a·x + b·x³ + c·x⁵ that the author found to pull singular values from anywhere in 0..1 to about 1 fastest.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 3  # five come closer to 1; three are enough where the products are a good part of a step's time


def orthogonal(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The nearest orthogonal matrices, roughly, of matrices [N, rows, columns]: singular values come near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """For recurrent weights [gates · H, D] and, with one gate, those of convolutions [outputs, inputs, rows, columns],
    each one matrix of its outputs; biases, embeddings and heads belong to another optimizer.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, gates: int, lr: float = 0.02, momentum: float = 0.95, decay: float = 0.1
    ) -> None:
        """`decay`: the share, times `lr`, that a weight loses at each step. Steps are of one length, so without it
        weights grow as long as there are steps, until the gates are stuck; with it no singular value passes 1 / decay.
        """
        super().__init__(parameters, {"lr": lr, "gates": gates, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients; `closure` is there for the interface and is not called."""
        for group in self.param_groups:
            keep = 1 - group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                velocity = state["momentum"].lerp_(parameter.grad, keep)
                # Nesterov's look ahead: the new gradient counts once more.
                ahead = parameter.grad.lerp(velocity, group["momentum"]).flatten(1)
                gates = ahead.view(group["gates"], -1, ahead.shape[1])
                # A gate of more rows than columns would move its outputs less: make up for it.
                scale = max(1.0, gates.shape[1] / gates.shape[2]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.add_(orthogonal(gates).reshape(parameter.shape), alpha=-group["lr"] * scale)
