"""That the parts of a bundle that answers questions about stories fit each other, and the weights that one has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from recur.bundle.sentiment import AGAIN, check_shapes
from recur.data.text import Vocabulary
from recur.engine.weights import FloatArray
from recur.errors import RecurError

_SIZES: Final = {"hidden": 1 << 12, "layers": 16, "places": 1 << 10, "sentences": 1 << 14, "vocabulary_size": 1 << 20}


def story_shapes(*, vocabulary: int, answers: int, places: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a story network of these sizes."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (vocabulary, hidden),
        "place": (places, hidden),
        "question_place": (places, hidden),
        "support.weight": (1, layers * hidden),
        "support.bias": (1,),
        "head.weight": (answers, hidden),
        "head.bias": (answers,),
    }
    for layer in range(layers):
        shapes |= {f"layer{layer}.weight": (3 * hidden, 3 * hidden), f"layer{layer}.bias": (3 * hidden,)}
    return shapes


def check_answer(meta: Mapping[str, Any], weights: Mapping[str, FloatArray], contents: Mapping[str, bytes]) -> None:
    """Errors: RecurError that says what does not fit."""
    if meta.get("kind") != "story":
        raise _refusal(f"bundle.json has kind {meta.get('kind')!r}; expected 'story'")
    for key, most in _SIZES.items():
        value = meta.get(key)
        if type(value) is not int or not 1 <= value <= most:
            raise _refusal(f"bundle.json has {key} {value!r}; expected a whole number from 1 to {most}")
    answers = meta.get("answers")
    if (
        not isinstance(answers, list)
        or not answers
        or not all(isinstance(answer, str) for answer in answers)
        or len(set(answers)) != len(answers)
    ):
        raise _refusal("bundle.json has no list of different 'answers'")
    if meta.get("vocabulary_sha256") != hashlib.sha256(contents["tokenizer.json"]).hexdigest():
        raise _refusal("tokenizer.json is not the one that the model was trained with")
    if len(Vocabulary.from_bytes(contents["tokenizer.json"], source="tokenizer.json")) != meta["vocabulary_size"]:
        raise _refusal("tokenizer.json has other words than bundle.json says")
    expected = story_shapes(
        vocabulary=meta["vocabulary_size"],
        answers=len(answers),
        places=meta["places"],
        hidden=meta["hidden"],
        layers=meta["layers"],
    )
    check_shapes(weights, expected)


def _refusal(what: str) -> RecurError:
    return RecurError(f"{what}; {AGAIN}")
