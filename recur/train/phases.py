"""`recur train caption`: a captioner from pictures and sentences.

Three phases, each of them optional but the first: the recurrent network alone on a frozen encoder; the encoder
along with it (`finetune_encoder`); self-critical training on CIDEr-D (`cider`). Every random choice is a function of
(seed, phase, epoch, step), so a run that was killed and resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.data.text import END, Vocabulary, detokenize
from recur.metrics.caption import CiderD
from recur.metrics.captions_report import evaluate_captions
from recur.nn.caption import CaptionNetwork
from recur.train.caption_data import (
    ALL,
    DEFAULT_MAX_WORDS,
    MAX_WORDS,
    CaptionBatch,
    Captions,
    FeatureSource,
    Split,
    TrainedFeatures,
    freeze,
)
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    copy_state,
    epoch_order,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
    step_generator,
)
from recur.train.cider import reward_scorer, self_critical_loss
from recur.train.precision import autocast
from recur.train.streamed import Order, StreamedFeatures
from recur.train.taught import TAUGHT_CAPTIONS, TaughtFeatures
from recur.train.team import Team, device_of
from recur.train.watch import update_ratios, weights_of
from recur.train.watch_caption import gradients_to_picture, sentences_to_follow

LABEL_SMOOTHING = 0.1
CLIP = 2.0
PATIENCE = 4  # epochs without a better dev score before a phase ends


@dataclass
class Run:
    """Everything the phases share, and the log that the plot and the card are made from."""

    network: CaptionNetwork
    vocabulary: Vocabulary
    train: Split
    dev: Split
    seed: int
    pictures_per_step: int
    checkpoint: Path
    settings: dict[str, Any]
    log: list[dict[str, Any]]
    best_score: float = -1.0
    best: dict[str, Any] | None = None
    reports: dict[str, Any] = field(default_factory=dict)
    team: Team = field(default_factory=Team)
    order: Order = epoch_order  # of the pictures of an epoch
    watched: list[dict[str, Any]] = field(default_factory=list)  # what the training page shows of each epoch
    ratios: dict[str, float] = field(default_factory=dict)  # of the last step of an epoch

    def __post_init__(self) -> None:
        self.captions = Captions(self.train, self.vocabulary)
        self.followed = sentences_to_follow(self.captions)
        self.dev_scorers = {
            lang: CiderD([rows or ((),) for rows in self.dev.tokens[lang]]) for lang in self.vocabulary.languages
        }
        self.rewards: dict[str, CiderD] = {}

    def references(self, lang: str) -> CiderD:
        """The reward of self-critical training in one language, made when first asked for."""
        if lang not in self.rewards:
            self.rewards[lang] = reward_scorer(self.train, lang)
        return self.rewards[lang]


@dataclass(frozen=True)
class Phase:
    """`kind` is decoder, joint or cider; `rate` the highest learning rate, `encoder_rate` that of the encoder."""

    kind: str
    epochs: int
    rate: float
    encoder_rate: float = 0.0


def sentence_loss(network: CaptionNetwork, features: Tensor, batch: CaptionBatch) -> Tensor:
    """Cross-entropy a word, averaged, with label smoothing (Szegedy et al. 2016), over the words of the language."""
    if not len(batch.owner):
        return features.new_zeros(())  # of a part of a step whose pictures have no captions in this language
    packing, scores = network.score_sentences(
        features, batch.owner, batch.tokens, batch.lengths, batch.words, among=batch.among
    )
    targets = batch.targets[packing.row, packing.step]
    reduction = "mean" if batch.among is None else "sum"
    loss = functional.cross_entropy(
        scores.float(), targets, ignore_index=-1, label_smoothing=LABEL_SMOOTHING, reduction=reduction
    )
    return loss if batch.among is None else loss / batch.asked


def greedy_captions(
    network: CaptionNetwork, source: FeatureSource, split: Split, vocabulary: Vocabulary, lang: str, *, batch: int = 250
) -> list[list[str]]:
    """The most probable word at every step, for every picture of a split."""
    was_training = network.training
    network.eval()
    device = device_of(network)
    words = torch.from_numpy(np.flatnonzero(vocabulary.allowed(lang))).to(device)
    language, limit = vocabulary.language_id(lang), MAX_WORDS.get(lang, DEFAULT_MAX_WORDS)
    captions: list[list[str]] = []
    with torch.inference_mode(), autocast():
        for start in range(0, len(split), batch):
            rows = np.arange(start, min(start + batch, len(split)))
            features = source.features(rows, None).to(device)
            found = network.generate(features, language, words, end=END, length=limit)
            captions += [vocabulary.decode(row) for row in found.tolist()]
    network.train(was_training)
    return captions


def dev_scores(run: Run, source: FeatureSource) -> dict[str, float]:
    """CIDEr-D of greedy captions on dev, times 100, by language, and how many distinct captions there are."""
    scores: dict[str, float] = {}
    for lang in run.vocabulary.languages:
        kept = [i for i, rows in enumerate(run.dev.tokens[lang]) if rows]
        if not kept:
            continue
        captions = greedy_captions(run.network, source, run.dev, run.vocabulary, lang)
        found = run.dev_scorers[lang].score([captions[i] for i in kept], kept)
        scores[lang] = 100 * float(np.mean(found))
        scores[f"{lang}_distinct"] = float(len({" ".join(words) for words in captions}))
    return scores


def dev_report(run: Run, source: FeatureSource) -> dict[str, Any]:
    """Every metric of greedy captions on dev, by language, after a phase."""
    report: dict[str, Any] = {}
    for lang in run.vocabulary.languages:
        kept = [i for i, rows in enumerate(run.dev.tokens[lang]) if rows]
        if kept:
            words = greedy_captions(run.network, source, run.dev, run.vocabulary, lang)
            references = [list(run.dev.pictures[i].captions[lang]) for i in kept]
            report[lang] = evaluate_captions(references, [detokenize(words[i], lang) for i in kept], lang)
    return report


def rate_at(step: int, steps: int, highest: float) -> float:
    """A linear rise over the first twentieth of the steps (100 at most), then a cosine down to a fiftieth."""
    rise = min(1.0, (step + 1) / min(100, 1 + steps // 20))
    return highest * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def step_rows(run: Run, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The pictures of each step of an epoch."""
    order = run.order(len(run.train), seed=run.seed, epoch=epoch)
    for start in range(0, len(order), run.pictures_per_step):
        yield order[start : start + run.pictures_per_step]


