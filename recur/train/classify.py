"""`recur train classify`: a classification head on a frozen trunk, written as a bundle.

The trunk's mean features of all pictures in some views are computed once and kept; the head, a linear map, is then
learned in seconds, always from the beginning, so that a run that was killed ends with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recur.bundle import check_target, read_bundle, update_bundle, write_bundle
from recur.data.images import iterate_pictures
from recur.data.labels import LabelData, read_labels
from recur.engine.vision import Encoder
from recur.errors import InputError, RecurError
from recur.files import write_atomically
from recur.nn.classification import ClassificationHead, classification_loss
from recur.nn.export_heads import attach, classification_emitter
from recur.predict.classify import OUTPUT, Classifier
from recur.train.card_heads import render_classifier_card
from recur.train.checkpoint import Progress, StopRequest, epoch_order, step_generator
from recur.train.heads import HeadTrunk, open_trunk
from recur.train.pyramid import cut_view, draw_views
from recur.train.team import Team, gathered, warn

RATE, DECAY = 1e-2, 1e-2
BATCH = 256
LOOK = 16  # pictures that the trunk sees together


def train_classify(
    *,
    data: Path,
    out: Path,
    images: Path | None = None,
    encoder: str = "embedded",
    data_name: str | None = None,
    terms: str | None = None,
    share_trunk: bool = False,
    epochs: int = 30,
    views: int = 4,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train a classification head on the train split of `data`, measure it on its dev split, write the bundle `out`.

    `share_trunk`: the bundle holds the head alone, for the captioner that comes with recur. Features lie in
    `<out>.work`; `resume` goes on with them. Raises RecurError for data and encoders that cannot be used.
    """
    check_target(out)
    torch.manual_seed(seed)
    work = out.with_name(out.name + ".work")
    found = read_labels(data, images=images)
    for line in found.problems:
        warn(line)
    train, dev = found.rows("train"), found.rows("dev")
    if not len(train) or not len(dev):
        raise RecurError(f"{data}: {len(train)} train and {len(dev)} dev pictures; expected some of each")
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        paths = [found.paths[row] for row in train]
        trunk = team.told(partial(open_trunk, encoder, pictures=paths, share=share_trunk))
        goes_on = resume or not team.leads
        look = partial(_features, trunk, paths, work, views=views, seed=seed, stop=stop, resume=goes_on)
        looked = team.in_turn(look, stop)
        if looked is None:
            team.report(stop, work)
            return out
        features, kept = looked
        head = ClassificationHead(features.shape[2], len(found.classes), several=found.several)
        team.settle(head)
        mean, spread = features.mean((0, 1)), features.std((0, 1)) + 1e-3
        seen, targets = (features - mean) / spread, found.targets[train[kept]]
        log = _learn(head, seen, targets, epochs=epochs, seed=seed, team=team)
        if not team.leads:
            return out
    head.to("cpu")
    # The head that is shipped reads the features as they are.
    weight, bias = head.linear.weight.detach(), head.linear.bias.detach()
    head.linear.bias.data = bias - weight @ torch.from_numpy(mean / spread)
    head.linear.weight.data = weight / torch.from_numpy(spread)
    meta = {
        "task": "classify",
        "name": out.stem,
        "classes": list(found.classes),
        "several": found.several,
        "encoder": {**trunk.describe([OUTPUT]), "head": "float32"},
        "training": {
            "data": labels_hash(found),
            "encoder": encoder,
            "epochs": epochs,
            "views": views,
            "seed": seed,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "pictures": len(train),
            "log": log,
        },
    }
    graph = attach(trunk.encoded, classification_emitter(head))
    write_bundle(out, meta, {}, tokenizer=b"{}", encoder=trunk.bundled(graph), card="")
    classifier = Classifier(read_bundle(out, task="classify"))
    results = {"dev": measure(classifier, [found.paths[row] for row in dev], found.targets[dev])}
    update_bundle(out, {"results": results}, card=render_classifier_card({**read_bundle(out).meta, "results": results}))
    return out


def measure(classifier: Classifier, paths: Sequence[Path], targets: NDArray[np.float32]) -> dict[str, Any]:
    """Of labels that exclude each other the share of right ones; of others the mean average precision, and chance's."""
    scores = np.zeros_like(targets)
    readable = np.zeros(len(paths), bool)
    numbers = {name: number for number, name in enumerate(classifier.classes)}
    for row, found in enumerate(classifier.stream(paths, top=min(1024, len(numbers)))):
        readable[row] = found.problem is None
        for name, probability in found.labels:
            scores[row, numbers[name]] = probability
    scores, targets = scores[readable], targets[readable]
    report: dict[str, Any] = {"pictures": int(readable.sum())}
    if not len(scores):
        return report
    if not classifier.bundle.meta["several"]:
        ranks = (scores > (scores * targets).sum(1, keepdims=True)).sum(1)
        return report | {"top1": float((ranks < 1).mean()), "top5": float((ranks < 5).mean())}
    there = np.flatnonzero(targets.any(0))
    precisions = {classifier.classes[label]: average_precision(scores[:, label], targets[:, label]) for label in there}
    return report | {
        "map": float(np.mean([*precisions.values()])) if precisions else None,
        "chance_map": float(targets[:, there].mean()) if len(there) else None,
        "classes": precisions,
    }


