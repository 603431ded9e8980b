"""The way back from a changed file to what it was, without keeping a copy: only the bytes that are not in it any more.

Metadata is a few kilobytes in a file of megabytes: the beginning and the end stay, and mostly one long piece between.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

_HEAD: Final = struct.Struct("<5Q")
_ANCHOR: Final = 64  # bytes that are looked for to find the long piece


def make_patch(old: bytes, new: bytes) -> bytes:
    """What `apply_patch` needs to make `old` of `new`."""
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    middle, other = old[start : len(old) - end], new[start : len(new) - end]
    here = len(middle) // 2
    there = other.find(middle[here : here + _ANCHOR]) if len(middle) >= _ANCHOR else -1
    size = 0
    if there >= 0:
        back = _common(middle[:here][::-1], other[:there][::-1])
        size = back + _common(middle[here:], other[there:])
        here, there = here - back, there - back
    else:
        here = there = 0
    rest = middle[:here] + middle[here + size :]
    return _HEAD.pack(start, end, here, there, size) + zlib.compress(rest, 9)


def apply_patch(new: bytes, patch: bytes) -> bytes:
    """The old content. Only right for the very `new` that the patch was made for: the caller compares hashes."""
    start, end, here, there, size = _HEAD.unpack_from(patch)
    rest = zlib.decompress(patch[_HEAD.size :])
    kept = new[start + there : start + there + size]
    return new[:start] + rest[:here] + kept + rest[here:] + new[len(new) - end :]


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # comparing halves is the work of C; going byte by byte would be that of Python
        half = (low + high + 1) // 2
        if one[low:half] == other[low:half]:
            low = half
        else:
            high = half - 1
    return low
