"""Random weights for stacks and decoders, and the kinds that the tests of the core run through."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recur.engine import native
from recur.engine.reference import GATES

CELLS = ("rnn", "rnn_relu", "lstm", "gru")
ISAS = tuple(name for name in native.where().isas if name != "reference")


def stack_weights(
    cell: Any,
    inputs: int,
    hidden: int,
    layers: int = 1,
    *,
    bidirectional: bool = False,
    norm: bool = False,
    seed: int = 0,
    prefix: str = "",
    spread: float = 1.0,
) -> dict[str, npt.NDArray[Any]]:
    """float32 weights as PyTorch draws them, uniform within `spread` / sqrt(H)."""
    random = np.random.default_rng(seed)
    rows, bound = GATES[cell] * hidden, spread / np.sqrt(hidden)
    ways = ("", "_reverse") if bidirectional else ("",)
    weights: dict[str, npt.NDArray[Any]] = {}
    for layer in range(layers):
        width = inputs if layer == 0 else len(ways) * hidden
        for way in ways:
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (rows, width),
                "weight_hh": (rows, hidden),
                "bias_ih": (rows,),
                "bias_hh": (rows,),
            }
            for name, shape in shapes.items():
                weights[f"{prefix}{name}_l{layer}{way}"] = random.uniform(-bound, bound, shape).astype(np.float32)
            for name, size in (("norm_ih", rows), ("norm_hh", rows), ("norm_c", hidden), ("norm_c_bias", hidden)):
                if norm:
                    weights[f"{prefix}{name}_l{layer}{way}"] = random.uniform(0.5, 1.5, size).astype(np.float32)
    return weights


def language_model(cell: Any, hidden: int, vocabulary: int, layers: int = 2, seed: int = 0) -> dict[str, Any]:
    """A decoder without memory: embedding as wide as the layers, and a head of its own."""
    random = np.random.default_rng(seed)
    weights = stack_weights(cell, hidden, hidden, layers, seed=seed, prefix="rnn.")
    weights["embedding.weight"] = random.standard_normal((vocabulary, hidden)).astype(np.float32)
    weights["head.weight"] = random.uniform(-1, 1, (vocabulary, hidden)).astype(np.float32)
    weights["head.bias"] = random.uniform(-1, 1, vocabulary).astype(np.float32)
    return weights


def exact(weights: dict[str, Any]) -> dict[str, Any]:
    """The same in float64, for the reference."""
    return {name: value.astype(np.float64) for name, value in weights.items()}
