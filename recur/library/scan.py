"""A scan: the index brought up to what lies on the disk, doing nothing twice.

Three things go on at a time. One thread walks and compares size and time with the index; what is new or changed is
read, hashed and decoded by others; this one writes. It takes `CHUNK` pictures at a time: finds out which are known
contents and which look like known ones, has the captioner describe the rest, and commits all of it at once. Killed at
any moment, a scan has lost at most the chunk it was in, and the next one finds exactly that missing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from recur.data.ahead import Ahead
from recur.data.images import MAX_PIXELS
from recur.data.storage import is_url
from recur.engine.vision import processors
from recur.errors import InputError
from recur.library.chunk import Back, Chunk, Event, Failed, Item, exists
from recur.library.hashes import Likeness
from recur.library.index import Index, now, within
from recur.library.reading import Reading, read_place
from recur.library.records import has_objects, has_words, sweep
from recur.library.sources import Archive, Found, Place, walk
from recur.predict.caption import Captioner

CHUNK: Final = 256  # pictures committed together
CHUNK_SECONDS: Final = 5.0  # or as many as came in this time
AHEAD: Final = 128  # pictures read while others are described; those of a table are in memory with all their bytes


@dataclass
class Outcome:
    """How many files of each kind a scan met (those of `Event`, "alike" and "missing"), and the seconds it took."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Bits:
    """A set of small whole numbers, a bit each: ten million files are a little more than a megabyte."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Put a number in."""
        byte = number >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 4096 - len(self._bits)))
        self._bits[byte] |= 1 << (number & 7)

    def __contains__(self, number: int) -> bool:
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (number & 7) & 1)


