"""Killed at any moment, and two at once: the index ends as that of a scan that nobody disturbed.

RECUR_CRASHES and RECUR_CRASH_PICTURES make it longer: `RECUR_CRASHES=50 RECUR_CRASH_PICTURES=2000` is the full trial.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from library import captioner, encoded, environment, logical, make, picture, scan

CRASHES = int(os.environ.get("RECUR_CRASHES", "8"))
PICTURES = int(os.environ.get("RECUR_CRASH_PICTURES", "150"))
# Commits every few pictures, so that the kills fall before, between and into commits; says when it is under way. A
# shell that runs the tests in the background leaves Ctrl-C ignored.
CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from recur.library import scan
scan.CHUNK = 8
from recur.cli import main
sys.stderr.write("ready\\n")
sys.stderr.flush()
raise SystemExit(main(sys.argv[1:]))
"""


def start(index: Path, bundle: Path, folder: Path) -> subprocess.Popen[str]:
    call = ["library", "scan", "--json", "--model", str(bundle), "--lang", "en,zh", "--index", str(index), str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    return process


def collection(folder: Path, count: int) -> None:
    """So many pictures, some of them copies and some that look like others."""
    paths = make(folder, count)
    for number in range(0, count, 20):
        (folder / f"copy {number}.jpg").write_bytes(paths[number].read_bytes())
        picture(number, (64, 48)).save(folder / f"like {number}.png")
    (folder / "broken.jpg").write_bytes(encoded(1)[:100])


def made(index: Path) -> bool:
    """Whether it was not the very making of the index that was killed."""
    db = sqlite3.connect(index)
    try:
        return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchone() is not None
    finally:
        db.close()


def test_killed_at_any_moment(tiny_bundle: Path, tmp_path: Path) -> None:
    folder, index, undisturbed = tmp_path / "p", tmp_path / "killed.sqlite", tmp_path / "undisturbed.sqlite"
    collection(folder, PICTURES)
    whole = start(undisturbed, tiny_bundle, folder)
    whole.communicate()
    assert whole.returncode == 1  # one is broken
    chance, killed, done = random.Random(7), 0, 0
    for _ in range(CRASHES):
        process = start(index, tiny_bundle, folder)
        assert process.stdout is not None
        heard = chance.randrange(
            2 * PICTURES // CRASHES
        )  # commits are told of: some are waited for, then chance decides
        for _ in range(heard):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.03 if heard else 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if index.exists() and made(index):
            before, done = done, len(logical(index)["files"])
            assert done >= before
    assert killed >= CRASHES // 3
    last = start(index, tiny_bundle, folder)
    _, errors = last.communicate()
    assert last.returncode == 1, errors
    assert errors.count("\n") == 1
    assert logical(index) == logical(undisturbed)


def test_interrupted(tiny_bundle: Path, tmp_path: Path) -> None:
    folder, index = tmp_path / "p", tmp_path / "x.sqlite"
    collection(folder, 120)
    process = start(index, tiny_bundle, folder)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    done = len(logical(index)["files"])
    assert 0 < done < 120
    scan(tmp_path / "alone.sqlite", captioner(tiny_bundle), folder, languages=("en", "zh"))
    assert scan(index, captioner(tiny_bundle), folder, languages=("en", "zh")).counts["unchanged"] > 0
    assert logical(index) == logical(tmp_path / "alone.sqlite")


def test_two_at_once(tiny_bundle: Path, tmp_path: Path) -> None:
    folder, index = tmp_path / "p", tmp_path / "both.sqlite"
    collection(folder, 120)
    scan(tmp_path / "alone.sqlite", captioner(tiny_bundle), folder, languages=("en", "zh"))
    processes = [start(index, tiny_bundle, folder) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert sorted(status for _, status in ends) in ([1, 2], [1, 1])  # 1: one picture is broken; 2: it was held
    for errors, status in ends:
        if status == 2:
            other = next(process.pid for process, end in zip(processes, ends, strict=True) if end[1] == 1)
            assert f"{index}: in use by `recur library scan`, process {other} on " in errors
            assert errors.count("\n") == 1
    assert logical(index) == logical(tmp_path / "alone.sqlite")


@pytest.mark.parametrize("moment", ["planned", "replaced"])
@pytest.mark.parametrize("embed", [True, False])
def test_killed_while_words_are_written(moment: str, embed: bool, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyexiv2")
    folder, index = tmp_path / "p", tmp_path / "x.sqlite"
    paths = make(folder, 3)
    before = {path: path.read_bytes() for path in paths}
    model = captioner(tiny_bundle)
    scan(index, model, folder)
    code = f"""
import os, sys
from recur.library import writing
real, seen = writing._put, []
def put(path, new, old):
    seen.append(path)
    if len(seen) == 2 and {moment!r} == "planned":
        os.kill(os.getpid(), 9)
    real(path, new, old)
    if len(seen) == 2:
        os.kill(os.getpid(), 9)
writing._put = put
from recur.cli import main
main(sys.argv[1:])
"""
    call = ["library", "write", "--embed" if embed else "--sidecar", "--index", str(index)]
    done = subprocess.run([sys.executable, "-c", code, *call], env=environment(), check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not [path for path in folder.rglob("*") if "recur-part" in path.name and moment == "replaced"]
    assert scan(index, model, folder).counts["new"] == 0  # it is known what these files are
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "recur", "library", "undo", "--index", str(index)], env=environment(), check=True
        )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert scan(index, model, folder).counts["unchanged"] == 3
