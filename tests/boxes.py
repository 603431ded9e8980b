"""Small pictures with boxes that can be learned in seconds: coloured squares on grey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}


def write_boxed(folder: Path, count: int = 16, width: int = 96, height: int = 64) -> Path:
    """annotations.jsonl, classes.json and images/: one to three squares a picture, every fourth picture in dev."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        picture = Image.new("RGB", (width, height), tuple(int(v) for v in random.integers(90, 160, 3)))
        draw = ImageDraw.Draw(picture)
        objects = []
        for _ in range(1 + number % 3):
            label = [*COLOURS][int(random.integers(0, 3))]
            side = int(random.integers(16, 34))
            x, y = int(random.integers(0, width - side)), int(random.integers(0, height - side))
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=COLOURS[label])
            objects.append({"label": label, "box": [x, y, x + side, y + side]})
        picture.save(folder / "images" / f"{number:03d}.png")
        rows.append(
            {
                "file_name": f"{number:03d}.png",
                "split": "dev" if number % 4 == 3 else "train",
                "width": width,
                "height": height,
                "objects": [*objects, {"label": None, "box": [0, 0, width, height]}],
            }
        )
    (folder / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps({name: f"{name} {name}s" for name in COLOURS}), encoding="utf-8")
    return folder


def write_seeing_captioner(path: Path, *, size: int = 64, ranges: bool = True) -> Path:
    """A captioner with random weights on a tiny trunk of recur's own kind, which heads can stand on."""
    import torch
    from helpers import random_weights, tiny_meta, tiny_vocabulary

    from recur.bundle import write_bundle
    from recur.nn.export import export_trunk
    from recur.nn.vision import Trunk
    from recur.train.quantize import measure_ranges

    torch.manual_seed(0)
    trunk = Trunk((8, 16, 16, 24), (1, 1, 1, 1)).eval().fold()
    pixels = np.random.default_rng(0).integers(0, 256, (4, size, size, 3)).astype(np.uint8)
    encoded = export_trunk(trunk, ranges=measure_ranges(trunk, [pixels]) if ranges else None)
    encoder = {"file": "encoder.onnx", "size": size, "grid": [size // 32, size // 32], "channels": 24}
    meta = tiny_meta(name="captioner", encoder=encoder)
    sizes = {key: meta[key] for key in ("cell", "hidden", "layers", "embedding", "attention")}
    weights = random_weights(0, **sizes, vocabulary=meta["vocabulary_size"], channels=24)
    return write_bundle(path, meta, weights, tokenizer=tiny_vocabulary(), encoder=encoded, card="# tiny\n")
