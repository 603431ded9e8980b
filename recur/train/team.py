"""Several processes that train one network: `torchrun -m recur train …`, or one alone.

Every process has the whole network and a share of the pictures of each step. What a step draws at random is drawn for
all its pictures by all of them, and each keeps its own part: so the sum of their gradients is the gradient of one
process that does everything (up to the order of sums), and the first of them alone writes files. PyTorch's launcher
says who is who (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); they talk through gloo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from recur.errors import RecurError

Value = TypeVar("Value")
PATIENCE = timedelta(days=1)  # the first one may look at a million pictures before the others go on


@dataclass(frozen=True)
class Team:
    """This process among `size` of them. One alone needs no other and does nothing differently."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of the `count` pictures of a step are this process's; all parts together are all of them."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def any(self, flag: bool) -> bool:
        """Whether one of them says yes; all get the same answer, and wait for each other."""
        if self.size == 1:
            return flag
        found = torch.tensor([float(flag)])
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return bool(found.item())

    def told(self, find: Callable[[], Value]) -> Value:
        """What the first one finds, told to all."""
        if self.size == 1:
            return find()
        found: list[Any] = [find() if self.leads else None]
        distributed.broadcast_object_list(found, src=0)
        value: Value = found[0]
        return value

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all of them the first one's values."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in tensors:
                    distributed.broadcast(tensor, src=0)

    def add_up(self, parameters: list[Tensor], loss: float) -> float:
        """The gradients of all of them, summed, in each; returns the sum of their losses.

        A parameter that nobody has a gradient for has none afterwards: it does not decay either, as in one process.
        """
        if self.size == 1:
            return loss
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        there = torch.tensor([float(p.grad is not None) for p in parameters] + [loss])
        everything = torch.cat([*flat, there])
        distributed.all_reduce(everything)
        at = 0
        for place, parameter in enumerate(parameters):
            summed = everything[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
            parameter.grad = summed.clone() if everything[len(everything) - len(there) + place] > 0 else None
        return float(everything[-1])


def is_first() -> bool:
    """Whether this process is the one that speaks, by what the launcher says; one alone is."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def gathered() -> Iterator[Team]:
    """The team that the launcher has called together; one process alone without a launcher.

    Errors: RecurError when the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    try:
        distributed.init_process_group("gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise RecurError(
            f"WORLD_SIZE is {size}, but the other processes cannot be reached ({error}); start them with torchrun"
        ) from None
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
