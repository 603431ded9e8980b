"""That the parts of a span reader's bundle fit each other, and the weights that one has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from recur.bundle.sentiment import AGAIN, check_shapes, is_calibration
from recur.engine.span import BUCKETS, FEATURES
from recur.engine.weights import FloatArray
from recur.errors import RecurError

_SIZES: Final = {"hidden": 1 << 12, "embedding": 1 << 12, "told": 1 << 12, "window": 1 << 14, "longest": 1 << 10}
# What the confidence is made from: whether it is no answer, the log-probability of the answer, its lead over the next
# in nats, its length in tokens.
CALIBRATED: Final = ("none", "log_probability", "lead", "length")


def span_shapes(*, hidden: int, embedding: int, told: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a span reader of these sizes."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (BUCKETS, embedding),
        "pool.weight": (1, 2 * hidden),
        "align.weight": (embedding, embedding),
        "told.weight": (told, 2 * hidden),
    }
    for name in ("start", "end"):
        shapes |= {f"{name}.weight": (2 * hidden, 2 * hidden), f"{name}.bias": (2 * hidden,)}
        shapes |= {f"{name}_none.weight": (1, 4 * hidden), f"{name}_none.bias": (1,)}
    for name, inputs in (("question", embedding), ("passage", 2 * embedding + FEATURES + told)):
        for way in ("", "_reverse"):
            shapes[f"{name}.weight_ih_l0{way}"] = (4 * hidden, inputs)
            shapes[f"{name}.weight_hh_l0{way}"] = (4 * hidden, hidden)
            shapes[f"{name}.bias_ih_l0{way}"] = shapes[f"{name}.bias_hh_l0{way}"] = (4 * hidden,)
    return shapes


def check_span(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """Errors: RecurError that says what does not fit."""
    for key, most in _SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise RecurError(f"bundle.json has {key} {value!r}; expected a whole number from 1 to {most}; {AGAIN}")
    if meta["window"] < 2 * meta["longest"]:
        raise RecurError(f"bundle.json has windows of {meta['window']} tokens; expected two answers' length; {AGAIN}")
    check_shapes(weights, span_shapes(hidden=meta["hidden"], embedding=meta["embedding"], told=meta["told"]))
    calibration = meta.get("calibration")
    if calibration is not None and not is_calibration(calibration, CALIBRATED):
        raise RecurError(f"bundle.json has a calibration that makes no sense; {AGAIN}")