def make_optimizer(network: nn.Module, encoder: nn.Module | None) -> torch.optim.AdamW:
    """AdamW; the first two groups are the network (decayed, not decayed), the rest the encoder."""
    groups: list[dict[str, Any]] = []
    for module in (network, encoder):
        if module is not None:
            parameters = [p for p in module.parameters() if p.requires_grad]
            groups += [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)


def train_phases(
    run: Run,
    phases: Sequence[Phase],
    sources: dict[str, FeatureSource],
    *,
    encoder: nn.Module | None,
    stop: StopRequest,
    resume: bool,
) -> bool:
    """Run the phases in order, keeping the best weights on dev in `run.best`. False when stopped before the end.

    `sources` has "train" and "dev". A phase without a moving encoder uses features computed once at its start.
    """
    _move(run, encoder, run.team.device)
    first_phase = first_epoch = 0
    losses: list[float] = []  # of the steps of the epoch that is on its way
    saved = None
    if resume and has_checkpoint(run.checkpoint):
        saved = load_checkpoint(run.checkpoint)
        before = {key: value for key, value in saved.extra["settings"].items() if key != "cider"}
        check_same_run(before, {k: v for k, v in run.settings.items() if k != "cider"}, path=run.checkpoint)
        first_phase, first_epoch = saved.counters["phase"], saved.counters["epoch"]
        run.network.load_state_dict(saved.models["network"])
        if encoder is not None:
            encoder.load_state_dict(saved.models["encoder"])
        run.log[:] = saved.extra["log"]
        run.watched[:] = saved.extra.get("watched", ())
        run.reports.update(saved.extra["reports"])
        run.best_score = float(saved.extra["best_score"])
        losses = [float(loss) for loss in saved.extra.get("losses", ())]
        if "best_network" in saved.models:
            run.best = {"network": saved.models["best_network"]}
            if encoder is not None:
                run.best["encoder"] = saved.models["best_encoder"]

    for number, phase in enumerate(phases):
        if number < first_phase:
            continue
        if number > first_phase or saved is None:
            load_best(run, encoder)
        moving = phase.kind == "joint" and encoder is not None
        train_source, dev_source = sources["train"], sources["dev"]
        if not moving:
            train_source, dev_source = (
                freeze(source) if isinstance(source, (TrainedFeatures, TaughtFeatures)) else source
                for source in (train_source, dev_source)
            )
        for source in (train_source, dev_source):
            if isinstance(source, StreamedFeatures):
                source.learning = moving
        run.team.align([*run.network.state_dict().values(), *(encoder.state_dict().values() if encoder else ())])
        optimizer = make_optimizer(run.network, encoder if moving else None)
        start = first_epoch if number == first_phase else 0
        if saved is not None and number == first_phase and saved.optimizer is not None and (start or losses):
            optimizer.load_state_dict(saved.optimizer)
        for epoch in range(start, phase.epochs):
            if _stale(run.log, phase.kind):
                break
            if not _epoch(
                run, phase, number, epoch, train_source, optimizer, stop, losses, encoder if moving else None
            ):
                if run.team.leads:
                    _save(run, optimizer, encoder, number, epoch, losses)
                return False
            loss = float(np.mean(losses))
            losses = []
            scores = run.team.told(partial(dev_scores, run, dev_source))
            mean = float(np.mean([scores[lang] for lang in run.vocabulary.languages if lang in scores] or [0.0]))
            run.log.append({"phase": phase.kind, "epoch": epoch + 1, "loss": loss, "mean": mean, **scores})
            if run.team.leads:
                back = [] if run.followed is None else gradients_to_picture(run.network, train_source, run.followed)
                seen = {"phase": phase.kind, "epoch": len(run.log), "gradients": back, "ratios": run.ratios}
                run.watched.append(seen)
            # Of equals the later one: it has seen more, and on tiny data every score is 0 for a while.
            if mean >= run.best_score:
                run.best_score = mean
                run.best = {"network": copy_state(run.network.state_dict())}
                if encoder is not None:
                    run.best["encoder"] = copy_state(encoder.state_dict())
            shown = "  ".join(f"{name} {value:.1f}" for name, value in scores.items())
            if run.team.leads:
                print(f"{phase.kind} {epoch + 1}/{phase.epochs}  loss {loss:.3f}  dev CIDEr-D {shown}", flush=True)
                _save(run, optimizer, encoder, number, epoch + 1)
        load_best(run, encoder)
        if run.team.leads:
            run.reports[phase.kind] = dev_report(run, dev_source)
        first_epoch, saved = 0, None
    _move(run, encoder, torch.device("cpu"))  # where they are measured and written
    return True


