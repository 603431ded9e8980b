"""`recur detect`, `recur classify`, `recur evaluate detect` and `grounding`, `recur caption --objects`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from boxes import write_boxed, write_seeing_captioner
from PIL import Image

pytest.importorskip("torch")

import recur.hub
from recur.cli import main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_boxed(folder / "data")
    write_seeing_captioner(folder / "models" / "captioner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recur.hub, "EMBEDDED", folder / "models")
        data = ["--data", str(folder / "data"), "--share-trunk", "--epochs", "1"]
        assert main(["train", "detect", *data, "--alike", "red,green", "--out", str(folder / "models/detector")]) == 0
        assert main(["train", "classify", *data, "--out", str(folder / "models/classifier")]) == 0
    for work in folder.glob("models/*.work"):
        work.rename(folder / work.name)
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recur.hub, "EMBEDDED", home / "models")


@pytest.fixture
def photo(home: Path) -> str:
    return str(home / "data" / "images" / "000.png")


def test_one_picture_for_people(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", photo, "--min-score", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 50 < len(lines) <= 100
    label, score, box = lines[0].split("\t")
    assert label in ("red", "green", "blue")
    assert 0 <= float(score) <= 1
    assert len(box.split()) == 4
    assert main(["detect", photo, "--min-score", "1"]) == 0
    assert capsys.readouterr().out == "nothing found\n"


def test_json_and_failures(photo: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", photo, "missing.jpg", photo, "--json", "--min-score", "0.005"]) == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [list(line) for line in lines] == [["path", "objects", "model"]] * 2
    assert all(list(each) == ["label", "score", "box"] for line in lines for each in line["objects"])
    assert printed.err == "missing.jpg: no such file; check the path\n"
    assert main(["detect", str(home / "data" / "images"), "--min-score", "1"]) == 0
    assert capsys.readouterr().out.count("nothing found") == 16


def test_pictures_with_boxes_drawn(photo: str, home: Path, tmp_path: Path) -> None:
    assert main(["detect", photo, photo, "--save", str(tmp_path / "drawn"), "--min-score", "0.005"]) == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["000-2.png", "000.png"]
    with Image.open(tmp_path / "drawn" / "000.png") as one, Image.open(photo) as other:
        drawn, plain = np.asarray(one.convert("RGB")), np.asarray(other.convert("RGB"))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()
    (tmp_path / "file").write_text("")
    assert main(["detect", photo, "--save", str(tmp_path / "file" / "x")]) == 2


def test_in_shards(photo: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["detect", str(home / "data" / "images"), "--min-score", "0.005"]
    assert main([*call, "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    out = tmp_path / "o"
    assert main([*call, "--out", str(out), "--shard-size", "5"]) == 0
    assert capsys.readouterr().out.startswith("4 shards done, 16 pictures; ")
    assert [
        json.loads(line) for part in sorted(out.glob("part-*")) for line in part.read_bytes().splitlines()
    ] == expected
    assert main([*call, "--out", str(out), "--shard-size", "5"]) == 0
    assert capsys.readouterr().out.startswith("0 shards done, 4 were done before")
    for wrong, words in ((["--engine", "ray"], "add --out"), (["--out", "o", "--save", "d"], "give one of them")):
        assert main(["detect", photo, *wrong]) == 2
        assert words in capsys.readouterr().err


def test_classify(photo: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", photo, "--top", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["classify", photo, "missing.jpg", "--json"]) == 1
    printed = capsys.readouterr()
    line = json.loads(printed.out)
    assert list(line) == ["path", "labels", "model"]
    assert len(line["labels"]) == 3
    assert printed.err == "missing.jpg: no such file; check the path\n"
    assert main(["classify", str(home / "data" / "images")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 16


@pytest.mark.parametrize(
    "call",
    [
        ["detect", "--model", "captioner", "x.jpg"],
        ["detect", "--model", "classifier", "x.jpg"],
        ["classify", "--model", "detector", "x.jpg"],
        ["caption", "--objects", "--detector", "classifier", "x.jpg"],
        ["evaluate", "detect", "--data", "nowhere"],
    ],
)
def test_the_wrong_model_or_data(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_evaluate_detect(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(home / "data")
    assert main(["evaluate", "detect", "--data", data, "--merge", "red,blue", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 4
    assert {"ap", "ap50", "ap75", "ap_small", "classes", "merged"} <= {*report}
    assert report["merged"]["classes"] == ["red", "blue"]
    pytest.importorskip("matplotlib")
    assert main(["evaluate", "detect", "--data", data, "--split", "all", "--plot", str(tmp_path / "p.png")]) == 0
    assert capsys.readouterr().out.startswith("16 pictures of split all")
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.format == "PNG"
    assert main(["evaluate", "detect", "--data", data, "--split", "test"]) == 2
    assert main(["evaluate", "detect", "--data", data, "--merge", "violet"]) == 2


def test_evaluate_grounding(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "grounding", "--data", str(home / "data"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"] == 4
    assert report["nouns"] == 0  # the tiny captioner knows dogs and grass, the data squares
    assert report["attention"] is None
    assert main(["evaluate", "grounding", "--data", str(home / "data"), "--limit", "1"]) == 0
    assert "centre\t-" in capsys.readouterr().out


def test_captions_with_objects(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", photo, "--objects", "--min-score", "0.005"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("    ") and len(line.split("\t")) >= 3 for line in lines[1:])
    assert main(["caption", photo, "--objects", "--min-score", "0.005", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert len(line["objects"]) == len(lines) - 1
    assert all("object" in word for word in line["words"])
    assert main(["caption", photo, "--json"]) == 0
    assert "objects" not in json.loads(capsys.readouterr().out)


def test_the_story_is_drawn(photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "story"
    assert main(["explain", "detect", photo, "--out", str(out), "--min-score", "0.005"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == [
        "boxes.png",
        "features.png",
        "unrolled.png",
    ]
    for path in out.iterdir():
        with Image.open(path) as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 16) or ()) > 3
    assert main(["explain", "detect", photo, "--out", photo]) == 2
    assert main(["explain", "detect", "missing.jpg", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
