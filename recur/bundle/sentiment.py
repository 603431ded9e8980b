"""That the parts of a sentiment bundle fit each other, and the weights that one has."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from recur.data.sentiment import BITS, ORDERS
from recur.data.text import Vocabulary
from recur.engine.reference import GATES
from recur.engine.weights import FloatArray
from recur.errors import RecurError

CALIBRATED: Final = ("network", "wide", "network_short", "wide_short")  # what the probability is made from
AGAIN: Final = "get the bundle again, or train it again"
_SIZES: Final = {"hidden": 1 << 14, "embedding": 1 << 14, "window": 1 << 14, "vocabulary_size": 1 << 24}


def sentiment_shapes(
    *, cell: str, hidden: int, embedding: int, vocabulary: int, languages: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a sentiment model of these sizes has."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (vocabulary, embedding),
        "head.weight": (1, 4 * hidden),
        "head.bias": (1,),
        "wide.weight": (languages << 10, 1 << (BITS - 10)),  # short rows, because each has a scale when stored
        "wide.bias": (languages,),
    }
    for way in ("", "_reverse"):
        shapes[f"rnn.weight_ih_l0{way}"] = (GATES[cell] * hidden, embedding)  # type: ignore[index]
        shapes[f"rnn.weight_hh_l0{way}"] = (GATES[cell] * hidden, hidden)  # type: ignore[index]
        shapes[f"rnn.bias_ih_l0{way}"] = shapes[f"rnn.bias_hh_l0{way}"] = (GATES[cell] * hidden,)  # type: ignore[index]
    return shapes


def check_sentiment(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """Errors: RecurError that says what does not fit."""
    for key, most in _SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise _refusal(f"bundle.json has {key} {value!r}; expected a whole number from 1 to {most}")
    if meta.get("cell") not in GATES:
        raise _refusal(f"bundle.json has cell {meta.get('cell')!r}; expected one of {', '.join(GATES)}")
    labels = meta.get("labels")
    if not isinstance(labels, list) or len({str(label) for label in labels}) != 2 or len(labels) != 2:
        raise _refusal(f"bundle.json has labels {labels!r}; expected two")
    if meta.get("ngrams") != {"bits": BITS, "orders": ORDERS}:
        raise _refusal(f"bundle.json has ngrams {meta.get('ngrams')!r}; expected {BITS} bits and {ORDERS} orders")
    if meta.get("vocabulary_sha256") != hashlib.sha256(contents["tokenizer.json"]).hexdigest():
        raise _refusal("tokenizer.json is not the one that the model was trained with")
    vocabulary = Vocabulary.from_bytes(contents["tokenizer.json"], source="tokenizer.json")
    if len(vocabulary) != meta["vocabulary_size"] or meta.get("languages") != list(vocabulary.languages):
        raise _refusal("tokenizer.json has other words or languages than bundle.json says")
    if not vocabulary.languages:
        raise _refusal("bundle.json has no language; expected one at least")
    expected = sentiment_shapes(
        cell=meta["cell"],
        hidden=meta["hidden"],
        embedding=meta["embedding"],
        vocabulary=meta["vocabulary_size"],
        languages=len(vocabulary.languages),
    )
    check_shapes(weights, expected)
    for lang, entry in (meta.get("calibration") or {}).items():
        if not is_calibration(entry, CALIBRATED):
            raise _refusal(f"bundle.json has a calibration for {lang!r} that makes no sense")


def check_shapes(weights: Mapping[str, FloatArray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """That these are the weights, with these shapes, and no others. Errors: RecurError."""
    for name, shape in expected.items():
        if name not in weights:
            raise _refusal(f"weights.safetensors has no {name!r}")
        if weights[name].shape != shape:
            raise _refusal(
                f"weights.safetensors has {name} of shape {list(weights[name].shape)}; expected {list(shape)}"
            )
    odd = sorted(set(weights) - set(expected))
    if odd:
        raise _refusal(f"weights.safetensors has {odd[0]!r}, which a model of these sizes does not have")


def is_calibration(entry: object, known: Collection[str]) -> bool:
    """Whether it is a logistic function of some of the features `known`."""
    if not isinstance(entry, dict):
        return False
    names, numbers, bias = entry.get("features"), entry.get("weights"), entry.get("bias")
    if not isinstance(names, list) or not isinstance(numbers, list) or len(names) != len(numbers):
        return False
    return all(name in known for name in names) and all(
        type(number) in (int, float) and math.isfinite(number) and abs(number) < 1e9 for number in (*numbers, bias)
    )


def _refusal(what: str) -> RecurError:
    return RecurError(f"{what}; {AGAIN}")
