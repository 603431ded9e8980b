"""`recur train detect`: a detection head on a frozen trunk, from pictures with boxes, written as a bundle.

The trunk stays as it is, so that whatever else stands on it (the captioner) stays as good, and one pass of it serves
both. Its maps of all pictures in some views are computed once (`pyramid.py`); then an epoch costs only the head.
Every random choice is a function of (seed, epoch, step): a run that was killed and resumed ends with the same weights.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import check_target
from recur.data.boxes import BoxData, BoxedPicture, read_boxes
from recur.errors import RecurError
from recur.nn.detection import DetectionHead, detection_loss, grid_of, total_loss
from recur.nn.queries import HuggingFaceRegions
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    copy_state,
    epoch_order,
    has_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    step_generator,
)
from recur.train.encoders import open_encoder, trunk_of
from recur.train.evidence import learn_evidence
from recur.train.finish_detect import finish_detector, head_of, read_nouns
from recur.train.heads import open_trunk
from recur.train.orthogonal import Muon
from recur.train.precision import autocast
from recur.train.pyramid import Pyramids, cache_pyramids, in_view
from recur.train.query_head import train_on_queries
from recur.train.team import Team, gathered, warn

RATE, DECAY = 2e-3, 0.05
ORTHOGONAL_RATE = 0.02  # of the convolutions that answer nothing themselves
WARM = 100  # steps
BALANCED = 0.1  # share of pictures below which those with a class come more often
AVERAGE = 0.998  # of the weights that are shipped: a running mean over the last steps (Polyak & Juditsky 1992)
SHOWN = 0.35  # share of a box that a cut-out must show for the object to be learned there
CLIP = 5.0


@dataclass
class Run:
    """A head on its way, and where in the course it is."""

    head: DetectionHead
    average: dict[str, Tensor]
    optimizers: tuple[Muon, torch.optim.AdamW]
    truth: list[tuple[NDArray[np.float64], NDArray[np.float32]]]
    pyramids: Pyramids
    weights: NDArray[np.float64]
    seed: int
    batch: int
    steps: int
    step: int
    log: list[dict[str, Any]]
    team: Team

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.pyramids.kept) // self.batch)

    def advance(self) -> dict[str, float]:
        """One step; the parts of its loss. Errors: RecurError when that is not finite."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        random = step_generator(seed=self.seed, epoch=epoch, step=place)
        order = balanced_order(self.weights, seed=self.seed, epoch=epoch)
        rows = self.pyramids.kept[order[place * self.batch : (place + 1) * self.batch]]
        views = random.integers(0, self.pyramids.views.shape[1], len(rows))
        share = min(1.0, (self.step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * self.step / self.steps))
        for optimizer, rate in zip(self.optimizers, (ORTHOGONAL_RATE, RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        team, mine = self.team, self.team.share(len(rows))
        rows, views = rows[mine.rows], views[mine.rows]
        truth = [self._seen(int(row), int(view)) for row, view in zip(rows, views, strict=True)]
        with autocast():
            scores, boxes = self.head([each.to(team.device) for each in self.pyramids.batch(rows, views)])
        centres = grid_of(self.pyramids.shapes)[0].to(team.device)
        together = None if team.size == 1 else lambda total: team.summed(total * mine.weight)
        losses = detection_loss(scores.float(), boxes.float(), centres, truth, together)
        loss = total_loss(losses) * mine.weight
        shown = team.summed(torch.stack([*losses.values(), loss]).detach() * mine.weight).tolist()
        if not math.isfinite(shown[-1]):
            raise RecurError(
                f"step {self.step + 1}: the loss is not finite; the checkpoint of the last epoch is kept; train again "
                "with another seed"
            )
        team.learn(self.head, self.optimizers, loss, clip=CLIP)
        self.step += 1
        kept = min(AVERAGE, self.step / (self.step + 10))
        for name, value in self.head.state_dict().items():
            self.average[name].lerp_(value, 1 - kept)
        return dict(zip(losses, shown, strict=False))

    def _seen(self, row: int, view: int) -> tuple[Tensor, Tensor]:
        boxes, labels = self.truth[row]
        inner, shown = in_view(boxes, self.pyramids.views[row, view], least=SHOWN)
        found = torch.from_numpy(inner[shown].astype(np.float32)), torch.from_numpy(labels[shown])
        return found[0].to(self.team.device), found[1].to(self.team.device)


def truth_of(picture: BoxedPicture, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The different boxes of a picture [M, 4] in shares of it, and the classes of each [M, N] as 0 and 1."""
    counted = ~picture.ignored
    boxes, places = np.unique(picture.shares()[counted], axis=0, return_inverse=True)
    labels = np.zeros((len(boxes), classes), np.float32)
    labels[places.reshape(-1), picture.labels[counted]] = 1
    return boxes, labels


def balance(truth: Sequence[tuple[NDArray[np.float64], NDArray[np.float32]]]) -> NDArray[np.float64]:
    """How often each picture comes, 1 for most: those with a class that fewer than the share `BALANCED` of them have
    come more often, by the square root of what is missing (Gupta et al. 2019, "LVIS", section 3: repeat factors).
    """
    shows = np.array([labels.any(0) for _, labels in truth])
    share = shows.mean(0)
    wanted = np.sqrt(np.maximum(1.0, BALANCED / np.maximum(share, 1 / len(truth))))
    found: NDArray[np.float64] = np.where(shows, wanted, 1.0).max(1, initial=1.0)
    return found


def balanced_order(weights: NDArray[np.float64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """As many places as there are `weights`, each about as often as its weight has a share of their sum, shuffled."""
    count = len(weights)
    order = epoch_order(count, seed=seed, epoch=epoch)
    marks = (np.arange(count) + 0.5) / count
    reached = np.cumsum(weights[order]) / weights.sum()
    drawn = order[np.minimum(np.searchsorted(reached, marks), count - 1)]
    return drawn[epoch_order(count, seed=seed, epoch=epoch + 1)]


def train_detect(
    *,
    data: Path,
    out: Path,
    images: Path | None = None,
    encoder: str = "embedded",
    init: str | Path | None = None,
    data_name: str | None = None,
    terms: str | None = None,
    alike: Sequence[str] = (),
    nouns: Sequence[str] = (),
    share_trunk: bool = False,
    epochs: int = 20,
    batch: int = 32,
    views: int = 3,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train a detection head on the train split of `data`, measure it on its dev split, write the bundle `out`.

    `alike`: classes that one object may have any of. `nouns`, each `LANG=FILE.json`: the words that name each class.
    `share_trunk`: the bundle holds the head alone, for the captioner that comes with recur. `init`: start from the head
    of this detector. `batch` counts pictures of one process in a step. Raises RecurError for data, encoders and
    checkpoints that cannot be used.
    """
    check_target(out)
    torch.manual_seed(seed)
    work = out.with_name(out.name + ".work")
    found = read_boxes(data, images=images)
    for line in found.problems:
        warn(line)
    if found.unseen():
        warn(f"no box to learn from for {', '.join(found.unseen())}; they will not be found")
    train, dev = found.split("train"), found.split("dev")
    if not any(len(picture.boxes) for picture in train) or not len(dev):
        raise RecurError(f"{data}: {len(train)} train and {len(dev)} dev pictures; expected some of each, with boxes")
    odd = sorted({*alike} - {*found.classes})
    if odd:
        raise RecurError(
            f"--alike: {', '.join(odd)} is no class of {data}; expected some of {', '.join(found.classes)}"
        )
    words = read_nouns(nouns, found.classes, data)
    settings: dict[str, Any] = {
        "data": boxes_hash(found),
        "encoder": encoder,
        "init": None if init is None else Path(init).name,
        "alike": list(alike),
        "epochs": epochs,
        "batch": batch,
        "views": views,
        "seed": seed,
    }
    meta: dict[str, Any] = {
        "task": "detect",
        "name": out.stem,
        "classes": list(found.classes),
        "alike": [list(alike)] if alike else [],
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "pictures": len(train),
            "boxes": sum(len(picture.boxes) for picture in train),
        },
    }
    truth = [truth_of(picture, len(found.classes)) for picture in train]
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        if trunk_of(encoder)[0] is None:  # a Hugging Face model
            if not team.leads:  # what takes time there is looking at the pictures, not learning
                return out
            eye = open_encoder(encoder)
            if not isinstance(eye.module, HuggingFaceRegions):
                raise RecurError(f"{encoder}: finds no objects; name a detector (DETR, RT-DETR, D-FINE), or a trunk")
            if train_on_queries(out, eye, meta, words, truth, train=train, dev=dev, stop=stop):
                return out
            team.report(stop, work)
            return out
        settings["batch"] = meta["training"]["batch"] = batch * team.size
        paths = [picture.path for picture in train]
        trunk = team.told(partial(open_trunk, encoder, pictures=paths, share=share_trunk))
        with team.progress(total=len(train), label="maps") as progress:
            look = partial(
                cache_pyramids,
                trunk.encoded,
                paths,
                work / "maps",
                size=trunk.size,
                views=views,
                seed=seed,
                progress=progress,
                stop=stop,
            )
            pyramids = team.in_turn(look, stop)
        for problem in () if pyramids is None else pyramids.problems:
            warn(str(problem))
        if pyramids is None or not pyramids.complete:
            team.report(stop, work)
            return out
        run = _begin(pyramids, truth, len(found.classes), settings, init=init, team=team)
        if not _course(run, work / "checkpoint", settings, stop=stop, resume=resume):
            team.report(stop, work)
            return out
        if not team.leads:
            return out
    run.head.to("cpu").load_state_dict(run.average)
    meta["training"]["log"] = run.log
    group = tuple(found.classes.index(name) for name in alike)
    evidence = learn_evidence(pyramids, truth, alike=[group] if group else [])
    finish_detector(out, run.head, trunk, meta, words, evidence=evidence, train=train, dev=dev)
    return out


def _begin(
    pyramids: Pyramids,
    truth: list[tuple[NDArray[np.float64], NDArray[np.float32]]],
    classes: int,
    settings: dict[str, Any],
    *,
    init: str | Path | None,
    team: Team,
) -> Run:
    head = DetectionHead(pyramids.channels, classes)
    if init is not None:
        head.load_state_dict(head_of(init, head).state_dict())
    head.train()
    team.settle(head)
    head = head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    answers = {id(p) for level in head.levels for part in (level.score, level.sides) for p in part.parameters()}
    inner = [p for p in head.parameters() if p.ndim > 1 and id(p) not in answers]
    decay = [p for p in head.parameters() if p.ndim > 1 and id(p) in answers]
    rest = [p for p in head.parameters() if p.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": decay, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.99),
        fused=True,
    )
    run = Run(
        head,
        copy_state(head.state_dict()),
        (Muon(inner, gates=1, lr=ORTHOGONAL_RATE, decay=DECAY), adam),
        truth,
        pyramids,
        balance([truth[row] for row in pyramids.kept]),
        settings["seed"],
        settings["batch"],
        0,
        0,
        [],
        team,
    )
    run.steps = settings["epochs"] * run.steps_per_epoch
    return run


def _course(run: Run, folder: Path, settings: dict[str, Any], *, stop: StopRequest, resume: bool) -> bool:
    """All steps from where the checkpoint is; whether the end was reached."""
    if resume and has_checkpoint(folder):
        saved = load_checkpoint(folder)
        check_same_run(saved.extra["settings"], settings, path=folder)
        run.head.load_state_dict(saved.models["head"])
        run.average = {name: value.to(run.team.device) for name, value in saved.models["average"].items()}
        for number, optimizer in enumerate(run.optimizers):
            optimizer.load_state_dict((saved.optimizer or {})[str(number)])
        restore_random_state(saved.random)
        run.step, run.log = saved.counters["step"], saved.extra["log"]
    running: dict[str, float] = saved.extra["running"] if run.step else {}

    def save() -> None:
        if not run.team.leads:
            return
        save_checkpoint(
            folder,
            model_states={"head": run.head.state_dict(), "average": run.average},
            optimizer={str(number): each.state_dict() for number, each in enumerate(run.optimizers)},
            counters={"step": run.step},
            rng=random_state(),
            extra={"settings": settings, "log": run.log, "running": running},
        )

    with run.team.progress(total=run.steps, label="detection head") as progress:
        while run.step < run.steps and not run.team.any(stop.requested):
            for name, value in run.advance().items():
                running[name] = value if name not in running else 0.98 * running[name] + 0.02 * value
            shown = "  ".join(f"{name} {value:.3f}" for name, value in running.items())
            progress.update(run.step, shown)
            if run.step % run.steps_per_epoch == 0:
                epoch = run.step // run.steps_per_epoch
                run.log.append({"epoch": epoch, **{name: round(value, 4) for name, value in running.items()}})
                progress.line(f"epoch {epoch}/{settings['epochs']}  {shown}  {stop.elapsed:.0f} s")
                save()
    save()
    return run.step >= run.steps


def boxes_hash(data: BoxData) -> str:
    """SHA-256 of names, splits, classes and boxes: what a run was trained on."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for picture in data.pictures:
        digest.update(f"{picture.path.name}\0{picture.split}\0{picture.width}x{picture.height}\n".encode())
        digest.update(picture.boxes.tobytes() + picture.labels.tobytes() + picture.ignored.tobytes())
    return digest.hexdigest()
