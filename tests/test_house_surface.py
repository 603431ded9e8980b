"""What others rely on: exported names, the fields of results, the keys of JSON, one version."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import recur
from recur.cli import main
from recur.predict.caption import Caption, Word

ROOT = Path(__file__).parent.parent


def test_exported_names() -> None:
    assert recur.__all__ == ["Caption", "RecurError", "__version__", "load"]
    for name in recur.__all__:
        assert getattr(recur, name) is not None
    assert recur.Caption is Caption
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = recur.nothing_of_the_kind


def test_fields_of_results() -> None:
    assert [field.name for field in dataclasses.fields(Caption)] == [
        "path", "caption", "language", "confidence", "log_prob", "words", "n_best", "model", "width", "height", "notes",
        "objects",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(Word)] == [
        "word", "log_prob", "alternatives", "region", "attention", "object",
    ]  # fmt: skip


def test_keys_of_json(tiny_bundle: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", "--json", "--n-best", "2", "--model", str(tiny_bundle), str(photos[0])]) == 0
    line = json.loads(capsys.readouterr().out)
    assert list(line) == ["path", "caption", "language", "confidence", "log_prob", "words", "n_best", "model"]
    assert all(list(word) == ["word", "log_prob", "alternatives", "region"] for word in line["words"])
    assert len(line["n_best"]) == 2
    assert line["n_best"][0][0] == line["caption"]


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in settings
    assert not re.search(r"^version\s*=", settings, re.M)
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"recur {recur.__version__}\n"


def test_package_is_typed_and_licensed() -> None:
    assert (ROOT / "recur" / "py.typed").is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
