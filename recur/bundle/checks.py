"""That the parts of a bundle fit each other: one function a task.

A check raises RecurError that says what is wrong and what to do; the reader puts the bundle's path before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from recur.bundle.answer import check_answer
from recur.bundle.check_heads import check_classifier, check_detector
from recur.bundle.consensus import consensus_shapes
from recur.bundle.frames import check_frames
from recur.bundle.language import check_language
from recur.bundle.sentiment import check_sentiment
from recur.bundle.span import check_span
from recur.bundle.translation import check_translation
from recur.data.text import Vocabulary
from recur.engine.decoder import caption_shapes
from recur.engine.reference import GATES
from recur.engine.weights import FloatArray
from recur.errors import RecurError

META, WEIGHTS, TOKENIZER = "bundle.json", "weights.safetensors", "tokenizer.json"
ENCODER, CARD = "encoder.onnx", "CARD.md"
MAX_PIXEL: Final = 1e6  # mean and standard deviation of an encoder's pixels, which go from 0 to 255
AGAIN: Final = "get the bundle again, or train it again"

_CAPTION_SIZES: Final = {"hidden": 1, "layers": 1, "embedding": 1, "attention": 0, "vocabulary_size": 4}


def _refusal(what: str) -> RecurError:
    return RecurError(f"{what}; {AGAIN}")


def _check_caption(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """That the parts of a captioner fit each other."""
    sizes = {}
    for key, least in _CAPTION_SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not least <= value <= 1 << 24:
            raise _refusal(f"{META} has {key} {value!r}; expected a whole number from {least}")
        sizes[key] = value
    if meta.get("cell") not in GATES:
        raise _refusal(f"{META} has cell {meta.get('cell')!r}; expected one of {', '.join(GATES)}")
    encoder, decode, languages = meta.get("encoder"), meta.get("decode"), meta.get("languages")
    if (
        not isinstance(encoder, dict)
        or type(encoder.get("size")) is not int
        or type(encoder.get("channels")) is not int
    ):
        raise _refusal(f"{META} has no 'encoder' with a 'size' and 'channels'")
    if not 1 <= encoder["size"] <= 4096 or encoder["channels"] < 1:
        raise _refusal(f"{META} has an encoder for {encoder['size']} pixels; expected 1 to 4096")
    for key in ("input", "output", "regions"):
        if not isinstance(encoder.get(key, ""), str):
            raise _refusal(f"{META} has an encoder with {key} {encoder[key]!r}; expected a name")
    for key, low in (("mean", -MAX_PIXEL), ("std", 1 / MAX_PIXEL)):
        values = encoder.get(key, [1.0])
        if (
            not isinstance(values, list)
            or len(values) not in (1, 3)
            or not all(type(value) in (int, float) and low <= value <= MAX_PIXEL for value in values)
        ):
            raise _refusal(
                f"{META} has an encoder with {key} {values!r}; expected one number for each of 3 channels",
            )
    if encoder.get("file", ENCODER) != ENCODER or ENCODER not in contents:
        raise _refusal(f"{ENCODER} is missing")
    if not isinstance(decode, dict):
        raise _refusal(f"{META} has no 'decode'")
    if not 1 <= sizes["layers"] <= 64:
        raise _refusal(f"{META} has {sizes['layers']} layers; expected 1 to 64")
    if meta.get("vocabulary_sha256") != hashlib.sha256(contents[TOKENIZER]).hexdigest():
        raise _refusal(f"{TOKENIZER} is not the one that the model was trained with")
    vocabulary = Vocabulary.from_bytes(contents[TOKENIZER], source=TOKENIZER)
    if len(vocabulary) != sizes["vocabulary_size"]:
        raise _refusal(
            f"{TOKENIZER} has {len(vocabulary)} tokens, {META} says {sizes['vocabulary_size']}; expected the same",
        )
    if languages != list(vocabulary.languages):
        raise _refusal(
            f"{META} has languages {languages}, {TOKENIZER} {list(vocabulary.languages)}; expected the same",
        )
    expected = caption_shapes(
        cell=meta["cell"],
        hidden=sizes["hidden"],
        layers=sizes["layers"],
        embedding=sizes["embedding"],
        attention=sizes["attention"],
        vocabulary=sizes["vocabulary_size"],
        channels=encoder["channels"],
    )
    expected |= consensus_shapes(decode, weights, languages, channels=encoder["channels"], size=len(vocabulary))
    for name, shape in expected.items():
        if name not in weights:
            raise _refusal(f"{WEIGHTS} has no {name!r}")
        if weights[name].shape != shape:
            raise _refusal(
                f"{WEIGHTS} has {name} of shape {list(weights[name].shape)}; expected {list(shape)} from {META}",
            )
    odd = sorted(set(weights) - set(expected))
    if odd:
        raise _refusal(f"{WEIGHTS} has {odd[0]!r}, which a captioner of these sizes does not have")


Check = Callable[[Mapping[str, Any], Mapping[str, FloatArray], Mapping[str, bytes]], None]
CHECKS: Final[dict[str, Check]] = {
    "caption": _check_caption,
    "sentiment": check_sentiment,
    "language": check_language,
    "classify": check_classifier,
    "detect": check_detector,
    "translate": check_translation,
    "frames": check_frames,
    "answer": check_answer,
    "span": check_span,
}
