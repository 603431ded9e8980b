"""Pictures with labels: a folder for each class, or the classes that have a box in a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.data.boxes import read_boxes
from recur.data.caption_formats import SPLITS, Split
from recur.data.images import SUFFIXES
from recur.errors import RecurError

DEV_SHARE: Final = 0.1
EXPECTED: Final = "expected a folder with a folder of pictures for each class, or pictures with boxes"


@dataclass(frozen=True)
class LabelData:
    """N pictures with their splits, targets float32 [N, classes] as 0 and 1, and whether several may be 1."""

    paths: tuple[Path, ...]
    splits: tuple[Split, ...]
    targets: NDArray[np.float32]
    classes: tuple[str, ...]
    several: bool
    problems: tuple[str, ...] = ()

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of one split."""
        return np.array([row for row, each in enumerate(self.splits) if each == split], np.int64)


def read_labels(path: Path, *, images: Path | None = None) -> LabelData:
    """Labels at `path`. A folder of folders: each is a class, below folders train, val, test where there are such;
    otherwise a tenth of each class, by a hash of the name, is dev. Anything else is read as boxes: a label applies
    where its class has a box, and several may. RecurError when there are fewer than two classes.
    """
    if not path.exists():
        raise RecurError(f"{path}: no such file or folder; {EXPECTED}; check the path")
    if not path.is_dir() or not _is_folder_of_classes(path):
        return _from_boxes(path, images)
    parts = [folder for folder in _folders(path) if folder.name.lower() in SPLITS]
    places: list[tuple[Path, Split | None]] = [(part, SPLITS[part.name.lower()]) for part in parts]
    places = places or [(path, None)]
    classes = sorted({folder.name for place, _ in places for folder in _folders(place)})
    if len(classes) < 2:
        raise RecurError(f"{path}: {len(classes)} folders of classes; expected two or more; {EXPECTED}")
    paths: list[Path] = []
    splits: list[Split] = []
    labels: list[int] = []
    problems = []
    for label, name in enumerate(classes):
        count = 0
        for place, split in places:
            found = _pictures(place / name)
            count += len(found)
            paths += found
            labels += [label] * len(found)
            splits += [split] * len(found) if split is not None else _split(found)
        if not count:
            problems.append(f"{path / name}: no picture in this folder; the class cannot be learned")
    if not any(split == "dev" for split in splits):  # splits were stated, but none of them is dev
        train = [row for row, split in enumerate(splits) if split == "train"]
        for row, split in zip(train, _split([paths[row] for row in train]), strict=True):
            splits[row] = split
    targets = np.zeros((len(paths), len(classes)), np.float32)
    targets[np.arange(len(paths)), labels] = 1
    return LabelData(tuple(paths), tuple(splits), targets, tuple(classes), False, tuple(problems))


def _from_boxes(path: Path, images: Path | None) -> LabelData:
    data = read_boxes(path, images=images)
    targets = np.zeros((len(data.pictures), len(data.classes)), np.float32)
    for row, picture in enumerate(data.pictures):
        targets[row, picture.labels[~picture.ignored]] = 1
    problems = data.problems + tuple(f"{name}: no picture to learn from in train" for name in data.unseen())
    return LabelData(
        tuple(picture.path for picture in data.pictures),
        tuple(picture.split for picture in data.pictures),
        targets,
        data.classes,
        True,
        problems,
    )


def _is_folder_of_classes(path: Path) -> bool:
    known = ("annotations.jsonl", "annotations", "Annotations", "labels")
    if any((path / name).exists() for name in known) or any(path.glob("*.json")) or any(path.glob("*.xml")):
        return False
    return any(_pictures(folder) or _folders(folder) for folder in _folders(path))


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file for file in folder.iterdir() if file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")
    )


def _split(paths: Sequence[Path]) -> list[Split]:
    marks = [
        int.from_bytes(hashlib.sha256(path.name.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
        for path in paths
    ]
    chosen = {row for row, mark in enumerate(marks) if mark < DEV_SHARE}
    if not chosen and len(paths) > 1:
        chosen = {int(np.argmin(marks))}
    return ["dev" if row in chosen else "train" for row in range(len(paths))]
