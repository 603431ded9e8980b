"""`recur evaluate caption`: of a model on data, and of ready-made captions."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import write_tiny_bundle

import recur
from recur.cli import main

Capture = pytest.CaptureFixture[str]
REFERENCES = {
    "1": ["a brown dog runs through the grass", "the dog is running on a lawn", "A dog runs!"],
    "2": ["two men sit on a bench", "a pair of men are seated", "men on a bench in a park"],
    "3": ["a girl in a red dress jumps into the water"],
}
CANDIDATES = {"1": "a dog runs on the grass", "2": "two men sit on a bench", "3": "a boy rides a bike"}


def written(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(photos: list[Path], tmp_path: Path) -> Path:
    """A folder of pictures with captions in two languages, two thirds of them for dev."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, photo in enumerate(photos):
        shutil.copyfile(photo, folder / "images" / photo.name)
        captions = {"captions": [f"a dog runs on the grass {number}", "the dog"], "captions_zh": ["一只狗在草地上"]}
        rows.append({"file_name": photo.name, "split": "train" if number % 3 == 0 else "dev", **captions})
    (folder / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def test_a_model_on_data(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    call = ["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--json"]
    assert main(call) == 0
    english, chinese = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (english["language"], english["tokens"], english["pictures"]) == ("en", "ptb", 4)
    assert (chinese["language"], chinese["tokens"], chinese["split"]) == ("zh", "characters", "dev")
    assert "calibration_error" not in english  # this model does not say what is acceptable
    captions = recur.load(tiny_bundle)([data / "images" / f"photo {number}.png" for number in (1, 2, 4, 5)])
    assert english["distinct"] == len({each.caption for each in captions})
    assert main([*call, "--lang", "zh", "--split", "train", "--limit", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["pictures"] == 2


def test_the_confidence_is_held_against_the_references(data: Path, tmp_path: Path, capsys: Capture) -> None:
    entry = {"features": ["length"], "weights": [0.0], "bias": 0.0}  # always 0.5
    for level, acceptable in ((0.0, 1.0), (11.0, 0.0)):
        model = write_tiny_bundle(tmp_path / f"{level}", calibration={"en": {**entry, "level": level}})
        call = ["evaluate", "caption", "--model", str(model), "--data", str(data), "--lang", "en", "--json"]
        assert main(call) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["acceptable"], line["mean_confidence"]) == (acceptable, 0.5)
        assert line["calibration_error"] == pytest.approx(0.5)


def test_a_missing_picture_is_one_failure(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    (data / "images" / "photo 1.png").write_text("no picture")
    assert (
        main(["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--lang", "en", "--json"]) == 1
    )
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pictures"] == 3
    assert json.loads(printed.out)["failed"] == 1
    assert "photo 1.png" in printed.err


def test_all_pictures_failed(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    call = ["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--lang", "en,zh", "--json"]
    assert main([*call, "--max-pixels", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    for language in ("en", "zh"):
        assert f"recur: {language}: nothing to score; 4 of 4 pictures failed\n" in printed.err


def test_a_language_without_references_is_said_before_any_work(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    lines = [json.loads(line) for line in (data / "annotations.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["split"] == "dev":
            del line["captions_zh"]
    (data / "annotations.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    call = ["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--lang", "en,zh"]
    assert main(call) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no references in 'zh' in split 'dev'; there are: en" in printed.err


def test_chinese_is_scored_on_words_too(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    pytest.importorskip("jieba")
    call = ["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--lang", "zh"]
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words"]["tokens"] == "jieba"


@pytest.mark.parametrize("shape", ["object", "rows", "annotations"])
def test_ready_made_captions(shape: str, tmp_path: Path, capsys: Capture) -> None:
    rows = [{"image_id": key, "caption": text} for key, texts in REFERENCES.items() for text in texts]
    references = {"object": REFERENCES, "rows": rows, "annotations": {"images": [], "annotations": rows}}[shape]
    given = CANDIDATES if shape == "object" else [{"image_id": k, "caption": v} for k, v in CANDIDATES.items()]
    truth, ours = written(tmp_path / "gts.json", references), written(tmp_path / "res.json", given)
    call = ["evaluate", "caption", "--references", truth, "--candidates", ours]
    assert main([*call, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["bleu1"] == pytest.approx(_bleu_1(), abs=1e-9)
    assert scores["distinct"] == 3
    assert scores["pictures"] == 3
    assert main(call) == 0
    assert re.search(rf"^bleu1 +{100 * _bleu_1():.1f}$", capsys.readouterr().out, re.M)


def _bleu_1() -> float:
    """Clipped one-word precision of `CANDIDATES`, by hand, times the brevity penalty of corpus lengths."""
    found, total = 6 + 6 + 2, 6 + 6 + 5  # "a" is twice in the third, and twice in its reference
    closest = 7 + 6 + 10
    return found / total * math.exp(1 - closest / total)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--data"),
        (["--references", "x.json"], "--candidates"),
        (["--data", "nowhere"], "nowhere"),
        (["--references", "{good}", "--candidates", "nowhere.json"], "nowhere.json"),
        (["--references", "{broken}", "--candidates", "{good}"], "not JSON"),
        (["--references", "{good}", "--candidates", "{shape}"], "another shape"),
        (["--references", "{good}", "--candidates", "{fewer}"], "2 ids have no caption"),
        (["--references", "{good}", "--candidates", "{good}"], "several captions"),
    ],
)
def test_wrong_calls(arguments: list[str], reason: str, tmp_path: Path, capsys: Capture) -> None:
    files = {
        "good": written(tmp_path / "good.json", REFERENCES),
        "shape": written(tmp_path / "shape.json", [{"id": 1}]),
        "fewer": written(tmp_path / "fewer.json", {"1": "a dog"}),
        "broken": str(tmp_path / "broken.json"),
    }
    (tmp_path / "broken.json").write_text("{")
    assert main(["evaluate", "caption", *[each.format(**files) for each in arguments]]) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_split_without_pictures_says_what_there_is(tiny_bundle: Path, data: Path, capsys: Capture) -> None:
    call = ["evaluate", "caption", "--model", str(tiny_bundle), "--data", str(data), "--split", "test"]
    assert main(call) == 2
    assert "train 3, dev 4" in capsys.readouterr().err
