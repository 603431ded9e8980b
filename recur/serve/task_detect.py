"""Objects in pictures over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from recur.errors import InputError
from recur.serve.tasks import Options, Row


class DetectOptions(Options):
    """Options of a detection."""

    min_score: float = Field(0.3, ge=0, le=1, description="Objects of a lower score are left out.")
    most: int = Field(100, ge=1, le=1000, description="The most objects that are told.")


def prepare(_: Any, picture: bytes, options: Any, max_pixels: int) -> tuple[bytes, int]:
    """The detector reads pictures by itself, in threads of its own."""
    return picture, max_pixels


def detect(detector: Any, items: Sequence[tuple[bytes, int]], options: DetectOptions) -> list[Any]:
    """The objects of pictures that wait together."""
    pictures, (max_pixels, *_) = zip(*items, strict=True)
    found = detector.stream(pictures, min_score=options.min_score, most=options.most, max_pixels=max_pixels)
    return [
        {
            "objects": [each.to_json() for each in result.objects],
            "width": result.width,
            "height": result.height,
            "notes": list(result.notes),
            "model": result.model,
        }
        if result.problem is None
        else InputError("picture", result.problem.what, result.problem.fix)
        for result in found
    ]


ROWS = (
    Row(
        path="detect",
        task="detect",
        summary="Objects in a picture: what they are and where",
        takes_picture=True,
        options=DetectOptions,
        prepare=prepare,
        key=lambda options: options.model_dump_json(),
        run=detect,
        example={
            "objects": [{"label": "dog", "score": 0.83, "box": [12.5, 40.0, 210.0, 333.0]}],
            "width": 500,
            "height": 333,
            "notes": [],
            "model": "detector",
        },
    ),
)
