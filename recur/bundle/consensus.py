"""What a bundle holds of the second opinion on captions (`recur.predict.consensus`), and that it fits the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from recur.engine.weights import FloatArray
from recur.errors import RecurError

PREFIX: Final = "consensus."  # of the names of its tensors, before the language
AGAIN: Final = "get the bundle again, or train it again"


def consensus_shapes(
    decode: Mapping[str, Any], weights: Mapping[str, FloatArray], languages: Sequence[str], *, channels: int, size: int
) -> dict[str, tuple[int, ...]]:
    """The tensors of the languages that have one, for an encoder of `channels` and a vocabulary of `size` tokens.

    Errors: RecurError for languages that the model has not, and for phrases of words that the vocabulary has not.
    """
    settings = decode.get("consensus", {})
    if not isinstance(settings, dict) or not {*settings} <= {*languages}:
        raise RecurError(f"bundle.json has 'consensus' {settings!r}; expected languages of the model; {AGAIN}")
    shapes: dict[str, tuple[int, ...]] = {}
    for language in settings:
        name = f"{PREFIX}{language}"
        rows = int(weights[f"{name}.bias"].size) if f"{name}.bias" in weights else 0
        words = weights.get(f"{name}.phrases")
        if words is not None and words.size and not -1 <= words.min() <= words.max() < size:
            raise RecurError(
                f"weights.safetensors has words in '{name}.phrases' that tokenizer.json has not; expected 0 to "
                f"{size - 1}; {AGAIN}"
            )
        shapes |= {
            f"{name}.phrases": (2 * rows,),
            f"{name}.weight": (rows, 2 * channels),
            f"{name}.bias": (rows,),
            f"{name}.rarity": (rows,),
        }
    return shapes
