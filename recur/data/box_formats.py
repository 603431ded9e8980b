"""The file formats of boxes: which one a path is, and one reader for each.

Readers hand on what the files say, in corners and pixels; whether that makes sense is the business of
`recur.data.boxes`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from PIL import Image

from recur.data.caption_formats import SPLITS
from recur.data.images import SUFFIXES
from recur.errors import RecurError

EXPECTED: Final = (
    "expected COCO's instances_*.json, a Pascal VOC folder (Annotations/*.xml), a YOLO folder (images/ and labels/), "
    "or annotations.jsonl"
)
FOLDERS: Final = ("images", "Images", "JPEGImages", "train2017", "val2017", "train2014", "val2014")
CLASSES: Final = "classes.json"
MAX_XML: Final = 8 << 20  # bytes
SHOWN: Final = 5  # problems of one kind that are shown one by one


@dataclass(slots=True)
class RawPicture:
    """What a file says about one picture. Objects are (where, class name, box, ignored)."""

    where: str
    path: Path
    split: object
    width: object
    height: object
    objects: list[tuple[str, str, Sequence[object], bool]] = field(default_factory=list)


class Problems:
    """Lines for a person; many of one kind become one line that counts them."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._lines: list[tuple[str, str]] = []

    def report(self, where: str, what: str, fix: str, kind: str | None = None) -> None:
        """Remember `where: what; fix`."""
        kind = kind or what
        self._kinds[kind] += 1
        if self._kinds[kind] <= SHOWN:
            self._lines.append((kind, f"{where}: {what}; {fix}"))

    def lines(self) -> tuple[str, ...]:
        """All of them."""
        more = [f"{count - SHOWN} more of this kind: {kind}" for kind, count in self._kinds.items() if count > SHOWN]
        return (*(line for _, line in self._lines), *more)


Found = tuple[list[RawPicture], Sequence[str]]


def look_for_boxes(path: Path, images: Path | None, problems: Problems) -> Found:
    """The pictures at `path` and the names of the classes. RecurError when no format fits."""
    if path.is_dir():
        if (path / "annotations.jsonl").is_file():
            return read_jsonl(path / "annotations.jsonl", images, problems)
        if (path / "Annotations").is_dir() or any(path.glob("*.xml")):
            return read_voc(path, images, problems)
        if (path / "labels").is_dir():
            return read_yolo(path, images, problems)
        found = [*sorted(path.glob("instances_*.json")), *sorted((path / "annotations").glob("instances_*.json"))]
        found = found or sorted(path.glob("*.json"))
        if found:
            return _read_several(found, images, problems)
        raise RecurError(f"{path}: no boxes in this folder; {EXPECTED}; check the path")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return read_jsonl(path, images, problems)
    if path.suffix.lower() == ".json":
        return _read_several([path], images, problems)
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_yolo(path.parent, images, problems)
    raise RecurError(f"{path}: not a file of boxes that recur knows; {EXPECTED}; check the path")


def _roots(file: Path, images: Path | None) -> list[Path]:
    """Folders to look for pictures in, the likeliest first."""
    starts = [images] if images is not None else [file.parent, file.parent.parent]
    return [folder for start in starts for folder in (*(start / name for name in FOLDERS), start) if folder.is_dir()]


def _locate(name: str, roots: Sequence[Path]) -> Path:
    """The picture of that name; where there is none, the first place it might have been: reading it says so."""
    for root in roots:
        if (root / name).is_file():
            return root / name
    return (roots[0] if roots else Path()) / name


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecurError(f"{file}: broken JSON ({error}); get the file again") from error


# ------------------------------------------------------------------------------------------------- annotations.jsonl


def read_jsonl(file: Path, images: Path | None, problems: Problems) -> Found:
    """One object a line: file_name, width, height, split, objects [{label, box [x0, y0, x1, y1]}, …].

    Objects without a label are left out. Classes are those of classes.json beside it, or else all that occur.
    """
    roots = _roots(file, images)
    pictures: list[RawPicture] = []
    labels: dict[str, None] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            problems.report(where, f"broken JSON ({error})", "mend this line; it is left out", "broken lines")
            continue
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            problems.report(where, "no object with a file_name", "mend this line; it is left out", "broken lines")
            continue
        picture = RawPicture(
            where, _locate(row["file_name"], roots), row.get("split"), row.get("width"), row.get("height")
        )
        objects = row.get("objects")
        for each in objects if isinstance(objects, list) else ():
            if not isinstance(each, dict) or not isinstance(each.get("label"), str):
                continue
            box = each.get("box")
            picture.objects.append(
                (where, each["label"], box if isinstance(box, list) else [box], bool(each.get("ignored")))
            )
            labels[each["label"]] = None
        pictures.append(picture)
    names = file.parent / CLASSES
    if names.is_file():
        known = _json(names)
        if not isinstance(known, (dict, list)) or not all(isinstance(name, str) for name in known):
            raise RecurError(f"{names}: expected the names of the classes, an object or a list; mend it")
        return pictures, [*known]
    return pictures, sorted(labels)


