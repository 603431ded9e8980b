"""Two kinds of fingerprint: of the bytes of a file, and of what a picture looks like.

The perceptual hash is the difference hash of Krawetz (2013), along rows and along columns, 128 bits: each says whether
a cell of a 9 x 9 miniature is darker than its neighbour. It hardly changes when a picture is resized or compressed
again.

Pictures within `BOUND` bits of each other are found without comparing all of them (multi-index hashing, Norouzi,
Punjani and Fleet 2012): the hash is cut into more bands than bits may differ, so at least one band must be equal.
"""

from __future__ import annotations

import hashlib
import sqlite3
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS: Final = 128
# Of 2,500 photographs two were within 15 bits, and they were the same one; a copy of half the size was within 5 in 98
# of 100 cases. With six bands a picture is compared with about two others in a library of 100,000; with eight, which
# would allow 7 bits, with forty.
BANDS: Final = 6
BOUND: Final = BANDS - 1  # bits that may differ between near-duplicates
LATEST: Final = 4096  # pictures that are put into the table together
PLAIN: Final = 3.0  # grey levels: less contrast than this between the cells, and the hash would be that of noise
_SIDE: Final = 8
# Neighbouring bits tend to be equal, and a band of neighbours would be the same in many pictures: a band takes every
# 41st bit instead, which of all strides gave the fewest needless comparisons.
_ORDER: Final = np.arange(BITS) * 41 % BITS
_EDGES: Final = (0, 22, 44, 65, 86, 107, BITS)  # where the bands begin and end


def content_hash(content: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(content).digest()


def looks(pixels: NDArray[np.uint8]) -> bytes | None:
    """The perceptual hash of RGB pixels [Y, X, 3], 16 bytes; None for a picture that is all but one colour."""
    # Floating point, or equal neighbours after rounding would make bits of the hash depend on the size of the picture.
    grey = Image.fromarray(pixels).convert("L").convert("F")
    cells = np.asarray(grey.resize((_SIDE + 1, _SIDE + 1), Image.Resampling.BOX))
    if cells.std() < PLAIN:
        return None
    corner = cells[:_SIDE, :_SIDE]
    bits = np.stack([corner < cells[:_SIDE, 1:], corner < cells[1:, :_SIDE]])
    return np.packbits(bits.reshape(BITS)[_ORDER]).tobytes()


def distance(one: bytes, other: bytes) -> int:
    """Bits that differ."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def bands(value: bytes) -> list[int]:
    """One key a band: its number in the upper bits, its part of the hash in the lower ones."""
    whole = int.from_bytes(value, "big")
    return [
        number << 22 | (whole >> (BITS - end)) & ((1 << (end - start)) - 1)
        for number, (start, end) in enumerate(pairwise(_EDGES))
    ]


def forget(db: sqlite3.Connection, picture: int, value: bytes) -> None:
    """Let nobody find this picture any longer."""
    db.executemany("DELETE FROM bands WHERE key = ? AND picture = ?", [(key, picture) for key in bands(value)])


class Likeness:
    """The pictures with words of their own, by what they look like.

    The bands of a picture fall all over their table. Those of the latest pictures are therefore kept in memory and
    put into it together, in the order of the table: a page of it is written once for many pictures, not for each.
    What a scan that was killed had not put there is found by its absence: pictures come and go there in their order.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self._latest: dict[int, bytes] = {}
        self._bands: dict[int, list[int]] = {}
        rows = db.execute("SELECT id, hash FROM pictures WHERE hash IS NOT NULL AND alike IS NULL ORDER BY id DESC")
        for picture, value in rows:
            if db.execute("SELECT 1 FROM bands WHERE key = ? AND picture = ?", (bands(value)[0], picture)).fetchone():
                break
            self.remember(picture, value)

    def remember(self, picture: int, value: bytes) -> None:
        """Let `nearest` find this picture."""
        self._latest[picture] = value
        for key in bands(value):
            self._bands.setdefault(key, []).append(picture)

    def nearest(self, value: bytes) -> int | None:
        """The remembered picture that is most like it, within `BOUND`; the earliest of several; None without one."""
        keys = bands(value)
        marks = ", ".join("?" * BANDS)
        candidates = self.db.execute(
            f"SELECT id, hash FROM pictures WHERE id IN (SELECT picture FROM bands WHERE key IN ({marks}))", keys
        ).fetchall()
        candidates += [(picture, self._latest[picture]) for key in keys for picture in self._bands.get(key, ())]
        found = min(((distance(value, other), picture) for picture, other in candidates), default=(BITS, -1))
        return found[1] if found[0] <= BOUND else None

    def settle(self, *, least: int = LATEST) -> None:
        """Put the latest into the table, if there are `least` of them; inside a transaction of the caller's."""
        if len(self._latest) >= least:
            rows = sorted((key, picture) for key, pictures in self._bands.items() for picture in pictures)
            self.db.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", rows)
            self._latest.clear()
            self._bands.clear()
