"""What is stored about pictures and their words, and taken away again, without leaving loose ends."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

from recur.library import hashes
from recur.library.index import Index, within
from recur.library.sources import absolute
from recur.library.words import spaced

# Words of a picture are its own, or those of the one that it looks like.
_HAS_WORDS: Final = (
    "(SELECT count(*) FROM captions c WHERE c.picture = coalesce(p.alike, p.id) AND c.language IN ({languages}){model})"
)


def has_words(languages: int, model: int | None) -> str:
    """SQL that counts in how many of so many languages, its parameters, picture `p` has words (of `model`)."""
    return _HAS_WORDS.format(
        languages=", ".join("?" * languages), model="" if model is None else f" AND c.model = {model}"
    )


def has_objects(model: int | None) -> str:
    """SQL that is 1 when somebody (or `model`) has looked for objects in picture `p`, else 0."""
    other = "" if model is None else f" AND d.model = {model}"
    return f"(SELECT count(*) FROM detected d WHERE d.picture = coalesce(p.alike, p.id){other})"


def put_caption(
    db: sqlite3.Connection,
    picture: int,
    language: str,
    caption: str,
    confidence: float | None,
    log_prob: float,
    model: int,
) -> None:
    """Store the words of a picture in one language in the place of those it had."""
    key = (picture, language)
    old = db.execute("SELECT id, caption FROM captions WHERE picture = ? AND language = ?", key).fetchone()
    values = (caption, confidence, log_prob, model)
    if old is None:
        cursor = db.execute(
            "INSERT INTO captions (caption, confidence, log_prob, model, picture, language) VALUES (?, ?, ?, ?, ?, ?)",
            (*values, picture, language),
        )
        number = cursor.lastrowid
    else:
        number = old[0]
        _unindex(db, number, old[1])
        db.execute(
            "UPDATE captions SET caption = ?, confidence = ?, log_prob = ?, model = ? WHERE id = ?", (*values, number)
        )
    db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, spaced(caption)))


def _unindex(db: sqlite3.Connection, number: int, caption: str) -> None:
    # The index of words keeps no text of its own: it has to be told which words go.
    db.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", (number, spaced(caption)))


def sweep(db: sqlite3.Connection) -> int:
    """Remove pictures that lie nowhere and lend nobody their words; returns how many."""
    removed = 0
    while True:
        loose = db.execute(
            "SELECT id, hash FROM pictures p WHERE NOT EXISTS (SELECT 1 FROM files WHERE picture = p.id) "
            "AND NOT EXISTS (SELECT 1 FROM pictures q WHERE q.alike = p.id)"
        ).fetchall()
        if not loose:
            return removed
        _remove(db, loose)
        removed += len(loose)  # once more: one that shared the words of another may have been the last to


def _remove(db: sqlite3.Connection, pictures: Iterable[tuple[int, bytes | None]]) -> None:
    for picture, value in pictures:
        for number, caption in db.execute("SELECT id, caption FROM captions WHERE picture = ?", (picture,)).fetchall():
            _unindex(db, number, caption)
        if value is not None:
            hashes.forget(db, picture, value)
        db.execute("DELETE FROM pictures WHERE id = ?", (picture,))  # its captions and contents go with it


def forget(index: Index, path: str) -> int:
    """Remove a file, or all below a folder or in an archive, from the index; how many. Their disk is not touched."""
    key = os.fsencode(absolute(path))
    low, high = within(key)
    condition = "(path = ? OR (path >= ? AND path < ?))"
    with index.transaction():
        count = index.db.execute(f"DELETE FROM files WHERE {condition}", (key, low, high)).rowcount
        index.db.execute(f"DELETE FROM archives WHERE {condition}", (key, low, high))
        for folder in _above(key):  # an archive of which a member is forgotten is no longer done
            index.db.execute("DELETE FROM archives WHERE path = ?", (folder,))
        sweep(index.db)
    return count


def _above(path: bytes) -> Iterator[bytes]:
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        yield path