class Scan:
    """One scan, to be run once and inside `index.held("scan")`.

    `languages` are written for every picture. Words of another model stay unless `recaption`. `tell` hears of every
    file that was not as before, `walked` from time to time how many were met. `describe` has what there is to do done
    elsewhere (recur.scale.scan), in its order. `detector` is a predictor that sees objects. Errors: RecurError for a
    language that the model does not have; errors of single files are events.
    """

    def __init__(
        self,
        index: Index,
        captioner: Captioner,
        *,
        languages: Sequence[str],
        recaption: bool = False,
        batch: int = 16,
        max_pixels: int = MAX_PIXELS,
        describe: Callable[[Iterator[Found | Back]], Iterator[Item]] | None = None,
        detector: Any = None,
        tell: Callable[[Event], None] = lambda event: None,
        walked: Callable[[int], None] = lambda files: None,
    ) -> None:
        for language in languages:
            captioner.voice(language)  # an unknown one is an error before the work
        self.index, self.captioner, self.languages = index, captioner, tuple(languages)
        self.recaption, self.batch, self.max_pixels, self.tell, self.walked = recaption, batch, max_pixels, tell, walked
        self.describe = describe
        self.model = index.model(captioner.name, str(captioner.bundle.meta["sha256"]))
        self.outcome = Outcome()
        self._met, self._stored = Bits(), Bits()  # files by number: what one thread walked, what the other one wrote
        self._walked = 0
        self._asking = threading.Lock()
        self.detector = detector
        self.eye = None if detector is None else index.model(detector.name, str(detector.bundle.meta["sha256"]))
        # What a picture has, and how much of it is to be there: words in each language, and a look for objects.
        self._count = has_words(len(self.languages), self.model if recaption else None)
        self._whole = len(self.languages)
        if self.eye is not None:
            self._count = f"({self._count} + {has_objects(self.eye if recaption else None)})"
            self._whole += 1

    def run(self, places: Sequence[str] | Iterable[str]) -> Outcome:
        """Do it. `places` are absolute paths: a sequence of folders and files, or a lazy stream of files."""
        begun = time.monotonic()
        tops = list(places) if isinstance(places, Sequence) else []
        scan = self.index.db.execute(
            "INSERT INTO scans (begun, folders) VALUES (?, ?)",
            (now(), json.dumps([os.fsencode(top).decode("utf-8", "replace") for top in tops])),
        ).lastrowid
        self._likeness = Likeness(self.index.db)
        self._reader = self.index.connect()
        whole: set[bytes] = set()
        try:
            source = self._changes(walk(places, self._archive_is_done))
            with self._items(source) as items:
                for chunk in _chunks(items):
                    self._settle(chunk)
                    whole |= {os.fsencode(each.path) for each in chunk if isinstance(each, Archive) and each.whole}
        finally:
            self._reader.close()
        self._mark_missing(tops, whole)
        with self.index.transaction():
            self._likeness.settle(least=1)
            sweep(self.index.db)
            self.outcome.seconds = time.monotonic() - begun
            self.index.db.execute(
                "UPDATE scans SET ended = ?, counts = ? WHERE id = ?", (now(), json.dumps(+self.outcome.counts), scan)
            )
        return self.outcome

    def other_models(self) -> list[tuple[str, int]]:
        """Other models, and how many captions of theirs there are in the languages of this scan."""
        marks = ", ".join("?" * len(self.languages))
        rows = self.index.db.execute(
            "SELECT m.name, count(*) FROM captions c JOIN models m ON m.id = c.model "
            f"WHERE c.model <> ? AND c.language IN ({marks}) GROUP BY m.id ORDER BY m.id",
            (self.model, *self.languages),
        )
        return [(str(name), int(count)) for name, count in rows]

    # ------------------------------------------------------------------------------ other threads: walk, compare, read

    def _ask(self, statement: str, *values: Any) -> Any:
        with self._asking:
            return self._reader.execute(statement, values).fetchone()

    def _archive_is_done(self, path: str, size: int, mtime_ns: int) -> bool:
        key = os.fsencode(path)
        if (
            self._ask("SELECT 1 FROM archives WHERE path = ? AND size = ? AND mtime_ns = ?", key, size, mtime_ns)
            is None
        ):
            return False
        unfinished = (
            "SELECT 1 FROM files f JOIN pictures p ON p.id = f.picture "
            f"WHERE f.archive = ? AND (f.missing IS NOT NULL OR {self._count} < ?) LIMIT 1"
        )
        return self._ask(unfinished, key, *self.languages, self._whole) is None

    def _changes(self, found: Iterator[Found]) -> Iterator[Found | Back]:
        """What there is something to do about; all others are only noted as seen."""
        find = (
            "SELECT f.id, f.size, f.mtime_ns, f.problem IS NULL AND f.picture IS NOT NULL, f.missing IS NOT NULL, "
            f"{self._count} FROM files f LEFT JOIN pictures p ON p.id = f.picture WHERE f.path = ?"
        )
        for item in found:
            if isinstance(item, Archive) and item.known:
                self._pass(item)
            if not isinstance(item, Place):
                yield item
                continue
            self._walked += 1
            row = self._ask(find, *self.languages, os.fsencode(item.path))
            if row is None:
                yield item
                continue
            file, size, mtime_ns, good, missing, words = row
            self._met.add(file)
            if not good or (size, mtime_ns) != (item.size, item.mtime_ns) or words < self._whole:
                yield item
            elif missing:
                yield Back(item.path, file)
            else:
                self.outcome.counts["unchanged"] += 1

    def _pass(self, archive: Archive) -> None:
        """Note the members of an archive that need not be opened."""
        with self._asking:
            for (file,) in self._reader.execute("SELECT id FROM files WHERE archive = ?", (os.fsencode(archive.path),)):
                self._met.add(file)
                self._walked += 1
                self.outcome.counts["unchanged"] += 1

    @contextmanager
    def _items(self, source: Iterator[Found | Back]) -> Iterator[Iterator[Item]]:
        """What was read of the source, by threads of this process or elsewhere."""
        if self.describe is not None:
            yield self.describe(source)
            return
        with Ahead(self._prepare, source, workers=processors(), ahead=AHEAD, name="recur-library") as items:
            yield (item for _, item in items)

    def _prepare(self, item: Found | Back) -> Item:
        if not isinstance(item, Place):
            return item
        read = read_place(item, size=self.captioner.size, max_pixels=self.max_pixels, known=self._has_words)
        return Failed(item, read) if isinstance(read, InputError) else read

    def _has_words(self, sha256: bytes) -> bool:
        known = (
            f"SELECT 1 FROM contents k JOIN pictures p ON p.id = k.picture WHERE {self._count} >= ? AND k.sha256 = ?"
        )
        return self._ask(known, *self.languages, self._whole, sha256) is not None

    # ------------------------------------------------------------------------------------------- this thread: write

    def _settle(self, chunk: list[Item]) -> None:
        """Everything about these, in one transaction; then tell of it."""
        work = Chunk(
            self.index,
            self.captioner,
            self._read,
            self._likeness,
            languages=self.languages,
            model=self.model,
            recaption=self.recaption,
            batch=self.batch,
            detector=self.detector,
            eye=self.eye,
        )
        with self.index.transaction():
            for item in chunk:
                work.take(item)
            work.describe()
            self._likeness.settle()
        for file in work.files:
            self._stored.add(file)
        for event in work.told():
            self.outcome.counts[event.what] += 1
            if event.what in ("new", "changed") and event.alike is not None:
                self.outcome.counts["alike"] += 1
            self.tell(event)
        self.walked(self._walked)

    def _read(self, place: Place) -> Reading | InputError:
        return read_place(place, size=self.captioner.size, max_pixels=self.max_pixels)

    def _mark_missing(self, tops: Sequence[str], whole: set[bytes]) -> None:
        """Files that were not met although their folder was walked, and that are indeed gone. Their words are kept."""
        for top in tops:
            if not (exists(os.fsencode(top)) if is_url(top) else os.path.exists(top)):
                continue  # an unplugged drive says nothing about what is on it
            low, high = within(os.fsencode(top))
            stamp = now()
            gone = [
                (stamp, file)
                for file, path, archive in self.index.db.execute(
                    "SELECT id, path, archive FROM files WHERE path >= ? AND path < ? AND missing IS NULL", (low, high)
                )
                if file not in self._met
                and file not in self._stored
                and (archive in whole or not exists(archive or path))
            ]
            with self.index.transaction():
                self.index.db.executemany("UPDATE files SET missing = ? WHERE id = ?", gone)
            self.outcome.counts["missing"] += len(gone)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    first = 0.0
    for item in items:
        first = first if chunk else time.monotonic()
        chunk.append(item)
        if len(chunk) >= CHUNK or time.monotonic() - first > CHUNK_SECONDS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
