"""An installed recur tries itself out: the compiled core is there, and a photograph gets a caption of words.

Run by the Python that it is installed for: `python scripts/try_wheel.py`. It must not stand beside the source, or
Python would take that instead of what was installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "cl")


def main() -> int:
    """0 when it works; says what it found."""
    where = told("bench", "--where", "--json")["machine"]
    if not where["core"]:
        print(f"no compiled core: {where['core_reason']}")
        return 1
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.linear_gradient("L").resize((500, 375)).convert("RGB").save(photo)
        caption = told("caption", str(photo), "--lang", "en", "--json")["caption"]
    print(f"core: {where['core_instructions']} ({where['core_compiler']})")
    print(f"compilers on PATH: {', '.join(name for name in COMPILERS if shutil.which(name)) or 'none'}")
    print(f"caption: {caption}")
    return 0 if caption and len(caption.split()) > 1 else 1


def told(*arguments: str) -> dict[str, Any]:
    """What a recur command prints as JSON."""
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-m", "recur", *arguments], cwd=elsewhere, stdout=subprocess.PIPE, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main())
