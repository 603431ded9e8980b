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


CHANNELS, CLASSES = 5, 4  # of the teacher


def write_teacher(path: Path) -> Path:
    """pixels -> features [B, 5, 7, 7] in 0..6 and probabilities [B, 4], from colours alone."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.normal(0, 0.02, (CHANNELS, 3, 1, 1)).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "mix": random.normal(0, 1, (CHANNELS, CLASSES)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Conv", ["cells", "kernel"], ["mixed"]),
        helper.make_node("Clip", ["mixed", "low", "high"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Squeeze", ["pooled", "axes"], ["vector"]),
        helper.make_node("MatMul", ["vector", "mix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("pixels", kind.FLOAT, ["B", 3, 224, 224])],
        [
            helper.make_tensor_value_info("features", kind.FLOAT, ["B", CHANNELS, 7, 7]),
            helper.make_tensor_value_info("probabilities", kind.FLOAT, ["B", CLASSES]),
        ],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
