"""Several processes that train one network: `torchrun -m recur train …`, or one alone.

Every process has the whole network and a share of the rows of each step: pictures, texts, whatever it reads. What a
step draws at random is drawn for all its rows by all of them, and each keeps its own part: so the sum of their
gradients is the gradient of one process that does everything (up to the order of sums), and the first of them alone
writes files. PyTorch's launcher says who is who (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

A training asks `Team.share` which rows are its own, makes a loss that is its part of the loss of all of them, and calls
`Team.learn`; it writes and speaks where it `leads`.

Where PyTorch finds GPUs, each process has one of its own, and what lies on it is summed through NCCL; what lies in
memory, and everything on processors alone, goes through gloo.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from recur.errors import RecurError
from recur.train.checkpoint import Progress, StopRequest

Value = TypeVar("Value")
CPU: Final = torch.device("cpu")
PATIENCE = timedelta(days=1)  # the first one may look at a million pictures before the others go on


@dataclass(frozen=True)
class Share:
    """The `rows` of the `count` rows of a step that a process reads, and how often they count.

    Where there are fewer rows than processes, one that is left with none reads the first, for the random numbers that
    the others draw, and counts it 0 times.
    """

    rows: slice
    count: int
    weight: float = 1.0

    @property
    def alone(self) -> bool:
        """Whether this is all there is: then nothing is weighed."""
        return self.rows == slice(0, self.count) and self.weight == 1

    def among(self, device: torch.device = CPU) -> tuple[int, Tensor] | None:
        """What a network asks for: how many rows there are, and which of them these are. None where they are all."""
        if self.rows == slice(0, self.count):
            return None
        return self.count, torch.arange(self.rows.start, self.rows.stop, device=device)

    def weigh(self, mean: Tensor, mine: float, whole: float) -> Tensor:
        """What a mean over `mine` of the `whole` terms of a step adds to the mean over all of them."""
        return mean if self.alone else mean * (self.weight * mine / whole)


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

    def share(self, count: int) -> Share:
        """Which of the `count` rows of a step this process reads; `count` is 1 or more."""
        rows = self.part(count)
        return Share(rows, count) if rows.start < rows.stop else Share(slice(0, 1), count, 0.0)

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
            # Laid out as the parameter is: fused optimizers go through both as they lie in memory.
            parameter.grad = torch.empty_like(parameter).copy_(summed) if having[place] > 0 else None
        return float(total)

    def settle(self, network: nn.Module) -> None:
        """Bring a network to where it learns, with the first one's weights."""
        network.to(self.device)
        self.align(network.state_dict().values())

    def summed(self, values: Tensor) -> Tensor:
        """What each of them has, summed; without a gradient."""
        if self.size == 1:
            return values
        found = values.detach().clone()
        distributed.all_reduce(found)
        return found

    def together(self, part: Tensor, share: Share) -> Tensor:
        """What each of them has of its rows of a step [n, …], of all rows [count, …]."""
        if self.size == 1:
            return part
        whole = part.new_zeros(share.count, *part.shape[1:])
        if share.weight:
            whole[share.rows] = part
        return self.summed(whole)

    def learn(
        self,
        network: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        loss: Tensor,
        *,
        clip: float | None = None,
        shown: Tensor | None = None,
    ) -> float:
        """One step down the gradient of the sum of their losses, cut to length `clip`; the sum of what is `shown`."""
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        whole = self.add_up(list(network.parameters()), float((loss if shown is None else shown).detach()))
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        for optimizer in optimizers:
            optimizer.step()
        return whole

    def in_turn(self, work: Callable[[], Value], stop: StopRequest | None = None) -> Value | None:
        """What `work` finds. The first one does it and leaves it in files, where the others find it; None for all when
        one of several was asked to stop meanwhile.
        """
        if self.size == 1:
            return work()
        found = work() if self.leads else None
        if self.any(stop is not None and stop.requested):
            return None
        return found if self.leads else work()

    def progress(self, *, total: int, label: str) -> Progress:
        """A bar, which the first one shows."""
        return Progress(total=total, label=label, stream=None if self.leads else io.StringIO())

    def say(self, line: str) -> None:
        """A line on stdout, from the first one."""
        if self.leads:
            print(line, flush=True)

    def report(self, stop: StopRequest, work: Path) -> None:
        """Say on stderr, from the first one, why they stopped, and that what is in `work` is gone on from."""
        if self.leads:
            reason = stop.reason or "another process was"
            print(f"stopped ({reason}); the checkpoint is in {work}, go on with --resume", file=sys.stderr)


ALONE: Final = Team()


def warn(line: str) -> None:
    """A warning on stderr, from the first process."""
    if is_first():
        print(f"warning: {line}", file=sys.stderr)


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


def device_of(module: nn.Module) -> torch.device:
    """Where a network is, and what it reads has to be."""
    return next(module.parameters()).device


@contextmanager
def gathered() -> Iterator[Team]:
    """The team that the launcher has called together; one process alone without a launcher.

    A program that trains several networks may call it together around all of them: within, it stays as it is.
    Errors: RecurError when the others cannot be reached, or when there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = own_device()
    if size == 1:
        yield Team(device=device)
        return
    if distributed.is_initialized():
        yield Team(distributed.get_rank(), distributed.get_world_size(), device)
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
