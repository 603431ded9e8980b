"""That the parts of a language model's bundle fit each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from recur.data.characters import Characters
from recur.engine.reference import GATES, Cell
from recur.engine.weights import FloatArray
from recur.errors import RecurError

AGAIN: Final = "get the bundle again, or train it again"
SIZES: Final = {"hidden": 1, "layers": 1, "embedding": 1, "vocabulary_size": 2}


def language_shapes(
    *, cell: Cell, hidden: int, layers: int, embedding: int, vocabulary: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a language model."""
    rows = GATES[cell] * hidden
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (vocabulary, embedding),
        "head.weight": (vocabulary, hidden),
        "head.bias": (vocabulary,),
    }
    for layer in range(layers):
        shapes |= {
            f"rnn.weight_ih_l{layer}": (rows, hidden if layer else embedding),
            f"rnn.weight_hh_l{layer}": (rows, hidden),
            f"rnn.bias_ih_l{layer}": (rows,),
            f"rnn.bias_hh_l{layer}": (rows,),
        }
    return shapes


def check_language(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """Errors: RecurError with what does not fit, and what to do."""
    sizes: dict[str, int] = {}
    for key, least in SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not least <= value <= 1 << 24:
            raise RecurError(f"bundle.json has {key} {value!r}; expected a whole number from {least}; {AGAIN}")
        sizes[key] = value
    if not 1 <= sizes["layers"] <= 64:
        raise RecurError(f"bundle.json has {sizes['layers']} layers; expected 1 to 64; {AGAIN}")
    cell = meta.get("cell")
    if cell not in GATES:
        raise RecurError(f"bundle.json has cell {cell!r}; expected one of {', '.join(GATES)}; {AGAIN}")
    tokenizer = contents["tokenizer.json"]
    if meta.get("vocabulary_sha256") != hashlib.sha256(tokenizer).hexdigest():
        raise RecurError(f"tokenizer.json is not the one that the model was trained with; {AGAIN}")
    characters = Characters.from_bytes(tokenizer)
    if len(characters) != sizes["vocabulary_size"]:
        raise RecurError(
            f"tokenizer.json has {len(characters)} characters, bundle.json says {sizes['vocabulary_size']}; "
            f"expected the same; {AGAIN}"
        )
    expected = language_shapes(
        cell=cell,
        hidden=sizes["hidden"],
        layers=sizes["layers"],
        embedding=sizes["embedding"],
        vocabulary=sizes["vocabulary_size"],
    )
    for name, shape in expected.items():
        found = list(weights[name].shape) if name in weights else "no shape, it is missing"
        if found != list(shape):
            raise RecurError(f"weights.safetensors has {name} of {found}; expected {list(shape)}; {AGAIN}")
    odd = sorted(set(weights) - set(expected))
    if odd:
        raise RecurError(f"weights.safetensors has {odd[0]!r}, which a language model does not have; {AGAIN}")
