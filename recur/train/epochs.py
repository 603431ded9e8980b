"""A training that is kept after every epoch: how it goes on from a checkpoint, and how it is written into one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from recur.train.checkpoint import (
    check_same_run,
    copy_state,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
)
from recur.train.team import Team


class EpochRun(Protocol):
    """What is kept of a training: the network, where it was best on held-out data, and its log."""

    checkpoint: Path
    settings: dict[str, Any]
    log: list[dict[str, Any]]
    best_score: float
    best: dict[str, Any] | None
    team: Team

    @property
    def network(self) -> nn.Module: ...


def go_on(run: EpochRun, optimizer: torch.optim.Optimizer, *, resume: bool) -> int:
    """How many epochs are done. With `resume`, run and optimizer are as the checkpoint has them, if there is one.

    Errors: RecurError for the checkpoint of another run, or a damaged one.
    """
    if not resume or not has_checkpoint(run.checkpoint):
        return 0
    saved = load_checkpoint(run.checkpoint)
    check_same_run(saved.extra["settings"], run.settings, path=run.checkpoint)
    run.network.load_state_dict(saved.models["network"])
    run.best, run.best_score = saved.models["best"], float(saved.extra["best_score"])
    run.log[:] = saved.extra["log"]
    if saved.optimizer is not None:
        optimizer.load_state_dict(saved.optimizer)
    return saved.counters["epoch"]


def keep(run: EpochRun, optimizer: torch.optim.Optimizer, *, done: int, score: float) -> None:
    """After `done` epochs: remember the weights when `score` is the best so far (of equals the later one), and write
    everything into the checkpoint, of several processes the first one.
    """
    if score >= run.best_score:
        run.best_score, run.best = score, copy_state(run.network.state_dict())
    if not run.team.leads:
        return
    save_checkpoint(
        run.checkpoint,
        model_states={"network": run.network.state_dict(), "best": run.best or {}},
        optimizer=optimizer.state_dict(),
        counters={"epoch": done},
        rng=random_state(),
        extra={"settings": run.settings, "log": run.log, "best_score": run.best_score},
    )
