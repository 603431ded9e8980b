"""Detectors and classifiers as other programs use them, and captions with objects."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxes import write_boxed, write_seeing_captioner
from bundles import sealed
from PIL import Image

pytest.importorskip("torch")

import recur
import recur.hub
from recur.bundle import read_bundle
from recur.errors import InputError, RecurError
from recur.predict.detect import Detected, Detections, Detector
from recur.predict.grounding import attention_inside, tie
from recur.predict.nouns import Nouns


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures with boxes, and models: a captioner, and heads trained on its trunk, which they share."""
    from recur.train.classify import train_classify
    from recur.train.detect import train_detect

    folder = tmp_path_factory.mktemp("home")
    write_boxed(folder / "data")
    write_seeing_captioner(folder / "models" / "captioner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recur.hub, "EMBEDDED", folder / "models")
        nouns = folder / "nouns.json"
        nouns.write_text(json.dumps({"red": "狗 小狗", "blue": "草地"}), encoding="utf-8")
        shared: dict[str, Any] = {"data": folder / "data", "share_trunk": True, "views": 2}
        train_detect(
            **shared,
            out=folder / "models" / "detector",
            epochs=1,
            batch=4,
            alike=("red", "green"),
            nouns=(f"zh={nouns}",),
        )
        train_classify(**shared, out=folder / "models" / "classifier", epochs=5)
        train_detect(data=folder / "data", out=folder / "whole", views=1, epochs=1, batch=12)
    for work in folder.glob("**/*.work"):
        work.rename(folder / work.name)
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recur.hub, "EMBEDDED", home / "models")


@pytest.fixture
def pictures(home: Path) -> list[Path]:
    return sorted((home / "data" / "images").iterdir())


@pytest.fixture
def detector(home: Path) -> Detector:
    loaded = recur.load("detector", threads=1)
    assert isinstance(loaded, Detector)
    return loaded


def test_fields_of_results() -> None:
    assert [field.name for field in dataclasses.fields(Detected)] == ["label", "score", "box"]
    assert [field.name for field in dataclasses.fields(Detections)] == [
        "path", "objects", "problem", "model", "width", "height", "notes",
    ]  # fmt: skip


def test_paths_pictures_arrays_and_bytes_alike(detector: Detector, pictures: list[Path]) -> None:
    path = pictures[0]
    image = Image.open(path).convert("RGB")
    given = [path, str(path), image, np.asarray(image), path.read_bytes()]
    results = detector(given, min_score=0.0, most=50, batch=2)
    assert [each.path for each in results] == [str(path), str(path), None, None, None]
    assert len(results[0].objects) == 50
    for each in results:
        assert each.objects == results[0].objects
        assert (each.width, each.height) == (96, 64)
        assert each.problem is None
    assert detector(path, min_score=0.0, most=50)[0].objects == results[0].objects
    scores = [each.score for each in results[0].objects]
    assert scores == sorted(scores, reverse=True)
    for x0, y0, x1, y1 in (each.box for each in results[0].objects):
        assert 0 <= x0 <= x1 <= 96
        assert 0 <= y0 <= y1 <= 64


def test_boxes_are_in_pixels_as_a_person_sees_them(detector: Detector, pictures: list[Path]) -> None:
    image = Image.open(pictures[0]).convert("RGB")
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to the right to see it upright
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    (one,), (other,) = detector(pictures[0], min_score=0.005), detector(turned.getvalue(), min_score=0.005)
    assert (other.width, other.height) == (96, 64)
    assert one.objects == other.objects


def test_a_stream_names_what_fails_and_goes_on(detector: Detector, pictures: list[Path]) -> None:
    results = list(detector.stream([pictures[0], "missing.jpg", pictures[1]], min_score=0.0))
    assert [each.path for each in results] == [str(pictures[0]), "missing.jpg", str(pictures[1])]
    assert isinstance(results[1].problem, InputError)
    assert results[1].objects == ()
    assert results[0].objects
    assert results[2].objects
    with pytest.raises(InputError, match="no such file"):
        detector([pictures[0], "missing.jpg"])


def test_the_score_from_which_on_objects_are_shown(detector: Detector, pictures: list[Path]) -> None:
    assert detector.min_score == detector.bundle.meta["min_score"]
    assert detector(pictures) == detector(pictures, min_score=detector.min_score)


def test_options_that_make_no_sense(detector: Detector, pictures: list[Path]) -> None:
    for options in ({"min_score": 1.5}, {"min_score": float("nan")}, {"most": 0}, {"batch": 0}):
        with pytest.raises(RecurError, match="choose another"):
            detector(pictures[:1], **options)  # type: ignore[arg-type]