def average_precision(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """The mean, over the pictures that have the label, of the precision down to each of them. scores, truth [N]"""
    ranked = truth[np.argsort(-scores, kind="stable")] > 0
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean())


def labels_hash(data: LabelData) -> str:
    """SHA-256 of names, splits, classes and labels: what a run was trained on."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for path, split, row in zip(data.paths, data.splits, data.targets, strict=True):
        digest.update(f"{path.name}\0{split}\n".encode() + row.tobytes())
    return digest.hexdigest()


def _learn(
    head: ClassificationHead,
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    *,
    epochs: int,
    seed: int,
    team: Team,
) -> list[dict[str, Any]]:
    """Fit the head to features [N, V, F] and targets [N, classes]; the loss of each epoch. Processes share a step."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    count = len(features)
    steps = math.ceil(count / BATCH)
    log = []
    for epoch in range(epochs):
        order = epoch_order(count, seed=seed, epoch=epoch)
        total = 0.0
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            views = step_generator(seed=seed, epoch=epoch, step=step).integers(0, features.shape[1], len(rows))
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * (epoch * steps + step) / (epochs * steps)))
            share = team.share(len(rows))
            mine = rows[share.rows]
            seen = torch.from_numpy(np.ascontiguousarray(features[mine, views[share.rows]])).to(team.device)
            wanted = torch.from_numpy(targets[mine]).to(team.device)
            loss = share.weigh(classification_loss(head(seen), wanted, several=head.several), len(mine), len(rows))
            total += team.learn(head, [optimizer], loss) * len(rows)
        log.append({"epoch": epoch + 1, "classes": round(total / count, 4)})
    return log


def _features(
    trunk: HeadTrunk, paths: Sequence[Path], work: Path, *, views: int, seed: int, stop: StopRequest, resume: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
    """Mean features [N, V, F] of the pictures that can be read, and their rows; None when stopped before the end."""
    identity = hashlib.sha256(trunk.encoded + "\n".join(path.name for path in paths).encode()).hexdigest()
    stamp, file = work / "features.json", work / "features.npz"
    expected = {"features": identity, "views": views, "seed": seed, "size": trunk.size}
    features: list[NDArray[np.float32]] = []
    kept: list[int] = []
    begin = 0
    if resume and stamp.exists() and file.exists():
        known = json.loads(stamp.read_text(encoding="utf-8"))
        if {key: known.get(key) for key in expected} != expected:
            raise RecurError(
                f"{work}: features of other pictures or of another encoder; delete it or name another --out"
            )
        with np.load(file) as saved:
            features, kept, begin = [saved["features"]], saved["kept"].tolist(), int(saved["begin"])
        if begin == len(paths):
            return features[0], np.array(kept, np.int64)
    encoder = Encoder(trunk.encoded)
    drawn = draw_views(len(paths), views, seed=seed)
    waiting: list[tuple[int, NDArray[np.uint8]]] = []

    def look() -> None:
        seen = [
            encoder(np.stack([cut_view(pixels, drawn[row, view]) for row, pixels in waiting])).mean(1)
            for view in range(views)
        ]
        features.append(np.stack(seen, 1))
        kept.extend(row for row, _ in waiting)
        waiting.clear()

    with Progress(total=len(paths), label="features") as progress:
        row = begin
        for row, (_, square) in enumerate(iterate_pictures(paths[begin:], size=trunk.size, ahead=64), start=begin):
            if isinstance(square, InputError):
                progress.line(f"warning: {square}")
            else:
                waiting.append((row, square.pixels))
            if len(waiting) == LOOK:
                look()
                progress.update(row, "looking at the pictures")
                if stop.requested:
                    break
        else:
            row = len(paths) - 1
    if waiting:
        look()
    if not kept:
        raise RecurError(f"none of {len(paths)} pictures can be read; check --data")
    joined = np.concatenate(features)
    work.mkdir(parents=True, exist_ok=True)
    with open(work / ".features.tmp.npz", "wb") as stream:
        np.savez(stream, features=joined, kept=np.array(kept), begin=row + 1)
    (work / ".features.tmp.npz").replace(file)
    write_atomically(stamp, json.dumps(expected))
    return (joined, np.array(kept, np.int64)) if row + 1 >= len(paths) else None
