"""`recur caption`, `explain` and `models`: contracts of output, order, failures and exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import recur
import recur.hub
from recur.cli import main
from recur.cli.caption import readable
from recur.cli.inputs import Listing
from recur.cli.terminal import json_line, visible
from recur.predict.caption import Caption
from recur.progress import Progress, clock

ROOT = Path(__file__).parent.parent
Capture = pytest.CaptureFixture[str]


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_picture_is_a_sentence(tiny_bundle: Path, photos: list[Path], capsys: Capture) -> None:
    expected = recur.load(tiny_bundle)([photos[0]])[0]
    assert main(["caption", "--model", str(tiny_bundle), str(photos[0])]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{expected.caption}  (confidence {expected.confidence:.2f})\n"
    assert printed.err == ""


def test_several_languages_are_tagged_in_the_order_asked(
    tiny_bundle: Path, photos: list[Path], capsys: Capture
) -> None:
    assert main(["caption", "--model", str(tiny_bundle), "--lang", "zh,en", "--n-best", "2", str(photos[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines if not line.startswith("    ")] == ["zh: ", "en: "]
    assert sum(line.startswith("    2. ") for line in lines) == 2


def test_a_folder_streams_columns_in_order(tiny_bundle: Path, photos: list[Path], capsys: Capture) -> None:
    folder = photos[0].parent
    assert main(["caption", "--model", str(tiny_bundle), "--batch", "2", str(folder)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in photos]
    expected = recur.load(tiny_bundle)(photos)
    assert [row[1] for row in rows] == [each.caption for each in expected]
    assert [row[2] for row in rows] == [f"{each.confidence:.2f}" for each in expected]


def test_globs_lists_and_standard_input(
    tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"\n".join(os.fsencode(path) for path in photos[4:6]) + b"\r\n\n")
    stdin = b"".join(os.fsencode(path) + b"\n" for path in photos[2:4])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
    arguments = [str(photos[0].parent / "photo [01].png"), "-", "--list", str(listing)]
    assert main(["caption", "--json", "--model", str(tiny_bundle), *arguments]) == 0
    assert [line["path"] for line in lines_of(capsys.readouterr().out)] == [str(path) for path in photos[:6]]


def test_an_empty_list_is_no_fault(tiny_bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "none.txt").write_bytes(b"")
    assert main(["caption", "--model", str(tiny_bundle), "--list", str(tmp_path / "none.txt")]) == 0
    assert capsys.readouterr() == ("", "")


def test_failures_are_one_line_each_and_the_others_go_on(
    tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "text\nin two lines 一.jpg"
    text.write_text("this is not a picture")
    (tmp_path / "empty folder").mkdir()
    bad = [tmp_path / "missing.jpg", text, tmp_path / "empty folder"]
    inputs = [photos[0], bad[0], photos[1], bad[1], bad[2], photos[2]]
    assert main(["caption", "--json", "--model", str(tiny_bundle), *map(str, inputs)]) == 1
    printed = capsys.readouterr()
    assert [line["path"] for line in lines_of(printed.out)] == [str(path) for path in photos[:3]]
    failures = printed.err.splitlines()
    assert len(failures) == 3
    for failure, path in zip(failures, bad, strict=True):
        assert failure.startswith(visible(str(path)) + ": ")
    assert "Traceback" not in printed.err


def test_not_sure(tiny_bundle: Path, photos: list[Path], capsys: Capture) -> None:
    assert main(["caption", "--model", str(tiny_bundle), "--min-confidence", "1", str(photos[0])]) == 0
    assert capsys.readouterr().out.startswith("not sure  (confidence 0.")
    assert main(["caption", "--json", "--model", str(tiny_bundle), "--min-confidence", "1", str(photos[0])]) == 0
    (line,) = lines_of(capsys.readouterr().out)
    assert (line["caption"], line["words"], line["n_best"]) == (None, [], [])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no pictures given"),
        (["x.jpg", "--list", "nowhere.txt"], "nowhere.txt"),
        (["x.jpg", "--model", "no-such-model"], "no-such-model"),
        (["x.jpg", "--lang", "xx"], "'xx'"),
        (["x.jpg", "--lang", "zh", "--min-confidence", "0.5"], "no calibrated confidence"),
    ],
)
def test_a_wrong_call_is_status_2_and_one_line(
    arguments: list[str], reason: str, tiny_bundle: Path, capsys: Capture
) -> None:
    model = [] if "--model" in arguments else ["--model", str(tiny_bundle)]
    assert main(["caption", *model, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("recur: ")
    assert printed.err.count("\n") == 1
    assert reason in printed.err


@pytest.mark.parametrize(
    "arguments",
    [["--beam", "0"], ["--beam", "x"], ["--n-best", "1.5"], ["--min-confidence", "2"], ["--min-confidence", "nan"],
     ["--batch", "-1"], ["--lang", ","], ["--mod", "x"], ["--no-such-option"]],
)  # fmt: skip
def test_wrong_options_are_status_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["caption", "x.jpg", *arguments])
    assert leaving.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_caption_page_and_explain_page(tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture) -> None:
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    pictures = [str(path) for path in photos[:3]]
    call = ["--model", str(tiny_bundle), *pictures]
    assert main(["caption", "--html", str(first), "--html-limit", "2", *call]) == 0
    assert first.read_text(encoding="utf-8").count("<article") == 2
    assert main(["explain", "caption", "--out", str(second), *call, str(tmp_path / "missing.jpg")]) == 1
    page = second.read_text(encoding="utf-8")
    assert page.count("<article") == 3
    assert 'lang="zh"' in page
    assert "missing.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["caption", "--html"], ["explain", "caption", "--out"]])
@pytest.mark.parametrize("place", ["file/page.html", "folder", "file/folder/page.html"])
def test_a_page_that_cannot_be_written_is_status_2_before_any_work(
    command: list[str], place: str, tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert main([*command, str(tmp_path / place), "--model", str(tiny_bundle), str(photos[0])]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1


def test_models(tiny_bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recur.hub, "EMBEDDED", tiny_bundle.parent)
    assert main(["models", "--json"]) == 0
    (line,) = lines_of(capsys.readouterr().out)
    assert (line["name"], line["task"], line["languages"]) == ("tiny", "caption", ["en", "zh"])
    assert line["bytes"] == sum(path.stat().st_size for path in tiny_bundle.iterdir())
    assert main(["models"]) == 0
    assert capsys.readouterr().out.startswith("tiny\tcaption\ten, zh\t")


def test_interrupted_is_130(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recur, "load", interrupt)
    assert main(["caption", "x.jpg"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_leaves_is_no_complaint(tiny_bundle: Path, photos: list[Path]) -> None:
    call = [sys.executable, "-m", "recur", "caption", "--model", str(tiny_bundle), *[str(photos[0])] * 20]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        complaint = process.stderr.read()
        assert process.wait() == 128 + signal.SIGPIPE
    assert complaint == b""


def test_columns_stay_columns() -> None:
    result = Caption("a\tb\n.jpg", "x", "en", None, -1.0, (), (("x", -1.0), ("y", -2.0)), "m")
    assert readable(result, plain=False, tagged=True) == "a\\tb\\n.jpg\ten\tx\t\n    2. y"
    assert readable(result, plain=True, tagged=False) == "x\n    2. y"


def test_json_is_json_whatever_the_name() -> None:
    line = json_line({"path": "a\udcff\n😀一"})
    assert "一" in line
    assert json.loads(line.encode("utf-8").decode("utf-8")) == {"path": "a\udcff\n😀一"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("recur.progress.DRAW_SECONDS", 0.0)
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(lambda: 4, unit="pictures") as progress:
            progress.wait()
            for number in range(4):
                progress.advance()
                progress.result(f"line {number}")
        assert ("2/4 pictures" in stream.getvalue()) is drawn
        assert stream.getvalue().endswith("\r\x1b[K" if drawn else "")
    assert capsys.readouterr().out == "line 0\nline 1\nline 2\nline 3\n" * 2


def test_a_bar_goes_on_where_the_run_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recur.progress.DRAW_SECONDS", 0.0)
    stream, now = Terminal(), [0.0]
    monkeypatch.setattr("recur.progress.time.monotonic", lambda: now[0])
    with Progress(100, label="epoch 1", start=40, stream=stream) as progress:
        now[0] = 30.0
        progress.update(50, "loss 2.31")
        progress.line("epoch 1: loss 2.31")
    assert "epoch 1 [############............] 50/100, 2:30 left  loss 2.31" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[Kepoch 1: loss 2.31\n")
    assert [clock(seconds) for seconds in (5, 90, 4000)] == ["0:05", "1:30", "1:06:40"]


def test_a_list_in_a_pipe_is_read_once_on_a_terminal_too(
    tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    counts: list[int | None] = []
    counting = threading.Thread(target=lambda: counts.append(Listing([], str(pipe)).count()), daemon=True)
    counting.start()
    counting.join(5)  # nobody writes: opening the pipe would wait for ever
    assert counts == [None]
    monkeypatch.setattr(sys, "stderr", Terminal())
    names = b"".join(os.fsencode(path) + b"\n" for path in photos)
    writer = threading.Thread(target=pipe.write_bytes, args=(names,), daemon=True)
    writer.start()
    assert main(["caption", "--json", "--model", str(tiny_bundle), "--list", str(pipe)]) == 0
    writer.join(10)
    assert [line["path"] for line in lines_of(capsys.readouterr().out)] == [str(path) for path in photos]


def test_the_first_frame_is_said(tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture) -> None:
    moving = tmp_path / "moving.gif"
    frames = [Image.open(path).convert("P") for path in photos[:2]]
    frames[0].save(moving, save_all=True, append_images=frames[1:], duration=100)
    assert main(["caption", "--json", "--model", str(tiny_bundle), str(moving)]) == 0
    printed = capsys.readouterr()
    assert len(lines_of(printed.out)) == 1
    assert printed.err == f"{moving}: note: animated: first frame used\n"


@pytest.mark.parametrize("command", [["caption", "--html"], ["explain", "caption", "--out"]])
def test_the_limit_of_pixels_can_be_set(
    command: list[str], tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "page.html"
    call = [*command, str(page), "--model", str(tiny_bundle), str(photos[0])]
    assert main([*call, "--max-pixels", "7999"]) == 1
    assert "7,999" in capsys.readouterr().err
    assert not page.exists()
    assert main([*call, "--max-pixels", "8000"]) == 0
    assert page.is_file()


def test_a_page_says_what_it_leaves_out(
    tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recur.cli.explain_caption.PAGE_LIMIT", 3)
    page = tmp_path / "page.html"
    for command, notes in (
        (["explain", "caption", "--out", str(page)], {3: 0, 4: 1}),
        (["caption", "--html-limit", "3", "--html", str(page)], {3: 0, 4: 1}),
    ):
        for count, expected in notes.items():
            assert main([*command, "--model", str(tiny_bundle), *map(str, photos[:count])]) == 0
            assert page.read_text(encoding="utf-8").count("<article") == 3
            assert capsys.readouterr().err.count("first 3 pictures only") == expected
