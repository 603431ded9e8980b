"""The core where the system gives it no thread: an exception or fewer threads, and nobody waits for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recur.engine import native

pytestmark = [
    pytest.mark.skipif(not native.where().core, reason=f"no compiled core: {native.where().reason}"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited as on Linux"),
]

PROGRAM = """
import resource
import numpy as np
from native_helpers import language_model, stack_weights
from recur.engine import native

weights = language_model("lstm", 272, 300)
wide = native.Stack(stack_weights("lstm", 300, 300), cell="lstm", threads=6)  # by panels: threads meet at each step
x = np.zeros((40, 9, 300), np.float32)
alone, crew = (native.Decoder(weights, cell="lstm", layers=2, threads=threads) for threads in (1, 6))
rules = {"prompt": [[3]], "end": 1, "max_length": 4}
(expected,) = alone.beam_search(**rules)[0]
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (3 << 19)  # less than the stack of a thread
resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
try:
    wide.scan(x)
except MemoryError:
    print("no memory")
(found,) = crew.beam_search(**rules)[0]
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(found.tokens.tolist() == expected.tokens.tolist(), np.isfinite(wide.scan(x).outputs).all())
"""


def test_threads_that_cannot_be_made() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "no memory\nTrue True\n"
