"""Bundles made wrong on purpose, and packed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def sealed(folder: Path, change: Callable[[dict[str, Any]], object] | None = None, **files: bytes) -> Path:
    """Change a bundle's meta or files and make all hashes right again, as whoever means harm would."""
    meta = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    for name, data in files.items():
        path = folder / {"weights": "weights.safetensors", "tokenizer": "tokenizer.json"}[name]
        path.write_bytes(data)
        meta["files"][path.name] = hashlib.sha256(data).hexdigest()
    if "tokenizer" in files:
        meta["vocabulary_sha256"] = hashlib.sha256(files["tokenizer"]).hexdigest()
    if change is not None:
        change(meta)
    meta.pop("sha256", None)
    compact = json.dumps(meta, sort_keys=True, separators=(",", ":")).encode()
    meta["sha256"] = hashlib.sha256(compact).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder


def packed(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return path
