"""One picture from its place: its bytes, its fingerprints, its date, and the pixels that the model reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.data import storage
from recur.data.images import MAX_PIXELS, read_picture, to_square
from recur.errors import InputError
from recur.library.exif import taken
from recur.library.hashes import content_hash, looks
from recur.library.objects import Seen
from recur.library.sources import Place

MAX_BYTES: Final = 1 << 30  # of one file: more is no photograph, and would not fit beside the others in memory


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """`place` with the size and time of what was read. Without `pixels` [size, size, 3]: a content that is known.

    `words` are (language, caption, confidence, log-probability) where whoever read it has described it, too, and
    `objects` what a detector has seen in it there.
    """

    place: Place
    sha256: bytes
    taken: str | None = None
    pixels: NDArray[np.uint8] | None = None
    hash: bytes | None = None
    width: int = 0
    height: int = 0
    words: tuple[tuple[str, str, float | None, float], ...] | None = None
    objects: tuple[Seen, ...] | None = None


def add_readers() -> None:
    """Let HEIC be read where its reader is installed. It stays for the whole process, as Pillow's readers do."""
    with suppress(ModuleNotFoundError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def read_place(
    place: Place,
    *,
    size: int,
    max_pixels: int = MAX_PIXELS,
    known: Callable[[bytes], bool] = lambda sha256: False,
) -> Reading | InputError:
    """Read, and decode unless its content is `known`. A file that changes meanwhile is read once more, then refused."""
    try:
        for last in (False, True):
            content, status = read_bytes(place)
            if status is not None or last:
                break
        if status is None:
            return InputError(place.path, "changes while it is read", "scan again when it is finished")
        sha256 = content_hash(content)
        settled = Place(place.path, *status, place.archive, place.member)
        if known(sha256):
            return Reading(settled, sha256)
        picture = read_picture(content, target=size, max_pixels=max_pixels)
    except storage.Unanswered as error:
        return error
    except InputError as error:
        return InputError(place.path, error.what, error.fix)  # a picture from memory does not know its name
    pixels = to_square(picture, size)
    return Reading(settled, sha256, taken(content), pixels, looks(pixels), picture.width, picture.height)


def read_bytes(place: Place) -> tuple[bytes, tuple[int, int] | None]:
    """The bytes of a picture, with the size and time they have; None for these when they changed while being read.

    Raises InputError when there is nothing to read.
    """
    if place.size > MAX_BYTES:
        raise InputError(place.path, f"{place.size:,} bytes, expected at most {MAX_BYTES:,}", "make it smaller")
    if place.content is not None:
        return place.content, (place.size, place.mtime_ns)
    if place.archive is not None and not place.archive.lower().endswith(".tar"):
        return _row(place), (place.size, place.mtime_ns)
    if storage.is_url(place.path):
        return _stored(place), (place.size, place.mtime_ns)
    try:
        with open(place.archive or place.path, "rb") as file:
            before = os.fstat(file.fileno())
            if place.archive is None:
                content = file.read(MAX_BYTES)
                size = before.st_size
            else:
                file.seek(place.member or 0)
                content = file.read(place.size)
                size = place.size
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise InputError(place.path, "vanished before it was read", "scan again if it is back") from None
    except PermissionError:
        raise InputError(place.path, "no permission to read it", "change its permissions (chmod +r)") from None
    except OSError as error:
        raise InputError(place.path, f"cannot be read ({error.strerror})", "check the disk") from None
    if place.archive is not None:
        if before.st_mtime_ns != place.mtime_ns or len(content) != size:
            raise InputError(place.path, "its archive was changed or cut off", "scan again, or copy it again")
        return content, (size, place.mtime_ns)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and len(content) == size
    return content, (size, before.st_mtime_ns) if same else None


def _stored(place: Place) -> bytes:
    """The bytes of a picture in a store. Its size and time are those of the listing; a change is met by the next."""
    try:
        if place.archive is None:
            return storage.read(place.path)
        start = place.member or 0
        content = storage.read(place.archive, start, start + place.size)
    except storage.StorageError as error:
        raise storage.Unanswered(place.path, f"cannot be read ({error})", "try again") from None
    if len(content) != place.size:
        raise InputError(place.path, "its archive was changed or cut off", "scan again, or copy it again")
    return content


def _row(place: Place) -> bytes:
    """The bytes of one row of a Parquet table."""
    from recur.library.sources import walk

    for each in walk([place.archive or ""]):
        if isinstance(each, Place) and each.member == place.member and each.content is not None:
            return each.content
    raise InputError(place.path, "no longer in its table", "scan again")
