"""That the parts of a detector or a classifier fit each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from recur.engine.weights import FloatArray
from recur.errors import RecurError

MOST_CLASSES: Final = 100_000
AGAIN: Final = "get the bundle again, or train it again"


def check_detector(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """A detector: classes, groups of classes that are alike, nouns, and a graph."""
    names = _check_head(meta, weights, contents)
    score = meta.get("min_score", 0.5)
    if type(score) not in (int, float) or not 0 <= score <= 1:
        raise RecurError(f"bundle.json has min_score {score!r}; expected a number from 0 to 1; {AGAIN}")
    alike = meta.get("alike", [])
    if not isinstance(alike, list) or not all(isinstance(group, list) for group in alike):
        raise RecurError(f"bundle.json has alike {alike!r}; expected lists of classes; {AGAIN}")
    odd = [name for group in alike for name in group if name not in names]
    if odd:
        raise RecurError(f"bundle.json has {odd[0]!r} among the classes that are alike, which is no class; {AGAIN}")
    try:
        nouns = json.loads(contents["tokenizer.json"].decode("utf-8"))["nouns"]
        wrong = {name for words in nouns.values() for name in words.values()} - names
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecurError(f"tokenizer.json has no nouns of a detector ({error}); {AGAIN}") from error
    if wrong:
        raise RecurError(f"tokenizer.json has nouns of {min(map(str, wrong))!r}, which is no class; {AGAIN}")


def check_classifier(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """A classifier: labels and a graph."""
    _check_head(meta, weights, contents)
    if not isinstance(meta.get("several"), bool):
        raise RecurError(f"bundle.json has several {meta.get('several')!r}; expected true or false; {AGAIN}")


def _check_head(
    meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]
) -> frozenset[str]:
    classes = meta.get("classes")
    if (
        not isinstance(classes, list)
        or not 1 <= len(classes) <= MOST_CLASSES
        or not all(isinstance(name, str) and name for name in classes)
        or len({*classes}) != len(classes)
    ):
        raise RecurError(f"bundle.json has no list of different 'classes'; {AGAIN}")
    encoder = meta.get("encoder")
    size = encoder.get("size") if isinstance(encoder, dict) else None
    if type(size) is not int or not 1 <= size <= 4096:
        raise RecurError(f"bundle.json has an encoder for {size!r} pixels; expected 1 to 4096; {AGAIN}")
    assert isinstance(encoder, dict)
    trunk = encoder.get("trunk")
    if trunk is not None and (
        not isinstance(trunk, dict)
        or not isinstance(trunk.get("model"), str)
        or not isinstance(trunk.get("sha256"), str)
    ):
        raise RecurError(f"bundle.json has trunk {trunk!r}; expected a model and its sha256; {AGAIN}")
    if "encoder.onnx" not in contents:
        raise RecurError(f"encoder.onnx is missing; {AGAIN}")
    if weights:
        raise RecurError(f"weights.safetensors has {min(weights)!r}; expected none, they are in the graph; {AGAIN}")
    return frozenset(classes)
