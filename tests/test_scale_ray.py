"""On a Ray cluster of this machine and a made-up S3: killed workers, a killed driver. Skipped without the packages."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dying import Dies, Squares, never
from library import captioner, environment, logical, make, scan

pytest.importorskip("ray", reason="Ray is not installed (extra scale-test)")

from recur.cli import main
from recur.errors import RecurError
from recur.library.index import Index
from recur.library.scan import Scan
from recur.scale.engine import Lost, Ray
from recur.scale.folder import Folder
from recur.scale.scan import Describing, describer
from recur.scale.shards import Job, Told
from recur.scale.tasks import Work, maker

pytestmark = [pytest.mark.scale, pytest.mark.filterwarnings("default")]  # the warnings of Ray are not ours to mend


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto's server is not installed (extra scale-test)")
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra scale-test)")
    made = server.ThreadedMotoServer(port=0)
    made.start()
    _, port = made.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem().mkdir("library")
        yield "s3://library"
    made.stop()


@pytest.fixture(scope="module")
def engine(bucket: str) -> Iterator[Ray]:
    with pytest.MonkeyPatch.context() as patch:  # workers take the environment that there is when the cluster begins
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), environment()["PYTHONPATH"]]))
        try:
            with Ray(workers=2) as cluster:
                yield cluster
        except RecurError as error:  # it waits half a minute for its own processes, and that is not about us
            reason = str(error)
        else:
            reason = ""
    with warnings.catch_warnings():  # it leaves processes to be collected, which would be told of in another test
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    if reason:
        pytest.skip(reason)


def test_what_kills_every_worker_is_given_up(engine: Ray) -> None:
    results = list(engine.map(Squares, [0, 1, 13, 2, 3], ordered=True))
    assert [(item, result) for item, result in results if item != 13] == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert [item for item, _ in results] == [0, 1, 13, 2, 3]
    assert results[2][1] == Lost("3 workers died of it")
    with pytest.raises(RecurError, match="is damaged; expected a whole one"):
        list(engine.map(never, [1], ordered=False))


def test_a_worker_is_killed(bucket: str, engine: Ray, tiny_bundle: Path, tmp_path: Path) -> None:
    from recur.data import storage

    for path in make(tmp_path / "p", 12):
        storage.write(f"{bucket}/in/{path.name}", path.read_bytes())
    options = {"languages": ("en", "zh")}
    job = Job(Folder(f"{bucket}/out"), {"format": 1}, "jsonl")
    assert job.plan([f"{bucket}/in"], 2) == []
    told: list[Told] = []
    work = partial(Work, str(tiny_bundle), options, f"{bucket}/out", "jsonl", 1)
    outcome = job.run(engine, partial(Dies, work, tmp_path / "died", 2), told.append)
    assert (tmp_path / "died").exists()
    assert (outcome.done, outcome.broken, outcome.pictures) == (6, 0, 12)
    assert sorted(each.shard for each in told) == [f"part-{number:06d}" for number in range(6)]
    names = Folder(f"{bucket}/out")
    assert sorted(names.names()) == ["manifest.jsonl", *(f"part-{n:06d}.jsonl" for n in range(6)), "plan.jsonl"]
    rows = [json.loads(line) for n in range(6) for line in (names.read(f"part-{n:06d}.jsonl") or b"").splitlines()]
    assert len({(row["path"], row["language"]) for row in rows}) == len(rows) == 24
    again = Job(Folder(f"{bucket}/out"), {"format": 1}, "jsonl")
    assert again.plan([f"{bucket}/in"], 2) == []
    assert again.run(engine, work).done == 0


def test_objects_by_workers(engine: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    make(tmp_path / "p", 6)
    monkeypatch.setattr("recur.scale.engine.open_engine", lambda *_: contextlib.nullcontext(engine))
    call = ["detect", "--min-score", "0.005", str(tmp_path / "p")]
    assert main([*call, "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main([*call, "--engine", "ray", "--out", str(tmp_path / "o"), "--shard-size", "2"]) == 0
    parts = sorted((tmp_path / "o").glob("part-*"))
    assert len(parts) == 3
    assert [json.loads(line) for part in parts for line in part.read_bytes().splitlines()] == expected


def test_a_library_with_a_killed_worker(engine: Ray, tiny_bundle: Path, tmp_path: Path) -> None:
    make(tmp_path / "p", 150)
    model = captioner(tiny_bundle)
    scan(tmp_path / "alone.sqlite", model, tmp_path / "p")
    with Index(tmp_path / "x.sqlite", create=True) as library, library.held("scan"):
        dying = _Dying(engine, tmp_path / "died")
        describe = describer(dying, str(tiny_bundle), ("en",), batch=16, max_pixels=10**8)
        outcome = Scan(library, model, languages=("en",), describe=describe).run([str(tmp_path / "p")])
    assert outcome.counts["new"] == 150
    assert (tmp_path / "died").exists()
    assert logical(tmp_path / "x.sqlite") == logical(tmp_path / "alone.sqlite")


class _Dying:
    """An engine one of whose workers is killed."""

    def __init__(self, engine: Ray, mark: Path) -> None:
        self.engine, self.mark = engine, mark

    def map(self, make: Callable[[], Any], items: Any, *, ordered: bool) -> Any:
        assert make.func is Describing  # type: ignore[attr-defined]
        return self.engine.map(partial(Dies, make, self.mark, 1), items, ordered=ordered)


def test_the_driver_is_killed(engine: Ray, tiny_bundle: Path, tmp_path: Path) -> None:
    make(tmp_path / "p", 60)
    out = tmp_path / "o"
    call = ["caption", "--engine", "ray", "--workers", "1", "--json", "--model", str(tiny_bundle), "--shard-size", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "recur", *call, "--out", str(out), str(tmp_path / "p")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["shard"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    header = json.loads((out / "plan.jsonl").read_text().splitlines()[0])
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "commits").iterdir()}
    assert 0 < len(kept) < 30
    job = Job(Folder(str(out)), header, "jsonl")
    assert job.plan([str(tmp_path / "p")], 2) == []
    outcome = job.run(engine, maker(str(tiny_bundle), header["options"], str(out), "jsonl", 1))
    assert (outcome.before, outcome.done) == (len(kept), 30 - len(kept))
    assert {name: (out / "commits" / name).stat().st_mtime_ns for name in kept} == kept
    rows = [json.loads(line) for path in sorted(out.glob("part-*")) for line in path.read_bytes().splitlines()]
    assert len({row["path"] for row in rows}) == len(rows) == 60
