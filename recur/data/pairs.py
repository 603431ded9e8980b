"""Sentences with their translations: two files line by line, a table, or a pair of files with one beginning (Moses)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final

from recur.data.labelled import columns
from recur.data.lines import COMPRESSED, TABLES, kind_of, lines_of, rows_of
from recur.errors import InputError, RecurError

HELD_OUT_IN: Final = 30  # one pair in so many is held out where there are no others to measure on


@dataclass
class Pairs:
    """Sentences `source[i]` and their translations `target[i]`; `problems`: what was left out, one line each."""

    source: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.source)

    def add(self, source: str, target: str) -> None:
        """One more pair."""
        self.source.append(source)
        self.target.append(target)


def read_pairs(paths: Sequence[Path], source: str, target: str) -> Pairs:
    """The pairs of two aligned files, of one table, or of the two files `PATH.en` and `PATH.de` (or `.en.gz` …).

    A table is .csv, .tsv or .jsonl, plain or compressed; its columns are named after the languages, else they are the
    first two. Pairs of which one side is empty are left out.
    Errors: RecurError, also when two files have different numbers of lines.
    """
    if len(paths) == 1 and kind_of(paths[0]) in (*TABLES, ".jsonl", ".ndjson"):
        rows = _table(paths[0], source, target)
    elif len(paths) == 1:
        rows = _aligned(_beside(paths[0], source), _beside(paths[0], target))
    elif len(paths) == 2:
        rows = _aligned(*paths)
    else:
        raise RecurError(f"{len(paths)} files; expected one table, or two files line by line; name those")
    name = " and ".join(map(str, paths))
    found = Pairs()
    for number, item in enumerate(rows, 1):
        if isinstance(item, InputError):
            found.problems.append(str(item))
        elif not item[0].strip() or not item[1].strip():
            found.problems.append(f"{name}: pair {number}: one side is empty; left out")
        else:
            found.add(*item)
    if not found:
        raise RecurError(f"{name}: no pair of sentences; expected some; name other files")
    return found


def _beside(path: Path, lang: str) -> Path:
    """`train.en` or `train.en.gz` of `train`."""
    names = [path.with_name(f"{path.name}.{lang}{ending}") for ending in ("", *COMPRESSED)]
    for name in names:
        if name.is_file():
            return name
    if path.exists():
        raise RecurError(f"{path}: one file; expected a table (.csv, .tsv, .jsonl), or two files; name both")
    raise RecurError(f"{names[0]}: no such file; expected it, plain or compressed; check the name and --from and --to")


def _aligned(first: Path, second: Path) -> Iterator[tuple[str, str] | InputError]:
    counts = [0, 0]
    for number, (left, right) in enumerate(zip_longest(lines_of(first), lines_of(second)), 1):
        if left is None or right is None:
            # To the end, so that the error can say how many there are.
            counts[left is None] += 1
            continue
        counts = [number, number]
        wrong = left if isinstance(left, InputError) else right
        if isinstance(wrong, InputError):
            yield wrong
        else:
            assert isinstance(left, str)
            assert isinstance(right, str)
            yield left, right
    if counts[0] != counts[1]:
        raise RecurError(
            f"{first} has {counts[0]} lines, {second} has {counts[1]}; expected as many, each the translation of the "
            "other; find the line that is missing"
        )


def _table(path: Path, source: str, target: str) -> Iterator[tuple[str, str] | InputError]:
    for number, row in enumerate(rows_of(path, [source, target]), 1):
        if isinstance(row, InputError):
            yield row
            continue
        names = (source, target) if source in row and target in row else ("1", "2")
        if not row.keys() >= set(names):
            if number == 1:
                raise RecurError(f"{path}: no columns {source} and {target}; {columns(row)}; rename them")
            yield InputError(f"{path}: row {number}", f"no {source} or no {target}", "left out")
        else:
            yield row[names[0]], row[names[1]]


def hold_out(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Train and dev: one pair in thirty, chosen by a hash of the source, the same ones in every run."""
    parts = (Pairs(problems=pairs.problems), Pairs())
    for source, target in zip(pairs.source, pairs.target, strict=True):
        digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
        parts[int.from_bytes(digest[:4], "big") % HELD_OUT_IN == 0].add(source, target)
    return parts


def pairs_hash(parts: Sequence[Pairs]) -> str:
    """SHA-256 of all sentences in order."""
    digest = hashlib.sha256()
    for part in parts:
        for source, target in zip(part.source, part.target, strict=True):
            digest.update(f"{source}\0{target}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
