"""Text as characters: reading files of any size and kind, and the vocabulary that gives each character a number.

A character is a Unicode code point, in every script alike; nothing is folded or normalised, so a model writes what it
has read. Two rules make files from everywhere the same: a byte order mark is dropped, and `\\r\\n` and lone `\\r`
become `\\n`. Bytes that are no UTF-8 become U+FFFD, and whoever reads the file is told how many there were.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from recur.errors import InputError, RecurError

UNKNOWN: Final = 0  # the id of every character that the vocabulary does not have
REPLACEMENT: Final = "\ufffd"  # what bytes that are no text become
FORMAT_VERSION: Final = 1
MAX_CHARACTERS: Final = 65_536
DEV_SHARE: Final = 0.1
PIECE: Final = 1 << 18  # bytes read at a time
MOST_BROKEN: Final = 0.1  # of the characters of a file; above it is no text

_OPENERS: Final[dict[str, Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_pieces(pieces: Iterable[bytes]) -> Iterator[str]:
    """The text of bytes that come in pieces: UTF-8, or UTF-16 that begins with its byte order mark.

    A character, or a line end, that is cut by the end of a piece is put together again; memory does not grow.
    """
    source = iter(pieces)
    start = b""
    while len(start) < 3:
        piece = next(source, None)
        if piece is None:
            break
        start += piece
    mark, encoding = next((pair for pair in _MARKS if start.startswith(pair[0])), (b"", "utf-8"))
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    held = ""  # a carriage return that may be the first half of a line end
    for piece in chain((start[len(mark) :],), source):
        text = held + decoder.decode(piece)
        held = "\r" if text.endswith("\r") else ""
        if len(text) > len(held):
            yield _line_ends(text[: len(text) - len(held)])
    rest = held + decoder.decode(b"", True)
    if rest:
        yield _line_ends(rest)


def _line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def pieces_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a stream, as soon as there are some."""
    read = getattr(stream, "read1", stream.read)
    while piece := read(PIECE):
        yield piece


def text_pieces(path: str | Path) -> Iterator[str]:
    """The text of a file piece by piece; `.gz`, `.bz2` and `.xz` are unpacked. Errors: InputError."""
    opener = _OPENERS.get(Path(path).suffix.lower(), open)
    try:
        with opener(path, "rb") as stream:
            yield from decode_pieces(pieces_of(stream))
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(path, f"a broken compressed file ({error})", "get it again") from error
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", "expected a text file") from error


def read_text(path: str | Path) -> tuple[str, int]:
    """The whole text of a file, and how many of its characters stand for bytes that are no text.

    Errors: InputError for a file that cannot be read, is empty, or is no text.
    """
    text = "".join(text_pieces(path))
    broken = text.count(REPLACEMENT)
    if not text:
        raise InputError(path, "no text in it", "expected at least one character")
    if broken > MOST_BROKEN * len(text) or text.count("\0") > MOST_BROKEN * len(text):
        raise InputError(path, "no text (most likely a binary file)", "expected UTF-8; convert it first")
    return text, broken


def dev_begins(length: int) -> int:
    """Where the dev split of a text of `length` characters begins: its last tenth is kept apart."""
    return int(length * (1 - DEV_SHARE))


class Characters:
    """Characters and their numbers: 0 is every character that is not there, then the others by code point."""

    def __init__(self, characters: Iterable[str]) -> None:
        """Each of `characters` once. Errors: RecurError for none, for one that is there twice, and for words."""
        self.characters: tuple[str, ...] = tuple(characters)
        if not self.characters or len(self.characters) >= MAX_CHARACTERS:
            raise RecurError(
                f"vocabulary: {len(self.characters)} characters; expected 1 to {MAX_CHARACTERS - 1}; "
                "give more text, or a larger --min-count"
            )
        if any(len(character) != 1 for character in self.characters):
            raise RecurError("vocabulary: an entry is not one character; expected single characters; build it again")
        codes = np.array([ord(character) for character in self.characters])
        if (np.diff(codes) <= 0).any():
            raise RecurError("vocabulary: characters are not in order of their code points, each once; build it again")
        self._codes = codes
        self._known = frozenset(self.characters)

    @classmethod
    def build(cls, text: str, min_count: int = 1) -> Self:
        """The characters that `text` has at least `min_count` times, by code point."""
        counts = Counter(text)
        return cls(sorted(character for character, count in counts.items() if count >= min_count))

    def __len__(self) -> int:
        return len(self.characters) + 1

    def __contains__(self, character: object) -> bool:
        return character in self._known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Characters) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"Characters({len(self)})"

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids [T] of the characters of `text`; UNKNOWN for those that are not there."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.where(self._codes[places] == codes, places + 1, UNKNOWN)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; U+FFFD for UNKNOWN. Errors: RecurError for an id that there is not."""
        table = (REPLACEMENT, *self.characters)
        try:
            numbers = [int(number) for number in ids]
            if numbers and min(numbers) < 0:
                raise IndexError
            return "".join([table[number] for number in numbers])
        except IndexError:
            raise RecurError(f"vocabulary: an id outside 0..{len(self) - 1}; use the model's own one") from None

    def to_bytes(self) -> bytes:
        """The exact content of `tokenizer.json`."""
        meta = {"version": FORMAT_VERSION, "kind": "characters", "characters": "".join(self.characters)}
        return (json.dumps(meta, ensure_ascii=True, separators=(",", ":")) + "\n").encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "tokenizer.json") -> Self:
        """The vocabulary in the bytes of a `tokenizer.json`; `source` names it in messages. Errors: RecurError."""
        again = "take the file from the bundle again, or train again"
        try:
            meta = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RecurError(f"{source}: broken JSON ({error}); {again}") from error
        if (
            not isinstance(meta, dict)
            or meta.get("kind") != "characters"
            or not isinstance(meta.get("characters"), str)
        ):
            raise RecurError(f"{source}: no vocabulary of characters; {again}")
        if meta.get("version") != FORMAT_VERSION:
            raise RecurError(
                f"{source}: version {meta.get('version')!r}; expected {FORMAT_VERSION}; upgrade recur if it is newer"
            )
        try:
            return cls(meta["characters"])
        except RecurError as error:
            raise RecurError(f"{source}: {error}") from error
