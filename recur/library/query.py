"""What the index knows, asked for: by words, by date, by how sure the model was, by place; and what looks alike."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from recur.errors import RecurError
from recur.library.hashes import distance
from recur.library.index import Index, within
from recur.library.objects import Seen, objects_of
from recur.library.sources import Place
from recur.library.words import question

# When a picture was taken, or else when its file was last written, in this machine's time.
_DATE: Final = "coalesce(p.taken, strftime('%Y-%m-%dT%H:%M:%S', f.mtime_ns / 1000000000, 'unixepoch', 'localtime'))"
COMMON: Final = 20  # kinds of objects that are counted
_COLUMNS: Final = (
    f"f.path, f.size, f.mtime_ns, f.archive, f.member, f.missing, p.id, p.alike, p.width, p.height, p.taken, {_DATE}"
)


@dataclass(frozen=True, slots=True)
class Words:
    """What a model says about a picture in one language."""

    language: str
    caption: str
    confidence: float | None
    model: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the library. `alike` is a place of the picture whose words it shares; `missing`, since when.

    `taken` is the date in its EXIF, `date` that or else the time of the file; ISO 8601. `width` and
    `height` as a person sees it.
    """

    place: Place
    words: tuple[Words, ...]
    width: int
    height: int
    taken: str | None
    date: str
    alike: str | None
    missing: str | None
    picture: int
    objects: tuple[Seen, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The entry as one plain object, ready for `json.dumps`."""
        return {
            "path": self.place.path,
            "captions": [
                {"language": w.language, "caption": w.caption, "confidence": w.confidence, "model": w.model}
                for w in self.words
            ],
            "objects": [each.to_json(self.width, self.height) for each in self.objects],
            "alike": self.alike,
            "taken": self.taken,
            "width": self.width,
            "height": self.height,
            "bytes": self.place.size,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: all conditions hold. `text` as `recur.library.words.question` takes it.

    `since` and `until` are dates, whole or cut short (2024-05), both included. `below`: some confidence is less than
    it. `under` are absolute paths of files or folders. `languages`: only words in these. `missing`: files that are not
    there too. `objects`: each of these labels was seen in the picture.
    """

    text: str | None = None
    languages: tuple[str, ...] | None = None
    since: str | None = None
    until: str | None = None
    below: float | None = None
    under: tuple[str, ...] = ()
    missing: bool = False
    objects: tuple[str, ...] = ()


def entries(index: Index, wanted: Wanted) -> Iterator[Entry]:
    """The entries: with `text` the best first, with `below` the least sure first, with `objects` those with the surest
    first object first, else in the order of their paths.

    Lazily: whoever wants few of them takes few. Raises RecurError when `text` has no words.
    """
    conditions, values = _conditions(wanted)
    if wanted.text is None:
        order = "f.path"
        if wanted.below is not None:
            order = "(SELECT min(confidence) FROM captions c WHERE c.picture = coalesce(p.alike, p.id)), f.path"
        elif wanted.objects:
            surest = "SELECT max(score) FROM objects o WHERE o.picture = coalesce(p.alike, p.id) AND o.label = ?"
            order = f"({surest}) DESC, f.path"
            values.append(wanted.objects[0])
        yield from _rows(index, wanted, f"{conditions} ORDER BY {order}", values)
        return
    seen: set[int] = set()
    hits = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank"
    for (number,) in index.db.execute(hits, (question(wanted.text),)):
        picture, language = index.db.execute(
            "SELECT picture, language FROM captions WHERE id = ?", (number,)
        ).fetchone()
        if picture not in seen and (wanted.languages is None or language in wanted.languages):
            seen.add(picture)
            family = "p.id IN (SELECT ? UNION ALL SELECT id FROM pictures WHERE alike = ?)"
            yield from _rows(index, wanted, f"{conditions} AND {family} ORDER BY f.path", [*values, picture, picture])


def why_none(index: Index, wanted: Wanted) -> str:
    """What may be the reason that `entries` has none: in words, for a person."""
    there = [language for (language,) in index.db.execute("SELECT DISTINCT language FROM captions ORDER BY 1")]
    for language in wanted.languages or ():
        if language not in there:
            return f"there are no captions in {language!r} (found: {', '.join(there) or 'none'}); scan with --lang"
    if wanted.objects and not index.one("SELECT 1 FROM detected LIMIT 1"):
        return "nobody has looked for objects; scan with --objects"
    for label in wanted.objects:
        if not index.one("SELECT 1 FROM objects WHERE label = ? LIMIT 1", label):
            seen = stats(index)["objects"]
            return f"no {label!r} was seen in any (most often: {', '.join(list(seen)[:8]) or 'nothing'})"
    return "try fewer words or conditions"


def _conditions(wanted: Wanted) -> tuple[str, list[Any]]:
    parts, values = ["1"], list[Any]()
    if not wanted.missing:
        parts.append("f.missing IS NULL")
    if wanted.since is not None:
        parts.append(f"{_DATE} >= ?")
        values.append(wanted.since)
    if wanted.until is not None:
        parts.append(f"substr({_DATE}, 1, ?) <= ?")
        values += [len(wanted.until), wanted.until]
    if wanted.below is not None:
        only = "" if wanted.languages is None else f" AND c.language IN ({', '.join('?' * len(wanted.languages))})"
        words = f"SELECT 1 FROM captions c WHERE c.picture = coalesce(p.alike, p.id) AND c.confidence < ?{only}"
        parts.append(f"EXISTS ({words})")
        values += [wanted.below, *(wanted.languages or ())]
    for label in wanted.objects:
        parts.append("coalesce(p.alike, p.id) IN (SELECT picture FROM objects WHERE label = ?)")
        values.append(label)
    if wanted.under:
        parts.append("({})".format(" OR ".join(["f.path = ? OR (f.path >= ? AND f.path < ?)"] * len(wanted.under))))
        for path in map(os.fsencode, wanted.under):
            values += [path, *within(path)]
    return " AND ".join(parts), values


def _rows(index: Index, wanted: Wanted, rest: str, values: list[Any]) -> Iterator[Entry]:
    rows = index.db.execute(f"SELECT {_COLUMNS} FROM files f JOIN pictures p ON p.id = f.picture WHERE {rest}", values)
    for path, size, mtime_ns, archive, member, missing, picture, alike, width, height, taken, when in rows:
        place = Place(os.fsdecode(path), size, mtime_ns, None if archive is None else os.fsdecode(archive), member)
        head = picture if alike is None else alike
        words = words_of(index.db, head, wanted.languages)
        if words:
            like = alike and _place_of(index, alike)
            seen = objects_of(index.db, head)
            yield Entry(place, words, width, height, taken, when, like, missing, head, seen)


def words_of(db: sqlite3.Connection, picture: int, languages: tuple[str, ...] | None) -> tuple[Words, ...]:
    """The words of a picture, in the order of `languages`, or that in which they were first written."""
    rows = db.execute(
        "SELECT c.language, c.caption, c.confidence, m.name FROM captions c JOIN models m ON m.id = c.model "
        "WHERE c.picture = ? ORDER BY c.id",
        (picture,),
    )
    words = [Words(*row) for row in rows]
    if languages is not None:
        words = sorted((w for w in words if w.language in languages), key=lambda w: languages.index(w.language))
    return tuple(words)


def _place_of(index: Index, picture: int) -> str | None:
    path = index.one("SELECT path FROM files WHERE picture = ? ORDER BY missing IS NOT NULL, path LIMIT 1", picture)
    return None if path is None else os.fsdecode(path)


@dataclass(frozen=True, slots=True)
class Like:
    """A file of a group: `kind` is first, copy (same content) or alike; `bits` of its hash differ from the first's."""

    path: str
    kind: str
    bits: int


def duplicates(index: Index) -> Iterator[tuple[Like, ...]]:
    """Groups of files, two or more each, with the same content or with pictures that look alike."""
    groups = index.db.execute(
        "SELECT coalesce(p.alike, p.id) AS head FROM files f JOIN pictures p ON p.id = f.picture "
        "WHERE f.missing IS NULL GROUP BY head HAVING count(*) > 1 ORDER BY min(f.path)"
    )
    for (head,) in groups:
        rows = index.db.execute(
            "SELECT f.path, p.id, p.hash FROM files f JOIN pictures p ON p.id = f.picture WHERE f.missing IS NULL "
            "AND p.id IN (SELECT ? UNION ALL SELECT id FROM pictures WHERE alike = ?) ORDER BY p.id <> ?, p.id, f.path",
            (head, head, head),
        ).fetchall()
        first = index.one("SELECT hash FROM pictures WHERE id = ?", head)
        group = []
        for number, (path, picture, value) in enumerate(rows):
            bits = 0 if picture == head or first is None or value is None else distance(first, value)
            kind = "first" if number == 0 else "copy" if picture == rows[number - 1][1] else "alike"
            group.append(Like(os.fsdecode(path), kind, bits))
        yield tuple(group)


def stats(index: Index) -> dict[str, Any]:
    """Counts of everything, ready for `json.dumps`."""
    one = index.one
    db = index.db
    return {
        "index": str(index.path),
        "bytes": index.path.stat().st_size,
        "files": one("SELECT count(*) FROM files WHERE picture IS NOT NULL AND missing IS NULL"),
        "in_archives": one("SELECT count(*) FROM files WHERE archive IS NOT NULL AND missing IS NULL"),
        "missing": one("SELECT count(*) FROM files WHERE missing IS NOT NULL"),
        "failed": one("SELECT count(*) FROM files WHERE problem IS NOT NULL"),
        "pictures": one("SELECT count(*) FROM pictures"),
        "alike": one("SELECT count(*) FROM pictures WHERE alike IS NOT NULL"),
        "captions": [
            {"language": language, "model": model, "captions": count, "mean_confidence": mean}
            for language, model, count, mean in db.execute(
                "SELECT c.language, m.name, count(*), avg(c.confidence) FROM captions c "
                "JOIN models m ON m.id = c.model GROUP BY c.language, c.model ORDER BY c.language, c.model"
            )
        ],
        "detected": one("SELECT count(*) FROM detected"),
        "objects": dict(
            db.execute(
                "SELECT label, count(DISTINCT picture) FROM objects GROUP BY label ORDER BY 2 DESC, 1 LIMIT ?",
                (COMMON,),
            ).fetchall()
        ),
        "years": dict(
            db.execute(
                "SELECT coalesce(substr(taken, 1, 4), ''), count(*) FROM pictures GROUP BY 1 ORDER BY 1"
            ).fetchall()
        ),
        "confidence": [
            one("SELECT count(*) FROM captions WHERE min(cast(confidence * 10 AS INTEGER), 9) = ?", tenth)
            for tenth in range(10)
        ],
    }


def checked_date(text: str) -> str:
    """A year, month or day, as ISO 8601. Raises RecurError for anything else."""
    parts = text.split("-")
    lengths = [4, 2, 2][: len(parts)]
    try:
        if [len(part) for part in parts] != lengths:
            raise ValueError(text)
        date(*[int(part) for part in (*parts, "01", "01")[:3]])
    except ValueError:
        raise RecurError(f"{text!r} is no date; expected YYYY, YYYY-MM or YYYY-MM-DD") from None
    return text
