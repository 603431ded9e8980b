"""Texts one a line, or one a row: plain or compressed files of any length, and what is wrong with a line.

A line that is no UTF-8, or too long, is an InputError in its place; the others go on.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from recur.errors import InputError, RecurError

MAX_LINE: Final = 64 << 20  # bytes
COMPRESSED: Final[dict[str, Callable[..., Any]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
TABLES: Final = {".csv": ",", ".tsv": "\t"}
# What goes wrong in a compressed file that is cut off or no such file at all.
BROKEN: Final = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)

Row = dict[str, str]


@dataclass(frozen=True)
class Line:
    """A text and where it is from: `file.txt: line 3`."""

    where: str
    text: str


T = TypeVar("T")


def groups(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """The items, `size` at a time; the last group may be smaller."""
    rest = iter(items)
    while group := tuple(islice(rest, size)):
        yield group


def kind_of(path: str | Path) -> str:
    """The ending that says what is inside: `.csv` of `a.CSV.gz`."""
    name = Path(path)
    if name.suffix.lower() in COMPRESSED:
        name = name.with_suffix("")
    return name.suffix.lower()


def open_lines(path: str | Path) -> BinaryIO:
    """A file to read bytes from, decompressed as its name says. Errors: RecurError when it cannot be opened."""
    file = Path(path)
    try:
        if file.is_dir():
            raise RecurError(f"{file}: a folder; expected a file of texts; name one")
        opener = COMPRESSED.get(file.suffix.lower())
        return cast(BinaryIO, open(file, "rb") if opener is None else opener(file, "rb"))
    except OSError as error:
        raise RecurError(
            f"{file}: cannot be read ({error.strerror or error}); expected a file of texts; check the name"
        ) from error


def decoded(stream: BinaryIO | Iterable[bytes], name: str) -> Iterator[str | InputError]:
    """The lines of a stream without their ends, as they come; `name` stands in the errors."""
    readline = getattr(stream, "readline", None)
    source = iter(stream) if readline is None else _limited(cast(BinaryIO, stream))
    number = 0
    while True:
        try:
            line = next(source, None)
        except (*BROKEN, OSError) as error:
            raise RecurError(f"{name}: broken after line {number} ({error}); get the file again") from error
        if line is None:
            return
        number += 1
        if line is TOO_LONG:
            yield InputError(f"{name}: line {number}", f"longer than {MAX_LINE >> 20} MiB", "cut it into several")
            continue
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        try:
            yield line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            yield InputError(
                f"{name}: line {number}", f"no UTF-8 (byte 0x{line[error.start]:02x} at {error.start})", "convert it"
            )


TOO_LONG: Final = b""


def _limited(stream: BinaryIO) -> Iterator[bytes]:
    """Lines; one that is too long is read over and given as TOO_LONG."""
    while line := stream.readline(MAX_LINE + 2):
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE)
            yield TOO_LONG
        else:
            yield line


def lines_of(path: str | Path) -> Iterator[str | InputError]:
    """The lines of a file, plain or compressed."""
    with open_lines(path) as stream:
        yield from decoded(stream, str(path))


def rows_of(path: str | Path, names: Collection[str]) -> Iterator[Row | InputError]:
    """The rows of a CSV, TSV or JSONL file as texts by column. Without a header the columns are `1`, `2`, …

    The first row of a table is its header when one of its cells is among `names`. Numbers and truth values of JSON are
    given as their text; other things that are no text are left out.
    """
    kind, name = kind_of(path), str(path)
    with open_lines(path) as stream:
        lines = decoded(stream, name)
        if kind in (".jsonl", ".ndjson", ".json"):
            yield from _json_rows(lines, name)
        elif kind in TABLES:
            yield from _table_rows(lines, name, TABLES[kind], names)
        else:
            raise RecurError(f"{path}: of an unknown kind; expected .csv, .tsv or .jsonl, plain or .gz, .xz, .bz2")


def _json_rows(lines: Iterator[str | InputError], name: str) -> Iterator[Row | InputError]:
    for number, line in enumerate(lines, 1):
        if isinstance(line, InputError):
            yield line
        elif line.strip():
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                yield InputError(f"{name}: line {number}", f"no JSON object ({error})", "expected one object a line")
            else:
                yield {key: _text(value) for key, value in found.items() if isinstance(value, (str, int, float))}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table_rows(
    lines: Iterator[str | InputError], name: str, delimiter: str, names: Collection[str]
) -> Iterator[Row | InputError]:
    failed: list[InputError] = []

    def good() -> Iterator[str]:
        for line in lines:
            if isinstance(line, InputError):
                failed.append(line)
            else:
                yield line + "\n"

    csv.field_size_limit(MAX_LINE)
    # A quote opens a cell in CSV; in TSV it is a character like any other.
    if delimiter == "\t":
        reader = csv.reader(good(), delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(good(), delimiter=delimiter)
    header: list[str] | None = None
    try:
        for cells in reader:
            yield from failed
            failed.clear()
            if not cells:
                continue
            if header is None:
                if not set(names).isdisjoint(cells):
                    header = cells
                    continue
                header = [str(place) for place in range(1, len(cells) + 1)]
            if len(cells) != len(header):
                yield InputError(
                    f"{name}: line {reader.line_num}", f"{len(cells)} cells; expected {len(header)}", "mend the row"
                )
            else:
                yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise RecurError(f"{name}: line {reader.line_num}: no table ({error}); mend the file") from error
    yield from failed