# -------------------------------------------------------------------------------------------------------------- COCO


def _read_several(files: Sequence[Path], images: Path | None, problems: Problems) -> Found:
    """COCO's files, one a split: its name is in the file's."""
    pictures: list[RawPicture] = []
    classes: dict[str, None] = {}
    for file in files:
        words = re.split(r"[^a-z]+", file.stem.lower())
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        found, names = read_coco(file, split, images, problems)
        pictures += found
        classes |= dict.fromkeys(names)
    return pictures, [*classes]


def read_coco(file: Path, split: str | None, images: Path | None, problems: Problems) -> Found:
    """Lin et al. 2014: images, annotations with bbox [x, y, width, height] and iscrowd, categories."""
    content = _json(file)
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) for part in parts):
        raise RecurError(f"{file}: no COCO instances (images, annotations and categories); {EXPECTED}")
    entries, annotations, categories = ([row for row in part or () if isinstance(row, dict)] for part in parts)
    names: dict[object, str] = {}
    for row in categories:
        if not isinstance(row.get("name"), str) or not isinstance(row.get("id"), (int, str)):
            raise RecurError(f"{file}: category {row}; expected an id and a name; mend it")
        if row["id"] in names:
            problems.report(
                str(file), f"category id {row['id']!r} twice", "its first name counts", "category ids twice"
            )
            continue
        names[row["id"]] = row["name"]
    roots = _roots(file, images)
    pictures: dict[object, RawPicture] = {}
    for row in entries:
        if not isinstance(row.get("file_name"), str) or not isinstance(row.get("id"), (int, str)):
            problems.report(str(file), f"image {row.get('id')!r} without file_name or id", "it is left out", "no name")
        elif row["id"] in pictures:
            problems.report(str(file), f"image id {row['id']!r} twice", "the first one counts", "image ids twice")
        else:
            pictures[row["id"]] = RawPicture(
                f"{file}: image {row['id']}",
                _locate(row["file_name"], roots),
                row.get("split") or split,
                row.get("width"),
                row.get("height"),
            )
    used: set[object] = set()
    for row in annotations:
        number = row.get("id")
        where = f"{file}: annotation {number}"
        if isinstance(number, (int, str)):
            if number in used:
                problems.report(where, "its id is there twice", "the first one counts", "annotation ids twice")
                continue
            used.add(number)
        image = row.get("image_id")
        if not isinstance(image, (int, str)) or image not in pictures:
            problems.report(where, f"image {image!r} is not in the file", "it is left out", "unknown images")
            continue
        category, box = row.get("category_id"), row.get("bbox")
        name = names.get(category) if isinstance(category, (int, str)) else None
        corners: list[object] = [box]
        if isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box):
            corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        label = f"id {category}" if name is None else name
        pictures[image].objects.append((where, label, corners, bool(row.get("iscrowd"))))
    return [*pictures.values()], [*dict.fromkeys(names.values())]


# -------------------------------------------------------------------------------------------------------- Pascal VOC


