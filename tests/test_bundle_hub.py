"""Models by name or path, and the front door."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import write_tiny_bundle

import recur
import recur.hub
from recur.bundle import BundleError
from recur.errors import RecurError
from recur.predict.caption import Captioner


@pytest.fixture
def embedded(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two embedded models, and a folder beside them that is none."""
    root = tmp_path / "embedded"
    shutil.copytree(tiny_bundle, root / "captioner")
    shutil.copytree(tiny_bundle, root / "another")
    (root / "__pycache__").mkdir()
    monkeypatch.setattr(recur.hub, "EMBEDDED", root)
    return root


def test_the_embedded_models_are_listed(embedded: Path) -> None:
    found = recur.hub.models()
    assert [model.name for model in found] == ["another", "captioner"]
    assert found[1].task == "caption"
    assert found[1].languages == ("en", "zh")
    assert found[1].path == embedded / "captioner"
    assert found[1].size == sum(path.stat().st_size for path in (embedded / "captioner").iterdir())
    assert found[1].meta["name"] == "tiny"


def test_none_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recur.hub, "EMBEDDED", tmp_path / "nothing")
    assert recur.hub.models() == ()
    with pytest.raises(RecurError, match="embedded models: none"):
        recur.hub.resolve("captioner")


def test_a_damaged_one_is_an_error(embedded: Path) -> None:
    (embedded / "another" / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="another"):
        recur.hub.models()


def test_names_and_paths(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = write_tiny_bundle(tmp_path / "own.zip")
    (tmp_path / "captioner").mkdir()
    assert recur.hub.resolve("captioner") == embedded / "captioner"
    assert recur.hub.resolve("./captioner") == Path("captioner")
    assert recur.hub.resolve(Path("captioner")) == Path("captioner")
    assert recur.hub.resolve("own.zip") == Path("own.zip")
    assert recur.hub.resolve(own) == own


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("captoiner", r"no model named 'captoiner'; embedded models: another, captioner"),
        ("some/where", r"some/where: no such bundle; .*\(another, captioner\)"),
        ("model.zip", r"model\.zip: no such bundle"),
    ],
)
def test_what_is_not_there(embedded: Path, name: str, said: str) -> None:
    with pytest.raises(RecurError, match=said):
        recur.load(name)


def test_load_gives_a_predictor(embedded: Path) -> None:
    captioner = recur.load("captioner", threads=1)
    assert isinstance(captioner, Captioner)
    assert captioner.languages == ("en", "zh")


def test_load_refuses_tasks_it_does_not_know(tmp_path: Path) -> None:
    from recur.bundle import write_bundle

    path = write_bundle(tmp_path / "b", {"task": "divination", "name": "x"}, {}, tokenizer=b"{}", encoder=None, card="")
    with pytest.raises(RecurError, match=r"a model for 'divination'; expected one for caption.*; upgrade recur"):
        recur.load(path)


def test_import_is_light_and_the_runtime_needs_no_training_packages(tiny_bundle: Path, photos: list[Path]) -> None:
    code = """
import sys, json
import recur
early = sorted({"numpy", "onnxruntime", "PIL"} & set(sys.modules))
recur.load(sys.argv[1], threads=1)([sys.argv[2]])
late = sorted({"torch", "onnx", "safetensors", "transformers", "matplotlib"} & set(sys.modules))
print(json.dumps([early, late]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle), str(photos[0])],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(recur.__file__).parents[1],
    )
    assert json.loads(done.stdout) == [[], []]
