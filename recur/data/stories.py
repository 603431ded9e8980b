"""Stories with questions, in the files of the bAbI tasks (Weston et al. 2015): a line a sentence, numbered from 1 in
each story; a question's line has tabs before its answer and before the numbers of the lines that it follows from.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recur.data.lines import BROKEN
from recur.errors import RecurError

SPLITS: Final = ("train", "valid", "test")
MAX_FILE: Final = 64 << 20  # bytes
_WORD: Final = re.compile(r"\w+(?:[-'’]\w+)*")
_END: Final = re.compile(r"(?<=[.!?。！？])\s*|\n+")
_ARCHIVE: Final = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".tar.bz2")


@dataclass(frozen=True)
class Story:
    """A question about the sentences before it. `support`: places of the sentences that the answer follows from."""

    task: str
    sentences: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a sentence, in small letters."""
    return tuple(_WORD.findall(text.lower()))


def sentences_of(passage: str) -> tuple[str, ...]:
    """The sentences of a passage that have a word: they end with a line, or with . ! ? and their like."""
    return tuple(part.strip() for part in _END.split(passage) if _WORD.search(part))


def is_archive(path: Path) -> bool:
    """Whether the name is that of a tar archive."""
    return path.name.lower().endswith(_ARCHIVE)


def read_stories(path: Path, split: str) -> tuple[list[Story], list[str]]:
    """The questions of a split (or of a single file, whatever its name) and a line for each thing that is wrong.

    `path` is a bAbI file, a folder of them (`qa1_train.txt`, …) or such a folder as a tar archive, plain or compressed.
    Errors: RecurError when nothing can be read, or no question is there.
    """
    found: list[Story] = []
    problems: list[str] = []
    for name, content in _files(path, split):
        where = str(path) if name == path.name else f"{path}: {name}"
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.append(f"{where}: no UTF-8 at byte {error.start}; left out; save it as UTF-8")
            continue
        task = re.sub(rf"_(?:{'|'.join(SPLITS)})$", "", Path(name).stem)
        found += _parse(text, task, where, problems)
    if not found:
        raise RecurError(f"{path}: no question for {split}; expected bAbI files such as qa1_{split}.txt; give others")
    return found, problems


def _files(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    ending = f"_{split}.txt"
    try:
        if path.is_dir():
            for file in sorted(path.glob(f"*{ending}"), key=lambda each: _order(each.name)):
                yield file.name, _limited(file)
        elif is_archive(path):
            with tarfile.open(path) as archive:
                members = [member for member in archive if member.isfile() and member.name.endswith(ending)]
                for member in sorted(members, key=lambda each: _order(each.name)):
                    stream = archive.extractfile(member)
                    if member.size > MAX_FILE or stream is None:
                        raise RecurError(f"{path}: {member.name} has {member.size} bytes; expected fewer; leave it out")
                    yield Path(member.name).name, stream.read()
        else:
            yield path.name, _limited(path)
    except (*BROKEN, tarfile.TarError) as error:
        raise RecurError(f"{path}: broken ({error}); expected an archive of bAbI files; get it again") from error
    except OSError as error:
        raise RecurError(f"{path}: cannot be read ({error.strerror or error}); expected bAbI files") from error


def _order(name: str) -> tuple[int, str]:
    number = re.search(r"qa(\d+)", name)
    return int(number[1]) if number else 0, name


def _limited(file: Path) -> bytes:
    size = file.stat().st_size
    if size > MAX_FILE:
        raise RecurError(f"{file}: {size} bytes; expected {MAX_FILE} at most; split it")
    return file.read_bytes()


def _parse(text: str, task: str, where: str, problems: list[str]) -> Iterator[Story]:
    sentences: list[str] = []
    places: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        mark, _, rest = line.strip().partition(" ")
        if not mark.isdecimal() or not words_of(rest):
            problems.append(f"{where}: line {number}: {line[:40]!r} is no numbered sentence; left out")
            continue
        if mark == "1":
            sentences, places = [], {}
        if "\t" not in rest:
            places[mark] = len(sentences)
            sentences.append(rest.strip())
            continue
        question, answer, *support = (part.strip() for part in rest.split("\t"))
        if not words_of(question) or not answer or not sentences:
            problems.append(f"{where}: line {number}: a question without words, answer or story; left out")
            continue
        marks = support[0].split() if support else []
        yield Story(
            task, tuple(sentences), question, answer.lower(), tuple(places[each] for each in marks if each in places)
        )
