"""`recur train trunk`: teach a small CNN to see, by a larger one's feature maps.

The small network is trained from nothing, or goes on from one that was trained before. For every view of a picture the
teacher's map (scaled per channel), its pooled direction and its class probabilities are the targets. Training starts on
small pictures and ends on full-size ones: most of what is to be learned can be learned at a third of the price.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.data.caption_formats import SPLITS
from recur.errors import RecurError
from recur.files import write_atomically
from recur.nn.export import export_trunk, import_trunk, is_trunk
from recur.nn.vision import DistillationHead, Trunk, channels_last
from recur.train.checkpoint import (
    StopRequest,
    check_same_run,
    epoch_order,
    has_checkpoint,
    load_checkpoint,
    random_state,
    save_checkpoint,
)
from recur.train.encoders import trunk_of
from recur.train.norm import share_norms
from recur.train.precision import autocast
from recur.train.teacher import MAP_MAX, TeacherCache, build_teacher_cache, cut_view
from recur.train.team import ALONE, Team, gathered

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
HELD_OUT = 256  # pictures that only measure
LEAST_PICTURES = 8
BLOCK = 64  # pictures looked at together where nothing is learned
FITTED = 1024  # pictures that a head is fitted to before a trunk goes on
LEAST_AREA = 0.4  # of a crop, as a share of the picture
# (share of all steps, side in pixels): the grid is side / 32.
RESOLUTIONS = ((0.35, 128), (0.30, 160), (0.35, 224))
LATER_RESOLUTIONS = ((0.45, 160), (0.55, 224))  # of a network that goes on from another
LATER_SHARE = 0.5  # of the learning rate when going on
WHOLE_VIEW_SHARE = (0.34, 0.6)  # how often the whole picture is shown rather than a crop: at the start, at the end


def pictures_to_learn_from(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders, less those that an annotations.jsonl puts in dev or test."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise RecurError(f"{folder}: not a folder; --data of `recur train trunk` takes folders of pictures")
        held: set[str] = set()
        for listing in sorted(folder.rglob("annotations.jsonl")):
            held |= _held_out(listing)
        found += [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in PICTURE_SUFFIXES
            and held.isdisjoint("/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1))
        ]
    if len(found) < LEAST_PICTURES:
        raise RecurError(
            f"{', '.join(map(str, folders))}: only {len(found)} pictures found; "
            f"expected {LEAST_PICTURES} at least; give a folder with more"
        )
    return found


def _held_out(listing: Path) -> set[str]:
    """File names in the dev and test splits of an annotations.jsonl. A line that is unclear stops: it may be one."""
    held: set[str] = set()
    for number, line in enumerate(listing.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise RecurError(f"{listing}:{number}: broken JSON ({error}); mend this line or take it out") from error
        split = row.get("split") or "none" if isinstance(row, dict) else None
        if not isinstance(split, str) or split.strip().lower() not in SPLITS:
            raise RecurError(
                f"{listing}:{number}: {f'split {split!r}' if isinstance(row, dict) else 'no JSON object'}; "
                "expected an object with a split of train, dev, test or none; mend this line"
            )
        if SPLITS[split.strip().lower()] in ("dev", "test"):
            if not isinstance(row.get("file_name"), str):
                raise RecurError(f"{listing}:{number}: no file_name; expected the name of a picture; add it")
            held.add(row["file_name"].replace("\\", "/").removeprefix("./"))
    return held


def jitter_colours(
    pixels: Tensor, rng: np.random.Generator, among: int | None = None, part: slice = slice(None)
) -> Tensor:
    """Random brightness, contrast, saturation and colour cast, one draw a picture. [B, 3, Y, X] in 0..255, float

    `among`: the pictures are `part` of so many, and get what is drawn for them there.
    """
    batch = pixels.shape[0] if among is None else among

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, *shape, 1, 1)).astype(np.float32)[part])

    grey = pixels.mean(1, keepdim=True)
    saturation = draw(0.5, 1.5, 1)
    saturation[torch.from_numpy((rng.random(batch) < 0.05)[part])] = 0.0
    pixels = torch.lerp(grey, pixels, saturation)
    level = grey.mean((2, 3), keepdim=True)
    pixels = (pixels - level) * draw(0.7, 1.35, 1) + level * draw(0.7, 1.3, 1)
    return (pixels * draw(0.92, 1.08, 3)).clamp_(0, 255)


def resolution_at(progress: float, plan: Sequence[tuple[float, int]]) -> int:
    """Side in pixels of the training pictures when the share `progress` of the steps is over."""
    passed = 0.0
    for share, side in plan:
        passed += share
        if progress < passed:
            return side
    return plan[-1][1]


def make_batch(cache: TeacherCache, rows: np.ndarray, views: np.ndarray, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [B, 3, side, side] uint8, teacher maps [B, T, side/32, side/32], teacher probabilities [B, classes]."""
    pixels = torch.cat([cut_view(cache.pixels[i], cache.views[i, v], side) for i, v in zip(rows, views, strict=True)])
    maps = torch.from_numpy(cache.maps[rows, views]).float().mul_(MAP_MAX / 255)
    if maps.shape[2] != side // 32:
        maps = functional.adaptive_avg_pool2d(maps, side // 32)
    return pixels, maps, torch.from_numpy(cache.probabilities[rows, views].astype(np.float32))


def distillation_loss(
    guess: Tensor, logits: Tensor, maps: Tensor, probabilities: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """Map error in units of each channel's spread, angle of the pooled map, and divergence of the class guess."""
    return {
        "map": ((guess - maps) / scale).square().mean(),
        "angle": 1 - functional.cosine_similarity(guess.mean((2, 3)), maps.mean((2, 3))).mean(),
        "classes": functional.kl_div(functional.log_softmax(logits, -1), probabilities, reduction="batchmean"),
    }


LOSS_WEIGHTS = {"map": 1.0, "angle": 2.0, "classes": 0.2}


def total_loss(parts: Mapping[str, Tensor]) -> Tensor:
    """What `distillation_loss` says, weighted and summed."""
    return torch.stack([LOSS_WEIGHTS[name] * value for name, value in parts.items()]).sum()


def map_scale(answers: TeacherCache, rows: NDArray[np.int64]) -> Tensor:
    """The spread of each channel of the teacher's maps [1, T, 1, 1], from the whole view of the pictures `rows`."""
    sample = answers.maps[rows, 0].astype(np.float32) * (MAP_MAX / 255)
    return torch.from_numpy(np.maximum(sample.std((0, 2, 3)), 0.05))[None, :, None, None]


def train_trunk(
    *,
    data: Sequence[Path],
    teacher: Path,
    out: Path,
    init: str | None = None,
    cache: Path | None = None,
    epochs: float = 60,
    batch: int = 64,
    learning_rate: float = 2e-3,
    views: int = 6,
    seed: int = 1,
    seconds: float | None = None,
    resume: bool = False,
) -> Path:
    """Train the trunk and write it to `out`, an ONNX file that `recur train caption --encoder` reads and can fine-tune.

    `init`: go on from the trunk of this bundle or ONNX file (`embedded`: the one that comes with recur).

    The order of pictures, their views and colours depend on (seed, step) alone, so a resumed run repeats exactly what
    the uninterrupted one would have done. Stopped before the end, it leaves a checkpoint and writes no `out`. `batch`
    counts pictures of one process in a step.
    """
    if out.is_dir():
        raise RecurError(f"{out}: a folder; expected the name of an .onnx file to write; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = pictures_to_learn_from(data)
    with gathered() as team:
        place = cache or out.with_suffix(".cache")
        ask = partial(build_teacher_cache, pictures, teacher, place, views=views, seed=seed, least_area=LEAST_AREA)
        answers = team.in_turn(ask)
        assert answers is not None  # nobody is asked to stop meanwhile
        settings = {
            "init": None if init is None else Path(init).name,
            "epochs": epochs,
            "batch": batch * team.size,
            "learning_rate": learning_rate,
            "seed": seed,
            **answers.identity,
        }
        start = None if init is None else _trunk_at(init)
        run = _Distillation(
            answers, start, epochs=epochs, batch=batch * team.size, learning_rate=learning_rate, seed=seed, team=team
        )
        if not _course(run, out, settings, seconds=seconds, resume=resume) or not team.leads:
            return out
    run.trunk.to("cpu").eval()
    write_atomically(out, export_trunk(run.trunk.fold(), quantize=False))
    return out


def _course(run: _Distillation, out: Path, settings: dict[str, Any], *, seconds: float | None, resume: bool) -> bool:
    """All steps from where the checkpoint is; whether the end was reached."""
    checkpoint, team = out.with_suffix(".checkpoint"), run.team
    if resume and has_checkpoint(checkpoint):
        saved = load_checkpoint(checkpoint)
        check_same_run(saved.extra, settings, path=checkpoint)
        run.both.load_state_dict(saved.models["both"])
        run.optimizer.load_state_dict(saved.optimizer or {})
        run.step = saved.counters["step"]

    def save() -> None:
        if not team.leads:
            return
        save_checkpoint(
            checkpoint,
            model_states={"both": run.both.state_dict()},
            optimizer=run.optimizer.state_dict(),
            counters={"step": run.step},
            rng=random_state(),
            extra=settings,
        )

    run.both.train()
    begun, running = time.monotonic(), 0.0
    with StopRequest(seconds=seconds) as stop:
        while run.step < run.steps and not team.any(stop.requested):
            loss = run.advance()
            running = loss if running == 0 else 0.98 * running + 0.02 * loss
            if run.step % run.steps_per_epoch == 0:
                if team.leads:
                    shown = " ".join(f"{name} {value:.4f}" for name, value in run.measure().items())
                    side = resolution_at(run.step / run.steps, run.plan)
                    epoch, took = run.step // run.steps_per_epoch, time.monotonic() - begun
                    team.say(f"epoch {epoch} loss {running:.4f} held-out {shown} side {side} {took:.0f} s")
                save()
        save()
        if run.step < run.steps:
            team.say(
                f"stopped after step {run.step} of {run.steps} ({stop.reason or 'another process was'}); {out} is not "
                "written yet, go on with --resume"
            )
    return run.step >= run.steps


def _trunk_at(spec: str) -> Trunk:
    """The folded trunk of a bundle or file. Errors: RecurError where there is none."""
    encoded, _ = trunk_of(spec)
    if encoded is None or not is_trunk(encoded):
        raise RecurError(f"{spec}: no trunk; expected 'embedded', a bundle, or a file of `recur train trunk`")
    return import_trunk(encoded)


def fit_head(head: DistillationHead, trunk: Trunk, answers: TeacherCache, rows: NDArray[np.int64]) -> None:
    """Least squares for a head on a trunk that can see already: from its features on the whole pictures `rows` to the
    teacher's maps, and from those, pooled, to the logarithms of its probabilities.
    """
    channels, wide = head.map.in_channels, head.map.out_channels
    squares, products = torch.zeros(channels + 1, channels + 1), torch.zeros(channels + 1, wide)
    pooled: list[Tensor] = []
    guessed: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            pixels, maps, probabilities = make_batch(answers, part, np.zeros(len(part), int), RESOLUTIONS[-1][1])
            cells = _with_one(trunk(pixels).float().permute(0, 2, 3, 1).reshape(-1, channels))
            squares += cells.T @ cells
            products += cells.T @ maps.permute(0, 2, 3, 1).reshape(-1, wide)
            pooled.append(_with_one(maps.mean((2, 3))))
            guessed.append(probabilities.clamp_min(1e-6).log())
        seen, logs = torch.cat(pooled), torch.cat(guessed)
        for layer, left, right in (
            (head.map, squares, products),
            (head.classify, seen.T @ seen, seen.T @ (logs - logs.mean(1, keepdim=True))),
        ):
            left.diagonal().add_(1e-4 * float(left.diagonal().mean()))
            found = torch.linalg.solve(left, right)
            layer.weight.copy_(found[:-1].T.reshape(layer.weight.shape))
            assert layer.bias is not None
            layer.bias.copy_(found[-1])


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)


class _Distillation:
    """The small network, its optimizer, and where in the course it is."""

    def __init__(
        self,
        answers: TeacherCache,
        start: Trunk | None,
        *,
        epochs: float,
        batch: int,
        learning_rate: float,
        seed: int,
        team: Team = ALONE,
    ) -> None:
        self.answers, self.batch, self.seed, self.team = answers, batch, seed, team
        shuffled = np.random.default_rng([seed, 0]).permutation(len(answers.readable))
        shuffled = shuffled[answers.readable[shuffled]]
        if len(shuffled) < LEAST_PICTURES:
            raise RecurError(
                f"only {len(shuffled)} of {len(answers.readable)} pictures can be read; "
                f"expected {LEAST_PICTURES} at least; check --data"
            )
        held = min(HELD_OUT, len(shuffled) // 8)
        self.held_out, self.rows = shuffled[:held], shuffled[held:]
        if len(self.rows) < team.size:
            raise RecurError(f"{len(self.rows)} pictures to learn from, {team.size} processes; start fewer of them")
        self.steps_per_epoch = max(len(self.rows) // batch, 1)
        self.steps = max(int(epochs * self.steps_per_epoch), 1)
        self.step = 0
        torch.manual_seed(seed)
        self.scale = map_scale(answers, shuffled[: min(len(self.rows), 512)])
        trunk = channels_last(Trunk()) if start is None else start
        self.head = DistillationHead(trunk.channels, answers.maps.shape[2], answers.probabilities.shape[2])
        if start is not None:
            sample = self.rows[:FITTED]
            fit_head(self.head, start, answers, sample)
            some = sample[:BLOCK]
            trunk = start.unfold(make_batch(answers, some, np.zeros(len(some), int), RESOLUTIONS[-1][1])[0])
        self.trunk, self.plan = trunk, RESOLUTIONS if start is None else LATER_RESOLUTIONS
        if team.size > 1:
            share_norms(self.trunk, team)
        self.both = nn.ModuleDict({"trunk": self.trunk, "head": self.head})
        team.settle(self.both)
        self.scale = self.scale.to(team.device)
        self.rate = learning_rate * (1.0 if start is None else LATER_SHARE)
        decay = [p for p in self.both.parameters() if p.ndim > 1]
        rest = [p for p in self.both.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
            lr=learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )

    def losses(self, pixels: Tensor, maps: Tensor, probabilities: Tensor) -> dict[str, Tensor]:
        """What `distillation_loss` says of pixels [B, 3, Y, X]."""
        pixels, maps, probabilities = (each.to(self.team.device) for each in (pixels, maps, probabilities))
        with autocast():
            guess, logits = self.head(self.trunk(pixels))
        return distillation_loss(guess.float(), logits.float(), maps, probabilities, self.scale)

    def advance(self) -> float:
        """One step; its loss. Errors: RecurError when that is not finite."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        rng = np.random.default_rng([self.seed, 2, self.step])
        order = epoch_order(len(self.rows), seed=self.seed, epoch=epoch)
        part = self.rows[order[place * self.batch : (place + 1) * self.batch]]
        progress = self.step / self.steps
        whole = WHOLE_VIEW_SHARE[0] + (WHOLE_VIEW_SHARE[1] - WHOLE_VIEW_SHARE[0]) * progress
        views = self.answers.views.shape[1]
        chosen = np.where(
            rng.random(len(part)) < whole,
            rng.integers(0, 2, len(part)),
            rng.integers(min(2, views - 1), views, len(part)),
        )
        side = resolution_at(progress, self.plan)
        share = self.team.share(len(part))
        mine, count = share.rows, len(part[share.rows])
        pixels, maps, probabilities = make_batch(self.answers, part[mine], chosen[mine], side)
        losses = self.losses(jitter_colours(pixels.float(), rng, len(part), mine), maps, probabilities)
        loss = share.weigh(total_loss(losses), count, len(part))
        value = float(self.team.summed(loss.detach()))
        if not math.isfinite(value):
            raise RecurError(
                f"step {self.step + 1}: the loss is {value}; the checkpoint of the last epoch is kept; "
                "train again with a lower learning rate"
            )
        warm = min(1.0, (self.step + 1) / 300)
        rate = self.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.team.learn(self.both, [self.optimizer], loss, clip=5.0)
        self.step += 1
        return value

    def measure(self) -> dict[str, float]:
        """Mean losses on the held-out pictures, whole and at full size."""
        self.both.eval()
        held = len(self.held_out)
        totals: dict[str, float] = {}
        with torch.inference_mode():
            for start in range(0, held, self.batch):
                part = self.held_out[start : start + self.batch]
                pixels, maps, probabilities = make_batch(
                    self.answers, part, np.zeros(len(part), int), RESOLUTIONS[-1][1]
                )
                for name, value in self.losses(pixels.float(), maps, probabilities).items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(part) / held
        self.both.train()
        return totals
