"""Dropout for recurrent networks: what is left out must not change from step to step, or nothing can be remembered.

T steps, B rows, H units. Each takes the share that is left out and whether the network is in training; otherwise it
gives back what it was given. Rows may be a part of the rows of a step that several processes share: `among` (count,
places [B]) says of how many, and which. Then the masks are drawn for all, and the part gets those that it has there.
"""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor

Among = tuple[int, Tensor]


def dropout(x: Tensor, share: float, *, training: bool, among: Among | None = None) -> Tensor:
    """x [B, …] without some of its numbers (Srivastava et al. 2014)."""
    if among is None or not training or share == 0:
        return functional.dropout(x, share, training)
    count, places = among
    return x * functional.dropout(x.new_ones(count, *x.shape[1:]), share)[places]


def locked(x: Tensor, share: float, *, training: bool, among: Among | None = None) -> Tensor:
    """x [T, B, H] without some units of each row, the same at every step (Gal & Ghahramani 2016, "variational")."""
    if not training or share == 0:
        return x
    rows = x.shape[1] if among is None else among[0]
    mask = functional.dropout(x.new_ones(1, rows, x.shape[2]), share)
    return x * (mask if among is None else mask[:, among[1]])


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
