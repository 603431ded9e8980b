"""`recur train language`: a character model from any text, by truncated backpropagation through time.

The text is cut into B rows that are read side by side, T characters at a time; the state goes on from one piece to the
next, its gradient does not (Williams & Peng 1990; Mikolov et al. 2010). What a step sees and draws is a function of
(seed, epoch, step), so a run that was stopped or killed and resumed ends with the weights of one that was not. Of
several processes each reads some of the rows, and carries their state.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from recur.bundle import check_target, read_bundle, update_bundle, write_bundle
from recur.data.characters import UNKNOWN, Characters, dev_begins, read_text
from recur.errors import RecurError
from recur.files import write_atomically
from recur.hub import resolve
from recur.nn.language import Cell, LanguageNetwork
from recur.nn.state import State
from recur.predict.language import LanguageModel
from recur.train.card_language import render_language_card
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    copy_state,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    step_generator,
)
from recur.train.orthogonal import Muon
from recur.train.plot import plot_losses
from recur.train.team import ALONE, Share, Team, gathered, warn
from recur.train.watch import ROWS, STEPS, gradients_back, render_training, update_ratios, weights_of

LEAST = 20  # characters of all text: two of them, one to read and one to foresee, are in the dev split
WARM, FALL = 50, 0.6  # steps in which the rates rise; part of the course, its end, in which they fall to zero
CLIP = 1.0
MUON_RATE = 10.0  # times the rate of Adam
ROWS_DEV = 20  # the dev split is read in so many rows while training; the bundle is measured on it in one


@dataclass
class Run:
    """A training: the network, its optimizers, the texts as ids, and what has happened so far."""

    network: LanguageNetwork
    optimizers: tuple[torch.optim.Optimizer, ...]
    train: Tensor
    dev: Tensor
    settings: dict[str, Any]
    folder: Path
    team: Team
    epoch: int = 0
    step: int = 0
    loss: float = 0.0  # summed over the steps of this epoch
    state: State | None = None  # of the rows that this process reads
    log: list[dict[str, Any]] = field(default_factory=list)
    watched: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    best_score: float = float("inf")
    best: dict[str, Any] | None = None


def train_language(
    *,
    data: Sequence[Path],
    out: Path,
    dev: Path | None = None,
    data_name: str | None = None,
    terms: str | None = None,
    min_count: int = 1,
    init: str | Path | None = None,
    cell: Cell = "lstm",
    hidden: int = 320,
    layers: int = 1,
    embedding: int = 64,
    dropout: float = 0.2,
    weight_drop: float = 0.0,
    epochs: int = 10,
    batch: int = 32,
    length: int = 64,
    rate: float = 0.005,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the texts `data` but for their last tenth, choose on that (or on `dev`), write the bundle `out`.

    `batch` rows are read side by side, by each process, `length` characters at a time. `init`: start from the weights
    of a model of the same sizes; characters that it does not have are learned anew. Characters seen less than
    `min_count` times are unknown. `data_name` and `terms` go into the card. Working files lie in `<out>.work`, from
    where `resume` goes on.
    Raises RecurError for texts, models and checkpoints that cannot be used.
    """
    torch.manual_seed(seed)
    check_target(out)
    work = out.with_name(out.name + ".work")
    text, held = read_texts(data, dev)
    characters = Characters.build(text, min_count)
    network = LanguageNetwork(
        vocabulary=len(characters),
        cell=cell,
        embedding=embedding,
        hidden=hidden,
        layers=layers,
        dropout=dropout,
        weight_drop=weight_drop,
    )
    if init is not None:
        start_from(network, characters, init)
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        team.settle(network)
        settings: dict[str, Any] = {
            "data": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            "dev": hashlib.sha256(held.encode("utf-8", "surrogatepass")).hexdigest(),
            "min_count": min_count,
            "init": None if init is None else Path(init).name,
            "cell": cell,
            "hidden": hidden,
            "layers": layers,
            "embedding": embedding,
            "dropout": dropout,
            "weight_drop": weight_drop,
            "epochs": epochs,
            "batch": batch * team.size,
            "length": length,
            "rate": rate,
            "seed": seed,
        }
        run = Run(
            network,
            make_optimizers(network, rate),
            torch.from_numpy(characters.encode(text)).to(team.device),
            torch.from_numpy(characters.encode(held)).to(team.device),
            settings,
            work / "checkpoint",
            team,
        )
        if resume and has_checkpoint(run.folder):
            _load(run)
        if not _train(run, stop):
            team.report(stop, work)
            return out
        if not team.leads:
            return out
    if run.best is None:
        raise RecurError(f"{out}: the loss is not a number after {epochs} epochs; train with a smaller --rate")
    network.to("cpu").load_state_dict(run.best)
    meta = {
        "task": "language",
        "name": out.stem,
        "languages": [],
        "cell": cell,
        "hidden": hidden,
        "layers": layers,
        "embedding": embedding,
        "vocabulary_size": len(characters),
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "characters": len(text),
            "log": run.log,
        },
    }
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=characters.to_bytes(), encoder=None, card="")
    model = LanguageModel(read_bundle(out, task="language"))
    results = {"dev": model.evaluate(held)}
    update_bundle(out, {"results": results}, card=render_language_card({**model.meta, "results": results}))
    write_atomically(work / "training.png", plot_losses(run.log))
    write_atomically(work / "training.html", render_training(out.stem, run.log, run.watched).encode())
    return out


