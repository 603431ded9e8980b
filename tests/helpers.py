"""Small made-up models for tests: random weights, a tiny encoder graph, a few words in two languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recur.bundle import write_bundle
from recur.data.text import Vocabulary
from recur.engine.decoder import caption_shapes

ENGLISH = ("a", "dog", "runs", "on", "the", "grass", "'s", "two", "men", "3")
CHINESE = ("一", "只", "狗", "在", "草", "地", "上")
SIZE, CELL, CHANNELS = 48, 16, 6  # pixels of a picture and of a grid cell, features of a cell


def random_weights(
    seed: int = 0, dtype: Any = np.float32, scale: float = 1.0, **sizes: Any
) -> dict[str, npt.NDArray[Any]]:
    """Weights of a caption decoder; `sizes` as `caption_shapes` takes them. `scale` large: sharp distributions."""
    random = np.random.default_rng(seed)
    shapes = caption_shapes(**sizes)
    return {name: (scale * random.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def tiny_vocabulary() -> Vocabulary:
    first = 5
    return Vocabulary(
        (*ENGLISH, *CHINESE),
        ("en", "zh"),
        {
            "en": range(first, first + len(ENGLISH)),
            "zh": [first + ENGLISH.index("3"), *range(first + len(ENGLISH), first + len(ENGLISH) + len(CHINESE))],
        },
    )


def tiny_encoder(*, grid: bool = True, seed: int = 0, batch: int | str = "B", input: str = "pixels") -> bytes:
    """An ONNX graph: one convolution over cells of 16 pixels, its weights 8-bit with Cast and Mul, then ReLU."""
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.TensorProto
    random = np.random.default_rng(seed)
    stored = random.integers(-127, 128, (CHANNELS, 3, CELL, CELL)).astype(np.int8)
    nodes = [
        helper.make_node("Cast", ["stored"], ["whole"], to=tensor.FLOAT),
        helper.make_node("Mul", ["whole", "scale"], ["kernel"]),
        helper.make_node("Conv", [input, "kernel"], ["mixed"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Relu", ["mixed"], ["features" if grid else "cells"]),
    ]
    shape: list[int | str] = [batch, CHANNELS, "gy", "gx"]
    if not grid:
        nodes += [
            helper.make_node("GlobalAveragePool", ["cells"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
        ]
        shape = [batch, CHANNELS]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input, tensor.FLOAT, [batch, 3, "Y", "X"])],
        [helper.make_tensor_value_info("features", tensor.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(stored, "stored"),
            onnx.numpy_helper.from_array(np.full((CHANNELS, 1, 1, 1), 1e-5, np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    encoded: bytes = model.SerializeToString()
    return encoded


def tiny_meta(**changes: Any) -> dict[str, Any]:
    """A bundle.json for the parts above, before `write_bundle` completes it."""
    meta: dict[str, Any] = {
        "task": "caption",
        "name": "tiny",
        "languages": ["en", "zh"],
        "cell": "lstm",
        "hidden": 8,
        "layers": 2,
        "embedding": 7,
        "attention": 5,
        "vocabulary_size": len(tiny_vocabulary()),
        "encoder": {
            "file": "encoder.onnx",
            "input": "pixels",
            "output": "features",
            "size": SIZE,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "grid": [SIZE // CELL, SIZE // CELL],
            "channels": CHANNELS,
        },
        "decode": {"beam": 3, "length_penalty": 0.5, "no_repeat_ngram": 1, "max_length": {"en": 6, "zh": 8}},
        "calibration": {"en": {"features": ["mean_log_prob", "margin"], "weights": [1.0, 2.0], "bias": 0.5}},
        "training": {"seed": 0},
        "results": {},
    }
    return {**meta, **changes}


def write_tiny_bundle(path: Path, *, seed: int = 0, quantize: Any = True, grid: bool = True, **changes: Any) -> Path:
    """A captioner with random weights, as a folder, or as a .zip when `path` says so."""
    meta = tiny_meta(**changes)
    sizes = {key: meta[key] for key in ("cell", "hidden", "layers", "embedding", "attention")}
    weights = random_weights(seed, **sizes, vocabulary=meta["vocabulary_size"], channels=CHANNELS)
    return write_bundle(
        path,
        meta,
        weights,
        tokenizer=tiny_vocabulary(),
        encoder=tiny_encoder(grid=grid),
        card="# tiny\nRandom weights.\n",
        quantize=quantize,
    )
