"""Labels of a video over HTTP: whole, cut off, too long, packed frames, and no video at all."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from films import Labeller, picture, zipped
from serving import serving
from test_frames import write_video

from recur.data import packed
from recur.errors import InputError

pytest.importorskip("fastapi")
pytest.importorskip("av")

from recur.serve import task_frames
from recur.serve.task_frames import ONE


def tarred(entries: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


# A drive of three frames, out of order, beside what is no frame.
DRIVE = {
    "d/f10.png": picture(255),
    "d/f9.png": picture(51),
    "d/f1.png": picture(0),
    "d/._f1.png": b"x",
    "d/notes.txt": b"x",
}


def test_labels_of_a_video(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", [100 * number for number in range(60)], size=64).read_bytes()
    with serving({"frames": Labeller()}) as service:
        for name in ("video", "image"):  # the second was its name before
            status, told = service.post("/v1/frames", whole, name=name, smooth=2)
            assert (status, len(told["frames"]), told["notes"], told["model"]) == (200, 60, [], "eye")
        assert list(told["frames"][1]) == ["frame", "seconds", "label", "probability"]
        assert told["frames"][1]["seconds"] == 0.1
        assert told["classes"] == ["a", "b"]
        bare = service.call("POST", "/v1/frames?most=60", whole, {"content-type": "video/x-matroska"})
        assert (bare[0], json.loads(bare[2])["frames"]) == (200, told["frames"])
        status, told = service.post("/v1/frames", whole[: len(whole) // 2], name="video")
        assert status == 200
        assert 5 < len(told["frames"]) < 60
        assert len(told["notes"]) == 1
        for path in ("/v1/frames", "/v1/explain/frames"):
            status, told = service.post(path, whole, name="video", most=20)
            assert (status, told) == (422, {"error": "video: more than 20 frames; send a shorter one"})
            status, told = service.post(path, b"These are words.\n" * 50, name="video")
            assert status == 422
            assert "no video that can be read" in told["error"]
            assert service.post(path, b"", name="video")[1]["error"].startswith("video: missing or empty")
            assert service.post(path, whole, name="film")[1]["error"] == (
                "film: a file; expected one named video; rename it"
            )
        assert service.post("/v1/frames", whole, name="video", smooth=-1)[0] == 422
        assert "curl -F video=@drive.mp4" in service.call("GET", "/docs")[2].decode()
        told = service.app.openapi()["paths"]["/v1/frames"]["post"]["requestBody"]["content"]
        assert set(told) == {"application/json", "multipart/form-data", "video/*"}


@pytest.mark.parametrize("pack", [zipped, lambda it: tarred(it, "w"), lambda it: tarred(it, "w:gz")])
def test_packed_frames_come_in_their_natural_order(pack: Any) -> None:
    with serving({"frames": Labeller()}) as service:
        status, told = service.post("/v1/frames", pack(DRIVE), name="video", fps=2)
        assert status == 200
        assert [each["label"] for each in told["frames"]] == ["a", "a", "b"]
        assert [each["seconds"] for each in told["frames"]] == [0, 0.5, 1]
        status, told = service.post("/v1/explain/frames", pack({**DRIVE, "d/f2.png": b"no picture"}), name="video")
        assert status == 200
        assert (told["frames"], told["seconds"], told["labels"]) == ([0, 2, 3], [None] * 3, [0, 0, 1])
        assert told["changes"][0]["to"] == "b"
        assert sorted(told["thumbs"]) == ["0", "1", "2"]
        assert told["thumbs"]["0"].startswith("data:image/jpeg;base64,")
        assert "d/f2.png" in told["notes"][0]


def test_archives_that_are_broken_or_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_UNPACKED", 50_000)
    good = zipped(DRIVE)
    wrong = {
        "holds no frames": zipped({"a.txt": b"x"}),
        "broken": good[: len(good) // 2],
        "more than 50,000 bytes of pictures": zipped({"a.png": bytes(60_000)}),
        "more than 100 broken pictures": zipped({f"{n}.png": b"x" for n in range(102)}),
        "more than 50,000 bytes unpacked": tarred({"a.png": bytes(60_000)}, "w:gz"),
    }
    for what, data in wrong.items():
        with pytest.raises(InputError, match=what):
            list(packed.read_sent(data, size=8))
    with pytest.raises(InputError, match="broken"):
        list(packed.read_sent(tarred(DRIVE, "w:gz")[:300], size=8))
    assert [frame.number for frame in packed.read_sent(good, size=8)] == [0, 1, 2]


def test_one_video_at_a_time_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_video(tmp_path / "v.mkv", [100 * number for number in range(6)], size=64).read_bytes()
    with serving({"frames": Labeller()}) as service:
        with ONE:
            for path in ("/v1/frames", "/v1/explain/frames"):
                status, told = service.post(path, whole, name="video")
                assert (status, told) == (503, {"error": "too many requests wait already; try again later"})
        assert service.post("/v1/frames", whole, name="video")[0] == 200
        monkeypatch.setattr(task_frames, "SECONDS", -1.0)
        status, told = service.post("/v1/frames", whole, name="video")
        assert (status, "not read to its end" in told["error"]) == (422, True)
        assert not ONE.locked()
