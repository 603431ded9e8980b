"""That the parts of a translator's bundle fit each other, and the weights that one has."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

from recur.bundle.sentiment import AGAIN, check_shapes
from recur.data.subwords import Subwords
from recur.engine.decoder import caption_shapes
from recur.engine.reference import GATES, Cell
from recur.engine.weights import FloatArray
from recur.errors import RecurError

_SIZES: Final = {
    "hidden": 1 << 14,
    "encoder_hidden": 1 << 14,
    "embedding": 1 << 14,
    "layers": 64,
    "attention": 1 << 14,
    "vocabulary_size": 1 << 24,
}


def translation_shapes(
    *, cell: Cell, hidden: int, encoder_hidden: int, layers: int, embedding: int, attention: int, vocabulary: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a translator of these sizes has: a caption decoder's, and an encoder's."""
    shapes = caption_shapes(
        cell=cell,
        hidden=hidden,
        layers=layers,
        embedding=embedding,
        attention=attention,
        vocabulary=vocabulary,
        channels=2 * encoder_hidden,
    )
    rows = GATES[cell] * encoder_hidden
    for way in ("", "_reverse"):
        shapes[f"encoder.weight_ih_l0{way}"] = (rows, embedding)
        shapes[f"encoder.weight_hh_l0{way}"] = (rows, encoder_hidden)
        shapes[f"encoder.bias_ih_l0{way}"] = shapes[f"encoder.bias_hh_l0{way}"] = (rows,)
    return shapes


def check_translation(
    meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]
) -> None:
    """Errors: RecurError that says what does not fit."""
    for key, most in _SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise _refusal(f"bundle.json has {key} {value!r}; expected a whole number from 1 to {most}")
    if meta.get("cell") not in GATES:
        raise _refusal(f"bundle.json has cell {meta.get('cell')!r}; expected one of {', '.join(GATES)}")
    if meta.get("vocabulary_sha256") != hashlib.sha256(contents["tokenizer.json"]).hexdigest():
        raise _refusal("tokenizer.json is not the one that the model was trained with")
    subwords = Subwords.from_bytes(contents["tokenizer.json"])
    if len(subwords) != meta["vocabulary_size"]:
        raise _refusal(f"tokenizer.json has {len(subwords)} tokens, bundle.json says {meta['vocabulary_size']}")
    directions = meta.get("directions")
    known = set(subwords.languages)
    if (
        not isinstance(directions, list)
        or not directions
        or not all(
            isinstance(each, list) and len(each) == 2 and known.issuperset(map(str, each)) for each in directions
        )
    ):
        raise _refusal(f"bundle.json has directions {directions!r}; expected pairs of {', '.join(sorted(known))}")
    decode = meta.get("decode")
    beam = decode.get("beam") if isinstance(decode, dict) else None
    penalty = decode.get("length_penalty") if isinstance(decode, dict) else None
    if type(beam) is not int or not 1 <= beam <= 1024:
        raise _refusal(f"bundle.json has a beam of {beam!r}; expected 1 to 1024")
    if not isinstance(penalty, (int, float)) or not 0 <= penalty < math.inf:
        raise _refusal(f"bundle.json has a length penalty of {penalty!r}; expected 0 or more")
    sizes = {key: meta[key] for key in ("cell", "hidden", "encoder_hidden", "layers", "embedding", "attention")}
    check_shapes(weights, translation_shapes(**sizes, vocabulary=meta["vocabulary_size"]))


def _refusal(what: str) -> RecurError:
    return RecurError(f"{what}; {AGAIN}")
