"""Names of what is in pictures, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from recur.errors import InputError
from recur.serve.task_detect import prepare
from recur.serve.tasks import Options, Row


class ClassifyOptions(Options):
    """Options of a classification."""

    top: int = Field(5, ge=1, le=1000, description="How many labels to tell.")
    min_probability: float = Field(0, ge=0, le=1, description="Labels of a lower probability are left out.")


def classify(classifier: Any, items: Sequence[tuple[bytes, int]], options: ClassifyOptions) -> list[Any]:
    """The labels of pictures that wait together."""
    pictures, (max_pixels, *_) = zip(*items, strict=True)
    found = classifier.stream(pictures, top=options.top, min_probability=options.min_probability, max_pixels=max_pixels)
    return [
        {"labels": result.to_json()["labels"], "notes": list(result.notes), "model": result.model}
        if result.problem is None
        else InputError("picture", result.problem.what, result.problem.fix)
        for result in found
    ]


ROWS = (
    Row(
        path="classify",
        task="classify",
        summary="What is in a picture",
        takes_picture=True,
        options=ClassifyOptions,
        prepare=prepare,
        key=lambda options: options.model_dump_json(),
        run=classify,
        example={"labels": [["dog", 0.91], ["cat", 0.04]], "notes": [], "model": "classifier"},
    ),
)
