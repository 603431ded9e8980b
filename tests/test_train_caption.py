"""Training a captioner from end to end: it learns, it can be killed at any moment, and its bundle captions pictures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from training import write_shapes, write_teacher, write_trunk  # noqa: E402

import recur  # noqa: E402
from recur.bundle import read_bundle  # noqa: E402
from recur.bundle.consensus import PREFIX  # noqa: E402
from recur.data.captions import CaptionData, CaptionedPicture  # noqa: E402
from recur.data.text import Vocabulary  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.train import phases, plot  # noqa: E402
from recur.train.caption import plan, train_caption  # noqa: E402
from recur.train.caption_data import make_split, repeatable_words  # noqa: E402
from recur.train.checkpoint import StopRequest, load_checkpoint  # noqa: E402
from recur.train.finish import calibrate_bundle  # noqa: E402

WORDS = {"a", "there", "is", "red", "green", "blue", "square", "circle", "on", "the", "ground"}
SMALL: dict[str, Any] = {"hidden": 24, "embedding": 16, "batch": 4, "min_count": 1, "epochs": 2}  # 18 pictures, 5 steps
# The phases of WHOLE: decoder 1, joint 2, cider 2. Weights that nothing rounds.
WHOLE: dict[str, Any] = {**SMALL, "epochs": 3, "finetune_encoder": True, "cider": 2, "quantize": False}
pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", count=24)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trunk(tmp_path_factory.mktemp("trunk") / "trunk.onnx")


@pytest.fixture(scope="module")
def whole(shapes: Path, trunk: Path, tmp_path_factory: pytest.TempPathFactory, undrawn: object) -> Path:
    """The bundle of WHOLE, trained without a break."""
    return train_caption(data=shapes, out=tmp_path_factory.mktemp("whole") / "whole", encoder=str(trunk), **WHOLE)


@pytest.fixture(scope="module")
def plain(shapes: Path, trunk: Path, tmp_path_factory: pytest.TempPathFactory, undrawn: object) -> Path:
    """The bundle of SMALL, which has a second opinion whatever that brings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recur.train.finish.GAIN", -10.0)
        return train_caption(data=shapes, out=tmp_path_factory.mktemp("plain") / "b", encoder=str(trunk), **SMALL)


def weights_of(bundle: Path) -> dict[str, Any]:
    found = read_bundle(bundle)
    return {**found.weights, "encoder": np.frombuffer(found.encoder or b"", np.uint8)}


