"""Distillation of the trunk: the teacher is asked once, and a resumed run repeats the steps of the undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from training import CHANNELS, write_shapes, write_teacher  # noqa: E402

from recur.errors import RecurError  # noqa: E402
from recur.nn.vision import Trunk  # noqa: E402
from recur.train import trunk as module  # noqa: E402
from recur.train.teacher import build_teacher_cache, cut_view, draw_views  # noqa: E402


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.onnx")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("pictures") / "data", count=32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Trunk", lambda: Trunk((8, 8, 16, 16), (1, 1, 1, 1)))
    monkeypatch.setattr(module, "RESOLUTIONS", ((0.5, 64), (0.5, 96)))
    monkeypatch.setattr(module, "LATER_RESOLUTIONS", ((0.5, 64), (0.5, 96)))


def test_views_are_the_whole_picture_its_mirror_image_and_crops() -> None:
    views = draw_views(20, 5, seed=3)
    assert np.array_equal(views[:, 0], np.tile([0, 0, 1, 1, 0], (20, 1)))
    assert np.array_equal(views[:, 1], np.tile([0, 0, 1, 1, 1], (20, 1)))
    crops = views[:, 2:]
    assert (crops[..., 0] >= 0).all()
    assert (crops[..., 2] <= 1).all()
    area = (crops[..., 2] - crops[..., 0]) * (crops[..., 3] - crops[..., 1])
    assert 0.2 < area.min() < area.max() < 1
    assert np.array_equal(views, draw_views(20, 5, seed=3))
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    mirrored = cut_view(pixels, np.array([0, 0, 1, 1, 1], np.float32), 4)
    assert torch.equal(mirrored, cut_view(pixels[:, ::-1].copy(), np.array([0, 0, 1, 1, 0], np.float32), 4))


def test_the_teacher_is_asked_once(teacher: Path, pictures: Path, tmp_path: Path) -> None:
    paths = sorted((pictures / "images").iterdir())
    cache = build_teacher_cache(paths, teacher, tmp_path / "cache", views=3)
    assert cache.maps.shape == (32, 3, CHANNELS, 7, 7)
    assert np.allclose(cache.probabilities.astype(np.float32).sum(-1), 1, atol=5e-3)
    first = cache.maps.copy()
    again = build_teacher_cache(paths, Path(teacher), tmp_path / "cache", views=3)
    assert np.array_equal(first, again.maps)
    with pytest.raises(RecurError, match="cache"):
        build_teacher_cache(paths[1:], teacher, tmp_path / "cache", views=3)


@pytest.mark.usefixtures("small")
def test_it_learns_leaves_dev_alone_and_resumes_exactly(teacher: Path, pictures: Path, tmp_path: Path) -> None:
    assert len(module.pictures_to_learn_from([pictures])) == 24
    options = {"data": [pictures], "teacher": teacher, "cache": tmp_path / "cache", "views": 3, "batch": 7}
    whole = module.train_trunk(out=tmp_path / "whole.onnx", epochs=4, **options)  # type: ignore[arg-type]
    parts = tmp_path / "parts.onnx"
    original, count = module.distillation_loss, [0]

    def interrupted(*arguments: object) -> object:
        count[0] += 1
        if count[0] == 8:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    module.distillation_loss = interrupted  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            module.train_trunk(out=parts, epochs=4, **options)  # type: ignore[arg-type]
    finally:
        module.distillation_loss = original
    assert not parts.exists()
    module.train_trunk(out=parts, epochs=4, resume=True, **options)  # type: ignore[arg-type]
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("small")
def test_a_trained_trunk_goes_on(teacher: Path, pictures: Path, tmp_path: Path) -> None:
    options = {"data": [pictures], "teacher": teacher, "cache": tmp_path / "cache", "views": 3, "batch": 7}
    first = module.train_trunk(out=tmp_path / "first.onnx", epochs=4, **options)  # type: ignore[arg-type]
    again = {"epochs": 3, "init": str(first), **options}
    whole = module.train_trunk(out=tmp_path / "whole.onnx", **again)  # type: ignore[arg-type]
    assert whole.read_bytes() != first.read_bytes()
    parts = tmp_path / "parts.onnx"
    module.train_trunk(out=parts, seconds=1e-9, **again)  # type: ignore[arg-type]
    assert not parts.exists()
    module.train_trunk(out=parts, resume=True, **again)  # type: ignore[arg-type]
    assert parts.read_bytes() == whole.read_bytes()
    for other in (tmp_path / "nowhere", teacher):
        with pytest.raises(RecurError, match="no trunk"):
            module.train_trunk(out=parts, **{**again, "init": str(other)})  # type: ignore[arg-type]


@pytest.mark.usefixtures("small")
def test_its_head_is_fitted_before_it_goes_on(teacher: Path, pictures: Path, tmp_path: Path) -> None:
    cache = build_teacher_cache(sorted((pictures / "images").iterdir()), teacher, tmp_path / "cache", views=2)
    torch.manual_seed(0)
    trunk = module.Trunk()
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    course = {"epochs": 1, "batch": 8, "learning_rate": 2e-3, "seed": 1}
    fitted = module._Distillation(cache, trunk.fold(), **course)  # type: ignore[arg-type]
    other = module._Distillation(cache, None, **course)  # type: ignore[arg-type]
    other.trunk.load_state_dict(fitted.trunk.state_dict())
    assert fitted.measure()["map"] < 0.8 * other.measure()["map"]
    assert fitted.measure()["classes"] < other.measure()["classes"]


def test_a_folded_trunk_unfolds_into_the_same_function() -> None:
    torch.manual_seed(0)
    trunk = Trunk((8, 16, 16, 24), (1, 1, 2, 1))
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folded = trunk.fold()
    pixels = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    unfolded = folded.unfold(pixels)
    with torch.no_grad():
        expected = folded(pixels)
        assert torch.allclose(unfolded.eval()(pixels), expected, atol=1e-4 * float(expected.max()))
        assert torch.allclose(unfolded.fold()(pixels), expected, atol=1e-4 * float(expected.max()))
        unfolded.train()  # the statistics are those of these pixels
        assert torch.allclose(unfolded(pixels), expected, atol=1e-2 * float(expected.max()))
    assert torch.allclose(unfolded.stem.conv.weight.flatten(1).norm(dim=1), torch.ones(8), atol=1e-5)


@pytest.mark.usefixtures("small")
def test_numerics_are_those_of_all_its_pixels(teacher: Path, tmp_path: Path) -> None:
    """Squashed from all pixels by Pillow's bicubic filter, upright: what is trained must not depend on the reader."""
    random = np.random.default_rng(0)
    paths = []
    for number, (mode, suffix) in enumerate([("RGB", "jpg"), ("L", "jpg"), ("RGB", "png"), ("P", "png")]):
        coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3)).astype(np.uint8))
        paths.append(tmp_path / f"{number}.{suffix}")
        coarse.resize((1000, 700), Image.Resampling.BICUBIC).convert(mode).save(paths[-1])
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(paths[0]) as picture:
        picture.save(tmp_path / "turned.jpg", exif=exif)
    cache = build_teacher_cache([*paths, tmp_path / "turned.jpg"], teacher, tmp_path / "cache", views=2)
    for row, path in enumerate(paths):
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
        assert np.array_equal(cache.pixels[row], expected)
    turned = cache.pixels[4][::-1, ::-1].astype(int)
    assert np.abs(turned - cache.pixels[0]).mean() < 3
    assert cache.readable.all()


