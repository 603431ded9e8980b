"""When a picture was taken, from its EXIF, without decoding it.

Read by hand, as the orientation is in `recur.data.images`: Pillow's parser warns on broken EXIF, and the settings that
silence it are those of the whole process. Tags and layout: Exif 2.32 (CIPA DC-008), TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
from datetime import datetime
from typing import Final

_START: Final = re.compile(rb"(?:Exif\0\0|eXIf|EXIF.{4})(?=II\*\0|MM\0\*)", re.S)  # JPEG and HEIF; PNG; WebP
_TIFF: Final = (b"II*\0", b"MM\0*")
_EXIF_IFD: Final = 0x8769
_TAKEN, _DIGITIZED, _CHANGED = 0x9003, 0x9004, 0x0132
_MOST_ENTRIES: Final = 512


def taken(content: bytes) -> str | None:
    """The time a picture was taken, as ISO 8601 in the camera's own time; None when the file does not say.

    `content` is the whole file: JPEG, PNG, WebP, TIFF, AVIF or HEIF. Broken EXIF is no EXIF.
    """
    start = 0
    if content[:4] not in _TIFF:
        found = _START.search(content)
        if found is None:
            return None
        start = found.end()
    data = memoryview(content)[start:]
    order = "<" if content[start : start + 1] == b"I" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        tags = _tags(data, order, first)
        if _EXIF_IFD in tags:
            tags |= _tags(data, order, struct.unpack(f"{order}I", tags[_EXIF_IFD][1])[0])
        for tag in (_TAKEN, _DIGITIZED, _CHANGED):
            if tag in tags:
                count, value = tags[tag]
                text = _text(data, order, count, value)
                if text is not None:
                    return text
    except struct.error:
        return None
    return None


def _tags(data: memoryview, order: str, start: int) -> dict[int, tuple[int, bytes]]:
    """Count and value field of the tags that matter here."""
    (count,) = struct.unpack_from(f"{order}H", data, start)
    out = {}
    for at in range(start + 2, start + 2 + 12 * min(count, _MOST_ENTRIES), 12):
        tag, _, length, value = struct.unpack_from(f"{order}HHI4s", data, at)
        if tag in (_EXIF_IFD, _TAKEN, _DIGITIZED, _CHANGED):
            out[tag] = (length, value)
    return out


def _text(data: memoryview, order: str, count: int, value: bytes) -> str | None:
    """`2024:05:01 10:20:30` as `2024-05-01T10:20:30`; None for blanks, zeros and what is no date."""
    if not 19 <= count <= 32:
        return None
    (at,) = struct.unpack(f"{order}I", value)
    try:
        return datetime.strptime(bytes(data[at : at + 19]).decode("ascii"), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None