def _move(run: Run, encoder: nn.Module | None, device: torch.device) -> None:
    for module in (run.network, encoder):
        if module is not None:
            module.to(device)


def _epoch(
    run: Run,
    phase: Phase,
    number: int,
    epoch: int,
    source: FeatureSource,
    optimizer: torch.optim.Optimizer,
    stop: StopRequest,
    losses: list[float],
    encoder: nn.Module | None,
) -> bool:
    """One pass over the training pictures, adding the loss of each step to `losses`; those that are there already are
    of steps that were done before. `encoder` is the one that learns. False when asked to stop.
    """
    steps = math.ceil(len(run.train) / run.pictures_per_step)
    key = 1000 * number + epoch  # no two epochs of a run share it
    run.network.train(phase.kind != "cider")
    with run.team.progress(total=steps, label=f"{phase.kind} {epoch + 1}/{phase.epochs}") as progress:
        for step, rows in islice(enumerate(step_rows(run, key)), len(losses), None):
            if run.team.any(stop.requested):
                return False
            torch.manual_seed(run.seed * 1_000_003 + key * 10_007 + step)
            rng = step_generator(seed=run.seed, epoch=key, step=step)
            done = epoch * steps + step
            if isinstance(source, TaughtFeatures):
                source.progress = done / (phase.epochs * steps)
            for place, group in enumerate(optimizer.param_groups):
                highest = phase.rate if place < 2 else phase.encoder_rate
                group["lr"] = rate_at(done, phase.epochs * steps, highest)
            before = weights_of(run.network, encoder) if step == steps - 1 and run.team.leads else None
            losses.append(_step(run, phase, source, rows, rng, optimizer))
            run.ratios = {} if before is None else update_ratios(before, run.network, encoder)
            progress.update(step + 1, f"loss {losses[-1]:.3f}")
    return True


