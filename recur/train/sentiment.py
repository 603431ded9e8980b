"""`recur train sentiment`: is a text good or bad? From labelled texts to a bundle.

Two models learn from the same texts: the recurrent network, which reads the words in their order, and a linear one of
single words and pairs (`wide.py`), which is quickly right about phrases. How much each is believed is fitted on
texts that neither has seen, and that fit is the calibration as well (`sentiment_finish.py`).
"""

from __future__ import annotations

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
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import Bundle, check_target, read_bundle, write_bundle
from recur.data.labelled import Labelled, data_hash, read_splits
from recur.data.sentiment import BITS, ORDERS, WINDOW
from recur.data.text import UNK
from recur.errors import RecurError
from recur.hub import resolve
from recur.nn.sentiment import SentimentNetwork
from recur.train.checkpoint import StopRequest
from recur.train.epochs import go_on, keep
from recur.train.sentiment_data import (
    MIN_COUNT,
    Corpus,
    build_vocabulary,
    cut,
    encode,
    epoch_spans,
    languages_of,
    make_batch,
)
from recur.train.sentiment_finish import finish_sentiment
from recur.train.team import Team, device_of, gathered, warn
from recur.train.wide import fit_wide, log_ratios

RATE = 2e-3
CLIP = 1.0
WORD_DROPOUT = 0.1
SMOOTHING = 0.05
POLARITY = 0.5  # how far the first number of a word's vector is moved by its log-count ratio, before training


@dataclass
class Run:
    """One training: the network, what it learns from, and where it was best."""

    network: SentimentNetwork
    train: Corpus
    dev: Corpus
    seed: int
    epochs: int
    checkpoint: Path
    settings: dict[str, Any]
    log: list[dict[str, Any]]
    team: Team
    best_score: float = -1.0
    best: dict[str, Any] | None = None