@pytest.mark.usefixtures("small")
def test_unreadable_pictures_are_named_and_left_out(
    teacher: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(pictures / "images", folder)
    (folder / "005.png").write_text("not a picture")
    out = module.train_trunk(data=[folder], teacher=teacher, out=tmp_path / "t.onnx", views=2, batch=7, epochs=1)
    assert out.is_file()
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{folder / '005.png'}: the file is text")
    assert printed.err.count("\n") == 1
    cache = build_teacher_cache(
        module.pictures_to_learn_from([folder]), teacher, tmp_path / "t.cache", views=2, least_area=module.LEAST_AREA
    )
    assert np.flatnonzero(~cache.readable).tolist() == [5]


def test_a_cache_is_of_these_pictures_this_teacher_and_whole(teacher: Path, pictures: Path, tmp_path: Path) -> None:
    paths = sorted((pictures / "images").iterdir())[:3]
    copies = [Path(shutil.copy2(path, tmp_path / path.name)) for path in paths]
    folder = tmp_path / "cache"
    build_teacher_cache(copies, teacher, folder, views=2)
    build_teacher_cache(paths, teacher, folder, views=2)  # moved, not changed
    os.utime(copies[0], (1, 1))
    build_teacher_cache(copies, teacher, folder, views=2)  # nor by a new time
    copies[1].write_bytes(copies[1].read_bytes()[:-1] + b"?")
    other = tmp_path / "other.onnx"
    model = onnx.load(teacher)
    model.doc_string = "another"
    onnx.save(model, other)
    for call, said in (
        (lambda: build_teacher_cache(copies, teacher, folder, views=2), r"other pictures_sha256\); name another"),
        (lambda: build_teacher_cache(paths, other, folder, views=2), "other teacher_sha256"),
        (lambda: build_teacher_cache(paths, teacher, folder, views=3), "other views"),
        (lambda: build_teacher_cache(paths, teacher, folder, views=1), "expected 2 or more"),
    ):
        with pytest.raises(RecurError, match=said):
            call()
    (folder / "maps.npy").write_bytes(b"")
    with pytest.raises(RecurError, match="a damaged teacher cache"):
        build_teacher_cache(paths, teacher, folder, views=2)
    (folder / "cache.json").write_text("{")
    with pytest.raises(RecurError, match="a damaged teacher cache"):
        build_teacher_cache(paths, teacher, folder, views=2)
    (folder / "cache.json").unlink()  # killed before it was there: everything is made anew
    assert build_teacher_cache(paths, teacher, folder, views=2).readable.all()


def test_what_is_no_teacher_is_refused(teacher: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    renamed = tmp_path / "renamed.onnx"
    model = onnx.load(teacher)
    model.graph.output.pop()
    onnx.save(model, renamed)
    for path, said in (
        (tmp_path / "none.onnx", "cannot be read"),
        (text, "no ONNX network"),
        (renamed, "outputs features; expected pixels, and features and probabilities"),
    ):
        with pytest.raises(RecurError, match=said):
            build_teacher_cache([], path, tmp_path / "cache")


@pytest.mark.usefixtures("small")
def test_a_stop_leaves_a_checkpoint_that_only_the_same_run_takes_up(
    teacher: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data": [pictures], "teacher": teacher, "cache": tmp_path / "cache", "views": 2, "batch": 7}
    out = tmp_path / "t.onnx"
    module.train_trunk(out=out, seconds=1e-6, **options)  # type: ignore[arg-type]
    assert not out.exists()
    assert "stopped after step 0 of" in capsys.readouterr().out
    changed = {**options, "views": 3, "cache": tmp_path / "other cache"}
    with pytest.raises(RecurError, match="views was 2, now 3"):
        module.train_trunk(out=out, resume=True, **changed)  # type: ignore[arg-type]
    with pytest.raises(RecurError, match="a folder"):
        module.train_trunk(out=tmp_path, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("small")
def test_a_loss_that_is_not_finite_stops_at_once(
    teacher: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.distillation_loss
    monkeypatch.setattr(module, "distillation_loss", lambda *given: {**original(*given), "map": torch.tensor(np.nan)})
    with pytest.raises(RecurError, match=r"step 1: the loss is nan; .* lower learning rate"):
        module.train_trunk(data=[pictures], teacher=teacher, out=tmp_path / "t.onnx", views=2, batch=7)


def test_held_out_pictures_by_every_name_of_their_split(tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    names = [*(f"{number}.jpg" for number in range(14)), "sub/0.jpg", "sub/1.jpg"]
    for name in names:
        (tmp_path / "images" / name).touch()
    splits = ["validation", "valid", "testing", "Dev", "val", "test", "train", "none", None]
    rows = [{"file_name": f"{number}.jpg", "split": split} for number, split in enumerate(splits, 1)]
    rows.append({"file_name": "./sub/0.jpg", "split": "dev"})
    listing = tmp_path / "annotations.jsonl"
    listing.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    found = [path.relative_to(tmp_path / "images").as_posix() for path in module.pictures_to_learn_from([tmp_path])]
    # "1.jpg" without a folder means every picture of that name.
    assert sorted(found) == sorted({*names} - {f"{number}.jpg" for number in range(1, 7)} - {"sub/0.jpg", "sub/1.jpg"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "a.jpg", "spl', "broken JSON"),
        ("[1]", "no JSON object"),
        ('{"file_name": "a.jpg", "split": "trian"}', "split 'trian'; expected"),
        ('{"file_name": "a.jpg", "split": 3}', "split 3; expected"),
        ('{"split": "dev"}', "no file_name"),
        ('{"file_name": "\udcff"}', "broken JSON"),
    ],
)
def test_a_line_that_may_hide_a_held_out_picture_stops(line: str, said: str, tmp_path: Path) -> None:
    first = b'{"file_name": "b.jpg"}\n\n'
    (tmp_path / "annotations.jsonl").write_bytes(first + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecurError, match=rf"annotations\.jsonl:3: {said}"):
        module.pictures_to_learn_from([tmp_path])


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecurError, match="only 0 pictures"):
        module.pictures_to_learn_from([tmp_path])
    with pytest.raises(RecurError, match="not a folder"):
        module.pictures_to_learn_from([tmp_path / "none"])
