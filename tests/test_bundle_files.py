"""Bundles: written, read, and replaced whole; weights as they are stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import packed
from helpers import CHANNELS, random_weights, tiny_encoder, tiny_meta, tiny_vocabulary, write_tiny_bundle

import recur.bundle
import recur.files
from recur import __version__
from recur.bundle import BundleError, check_target, read_bundle, read_meta, update_bundle, write_bundle
from recur.engine.weights import dequantize, quantized, read_safetensors, write_safetensors
from recur.errors import RecurError
from recur.hub import resolve


def sizes_of(meta: dict[str, Any]) -> dict[str, Any]:
    sizes = {key: meta[key] for key in ("cell", "hidden", "layers", "embedding", "attention")}
    return {**sizes, "vocabulary": meta["vocabulary_size"], "channels": CHANNELS}


# ------------------------------------------------------------------------------------------------- there and back again


def test_what_is_written_is_read(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle, task="caption")
    assert (bundle.name, bundle.task, bundle.path) == ("tiny", "caption", tiny_bundle)
    assert bundle.meta["version"] == __version__
    assert bundle.meta["format"] == 1
    assert bundle.meta["calibration"] == tiny_meta()["calibration"]
    assert bundle.encoder == tiny_encoder()
    assert bundle.vocabulary() == tiny_vocabulary()
    assert bundle.card.startswith("# tiny")
    assert read_meta(tiny_bundle) == bundle.meta
    assert set(bundle.meta["files"]) == {path.name for path in tiny_bundle.iterdir()} - {"bundle.json"}
    original = random_weights(0, **sizes_of(tiny_meta()))
    assert set(bundle.weights) == set(original)
    for name, value in original.items():
        found = bundle.weights[name]
        assert found.dtype == np.float32
        if value.ndim == 1 or len(value) == 1:
            np.testing.assert_array_equal(found, value)
        else:
            step = np.abs(value).max(1, keepdims=True) / 127
            assert (np.abs(found - value) <= step / 2 + 1e-6).all()


@pytest.mark.parametrize(("quantize", "error"), [(False, 0.0), ("float32", 0.0), ("float16", 2e-3)])
def test_other_ways_to_store(tmp_path: Path, quantize: Any, error: float) -> None:
    weights = read_bundle(write_tiny_bundle(tmp_path / "b", quantize=quantize)).weights
    for name, value in random_weights(0, **sizes_of(tiny_meta())).items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=error)


@pytest.mark.parametrize("changes", [{"attention": 0}, {"cell": "gru", "layers": 3}, {"cell": "rnn", "layers": 1}])
def test_other_networks(tmp_path: Path, changes: dict[str, Any]) -> None:
    bundle = read_bundle(write_tiny_bundle(tmp_path / "b", **changes))
    assert {key: bundle.meta[key] for key in changes} == changes


def test_a_zip_is_as_good_as_a_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = read_bundle(tiny_bundle)
    written = read_bundle(write_tiny_bundle(tmp_path / "new" / "model.zip"))
    plain = read_bundle(packed(tiny_bundle, tmp_path / "plain.zip"))
    inside = read_bundle(packed(tiny_bundle, tmp_path / "inside.zip", "tiny model/"))
    for other in (written, plain, inside):
        assert other.encoder == whole.encoder
        assert other.weights.keys() == whole.weights.keys()
        assert all((other.weights[name] == whole.weights[name]).all() for name in whole.weights)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.zip"]


def test_the_same_parts_give_the_same_bytes(tmp_path: Path) -> None:
    for kind in ("one", "two"):
        write_tiny_bundle(tmp_path / kind, created="2025-01-01T00:00:00+00:00")
        write_tiny_bundle(tmp_path / f"{kind}.zip", created="2025-01-01T00:00:00+00:00")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_writing_replaces_a_bundle_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for seed in (0, 1):
        for name in ("model", "model.zip"):
            write_tiny_bundle(tmp_path / name, seed=seed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.zip"]
    expected = random_weights(1, **sizes_of(tiny_meta()))["start.bias"]
    for name in ("model", "model.zip"):
        np.testing.assert_array_equal(read_bundle(tmp_path / name).weights["start.bias"], expected)


def test_a_write_that_fails_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_bundle(tmp_path / "model")
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    real = os.replace

    def fails_once(source: Any, target: Any) -> None:
        if Path(target) == path and not (Path(source) / "was").exists() and "old" not in str(source):
            raise OSError("no space left")
        real(source, target)

    monkeypatch.setattr(recur.files.os, "replace", fails_once)
    with pytest.raises(OSError, match="no space left"):
        write_tiny_bundle(path, seed=1)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, sys
from pathlib import Path
import recur.bundle, recur.files

real, target, at = os.replace, sys.argv[1], int(sys.argv[2])
steps = 0

def replace(source, to):
    global steps
    if target in (str(source), str(to)):
        steps += 1
        if steps == at:
            os._exit(9)
    real(source, to)

recur.files.os.replace = replace
recur.bundle.update_bundle(target, {"results": {"CIDEr": 0.5}})
os._exit(0)
"""


