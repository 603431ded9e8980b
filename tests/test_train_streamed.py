"""Training from shards: what is read of them, the order, the same weights when resumed or by two processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from training import write_shapes, write_trunk  # noqa: E402

from recur.bundle import read_bundle  # noqa: E402
from recur.data import caption_shards  # noqa: E402
from recur.data.caption_shards import Reader, are_shards, open_shards  # noqa: E402
from recur.data.captions import read_captions  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.train import streamed  # noqa: E402
from recur.train.caption import train_caption  # noqa: E402
from recur.train.caption_data import TrainedFeatures, make_split, read_pixels  # noqa: E402
from recur.train.encoders import open_encoder  # noqa: E402
from recur.train.streamed import StreamedFeatures, block_order  # noqa: E402

COURSE: dict[str, Any] = {"hidden": 16, "epochs": 2, "cider": 1, "quantize": False, "min_count": 1, "seed": 3}
pytestmark = pytest.mark.usefixtures("undrawn")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    archive.addfile(header, io.BytesIO(content))


def write_tars(source: Path, folder: Path, each: int = 7) -> None:
    """The shapes as WebDataset has them: splits and English in .json, Chinese in .zh.txt."""
    folder.mkdir()
    rows = [json.loads(line) for line in (source / "annotations.jsonl").read_text().splitlines()]
    for start in range(0, len(rows), each):
        with tarfile.open(folder / f"part-{start:03d}.tar", "w") as archive:
            for row in rows[start : start + each]:
                stem = row["file_name"].removesuffix(".png")
                add(archive, row["file_name"], (source / "images" / row["file_name"]).read_bytes())
                said = {"split": row["split"], "captions": row["captions"]}
                add(archive, f"{stem}.json", json.dumps(said).encode())
                add(archive, f"{stem}.zh.txt", "\n".join(row["captions_zh"]).encode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streamed")
    write_shapes(folder / "data", count=24)
    write_trunk(folder / "trunk.onnx")
    write_tars(folder / "data", folder / "shards")
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_shards, "BLOCK", 3)
    monkeypatch.setattr(streamed, "WINDOW", 2)


def train(place: Path, out: str, **options: Any) -> None:
    train_caption(
        data=place / "shards", out=place / out, encoder=str(place / "trunk.onnx"), **{**COURSE, "batch": 8, **options}
    )


def weights(place: Path, out: str) -> dict[str, Any]:
    saved = torch.load(place / f"{out}.work" / "checkpoint" / "last.pt", weights_only=True)
    return {f"{model}.{name}": value for model, state in saved["models"].items() for name, value in state.items()}


@pytest.fixture(scope="module")
def alone(place: Path, undrawn: object) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_shards, "BLOCK", 3)
        patch.setattr(streamed, "WINDOW", 2)
        train(place, "alone")
    return weights(place, "alone")


def plain(data: Any) -> list[Any]:
    return [(Path(picture.path).name, picture.split, picture.captions) for picture in data.pictures]


def test_archives_and_tables_say_what_the_folder_says(place: Path, tmp_path: Path) -> None:
    expected = read_captions(place / "data")
    found = open_shards(place / "shards", tmp_path / "known")
    assert plain(found.data) == plain(expected)
    assert (found.data.languages, found.data.problems) == (expected.languages, ())
    reader = Reader(found, 2)
    for one, other in zip(found.data.pictures[::-1], expected.pictures[::-1], strict=True):
        assert reader(one.path) == other.path.read_bytes()
    assert len({found.block_of(picture.path) for picture in found.data.pictures}) == 3 * 3 + 1

    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "t").mkdir()
    for split in ("train", "dev"):
        rows = [
            {"image": {"bytes": each.path.read_bytes(), "path": None}, "text": list(each.captions["en"])}
            for each in expected.pictures
            if each.split == split
        ]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t" / f"{split}-0.parquet", row_group_size=4)
    table = open_shards(tmp_path / "t", tmp_path / "known")
    assert sorted((split, captions["en"]) for _, split, captions in plain(table.data)) == sorted(
        (split, captions["en"]) for _, split, captions in plain(expected)
    )
    reader = Reader(table, 1)
    contents = {picture.path.read_bytes() for picture in expected.pictures}
    assert {reader(picture.path) for picture in table.data.pictures} == contents


def test_shards_are_looked_at_once_and_again_when_they_change(place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shards = tmp_path / "shards"
    write_tars(place / "data", shards, each=12)
    with tarfile.open(shards / "more-train.tar", "w") as archive:
        add(archive, "bad.png", b"no picture")
        add(archive, "bad.txt", b"A red square .")
        add(archive, "good.png", (place / "data" / "images" / "000.png").read_bytes())
        add(archive, "good.caption", b"A red square .\nA square that is red .\n")
    seen: list[str] = []
    real = caption_shards._archive
    monkeypatch.setattr(caption_shards, "_archive", lambda path, told: seen.append(Path(path).name) or real(path, told))
    first = open_shards(shards, tmp_path / "known", share=(1, 2))
    assert seen == ["part-000.tar", "part-012.tar", "more-train.tar"]
    assert len(first.data.pictures) == 25
    assert len(first.data.problems) == 1
    assert "more-train.tar/bad.png: " in first.data.problems[0]
    good = first.data.pictures[0]
    assert (good.path.name, good.split) == ("good.png", "train")
    assert good.captions == {"en": ("A red square .", "A square that is red .")}
    seen.clear()
    assert open_shards(shards, tmp_path / "known").data == first.data
    assert seen == []
    whole = (shards / "part-000.tar").read_bytes()
    (shards / "part-000.tar").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # what breaks off is looked at again
        cut = open_shards(shards, tmp_path / "known")
        assert 13 < len(cut.data.pictures) < 25
        assert "breaks off" in cut.data.problems[-1]
    assert seen == ["part-000.tar"] * 2
    (shards / "more-train.tar").unlink()
    with pytest.raises(RecurError, match="gone, or changed"):
        Reader(first, 1)(good.path)


def test_what_are_shards(place: Path, tmp_path: Path) -> None:
    assert are_shards(place / "shards")
    assert are_shards("s3://bucket/shards")
    assert not are_shards(place / "data")
    assert not are_shards(tmp_path)
    with pytest.raises(RecurError, match=r"no \.tar and no \.parquet"):
        open_shards(tmp_path, tmp_path / "known")


def test_the_order_mixes_a_few_blocks_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "WINDOW", 4)
    blocks = np.repeat(np.arange(20), 10)
    order = block_order(blocks, 200, seed=1, epoch=2)
    assert sorted(order) == list(range(200))
    assert (order == block_order(blocks, 200, seed=1, epoch=2)).all()
    assert (order != block_order(blocks, 200, seed=1, epoch=3)).any()
    windows = [set(blocks[order[start : start + 40]].tolist()) for start in range(0, 200, 40)]
    assert all(len(window) == 4 for window in windows)
    assert set().union(*windows) == set(range(20))
    assert any(len(set(blocks[order[start : start + 10]].tolist())) > 2 for start in range(0, 200, 10))


def test_memory_holds_a_window(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_shards(place / "shards", tmp_path / "known")
    split = streamed.streamed(make_split(found.data, "train"), found)
    loaded: list[int] = []
    real = caption_shards._load
    monkeypatch.setattr(caption_shards, "_load", lambda shard, block: loaded.append(block) or real(shard, block))
    for row in streamed.order_in(found, split)(len(split), seed=1, epoch=0):
        assert split.files[row]
    assert len(loaded) == len({found.block_of(picture.path) for picture in split.pictures})  # each block once
    assert isinstance(split.contents, streamed.Contents)
    assert len(split.contents.reader._blocks) == 2


def test_features_are_those_of_the_pictures_in_memory(place: Path, tmp_path: Path) -> None:
    eye = open_encoder(str(place / "trunk.onnx"))
    found = open_shards(place / "shards", tmp_path / "known")
    source = StreamedFeatures(streamed.streamed(make_split(found.data, "train"), found), eye, moving=True)
    _, pixels, _ = read_pixels(make_split(read_captions(place / "data"), "train"), eye.size)
    assert eye.module is not None
    other = TrainedFeatures(pixels, eye.module)
    rows = np.array([5, 0, 11])
    assert torch.allclose(source.features(rows, None), other.features(rows, None), atol=1e-5)
    source.learning = True
    both = [each.features(rows, np.random.default_rng(1), slice(1, 3)) for each in (source, other)]
    assert torch.allclose(*both, atol=1e-5)
    assert both[0].requires_grad


def test_killed_and_resumed(place: Path, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_bundle(place / "alone").meta["training"]["pictures"] == 18
    steps = iter(range(100))
    real = streamed.StreamedFeatures.features

    def dying(self: Any, rows: Any, rng: Any, *part: Any) -> Any:
        if rng is not None and next(steps) == 4:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, rows, rng, *part)

    monkeypatch.setattr(streamed.StreamedFeatures, "features", dying)
    train(place, "again")
    assert not (place / "again").exists()
    train(place, "again", resume=True)
    found = weights(place, "again")
    assert set(found) == set(alone)
    assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_the_encoder_moves_too(place: Path) -> None:
    train(place, "moved", finetune_encoder=True, cider=0)
    log = read_bundle(place / "moved").meta["training"]["log"]
    assert [entry["phase"] for entry in log] == ["decoder", "joint"]
    with pytest.raises(RecurError, match="--images is for captions in a file"):
        train(place, "elsewhere", images=place)
    with pytest.raises(RecurError, match="--teacher keeps its answers"):
        train(place, "taught", finetune_encoder=True, teacher=place / "trunk.onnx")


PROGRAM = """
import sys
from pathlib import Path
from recur.data import caption_shards
from recur.train import plot, streamed
caption_shards.BLOCK, streamed.WINDOW = 3, 2
plot._png = lambda figure: b"not drawn"
from recur.train.caption import train_caption
train_caption(data=Path("shards"), out=Path("both"), encoder=sys.argv[1], batch=4, **{course!r})
"""


def test_two_processes(place: Path, alone: dict[str, Any]) -> None:
    (place / "program.py").write_text(PROGRAM.format(course=COURSE))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*launcher, "program.py", str(place / "trunk.onnx")], cwd=place, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    found = weights(place, "both")
    assert set(found) == set(alone)
    for name, value in alone.items():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-5), name


def test_from_a_store(place: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    from recur.data import storage

    for path in sorted((place / "shards").iterdir()):
        storage.write(f"memory://streamed/{path.name}", path.read_bytes())
    found = open_shards("memory://streamed", place / "known-store")
    reader = Reader(found, 1)
    for picture, other in zip(found.data.pictures, read_captions(place / "data").pictures, strict=True):
        assert reader(picture.path) == other.path.read_bytes()
    fsspec.filesystem("memory").rm("/streamed", recursive=True)