def _stale(log: Sequence[Mapping[str, Any]], kind: str) -> bool:
    """Whether the last `PATIENCE` epochs of a phase brought nothing better than what was there before them.

    A phase that has not said anything right yet (CIDEr-D below 1 of 100) is given its time.
    """
    scores = [float(entry["mean"]) for entry in log if entry["phase"] == kind]
    return len(scores) > PATIENCE and max(scores[-PATIENCE:]) <= max(scores[:-PATIENCE]) and max(scores) >= 1.0


def _step(
    run: Run,
    phase: Phase,
    source: FeatureSource,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One update on the pictures `rows`; the loss, averaged over languages."""
    # Alone, a process has the whole step, and sums nothing that is not already a sum.
    mine = None if run.team.size == 1 else run.team.part(len(rows))
    own = ALL if mine is None or phase.kind == "cider" else mine
    device = device_of(run.network)
    with autocast():
        parts: list[Tensor] = []
        nothing = mine is not None and mine.start == mine.stop  # fewer pictures in the step than processes
        features = torch.zeros(0) if nothing else source.features(rows, rng, own).to(device)
        for lang in () if nothing else run.vocabulary.languages:
            if phase.kind == "cider":
                part = self_critical_loss(
                    run.network, features, run.captions, lang, rows, run.references(lang), sentence_loss, rng, mine
                )
            else:
                # Where the encoder has a second teacher, a view more is worth more than a sentence more.
                fewer = rng if isinstance(source, TaughtFeatures) else None
                batch = run.captions.batch(lang, rows, fewer, most=TAUGHT_CAPTIONS)
                if batch is not None and mine is not None:
                    batch = batch.part(mine)
                part = None if batch is None else sentence_loss(run.network, features, batch.to(device))
            if part is not None:
                parts.append(part)
    if not parts and mine is None:
        return 0.0
    loss = torch.stack(parts).mean() if parts else torch.zeros(())
    if isinstance(source, TaughtFeatures) and source.lesson is not None and parts:
        loss = loss + (source.lesson if mine is None else source.lesson * (len(features) / len(rows)))
    optimizer.zero_grad(set_to_none=True)
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    whole = run.team.add_up([p for group in optimizer.param_groups for p in group["params"]], float(loss.detach()))
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], CLIP)
    optimizer.step()
    return whole


def load_best(run: Run, encoder: nn.Module | None) -> None:
    """Go back to the weights that were best on dev, if any were measured."""
    if run.best is not None:
        run.network.load_state_dict(run.best["network"])
        if encoder is not None and "encoder" in run.best:
            encoder.load_state_dict(run.best["encoder"])


def _save(
    run: Run,
    optimizer: torch.optim.Optimizer,
    encoder: nn.Module | None,
    phase: int,
    epoch: int,
    losses: Sequence[float] = (),
) -> None:
    """Everything to go on from: `epoch` epochs of `phase` are done, and as many steps of the next as `losses` has."""
    models: dict[str, Any] = {"network": run.network.state_dict()}
    if run.best is not None:
        models["best_network"] = run.best["network"]
    if encoder is not None:
        models["encoder"] = encoder.state_dict()
        if run.best is not None:
            models["best_encoder"] = run.best["encoder"]
    save_checkpoint(
        run.checkpoint,
        model_states=models,
        optimizer=optimizer.state_dict(),
        counters={"phase": phase, "epoch": epoch},
        rng=random_state(),
        extra={
            "settings": run.settings,
            "log": run.log,
            "watched": run.watched,
            "reports": run.reports,
            "best_score": run.best_score,
            "losses": list(losses),
        },
    )
