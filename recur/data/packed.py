"""The frames of what somebody sent: a video, or pictures packed in a .zip, a .tar or a .tar.gz, in memory.

Packed pictures are frames in the natural order of their names (frame2 before frame10). Nothing is unpacked to a disk,
and what is unpacked in memory is bounded, whatever the archive promises.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Final

from recur.data.frames import Frame, natural, read_video
from recur.data.images import MAX_PIXELS, SUFFIXES, read_square
from recur.errors import InputError

MAX_UNPACKED: Final = 200_000_000  # bytes of all pictures of an archive
MAX_BROKEN: Final = 100  # pictures: each costs time, and no frame comes of it
_BROKEN: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, NotImplementedError)
Entry = tuple[str, Callable[[], IO[bytes]]]


def read_sent(data: bytes, *, size: int, fps: float | None = None, max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """The frames of a video or of packed pictures. `fps`: frames a second of packed pictures, which have no times.

    Errors: InputError, after the frames that could be read.
    """
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _frames(_zipped, data, size, fps, max_pixels)
    elif data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar":
        yield from _frames(_tarred, data, size, fps, max_pixels)
    else:
        yield from read_video(data, size=size, max_pixels=max_pixels)


def _frames(
    entries_of: Callable[[bytes], list[Entry]], data: bytes, size: int, fps: float | None, max_pixels: int
) -> Iterator[Frame]:
    try:
        found = [each for each in entries_of(data) if _is_picture(each[0])]
    except _BROKEN as error:
        raise InputError("archive", f"broken ({str(error)[:100]})", "pack it again") from error
    if not found:
        raise InputError("archive", "holds no frames", "pack pictures")
    problems: list[InputError] = []
    left = MAX_UNPACKED
    for number, (name, opened) in enumerate(sorted(found, key=lambda each: natural(each[0]))):
        if len(problems) > MAX_BROKEN:
            raise InputError("archive", f"more than {MAX_BROKEN} broken pictures", "pack it again")
        try:
            with opened() as stream:
                content = stream.read(left + 1)
        except (*_BROKEN, RuntimeError) as error:  # RuntimeError: it asks for a password
            problems.append(InputError(name, f"broken ({str(error)[:100]})", "pack it again"))
            continue
        left -= len(content)
        if left < 0:
            raise InputError("archive", f"more than {MAX_UNPACKED:,} bytes of pictures", "send fewer, or smaller ones")
        square = read_square(content, size=size, max_pixels=max_pixels)
        if isinstance(square, InputError):
            problems.append(InputError(name, square.what, square.fix))  # it keeps its number; the others go on
            continue
        yield Frame(number, number / fps if fps else None, square.pixels)
    if problems:
        raise problems[0]


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in SUFFIXES


def _zipped(data: bytes) -> list[Entry]:
    archive = zipfile.ZipFile(io.BytesIO(data))

    def opener(entry: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
        return lambda: archive.open(entry)

    return [(entry.filename, opener(entry)) for entry in archive.infolist() if not entry.is_dir()]


def _tarred(data: bytes) -> list[Entry]:
    if data[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            data = stream.read(MAX_UNPACKED + 1)
        if len(data) > MAX_UNPACKED:
            raise InputError("archive", f"more than {MAX_UNPACKED:,} bytes unpacked", "send fewer, or smaller ones")
    archive = tarfile.TarFile(fileobj=io.BytesIO(data))

    def opener(entry: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
        return lambda: archive.extractfile(entry) or io.BytesIO()

    return [(entry.name, opener(entry)) for entry in archive.getmembers() if entry.isfile()]
