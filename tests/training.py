"""Small pictures with captions that can be learned in seconds: coloured shapes, named in two languages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": ("红", (220, 30, 30)), "green": ("绿", (30, 200, 40)), "blue": ("蓝", (40, 60, 230))}
SHAPES = {"square": "方块", "circle": "圆圈"}


def write_shapes(folder: Path, count: int = 36, side: int = 64) -> Path:
    """A folder with annotations.jsonl and images/: two captions a picture and language, every fourth picture in dev."""
    images = folder / "images"
    images.mkdir(parents=True)
    random = np.random.default_rng(0)
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    rows = []
    for number in range(count):
        colour, shape = kinds[number % len(kinds)]
        chinese, rgb = COLOURS[colour]
        picture = Image.new("RGB", (side, side), tuple(int(v) for v in random.integers(200, 256, 3)))
        x, y = (int(v) for v in random.integers(4, side // 3, 2))
        box = (x, y, x + side // 2, y + side // 2)
        draw = ImageDraw.Draw(picture)
        (draw.rectangle if shape == "square" else draw.ellipse)(box, fill=rgb)
        name = f"{number:03d}.png"
        picture.save(images / name)
        rows.append(
            {
                "file_name": name,
                "split": "dev" if number % 4 == 3 else "train",
                "width": side,
                "height": side,
                "captions": [f"A {colour} {shape} .", f"There is a {colour} {shape} on the ground ."],
                "captions_zh": [f"一个{chinese}色的{SHAPES[shape]}。", f"地上有{chinese}色{SHAPES[shape]}。"],
            }
        )
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "annotations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_trunk(path: Path) -> Path:
    """A tiny untrained encoder of our own kind, as recur writes it: it can be fine-tuned."""
    import torch

    from recur.nn.export import export_trunk
    from recur.nn.vision import Trunk

    torch.manual_seed(0)
    path.write_bytes(export_trunk(Trunk((8, 16, 16, 24), (1, 1, 1, 1)).eval().fold()))
    return path
