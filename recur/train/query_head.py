"""A detector of `transformers` learns other classes: it stays as it is, and a linear layer on the states of its queries
is trained. What they see in all pictures is computed first; then the layer is learned in seconds.

N pictures, Q queries, D numbers of a state, C classes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.bundle import read_bundle, update_bundle, write_bundle
from recur.data.boxes import BoxedPicture
from recur.data.images import iterate_pictures
from recur.errors import InputError, RecurError
from recur.nn.detection import PRIOR, overlaps
from recur.nn.queries import HuggingFaceRegions, QueryDetector
from recur.predict.detect import OUTPUTS, Detector
from recur.predict.nouns import Nouns
from recur.train.card_heads import render_detector_card
from recur.train.checkpoint import Progress, StopRequest, epoch_order
from recur.train.encoders import FeatureEncoder, export_module
from recur.train.finish_detect import detect_all, measure

RATE, DECAY = 2e-3, 1e-3
BATCH, LOOK = 32, 8
LEAST_OVERLAP = 0.5  # of a query's box with an object that it is to name


def train_on_queries(
    out: Path,
    eye: FeatureEncoder,
    meta: Mapping[str, Any],
    nouns: Nouns,
    truth: Sequence[tuple[NDArray[np.float64], NDArray[np.float32]]],
    *,
    train: Sequence[BoxedPicture],
    dev: Sequence[BoxedPicture],
    stop: StopRequest,
) -> bool:
    """Train the layer and write the bundle `out`; False when stopped before. A resumed run begins again, which gives
    the same weights: nothing but the looking takes time.
    """
    module = eye.module
    assert isinstance(module, HuggingFaceRegions)
    fix_anchors(module, eye.size)
    seen = _look(module, [picture.path for picture in train], eye.size, stop)
    if seen is None:
        return False
    states, boxes, kept = seen
    settings = meta["training"]
    head = nn.Linear(states.shape[2], len(meta["classes"]))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
    targets = [_targets(boxes[row], *truth[place]) for row, place in enumerate(kept)]
    log = _learn(head, states, targets, epochs=settings["epochs"], seed=settings["seed"])
    encoded = export_module(QueryDetector(module, head).eval(), size=eye.size, name=eye.name, outputs=OUTPUTS)
    encoder = {"file": "encoder.onnx", "input": "pixels", "outputs": list(OUTPUTS), "size": eye.size}
    full = {**meta, "encoder": {**encoder, "arithmetic": "float32"}, "training": {**settings, "log": log}}
    write_bundle(out, full, {}, tokenizer=nouns.to_bytes(), encoder=encoded, card="")
    detector = Detector(read_bundle(out, task="detect"))
    results = {"dev": measure(detector, *detect_all(detector, dev))}
    update_bundle(out, {"results": results}, card=render_detector_card({**read_bundle(out).meta, "results": results}))
    return True


def fix_anchors(module: HuggingFaceRegions, size: int) -> None:
    """Give RT-DETR and D-FINE the places where their queries begin, once for all pictures of `size`.

    They work them out anew from every picture, and in the exported graph all of them would be masked. Other models
    have none and stay as they are.
    """
    inner: Any = module.model.model
    if hasattr(inner, "generate_anchors"):
        inner.config.anchor_image_size = [size, size]
        inner.anchors, inner.valid_mask = inner.generate_anchors()


def _look(
    module: HuggingFaceRegions, paths: Sequence[Path], size: int, stop: StopRequest
) -> tuple[Tensor, Tensor, list[int]] | None:
    """States [N, Q, D] and boxes [N, Q, 4] of the pictures that can be read, and their places."""
    states: list[Tensor] = []
    boxes: list[Tensor] = []
    kept: list[int] = []
    waiting: list[NDArray[np.uint8]] = []

    def look() -> None:
        with torch.no_grad():
            found = module.look(torch.from_numpy(np.stack(waiting)).permute(0, 3, 1, 2).float())
        states.append(found[0].half())
        boxes.append(found[1])
        waiting.clear()

    module.eval()
    with Progress(total=len(paths), label="queries") as progress:
        for place, (_, square) in enumerate(iterate_pictures(paths, size=size, ahead=4 * LOOK)):
            if isinstance(square, InputError):
                print(f"warning: {square}", file=sys.stderr)
                continue
            kept.append(place)
            waiting.append(square.pixels)
            if len(waiting) == LOOK:
                look()
                progress.update(place, "looking at the pictures")
            if stop.requested:
                return None
    if waiting:
        look()
    if not kept:
        raise RecurError(f"none of {len(paths)} pictures can be read; check --data")
    return torch.cat(states), torch.cat(boxes), kept


def _targets(boxes: Tensor, truth: NDArray[np.float64], labels: NDArray[np.float32]) -> Tensor:
    """What each query is to say, [Q, C]: of each object the query that overlaps it most, and says by how much."""
    target = torch.zeros(len(boxes), labels.shape[1])
    if len(truth):
        iou = overlaps(boxes[None], torch.from_numpy(truth.astype(np.float32))[:, None])[0]  # [M, Q]
        best, query = iou.max(1)
        for row in best.argsort().tolist():
            if best[row] >= LEAST_OVERLAP:
                target[query[row]] = torch.maximum(target[query[row]], torch.from_numpy(labels[row]) * best[row])
    return target


def _learn(
    head: nn.Linear, states: Tensor, targets: Sequence[Tensor], *, epochs: int, seed: int
) -> list[dict[str, Any]]:
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    log = []
    for epoch in range(epochs):
        total = 0.0
        order = epoch_order(len(states), seed=seed, epoch=epoch)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            wanted = torch.stack([targets[row] for row in rows.tolist()])
            scores = head(states[torch.from_numpy(rows)].float())
            loss = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / len(rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        log.append({"epoch": epoch + 1, "classes": round(total / len(states), 4)})
    return log
