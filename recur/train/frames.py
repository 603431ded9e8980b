"""`recur train frames`: a label for every frame. From labelled sequences to a bundle.

What is held out is never trained on and chooses nothing: the number of epochs is fixed beforehand.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import check_target, read_bundle, update_bundle, write_bundle
from recur.data.frames import LabelledFrames, held_out_part, read_labelled_frames
from recur.engine.vision import Encoder
from recur.errors import RecurError
from recur.hub import EMBEDDED, EMBEDDED_TRUNK
from recur.nn.frames import FrameNetwork
from recur.predict.frames import FrameLabeller, measure, pooled
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    has_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from recur.train.team import ALONE, Team, gathered, warn

RATE, DECAY, CLIP = 3e-3, 1e-2, 1.0
CROP, BATCH, SIZE = 256, 8, 224  # CROP: frames of a part of a sequence that a step reads at most
POOL = (2, 4)
SAVED = 20  # epochs between two checkpoints


def train_frames(
    *,
    data: Path,
    out: Path,
    fold: str | None = None,
    held_out: float = 0.2,
    cell: str = "lstm",
    head: str = "softmax",
    direction: str = "both",
    hidden: int = 32,
    reduced: int = 32,
    dropout: float = 0.3,
    epochs: int = 60,
    crop: int = CROP,
    mirror: Sequence[str] | None = None,
    smooth: float = 0.0,
    data_name: str | None = None,
    terms: str | None = None,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the labelled frames at `data`, measure on what is held out, write the bundle `out`.

    Held out is the `fold` that is named, or else the last share `held_out` of every sequence. `cell` "none" looks at
    each frame alone. With `mirror` the frames of training are learned mirrored as well, with the labels of each pair
    "A:B" in it changed for one another. Working files lie in `<out>.work`, which `resume` goes on from.
    Raises RecurError for data and checkpoints that cannot be used.
    """
    check_target(out)
    torch.manual_seed(seed)
    sequences, classes = read_labelled_frames(data, size=SIZE)
    digest = hashlib.sha256()
    for each in sequences:
        digest.update(each.values.tobytes() + each.labels.tobytes())
    train, held = split_frames(sequences, fold=fold, held_out=held_out)
    learned = {label for each in train for label in each.labels.tolist()}
    for label in sorted({label for each in held for label in each.labels.tolist()} - learned):
        warn(f"no frame that is learned from is {classes[label]!r}; some held out are")
    turned = [] if mirror is None else mirrored(train, classes, mirror)
    count = len(train)
    train, encoder = with_features([*train, *turned])
    held, _ = with_features(held)
    bidirectional, crf = direction == "both", head == "crf"
    sizes = {"cell": cell, "hidden": hidden, "reduced": reduced, "bidirectional": bidirectional}
    network = FrameNetwork(
        features=train[0].values.shape[1],
        classes=len(classes),
        crf=crf,
        dropout=dropout,
        **sizes,  # type: ignore[arg-type]
    )
    settings: dict[str, Any] = {
        **sizes, "head": head, "dropout": dropout, "epochs": epochs, "crop": crop, "seed": seed, "fold": fold,
        "mirror": None if mirror is None else list(mirror), "held_out": held_out, "data": digest.hexdigest(),
        "trunk": encoder["trunk"]["sha256"] if encoder else None,
    }  # fmt: skip
    log: list[dict[str, Any]] = []
    work = out.with_name(out.name + ".work") / "checkpoint"
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        team.settle(network)
        if not fit(
            network,
            train,
            epochs=epochs,
            crop=crop,
            stop=stop,
            folder=work,
            settings=settings,
            log=log,
            resume=resume,
            team=team,
        ):
            team.report(stop, work.parent)
            return out
        if not team.leads:
            return out
    network.to("cpu")
    meta = {
        "task": "frames", "name": out.stem, "classes": classes, **sizes, "head": head, "smooth": smooth,
        "features": int(train[0].values.shape[1]), "encoder": encoder,
        "training": {
            **settings, "data_name": data_name, "terms": terms, "command": shlex.join(["recur", *sys.argv[1:]]),
            "frames": sum(len(each.labels) for each in train[:count]),
            "held_out_frames": sum(len(each.labels) for each in held), "log": log,
        },
    }  # fmt: skip
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=b"{}", encoder=None, card="", quantize="float16")
    labeller = FrameLabeller(read_bundle(out, task="frames"))
    results = {"held out": measure(labeller, held)} if held else {}
    update_bundle(out, {"results": results}, card=frames_card({**meta, "results": results}))
    for split, scores in results.items():
        print(f"{split}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    return out


def mirrored(sequences: Sequence[LabelledFrames], classes: Sequence[str], pairs: Sequence[str]) -> list[LabelledFrames]:
    """Every picture turned left to right; the labels of each pair "A:B" are changed for one another.

    Errors: RecurError for features, which cannot be mirrored, and for labels that there are not.
    """
    if any(each.values.ndim == 2 for each in sequences):
        raise RecurError("--mirror for features; expected pictures, which can be mirrored; leave it out")
    other = np.arange(len(classes))
    for pair in pairs:
        names = pair.split(":")
        if len(names) != 2 or not {*names} <= {*classes}:
            raise RecurError(f"--mirror {pair}; expected A:B, two of {', '.join(classes)}; name two labels")
        one, two = (list(classes).index(name) for name in names)
        other[one], other[two] = two, one
    return [
        LabelledFrames(each.name, each.fold, np.ascontiguousarray(each.values[:, :, ::-1]), other[each.labels])
        for each in sequences
    ]


def with_features(sequences: Sequence[LabelledFrames]) -> tuple[list[LabelledFrames], dict[str, Any] | None]:
    """Pictures become features of the embedded trunk; and bundle.json["encoder"], None where they were features."""
    if not sequences or sequences[0].values.ndim == 2:
        return list(sequences), None
    trunk = read_bundle(EMBEDDED / EMBEDDED_TRUNK).encoder
    assert trunk is not None
    encoder = Encoder(trunk)
    found = []
    for each in sequences:
        found.append(LabelledFrames(each.name, each.fold, pooled(encoder, each.values, POOL), each.labels))
    shared = {"model": EMBEDDED_TRUNK, "sha256": hashlib.sha256(trunk).hexdigest()}
    return found, {"size": SIZE, "pool": list(POOL), "trunk": shared}


def split_frames(
    sequences: Sequence[LabelledFrames], *, fold: str | None, held_out: float
) -> tuple[list[LabelledFrames], list[LabelledFrames]]:
    """What is trained on and what is held out. Errors: RecurError for a fold that is not there, or nothing left."""
    held = held_out_part(sequences, fold=fold, share=held_out)
    if fold is not None:
        train = [each for each in sequences if each.fold != fold]
        if not held or not train:
            there = ", ".join(sorted({each.fold for each in sequences})) or "none"
            raise RecurError(f"fold {fold!r}; expected one of {there}, and another to train on; choose one")
        return train, held
    train = []
    for each in sequences:
        cut = len(each.labels) - int(held_out * len(each.labels))
        if cut:
            train.append(LabelledFrames(each.name, each.fold, each.values[:cut], each.labels[:cut]))
    if not train:
        raise RecurError(f"held out {held_out:g} of every sequence; nothing is left to train on; hold out less")
    return train, held


def fit(
    network: FrameNetwork,
    train: Sequence[LabelledFrames],
    *,
    epochs: int,
    stop: StopRequest,
    crop: int = CROP,
    folder: Path | None = None,
    settings: dict[str, Any] | None = None,
    log: list[dict[str, Any]] | None = None,
    resume: bool = False,
    team: Team = ALONE,
) -> bool:
    """All epochs; False when stopped before the end. A step reads BATCH crops of up to `crop` frames, whichever
    processes have them.
    """
    everything = np.concatenate([each.values for each in train])
    spread = everything.std(0)
    network.mean.copy_(torch.from_numpy(everything.mean(0)))  # type: ignore[operator]
    network.scale.copy_(torch.from_numpy(1 / np.maximum(spread, 1e-3 * float(spread.max()) + 1e-6)))  # type: ignore[operator]
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    log = [] if log is None else log
    first = 0
    if resume and folder is not None and has_checkpoint(folder):
        saved = load_checkpoint(folder)
        check_same_run(saved.extra["settings"], settings or {}, path=folder)
        network.load_state_dict(saved.models["network"])
        if saved.optimizer is not None:
            optimizer.load_state_dict(saved.optimizer)
        restore_random_state(saved.random)
        first, log[:] = saved.counters["epoch"], saved.extra["log"]
    seed = int((settings or {}).get("seed", 1))
    with team.progress(total=epochs, label="epochs") as progress:
        for epoch in range(first, epochs):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))
            done = not team.any(stop.requested)
            if done:
                log.append({"epoch": epoch + 1, "loss": _epoch(network, train, optimizer, crop, seed, epoch, team)})
            due = not done or (epoch + 1) % SAVED == 0 or epoch + 1 == epochs
            if folder is not None and due and team.leads:
                save_checkpoint(
                    folder,
                    model_states={"network": network.state_dict()},
                    optimizer=optimizer.state_dict(),
                    counters={"epoch": epoch + done},
                    rng=random_state(),
                    extra={"settings": settings or {}, "log": log},
                )
            if not done:
                return False
            progress.update(epoch + 1, f"loss {log[-1]['loss']:.3f}")
    network.eval()
    return True


