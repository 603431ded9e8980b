"""Some pictures of a scan, from what was read of them to what is stored: all in one transaction of the caller's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recur.data import storage
from recur.errors import InputError, RecurError
from recur.library.hashes import Likeness
from recur.library.index import Index
from recur.library.objects import look, objects_of, put_objects
from recur.library.reading import Reading
from recur.library.records import has_objects, put_caption
from recur.library.sources import Archive, Place
from recur.predict.caption import Captioner


@dataclass(frozen=True, slots=True)
class Event:
    """What became of one file: `what` is new, changed, copy, moved, back, words, unchanged or failed.

    `alike` is a place of the picture whose words it shares because it looks like it; `source`, where a moved file was;
    `captions`, (language, caption, confidence); `objects`, (label, score); `error`, the line about a file that failed.
    """

    path: str
    what: str
    alike: str | None = None
    source: str | None = None
    captions: tuple[tuple[str, str, float | None], ...] = ()
    objects: tuple[tuple[str, float], ...] = ()
    error: InputError | None = None

    def to_json(self) -> dict[str, Any]:
        """The event as one plain object, ready for `json.dumps`."""
        return {
            "path": self.path,
            "what": self.what,
            "alike": self.alike,
            "source": self.source,
            "captions": [
                {"language": language, "caption": caption, "confidence": confidence}
                for language, caption, confidence in self.captions
            ],
            "objects": [{"label": label, "score": round(score, 4)} for label, score in self.objects],
        }


@dataclass(frozen=True, slots=True)
class Back:
    """A file that had been missing and is there as it was."""

    path: str
    file: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture that could not be read."""

    place: Place
    error: InputError


Item: TypeAlias = Reading | Failed | Back | Archive | InputError


