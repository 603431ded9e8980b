"""The file formats of caption data: which one a path is, and one reader for each.

A reader yields a `Row` for every line or entry that says something about a picture, and reports the others as a
problem. What the rows add up to is the business of `recur.data.captions`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from recur.errors import RecurError

Split: TypeAlias = Literal["train", "dev", "test", "none"]
Report: TypeAlias = Callable[[str, str, str], None]  # where, what is wrong, what to do
Files: TypeAlias = list[tuple[Path, str | None]]  # a file and the split that its place states

SPLITS: Final[dict[str, Split]] = {
    "train": "train", "training": "train", "trn": "train", "restval": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "development": "dev",
    "test": "test", "testing": "test", "tst": "test",
    "none": "none", "extra": "none", "unused": "none",
}  # fmt: skip
_NAME_KEYS: Final = ("file_name", "image", "filename")
_TEXT_KEYS: Final = ("text", "caption", "captions")
_TOKEN_LINE: Final = re.compile(r"^(.+)#\d+\s*\t(.*)$")
EXPECTED: Final = (
    "expected annotations.jsonl, metadata.csv, metadata.jsonl, Karpathy's dataset.json, "
    "COCO's annotations/captions_*.json, or Flickr's *.token.txt"
)


@dataclass(slots=True)
class Row:
    """What one line or entry says about one picture. Language None: the data does not say.

    `names` are spellings of its path, `folders` where it may lie below the roots; `whole`: these are all its captions.
    """

    where: str
    names: tuple[str, ...]
    split: object
    captions: list[tuple[str | None, object]]
    folders: tuple[str, ...] = ()
    whole: bool = False


# Which format it is.


def look_in_folder(folder: Path) -> tuple[str, Files]:
    """Format name and its files, each with the split that its place states."""
    names = sorted(os.listdir(folder))
    here = [folder / name for name in names]
    if "annotations.jsonl" in names:
        return "annotations", [(folder / "annotations.jsonl", None)]
    if metadata := _metadata_in(folder):
        return "metadata", [(metadata, None)]
    parts = [(part, _metadata_in(part)) for part in here if part.name.lower() in SPLITS and part.is_dir()]
    inside: Files = [(file, part.name.lower()) for part, file in parts if file]
    if inside:
        return "metadata", inside
    if karpathy := [file for file in here if file.match("dataset*.json")]:
        return "karpathy", [(file, None) for file in karpathy]
    coco = [file for file in (*here, *sorted((folder / "annotations").glob("*"))) if file.match("captions_*.json")]
    if coco:
        return "coco", [(file, None) for file in coco]
    tokens = [file for file in here if file.name.endswith((".token.txt", ".token"))]
    if tokens:
        return "flickr", [(file, None) for file in tokens if ".lemma." not in file.name] or [(tokens[0], None)]
    if "captions.txt" in names:
        return "metadata", [(folder / "captions.txt", None)]
    raise RecurError(f"{folder}: no caption file in this folder; {EXPECTED}; check the path")


def _metadata_in(folder: Path) -> Path | None:
    return next((file for name in ("metadata.csv", "metadata.jsonl") if (file := folder / name).is_file()), None)


def look_at_file(file: Path) -> str:
    """Name of the format, from the suffix and the first bytes. Raises `RecurError` when it is none of them."""
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "metadata"
    if suffix in (".jsonl", ".ndjson"):
        return "annotations" if "annotations" in file.name else "metadata"
    if suffix == ".json":
        content = _load_json(file)
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return "coco"
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            return "karpathy"
        raise RecurError(f"{file}: neither COCO captions nor Karpathy's dataset.json; {EXPECTED}")
    if suffix in (".txt", ".token"):
        with file.open("rb") as stream:
            first = stream.readline(10_000).decode("utf-8-sig", "replace")
        if _TOKEN_LINE.match(first.rstrip("\r\n")):
            return "flickr"
        if any(key in first for key in _NAME_KEYS) and any(key in first for key in _TEXT_KEYS):
            return "metadata"
    raise RecurError(f"{file}: not a caption file that recur knows; {EXPECTED}; check the path")


# One reader a format. Each yields rows; what cannot become a row becomes a problem.


def _read_records(file: Path, split: str | None, report: Report) -> Iterator[Row]:
    """annotations.jsonl and metadata.jsonl: one JSON object a line."""
    for number, line in _lines(file, report):
        where = f"{file}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(where, f"broken JSON ({error})", "expected one JSON object a line; line left out")
            continue
        if not isinstance(record, dict):
            report(where, f"got a JSON {type(record).__name__}", "expected an object; line left out")
            continue
        row = record_row(record, where, split, report)
        if row is not None:
            yield row


def _read_table(file: Path, split: str | None, report: Report) -> Iterator[Row]:
    """metadata.csv: a header with the columns file_name and text."""
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _read_records(file, split, report)
        return
    text = _decode(file)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        if not any(key in columns for key in _NAME_KEYS) or not any(key in columns for key in _TEXT_KEYS):
            raise RecurError(
                f"{file}:1: columns are {', '.join(columns) or 'none'}; expected file_name and text "
                "(split and language if you like); add a first line with the names"
            )
        for cells in reader:
            where = f"{file}:{reader.line_num}"
            if not any(cells):
                continue
            if len(cells) != len(columns):
                report(
                    where,
                    f"{len(cells)} cells, the header has {len(columns)}",
                    'put captions that contain a comma in "quotes"; line left out',
                )
                continue
            row = record_row(dict(zip(columns, cells, strict=True)), where, split, report)
            if row is not None:
                yield row
    except csv.Error as error:
        raise RecurError(f"{file}:{reader.line_num}: broken CSV ({error}); check the quotes there") from error


def record_row(record: Mapping[str, Any], where: str, split: str | None, report: Report) -> Row | None:
    """What a record with `file_name`, captions under any of their names, and perhaps `split` and `language`, says."""
    name = next((record[key] for key in _NAME_KEYS if record.get(key)), None)
    if not isinstance(name, str):
        report(where, f"no file_name, the keys are {', '.join(map(str, record))}", "add it; line left out")
        return None
    language = record.get("language") or None
    captions: list[tuple[str | None, object]] = []
    for key, value in record.items():
        if key in _TEXT_KEYS:
            lang = language if isinstance(language, str) else None
        elif key.startswith("captions_") and len(key) > len("captions_"):
            lang = key.removeprefix("captions_")
        else:
            continue
        captions.extend((lang, text) for text in (value if isinstance(value, list) else [value]))
    stated = record.get("split") or split
    head = name.replace("\\", "/").split("/")[0].lower()
    if not stated and head in SPLITS and head != name.lower():  # train/0001.jpg
        stated = head
    return Row(where, _names(name), stated, captions, whole=len(captions) > 1)


def _read_karpathy(file: Path, split: str | None, report: Report) -> Iterator[Row]:
    content = _load_json(file)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise RecurError(f"{file}: no list 'images'; expected Karpathy's dataset.json; check the file")
    for index, entry in enumerate(entries):
        where = f"{file}: images[{index}]"
        name = entry.get("filename") if isinstance(entry, dict) else None
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(sentences, list):
            report(where, "no filename or no sentences", "expected both; entry left out")
            continue
        texts = [_sentence(sentence) for sentence in sentences]
        folder = entry.get("filepath")
        folders = (folder,) if isinstance(folder, str) else ()
        captions: list[tuple[str | None, object]] = [(None, text) for text in texts]
        yield Row(where, _names(name), entry.get("split") or split, captions, folders, whole=True)


def _sentence(sentence: object) -> object:
    if not isinstance(sentence, dict):
        return sentence
    tokens = sentence.get("tokens")
    return sentence.get("raw") or (" ".join(map(str, tokens)) if isinstance(tokens, list) else None)


def _read_coco(file: Path, split: str | None, report: Report) -> Iterator[Row]:
    content = _load_json(file)
    pictures, annotations = (
        content.get(key) if isinstance(content, dict) else None for key in ("images", "annotations")
    )
    if not isinstance(pictures, list) or not isinstance(annotations, list):
        raise RecurError(f"{file}: no lists 'images' and 'annotations'; expected COCO captions; check the file")
    if match := re.search(r"(train|val|test)", file.stem):
        split = match[1]
    years = re.findall(r"20\d\d", file.stem)
    folders = tuple(f"{split}{year}" for year in years if split)
    texts: dict[object, list[tuple[str | None, object]]] = {}
    rows: list[Row] = []
    for index, entry in enumerate(pictures):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        key = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(key, int | str):
            report(f"{file}: images[{index}]", "no file_name or no id", "expected both; entry left out")
        elif key not in texts:
            texts[key] = []
            rows.append(Row(f"{file}: images[{index}]", _names(name), split, texts[key], folders, whole=True))
    seen: set[object] = set()
    for index, note in enumerate(annotations):
        key = note.get("image_id") if isinstance(note, dict) else None
        if not isinstance(key, int | str) or key not in texts:
            report(f"{file}: annotations[{index}]", f"image_id {key!r} is not among the images", "caption left out")
            continue
        number = note.get("id")
        if isinstance(number, int | str):
            if number in seen:
                continue
            seen.add(number)
        texts[key].append((None, note.get("caption")))
    yield from rows


def _read_flickr(file: Path, split: str | None, report: Report) -> Iterator[Row]:
    lists: dict[str, str] = {}
    for beside in sorted(file.parent.glob("*.txt")):
        if match := re.search(r"(train|dev|val|test)_?images\.txt$", beside.name.lower()):
            for number, line in _lines(beside, report):
                name = line.strip()
                if lists.setdefault(name, match[1]) != match[1]:
                    report(
                        f"{beside}:{number}",
                        f"picture {name!r} is in {lists[name]} and in {match[1]}",
                        f"kept in {lists[name]}; list it once",
                    )
    unused = dict(lists)
    for number, line in _lines(file, report):
        if row := _TOKEN_LINE.match(line):
            name = row[1].strip()
            unused.pop(name, None)
            yield Row(f"{file}:{number}", _names(name), lists.get(name, split), [(None, row[2])])
        else:
            report(
                f"{file}:{number}", f"got {line[:60]!r}", "expected PICTURE#NUMBER, a tab, the caption; line left out"
            )
    for name, listed in unused.items():
        report(str(file), f"picture {name!r} of the {listed} list has no caption", "picture left out")


READERS: Final = {
    "annotations": _read_records,
    "metadata": _read_table,
    "karpathy": _read_karpathy,
    "coco": _read_coco,
    "flickr": _read_flickr,
}


# Small parts.


def _decode(file: Path) -> str:
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecurError(f"{file}:{line}: not UTF-8; expected UTF-8 text; save the file again as UTF-8") from error


def _lines(file: Path, report: Report) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. One that is not UTF-8 becomes a problem."""
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                report(f"{file}:{number}", "not UTF-8", "save the file again as UTF-8; line left out")
                continue
            if line.strip():
                yield number, line


def _load_json(file: Path) -> Any:
    try:
        return json.loads(_decode(file))
    except json.JSONDecodeError as error:
        raise RecurError(
            f"{file}:{error.lineno}: broken JSON ({error.msg}, column {error.colno}); "
            "expected a whole JSON file; get it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecurError(f"{file}: broken JSON ({error}); expected caption data; check the file") from error


def _names(name: str) -> tuple[str, ...]:
    return (name, name.replace("\\", "/")) if "\\" in name else (name,)
