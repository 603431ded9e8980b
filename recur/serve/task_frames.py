"""A label for every frame of a video, and the frames that changed it, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pydantic import Field

from recur.data.frames import Frame
from recur.data.packed import read_sent
from recur.errors import InputError
from recur.explain.film import FilmExplanation, explain_frames, limit
from recur.serve.tasks import Options, Row
from recur.serve.worker import Full

MOST: Final = 10_000  # frames of one request
SECONDS: Final = 600.0  # that one video may be read
ONE = threading.Lock()  # a video at a time: several would keep every thread that reads pictures


class FramesOptions(Options):
    """Options of the labels of a video."""

    smooth: float | None = Field(None, ge=0, le=1000, description="What a change of label costs; the model's own.")
    fps: float | None = Field(None, gt=0, le=10_000, description="Frames a second of packed pictures.")
    most: int = Field(MOST, ge=1, le=MOST, description="A video of more frames is refused.")


class _TooLong(Exception):
    """More frames than were asked for."""


def prepare(labeller: Any, video: bytes, options: FramesOptions, max_pixels: int) -> dict[str, Any]:
    """The whole answer: a video takes long, and the one thread that predicts would keep all others waiting.

    Raises InputError for a video without a frame that can be read, or with too many; Full while another is read.
    """
    frames: list[dict[str, Any]] = []
    notes: list[str] = []
    with _limited(labeller, video, options, max_pixels, options.most) as read:
        try:
            for each in labeller.of_frames(read, smooth=options.smooth):
                told = each.to_json()
                del told["path"]
                frames.append(told)
        except InputError as error:
            if not frames:
                raise
            notes.append(str(error))
    return {"frames": frames, "classes": list(labeller.classes), "notes": notes, "model": labeller.name}


def prepare_explained(labeller: Any, video: bytes, options: FramesOptions, max_pixels: int) -> dict[str, Any]:
    """What the page shows of a video. Raises as `prepare` does."""
    notes: list[str] = []
    drawn: dict[str, Any] = {}
    most = min(options.most, limit(labeller))
    with _limited(labeller, video, options, max_pixels, most) as read:
        for found in explain_frames(labeller, read, "video", most=most, smooth=options.smooth):
            if isinstance(found, FilmExplanation):
                drawn = found.drawn()
            elif not drawn:
                raise found
            else:
                notes.append(str(found))
    del drawn["path"]
    return {**drawn, "notes": notes}


@contextmanager
def _limited(
    labeller: Any, video: bytes, options: FramesOptions, max_pixels: int, most: int
) -> Iterator[Iterator[Frame]]:
    """The frames, while no other video is read. Raises InputError for more than `most`, and Full."""
    if not ONE.acquire(blocking=False):
        raise Full
    end = time.monotonic() + SECONDS

    def frames() -> Iterator[Frame]:
        for frame in read_sent(video, size=labeller.size, fps=options.fps, max_pixels=max_pixels):
            if frame.number >= most:
                raise _TooLong
            if time.monotonic() > end:
                raise InputError("video", f"not read to its end in {SECONDS:g} seconds", "send a shorter one")
            yield frame

    try:
        yield frames()
    except _TooLong:
        raise InputError("video", f"more than {most:,} frames", "send a shorter one") from None
    finally:
        ONE.release()


def ready(labeller: Any, items: Sequence[Any], options: FramesOptions) -> list[Any]:
    """What was prepared."""
    return list(items)


ROWS = (
    Row(
        path="frames",
        task="frames",
        summary="A label for every frame of a video, or of pictures in a .zip or .tar",
        takes_picture=True,
        options=FramesOptions,
        prepare=prepare,
        key=lambda options: None,
        run=ready,
        example={
            "frames": [{"frame": 0, "seconds": 0.0, "label": "left", "probability": 0.93}],
            "classes": ["left", "straight", "right"],
            "notes": [],
            "model": "driving",
        },
        tab="frames.js",
        file="video",
    ),
    Row(
        path="explain/frames",
        task="frames",
        summary="The probability of every label at every frame, and the frames that changed the label",
        takes_picture=True,
        options=FramesOptions,
        prepare=prepare_explained,
        key=lambda options: None,
        run=ready,
        example={
            "task": "frames",
            "model": "driving",
            "classes": ["left", "right"],
            "frames": [0, 1],
            "seconds": [0.0, 0.1],
            "labels": [0, 1],
            "probabilities": [[0.9, 0.1], [0.2, 0.8]],
            "changes": [
                {"at": 1, "from": "left", "to": "right", "probability": 0.8, "named": [{"at": 1, "without": 0.3}]}
            ],
            "changes_left_out": 0,
            "thumbs": {"0": "data:image/jpeg;base64,"},
            "notes": [],
        },
        file="video",
    ),
)
