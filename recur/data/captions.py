"""Pictures with captions, from the file formats that caption data comes in.

`read_captions` looks at what is there and says which format it took. One bad picture or line never stops the reading:
it becomes one line in `CaptionData.problems` and is left out. Only when nothing usable is left is `RecurError` raised.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from recur.data.caption_formats import (
    EXPECTED,
    READERS,
    SPLITS,
    Files,
    Report,
    Row,
    Split,
    look_at_file,
    look_in_folder,
)
from recur.errors import RecurError

DEV_SHARE: Final = 0.05  # of the pictures of data that states no split

_HELD_OUT: Final[dict[Split, int]] = {"none": 0, "train": 1, "dev": 2, "test": 3}
_IMAGE_FOLDERS: Final = ("images", "Images", "flickr30k_images", "flickr30k-images", "Flicker8k_Dataset")
_SCRIPTS: Final = {  # first word of a letter's Unicode name -> the language it most likely is
    **dict.fromkeys(("HIRAGANA", "KATAKANA"), "ja"),
    "CJK": "zh",
    "HANGUL": "ko",
    "THAI": "th",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "DEVANAGARI": "hi",
    "GREEK": "el",
    "HEBREW": "he",
}


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One picture that exists, its split, and at least one caption: language -> captions in the order found."""

    path: Path
    split: Split
    captions: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class CaptionData:
    """What was read: pictures in the order found, the name of the format, languages (most captions first), problems.

    Each problem is one line: where, what is wrong, what to do.
    """

    pictures: tuple[CaptionedPicture, ...]
    format: str
    languages: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(slots=True)
class Entry:
    """One picture on its way."""

    path: str
    name: str
    split: Split | None
    captions: dict[str, list[str]] = field(default_factory=dict)