def _epoch(
    network: FrameNetwork,
    train: Sequence[LabelledFrames],
    optimizer: torch.optim.Optimizer,
    crop: int,
    seed: int,
    epoch: int,
    team: Team,
) -> float:
    random = np.random.default_rng([seed, epoch])
    crops = []
    for each in train:
        for _ in range(max(1, len(each.labels) // crop)):
            length = min(len(each.labels), crop)
            at = int(random.integers(len(each.labels) - length + 1))
            crops.append((each.values[at : at + length], each.labels[at : at + length]))
    order = random.permutation(len(crops))
    network.train()
    losses = []
    for begin in range(0, len(order), BATCH):
        x, y, lengths = _batch([crops[place] for place in order[begin : begin + BATCH]])
        share, device = team.share(len(y)), team.device
        seen, labels, mine = (each[share.rows].to(device) for each in (x, y, lengths))
        loss = network.loss(network(seen, mine, share.among(device)), labels, mine)
        loss = share.weigh(loss, int(mine.sum()), int(lengths.sum()))
        losses.append(team.learn(network, [optimizer], loss, clip=CLIP))
    return float(np.mean(losses))


def _batch(crops: Sequence[tuple[NDArray[Any], NDArray[np.int64]]]) -> tuple[Tensor, Tensor, Tensor]:
    lengths = torch.tensor([len(y) for _, y in crops])
    x = torch.zeros(len(crops), int(lengths.max()), crops[0][0].shape[1])
    labels = torch.zeros(len(crops), int(lengths.max()), dtype=torch.long)
    for row, (values, y) in enumerate(crops):
        x[row, : len(y)], labels[row, : len(y)] = torch.from_numpy(values), torch.from_numpy(y)
    return x, labels, lengths


def frames_card(meta: dict[str, Any]) -> str:
    """The card of a bundle for frames as Markdown, from its bundle.json."""
    training = meta["training"]
    cell = "no recurrence" if meta["cell"] == "none" else f"{meta['cell'].upper()}, {meta['hidden']} hidden units"
    ways = "" if meta["cell"] == "none" else ", both directions" if meta["bidirectional"] else ", forwards only"
    reads = "features of the trunk of the embedded captioner" if meta["encoder"] else "ready-made features"
    rows = "\n".join(
        f"| {split} | "
        + " | ".join(f"{found[key]:.3f}" for key in ("accuracy", "edit", "f1_10", "f1_25", "f1_50"))
        + " |"
        for split, found in meta["results"].items()
    )
    return (
        f"# {meta['name']}\n\nA label for every frame: {', '.join(meta['classes'])}.\n\n"
        f"## Network\n\n{reads}; {meta['features']} numbers a frame, reduced to {meta['reduced']}; {cell}{ways}; head "
        f"{meta['head']}; a change of label costs {meta['smooth']} nats more.\n\n"
        f"## Data and terms\n\n- Trained on: {training['data_name'] or 'data of the person who trained it'}, "
        f"{training['frames']} frames{', and the same mirrored' if training['mirror'] is not None else ''}; "
        f"{training['held_out_frames']} held out.\n- SHA-256 of the data: "
        f"`{training['data']}`.\n- Terms: {training['terms'] or 'not stated; those of the data apply.'}\n\n"
        f"## Training\n\n```sh\n{training['command']}\n```\n\nSeed {training['seed']}, {training['epochs']} epochs.\n\n"
        "## Measured\n\nThe bundle as it is. What is held out was neither trained on nor chosen by.\n\n"
        f"| split | frame accuracy | edit | F1@10 | F1@25 | F1@50 |\n|---|---|---|---|---|---|\n{rows}\n\n"
        "## Limits\n\nIt knows the scenes it was trained on, and no others. It must not steer a car.\n"
    )
