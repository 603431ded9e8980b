"""Objects in a library: seen once, shared by pictures that look alike, found again."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from library import captioner, make, picture, scan

import recur
from recur.cli import main
from recur.library.index import OBJECTS, Index
from recur.library.objects import Seen, look
from recur.scale import scan as distributed
from recur.scale.engine import Local


@dataclass(frozen=True)
class Detected:
    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """Sees a dog in the left half of every picture, and in every second one it is shown a Kite, surer of it."""

    def __init__(self, sha256: str = "d" * 64) -> None:
        self.name, self.bundle = "fake", SimpleNamespace(meta={"sha256": sha256}, task="detect", path="fake")
        self.shown = 0

    def __call__(self, pictures: Iterable[Any]) -> list[SimpleNamespace]:
        found = []
        for each in pictures:
            height, width = each.shape[:2]
            objects = [Detected("dog", 0.5, (0.0, 0.0, width / 2, float(height)))]
            if self.shown % 2:
                objects.insert(0, Detected("Kite", 0.9 + self.shown / 100, (0.0, 0.0, float(width), height / 4)))
            self.shown += 1
            found.append(SimpleNamespace(objects=objects))
        return found


def answers(capsys: pytest.CaptureFixture[str], *call: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["library", "search", "--json", *call]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["path"]).name for row in rows]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECUR_INDEX", str(tmp_path / "x.sqlite"))
    return tmp_path / "x.sqlite"


def test_seen_once_and_found_again(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    model, detector = captioner(tiny_bundle), Detector()
    paths = make(tmp_path / "p", 4)
    scan(index, model, tmp_path / "p")  # described before anybody looked for objects
    assert answers(capsys, "--object", "dog") == []
    outcome = scan(index, model, tmp_path / "p", detector=detector)
    assert (outcome.counts["words"], detector.shown) == (4, 4)
    assert scan(index, model, tmp_path / "p", detector=detector).counts["unchanged"] == 4
    assert detector.shown == 4
    rows = answers(capsys, "--object", "kite")
    assert names(rows) == [paths[3].name, paths[1].name]  # the surest first
    assert rows[0]["objects"] == [
        {"label": "Kite", "score": 0.93, "box": [0.0, 0.0, 96.0, 18.0]},
        {"label": "dog", "score": 0.5, "box": [0.0, 0.0, 48.0, 72.0]},
    ]
    assert len(answers(capsys, "--object", "DOG")) == 4
    assert names(answers(capsys, "--object", "dog", "--object", "kite", "--limit", "1")) == [paths[1].name]
    assert answers(capsys, "--object", "cat") == []
    words = rows[0]["captions"][0]["caption"]
    assert paths[3].name in names(answers(capsys, words, "--object", "kite"))
    assert main(["library", "stats"]) == 0
    assert "pictures with dog\t4\npictures with Kite\t2\n" in capsys.readouterr().out
    assert main(["library", "export", "--csv", str(tmp_path / "x.csv"), "--object", "kite"]) == 0
    with open(tmp_path / "x.csv", newline="") as file:
        assert [row["objects"] for row in csv.DictReader(file)] == ["Kite; dog"] * 2


def test_copies_likenesses_new_detectors_and_what_is_forgotten(
    index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    model, detector = captioner(tiny_bundle), Detector()
    paths = make(tmp_path / "p", 2)
    shutil.copy(paths[0], tmp_path / "p" / "copy.jpg")
    picture(1, (48, 36)).save(tmp_path / "p" / "like.png")
    scan(index, model, tmp_path / "p", detector=detector)
    assert detector.shown == 2
    rows = answers(capsys, "--object", "kite")
    assert names(rows) == [paths[1].name, "like.png"]
    assert rows[1]["objects"][0]["box"] == [0.0, 0.0, 48.0, 9.0]  # in its own pixels
    other = Detector("e" * 64)
    assert scan(index, model, tmp_path / "p", detector=other).counts["unchanged"] == 4
    scan(index, model, tmp_path / "p", detector=other, recaption=True)
    assert other.shown == 2
    assert main(["library", "forget", str(tmp_path / "p")]) == 0
    db = sqlite3.connect(index)
    assert db.execute("SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM detected)").fetchone() == (0, 0)
    db.close()


def test_workers_see_the_same(
    index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector()
    make(tmp_path / "p", 5)
    real_bundle, real_predictor = distributed.read_bundle, distributed.predictor

    def read(path: Path, task: str) -> Any:
        return None if task == "detect" else real_bundle(path, task=task)

    monkeypatch.setattr(distributed, "read_bundle", read)
    monkeypatch.setattr(
        distributed, "predictor", lambda task: real_predictor(task) if task == "caption" else lambda *_, **__: detector
    )
    monkeypatch.setattr(distributed, "resolve", Path)
    describe = distributed.describer(
        Local(), str(tiny_bundle), ("en",), batch=4, max_pixels=10**8, detector="a detector"
    )
    scan(index, captioner(tiny_bundle), tmp_path / "p", detector=detector, describe=describe)
    assert detector.shown == 5
    assert len(answers(capsys, "--object", "dog")) == 5
    assert len(answers(capsys, "--object", "kite")) == 2


def test_from_the_command_line(
    index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "p", 2)
    call = ["library", "scan", "--json", "--model", str(tiny_bundle), "--objects", str(tmp_path / "p")]
    assert main([*call, "--detector", str(tmp_path / "none.bundle")]) == 2
    assert "--objects needs a model that detects: " in capsys.readouterr().err
    assert main([*call, "--detector", str(tiny_bundle)]) == 2
    assert "a model for 'caption'; expected one for 'detect'" in capsys.readouterr().err
    assert not index.exists()
    real, detector = recur.load, Detector()
    monkeypatch.setattr(recur, "load", lambda name, **more: detector if name == "detector" else real(name, **more))
    assert main(call) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["objects"] == [{"label": "dog", "score": 0.5}]


def test_an_index_of_the_first_format_is_brought_up_to_date(index: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    make(tmp_path / "p", 2)
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    db = sqlite3.connect(index)
    db.executescript("DROP TABLE objects; DROP TABLE detected; PRAGMA user_version = 1;")
    db.close()
    with Index(index) as library:
        assert library.one("PRAGMA user_version") == 2
        assert library.one("SELECT count(*) FROM objects") == 0
        assert library.one("SELECT count(*) FROM captions") == 2
    assert OBJECTS.count("CREATE") == 4


def test_boxes_are_fractions() -> None:
    seen = look(Detector(), [np.zeros((10, 20, 3), np.uint8)])
    assert seen == [(Seen("dog", 0.5, (0.0, 0.0, 0.5, 1.0)),)]
    assert look(Detector(), []) == []