class _Folders:
    """Finds pictures by name. Each folder is listed once, which is far quicker than asking for every file."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [str(root) for root in dict.fromkeys(roots)]
        self.missing: set[str] = set()
        self._listed: dict[str, dict[str, str]] = {}

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = os.listdir(folder or ".")
            except (OSError, ValueError):  # ValueError: a NUL in the name
                names = []
            self._listed[folder] = {_composed(name): name for name in names}
        return self._listed[folder]

    def find(self, names: Sequence[str], folders: Sequence[str]) -> str | None:
        """The first of `names` that exists, in any root, there first in `folders`."""
        for root in self.roots:
            for folder in (*folders, ""):
                for name in names:
                    head, tail = os.path.split(os.path.normpath(os.path.join(root, folder, name)))
                    actual = self._listing(head).get(_composed(tail))
                    if actual is not None:
                        return os.path.join(head, actual)
        return None


class Collector:
    """Gathers rows into pictures and keeps the list of problems."""

    def __init__(self, format_name: str, language: str | None) -> None:
        self.format = format_name
        self.language = language
        self.entries: dict[str, Entry] = {}
        self.problems: list[str] = []
        self.rows = 0

    def problem(self, where: str, what: str, fix: str) -> None:
        self.problems.append(_one_line(f"{where}: {what}; {fix}"))

    def take(self, rows: Iterator[Row], folders: _Folders) -> None:
        """Add all rows of one file. Captions without a language get the one that their script points to."""
        batch = list(rows)
        self.rows += len(batch)
        default = self.language or guess_language([text for row in batch for lang, text in row.captions if not lang])
        for row in batch:
            self._add(row, folders, default)

    def _add(self, row: Row, folders: _Folders, default: str) -> None:
        name = row.names[0]
        if name in folders.missing:
            return
        path = folders.find(row.names, row.folders)
        if path is None:
            folders.missing.add(name)
            where = ", ".join(folders.roots)
            self.problem(row.where, f"picture {name!r} is not in {where}", "put it there or name its folder (--images)")
            return
        try:
            split = _split(row.split)
        except KeyError:
            self.problem(
                row.where,
                f"unknown split {row.split!r} of picture {name!r}",
                "expected train, dev, test or none; picture left out",
            )
            return
        entry = self.entries.get(path)
        if entry is None:
            entry = self.entries[path] = Entry(path, name, split)
        elif split is not None and split != entry.split:
            if entry.split is not None:
                kept = max(split, entry.split, key=_HELD_OUT.__getitem__)
                self.problem(
                    row.where, f"picture {name!r} is in {entry.split} and in {split}", f"kept in {kept}; list it once"
                )
                split = kept
            entry.split = split
        self.add_captions(row, entry, default)

    def add_captions(self, row: Row, entry: Entry, default: str) -> None:
        """Those of a row, each with words in it; of a language that it does not state, `default`."""
        # A whole entry that comes twice must not double its captions; within one entry people do write the same.
        before = {lang: set(texts) for lang, texts in entry.captions.items()} if row.whole else {}
        for lang, text in row.captions:
            if not isinstance(text, str):
                got = type(text).__name__
                self.problem(row.where, f"caption of {entry.name!r} is a {got}", "expected text; caption left out")
            elif not any(char.isalnum() for char in text):
                self.problem(
                    row.where,
                    f"caption of {entry.name!r} is empty ({text!r})",
                    "expected at least one word; caption left out",
                )
            else:
                clean = " ".join(text.split())
                if clean not in before.get(lang or default, ()):
                    entry.captions.setdefault(lang or default, []).append(clean)

    def finish(self, source: Path) -> CaptionData:
        """Pictures that have a caption; raises `RecurError` when there are none."""
        for entry in self.entries.values():
            if not entry.captions:
                self.problem(str(source), f"picture {entry.name!r} has no caption", "give it one; picture left out")
        kept = [entry for entry in self.entries.values() if entry.captions]
        if not kept:
            first = f"; first problem: {self.problems[0]}" if self.problems else ""
            raise RecurError(
                f"{source}: read as {self.format}, {self.rows} entries, none usable; "
                f"expected pictures with captions{first}"
            )
        counts: Counter[str] = Counter()
        for entry in kept:
            for lang, texts in entry.captions.items():
                counts[lang] += len(texts)
        unsplit = [entry for entry in kept if entry.split is None]
        if len(unsplit) == len(kept):
            dev = _dev_share([entry.name for entry in kept])
            for entry in kept:
                entry.split = "dev" if entry.name in dev else "train"
        elif unsplit:
            shown = ", ".join(repr(entry.name) for entry in unsplit[:3]) + (", ..." if len(unsplit) > 3 else "")
            self.problem(
                str(source),
                f"{len(unsplit)} of {len(kept)} pictures state no split, the others do ({shown})",
                "they are not used: give each train, dev, test or none",
            )
        return CaptionData(
            pictures=tuple(
                CaptionedPicture(
                    Path(entry.path),
                    entry.split or "none",
                    {lang: tuple(texts) for lang, texts in entry.captions.items()},
                )
                for entry in kept
            ),
            format=self.format,
            languages=tuple(sorted(counts, key=lambda lang: (-counts[lang], lang))),
            problems=tuple(self.problems),
        )


def read_captions(path: str | Path, *, images: str | Path | None = None, language: str | None = None) -> CaptionData:
    """Pictures and captions in a file or folder; the format is recognised by looking.

    In a folder the first of these is taken, so `annotations.jsonl` wins where there are several:

    * `annotations`: `annotations.jsonl`, one object a line with `file_name`, `captions` and `captions_<lang>` (lists),
      `split`.
    * `metadata`: `metadata.csv` or `metadata.jsonl` (`file_name`, `text`; `split`, `language` if you like; several rows
      a picture are fine), in the folder or in each of `train/`, `validation/`, `test/`. A CSV with the columns
      `image,caption` (`captions.txt`) is read the same way.
    * `karpathy`: `dataset*.json`.
    * `coco`: `captions_*.json`, in the folder or in `annotations/`; the file name says the split. Where both the 2014
      and the 2017 files are there only 2017 is read: they hold the same pictures, split differently.
    * `flickr`: `*.token.txt` or `*.token`, with `*trainImages.txt`, `*devImages.txt`, `*testImages.txt` beside it.

    Pictures are looked for in `images/` or `Images/` beside the file, then beside the file itself, or only in `images`
    when given. `language` is that of captions whose language the data does not state; without it the script decides,
    and Latin script counts as `en`. Splits are train, dev (also val, validation), test and none; data that states no
    split at all is divided by a hash of the file name, 5 % dev and at least one; where only some pictures state one,
    the others are none, and a problem says so. Paths are not opened, only found.

    Raises `RecurError` when the path is missing, the format is unknown, a whole file is broken (with its line), or no
    picture with a caption is left.
    """
    source = Path(path)
    if images is not None and not Path(images).is_dir():
        raise RecurError(f"{images}: no such folder; expected the folder of the pictures; check --images")
    if not source.exists():
        raise RecurError(f"{source}: no such file or folder; {EXPECTED}; check the path")
    given = Path(images) if images is not None else None
    files: Files = [(source, None)]
    try:
        name, files = look_in_folder(source) if source.is_dir() else (look_at_file(source), files)
    except OSError as error:
        raise RecurError(f"{source}: cannot be read ({error.strerror}); check its permissions") from error
    collector = Collector(name, language)
    if name == "coco":
        files = _one_year(files, collector.problem)
    for file, split in files:
        try:
            collector.take(READERS[name](file, split, collector.problem), _Folders(_roots(file, given)))
        except OSError as error:
            raise RecurError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    return collector.finish(source)


def hold_out(data: CaptionData, *, share: float = DEV_SHARE) -> CaptionData:
    """The same data with `share` of the train pictures (at least one) moved to dev, if it has no dev picture yet.

    Which ones is decided by a hash of the file name: the same on every machine, and stable when pictures are added.
    """
    if any(picture.split == "dev" for picture in data.pictures):
        return data
    dev = _dev_share([picture.path.name for picture in data.pictures if picture.split == "train"], share)
    pictures = tuple(
        replace(picture, split="dev") if picture.split == "train" and picture.path.name in dev else picture
        for picture in data.pictures
    )
    return replace(data, pictures=pictures)


def _one_year(files: Files, report: Report) -> Files:
    years = {file: match[0] if (match := re.search(r"20\d\d", file.name)) else "" for file, _ in files}
    newest = max(years.values())
    older = {file for file, year in years.items() if year and year != newest}
    if older:
        report(
            str(files[0][0].parent),
            f"captions of several years; {', '.join(sorted(file.name for file in older))} left out, "
            "they hold the same pictures split differently",
            "give the other file by its name if you want it",
        )
    return [(file, split) for file, split in files if file not in older]


def _roots(file: Path, given: Path | None) -> list[Path]:
    """Folders to look for pictures in, the likeliest first."""
    if given is not None:
        return [given, *(folder for name in _IMAGE_FOLDERS if (folder := given / name).is_dir())]
    beside = file.parent
    inside = [folder for name in _IMAGE_FOLDERS if (folder := beside / name).is_dir()]
    above = [folder for name in _IMAGE_FOLDERS if (folder := beside.parent / name).is_dir()]
    if beside.name == "annotations":
        above.append(beside.parent)
    return [*inside, beside, *above]


def _split(value: object) -> Split | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise KeyError(value)
    return SPLITS[value.strip().lower()]


def _dev_share(names: Sequence[str], share: float = DEV_SHARE) -> set[str]:
    """Names whose hash falls into the first `share`; the lowest one if there would be none. One name alone: none."""
    if len(set(names)) < 2:
        return set()
    hashes = {name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in names}
    marks = {name: int.from_bytes(digest[:8]) / 2**64 for name, digest in hashes.items()}
    return {name for name, mark in marks.items() if mark < share} or {min(marks, key=marks.__getitem__)}


def guess_language(texts: Sequence[object], most: int = 500) -> str:
    """The language that the script of the letters points to; `en` for Latin. Kana anywhere makes it Japanese."""
    counts: Counter[str] = Counter()
    for text in texts[:most]:
        if isinstance(text, str):
            counts.update(_script_language(char) for char in text if char.isalpha())
    if counts["ja"] * 20 > counts["zh"] + counts["ja"]:
        counts["ja"] += counts["zh"]
    return max(sorted(counts), key=counts.__getitem__) if counts.total() else "en"


def _script_language(letter: str) -> str:
    return "en" if letter < "\u0250" else _SCRIPTS.get(unicodedata.name(letter, "").split(" ")[0], "en")


def _composed(name: str) -> str:
    """macOS stores names decomposed; data files mostly hold them composed."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r")
