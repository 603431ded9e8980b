"""A training run that can be stopped, killed and taken up again without changing a bit of its result.

Three things make that true together:
* what a step sees is a pure function of (seed, epoch, step): `epoch_order`, `step_generator`;
* what a step draws at random (dropout) comes from generators whose state is in the checkpoint: `random_state`;
* a checkpoint is on disk either whole or not at all: `save_checkpoint`.

A checkpoint folder holds `last.pt` (to go on from) and `best.pt` (the best on dev so far).
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.errors import RecurError

FORMAT = 1
LAST, BEST = "last.pt", "best.pt"

StateDict = Mapping[str, Any]


# ------------------------------------------------------------------------------------------------ random numbers


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which `epoch` goes through `count` examples, [count]. Depends on nothing but its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int64)


def step_generator(*, seed: int, epoch: int, step: int) -> np.random.Generator:
    """Random numbers for the choices that the data of one step needs (which caption, which flip)."""
    return np.random.default_rng([seed, epoch, step, 1])


def random_state(generators: Mapping[str, np.random.Generator] | None = None) -> dict[str, Any]:
    """The state of every generator that a step may draw from: torch (CPU, GPUs), `random`, the named NumPy ones."""
    numpy_states = {name: generator.bit_generator.state for name, generator in (generators or {}).items()}
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps(numpy_states, default=lambda array: np.asarray(array).tolist()),
    }


def restore_random_state(state: Mapping[str, Any], generators: Mapping[str, np.random.Generator] | None = None) -> None:
    """Undo to `random_state`. RecurError when the named generators are not those that were saved."""
    numpy_states = json.loads(state["numpy"])
    if set(numpy_states) != set(generators or {}):
        raise RecurError(
            f"checkpoint: holds the generators {sorted(numpy_states)}, expected {sorted(generators or {})}; "
            "it was written by another kind of training"
        )
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        # Several processes draw the same numbers, each on its own GPU: those of the first one, which wrote this.
        torch.cuda.set_rng_state(state["cuda"][0])
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    for name, generator in (generators or {}).items():
        generator.bit_generator.state = numpy_states[name]


# --------------------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` found. `counters` are epoch, step and the like; `extra` is any JSON."""

    path: Path
    models: dict[str, dict[str, Any]]
    optimizer: dict[str, Any] | None
    counters: dict[str, int]
    random: dict[str, Any]
    extra: dict[str, Any]


