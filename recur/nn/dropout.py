"""Dropout for recurrent networks: what is left out must not change from step to step, or nothing can be remembered.

T steps, B rows, H units. Each takes the share that is left out and whether the network is in training; otherwise it
gives back what it was given.
"""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor


def locked(x: Tensor, share: float, *, training: bool) -> Tensor:
    """x [T, B, H] without some units of each row, the same at every step (Gal & Ghahramani 2016, "variational")."""
    if not training or share == 0:
        return x
    return x * functional.dropout(x.new_ones(1, *x.shape[1:]), share)


def zoneout(new: Tensor, old: Tensor, share: float, *, training: bool) -> Tensor:
    """Some units of a state [B, H] keep their old value (Krueger et al. 2017); in use, each keeps that share of it."""
    if share == 0:
        return new
    if not training:
        return new + share * (old - new)
    keep = functional.dropout(new.new_ones(new.shape), 1 - share) * share  # 1 with probability `share`
    return new + keep * (old - new)


def weight_drop(weight: Tensor, share: float, *, training: bool) -> Tensor:
    """Recurrent weights [G·H, H] without some of them, for a whole sequence (Wan et al. 2013; Merity et al. 2018).

    Dropout inside the recurrence that leaves every step's kernel as it is.
    """
    return functional.dropout(weight, share, training=training) if share else weight
