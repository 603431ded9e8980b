"""Words put into files or beside them, and taken out again: every step in a journal before it is done.

A change is planned in the index, with the hash of the file before and after and the way back, and durably; then the
file is replaced in one step; then the change is done. Killed in between, the next call looks at the file and knows
which it was. `undo` gives back the very bytes that were there, and leaves alone what somebody has changed since.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recur.errors import InputError
from recur.library.hashes import content_hash
from recur.library.index import Index, now
from recur.library.metadata import DESCRIPTION, EMPTY_SIDECAR, free_fields, read_words, texts_of, with_words
from recur.library.patch import apply_patch, make_patch
from recur.library.query import Entry


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one picture: `what` is written, planned (a dry run), same, person, undone, removed or failed.

    `target` is the file that has the words; `texts` are they, by language; `error`, the line about what failed.
    """

    path: str
    target: str
    what: str
    texts: dict[str, str]
    error: InputError | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as one plain object, ready for `json.dumps`."""
        return {"path": self.path, "target": self.target, "what": self.what, "texts": self.texts}


def sidecar_of(path: str) -> str:
    """`photo.jpg` has `photo.jpg.xmp`: two pictures that differ in their ending alone have two."""
    return path + ".xmp"


class Writer:
    """Writes words, inside `index.held("write")` of a durable index. One object is one run, undone as a whole."""

    def __init__(
        self,
        index: Index,
        *,
        embed: bool,
        overwrite: bool = False,
        dry_run: bool = False,
        least: float | None = None,
    ) -> None:
        """`embed`: into the pictures, else beside them. `least`: words of less confidence are left out."""
        self.index, self.embed, self.overwrite, self.dry_run, self.least = index, embed, overwrite, dry_run, least
        self._run = 1 + int(index.one("SELECT coalesce(max(run), 0) FROM writes"))
        recover(index)

    def write(self, entries: Iterable[Entry]) -> Iterator[Written]:
        """What becomes of each picture. Those in archives, which cannot be written to, are failures of their own."""
        for entry in entries:
            # A link stays a link: what it leads to is written to.
            target = os.path.realpath(entry.place.path) if self.embed else sidecar_of(entry.place.path)
            captions = [
                (words.language, words.caption)
                for words in entry.words
                if words.caption and (self.least is None or (words.confidence or 0.0) >= self.least)
            ]
            if not captions:
                continue
            texts = texts_of(captions)
            try:
                what = self._one(entry, target, texts)
            except InputError as error:
                yield Written(entry.place.path, target, "failed", texts, error)
            else:
                yield Written(entry.place.path, target, what, texts)

    def _one(self, entry: Entry, target: str, texts: dict[str, str]) -> str:
        path = entry.place.path
        if entry.place.archive is not None:
            raise InputError(path, "lies in an archive, which is not changed", "unpack the archive and scan the folder")
        picture, beside = _content(path), _content(sidecar_of(path))
        if picture is None:
            raise InputError(path, "no such file", "scan again")
        if (len(picture), os.stat(path).st_mtime_ns) != (entry.place.size, entry.place.mtime_ns):
            raise InputError(path, "was changed after it was described", "scan again")
        here = picture if self.embed else beside
        in_picture = read_words(picture)
        in_sidecar = None if beside is None else read_words(beside)
        if beside is not None and in_sidecar is None:
            raise InputError(sidecar_of(path), "not a sidecar that can be read", "mend it or move it away")
        fields = free_fields((in_picture, in_sidecar), self.overwrite)
        if not fields:
            return "person"
        present = in_picture if self.embed else in_sidecar
        if present is not None:
            now_there = {DESCRIPTION: present.description.texts}
            if all(now_there.get(field, present.alt_text.texts) == texts for field in fields):
                return "same"
        model = ", ".join(dict.fromkeys(words.model for words in entry.words))
        changed = with_words(target, EMPTY_SIDECAR if here is None else here, texts, fields, model)
        if self.dry_run:
            return "planned"
        self._replace(entry, target, here, changed)
        return "written"

    def _replace(self, entry: Entry, target: str, old: bytes | None, new: bytes) -> None:
        db, path = self.index.db, os.fsencode(target)
        after = content_hash(new)
        with self.index.transaction():
            number = db.execute(
                "INSERT INTO writes (run, written, file, path, state, before, after, before_mtime_ns, patch) "
                "VALUES (?, ?, (SELECT id FROM files WHERE path = ?), ?, 'planned', ?, ?, ?, ?)",
                (
                    self._run, now(), os.fsencode(entry.place.path), path, None if old is None else content_hash(old),
                    after, None if old is None else os.stat(target).st_mtime_ns,
                    None if old is None else make_patch(old, new),
                ),
            ).lastrowid  # fmt: skip
            if self.embed:  # the same picture in other bytes: a scan knows it again
                db.execute(
                    "INSERT OR IGNORE INTO contents SELECT ?, picture FROM files WHERE path = ?",
                    (after, os.fsencode(entry.place.path)),
                )
        _put(target, new, old)
        _done(self.index, number)


def recover(index: Index) -> None:
    """Find out what became of changes that were planned when a run was killed."""
    for number, path, before, after in index.db.execute(
        "SELECT id, path, before, after FROM writes WHERE state = 'planned'"
    ).fetchall():
        with suppress(OSError):
            os.unlink(_part(os.fsdecode(path)))
        try:
            content = _content(os.fsdecode(path))
        except InputError:
            continue  # its drive may come back
        found = None if content is None else content_hash(content)
        if found == after:
            _done(index, number)
        elif found == before:
            index.db.execute("DELETE FROM writes WHERE id = ?", (number,))
        else:
            index.db.execute("UPDATE writes SET state = 'changed' WHERE id = ?", (number,))


def undo(index: Index, tell: Callable[[Written], None]) -> int:
    """Take back the last run that has not been; returns how many changes it had. Files changed since stay as they are.

    To be called inside `index.held("undo")` of a durable index.
    """
    recover(index)
    run = index.one("SELECT max(run) FROM writes WHERE state = 'done'")
    rows = index.db.execute(
        "SELECT id, path, before, after, before_mtime_ns, patch FROM writes "
        "WHERE run = ? AND state = 'done' ORDER BY id DESC",
        (run,),
    ).fetchall()
    for number, path, before, after, mtime_ns, patch in rows:
        name = os.fsdecode(path)
        state, what, error = "undone", "undone", None
        try:
            content = _content(name)
            found = None if content is None else content_hash(content)
            if found == after and before is None:
                os.unlink(name)
                what = "removed"
            elif found == after and content is not None:
                old = apply_patch(content, patch)
                if content_hash(old) != before:
                    raise InputError(name, "what was there cannot be made out", "check the index; the file stays")
                _put(name, old, content)
                os.utime(name, ns=(mtime_ns, mtime_ns))
            elif found != before:
                state, what = "changed", "failed"
                error = InputError(name, "was changed after the words were written", "take them out by hand")
        except OSError as problem:
            what, error = (
                "failed",
                InputError(name, f"cannot be put back ({problem.strerror})", "mend that and undo again"),
            )
        except InputError as problem:
            what, error = "failed", problem
        if what != "failed" or state == "changed":
            with index.transaction():
                index.db.execute("UPDATE writes SET state = ? WHERE id = ?", (state, number))
                if state == "undone":
                    _note(index, number)
        tell(Written(name, name, what, {}, error))
    return len(rows)


def _done(index: Index, number: int | None) -> None:
    with index.transaction():
        index.db.execute("UPDATE writes SET state = 'done' WHERE id = ?", (number,))
        _note(index, number)


def _note(index: Index, number: int | None) -> None:
    """Size and time of a picture that was written to, so that the next scan does not read it again."""
    rows = index.db.execute(
        "SELECT f.id, f.path, w.path FROM files f JOIN writes w ON f.path = w.path OR f.id = w.file WHERE w.id = ?",
        (number,),
    )
    for file, path, written in rows.fetchall():
        # Itself, or a link to it; and not the picture of a sidecar, which may have changed meanwhile.
        if os.path.realpath(path) == os.path.realpath(written):
            with suppress(OSError):  # gone again: the next scan says so
                status = os.stat(path)
                key = (status.st_size, status.st_mtime_ns, file)
                index.db.execute("UPDATE files SET size = ?, mtime_ns = ? WHERE id = ?", key)


def _content(path: str) -> bytes | None:
    """The bytes of a file, None when there is none. Raises InputError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from None


def _part(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.recur-part")


def _put(path: str, content: bytes, expected: bytes | None) -> None:
    """Replace a file in one step, keeping permissions and owner. Raises InputError when it is not `expected` before."""
    part = _part(path)
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if expected is not None:
            status = os.stat(path)
            shutil.copymode(path, part)
            with suppress(PermissionError):  # only the superuser may give files away
                os.chown(part, status.st_uid, status.st_gid)
        if _content(path) != expected:
            raise InputError(path, "was changed in this moment by another program", "try again")
        os.replace(part, path)
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror})", "check permissions and free space") from None
    finally:
        with suppress(OSError):  # where nothing may be written, nothing may be removed either, though it is not there
            os.unlink(part)
