"""`recur train span`: a reader that answers with a part of the passage, from questions in SQuAD's formats to a bundle.

One question in six is asked, in training, of another passage, where it has no answer.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.bundle import check_target, write_bundle
from recur.data.passages import Asked, read_asked, tokens_of
from recur.data.text import Vocabulary
from recur.engine.span import FEATURES, PARTS, features_of, numbers_of
from recur.errors import RecurError
from recur.nn.span import SpanNetwork
from recur.predict.span import QUESTION
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    epoch_order,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    step_generator,
)
from recur.train.span_finish import finish_span
from recur.train.team import ALONE, Team, gathered, warn

RATE = 3e-3
CLIP = 5.0
ELSEWHERE = 1 / 6
WINDOW, LONGEST, TOLD = 384, 24, 32
Item = tuple[list[str], list[str], int, int]  # words of passage and question, first and last token; -1: no answer


def train_span(
    *,
    data: Sequence[Path],
    out: Path,
    data_name: str | None = None,
    terms: str | None = None,
    embedding: int = 48,
    hidden: int = 64,
    epochs: int = 8,
    batch: int = 32,
    seconds: float | None = None,
    seed: int = 1,
    resume: bool = False,
) -> Path:
    """Train on nine tenths of the passages in the files `data`, measure on the others, write the bundle `out`.

    `batch` counts questions of one process in a step. Working files lie in `<out>.work`, which `resume` goes on from.
    Raises RecurError for data and checkpoints that cannot be used.
    """
    check_target(out)
    torch.manual_seed(seed)
    asked: list[Asked] = []
    held: list[list[Asked]] = []
    for path in data:
        found, problems = read_asked(path)
        asked += found
        held.append([each for each in found if each.held_out])
        for line in problems:
            warn(line)
    learned = [each for each in asked if not each.held_out]
    if not learned or not any(held):
        raise RecurError(f"{data[0]}: all questions are of few passages; expected ten passages or more; give others")
    items = [item_of(each) for each in learned]
    network = SpanNetwork(embedding=embedding, hidden=hidden, told=TOLD)
    told = sha256("\0".join(each.question + each.passage[:64] for each in asked).encode("utf-8", "replace"))
    settings = {"data": told.hexdigest(), "embedding": embedding, "hidden": hidden, "epochs": epochs, "batch": batch}
    settings |= {"seed": seed}
    with gathered() as team, StopRequest(seconds=seconds) as stop:
        settings["batch"] = batch * team.size
        work = out.with_name(out.name + ".work") / "checkpoint"
        team.settle(network)
        if not _train(network, items, settings, work, stop, resume, team):
            team.report(stop, work.parent)
            return out
        if not team.leads:
            return out
    network.to("cpu")
    meta = {
        "task": "span",
        "name": out.stem,
        "hidden": hidden,
        "embedding": embedding,
        "told": TOLD,
        "window": WINDOW,
        "longest": LONGEST,
        "training": {
            **settings,
            "data_name": data_name,
            "terms": terms,
            "command": shlex.join(["recur", *sys.argv[1:]]),
            "questions": len(learned),
            "held_out": sum(map(len, held)),
        },
    }
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(out, meta, weights, tokenizer=Vocabulary((), ("any",), {}), encoder=None, card="")
    finish_span(out, held)
    return out


def item_of(asked: Asked) -> Item:
    """A question as words, with the tokens of its first answer; of a long passage the window around that."""
    places = tokens_of(asked.passage)
    question = [asked.question[start:end] for start, end in tokens_of(asked.question)][:QUESTION]
    first = last = -1
    if asked.answers:
        start, end = asked.answers[0]
        inside = [place for place, (low, high) in enumerate(places) if high > start and low < end]
        first, last = (inside[0], inside[-1]) if inside else (-1, -1)
    cut = max(min(first - WINDOW // 2, len(places) - WINDOW), 0)
    words = [asked.passage[low:high] for low, high in places[cut : cut + WINDOW]]
    if first < 0 or last - cut >= len(words):
        return words, question, -1, -1
    return words, question, first - cut, last - cut


def _train(
    network: SpanNetwork,
    items: Sequence[Item],
    settings: dict[str, Any],
    work: Path,
    stop: StopRequest,
    resume: bool,
    team: Team,
) -> bool:
    """All epochs. False when stopped before the end."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    first, epochs, seed, batch = 0, settings["epochs"], settings["seed"], settings["batch"]
    if resume and has_checkpoint(work):
        saved = load_checkpoint(work)
        check_same_run(saved.extra["settings"], settings, path=work)
        first = saved.counters["epoch"]
        network.load_state_dict(saved.models["network"])
        if saved.optimizer is not None:
            optimizer.load_state_dict(saved.optimizer)
    steps = -(-len(items) // batch)
    network.train()
    for epoch in range(first, epochs):
        order = _alike(epoch_order(len(items), seed=seed, epoch=epoch), items, batch)
        losses = []
        with team.progress(total=steps, label=f"epoch {epoch + 1}/{epochs}") as progress:
            for step in range(steps):
                if team.any(stop.requested):
                    return False
                torch.manual_seed(seed * 1_000_003 + epoch * 10_007 + step)
                done = (epoch + step / steps) / epochs
                for group in optimizer.param_groups:
                    group["lr"] = (
                        RATE * min(1.0, (epoch * steps + step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
                    )
                random = step_generator(seed=seed, epoch=epoch, step=step)
                part = [items[row] for row in order[step * batch : (step + 1) * batch]]
                loss = _loss(network, _elsewhere(part, items, random), team)
                losses.append(team.learn(network, [optimizer], loss, clip=CLIP))
                progress.update(step + 1, f"loss {losses[-1]:.3f}")
        team.say(f"epoch {epoch + 1}/{epochs}  loss {np.mean(losses):.3f}")
        if team.leads:
            save_checkpoint(
                work,
                model_states={"network": network.state_dict()},
                optimizer=optimizer.state_dict(),
                counters={"epoch": epoch + 1},
                rng=random_state(),
                extra={"settings": settings},
            )
    return True


def _alike(order: NDArray[np.int64], items: Sequence[Item], batch: int) -> NDArray[np.int64]:
    """The order with passages of like length side by side, in stretches of twenty batches."""
    stretches = [order[start : start + 20 * batch] for start in range(0, len(order), 20 * batch)]
    return np.concatenate([part[np.argsort([len(items[row][0]) for row in part])] for part in stretches])


def _elsewhere(part: Sequence[Item], items: Sequence[Item], random: np.random.Generator) -> list[Item]:
    """The items, some of their questions asked of another passage, which has no answer to them."""
    found = []
    for item in part:
        other = items[int(random.integers(len(items)))][0]
        changed = random.random() < ELSEWHERE and other != item[0]
        found.append((other, item[1], -1, -1) if changed else item)
    return found


def _loss(network: SpanNetwork, part: Sequence[Item], team: Team = ALONE) -> Tensor:
    """The mean loss of the questions of a step; of several processes, the part that this one's questions have of it."""
    share, device = team.share(len(part)), team.device
    longest = max(len(words) for words, _, _, _ in part), max(len(asked) for _, asked, _, _ in part)
    count, part = len(part), part[share.rows]
    sizes = torch.tensor([len(words) for words, _, _, _ in part])
    lengths = torch.tensor([len(question) for _, question, _, _ in part])
    passage = torch.zeros(len(part), longest[0], PARTS, dtype=torch.long)
    question = torch.zeros(len(part), longest[1], PARTS, dtype=torch.long)
    features = torch.zeros(len(part), longest[0], FEATURES)
    for row, (words, asked, _, _) in enumerate(part):
        passage[row, : len(words)] = torch.from_numpy(numbers_of(words))
        question[row, : len(asked)] = torch.from_numpy(numbers_of(asked))
        features[row, : len(words)] = torch.from_numpy(features_of(words, asked))
    read = (each.to(device) for each in (passage, features, sizes, question, lengths))
    start, end = network(*read, share.among(device))
    rows, none = torch.arange(len(part), device=device), longest[0]
    firsts = torch.tensor([none if first < 0 else first for _, _, first, _ in part]).to(device)
    lasts = torch.tensor([none if last < 0 else last for _, _, _, last in part]).to(device)
    loss: Tensor = -(start[rows, firsts] + end[rows, lasts]).mean()
    return share.weigh(loss, len(part), count)
