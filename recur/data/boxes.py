"""Pictures with boxes around their objects, in the formats in which such data comes.

COCO's instances JSON, Pascal VOC's folders of XML, YOLO's text files, and annotations.jsonl (one JSON object a line).
Whatever the format, a box is (x0, y0, x1, y1) in pixels of the picture as a person sees it.

What is wrong with a box is reported, and the box is left out; the picture stays, as one that has fewer objects:
a box that is no box (x1 <= x0, y1 <= y0, or not finite), one wholly outside the picture, an unknown class, an id that
has been there before. A box that sticks out is cut at the picture's edge. The same box with the same class twice
counts once. A picture without boxes shows none of the classes. There may be any number of boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.data.box_formats import Problems, RawPicture, look_for_boxes
from recur.data.caption_formats import SPLITS, Split
from recur.errors import RecurError

DEV_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class BoxedPicture:
    """One picture: M boxes float64 [M, 4] in pixels of its `width` and `height`, their classes int64 [M].

    `ignored` [M]: neither learned nor counted against a model (COCO's crowds, VOC's difficult objects).
    """

    path: Path
    split: Split
    width: int
    height: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]

    def shares(self) -> NDArray[np.float64]:
        """The boxes as shares of width and height, [M, 4]."""
        return self.boxes / np.array([self.width, self.height, self.width, self.height], np.float64)


@dataclass(frozen=True)
class BoxData:
    """All pictures of a data set, the names of its classes, and a line for everything that was left out."""

    pictures: tuple[BoxedPicture, ...]
    classes: tuple[str, ...]
    problems: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[BoxedPicture, ...]:
        """The pictures of one split."""
        return tuple(picture for picture in self.pictures if picture.split == name)

    def unseen(self) -> tuple[str, ...]:
        """Classes without a box in the train split: they cannot be learned."""
        seen = {int(label) for picture in self.split("train") for label in picture.labels[~picture.ignored]}
        return tuple(name for label, name in enumerate(self.classes) if label not in seen)


def read_boxes(path: str | Path, *, images: str | Path | None = None) -> BoxData:
    """All pictures and boxes at `path`: a file, or the folder of a data set.

    `images`: where the pictures are, when not where the format has them. Where no picture is in dev, a tenth of those
    in train is, by a hash of the name. RecurError when the format is unknown or a file is broken as a whole.
    """
    source = Path(path)
    if not source.exists():
        raise RecurError(f"{source}: no such file or folder; expected boxes of pictures; check the path")
    if images is not None and not Path(images).is_dir():
        raise RecurError(f"{images}: no such folder; expected the folder of the pictures; check --images")
    problems = Problems()
    try:
        raw, classes = look_for_boxes(source, None if images is None else Path(images), problems)
    except OSError as error:
        raise RecurError(f"{error.filename or source}: cannot be read ({error.strerror}); check it") from error
    numbers = {name: number for number, name in enumerate(classes)}
    seen: set[Path] = set()
    pictures = []
    for each in raw:
        if each.path in seen:
            problems.report(each.where, f"{each.path.name} is there twice", "its first entry counts", "there twice")
            continue
        seen.add(each.path)
        picture = _picture(each, numbers, problems)
        if picture is not None:
            pictures.append(picture)
    if not pictures:
        lines = problems.lines()
        raise RecurError(f"{source}: no picture with boxes that can be used{': ' + lines[0] if lines else ''}")
    return BoxData(_held_out(pictures), tuple(classes), problems.lines())


def _picture(raw: RawPicture, numbers: dict[str, int], problems: Problems) -> BoxedPicture | None:
    width, height = _side(raw.width), _side(raw.height)
    if width is None or height is None:
        problems.report(
            raw.where,
            f"width {raw.width!r} and height {raw.height!r} of a picture; expected whole numbers from 1",
            "mend them; the picture is left out",
            "no size",
        )
        return None
    split = str(raw.split or "train").strip().lower()
    if split not in SPLITS:
        problems.report(
            raw.where, f"split {raw.split!r}; expected train, dev, test or none", "the picture is left out", "split"
        )
        return None
    kept: dict[tuple[float, float, float, float, int], bool] = {}
    for where, name, box, ignored in raw.objects:
        if name not in numbers:
            problems.report(where, f"unknown class {name!r}", "add it to the classes; the box is left out")
            continue
        corners = _corners(box, width, height, where, problems)
        if corners is not None:
            kept.setdefault((*corners, numbers[name]), ignored)
    rows = np.array([key[:4] for key in kept], np.float64).reshape(-1, 4)
    labels = np.array([key[4] for key in kept], np.int64)
    return BoxedPicture(raw.path, SPLITS[split], width, height, rows, labels, np.array([*kept.values()], bool))


def _side(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if np.isfinite(number) and 1 <= number <= 1 << 24 and number == int(number) else None


def _corners(
    box: Sequence[object], width: int, height: int, where: str, problems: Problems
) -> tuple[float, float, float, float] | None:
    """The box cut at the picture's edges; None, and a report, when nothing is left of it."""
    try:
        x0, y0, x1, y1 = (float(value) for value in box)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        problems.report(where, f"box {list(box)}", "expected four numbers; it is left out", "no four numbers")
        return None
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0 or y1 <= y0:
        problems.report(
            where, f"box {[x0, y0, x1, y1]}", "expected x0 < x1 and y0 < y1; it is left out", "boxes that are none"
        )
        return None
    inner = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        problems.report(
            where,
            f"box {[x0, y0, x1, y1]} is outside its picture of {width} x {height}",
            "it is left out",
            "boxes outside their pictures",
        )
        return None
    return inner


def _held_out(pictures: list[BoxedPicture]) -> tuple[BoxedPicture, ...]:
    """The same pictures, a tenth of train moved to dev (by a hash of the name) where nothing is in dev."""
    train = [picture for picture in pictures if picture.split == "train"]
    if len(train) < 2 or any(picture.split == "dev" for picture in pictures):
        return tuple(pictures)
    marks = {
        picture.path: int.from_bytes(hashlib.sha256(picture.path.name.encode("utf-8", "surrogatepass")).digest()[:8])
        for picture in train
    }
    dev = {path for path, mark in marks.items() if mark < DEV_SHARE * 2**64} or {min(marks, key=marks.__getitem__)}
    return tuple(replace(picture, split="dev") if picture.path in dev else picture for picture in pictures)