def test_a_head_alone_and_a_whole_graph_say_the_same(home: Path, pictures: list[Path]) -> None:
    shared, whole = read_bundle(home / "models" / "detector"), read_bundle(home / "whole")
    assert shared.encoder is not None
    assert whole.encoder is not None
    assert len(shared.encoder) < len(whole.encoder)
    captioner = read_bundle(home / "models" / "captioner").encoder
    assert captioner is not None
    assert whole.encoder.startswith(captioner)
    assert recur.hub.whole_encoder(shared).startswith(captioner)


def test_a_head_for_another_trunk_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeing_captioner(tmp_path / "captioner", ranges=False)
    monkeypatch.setattr(recur.hub, "EMBEDDED", tmp_path)
    with pytest.raises(RecurError, match="a head for another trunk"):
        recur.load(home / "models" / "detector")
    monkeypatch.setattr(recur.hub, "EMBEDDED", tmp_path / "none")
    with pytest.raises(RecurError, match="a head for another trunk"):
        recur.load(home / "models" / "detector")
    assert recur.load(home / "whole").classes == ("red", "green", "blue")


def test_a_head_on_the_same_trunk_written_once_more(home: Path, tmp_path: Path, pictures: list[Path]) -> None:
    import shutil

    from recur.bundle import update_bundle
    from recur.nn.export import export_trunk, import_trunk
    from recur.nn.export_heads import ranges_of
    from recur.train.finish_detect import stand_on

    shutil.copytree(home / "models", tmp_path / "models")
    captioner, detector = tmp_path / "models" / "captioner", tmp_path / "models" / "detector"
    old = read_bundle(captioner).encoder
    assert old is not None
    ranges = ranges_of(old)
    assert ranges is not None
    wider = {name: (low, high * 1.05) for name, (low, high) in ranges.items()}
    update_bundle(captioner, {}, encoder=export_trunk(import_trunk(old), ranges=wider))
    before = recur.load("detector", threads=1)(pictures, min_score=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recur.hub, "EMBEDDED", tmp_path / "models")
        with pytest.raises(RecurError, match="a head for another trunk"):
            recur.load("detector")
        stand_on(detector, captioner)
        after = recur.load("detector", threads=1)(pictures, min_score=0.0)
    for one, other in zip(before, after, strict=True):
        assert other.objects[0].score == pytest.approx(one.objects[0].score, abs=0.02)
    with pytest.raises(RecurError, match="has a trunk of its own"):
        stand_on(home / "whole", captioner)


