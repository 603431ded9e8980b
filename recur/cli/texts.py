"""The texts a command is pointed at: arguments, a file, or standard input (`-`, or nothing), in that order."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from recur.data.labelled import columns
from recur.data.lines import TABLES, Line, decoded, kind_of, open_lines, rows_of
from recur.errors import InputError, RecurError

JSON_KINDS = (".jsonl", ".ndjson")


class Texts:
    """Iterates lazily over the texts; one that cannot be read is an InputError in its place.

    Raises RecurError when there is nothing to iterate over.
    """

    def __init__(self, arguments: Sequence[str], file: str | None = None, column: str | None = None) -> None:
        if file is None and list(arguments) == ["-"]:
            arguments, file = (), "-"
        self.arguments, self.file, self.column = arguments, file, column
        if column is not None and (arguments or file is None or file == "-"):
            raise RecurError("--column names a column of a table; give the table with --file")
        if arguments and file is not None:
            raise RecurError(f"texts as arguments and --file {file}; expected one of the two; leave one out")
        if not arguments and file is None and sys.stdin.isatty():
            raise RecurError("no text given; write it as an argument, name a file with --file, or pipe it in")
        if file is not None and file != "-":
            open_lines(file).close()
            if column is not None and kind_of(file) not in (*TABLES, *JSON_KINDS):
                raise RecurError(f"{file}: no table; expected .csv, .tsv or .jsonl with --column; leave --column out")

    @property
    def single(self) -> bool:
        """Whether exactly one text was given as an argument."""
        return len(self.arguments) == 1

    def __iter__(self) -> Iterator[Line | InputError]:
        if self.arguments:
            for number, text in enumerate(self.arguments, 1):
                yield _valid(f"text {number}", text)
        elif self.column is not None:
            assert self.file is not None
            yield from self._column(self.file, self.column)
        elif self.file is None or self.file == "-":
            yield from _numbered(decoded(sys.stdin.buffer, "standard input"), "standard input")
        else:
            with open_lines(self.file) as stream:
                yield from _numbered(decoded(stream, self.file), self.file)

    def _column(self, file: str, column: str) -> Iterator[Line | InputError]:
        for number, row in enumerate(rows_of(file, [column]), 1):
            if isinstance(row, InputError):
                yield row
            elif column in row:
                yield Line(f"{file}: row {number}", row[column])
            elif number == 1 and Path(kind_of(file)).name not in JSON_KINDS:
                raise RecurError(f"{file}: no column {column!r}; {columns(row)}; name one of its columns")
            else:
                yield InputError(f"{file}: row {number}", f"no {column!r}", "give it one")


def _numbered(lines: Iterator[str | InputError], name: str) -> Iterator[Line | InputError]:
    for number, line in enumerate(lines, 1):
        yield line if isinstance(line, InputError) else Line(f"{name}: line {number}", line)


def _valid(where: str, text: str) -> Line | InputError:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return InputError(where, "no UTF-8", "convert it")
    return Line(where, text)