def read_voc(folder: Path, images: Path | None, problems: Problems) -> Found:
    """Everingham et al. 2010: one XML a picture; ImageSets/Main says which split. Pixels count from 1 there."""
    below = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    roots = _roots(below / "x", images)
    splits = {
        stem: name
        for name in ("train", "val", "test")
        if (folder / "ImageSets" / "Main" / f"{name}.txt").is_file()
        for stem in (folder / "ImageSets" / "Main" / f"{name}.txt").read_text(encoding="utf-8").split()
    }
    pictures: list[RawPicture] = []
    labels: dict[str, None] = {}
    for file in sorted(below.glob("*.xml")):
        if file.stat().st_size > MAX_XML:
            problems.report(str(file), "too large for the XML of one picture", "it is left out", "broken XML")
            continue
        try:
            root = ElementTree.fromstring(file.read_bytes())
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            problems.report(str(file), f"broken XML ({error})", "mend it; it is left out", "broken XML")
            continue
        name = root.findtext("filename") or f"{file.stem}.jpg"
        split = splits.get(file.stem, "none" if splits else None)
        picture = RawPicture(
            str(file), _locate(name, roots), split, root.findtext("size/width"), root.findtext("size/height")
        )
        for each in root.iter("object"):
            label = (each.findtext("name") or "").strip()
            sides = [each.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
            corners: list[object] = list(sides)
            try:
                x0, y0, x1, y1 = (float(side or "") for side in sides)
                corners = [x0 - 1, y0 - 1, x1, y1]
            except ValueError:
                pass  # handed on as it is: no box, and reported as such
            picture.objects.append((str(file), label, corners, (each.findtext("difficult") or "0").strip() == "1"))
            labels[label] = None
        pictures.append(picture)
    return pictures, sorted(labels)


# -------------------------------------------------------------------------------------------------------------- YOLO


def read_yolo(folder: Path, images: Path | None, problems: Problems) -> Found:
    """images/…/x.jpg and labels/…/x.txt: a line `class x y width height` a box, in shares; x and y are its middle.

    Names of the classes are in data.yaml (names), classes.txt or obj.names; splits are folders (train, val, test).
    """
    classes = _yolo_classes(folder)
    base = images or folder / "images"
    pictures: list[RawPicture] = []
    for path in _pictures_below(base):
        place = path.relative_to(base)
        file = folder / "labels" / place.with_suffix(".txt")
        split = next((part.lower() for part in place.parts[:-1] if part.lower() in SPLITS), None)
        try:
            width, height = _size(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.report(str(path), f"cannot be read ({error})", "it is left out", "pictures that cannot be read")
            continue
        picture = RawPicture(str(file), path, split, width, height)
        if file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    _yolo_line(f"{file}:{number}", line, picture, classes, problems)
        pictures.append(picture)
    if not pictures:
        raise RecurError(f"{base}: no pictures here; a YOLO folder has images/ and labels/; check the path")
    return pictures, classes


def _yolo_line(where: str, line: str, picture: RawPicture, classes: Sequence[str], problems: Problems) -> None:
    try:
        number, x, y, w, h = (float(value) for value in line.split())
        label = classes[int(number)] if 0 <= number < len(classes) and number == int(number) else f"number {number:g}"
    except ValueError:
        problems.report(where, f"{line.strip()[:60]!r}", "expected class x y width height; it is left out", "lines")
        return
    across, down = float(str(picture.width)), float(str(picture.height))
    corners = [(x - w / 2) * across, (y - h / 2) * down, (x + w / 2) * across, (y + h / 2) * down]
    picture.objects.append((where, label, corners, False))


def _yolo_classes(folder: Path) -> list[str]:
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        if (folder / name).is_file():
            return [line.strip() for line in (folder / name).read_text(encoding="utf-8").splitlines() if line.strip()]
    for file in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))):
        found = _yaml_names(file.read_text(encoding="utf-8"))
        if found:
            return found
    raise RecurError(f"{folder}: no names of the classes; expected data.yaml with names, or classes.txt; add one")


def _yaml_names(text: str) -> list[str]:
    """The list after `names:`, on one line, with a dash a line, or with a number a line."""
    match = re.search(r"^names:[ \t]*(.*)$", text, re.M)
    if match is None:
        return []
    inline = match[1].split(" #")[0].strip()
    if inline.startswith("["):
        return [each.strip().strip("'\"") for each in inline.strip("[]").split(",") if each.strip()]
    names = []
    for line in text[match.end() :].lstrip("\n").splitlines():
        entry = re.match(r"^\s*(?:-|\d+:)\s+(.+?)\s*$", line.split(" #")[0])
        if entry is None:
            break
        names.append(entry[1].strip("'\""))
    return names


def _pictures_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(root) / name


def _size(path: Path) -> tuple[int, int]:
    """Width and height as a person sees the picture, from the header alone."""
    with Image.open(path) as picture:
        turned = picture.getexif().get(274, 1) in (5, 6, 7, 8)
        width, height = picture.size
    return (height, width) if turned else (width, height)
