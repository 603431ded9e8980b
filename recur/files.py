"""Writing files so that a reader never sees half of one, and telling whether files are the ones they were."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TAIL = 4096  # bytes at the end of a file: a picture that was changed and is as long as before ends otherwise


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace `path` with `content` (text as UTF-8) in one step: a crash leaves the old file or the new one."""
    with writing(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 of the names, lengths and last bytes of files, in order: what was computed from them may be used again.

    Folders and times do not count, so that copies of a collection are the collection. Missing files count as empty.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - TAIL))
                end = file.read()
        except OSError:  # reading it will say what is wrong
            length, end = -1, b""
        digest.update(f"{path.name}\0{length}\0".encode("utf-8", "surrogateescape") + end)
    return digest.hexdigest()


@contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """A stream for content of any length that becomes the file at `path` when the block ends well, and else nothing."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def replace_folder(draft: str | Path, path: str | Path) -> None:
    """Put the folder `draft`, on the same disk, in the place of the folder at `path`, which may be missing.

    Python cannot replace a full folder in one step, so the old one steps aside first. A kill in that moment leaves it
    where `stepped_aside` finds it; the next call puts it back before it begins. Errors: OSError; then the old one is
    in its place.
    """
    target, aside = Path(path), _aside(path)
    if aside.exists():
        if target.exists():
            shutil.rmtree(aside)  # killed when the new one was in its place already
        else:
            os.replace(aside, target)
    try:
        if target.exists():
            os.replace(target, aside)
        os.replace(draft, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def stepped_aside(path: str | Path) -> Path | None:
    """Where the old folder of `path` is, if `replace_folder` was killed between its two steps; else mostly None."""
    aside = _aside(path)
    return aside if aside.is_dir() else None


def _aside(path: str | Path) -> Path:
    target = Path(path)
    return target.parent / f".{target.name}.recur-old"
