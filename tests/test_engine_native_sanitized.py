"""The core once more, built with AddressSanitizer and UndefinedBehaviorSanitizer: odd sizes, fuzzed calls, searches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "sanitized"  # kept, so that only what changed is compiled again
SANITIZERS = "address,undefined"


def library(name: str) -> str | None:
    """The full path of a compiler's run-time library, None where it has none."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    return path if os.path.isabs(path) else None


@pytest.fixture(scope="module")
def core() -> Path:
    """The sanitized build of the core."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the run-time libraries are preloaded as on Linux")
    if library("libasan.so") is None or library("libubsan.so") is None:
        pytest.skip("the C++ compiler has no sanitizers")
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("RECUR_CORE", None)
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DRECUR_SANITIZE={SANITIZERS}", "-DCMAKE_BUILD_TYPE=None"]
    import fcntl

    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # another process of the same run of pytest may come for it too
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (configure, ["cmake", "--build", str(BUILD), "--parallel", "2"]):
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = BUILD.glob("_recurrent*.so")
    return built


def run(core: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    preload = [library("libasan.so"), library("libubsan.so"), library("libstdc++.so")]
    environment = {
        **os.environ,
        "RECUR_CORE": str(core),
        "LD_PRELOAD": " ".join(path for path in preload if path),
        # Python itself leaks on purpose; its own allocator would hide what is freed too early.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_no_memory_error_and_no_undefined_behaviour(core: Path) -> None:
    chosen = "odd_sizes or fall_where or anything or cannot_be or nothing or overflow or change_no_token or several"
    chosen += " or share_a_parent"
    files = [f"tests/test_engine_native_{name}.py" for name in ("scan", "decoder", "refused")]
    done = run(core, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *files)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_sanitizers_do_see_an_error(core: Path) -> None:
    """A read beyond an array that the core is told a false length of."""
    code = (
        "import numpy as np\n"
        "from recur.engine import core\n"
        "module = core.loaded()\n"
        "room = np.lib.stride_tricks.as_strided(np.zeros(16, np.float32), (64,))\n"
        "module.apply('plain', 0, room)\n"
    )
    done = run(core, "-c", code)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
