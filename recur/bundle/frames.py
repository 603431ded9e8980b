"""That the parts of a bundle for frames fit each other, and the weights that one has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from recur.bundle.sentiment import check_shapes
from recur.engine.reference import GATES
from recur.engine.weights import FloatArray
from recur.errors import RecurError

AGAIN: Final = "get the bundle again, or train it again"
HEADS: Final = ("softmax", "crf")
_SIZES: Final = {"hidden": 1 << 14, "reduced": 1 << 14, "features": 1 << 20}


def frame_shapes(
    *, cell: str, hidden: int, reduced: int, features: int, classes: int, bidirectional: bool
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a model of these sizes has; `cell` "none" has no recurrent ones."""
    ways = [] if cell == "none" else ["forwards", "backwards"] if bidirectional else ["forwards"]
    width = hidden * len(ways) or reduced
    shapes: dict[str, tuple[int, ...]] = {
        "reduce.weight": (reduced, features),
        "reduce.bias": (reduced,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
        "crf.transitions": (classes, classes),
        "crf.start": (classes,),
    }
    for way in ways:
        rows = GATES[cell] * hidden  # type: ignore[index]
        shapes[f"{way}.weight_ih_l0"] = (rows, reduced)
        shapes[f"{way}.weight_hh_l0"] = (rows, hidden)
        shapes[f"{way}.bias_ih_l0"] = shapes[f"{way}.bias_hh_l0"] = (rows,)
    return shapes


def check_frames(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """Errors: RecurError that says what does not fit."""
    for key, most in _SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise _refusal(f"bundle.json has {key} {value!r}; expected a whole number from 1 to {most}")
    if meta.get("cell") not in ("none", "lstm", "gru"):
        raise _refusal(f"bundle.json has cell {meta.get('cell')!r}; expected lstm, gru or none")
    if meta.get("head") not in HEADS:
        raise _refusal(f"bundle.json has head {meta.get('head')!r}; expected one of {', '.join(HEADS)}")
    if not isinstance(meta.get("bidirectional"), bool):
        raise _refusal(f"bundle.json has bidirectional {meta.get('bidirectional')!r}; expected true or false")
    smooth = meta.get("smooth")
    if type(smooth) not in (int, float) or not math.isfinite(smooth) or not 0 <= smooth <= 1000:  # type: ignore[arg-type, operator]
        raise _refusal(f"bundle.json has smooth {smooth!r}; expected a number from 0 to 1000")
    classes = meta.get("classes")
    if (
        not isinstance(classes, list)
        or not 2 <= len(classes) <= 10_000
        or not all(isinstance(name, str) and name for name in classes)
        or len({*classes}) != len(classes)
    ):
        raise _refusal("bundle.json has no list of different 'classes'")
    encoder = meta.get("encoder")
    if encoder is not None:
        _check_encoder(encoder, meta)
    elif "encoder.onnx" in contents:
        raise _refusal("encoder.onnx is there, but bundle.json has no 'encoder'")
    expected = frame_shapes(
        cell=meta["cell"],
        hidden=meta["hidden"],
        reduced=meta["reduced"],
        features=meta["features"],
        classes=len(classes),
        bidirectional=meta["bidirectional"],
    )
    check_shapes(weights, expected)


def _check_encoder(encoder: object, meta: Mapping[str, Any]) -> None:
    if not isinstance(encoder, dict) or type(encoder.get("size")) is not int or not 1 <= encoder["size"] <= 4096:
        raise _refusal("bundle.json has an encoder without a size from 1 to 4096")
    pool, trunk = encoder.get("pool"), encoder.get("trunk")
    if not isinstance(pool, list) or len(pool) != 2 or any(type(n) is not int or not 1 <= n <= 64 for n in pool):
        raise _refusal(f"bundle.json has pool {pool!r}; expected two whole numbers from 1 to 64")
    if meta["features"] % (pool[0] * pool[1]):
        raise _refusal(f"bundle.json has {meta['features']} features, which {pool} does not divide")
    if (
        not isinstance(trunk, dict)
        or not isinstance(trunk.get("model"), str)
        or not isinstance(trunk.get("sha256"), str)
    ):
        raise _refusal(f"bundle.json has trunk {trunk!r}; expected a model and its sha256")


def _refusal(what: str) -> RecurError:
    return RecurError(f"{what}; {AGAIN}")
