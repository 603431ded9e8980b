"""How things are timed: side by side, in turns, by their medians; and never before their results agree.

A machine's clock changes while it is measured. So the contestants of a benchmark take turns (one round runs each of
them once), the time of each is the median of the rounds, and a ratio is the median of the ratios within rounds.

OpenMP's threads go on spinning for some milliseconds after their work, in case there is more, and keep a processor
from whoever comes next. Runs that are as short as that are timed rested: after a pause, so that nobody is slowed by
another's threads, and after some milliseconds of runs that are not timed, so that everybody finds his own threads and
caches warm.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from recur import __version__
from recur.engine import native
from recur.engine.vision import processors
from recur.errors import RecurError

ROUNDS = 5
REST = 0.03  # seconds: five times as long as libgomp's threads were seen to spin
WARM = 0.01  # seconds of runs that are not timed, one run at least
EXTRA = 'pip install "recur[train]"'


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    `times` are by contestant, in `unit` (less is better); `ratio` says how many times as long `against`, the best of
    those that count, takes as `ours`; `need` is the ratio that is aimed at, None where there is no aim; `checked` says
    what was equal.
    """

    benchmark: str
    what: str
    unit: str
    times: Mapping[str, float]
    ours: str
    ratio: float | None
    need: float | None
    checked: str
    more: Mapping[str, float] = field(default_factory=dict)
    against: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as one plain object."""
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "unit": self.unit,
            "times": {name: _short(value) for name, value in self.times.items()},
            "ours": self.ours,
            "against": self.against,
            "ratio": None if self.ratio is None else _short(self.ratio),
            "need": self.need,
            "checked": self.checked,
            **{name: _short(value) for name, value in self.more.items()},
        }


class Unequal(RecurError):
    """Two contestants gave different results, so their times are not told."""


def require(equal: bool, what: str, found: str) -> str:
    """The note `found`, if the results agree. Errors: Unequal."""
    if not equal:
        raise Unequal(f"{what}: results differ ({found}); expected equal ones; no times are shown, please report this")
    return found


def together(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = ROUNDS,
    seconds: float = 20.0,
    rested: bool = False,
) -> dict[str, list[float]]:
    """Seconds of every round of each contestant: once each to warm up, then in turns, for about `seconds` at most.

    `rested`: each timed run comes after a pause and some runs that are not timed.
    """
    for run in contestants.values():
        run()
    begun = time.perf_counter()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        order = list(contestants)[:: -1 if number % 2 else 1]
        for name in order:
            if rested:
                time.sleep(REST)
                warm = time.perf_counter() + WARM
                contestants[name]()
                while time.perf_counter() < warm:
                    contestants[name]()
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
        if number >= 2 and time.perf_counter() - begun > seconds:
            break
    return times


def compare(
    benchmark: str,
    what: str,
    times: Mapping[str, list[float]],
    *,
    ours: str,
    against: list[str],
    unit: str,
    scale: float = 1.0,
    need: float | None = None,
    checked: str,
    more: Mapping[str, float] | None = None,
) -> Row:
    """A row from the rounds of `together`: medians times `scale`, and `ours` against the best of those that count."""
    ratio, best = None, None
    if against:
        best = min(against, key=lambda name: median(times[name]))
        ratio = median([theirs / mine for theirs, mine in zip(times[best], times[ours], strict=True)])
    shown = {name: scale * median(each) for name, each in times.items()}
    return Row(benchmark, what, unit, shown, ours, ratio, need, checked, more or {}, best)


def load(name: str) -> Any:
    """A package of the training half. Errors: RecurError that names the extra when it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RecurError(f"this benchmark needs {error.name}, which is not installed; {EXTRA}") from None


def versions() -> dict[str, str]:
    """What is compared with what, on what."""
    found = {"recur": __version__, "python": platform.python_version()}
    for name in ("numpy", "onnxruntime", "torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def where() -> dict[str, Any]:
    """The machine, and which instruction sets and runtimes recur uses on it."""
    core = native.where()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "processors": processors(),
        "core": core.core,
        "core_reason": core.reason,
        "core_instructions": core.isa,
        "core_available": list(core.isas),
        "core_compiler": core.compiler,
        "encoder_runtime": f"onnxruntime {versions()['onnxruntime']}",
        "versions": versions(),
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def fastest_reader(footprint: int, *, seconds: float = 0.3) -> Callable[[], object]:
    """A call that reads about `footprint` bytes in one thread and does little else: the memory's limit at that size.

    The fastest of three here: the C library's memcmp, a greatest value, and counting bytes.
    """
    half = max(1 << 12, footprint // 2)
    left = np.arange(half, dtype=np.uint8).tobytes()
    right = bytes(bytearray(left))
    floats = np.ones(max(1 << 11, footprint // 4), np.float32)
    flags = np.ones(max(1 << 13, footprint), np.bool_)
    readers: list[Callable[[], object]] = [
        lambda: left == right,
        lambda: floats.max(),
        lambda: np.count_nonzero(flags),
    ]
    repeats = max(1, int(5e6 / footprint))

    def several(reader: Callable[[], object]) -> Callable[[], object]:
        return lambda: [reader() for _ in range(repeats)]

    each = {str(number): several(reader) for number, reader in enumerate(readers)}
    times = together(each, rounds=50, seconds=seconds)
    return readers[int(min(times, key=lambda name: min(times[name])))]


# A process that was started by a large one counts that one's memory as its own peak (Linux hands it on across exec), so
# a small one stands between.
_LAUNCHER = """
import json, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[2:])
seconds, peak = time.perf_counter() - start, 0
try:
    import resource
except ImportError:  # Windows
    pass
else:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
with open(sys.argv[1], "w") as file:
    json.dump([seconds, peak, status], file)
"""


def peak_memory(arguments: list[str]) -> tuple[float, int, bytes]:
    """Run recur with `arguments` as a process of its own: seconds, peak bytes of memory (0: unknown), what it printed.

    Errors: RecurError when it fails.
    """
    with tempfile.TemporaryDirectory(prefix="recur-bench-") as folder:
        note = Path(folder) / "note.json"
        command = [sys.executable, "-S", "-c", _LAUNCHER, str(note), sys.executable, "-m", "recur", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds, peak, status = json.loads(note.read_text(encoding="utf-8"))
    if status:
        told = " ".join(["recur", *arguments])
        raise RecurError(f"{told}: ended with status {status}; expected 0; run it alone")
    return seconds, peak, done.stdout


def _short(value: float) -> float:
    return float(f"{value:.4g}")
