"""The NEON kernels against the plain ones: built for aarch64 by zig's compiler, run by qemu's emulator of it.

Both have to be there (`make arm-check`); elsewhere this is skipped.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "recur" / "engine" / "_core"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")

pytestmark = pytest.mark.skipif(
    EMULATOR is None or importlib.util.find_spec("ziglang") is None, reason="needs zig and qemu: run `make arm-check`"
)


def test_neon_computes_what_plain_does(tmp_path: Path) -> None:
    sources = [CORE / "cpu.cpp", CORE / "kernels_neon.cpp", CORE / "kernels_plain.cpp"]
    program = tmp_path / "check"
    compiler = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl", "-static"]
    flags = ["-std=c++20", "-O1", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-DRECUR_ARM64", f"-I{CORE}"]
    check = ROOT / "tests" / "arm" / "kernels_check.cpp"
    built = subprocess.run(
        [*compiler, *flags, *map(str, sources), str(check), "-o", str(program)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(EMULATOR), str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "neon: as plain\n"), done.stdout + done.stderr
