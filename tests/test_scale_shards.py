"""Jobs in shards, without a cluster: each shard once, whatever happens, and what is missing done by the next run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from library import captioner, environment, logical, make, scan

from recur.cli import main
from recur.library.index import Index
from recur.library.scan import Scan
from recur.scale import engine, tasks
from recur.scale.engine import Local, open_engine
from recur.scale.folder import Folder
from recur.scale.scan import describer
from recur.scale.shards import Job, Told
from recur.scale.tasks import Shard, Work


def run(bundle: Path, out: Path | str, *call: str | Path) -> int:
    return main(["caption", "--model", str(bundle), "--out", str(out), "--shard-size", "4", *map(str, call)])


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*"))}


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for content in parts(out).values() for line in content.splitlines()]


def manifest(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_bytes().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "p", 10)
    (tmp_path / "p" / "000" / "00003x.jpg").write_bytes(b"no picture")
    return tmp_path / "p"


def test_the_records_are_those_of_the_command(
    tiny_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_bundle, tmp_path / "o", "--lang", "en,zh", "--words", folder) == 1
    shown = capsys.readouterr()
    there = tmp_path / "o" / "manifest.jsonl"
    assert shown.out == f"3 shards done, 11 pictures, 1 of them could not be read; {there}\n"
    assert shown.err.count("\n") == 1
    assert "00003x.jpg: " in shown.err
    assert main(["caption", "--model", str(tiny_bundle), "--json", "--lang", "en,zh", str(folder)]) == 1
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = records(tmp_path / "o")
    failed = [row for row in found if "error" in row]
    assert [Path(row["path"]).name for row in failed] == ["00003x.jpg"]
    assert [row for row in found if "error" not in row] == expected
    assert [(row["pictures"], row["records"], row["failed"]) for row in manifest(tmp_path / "o")] == [
        (4, 8, 0), (4, 7, 1), (3, 6, 0),
    ]  # fmt: skip
    assert not list((tmp_path / "o" / "drafts").iterdir())


def test_a_second_run_does_what_is_missing(
    tiny_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    run(tiny_bundle, out, folder)
    before = parts(out)
    (out / "part-000000.jsonl").unlink()
    (out / "part-000001.jsonl").write_bytes(before["part-000001.jsonl"][:-9])  # not by us: we never leave half a file
    make(folder, 2, first=20)
    capsys.readouterr()
    assert run(tiny_bundle, out, "--json", folder) == 1
    told = [json.loads(line)["shard"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["part-000000", "part-000001", "part-000003"]
    assert {name: content for name, content in parts(out).items() if name in before} == before
    assert len({row["path"] for row in records(out)}) == len(records(out)) == 13
    assert run(tiny_bundle, out, "--json", folder) == 1
    assert capsys.readouterr().out == ""


def test_killed_at_any_moment(tiny_bundle: Path, tmp_path: Path) -> None:
    make(tmp_path / "p", 60)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "o"
    assert run(tiny_bundle, undisturbed, "--shard-size", "1", tmp_path / "p") == 0
    call = [
        "caption",
        "--json",
        "--model",
        str(tiny_bundle),
        "--shard-size",
        "1",
        "--out",
        str(out),
        str(tmp_path / "p"),
    ]
    chance, done, found = random.Random(3), 0, []
    for heard in (0, 1, 3, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "recur", *call], stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert process.stdout is not None
        for _ in range(heard):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.02) if heard else 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        committed = list((out / "commits").glob("part-*.json"))
        assert len(committed) >= done
        done = len(committed)
        found.append(done)
        for path in committed:  # whatever is committed is whole
            entry = json.loads(path.read_bytes())
            assert (out / entry["file"]).read_bytes() == (undisturbed / entry["file"]).read_bytes()
    assert found[0] < 60  # at least the first kill came before the end; a quick machine may be done by the last
    assert done > 0
    last = subprocess.run([sys.executable, "-m", "recur", *call], capture_output=True, text=True, env=environment())
    assert last.returncode == 0, last.stderr
    assert len(last.stdout.splitlines()) == 60 - done
    assert parts(out) == parts(undisturbed)
    assert manifest(out) == manifest(undisturbed)


def test_archives_tables_and_what_is_cut_off(
    tiny_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = sorted(folder.rglob("0000[0-2].jpg"))
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in pictures:
            archive.add(path, path.name)
    parquet.write_table(pa.table({"image": [path.read_bytes() for path in pictures]}), folder / "t.parquet")
    whole = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(whole[: len(whole) // 3])
    out = tmp_path / "o"
    assert run(tiny_bundle, out, "--form", "parquet", folder) == 1
    shown = capsys.readouterr()
    assert "part-000002: not done (" in shown.err
    assert "a.tar: not a whole tar archive" in shown.err
    assert "4 shards done, 1 are missing" in shown.out
    (folder / "a.tar").write_bytes(whole)
    assert run(tiny_bundle, out, "--form", "parquet", folder) == 1  # one picture is none
    assert "1 shards done, 4 were done before" in capsys.readouterr().out
    rows = [row for path in sorted(out.glob("part-*")) for row in parquet.read_table(path).to_pylist()]
    assert [Path(row["path"]).name for row in rows if ".tar/" in row["path"]] == [path.name for path in pictures]
    assert [Path(row["path"]).name for row in rows if ".parquet/" in row["path"]] == ["0", "1", "2"]
    captions = [row["caption"] for row in rows if Path(row["path"]).name == "00001.jpg"]
    assert len(captions) == 2
    assert captions[0] == captions[1]
    assert list(rows[0]) == ["path", "language", "caption", "confidence", "log_prob", "model", "error", "record"]
    assert json.loads(rows[0]["record"])["caption"] == rows[0]["caption"]
    assert sum(row["error"] is not None for row in rows) == 1


def test_one_folder_holds_one_job_and_one_driver(
    tiny_bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    run(tiny_bundle, out, folder)
    capsys.readouterr()
    assert run(tiny_bundle, out, "--beam", "2", folder) == 2
    assert "holds another job" in capsys.readouterr().err
    with Folder(str(out)).held():
        assert run(tiny_bundle, out, folder) == 2
    assert "another run is writing here" in capsys.readouterr().err
    (out / "plan.jsonl").write_text("rubbish")
    assert run(tiny_bundle, out, folder) == 2
    assert "is no plan of recur" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["--engine", "ray", "x.jpg"], "--out"),
        (["--out", "o", "--workers", "2", "x.jpg"], "--engine ray"),
        (["--out", "o", "--html", "x.html", "x.jpg"], "--html"),
        (["--out", "o"], "no pictures given"),
        (["--out", "o", "--form", "jsonl", "--lang", "xx", "x.jpg"], "not in model"),
    ],
)
def test_calls_that_make_no_sense(
    call: list[str], words: str, tiny_bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, 1)
    shutil.copy(tmp_path / "000" / "00000.jpg", "x.jpg")
    assert main(["caption", "--model", str(tiny_bundle), *call]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["caption", "--out", str(tmp_path / "o"), "--engine", "ray", "x.jpg"]) == 2
    assert 'pip install "recur[ray]"' in capsys.readouterr().err


class Seen:
    """What a predictor of another task gives."""

    def __init__(self, size: int) -> None:
        self.size = size

    def to_json(self) -> dict[str, Any]:
        return {"path": None, "size": self.size}


class Sizes:
    """A predictor of another task."""

    def stream(self, contents: Iterator[bytes], *, batch: int) -> Iterator[Seen]:
        assert batch == 3
        for content in contents:
            yield Seen(len(content))


def test_data_sets_of_rays_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [[item for item, _ in window] for window in engine._windows(range(7), 3)]
    assert windows == [[0, 1, 2], [3, 4, 5], [6]]
    monkeypatch.setattr(engine, "WINDOW_BYTES", 2500)
    taken: list[int] = []
    source = (taken.append(number) or bytes(1000) for number in range(5))  # as lazily as it is told
    sizes = []
    for window in engine._windows(source, 3):
        sizes.append(len(window))
        assert len(taken) == sum(sizes)
    assert sizes == [3, 2]
    assert [len(window) for window in engine._windows([bytes(3000), b"", b""], 100)] == [1, 2]


def test_any_task_with_a_stream(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make(tmp_path / "p", 3)
    monkeypatch.setattr(tasks, "predictor", lambda task: lambda bundle, threads: Sizes())
    monkeypatch.setattr(tasks, "task_of", lambda name: tasks.Task(tasks.stream))
    work = Work(str(tiny_bundle), {"batch": 3}, str(tmp_path / "o"), "jsonl", None)
    draft = work(Shard("part-000000", tuple(map(str, [*paths, tmp_path / "gone.jpg"])), False))
    assert isinstance(draft, tasks.Draft)
    found = [json.loads(line) for line in (tmp_path / "o" / draft.file).read_bytes().splitlines()]
    assert found[:3] == [{"path": str(path), "size": path.stat().st_size} for path in paths]
    assert found[3]["error"].startswith("no such file or folder")
    assert (draft.pictures, draft.records, draft.failed) == (4, 4, 1)


# ------------------------------------------------------------------------------------------------------------- stores


@pytest.fixture
def store() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    yield "memory://scale"
    if system.exists("/scale"):
        system.rm("/scale", recursive=True)


def upload(folder: Path, url: str) -> None:
    from recur.data import storage

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.write(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_from_a_store_to_a_store(tiny_bundle: Path, folder: Path, store: str, tmp_path: Path, capsys: Any) -> None:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in sorted(folder.rglob("0000[0-2].jpg")):
            archive.add(path, path.name)
    (folder / ".hidden.jpg").write_bytes(b"x")
    upload(folder, f"{store}/in")
    assert run(tiny_bundle, f"{store}/out", f"{store}/in") == 1
    assert "4 shards done, 14 pictures, 1 of them" in capsys.readouterr().out
    run(tiny_bundle, tmp_path / "o", folder)
    there = Folder(f"{store}/out")
    for name, content in parts(tmp_path / "o").items():
        local = content.replace(str(folder).encode(), f"{store}/in".encode())
        assert there.read(name) == local, name
    assert run(tiny_bundle, f"{store}/out", f"{store}/in") == 1
    assert "0 shards done, 4 were done before" in capsys.readouterr().out.splitlines()[-1]
    assert not there.names("drafts")
    assert run(tiny_bundle, tmp_path / "x", f"{store}/nothing") == 1
    assert f"{store}/nothing: no such file or folder" in capsys.readouterr().err


def test_a_store_that_fails_is_asked_again(
    tiny_bundle: Path, folder: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from recur.data import storage

    upload(folder, f"{store}/in")
    real = storage.read

    def failing(url: str, *span: int) -> bytes:
        if url.endswith("00005.jpg"):
            raise storage.StorageError(f"{url}: the store does not answer (timeout)")
        return real(url, *span)

    monkeypatch.setattr(storage, "read", failing)
    assert run(tiny_bundle, tmp_path / "o", f"{store}/in") == 1
    assert "part-000001: not done (" in capsys.readouterr().err
    assert sorted(parts(tmp_path / "o")) == ["part-000000.jsonl", "part-000002.jsonl"]
    monkeypatch.undo()
    assert run(tiny_bundle, tmp_path / "o", f"{store}/in") == 1
    assert len(records(tmp_path / "o")) == 11


def test_a_library_in_a_store(tiny_bundle: Path, store: str, tmp_path: Path, capsys: Any) -> None:
    paths = make(tmp_path / "p", 5)
    with tarfile.open(tmp_path / "p" / "a.tar", "w") as archive:
        for path in make(tmp_path / "q", 3, first=5):
            archive.add(path, path.name)
    upload(tmp_path / "p", store)
    index = tmp_path / "x.sqlite"
    call = ["library", "scan", "--model", str(tiny_bundle), "--index", str(index), f"{store}/"]
    assert main(call) == 0
    assert main(call) == 0
    assert [line.partition(";")[0] for line in capsys.readouterr().out.splitlines()] == ["8 new", "8 as before"]
    from recur.data import storage

    storage.remove(f"{store}/000/{paths[0].name}")
    storage.move(f"{store}/000/{paths[1].name}", f"{store}/000/moved.jpg")
    assert main(call) == 0
    assert capsys.readouterr().out.startswith("1 moved, 6 as before, 1 missing")
    assert main(["library", "search", "--index", str(index), "--under", f"{store}/a.tar"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["library", "export", "--index", str(index), "--html", str(tmp_path / "g.html")]) == 0
    assert (tmp_path / "g.html").read_text().count("<figure>") == 7


def test_a_scan_described_by_workers_is_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    paths = make(folder, 70)
    shutil.copy(paths[3], folder / "copy.jpg")
    (folder / "broken.jpg").write_bytes(paths[0].read_bytes()[:90])
    with tarfile.open(folder / "a.tar", "w") as archive:
        for path in make(tmp_path / "q", 3, first=100):
            archive.add(path, path.name)
    model = captioner(tiny_bundle)
    scan(tmp_path / "alone.sqlite", model, folder, languages=("en", "zh"))
    with Index(tmp_path / "x.sqlite", create=True) as library, library.held("scan"):
        describe = describer(Local(), str(tiny_bundle), ("en", "zh"), batch=16, max_pixels=10**8)
        outcome = Scan(library, model, languages=("en", "zh"), describe=describe).run([str(folder)])
    assert outcome.counts["new"] == 73
    assert logical(tmp_path / "x.sqlite") == logical(tmp_path / "alone.sqlite")


class Clumsy:
    """An engine that loses the draft of the first shard."""

    def map(self, make: Any, items: Any, *, ordered: bool) -> Iterator[tuple[Shard, Any]]:
        work = make()
        for number, shard in enumerate(items):
            draft = work(shard)
            if not number:
                Path(work.folder.path(draft.file)).unlink()
            yield shard, draft


def test_a_commit_that_fails_is_one_shard(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    job = Job(Folder(str(tmp_path / "o")), {"format": 1}, "jsonl")
    job.plan([str(folder)], 4)
    told: list[Told] = []
    make_shards = tasks.maker(str(tiny_bundle), {"languages": None}, str(tmp_path / "o"), "jsonl", 1)
    outcome = job.run(Clumsy(), make_shards, told.append)
    assert (outcome.done, outcome.broken) == (2, 1)
    assert "No such file" in (told[0].problem or "")
    assert job.run(Local(), make_shards).done == 1


def test_an_interrupted_run_leaves_a_manifest(tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    job = Job(Folder(str(tmp_path / "o")), {"format": 1}, "jsonl")
    assert job.plan([str(folder)], 4) == []

    def stop(told: Told) -> None:
        raise KeyboardInterrupt

    options = {"languages": None}
    with open_engine("local") as engine, pytest.raises(KeyboardInterrupt):
        job.run(engine, tasks.maker(str(tiny_bundle), options, str(tmp_path / "o"), "jsonl", 1), stop)
    assert [entry["shard"] for entry in manifest(tmp_path / "o")] == ["part-000000"]
    assert os.listdir(tmp_path / "o" / "commits") == ["part-000000.json"]