def test_captions_with_objects_in_one_pass(
    home: Path, detector: Detector, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = recur.load("captioner", threads=1)
    plain = captioner(pictures)
    monkeypatch.setattr(detector, "look", None)  # a second pass would need it
    both = captioner(pictures, detector=detector, min_score=0.005)
    monkeypatch.undo()
    monkeypatch.setattr(recur.hub, "EMBEDDED", home / "models")
    alone = detector(pictures, min_score=0.005)
    for one, other, found in zip(plain, both, alone, strict=True):
        assert one.caption == other.caption
        assert one.objects is None
        assert other.objects is not None
        assert [each.label for each in other.objects] == [each.label for each in found.objects]
        assert [each.score for each in other.objects] == pytest.approx([each.score for each in found.objects], abs=1e-3)
        for word in other.words:
            if word.object is not None:
                assert word.region == tuple(round(side) for side in other.objects[word.object].box)
        line = other.to_json()
        assert list(line) == [
            "path", "caption", "language", "confidence", "log_prob", "words", "n_best", "objects", "model",
        ]  # fmt: skip
        assert list(line["words"][0]) == ["word", "log_prob", "alternatives", "region", "object"]
    streamed = list(captioner.stream_languages(pictures, detector=detector, min_score=0.005))
    assert [pair[0].objects for pair in streamed if isinstance(pair, tuple)] == [each.objects for each in both]


def test_captions_with_the_objects_of_another_network(home: Path, pictures: list[Path], tmp_path: Path) -> None:
    captioner = recur.load(write_seeing_captioner(tmp_path / "other", ranges=False), threads=1)
    detector = recur.load(home / "whole", threads=1)
    both = captioner(pictures[:3], detector=detector, min_score=0.0)
    assert captioner._pair(detector) is None
    assert [each.caption for each in both] == [each.caption for each in captioner(pictures[:3])]
    assert [each.objects for each in both] == [each.objects for each in detector(pictures[:3], min_score=0.0)]
    small = recur.load(write_seeing_captioner(tmp_path / "small", size=32), threads=1)
    with pytest.raises(RecurError, match="looks at 64 pixels, 'captioner' at 32"):
        small(pictures[:3], detector=detector)


def test_nouns_are_tied_to_the_boxes_they_speak_of(detector: Detector) -> None:
    left, right, grass = (0.0, 0.0, 50.0, 100.0), (50.0, 0.0, 100.0, 100.0), (0.0, 80.0, 100.0, 100.0)
    objects = [Detected("red", 0.6, left), Detected("red", 0.5, right), Detected("blue", 0.4, grass)]
    looks_right = np.array([[0.1, 0.9], [0.0, 0.0]], np.float32)
    even = np.full((2, 2), 0.25, np.float32)

    def tied(words: list[str], language: str, grids: Any) -> list[int | None]:
        return tie(words, language, grids, objects, detector, width=100, height=100)

    assert tied(["a", "red", "blues"], "en", [even, looks_right, even]) == [None, 1, 2]
    assert tied(["a", "red"], "en", [None, None]) == [None, 0]  # no attention: the best score
    assert tied(["green"], "en", [looks_right]) == [1]  # alike, and there is no green one
    assert tied(["小", "狗", "在", "草", "地"], "zh", [even] * 5) == [0, 0, None, 2, 2]
    assert tied(["red"], "fr", [even]) == [None]
    assert attention_inside(looks_right, right, 100, 100) == pytest.approx(0.9)
    assert attention_inside(even, grass, 100, 100) == pytest.approx(0.2)


def test_nouns_that_are_broken() -> None:
    for data in (b"{}", b"[]", b"\xff", b'{"nouns": {"en": 3}}', b'{"nouns": {"en": {"dog": "cat"}}}'):
        with pytest.raises(RecurError, match=r"tokenizer\.json"):
            Nouns.from_bytes(data, ["dog"])
    nouns = Nouns({"en": {"dog": "dog"}})
    assert Nouns.from_bytes(nouns.to_bytes(), ["dog"]).words == nouns.words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: meta.pop("classes"), "no list of different 'classes'"),
        (lambda meta: meta.update(classes=["a", "a"]), "no list of different 'classes'"),
        (lambda meta: meta.update(alike=[["violet"]]), "'violet' among the classes that are alike"),
        (lambda meta: meta.update(alike="red"), "expected lists of classes"),
        (lambda meta: meta.update(min_score=2), "expected a number from 0 to 1"),
        (lambda meta: meta["encoder"].update(size=0), "an encoder for 0 pixels"),
        (lambda meta: meta["encoder"].update(trunk=3), "expected a model and its sha256"),
        (lambda meta: meta.update(classes=["red", "green", "blue", "violet"]), "its graph gives scores"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    home: Path, tmp_path: Path, pictures: list[Path], change: Any, said: str
) -> None:
    import shutil

    shutil.copytree(home / "whole", tmp_path / "bad")
    sealed(tmp_path / "bad", change)
    with pytest.raises(RecurError, match=said):
        recur.load(tmp_path / "bad", threads=1)(pictures[:1])


def test_labels(home: Path, pictures: list[Path]) -> None:
    classifier = recur.load("classifier", threads=1)
    results = classifier([pictures[0], Image.open(pictures[0]).convert("RGB")], top=2)
    assert results[0].labels == results[1].labels
    assert len(results[0].labels) == 2
    assert results[0].labels[0][1] >= results[0].labels[1][1]
    assert {name for name, _ in classifier(pictures[0])[0].labels} == {"red", "green", "blue"}
    failed = next(iter(classifier.stream(["missing.jpg"])))
    assert isinstance(failed.problem, InputError)
    assert failed.labels == ()
    with pytest.raises(RecurError, match="top 0"):
        classifier(pictures[:1], top=0)
    with pytest.raises(RecurError, match="min_probability"):
        classifier(pictures[:1], min_probability=2.0)


def test_a_detector_without_its_head_starts_a_captioner(home: Path) -> None:
    import torch

    from recur.nn.vision import Trunk
    from recur.train.encoders import open_encoder

    eye = open_encoder(str(home / "models" / "detector"))
    other = open_encoder(str(home / "whole"))
    assert isinstance(eye.module, Trunk)
    assert eye.channels == 24
    assert eye.size == 64
    assert eye.identity == other.identity == open_encoder("embedded").identity
    pixels = torch.zeros(1, 3, 64, 64)
    assert eye.module(pixels).shape == (1, 24, 2, 2)
