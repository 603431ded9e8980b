"""What a detector sees in the pictures of a library, and how the index keeps it.

Boxes are fractions of width and height: a picture that shares the words of another shares its objects, and may be of
another size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Seen:
    """One object: its class, a score from 0 to 1, its box (x0, y0, x1, y1) as fractions of the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]

    def to_json(self, width: int, height: int) -> dict[str, Any]:
        """The object in a picture of this size, with its box in pixels, as one plain object."""
        x0, y0, x1, y1 = self.box
        box = [round(x0 * width, 1), round(y0 * height, 1), round(x1 * width, 1), round(y1 * height, 1)]
        return {"label": self.label, "score": round(self.score, 4), "box": box}


def look(detector: Any, pixels: Sequence[NDArray[np.uint8]]) -> list[tuple[Seen, ...]]:
    """The objects in each of the pictures [Y, X, 3], by a predictor that gives `.objects` of (label, score, box)."""
    found = []
    for picture, result in zip(pixels, detector(list(pixels)) if pixels else (), strict=True):
        height, width = picture.shape[:2]
        objects = []
        for each in result.objects:
            x0, y0, x1, y1 = (float(value) for value in each.box)
            box = (x0 / width, y0 / height, x1 / width, y1 / height)
            objects.append(Seen(str(each.label), float(each.score), box))
        found.append(tuple(objects))
    return found


def put_objects(db: sqlite3.Connection, picture: int, objects: Iterable[Seen], model: int) -> None:
    """Store what was seen in a picture, in the place of what had been; also when it is nothing."""
    db.execute("DELETE FROM objects WHERE picture = ?", (picture,))
    db.execute("INSERT OR REPLACE INTO detected (picture, model) VALUES (?, ?)", (picture, model))
    db.executemany(
        "INSERT INTO objects (picture, label, score, x0, y0, x1, y1) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(picture, each.label, each.score, *each.box) for each in objects],
    )


def objects_of(db: sqlite3.Connection, picture: int) -> tuple[Seen, ...]:
    """The objects of a picture, the surest first."""
    rows = db.execute(
        "SELECT label, score, x0, y0, x1, y1 FROM objects WHERE picture = ? ORDER BY score DESC, id", (picture,)
    )
    return tuple(Seen(label, score, (x0, y0, x1, y1)) for label, score, x0, y0, x1, y1 in rows)