def train_sentiment(
    *,
    data: Sequence[Path],
    out: Path,
    column: str | None = None,
    label_column: str | None = None,
    data_name: str | None = None,
    terms: str | None = None,
    init: str | Path | None = None,
    min_count: int = MIN_COUNT,
    embedding: int = 64,
    hidden: int = 64,
    epochs: int = 3,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on the texts of every path in `data`, choose and calibrate on what they hold out, write the bundle `out`.

    See `read_splits` for what is held out. With `init` the words, the sizes and the weights of the network are those of
    that model to begin with, and `epochs` may be 0: then only the linear model and the calibration are new. Working
    files lie in `<out>.work`, which `resume` goes on from. Raises RecurError for data, models and checkpoints that
    cannot be used.
    """
    check_target(out)
    torch.manual_seed(seed)
    splits = [read_splits(path, column=column, label_column=label_column) for path in data]
    parts, held = [train for train, _ in splits], [dev for _, dev in splits]
    for part in (*parts, *held):
        for line in part.problems:
            warn(line)
    labels = choose_labels(parts, held, data)
    start = None if init is None else read_bundle(resolve(init), task="sentiment")
    if start is None and not epochs:
        raise RecurError("--epochs 0 is for a model that --init names; give one, or more epochs")
    read = cut(parts)
    if start is None:
        languages = languages_of(read)
        vocabulary = build_vocabulary(read, languages, min_count)
    else:
        vocabulary = start.vocabulary()
        languages = vocabulary.languages
        embedding, hidden = start.meta["embedding"], start.meta["hidden"]
        _check_fits(start, languages_of(read), labels)
    train = encode(parts, read, vocabulary, labels[1])
    dev = encode(held, cut(held), vocabulary, labels[1])
    network = SentimentNetwork(vocabulary=len(vocabulary), embedding=embedding, hidden=hidden)
    if start is None:
        _polarity(network, train)
    else:
        network.load_engine_weights({name: torch.from_numpy(value) for name, value in start.weights.items()})
    settings: dict[str, Any] = {
        "data": data_hash([*parts, *held]),
        "embedding": embedding,
        "hidden": hidden,
        "min_count": min_count,
        "epochs": epochs,
        "seed": seed,
        "init": None if init is None else Path(init).name,
    }
    work = out.with_name(out.name + ".work")
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        team.settle(network)
        run = Run(network, train, dev, seed, epochs, work / "checkpoint", settings, [], team)
        if not _train(run, stop, resume):
            team.report(stop, work)
            return out
        if not team.leads:
            return out
    network.to("cpu")
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    weights |= _wide(train, languages, start)
    meta = {
        "task": "sentiment",
        "name": out.stem,
        "languages": list(languages),
        "labels": list(labels),
        "cell": "lstm",
        "hidden": hidden,
        "embedding": embedding,
        "window": WINDOW,
        "ngrams": {"bits": BITS, "orders": ORDERS},
        "calibration": {} if start is None else start.meta.get("calibration", {}),
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "before": [] if start is None else _commands(start),
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "texts": len(train),
            "held_out": len(dev),
            "log": run.log,
        },
    }
    write_bundle(out, meta, weights, tokenizer=vocabulary, encoder=None, card="")
    names = [path.name if path.is_dir() else f"{path.parent.name}/{path.name}" for path in data]
    finish_sentiment(out, held, names)
    return out


def choose_labels(parts: Sequence[Labelled], held: Sequence[Labelled], data: Sequence[Path]) -> tuple[str, str]:
    """The two labels, the better one second. Errors: RecurError when there are not two, or dev has others."""
    names = ", ".join(map(str, data))
    found = sorted({label for part in parts for label in part.labels})
    if len(found) != 2:
        shown = ", ".join(found[:8]) or "none"
        raise RecurError(f"{names}: {len(found)} labels ({shown}); expected two; give texts of two labels")
    unseen = sorted({label for part in held for label in part.labels} - set(found))
    if unseen:
        raise RecurError(f"{names}: held-out texts have the label {unseen[0]!r}, which training has not; mend the data")
    if not any(len(part) for part in held):
        raise RecurError(f"{names}: no text is held out; expected some; give more texts, or a dev file beside train")
    return (found[1], found[0]) if found[1] == "neg" or found[0] == "pos" else (found[0], found[1])


def _check_fits(start: Bundle, languages: Sequence[str], labels: tuple[str, str]) -> None:
    strange = sorted(set(languages) - set(start.meta["languages"]))
    if strange:
        raise RecurError(f"{start.path}: it does not know {strange[0]!r}, which the texts have; train without --init")
    if tuple(start.meta["labels"]) != labels:
        known = " and ".join(start.meta["labels"])
        raise RecurError(f"{start.path}: its labels are {known}; the texts have {' and '.join(labels)}; rename them")


def _commands(start: Bundle) -> list[str]:
    """How a model was trained, in the order of the commands."""
    training = start.meta.get("training") or {}
    return [*training.get("before", []), *([training["command"]] if "command" in training else [])]


def _polarity(network: SentimentNetwork, train: Corpus) -> None:
    """Let each word's vector begin with what its counts say of it: the network need not find that out first."""
    size = network.embedding.num_embeddings
    table = [np.unique(train.text(row)).astype(np.int64) for row in range(len(train))]
    ratios = torch.from_numpy(log_ratios(table, train.good)[:size])
    with torch.no_grad():
        network.embedding.weight[:, 0] = POLARITY * ratios.clamp(-2, 2)


def _wide(train: Corpus, languages: Sequence[str], start: Bundle | None) -> dict[str, NDArray[np.float32]]:
    """One row of weights a language: they share no words, and their texts are of other lengths.

    A language without texts keeps what the model had to begin with.
    """
    weights = np.zeros((len(languages), 1 << BITS), np.float32)
    bias = np.zeros(len(languages), np.float32)
    if start is not None:
        weights[:] = start.weights["wide.weight"].reshape(weights.shape)
        bias[:] = start.weights["wide.bias"]
    for place, lang in enumerate(languages):
        rows = np.flatnonzero(train.languages == lang)
        if len(rows):
            weights[place], bias[place] = fit_wide([train.rows[row] for row in rows], train.good[rows])
    return {"wide.weight": weights.reshape(len(languages) << 10, -1), "wide.bias": bias}


def _train(run: Run, stop: StopRequest, resume: bool) -> bool:
    """All epochs; the best weights on dev are in the network then. False when stopped before the end."""
    optimizer = torch.optim.AdamW(run.network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = go_on(run, optimizer, resume=resume)
    for epoch in range(first, run.epochs):
        loss = _epoch(run, epoch, optimizer, stop)
        if loss is None:
            return False
        scores = run.team.told(partial(dev_accuracy, run.network, run.dev))
        mean = float(np.mean(list(scores.values())))
        run.log.append({"epoch": epoch + 1, "loss": loss, **scores})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        run.team.say(f"epoch {epoch + 1}/{run.epochs}  loss {loss:.3f}  dev accuracy of the network alone: {shown}")
        keep(run, optimizer, done=epoch + 1, score=mean)
    if run.best is not None:
        run.network.load_state_dict(run.best)
    return True


def _epoch(run: Run, epoch: int, optimizer: torch.optim.Optimizer, stop: StopRequest) -> float | None:
    """One pass; the mean loss, or None when asked to stop."""
    steps = list(epoch_spans(run.train, seed=run.seed, epoch=epoch))
    losses: list[float] = []
    run.network.train()
    with run.team.progress(total=len(steps), label=f"epoch {epoch + 1}/{run.epochs}") as progress:
        for step, spans in enumerate(steps):
            if run.team.any(stop.requested):
                return None
            torch.manual_seed(run.seed * 1_000_003 + epoch * 10_007 + step)
            done = (epoch + step / len(steps)) / run.epochs
            rise = min(1.0, (epoch * len(steps) + step + 1) / 50)
            for group in optimizer.param_groups:
                group["lr"] = RATE * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            losses.append(run.team.learn(run.network, [optimizer], _loss(run, spans), clip=CLIP))
            progress.update(step + 1, f"loss {losses[-1]:.3f}")
    return float(np.mean(losses))


def _loss(run: Run, spans: Sequence[tuple[int, int, int]]) -> Tensor:
    """The mean loss of the texts of a step; of several processes, the part that this one's texts have of it."""
    share, device = run.team.share(len(spans)), run.team.device
    batch = make_batch(run.train, spans)
    windows = batch.windows.masked_fill(torch.rand(batch.windows.shape) < WORD_DROPOUT, UNK)
    mine = ((batch.owner >= share.rows.start) & (batch.owner < share.rows.stop)).nonzero()[:, 0]
    among = None if len(mine) == len(windows) else (len(windows), mine.to(device))
    logits = run.network(
        windows[mine].to(device),
        batch.lengths[mine].to(device),
        (batch.owner[mine] - share.rows.start).to(device),
        among,
        share.among(device),
    )
    targets = batch.labels[share.rows].to(device) * (1 - 2 * SMOOTHING) + SMOOTHING
    return share.weigh(functional.binary_cross_entropy_with_logits(logits, targets), len(targets), len(spans))


@torch.no_grad()
def dev_accuracy(network: SentimentNetwork, dev: Corpus, *, batch: int = 32) -> dict[str, float]:
    """The share of texts that the network alone gets right, by data set."""
    network.eval()
    device = device_of(network)
    right = np.zeros(len(dev), bool)
    order = np.argsort(dev.lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        part = make_batch(dev, [(int(row), 0, int(dev.lengths[row])) for row in rows])
        logits = network(*(each.to(device) for each in (part.windows, part.lengths, part.owner))).cpu().numpy()
        right[rows] = (logits > 0) == dev.good[rows]
    return {f"data {number + 1}": float(right[dev.source == number].mean()) for number in np.unique(dev.source)}
