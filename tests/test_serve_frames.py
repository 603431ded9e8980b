"""Labels of a video over HTTP: whole, cut off, too long, and no video at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import serving
from test_frames import write_video

from recur.predict.frames import FrameLabel

pytest.importorskip("fastapi")
pytest.importorskip("av")

from recur.serve.task_frames import ONE


class Labeller:
    """Stands for a labeller: every frame is an a; what its frames raise comes after their labels."""

    name, size, classes = "eye", 8, ("a", "b")

    def of_frames(self, frames: Any, *, smooth: float | None) -> Iterator[FrameLabel]:
        for frame in frames:
            yield FrameLabel(None, frame.number, frame.seconds, "a", 0.75, "b")


def test_labels_of_a_video(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", [100 * number for number in range(60)], size=64).read_bytes()
    with serving({"frames": Labeller()}) as service:
        status, told = service.post("/v1/frames", whole, smooth=2)
        assert (status, len(told["frames"]), told["notes"], told["model"]) == (200, 60, [], "eye")
        assert told["frames"][1] == {"frame": 1, "seconds": 0.1, "label": "a", "probability": 0.75}
        assert told["classes"] == ["a", "b"]
        status, told = service.post("/v1/frames", whole[: len(whole) // 2])
        assert status == 200
        assert 5 < len(told["frames"]) < 60
        assert len(told["notes"]) == 1
        status, told = service.post("/v1/frames", whole, most=20)
        assert (status, told) == (422, {"error": "video: more than 20 frames; send a shorter one"})
        status, told = service.post("/v1/frames", b"These are words.\n" * 50)
        assert status == 422
        assert "no video that can be read" in told["error"]
        assert service.post("/v1/frames", whole, smooth=-1)[0] == 422


def test_one_video_at_a_time(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", [100 * number for number in range(6)], size=64).read_bytes()
    with serving({"frames": Labeller()}) as service:
        with ONE:
            status, told = service.post("/v1/frames", whole)
        assert (status, told) == (503, {"error": "too many requests wait already; try again later"})
        assert service.post("/v1/frames", whole)[0] == 200
