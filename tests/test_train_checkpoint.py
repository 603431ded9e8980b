"""Checkpoints: whole or not at all, and a killed run ends with the same bits as one that was left alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recur.errors import RecurError  # noqa: E402
from recur.train import checkpoint  # noqa: E402
from recur.train.checkpoint import (  # noqa: E402
    Progress,
    StopRequest,
    check_same_run,
    epoch_order,
    has_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    step_generator,
)


def run_loop(folder: Path, *, hang_after: int = 0, stop_after: int = 0) -> str:
    """A training loop in small: dropout, AdamW, random data choices, a checkpoint every third step."""
    torch.manual_seed(3)
    data = torch.randn(24, 6)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    epoch = step = steps = 0
    if has_checkpoint(folder):
        saved = load_checkpoint(folder)
        model.load_state_dict(saved.models["model"])
        assert saved.optimizer is not None
        optimizer.load_state_dict(saved.optimizer)
        restore_random_state(saved.random)
        epoch, step = saved.counters["epoch"], saved.counters["step"]

    def save() -> None:
        save_checkpoint(
            folder,
            model_states={"model": model.state_dict()},
            optimizer=optimizer.state_dict(),
            counters={"epoch": epoch, "step": step},
            rng=random_state(),
            best=step % 2 == 0,
        )

    with StopRequest() as stop:
        while epoch < 4:
            order = epoch_order(24, seed=5, epoch=epoch)
            while step < 6:
                if stop.requested:
                    save()
                    return stop.reason
                x = data[order[step * 4 : step * 4 + 4]]
                x = x + float(step_generator(seed=5, epoch=epoch, step=step).normal())
                loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step, steps = step + 1, steps + 1
                if step % 3 == 0:
                    save()
                if steps == stop_after:
                    signal.raise_signal(signal.SIGTERM)
                if steps == hang_after:
                    print("hanging", flush=True)
                    time.sleep(600)
            epoch, step = epoch + 1, 0
    save()
    return "done"


def start_loop(folder: Path, *, hang_after: int) -> subprocess.Popen[str]:
    """The same loop in a process of its own, which can be killed."""
    here = Path(__file__).parent
    code = f"import test_train_checkpoint as t; t.run_loop(t.Path({str(folder)!r}), hang_after={hang_after})"
    env = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == text:
            return
    raise AssertionError(f"the loop ended without saying {text!r}")


def weights(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder).models["model"]


def save_small(folder: Path, value: float = 1.0, **options: Any) -> Path:
    fields: dict[str, Any] = {
        "model_states": {"caption": {"weight": torch.full((2, 3), value)}},
        "optimizer": None,
        "counters": {"epoch": 2, "step": 7},
        "rng": random_state(),
    }
    return save_checkpoint(folder, **{**fields, **options})


def test_killed_and_stopped_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    with start_loop(tmp_path / "killed", hang_after=8) as killed:
        wait_for(killed, "hanging")
        killed.kill()  # SIGKILL, two steps after a checkpoint
    assert load_checkpoint(tmp_path / "killed").counters == {"epoch": 0, "step": 6}
    assert run_loop(tmp_path / "killed", stop_after=8) == "SIGTERM"
    assert load_checkpoint(tmp_path / "killed").counters == {"epoch": 2, "step": 2}
    assert run_loop(tmp_path / "killed") == "done"
    assert run_loop(tmp_path / "whole") == "done"
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert load_checkpoint(tmp_path / "killed").counters == {"epoch": 4, "step": 0}


def test_round_trip_of_everything(tmp_path: Path) -> None:
    extra = {"languages": ["en", "zh"], "best": 0.4, "data": "苹果"}
    save_small(tmp_path, extra=extra)
    loaded = load_checkpoint(tmp_path)
    assert torch.equal(loaded.models["caption"]["weight"], torch.ones(2, 3))
    assert loaded.counters == {"epoch": 2, "step": 7}
    assert loaded.optimizer is None
    assert loaded.extra == extra
    assert not list(tmp_path.glob(".*")), "no left-overs"


def test_best_stays_when_last_moves_on(tmp_path: Path) -> None:
    save_small(tmp_path, 1.0, best=True)
    save_small(tmp_path, 2.0)
    assert float(load_checkpoint(tmp_path, which="best").models["caption"]["weight"][0, 0]) == 1.0
    assert float(load_checkpoint(tmp_path).models["caption"]["weight"][0, 0]) == 2.0


def test_kill_between_best_and_last_leaves_both_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_small(tmp_path, 1.0, best=True)
    real = os.replace

    def killed_before_last(source: Any, target: Any) -> None:
        if Path(target).name == "last.pt":
            raise SystemExit("killed")  # not an OSError: nothing is cleaned up, as after SIGKILL
        real(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", killed_before_last)
    with pytest.raises(SystemExit):
        save_small(tmp_path, 2.0, best=True)
    monkeypatch.undo()
    assert float(load_checkpoint(tmp_path).models["caption"]["weight"][0, 0]) == 1.0
    # The left-over shares its bytes with best.pt: the next save must not write through it.
    save_small(tmp_path, 3.0)
    assert float(load_checkpoint(tmp_path, which="best").models["caption"]["weight"][0, 0]) == 2.0
    assert float(load_checkpoint(tmp_path).models["caption"]["weight"][0, 0]) == 3.0


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(checkpoint.os, "link", refuse)
    save_small(tmp_path, 4.0, best=True)
    assert float(load_checkpoint(tmp_path, which="best").models["caption"]["weight"][0, 0]) == 4.0


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_is_refused(tmp_path: Path, keep: float) -> None:
    path = save_small(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else int(keep)])
    with pytest.raises(RecurError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_text("hello")
    with pytest.raises(RecurError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path)
    torch.save({"weight": torch.ones(1)}, tmp_path / "last.pt")
    with pytest.raises(RecurError, match="not a checkpoint of recur"):
        load_checkpoint(tmp_path)
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(RecurError, match="format 99"):
        load_checkpoint(tmp_path)
    torch.save({"format": 1}, tmp_path / "last.pt")
    with pytest.raises(RecurError, match="lacks"):
        load_checkpoint(tmp_path)
    with pytest.raises(RecurError, match="no checkpoint here"):
        load_checkpoint(tmp_path / "nowhere")


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("bomb",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "models": Bomb()}, tmp_path / "last.pt")
    with pytest.raises(RecurError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "bomb").exists()


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecurError, match="cannot write the checkpoint"):
        save_small(tmp_path / "file")


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_random_state_comes_back(tmp_path: Path, bits: Any) -> None:
    import random

    generator = np.random.Generator(bits(4))
    generator.random(3)
    save_small(tmp_path, rng=random_state({"data": generator}))
    expected = (generator.random(5), torch.rand(5), [random.random() for _ in range(3)])
    fresh = np.random.Generator(bits(99))
    restore_random_state(load_checkpoint(tmp_path).random, {"data": fresh})
    assert np.array_equal(fresh.random(5), expected[0])
    assert torch.equal(torch.rand(5), expected[1])
    assert [random.random() for _ in range(3)] == expected[2]
    with pytest.raises(RecurError, match="generators"):
        restore_random_state(load_checkpoint(tmp_path).random)


def test_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch_order(50, seed=1, epoch=2)
    np.random.default_rng(0).random(10)
    assert np.array_equal(first, epoch_order(50, seed=1, epoch=2))
    assert sorted(first) == list(range(50))
    assert not np.array_equal(first, epoch_order(50, seed=1, epoch=3))
    assert not np.array_equal(first, epoch_order(50, seed=2, epoch=2))
    draws = {float(step_generator(seed=1, epoch=e, step=s).random()) for e in range(4) for s in range(4)}
    assert len(draws) == 16


def test_resuming_another_run_is_refused() -> None:
    check_same_run({"seed": 1, "grid": [7, 7]}, {"seed": 1, "grid": (7, 7)}, path="out")
    with pytest.raises(RecurError, match=r"seed was 1, now 2.*size was '.not set.'"):
        check_same_run({"seed": 1}, {"seed": 2, "size": 3}, path="out")


def test_stop_request_on_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        assert not stop.requested
        assert stop.reason == ""
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        assert stop.reason == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # asks for what is asked for already
    assert signal.getsignal(signal.SIGINT) is before
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"


def test_stop_request_on_time_and_in_a_thread() -> None:
    with StopRequest(seconds=0.02) as stop:
        assert not stop.requested
        time.sleep(0.03)
        assert stop.requested
        assert "0.02 seconds" in stop.reason
    with pytest.raises(RecurError, match="above 0"):
        StopRequest(seconds=0)
    seen: list[str] = []

    def elsewhere() -> None:
        with StopRequest() as stop:
            stop.request("enough")
            seen.append(stop.reason)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == ["enough"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, terminal = io.StringIO(), Terminal()
    monkeypatch.setenv("COLUMNS", "60")
    for stream in (plain, terminal):
        with Progress(total=4, label="epoch 1", stream=stream) as progress:
            for done in (1, 4):
                progress.update(done, "loss 2.5")
            progress.line("epoch 1: loss 2.5")
            progress.restart(total=2, label="epoch 2")
            progress.update(2, "x" * 500)
    assert plain.getvalue() == "epoch 1: loss 2.5\n"
    shown = terminal.getvalue()
    assert "\repoch 1 [########################] 4/4" in shown
    assert "epoch 1: loss 2.5\n" in shown
    assert max(len(part) for part in shown.replace("\n", "\r").split("\r")) < 60
    assert shown.endswith("\r"), "the bar is wiped at the end"
