"""`recur train language`: options become arguments, and what cannot be used is one line with status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from recur.cli import main


def test_from_files_to_a_model_that_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a.txt", "ab " * 200), ("b.txt", "生死 👩‍👩‍👧 e\u0301\r\n" * 60)):
        (tmp_path / name).write_bytes(text.encode())
    out = tmp_path / "model.zip"
    call = ["train", "language", "--out", str(out), "--hidden", "8", "--epochs", "1", "--batch", "2", "--length", "8"]
    assert main([*call, "--data", str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--data-name", "two"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "language", "--json", "--model", str(out), "--data", str(tmp_path / "b.txt")]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["unknown"] == 0
    assert row["characters"] == 60 * len("生死 👩‍👩‍👧 e\u0301\n") - 1
    assert main(["generate", "--model", str(out), "--prompt", "生", "--length", "30"]) == 0
    assert len(capsys.readouterr().out) == 31


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no text in it"),
        (b"x", "1 characters; expected at least 20"),
        (bytes(range(128, 256)) * 9, "no text (most likely a binary file)"),
    ],
)
def test_texts_that_cannot_be_used(
    content: bytes, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    assert main(["train", "language", "--data", str(path), "--out", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert what in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text("ab" * 50)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.txt").write_text("keep")
    assert main(["train", "language", "--data", str(tmp_path / "t.txt"), "--out", str(tmp_path / "m")]) == 2
    assert "exists and is no bundle" in capsys.readouterr().err
    assert (tmp_path / "m" / "mine.txt").read_text() == "keep"
