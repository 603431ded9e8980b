"""Training heads: runs that are killed and resumed, what is refused, and views of pictures with boxes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxes import COLOURS, write_boxed, write_seeing_captioner
from PIL import Image

pytest.importorskip("torch")

from recur.bundle import read_bundle
from recur.data.labels import read_labels
from recur.errors import RecurError
from recur.train.classify import average_precision, train_classify
from recur.train.detect import BALANCED, balance, balanced_order, train_detect, truth_of
from recur.train.evidence import ALIKE_POWER, POWER, learn_evidence
from recur.train.finish_detect import best_score, read_nouns
from recur.train.orthogonal import Muon
from recur.train.pyramid import Pyramids, cut_view, draw_views, in_view

SMALL: dict[str, Any] = {"epochs": 2, "batch": 4, "views": 2}
PROGRAM = """
import sys
from pathlib import Path
from recur.train.detect import train_detect
data, trunk, out = sys.argv[1:]
train_detect(data=Path(data), encoder=trunk, out=Path(out), epochs=2, batch=4, views=2)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxed(tmp_path_factory.mktemp("boxes") / "d")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_seeing_captioner(tmp_path_factory.mktemp("trunk") / "captioner"))


def test_killed_and_resumed_gives_the_same_graph(data: Path, trunk: str, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    train_detect(data=data, encoder=trunk, out=undisturbed, **SMALL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(data), trunk, str(disturbed)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"epoch 1/"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not disturbed.exists()
    train_detect(data=data, encoder=trunk, out=disturbed, resume=True, **SMALL)
    one, other = read_bundle(undisturbed), read_bundle(disturbed)
    assert one.encoder == other.encoder
    assert one.meta["results"] == other.meta["results"]
    assert one.meta["training"]["log"] == other.meta["training"]["log"]
    with pytest.raises(RecurError, match="batch was 4, now 8"):
        train_detect(data=data, encoder=trunk, out=disturbed, resume=True, **{**SMALL, "batch": 8})
    again = train_detect(data=data, encoder=trunk, out=tmp_path / "again", init=undisturbed, **{**SMALL, "epochs": 1})
    assert read_bundle(again).meta["training"]["init"] == "undisturbed"


def test_stopped_before_the_end(data: Path, trunk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in (1e-6, 1e9):
        train_detect(data=data, encoder=trunk, out=tmp_path / "b", seconds=seconds, resume=True, **SMALL)
        assert (tmp_path / "b").exists() == (seconds > 1)
    assert "go on with --resume" in capsys.readouterr().err
    for seconds in (1e-6, 1e9):
        train_classify(data=data, encoder=trunk, out=tmp_path / "c", seconds=seconds, resume=True, views=2, epochs=2)
    assert read_bundle(tmp_path / "c").meta["results"]["dev"]["pictures"] == 4


def test_what_is_refused(data: Path, trunk: str, tmp_path: Path) -> None:
    out = tmp_path / "b"
    with pytest.raises(RecurError, match="violet is no class"):
        train_detect(data=data, encoder=trunk, out=out, alike=("red", "violet"))
    with pytest.raises(RecurError, match="leave out --share-trunk"):
        train_detect(data=data, encoder=trunk, out=out, share_trunk=True)
    with pytest.raises(RecurError, match=r"such as zh=nouns\.json"):
        train_detect(data=data, encoder=trunk, out=out, nouns=("zh",))
    from helpers import tiny_encoder

    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_encoder())
    with pytest.raises(RecurError, match="not a trunk of recur's own"):
        train_detect(data=data, encoder=str(foreign), out=out)
    empty = tmp_path / "empty"
    write_boxed(empty, count=4)
    text = (empty / "annotations.jsonl").read_text()
    (empty / "annotations.jsonl").write_text(text.replace('"label": "', '"label": null, "was": "'))
    with pytest.raises(RecurError, match="expected some of each, with boxes"):
        train_detect(data=empty, encoder=trunk, out=out)
    assert not out.exists()


def test_a_class_without_an_example_is_a_warning(
    trunk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_boxed(tmp_path / "d", count=8)
    (folder / "classes.json").write_text('{"red": "red", "green": "green", "blue": "blue", "violet": "violet"}')
    train_detect(data=folder, encoder=trunk, out=tmp_path / "b", epochs=1, batch=4, views=1)
    assert "no box to learn from for violet" in capsys.readouterr().err
    bundle = read_bundle(tmp_path / "b")
    assert bundle.meta["classes"] == ["red", "green", "blue", "violet"]
    assert bundle.meta["results"]["dev"]["classes"]["violet"] == {"ap": None, "ap50": None, "objects": 0}
    assert "| violet | 0 | not stated | not stated |" in bundle.card


def test_rare_classes_come_more_often() -> None:
    box = np.zeros((1, 4))
    common, rare = np.array([[1, 0]], np.float32), np.array([[1, 1]], np.float32)
    truth = [(box, rare if row % 40 == 0 else common) for row in range(400)]
    truth.append((np.zeros((0, 4)), np.zeros((0, 2), np.float32)))
    weights = balance(truth)
    assert weights[0] == pytest.approx((BALANCED / (10 / 401)) ** 0.5)
    assert weights[[1, 400]].tolist() == [1, 1]
    order = balanced_order(weights, seed=1, epoch=0)
    assert len(order) == 401
    shown = np.bincount(order, minlength=401)
    assert shown[:400:40].sum() == pytest.approx(10 * weights[0] * 401 / weights.sum(), abs=1)
    assert shown.max() <= 2
    assert sorted(balanced_order(np.ones(50), seed=1, epoch=3)) == [*range(50)]
    assert (order == balanced_order(weights, seed=1, epoch=0)).all()
    assert (order != balanced_order(weights, seed=1, epoch=1)).any()


def test_orthogonal_steps_are_of_one_length_in_every_direction() -> None:
    import torch

    weight = torch.nn.Parameter(torch.zeros(4, 2, 3, 3).contiguous(memory_format=torch.channels_last))
    torch.manual_seed(0)
    weight.grad = torch.randn(4, 2, 3, 3) * torch.tensor([0.3, 1.0, 3.0, 10.0]).view(4, 1, 1, 1)
    direction = weight.grad.flatten(1)
    Muon([weight], gates=1, lr=0.5, decay=0.0).step()
    lengths = torch.linalg.svdvals(weight.detach().flatten(1)) / 0.5
    assert lengths.min() > 0.5
    assert lengths.max() < 1.3
    assert (weight.detach().flatten(1) * direction).sum() < 0


def test_the_whole_picture_tells_of_classes() -> None:
    import torch

    random = np.random.default_rng(0)
    shows = random.random((80, 5)) < [0.4, 0.3, 0.5, 0.5, 0.0]  # the last class has no example
    maps = random.integers(0, 60, (80, 2, 6, 2, 2)).astype(np.uint8)
    maps[:, :, :5] += np.where(shows, 120, 0).astype(np.uint8)[:, None, :, None, None]
    unread, views = 7, np.zeros((80, 2, 5), np.float32)
    kept = np.array([row for row in range(80) if row != unread])
    maps[unread] = 255
    pyramids = Pyramids((maps,), (2.0,), views, kept, (), True)
    truth = [(np.zeros((1, 4)), row[None].astype(np.float32)) for row in shows]
    evidence = learn_evidence(pyramids, truth, alike=[[2, 3]])
    assert evidence.power.tolist() == pytest.approx([POWER, POWER, ALIKE_POWER, ALIKE_POWER, 0])
    assert evidence.usual[4] == 1
    features = torch.from_numpy(maps[kept, 0].astype(np.float32)) * (2 / 255)
    with torch.inference_mode():
        there = evidence.linear(features.mean((2, 3)) / evidence.spread).sigmoid().numpy()
        factor = evidence(torch.full((len(kept), 1, 5), 0.4), features)[:, 0].numpy() / 0.4
    for label in (0, 1):
        rows = shows[kept, label]
        assert there[rows, label].min() > there[~rows, label].max()
        assert evidence.usual[label].item() == pytest.approx(there[rows, label].mean(), abs=1e-5)
        assert factor[rows, label].mean() == pytest.approx(1, abs=0.05)
        assert factor[~rows, label].max() < 0.8
    assert 0.5 < factor[:, 2:4].min() < 0.8  # so sure a picture loses little
    assert (factor[:, 4] == 1).all()


def test_views_and_their_boxes() -> None:
    views = draw_views(50, 4, seed=1)
    assert views[:, 0].tolist() == [[0, 0, 1, 1, 0]] * 50
    assert views[:, 1].tolist() == [[0, 0, 1, 1, 1]] * 50
    assert (views[:, 2:, :2] >= 0).all()
    assert (views[:, 2:, 2:4] <= 1.0001).all()
    areas = (views[:, 2:, 2:4] - views[:, 2:, :2]).prod(2)
    assert areas.min() >= 0.399
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[32:48, 40:56] = 255
    box = np.array([[40, 32, 56, 48]], np.float64) / 64
    for view in (*views[0], *views[7], *views[23]):
        inner, shown = in_view(box, view, least=0.35)
        seen = cut_view(pixels, view)[..., 0] > 127
        if not shown[0]:
            continue
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert inner[0] * 64 == pytest.approx(found, abs=1.5)
    _, shown = in_view(np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([0.4, 0, 1, 1, 0], np.float32), least=0.35)
    assert shown.tolist() == [False]


def test_boxes_of_several_classes_are_one_object(tmp_path: Path) -> None:
    from recur.data.boxes import BoxedPicture

    boxes = np.array([[0, 0, 5, 5], [0, 0, 5, 5], [1, 1, 3, 3]], np.float64)
    picture = BoxedPicture(tmp_path, "train", 10, 10, boxes, np.array([0, 2, 1]), np.array([False, False, True]))
    where, labels = truth_of(picture, 3)
    assert where.tolist() == [[0, 0, 0.5, 0.5]]
    assert labels.tolist() == [[1, 0, 1]]


def test_a_folder_for_each_class(trunk: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "d" / name).mkdir(parents=True)
        for number in range(12):
            noise = random.integers(-30, 30, (40, 40, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "d" / name / f"{name}{number}.png")
    (tmp_path / "d" / "empty").mkdir()
    (tmp_path / "d" / "red" / "red0.png").write_bytes(b"no picture")
    found = read_labels(tmp_path / "d")
    assert found.classes == ("blue", "empty", "green", "red")
    assert not found.several
    assert len(found.rows("dev")) >= 3
    assert len(found.problems) == 1
    out = train_classify(data=tmp_path / "d", encoder=trunk, out=tmp_path / "b", views=2, epochs=30)
    bundle = read_bundle(out)
    assert bundle.meta["results"]["dev"]["top1"] == 1.0
    (tmp_path / "one" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one" / "a" / "x.png")
    with pytest.raises(RecurError, match="expected two or more"):
        read_labels(tmp_path / "one")
    with pytest.raises(RecurError, match="no such file"):
        read_labels(tmp_path / "missing")


def test_the_score_from_which_on_detections_are_worth_showing() -> None:
    from recur.metrics.detection import Found, Truth

    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float64)
    truth = [Truth(boxes[:2], np.array([0, 1]), np.zeros(2, bool))]
    found = [Found(boxes, np.array([0, 1, 0, 1]), np.array([0.9, 0.4, 0.3, 0.2]))]
    assert best_score(truth, found, 2) == 0.4
    assert best_score(truth, [Found(boxes[2:], np.array([0, 1]), np.array([0.9, 0.4]))], 2) == 0.3


def test_average_precision_by_hand() -> None:
    scores, truth = np.array([0.9, 0.8, 0.7, 0.1], np.float32), np.array([1, 0, 1, 0], np.float32)
    assert average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1", "broken JSON"),
        ("[]", "each class with its words"),
        ('{"red": 3}', "each class with its words"),
        ('{"violet": "x"}', "is no class"),
    ],
)
def test_nouns_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(RecurError, match=said):
        read_nouns([f"en={tmp_path / 'n.json'}"], ["red"], tmp_path)
    with pytest.raises(RecurError, match="cannot be read"):
        read_nouns([f"en={tmp_path / 'none.json'}"], ["red"], tmp_path)