def assert_same(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert set(first) == set(second)
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def watched_in(out: Path) -> list[dict[str, Any]]:
    """What the training page of a bundle shows, from the checkpoint."""
    found: list[dict[str, Any]] = load_checkpoint(out.with_name(out.name + ".work") / "checkpoint").extra["watched"]
    return found


def test_it_learns_and_the_bundle_captions(
    trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: Callable[[Any], bytes]
) -> None:
    monkeypatch.setattr(plot, "_png", undrawn)
    shapes = write_shapes(tmp_path / "data", count=36)
    out = tmp_path / "shapes.bundle"
    options = {**SMALL, "hidden": 128, "embedding": 96, "epochs": 40, "batch": 3}
    train_caption(data=shapes, out=out, encoder=str(trunk), finetune_encoder=True, cider=2, **options)
    log = read_bundle(out).meta["training"]["log"]
    names = [entry["phase"] for entry in log]
    assert list(dict.fromkeys(names)) == ["decoder", "joint", "cider"]
    # A phase ends early when dev no longer improves, and when that is depends on the machine's rounding.
    assert 5 <= names.count("decoder") <= 10
    assert 5 <= names.count("joint") <= 30
    assert names.count("cider") == 2
    cross_entropy = [entry["loss"] for entry in log if entry["phase"] != "cider"]
    assert cross_entropy[-1] < 0.6 * cross_entropy[0]
    captioner = recur.load(out)
    found = captioner([shapes / "images" / "003.png"], lang="en")[0]
    assert found.caption is not None
    assert set(found.caption.split()) <= WORDS
    assert found.confidence is not None
    assert 0 < found.confidence < 1
    chinese = captioner([shapes / "images" / "003.png"], lang="zh")[0]
    assert chinese.caption
    assert all(ord(char) >= 0x4E00 for char in chinese.caption)
    card = read_bundle(out).card
    assert "CIDEr-D" in card
    assert "What each phase did" in card
    page = (tmp_path / "shapes.bundle.work" / "training.html").read_text("utf-8")
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\(""", page)
    assert all(f"<td>{len(names)}</td><td>cider</td>" in part for part in page.split("</article>")[:3])
    watched = watched_in(out)
    assert [(each["phase"], each["epoch"]) for each in watched] == list(
        zip(names, range(1, 1 + len(names)), strict=True)
    )
    assert all(len(each["gradients"]) == 4 and min(each["gradients"]) > 0 for each in watched), (
        "before the last word of 'a red square' there are two, the language and the picture"
    )
    moving = {each["phase"] for each in watched if any(name.startswith("encoder.") for name in each["ratios"])}
    assert moving == {"joint"}
    assert all(0 < each["ratios"]["rnn.1.weight_hh_l0"] < 1 for each in watched)


def test_a_captioner_is_calibrated_again(
    plain: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recur.train.finish.GAIN", -10.0)
    first = read_bundle(plain)
    assert {*first.meta["decode"]["consensus"]} == {"en", "zh"}
    assert all("agreement" in entry["features"] for entry in first.meta["calibration"].values())
    # It has an opinion and a confidence that reads it: both are made anew, from the same pictures the same.
    again = read_bundle(calibrate_bundle(model=plain, data=shapes, out=tmp_path / "again"))
    assert_same(plain, again.path)
    assert {key: again.meta[key] for key in ("decode", "calibration", "results")} == {
        key: first.meta[key] for key in ("decode", "calibration", "results")
    }


def test_words_that_people_say_twice_may_repeat() -> None:
    texts = ["a dog and a cat", "a dog runs", "dog dog dog", *["a boy"] * 50, "the cat"]
    data = CaptionData((CaptionedPicture(Path("1.jpg"), "train", {"en": tuple(texts)}),), "a test", ("en",), ())
    split = make_split(data, "train")
    vocabulary = Vocabulary.build({"en": (text.split() for text in texts if text != "the cat")}, 1)
    assert repeatable_words(split, vocabulary, "en") == ["dog"], (
        "one of 52 sentences says 'a' twice, one of three 'dog'"
    )


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_cells_and_no_attention_with_a_frozen_encoder(cell: Any, shapes: Path, trunk: Path, tmp_path: Path) -> None:
    out = train_caption(
        data=shapes, out=tmp_path / "b", encoder=str(trunk), cell=cell, attention=False, layers=1, **SMALL
    )
    bundle = read_bundle(out)
    assert (bundle.meta["cell"], bundle.meta["attention"]) == (cell, 0)
    assert [len(each["gradients"]) for each in watched_in(out)] == [4, 4]
    caption = recur.load(out)(shapes / "images" / "000.png")[0]
    assert all(word.region is None for word in caption.words)


def test_data_without_a_dev_split_gives_some_of_its_own(
    trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_shapes(tmp_path / "few", count=6)
    lines = few / "annotations.jsonl"
    lines.write_text(lines.read_text("utf-8").replace('"dev"', '"train"'), "utf-8")
    out = train_caption(data=few, out=tmp_path / "b", encoder=str(trunk), **SMALL)
    assert "1 of its train pictures are held out as one" in capsys.readouterr().err
    calibration = read_bundle(out).meta["calibration"]["en"]
    assert calibration["measured"].startswith("the one dev picture")


def test_init_starts_from_a_bundle(plain: Path, shapes: Path, trunk: Path, tmp_path: Path) -> None:
    again = train_caption(
        data=shapes, out=tmp_path / "again", init=plain, encoder=str(plain), finetune_encoder=True, **SMALL
    )
    assert read_bundle(again).tokenizer == read_bundle(plain).tokenizer
    with pytest.raises(RecurError, match="--epochs 0"):
        train_caption(data=shapes, out=tmp_path / "none", encoder=str(trunk), **{**SMALL, "epochs": 0})
    goes_on = train_caption(
        data=shapes, out=tmp_path / "on", init=plain, encoder=str(plain), cider=1, **{**SMALL, "epochs": 0}
    )
    assert {entry["phase"] for entry in read_bundle(goes_on).meta["training"]["log"]} == {"cider"}
    with pytest.raises(RecurError, match="same options"):
        train_caption(data=shapes, out=tmp_path / "other", init=plain, encoder=str(trunk), **{**SMALL, "hidden": 20})


def test_a_teacher_goes_on_teaching_the_encoder(shapes: Path, trunk: Path, tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher.onnx")
    alone, taught = tmp_path / "alone", tmp_path / "taught"
    for out, lessons in ((alone, None), (taught, teacher)):
        train_caption(data=shapes, out=out, encoder=str(trunk), finetune_encoder=True, teacher=lessons, **SMALL)
    networks = ({name for name in weights_of(each) if not name.startswith(PREFIX)} for each in (taught, alone))
    assert next(networks) == next(networks), "the head that guessed is cut off"
    assert not np.array_equal(weights_of(taught)["encoder"], weights_of(alone)["encoder"])
    # Out of time before the teacher was asked about anything: nothing is written, and the next call goes on, to the
    # same weights.
    stopped: dict[str, Any] = {"encoder": str(trunk), "finetune_encoder": True, "teacher": teacher, **SMALL}
    train_caption(data=shapes, out=tmp_path / "late", seconds=1e-6, **stopped)
    assert not (tmp_path / "late").exists()
    assert_same(train_caption(data=shapes, out=tmp_path / "late", resume=True, **stopped), taught)
    with pytest.raises(RecurError, match="finetune-encoder"):
        train_caption(data=shapes, out=tmp_path / "b", encoder=str(trunk), teacher=teacher, **SMALL)


PROGRAM = """
import sys
from pathlib import Path
from recur.train import plot
from recur.train.caption import train_caption
plot._png = lambda figure: b"not drawn"
data, trunk, out, resume = sys.argv[1:]
train_caption(data=Path(data), out=Path(out), encoder=trunk, resume=resume == "resume", **{options!r})
"""


def start(shapes: Path, trunk: Path, out: Path, resume: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(options=WHOLE), str(shapes), str(trunk), str(out), resume],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_killed_and_resumed_gives_the_same_weights(whole: Path, shapes: Path, trunk: Path, tmp_path: Path) -> None:
    disturbed = tmp_path / "disturbed"
    # One kill in each phase: after the first epoch, inside the joint one, inside self-critical training.
    for number, marker in enumerate((b"decoder 1/", b"joint 1/", b"cider 1/")):
        process = start(shapes, trunk, disturbed, "resume" if number else "start")
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(marker):
                break
        time.sleep(0.02 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not disturbed.exists()
    train_caption(data=shapes, out=disturbed, encoder=str(trunk), resume=True, **WHOLE)
    assert_same(whole, disturbed)


@pytest.mark.parametrize("steps", [2, 12, 17])
def test_a_run_that_is_asked_to_stop_goes_on_where_it_was(
    steps: int, whole: Path, shapes: Path, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AfterSteps(StopRequest):
        """Asked to stop within the first, a later or the last phase; before them it is looked at once."""

        left = steps + 1

        @property
        def requested(self) -> bool:
            self.left -= 1
            return self.left < 0

    options: dict[str, Any] = {**WHOLE, "encoder": str(trunk), "data": shapes}
    with monkeypatch.context() as patch:
        patch.setattr("recur.train.caption.StopRequest", AfterSteps)
        stopped = train_caption(out=tmp_path / "two", **options)
        assert not stopped.exists()
    seen: list[float] = []
    step = phases._step
    monkeypatch.setattr(phases, "_step", lambda *given: seen.append(step(*given)) or seen[-1])
    assert_same(whole, train_caption(out=tmp_path / "two", resume=True, **options))
    assert len(seen) == 5 * 5 - steps  # five epochs in three phases
    assert watched_in(whole) == watched_in(tmp_path / "two")
    assert len(watched_in(whole)) == 5


def test_watching_changes_nothing(
    whole: Path, shapes: Path, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {**WHOLE, "encoder": str(trunk), "data": shapes}
    with monkeypatch.context() as patch:
        patch.setattr(phases, "sentences_to_follow", lambda captions: None)
        patch.setattr(phases, "weights_of", lambda network, encoder: None)
        unseen = train_caption(out=tmp_path / "unseen", **options)
    assert (tmp_path / "unseen.work" / "training.html").read_text("utf-8").count("<img") == 1
    assert_same(whole, unseen)
    # A checkpoint of before there was such a page: what is done from now on is on it.
    file = tmp_path / "unseen.work" / "checkpoint" / "last.pt"
    content = torch.load(file, weights_only=True)
    extra = json.loads(content["extra"])
    del extra["watched"]
    torch.save({**content, "extra": json.dumps(extra)}, file)
    train_caption(out=unseen, resume=True, **{**options, "cider": 3})
    assert [(each["phase"], each["epoch"]) for each in watched_in(unseen)] == [("cider", 6)]
    assert (tmp_path / "unseen.work" / "training.html").read_text("utf-8").count("<img") == 3


def test_another_run_in_the_same_place_is_refused(plain: Path, shapes: Path, trunk: Path) -> None:
    with pytest.raises(RecurError, match="seed"):
        train_caption(data=shapes, out=plain, encoder=str(trunk), resume=True, seed=2, **SMALL)


def test_a_frozen_foreign_encoder_cannot_be_trained(shapes: Path, tmp_path: Path) -> None:
    from helpers import tiny_encoder

    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_encoder())
    with pytest.raises(RecurError, match="finetune-encoder"):
        train_caption(data=shapes, out=tmp_path / "b", encoder=str(foreign), finetune_encoder=True, **SMALL)


def test_plan_of_the_phases() -> None:
    def kinds(*arguments: Any, **options: Any) -> list[tuple[str, int]]:
        return [(phase.kind, phase.epochs) for phase in plan(*arguments, **options)]

    assert kinds(12, 0, moving=False) == [("decoder", 12)]
    assert kinds(12, 8, moving=True) == [("decoder", 3), ("joint", 9), ("cider", 8)]
    assert kinds(12, 0, moving=True, warm=True) == [("joint", 12)]
