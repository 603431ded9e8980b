"""`recur train answer`: from stories with questions (bAbI files) to a bundle that answers them.

One network learns all tasks at once. Where the files name the sentences that an answer follows from, it also learns to
point at them: a second loss, without which the same accuracy takes longer.
"""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import check_target, write_bundle
from recur.data.stories import Story, is_archive, read_stories
from recur.errors import RecurError
from recur.nn.answer import StoryNetwork
from recur.train.answer_data import Stories, batch_of, batches, build_words, encode
from recur.train.answer_finish import finish_answer
from recur.train.checkpoint import StopRequest
from recur.train.epochs import go_on, keep
from recur.train.team import Team, device_of, gathered, warn

RATE = 4e-3
CLIP = 1.0
POINTING = 0.3  # how much the second loss counts
SENTENCES = 130  # of a story that are read: the last ones


@dataclass
class Run:
    """One training: the network, what it learns from, and where it was best."""

    network: StoryNetwork
    train: Stories
    valid: Stories
    seed: int
    epochs: int
    batch: int
    checkpoint: Path
    settings: dict[str, Any]
    team: Team
    log: list[dict[str, Any]] = field(default_factory=list)
    best_score: float = -1.0
    best: dict[str, Any] | None = None


def train_answer(
    *,
    data: Path,
    out: Path,
    data_name: str | None = None,
    terms: str | None = None,
    hidden: int = 64,
    layers: int = 3,
    epochs: int = 30,
    batch: int = 64,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the files `…_train.txt` of `data`, choose on `…_valid.txt`, write the bundle `out`.

    `data` is a folder of bAbI files, or an archive of them; `batch` counts questions of one process in a step. Working
    files lie in `<out>.work`, which `resume` goes on from.
    Raises RecurError for data and checkpoints that cannot be used.
    """
    check_target(out)
    if data.is_file() and not is_archive(data):
        raise RecurError(f"{data}: one file; expected a folder or archive with …_train.txt and …_valid.txt; name that")
    torch.manual_seed(seed)
    stories, problems = read_stories(data, "train")
    held, more = read_stories(data, "valid")
    for line in (*problems, *more):
        warn(line)
    tasks = sorted({story.task for story in stories})
    held = [story for story in held if story.task in set(tasks)]
    if not held:
        raise RecurError(f"{data}: no question is held out; expected …_valid.txt of the same tasks; add one")
    vocabulary, answers, places = build_words(stories)
    network = StoryNetwork(
        vocabulary=len(vocabulary), answers=len(answers), places=places, hidden=hidden, layers=layers
    )
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        team.settle(network)
        settings: dict[str, Any] = {
            "data": data_hash([*stories, *held]),
            "hidden": hidden,
            "layers": layers,
            "epochs": epochs,
            "batch": batch * team.size,
            "seed": seed,
        }
        run = Run(
            network,
            encode(stories, vocabulary, answers, places, SENTENCES),
            encode(held, vocabulary, answers, places, SENTENCES),
            seed,
            epochs,
            batch * team.size,
            out.with_name(out.name + ".work") / "checkpoint",
            settings,
            team,
        )
        if not _train(run, stop, resume):
            team.report(stop, run.checkpoint.parent)
            return out
        if not team.leads:
            return out
    network.to("cpu")
    meta = {
        "task": "answer",
        "name": out.stem,
        "kind": "story",
        "answers": answers,
        "hidden": hidden,
        "layers": layers,
        "places": places,
        "sentences": SENTENCES,
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "questions": len(stories),
            "held_out": len(held),
            "log": run.log,
        },
    }
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=vocabulary, encoder=None, card="", quantize="float16")
    finish_answer(out, held)
    return out


def data_hash(stories: list[Story]) -> str:
    """SHA-256 of the questions in their order, each with its task, the three sentences before it, and its answer."""
    found = sha256()
    for story in stories:
        found.update("\n".join((story.task, *story.sentences[-3:], story.question, story.answer)).encode() + b"\0")
    return found.hexdigest()


def _train(run: Run, stop: StopRequest, resume: bool) -> bool:
    """All epochs; the best weights on valid are in the network then. False when stopped before the end."""
    optimizer = torch.optim.AdamW(run.network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    first = go_on(run, optimizer, resume=resume)
    for epoch in range(first, run.epochs):
        loss = _epoch(run, epoch, optimizer, stop)
        if loss is None:
            return False
        scores = run.team.told(partial(accuracy, run.network, run.valid))
        mean = float(np.mean(list(scores.values())))
        run.log.append({"epoch": epoch + 1, "loss": loss, "mean": mean})
        shown = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        run.team.say(f"epoch {epoch + 1}/{run.epochs}  loss {loss:.3f}  mean accuracy {mean:.4f}  {shown}")
        keep(run, optimizer, done=epoch + 1, score=mean)
    if run.best is not None:
        run.network.load_state_dict(run.best)
    return True


def _epoch(run: Run, epoch: int, optimizer: torch.optim.Optimizer, stop: StopRequest) -> float | None:
    """One pass; the mean loss, or None when asked to stop."""
    steps = -(-len(run.train) // run.batch)
    losses: list[float] = []
    run.network.train()
    torch.manual_seed(run.seed * 1_000_003 + epoch)
    with run.team.progress(total=steps, label=f"epoch {epoch + 1}/{run.epochs}") as progress:
        for step, rows in enumerate(batches(run.train, size=run.batch, seed=run.seed, epoch=epoch)):
            if run.team.any(stop.requested):
                return None
            done = (epoch + step / steps) / run.epochs
            rise = min(1.0, (epoch * steps + step + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = RATE * rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
            loss, whole = _loss(run, rows)
            losses.append(run.team.learn(run.network, [optimizer], whole, clip=CLIP, shown=loss))
            progress.update(step + 1, f"loss {losses[-1]:.3f}")
    return float(np.mean(losses))


def _loss(run: Run, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """The mean loss of the answers of a step, and what is learned from: that and the pointing. Of several processes,
    the part that this one's questions have of each.
    """
    share, device = run.team.share(len(rows)), run.team.device
    part = batch_of(run.train, rows).part(share.rows, device)
    scores, pointed = run.network(part.sentences, part.story, part.live, part.question, share.among(device))
    loss = functional.cross_entropy(scores, part.answer)
    pointing = functional.binary_cross_entropy_with_logits(
        pointed, part.support, weight=part.live.float(), reduction="sum"
    )
    mine = len(part.answer)
    whole = loss + POINTING * pointing / mine
    return share.weigh(loss, mine, len(rows)), share.weigh(whole, mine, len(rows))


@torch.no_grad()
def accuracy(network: StoryNetwork, data: Stories, *, batch: int = 250) -> dict[str, float]:
    """The share of questions that are answered right, by task."""
    network.eval()
    device = device_of(network)
    right = np.zeros(len(data), bool)
    order = np.argsort([len(each) for each in data.story], kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        part = batch_of(data, rows).part(slice(None), device)
        scores, _ = network(part.sentences, part.story, part.live, part.question)
        right[rows] = (scores.argmax(1) == part.answer).cpu().numpy()
    return {str(task): float(right[data.task == task].mean()) for task in dict.fromkeys(data.task.tolist())}