def save_checkpoint(
    folder: str | Path,
    *,
    model_states: Mapping[str, StateDict],
    optimizer: StateDict | None,
    counters: Mapping[str, int],
    rng: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    best: bool = False,
) -> Path:
    """Write `last.pt` (and, with `best`, `best.pt` with the same content) into `folder`; whole or not at all.

    `rng` comes from `random_state()`; `extra` must be JSON (configuration, data hash, scores so far).
    A kill at any moment leaves the previous files or the new ones, each complete. RecurError when the disk refuses.
    """
    folder = Path(folder)
    content = {
        "format": FORMAT,
        "models": {name: dict(state) for name, state in model_states.items()},
        "optimizer": dict(optimizer) if optimizer is not None else None,
        "counters": {name: int(value) for name, value in counters.items()},
        "random": dict(rng),
        "extra": json.dumps(dict(extra or {}), ensure_ascii=False),
    }
    written, linked = folder / f".{LAST}.tmp", folder / f".{BEST}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Unlink first: after a kill, the left-over may be a hard link of best.pt; writing into it would destroy that.
        for leftover in (written, linked):
            leftover.unlink(missing_ok=True)
        with open(written, "xb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if best:
            # Before last.pt: killed between the two, the run goes on from the older last.pt and makes this best again.
            _link(written, linked)
            os.replace(linked, folder / BEST)
        os.replace(written, folder / LAST)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in RuntimeError
        for leftover in (written, linked):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
        raise RecurError(
            f"{folder}: cannot write the checkpoint ({error}); free some space or name another folder"
        ) from error
    return folder / LAST


def load_checkpoint(path: str | Path, *, which: Literal["last", "best"] = "last") -> Checkpoint:
    """Read a checkpoint folder (or one of its files). Only tensors and plain values are accepted, nothing executable.

    RecurError when it is missing, truncated, something else, or written by a newer version.
    """
    file = Path(path)
    if file.is_dir():
        file = file / (LAST if which == "last" else BEST)
    if not file.is_file():
        raise RecurError(f"{file}: no checkpoint here; train without --resume to start one")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RecurError(
            f"{file}: not a whole checkpoint of recur ({reason}); delete it and train without --resume"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise RecurError(f"{file}: a torch file, but not a checkpoint of recur; name the folder that --out made")
    if content["format"] != FORMAT:
        raise RecurError(f"{file}: checkpoint format {content['format']}, this version reads {FORMAT}; update recur")
    try:
        return Checkpoint(
            path=file,
            models=content["models"],
            optimizer=content["optimizer"],
            counters=content["counters"],
            random=content["random"],
            extra=json.loads(content["extra"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecurError(f"{file}: the checkpoint lacks {error}; delete it and train without --resume") from error


def has_checkpoint(folder: str | Path) -> bool:
    """Is there a run to go on with?"""
    return (Path(folder) / LAST).is_file()


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any], *, path: str | Path) -> None:
    """RecurError that names every setting in which the run to resume differs from the one asked for."""
    missing = object()
    # The saved side went through JSON: compare what JSON makes of the other side (tuples become lists).
    plain = json.loads(json.dumps(dict(now)))
    different = [
        f"{key} was {saved.get(key, '(not set)')!r}, now {plain.get(key, '(not set)')!r}"
        for key in sorted({*saved, *plain})
        if saved.get(key, missing) != plain.get(key, missing)
    ]
    if different:
        raise RecurError(
            f"{path}: cannot resume, this is another run ({'; '.join(different)}); "
            "give the same options, or another --out, or leave --resume out"
        )


def _link(source: Path, target: Path) -> None:
    """A second name for a finished file; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the renames durable. Not every system can open a folder; there the rename is as good as it gets."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def copy_state(state: StateDict) -> dict[str, Any]:
    """A copy of a state dict that later training steps do not change (to keep the best weights in memory)."""
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in state.items()}


# ------------------------------------------------------------------------------------------- stopping and telling


class StopRequest:
    """`with StopRequest(seconds=600) as stop:` - the loop asks `if stop.requested:` between two steps.

    The first Ctrl-C or SIGTERM and the end of the time budget only raise that flag, so a step and a checkpoint are
    never torn apart; a further Ctrl-C raises KeyboardInterrupt. Signals are watched only in the main thread (elsewhere
    Python does not allow it; `request` works everywhere). The handlers that were there before come back at the end.
    """

    def __init__(self, *, seconds: float | None = None) -> None:
        if seconds is not None and not seconds > 0:
            raise RecurError(f"--seconds: got {seconds:g}, expected a number above 0")
        self.seconds = seconds
        self._started = time.monotonic()
        self._reason = ""
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the `with` began."""
        return time.monotonic() - self._started

    @property
    def requested(self) -> bool:
        if not self._reason and self.seconds is not None and self.elapsed >= self.seconds:
            self._reason = f"{self.seconds:g} seconds are over"
        return bool(self._reason)

    @property
    def reason(self) -> str:
        """Why to stop, in words; empty while there is no reason."""
        return self._reason if self.requested else ""

    def request(self, reason: str) -> None:
        """Ask for the stop from code."""
        self._reason = self._reason or reason

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._reason:
            raise KeyboardInterrupt
        self.request("Ctrl-C" if number == signal.SIGINT else "SIGTERM")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class Progress:
    """A bar on a terminal; elsewhere (a log file, a pipe) only the lines given to `line`.

    >>> with Progress(total=100, label="epoch 1") as progress:  # doctest: +SKIP
    ...     progress.update(step, "loss 2.31")
    ...     progress.line("epoch 1: loss 2.31, dev CIDEr-D 0.412")
    """

    def __init__(self, *, total: int, label: str = "", stream: TextIO | None = None, width: int = 24) -> None:
        self.total, self.label, self.width = max(total, 1), label, width
        self.stream = stream if stream is not None else sys.stderr
        self.shown = self.stream.isatty()
        self._done, self._first = 0, -1
        self._started = self._drawn = time.monotonic()
        self._length = 0

    def restart(self, *, total: int, label: str) -> None:
        """The next epoch."""
        self.total, self.label = max(total, 1), label
        self._done, self._first = 0, -1
        self._started = time.monotonic()

    def update(self, done: int, text: str = "") -> None:
        """`done` of `total` steps are finished. Draws at most ten times a second; nothing without a terminal."""
        now = time.monotonic()
        if self._first < 0:  # a resumed epoch starts in the middle: measure the speed from there
            self._first, self._started = done, now
        self._done = done
        if self.shown and (done >= self.total or now - self._drawn >= 0.1):
            self._drawn = now
            self._draw(now, text)

    def line(self, text: str) -> None:
        """One line of the log, above the bar."""
        self._clear()
        print(text, file=self.stream, flush=True)

    def _draw(self, now: float, text: str) -> None:
        part = min(self._done / self.total, 1.0)
        filled = round(part * self.width)
        steps = self._done - self._first
        left = f" {_clock((now - self._started) / steps * (self.total - self._done))} left" if steps > 0 else ""
        line = f"{self.label} [{'#' * filled}{'.' * (self.width - filled)}] {self._done}/{self.total}{left}  {text}"
        line = line.strip()[: max(shutil.get_terminal_size().columns - 1, 20)]
        self.stream.write("\r" + line.ljust(self._length))
        self.stream.flush()
        self._length = len(line)

    def _clear(self) -> None:
        if self.shown and self._length:
            self.stream.write("\r" + " " * self._length + "\r")
            self.stream.flush()
            self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()


def _clock(seconds: float) -> str:
    """90 -> 1:30, 4000 -> 1:06:40."""
    whole = max(int(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
