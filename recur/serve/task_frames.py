"""A label for every frame of a video, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import Field

from recur.data.frames import Frame, read_video
from recur.errors import InputError
from recur.serve.tasks import Options, Row
from recur.serve.worker import Full

MOST: Final = 10_000  # frames of one request
ONE = threading.Lock()  # a video at a time: several would keep every thread that reads pictures


class FramesOptions(Options):
    """Options of the labels of a video."""

    smooth: float | None = Field(None, ge=0, le=1000, description="What a change of label costs; the model's own.")
    most: int = Field(MOST, ge=1, le=MOST, description="A video of more frames is refused.")


class _TooLong(Exception):
    """More frames than were asked for."""


def prepare(labeller: Any, video: bytes, options: FramesOptions, max_pixels: int) -> dict[str, Any]:
    """The whole answer: a video takes long, and the one thread that predicts would keep all others waiting.

    Raises InputError for a video without a frame that can be read, or with too many; Full while another is read.
    """
    if not ONE.acquire(blocking=False):
        raise Full
    try:
        return _labelled(labeller, video, options, max_pixels)
    finally:
        ONE.release()


def _labelled(labeller: Any, video: bytes, options: FramesOptions, max_pixels: int) -> dict[str, Any]:

    def limited() -> Iterator[Frame]:
        for frame in read_video(video, size=labeller.size, max_pixels=max_pixels):
            if frame.number >= options.most:
                raise _TooLong
            yield frame

    frames: list[dict[str, Any]] = []
    notes: list[str] = []
    try:
        for each in labeller.of_frames(limited(), smooth=options.smooth):
            told = each.to_json()
            del told["path"]
            frames.append(told)
    except _TooLong:
        raise InputError("video", f"more than {options.most:,} frames", "send a shorter one") from None
    except InputError as error:
        if not frames:
            raise
        notes.append(str(error))
    return {"frames": frames, "classes": list(labeller.classes), "notes": notes, "model": labeller.name}


def label(labeller: Any, items: Sequence[Any], options: FramesOptions) -> list[Any]:
    """What was prepared."""
    return list(items)


ROWS = (
    Row(
        path="frames",
        task="frames",
        summary="A label for every frame of a video, sent as the field image",
        takes_picture=True,
        options=FramesOptions,
        prepare=prepare,
        key=lambda options: None,
        run=label,
        example={
            "frames": [{"frame": 0, "seconds": 0.0, "label": "left", "probability": 0.93}],
            "classes": ["left", "straight", "right"],
            "notes": [],
            "model": "driving",
        },
    ),
)