def read_texts(data: Sequence[Path], dev: Path | None) -> tuple[str, str]:
    """The text to learn from and the text to choose on. Errors: RecurError when there is too little of either."""
    parts: list[str] = []
    for path in (*data, *(() if dev is None else (dev,))):
        text, broken = read_text(path)
        if broken:
            warn(f"{path}: {broken} characters were no text and are read as U+FFFD")
        parts.append(text)
    held = parts.pop() if dev is not None else ""
    text = "".join(parts)
    names = ", ".join(str(path) for path in data)
    if dev is None:
        if len(text) < LEAST:
            raise RecurError(
                f"{names}: {len(text)} characters; expected at least {LEAST} to learn from; give more text"
            )
        cut = dev_begins(len(text))
        text, held = text[:cut], text[cut:]
    if len(text) < 2 or len(held) < 2:
        raise RecurError(f"{names}: {len(text)} characters to train on, {len(held)} to measure on; expected 2 of each")
    return text, held


def start_from(network: LanguageNetwork, characters: Characters, init: str | Path) -> None:
    """Take over the weights of another model. Errors: RecurError when it is of other sizes."""
    bundle = read_bundle(resolve(init), task="language")
    theirs = Characters.from_bytes(bundle.tokenizer).encode("".join(characters.characters))
    known = np.flatnonzero(theirs != UNKNOWN)
    mine = {name: value.clone() for name, value in network.state_dict().items()}
    for name in mine:
        engine = name
        if name.startswith("rnn."):
            _, layer, rest = name.split(".", 2)
            engine = f"rnn.{rest.removesuffix('_l0')}_l{layer}"
        given = torch.from_numpy(bundle.weights[engine].copy()) if engine in bundle.weights else torch.zeros(0)
        by_character = name in ("embedding.weight", "head.weight", "head.bias")
        if given.shape[1:] != mine[name].shape[1:] or (not by_character and len(given) != len(mine[name])):
            raise RecurError(
                f"{init}: {engine} has shape {list(given.shape)}; expected {list(mine[name].shape)}; "
                "give the sizes of that model, or leave --init out"
            )
        if by_character:
            mine[name][known + 1] = given[theirs[known]]
        else:
            mine[name] = given
    network.load_state_dict(mine)


