"""Small collections of made-up pictures, and what an index says about them, for the tests of the library."""

from __future__ import annotations

import io
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import recur
from recur.library.index import Index
from recur.library.scan import Outcome, Scan
from recur.library.sources import roots
from recur.predict.caption import Captioner


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A picture like no other: smooth blobs of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, form: str = "JPEG", *, taken: str | None = None, size: tuple[int, int] = (96, 72)) -> bytes:
    """The bytes of such a picture as a file; `taken` as EXIF has it."""
    out, options = io.BytesIO(), dict[str, Any]()
    if taken is not None:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = taken
        exif[0x8769] = {0x9003: taken}
        options["exif"] = exif
    picture(seed, size).save(out, form, **options)
    return out.getvalue()


def make(folder: Path, count: int, first: int = 0) -> list[Path]:
    """So many JPEG files, in folders of ten."""
    paths = []
    for number in range(first, first + count):
        path = folder / f"{number // 10:03d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number))
        paths.append(path)
    return paths


def captioner(bundle: Path) -> Captioner:
    """A captioner with one thread."""
    return recur.load(bundle, threads=1)


def scan(index: Path, model: Captioner, *places: Path, languages: tuple[str, ...] = ("en",), **options: Any) -> Outcome:
    """One whole scan of these places."""
    with Index(index, create=True) as library, library.held("scan"):
        return Scan(library, model, languages=languages, **options).run(roots(map(str, places)))


def logical(index: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What an index says, without times, row numbers and the last digits of what the model computed."""
    db = sqlite3.connect(index)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        sha = "(SELECT hex(min(sha256)) FROM contents WHERE picture = {})"
        return {
            "files": db.execute(
                f"SELECT path, size, mtime_ns, {sha.format('f.picture')}, problem, missing IS NULL "
                "FROM files f ORDER BY path"
            ).fetchall(),
            "pictures": db.execute(
                f"SELECT {sha.format('p.id')}, width, height, taken, hash, {sha.format('p.alike')} "
                "FROM pictures p ORDER BY 1"
            ).fetchall(),
            "captions": db.execute(
                f"SELECT {sha.format('c.picture')}, language, caption, round(confidence, 3), round(log_prob, 2), "
                "m.sha256 FROM captions c JOIN models m ON m.id = c.model ORDER BY 1, 2"
            ).fetchall(),
            "bands": db.execute(f"SELECT key, {sha.format('b.picture')} FROM bands b ORDER BY 1, 2").fetchall(),
        }
    finally:
        db.close()


def counts(outcome: Outcome) -> dict[str, int]:
    """The counts that are not zero."""
    return {kind: count for kind, count in outcome.counts.items() if count}


def environment() -> dict[str, str]:
    """Of a process that runs this working tree."""
    return {**os.environ, "PYTHONPATH": str(Path(recur.__file__).parent.parent)}
