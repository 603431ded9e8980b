"""Several processes that train one network: `torchrun -m recur train …`, or one alone.

Every process has the whole network and a share of the pictures of each step. What a step draws at random is drawn for
all its pictures by all of them, and each keeps its own part: so the sum of their gradients is the gradient of one
process that does everything (up to the order of sums), and the first of them alone writes files. PyTorch's launcher
says who is who (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

Where PyTorch finds GPUs, each process has one of its own, and what lies on it is summed through NCCL; what lies in
memory, and everything on processors alone, goes through gloo.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from recur.errors import RecurError

Value = TypeVar("Value")
CPU: Final = torch.device("cpu")
PATIENCE = timedelta(days=1)  # the first one may look at a million pictures before the others go on


@dataclass(frozen=True)
class Team:
    """This process among `size` of them. One alone needs no other and does nothing differently."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU  # what this process computes on

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
        everything = torch.cat([*flat, there.to(self.device)])
        distributed.all_reduce(everything)
        *having, total = everything[-len(there) :].tolist()
        at = 0
        for place, parameter in enumerate(parameters):
            summed = everything[at : at + parameter.numel()].view_as(parameter)
            at += parameter.numel()
            parameter.grad = summed.clone() if having[place] > 0 else None
        return float(total)


def is_first() -> bool:
    """Whether this process is the one that speaks, by what the launcher says; one alone is."""
    return os.environ.get("RANK", "0") == "0"


def own_device() -> torch.device:
    """The GPU of this process, by its number on its machine; the processors where PyTorch finds no GPU.

    CUDA_VISIBLE_DEVICES, empty, hides the GPUs. Errors: RecurError when there are more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return CPU
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        raise RecurError(
            f"process {number + 1} of this machine has no GPU of its own (found {there}); start at most one for each "
            "(--nproc-per-node), or none on GPUs: CUDA_VISIBLE_DEVICES="
        )
    return torch.device("cuda", number)


@contextmanager
def gathered() -> Iterator[Team]:
    """The team that the launcher has called together; one process alone without a launcher.

    Errors: RecurError when the others cannot be reached, or when there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = own_device()
    if size == 1:
        yield Team(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL asks for it
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise RecurError(
            f"WORLD_SIZE is {size}, but the other processes cannot be reached ({error}); start them with torchrun"
        ) from None
    try:
        yield Team(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()