def make_optimizers(network: LanguageNetwork, rate: float) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the products of hidden states, Adam (Kingma & Ba 2015) for the rest, at the rate of each."""
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    for name, parameter in network.named_parameters():
        between = "weight_hh" in name or ("weight_ih" in name and not name.startswith("rnn.0."))
        (inner if between else outer).append(parameter)
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[network.cell]
    return (
        Muon(inner, gates=gates, lr=MUON_RATE * rate),
        torch.optim.Adam(outer, lr=rate, betas=(0.9, 0.99), fused=True),
    )


def rows_of(ids: Tensor, rows: int, offset: int) -> Tensor:
    """[T, B]: the text, turned so that it begins at `offset`, in B rows of equal length; the rest is left out."""
    each = len(ids) // rows
    return torch.roll(ids, -offset)[: rows * each].view(rows, each).t().contiguous()


def _train(run: Run, stop: StopRequest) -> bool:
    """Go through the epochs that are left; False when stopped."""
    settings, team = run.settings, run.team
    rows = max(1, min(settings["batch"], len(run.train) // (settings["length"] + 1)))
    share = team.share(rows)
    if run.state is not None:
        run.state = run.state.map(lambda part: part[share.rows].to(team.device))
    while run.epoch < settings["epochs"]:
        offset = int(step_generator(seed=settings["seed"], epoch=run.epoch, step=0).integers(len(run.train)))
        text = rows_of(run.train, rows, offset)
        if not _epoch(run, text, stop):
            if run.state is not None:
                run.state = run.state.map(lambda part: team.together(part, share))
            if team.leads:
                _save(run)
            return False
        dev = team.told(partial(dev_loss, run.network, run.dev))
        steps = -(-(len(text) - 1) // settings["length"])
        run.log.append({"epoch": run.epoch + 1, "loss": run.loss / steps, "dev": dev})
        team.say(f"epoch {run.epoch + 1}/{settings['epochs']}  loss {run.loss / steps:.4f}  dev {dev:.4f} nats")
        if team.leads:
            far = rows_of(run.dev, max(1, min(ROWS, len(run.dev) // 20)), 0)[: STEPS + 1]
            back = gradients_back(run.network, far) if len(far) > 2 else []
            run.watched.append({"epoch": run.epoch + 1, "gradients": back, "ratios": run.ratios})
        if dev < run.best_score:
            run.best_score, run.best = dev, copy_state(run.network.state_dict())
        run.epoch, run.step, run.loss, run.state = run.epoch + 1, 0, 0.0, None
        if team.leads:
            _save(run)
    return True


def _epoch(run: Run, text: Tensor, stop: StopRequest) -> bool:
    """Go on through the text [T, B] of this epoch; False when stopped."""
    settings, length = run.settings, run.settings["length"]
    steps = -(-(len(text) - 1) // length)
    course = steps * settings["epochs"]
    if run.state is None:
        mine = run.team.share(text.shape[1]).rows
        run.state = run.network.first_state(mine.stop - mine.start)
    run.network.train()
    with run.team.progress(total=steps, label=f"epoch {run.epoch + 1}/{settings['epochs']}") as progress:
        while run.step < steps:
            if run.team.any(stop.requested):
                return False
            done = run.epoch * steps + run.step
            torch.manual_seed(settings["seed"] * 1_000_003 + done)
            set_rates(run.optimizers, settings["rate"], done, course)
            at = run.step * length
            piece = text[at : at + length + 1]
            before = weights_of(run.network) if run.step == steps - 1 else None
            loss, after = update(run.network, run.optimizers, piece, run.state, run.team)
            run.loss += loss
            run.ratios = {} if before is None else update_ratios(before, run.network)
            run.step, run.state = run.step + 1, after
            progress.update(run.step, f"loss {run.loss / run.step:.3f}")
    return True


def set_rates(optimizers: Sequence[torch.optim.Optimizer], highest: float, step: int, course: int) -> None:
    """The rates of step `step` of `course` for what `make_optimizers` gave."""
    for optimizer, times in zip(optimizers, (MUON_RATE, 1.0), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = times * highest * share_of_rate(step, course)


def update(
    network: LanguageNetwork,
    optimizers: Sequence[torch.optim.Optimizer],
    piece: Tensor,
    state: State,
    team: Team = ALONE,
) -> tuple[float, State]:
    """One step on piece [T + 1, B], from the `state` of this process's rows: its loss, and their state after it."""
    loss, after = piece_loss(network, piece, state, team.share(piece.shape[1]))
    return team.learn(network, optimizers, loss, clip=CLIP), after