class Chunk:
    """Takes items one after the other, has those described that need it, and says what became of them.

    `read` reads a place whether or not its content is known, `likeness` tells what looks alike. `model` is the number
    of the captioner's model; with `recaption`, words of other models are replaced. `detector` looks for objects, `eye`
    is the number of its model.
    """

    def __init__(
        self,
        index: Index,
        captioner: Captioner,
        read: Callable[[Place], Reading | InputError],
        likeness: Likeness,
        *,
        languages: tuple[str, ...],
        model: int,
        recaption: bool,
        batch: int,
        detector: Any = None,
        eye: int | None = None,
    ) -> None:
        self.index, self.db, self.captioner, self.read, self.likeness = index, index.db, captioner, read, likeness
        self.languages, self.model, self.recaption, self.batch = languages, model, recaption, batch
        self.detector, self.eye = detector, eye
        self.files: list[int] = []  # that were met, by their numbers
        self._events: list[tuple[Event, int | None]] = []
        self._wanted: dict[int, tuple[tuple[str, ...], NDArray[np.uint8]]] = {}
        self._unseen: dict[int, NDArray[np.uint8]] = {}

    def take(self, item: Item) -> None:
        """Store everything about one item but its words."""
        if isinstance(item, Reading):
            self._reading(item)
        elif isinstance(item, Failed):
            self._failed(item.place, item.error)
        elif isinstance(item, InputError):
            self._tell(Event(item.path, "failed", error=item))
        elif isinstance(item, Back):
            self.db.execute("UPDATE files SET missing = NULL WHERE id = ?", (item.file,))
            self._tell(Event(item.path, "back"))
        elif not item.known:
            self._archive(item)

    def describe(self) -> None:
        """Write the words and objects that are wanted."""
        if self.eye is not None and self._unseen:
            seen = look(self.detector, list(self._unseen.values()))
            for picture, objects in zip(self._unseen, seen, strict=True):
                put_objects(self.db, picture, objects, self.eye)
        kinds: dict[tuple[str, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        for picture, (languages, pixels) in self._wanted.items():
            kinds.setdefault(languages, []).append((picture, pixels))
        for languages, group in kinds.items():
            results = self.captioner.stream_languages(
                (pixels for _, pixels in group), languages, batch=self.batch, words=False
            )
            for (picture, _), captions in zip(group, results, strict=True):
                if isinstance(captions, InputError):
                    raise captions
                for each in captions:
                    put_caption(
                        self.db, picture, each.language, each.caption or "", each.confidence, each.log_prob, self.model
                    )

    def told(self) -> Iterator[Event]:
        """What became of each file, with the words it has now."""
        marks = ", ".join("?" * len(self.languages))
        for event, picture in self._events:
            if picture is None:
                yield event
                continue
            alike = self.index.one("SELECT alike FROM pictures WHERE id = ?", picture)
            rows = self.db.execute(
                f"SELECT language, caption, confidence FROM captions WHERE picture = ? AND language IN ({marks})",
                (picture if alike is None else alike, *self.languages),
            ).fetchall()
            rows.sort(key=lambda row: self.languages.index(row[0]))
            place = None if alike is None else self.index.one("SELECT path FROM files WHERE picture = ? LIMIT 1", alike)
            seen = () if self.eye is None else objects_of(self.db, picture if alike is None else alike)
            yield Event(
                event.path,
                event.what,
                None if place is None else os.fsdecode(place),
                event.source,
                tuple(rows),
                tuple((each.label, each.score) for each in seen),
            )

    # ------------------------------------------------------------------------------------------------------- inside

    def _tell(self, event: Event, picture: int | None = None) -> None:
        self._events.append((event, picture))

    def _reading(self, reading: Reading) -> None:
        place = reading.place
        row = self.db.execute("SELECT id, picture FROM files WHERE path = ?", (os.fsencode(place.path),)).fetchone()
        picture = self.index.one("SELECT picture FROM contents WHERE sha256 = ?", reading.sha256)
        lacking = self.languages if picture is None else self._lacking(picture)
        unseen = self._not_seen(picture)
        if (lacking or unseen) and reading.pixels is None and reading.words is None:
            # What it has went while it was on its way here.
            again = self.read(place)
            if isinstance(again, InputError):
                self._failed(place, again)
            else:
                self._reading(again)
            return
        source = None
        if picture is None:
            picture = self._new_picture(reading)
            lacking, unseen = self._lacking(picture), self._not_seen(picture)
            what = "new" if row is None or row[1] is None else "changed"
        elif row is not None and row[1] is not None:
            what = "changed" if row[1] != picture else "words" if lacking or unseen else "unchanged"
        else:
            source = self._moved_from(picture)
            what = "copy" if source is None else "moved"
        if lacking or unseen:
            head = self.index.one("SELECT coalesce(alike, id) FROM pictures WHERE id = ?", picture)
            if reading.words is not None:
                for language, caption, confidence, log_prob in reading.words:
                    if language in lacking:
                        put_caption(self.db, head, language, caption, confidence, log_prob, self.model)
            elif lacking and reading.pixels is not None:
                self._wanted.setdefault(head, (lacking, reading.pixels))
            if unseen and self.eye is not None:
                if reading.objects is not None:
                    put_objects(self.db, head, reading.objects, self.eye)
                elif reading.pixels is not None:
                    self._unseen.setdefault(head, reading.pixels)
        self._put_file(place, picture, source)
        self._tell(Event(place.path, what, source=source), picture)

    def _new_picture(self, reading: Reading) -> int:
        value = reading.hash
        alike = None if value is None else self.likeness.nearest(value)
        picture = self.db.execute(
            "INSERT INTO pictures (width, height, taken, hash, alike) VALUES (?, ?, ?, ?, ?)",
            (reading.width, reading.height, reading.taken, value, alike),
        ).lastrowid
        assert picture is not None
        self.db.execute("INSERT INTO contents VALUES (?, ?)", (reading.sha256, picture))
        # Only those with words of their own are compared with: no chain of likenesses leads far away.
        if value is not None and alike is None:
            self.likeness.remember(picture, value)
        return picture

    def _lacking(self, picture: int) -> tuple[str, ...]:
        """The languages in which words are to be written for it."""
        rows = self.db.execute(
            "SELECT c.language, c.model FROM captions c JOIN pictures p ON c.picture = coalesce(p.alike, p.id) "
            "WHERE p.id = ?",
            (picture,),
        )
        there = {language for language, model in rows if model == self.model or not self.recaption}
        return tuple(language for language in self.languages if language not in there)

    def _not_seen(self, picture: int | None) -> bool:
        """Whether a detector is to look at it."""
        if self.eye is None or picture is None:
            return self.eye is not None
        there = has_objects(self.eye if self.recaption else None)
        return not self.index.one(f"SELECT {there} FROM pictures p WHERE p.id = ?", picture)

    def _moved_from(self, picture: int) -> str | None:
        """A place of this picture that is no more."""
        for (path,) in self.db.execute("SELECT path FROM files WHERE picture = ? AND archive IS NULL", (picture,)):
            if not exists(path):
                return os.fsdecode(path)
        return None

    def _put_file(self, place: Place, picture: int, source: str | None) -> None:
        path = os.fsencode(place.path)
        if source is not None:
            self.db.execute("DELETE FROM files WHERE path = ?", (path,))
            self.db.execute("UPDATE files SET path = ? WHERE path = ?", (path, os.fsencode(source)))
        self.db.execute(
            "INSERT INTO files (path, archive, member, size, mtime_ns, picture) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (path) DO UPDATE SET archive = excluded.archive, member = excluded.member, "
            "size = excluded.size, mtime_ns = excluded.mtime_ns, picture = excluded.picture, "
            "problem = NULL, missing = NULL",
            (path, _encoded(place.archive), place.member, place.size, place.mtime_ns, picture),
        )
        self.files.append(int(self.index.one("SELECT id FROM files WHERE path = ?", path)))

    def _failed(self, place: Place, error: InputError) -> None:
        """Note the problem. Words that the file had stay, and so do size and time: the next scan tries again."""
        path = os.fsencode(place.path)
        self.db.execute(
            "INSERT INTO files (path, archive, member, size, mtime_ns, problem) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (path) DO UPDATE SET problem = excluded.problem",
            (path, _encoded(place.archive), place.member, place.size, place.mtime_ns, f"{error.what}; {error.fix}"),
        )
        self.files.append(int(self.index.one("SELECT id FROM files WHERE path = ?", path)))
        self._tell(Event(place.path, "failed", error=error))

    def _archive(self, archive: Archive) -> None:
        """An archive that was read to its end need not be opened again while it stays as it is."""
        path = os.fsencode(archive.path)
        whole = (
            archive.whole
            and self.index.one("SELECT 1 FROM files WHERE archive = ? AND problem IS NOT NULL LIMIT 1", path) is None
        )
        self.db.execute("DELETE FROM archives WHERE path = ?", (path,))
        if whole:
            self.db.execute("INSERT INTO archives VALUES (?, ?, ?)", (path, archive.size, archive.mtime_ns))


def exists(path: bytes) -> bool:
    """Whether a file is there, or may be: only a plain no counts; an error of the disk, or no permission, is none."""
    name = os.fsdecode(path)
    try:
        if storage.is_url(name):
            storage.find(name)
        else:
            os.lstat(path)
    except storage.Missing:
        return False
    except RecurError:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _encoded(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)
