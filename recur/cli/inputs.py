"""The pictures a command is pointed at: files, folders, globs, and lists of them in files or on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from recur.data.images import find_pictures
from recur.errors import RecurError


class Listing:
    """Iterates lazily over the paths of all pictures.

    A list holds one path a line and may be of any length: it is read as its pictures are needed. `-` among the
    arguments, or as the name of the list, is standard input. What does not exist is handed on: reading it says so.
    Raises RecurError when there is nothing to iterate over.
    """

    def __init__(self, arguments: Sequence[str], list_file: str | None = None) -> None:
        if not arguments and list_file is None:
            raise RecurError("no pictures given; name files, folders or globs, or a list of them with --list FILE")
        self.arguments = (*arguments, *(("-",) if list_file == "-" else ()))
        self.list_file = None if list_file == "-" else list_file
        if self.list_file is not None and not os.access(self.list_file, os.R_OK):
            raise RecurError(f"{self.list_file}: cannot be read; expected a file with one path a line; check --list")

    def __iter__(self) -> Iterator[str]:
        return find_pictures(self._names())

    def _names(self) -> Iterator[str]:
        for argument in self.arguments:
            if argument == "-":
                yield from _lines(sys.stdin.buffer)
            else:
                yield argument
        if self.list_file is not None:
            with open(self.list_file, "rb") as stream:
                yield from _lines(stream)

    def count(self) -> int | None:
        """How many pictures there are; None where counting would take the names away: of standard input, of a pipe."""
        if "-" in self.arguments or (self.list_file is not None and not os.path.isfile(self.list_file)):
            return None
        return sum(1 for _ in Listing(self.arguments, self.list_file))

    @property
    def single(self) -> bool:
        """Whether exactly one picture is named outright."""
        return self.list_file is None and len(self.arguments) == 1 and os.path.isfile(self.arguments[0])


def names_in(list_file: str) -> Iterator[str]:
    """The names in a list, one a line, as they are needed; `-` is standard input. Raises RecurError at once."""
    if list_file == "-":
        return _lines(sys.stdin.buffer)
    if not os.access(list_file, os.R_OK):
        raise RecurError(f"{list_file}: cannot be read; expected a file with one path a line; check --list")
    return _lines_of(list_file)


def _lines_of(list_file: str) -> Iterator[str]:
    with open(list_file, "rb") as stream:
        yield from _lines(stream)


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    for line in stream:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if name:
            yield name