def share_of_rate(step: int, course: int) -> float:
    """Of the highest rate: a rise over the first steps, then level, then a straight line down to zero at the end."""
    rise = (step + 1) / min(WARM, 1 + course // 20)
    return min(1.0, rise, (course - step) / (FALL * course))


def piece_loss(network: LanguageNetwork, piece: Tensor, state: State, share: Share) -> tuple[Tensor, State]:
    """Nats a character of foreseeing piece[1:] from piece[:-1], [T + 1, B], and the state, cut off from it.

    Those of the rows of `share` alone, as a part of the mean over all.
    """
    mine = piece[:, share.rows]
    scores, after = network(mine[:-1], state, share.among(piece.device))
    scores, wanted = scores.flatten(0, 1), mine[1:].flatten()
    if share.alone:
        return functional.cross_entropy(scores, wanted, ignore_index=UNKNOWN), after.detach()
    nats = functional.cross_entropy(scores, wanted, ignore_index=UNKNOWN, reduction="sum")
    return nats * share.weight / (piece[1:] != UNKNOWN).sum(), after.detach()


@torch.no_grad()
def dev_loss(network: LanguageNetwork, ids: Tensor, *, length: int = 256) -> float:
    """Nats a known character on dev [T], read in a few rows."""
    network.eval()
    text = rows_of(ids, max(1, min(ROWS_DEV, len(ids) // 1000)), 0)
    state = network.first_state(text.shape[1])
    total = count = 0.0
    for at in range(0, len(text) - 1, length):
        scores, state = network(text[at : at + length + 1][:-1], state)
        target = text[at + 1 : at + length + 1]
        known = int((target != UNKNOWN).sum())
        total += float(
            functional.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=UNKNOWN, reduction="sum")
        )
        count += known
    return total / max(count, 1.0)


def _save(run: Run) -> None:
    models: dict[str, Any] = {"network": run.network.state_dict()}
    if run.best is not None:
        models["best"] = run.best
    if run.state is not None:
        models["state"] = run.state.to_dict()
    save_checkpoint(
        run.folder,
        model_states=models,
        optimizer={str(i): optimizer.state_dict() for i, optimizer in enumerate(run.optimizers)},
        counters={"epoch": run.epoch, "step": run.step},
        rng=random_state(),
        extra={
            "settings": run.settings,
            "log": run.log,
            "watched": run.watched,
            "loss": run.loss,
            "best_score": None if run.best is None else run.best_score,
        },
    )


def _load(run: Run) -> None:
    saved = load_checkpoint(run.folder)
    check_same_run(saved.extra["settings"], run.settings, path=run.folder)
    run.network.load_state_dict(saved.models["network"])
    assert saved.optimizer is not None
    for number, optimizer in enumerate(run.optimizers):
        optimizer.load_state_dict(saved.optimizer[str(number)])
    run.epoch, run.step = saved.counters["epoch"], saved.counters["step"]
    run.loss, run.log = float(saved.extra["loss"]), saved.extra["log"]
    run.watched = saved.extra.get("watched", [])
    if "best" in saved.models:
        run.best, run.best_score = saved.models["best"], float(saved.extra["best_score"])
    if "state" in saved.models:
        run.state = State.from_dict(saved.models["state"])
