"""Texts with a label each: CSV, TSV, JSONL, or a folder for each label with a file for each text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recur.data.lines import COMPRESSED, decoded, open_lines, rows_of
from recur.errors import InputError, RecurError

TEXT_COLUMNS: Final = ("text", "sentence", "review", "content", "comment", "1")
LABEL_COLUMNS: Final = ("label", "sentiment", "polarity", "class", "2")
GOOD: Final = frozenset({"pos", "positive", "1", "true", "good", "正面", "positivo"})
BAD: Final = frozenset({"neg", "negative", "0", "false", "bad", "负面", "negativo"})
DEV_NAMES: Final = ("dev", "valid", "val")
HELD_OUT_IN: Final = 10  # one text in so many is held out where there is no dev split


@dataclass
class Labelled:
    """Texts and the label of each; `problems` are what was left out, one line each."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, other: Labelled) -> None:
        """Append what `other` has."""
        self.texts += other.texts
        self.labels += other.labels
        self.problems += other.problems


def read_labelled(path: Path, *, column: str | None = None, label_column: str | None = None) -> Labelled:
    """All texts of one file, or of a folder with a folder for each label.

    The columns are found by name when they are not given. `pos`, `positive`, `1` … become `pos`, their opposites
    `neg`; other labels stay. Empty texts are left out. Errors: RecurError when there is nothing to read.
    """
    found = Labelled()
    for item in _folder(path) if path.is_dir() else _rows(path, column, label_column):
        if isinstance(item, InputError):
            found.problems.append(str(item))
        else:
            found.texts.append(item[0])
            found.labels.append(plain_label(item[1]))
    if not found.texts:
        reason = f" ({found.problems[0]})" if found.problems else ""
        raise RecurError(f"{path}: no text with a label{reason}; expected a table or a folder for each label")
    return found


def plain_label(label: str) -> str:
    """`pos` and `neg` under their many names; others as they are."""
    label = label.strip()
    return "pos" if label.lower() in GOOD else "neg" if label.lower() in BAD else label


def _rows(path: Path, column: str | None, label_column: str | None) -> Iterator[tuple[str, str] | InputError]:
    number = 0
    names = {*TEXT_COLUMNS, *LABEL_COLUMNS, column, label_column} - {"1", "2", None}
    for row in rows_of(path, [name for name in names if name is not None]):
        if isinstance(row, InputError):
            yield row
            continue
        number += 1
        if number == 1:
            column = choose_column(path, row, column, TEXT_COLUMNS, "--column")
            label_column = choose_column(path, row, label_column, LABEL_COLUMNS, "--label-column")
        assert column is not None
        assert label_column is not None
        if not row.get(column, "").strip() or not row.get(label_column, "").strip():
            empty = column if not row.get(column, "").strip() else label_column
            yield InputError(f"{path}: row {number}", f"no {empty!r}", "left out")
        else:
            yield row[column], row[label_column]


def choose_column(path: Path, row: dict[str, str], wanted: str | None, usual: Sequence[str], option: str) -> str:
    """The column of a table to read. Errors: RecurError, naming those there are."""
    names = [name for name in (usual if wanted is None else (wanted,)) if name in row]
    if not names:
        missing = "none of the usual columns" if wanted is None else f"no column {wanted!r}"
        raise RecurError(f"{path}: {missing}; {columns(row)}; name one with {option}")
    return names[0]


def columns(row: dict[str, str]) -> str:
    """What a table has, for an error: the names of its columns, or its first line when it has none."""
    named = not all(name.isdigit() for name in row)
    return (
        f"it has {', '.join(row)}" if named else f"it has no names; its first line is {', '.join(row.values())[:80]!r}"
    )


def _folder(path: Path) -> Iterator[tuple[str, str] | InputError]:
    for folder in sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")):
        for file in sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")):
            with open_lines(file) as stream:
                lines = list(decoded(stream, str(file)))
            wrong = [line for line in lines if isinstance(line, InputError)]
            text = "\n".join(line for line in lines if isinstance(line, str))
            if wrong:
                yield wrong[0]
            elif not text.strip():
                yield InputError(file, "empty", "left out")
            else:
                yield text, folder.name


def read_splits(path: Path, *, column: str | None = None, label_column: str | None = None) -> tuple[Labelled, Labelled]:
    """The train and the dev texts of `path`.

    A file `train.*` with a `dev.*`, `valid.*` or `val.*` beside it, or a folder with such folders in it, says itself
    what is held out; else one text in ten is, chosen by a hash of its words, so that it is the same in every run.
    """
    options = {"column": column, "label_column": label_column}
    if path.is_dir() and (path / "train").is_dir():
        held = [path / name for name in DEV_NAMES if (path / name).is_dir()]
        train = read_labelled(path / "train")
        return (train, read_labelled(held[0])) if held else hold_out(train)
    stem, ending = _stem(path)
    beside = [path.with_name(name + ending) for name in DEV_NAMES] if stem == "train" and path.is_file() else []
    held = [file for file in beside if file.is_file()]
    found = read_labelled(path, **options)
    return (found, read_labelled(held[0], **options)) if held else hold_out(found)


def _stem(path: Path) -> tuple[str, str]:
    """`train`, `.tsv.gz`"""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.stem, path.name[len(inner.stem) :]


def hold_out(found: Labelled) -> tuple[Labelled, Labelled]:
    """Train and dev: one text in ten, the same ones in every run."""
    parts = (Labelled(problems=found.problems), Labelled())
    for text, label in zip(found.texts, found.labels, strict=True):
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        part = parts[int.from_bytes(digest[:4], "big") % HELD_OUT_IN == 0]
        part.texts.append(text)
        part.labels.append(label)
    return parts


def data_hash(parts: Sequence[Labelled]) -> str:
    """SHA-256 of all texts and labels in order."""
    digest = hashlib.sha256()
    for part in parts:
        for text, label in zip(part.texts, part.labels, strict=True):
            digest.update(f"{label}\0{text}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