@pytest.mark.parametrize(("at", "left"), [(1, "old"), (2, "old"), (3, "new")])
def test_a_killed_write_leaves_the_old_bundle_or_the_new_one(tmp_path: Path, at: int, left: str) -> None:
    path = write_tiny_bundle(tmp_path / "model")
    before = read_bundle(path).meta
    environment = {**os.environ, "PYTHONPATH": str(Path(recur.bundle.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(at)], env=environment, check=False)
    assert done.returncode == (0 if left == "new" else 9)
    assert path.exists() == (at != 2)
    assert resolve(path) == path
    for found in (read_bundle(path).meta, read_meta(path)):
        assert found["results"] == ({"CIDEr": 0.5} if left == "new" else before["results"])
    assert path.exists() == (at != 2), "reading changes nothing"
    update_bundle(path, {"results": {"CIDEr": 0.7}})
    assert read_bundle(path).meta["results"] == {"CIDEr": 0.7}
    assert not (tmp_path / ".model.recur-old").exists()


def test_what_a_kill_after_the_exchange_leaves_is_cleared_away(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "model")
    shutil.copytree(path, tmp_path / ".model.recur-old")
    (tmp_path / ".model.recur-old" / "bundle.json").unlink()
    update_bundle(path, {"results": {}})
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_where_nothing_can_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    for fine in ("new", "a/b/new", "new.zip"):
        check_target(tmp_path / fine)
    check_target(write_tiny_bundle(tmp_path / "model"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.zip").mkdir()
    for wrong, said in (("file", "is no bundle"), ("file/b", "is no folder"), ("folder.zip", "is a folder")):
        with pytest.raises(BundleError, match=said):
            check_target(tmp_path / wrong)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder.zip", "model"]


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_tiny_bundle(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert write_tiny_bundle(tmp_path / "empty").is_dir()


@pytest.mark.parametrize("name", ["model", "model.zip"])
def test_updating_changes_only_what_it_should(tmp_path: Path, name: str) -> None:
    path = write_tiny_bundle(tmp_path / name)
    before = read_bundle(path)
    update_bundle(path, {"results": {"CIDEr": 0.5}, "decode": {"beam": 7}}, card="# new")
    after = read_bundle(path)
    assert after.meta["results"] == {"CIDEr": 0.5}
    assert after.meta["decode"] == {"beam": 7}
    assert after.card == "# new"
    assert after.meta["created"] == before.meta["created"]
    assert all((after.weights[key] == before.weights[key]).all() for key in before.weights)
    with pytest.raises(BundleError, match="layers 'two'"):
        update_bundle(path, {"layers": "two"})
    assert read_bundle(path).meta == after.meta


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_meta_must_be_plain(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BundleError, match="plain, finite"):
        write_tiny_bundle(tmp_path / "b", results={"CIDEr": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_must_be_finite(tmp_path: Path, value: float) -> None:
    weights = random_weights(0, **sizes_of(tiny_meta()))
    weights["embedding.weight"][2, 3] = value
    with pytest.raises(BundleError, match=r"embedding\.weight has a number that is not finite"):
        write_bundle(tmp_path / "b", tiny_meta(), weights, tokenizer=tiny_vocabulary(), encoder=tiny_encoder(), card="")


# ------------------------------------------------------------------------------------------------------------- weights


def test_the_format_agrees_with_the_safetensors_package() -> None:
    package = pytest.importorskip("safetensors.numpy")
    random = np.random.default_rng(0)
    tensors = {
        "a": random.standard_normal((3, 5)).astype(np.float32),
        "b": random.integers(-127, 128, (7, 2)).astype(np.int8),
        "c": random.standard_normal(4).astype(np.float16),
        "d": random.standard_normal((2, 1, 2)),
        "e": np.array(3, np.float32),
        "f": np.zeros((0, 4), np.float32),
    }
    for found in (package.load(write_safetensors(tensors)), read_safetensors(package.save(tensors))):
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_rows_have_scales_of_their_own() -> None:
    weights = {"w": np.array([[1.0, -127.0, 0.4], [0.001, 0.002, -0.003], [0, 0, 0]], np.float32)}
    stored = quantized(weights, "int8")
    assert stored["w"].dtype == np.int8
    assert stored["w"][0].tolist() == [1, -127, 0]
    assert stored["w"][1].tolist() == [42, 85, -127]
    np.testing.assert_allclose(stored["w.scale"][:2], [1, 0.003 / 127], rtol=1e-6)
    np.testing.assert_allclose(dequantize(stored)["w"], weights["w"], atol=0.5)


def test_numbers_too_great_for_float16() -> None:
    with pytest.raises(RecurError, match="too great for float16"):
        quantized({"w": np.full((2, 2), 1e5, np.float32)}, "float16")
