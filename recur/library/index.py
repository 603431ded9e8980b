"""The index of a photo library: one SQLite file that survives whatever happens to the program that writes it.

A *picture* is a content, a *file* a place where it lies: copies and moved files are several places of one picture, and
words belong to the picture. A picture that looks like an earlier one (`alike`) has no words of its own; it shares that
one's. Whatever belongs together is written in one transaction, and readers go on while it is written (WAL).
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from recur.errors import RecurError
from recur.library.words import TOKENIZER

APPLICATION: Final = 0x72656375  # "recu": how SQLite files say whose they are
FORMAT: Final = 2
WAIT_SECONDS: Final = 10.0  # for another program that has the file for a moment
ENVIRONMENT: Final = "RECUR_INDEX"
CACHE_KIB: Final = 32_000
CHECKPOINT_PAGES: Final = 8_000  # of 4 KiB: so much is kept beside the database while it is written to

# What format 2 added to format 1; an index of format 1 gets it when it is opened.
OBJECTS: Final = """
CREATE TABLE detected (
  picture INTEGER PRIMARY KEY REFERENCES pictures ON DELETE CASCADE,   -- looked at, though there may be nothing in it
  model INTEGER NOT NULL REFERENCES models
);
CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  picture INTEGER NOT NULL REFERENCES pictures ON DELETE CASCADE,
  label TEXT NOT NULL COLLATE NOCASE, score REAL NOT NULL,
  x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL   -- fractions of width and height
);
CREATE INDEX objects_of_picture ON objects (picture);
CREATE INDEX objects_of_label ON objects (label, picture);
"""
SCHEMA: Final = f"""
CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE);
CREATE TABLE pictures (
  id INTEGER PRIMARY KEY,
  width INTEGER NOT NULL, height INTEGER NOT NULL,   -- as a person sees it
  taken TEXT,                                        -- EXIF, as ISO 8601 without a zone
  hash BLOB,                                         -- perceptual; NULL when it is too plain to be told from others
  alike INTEGER REFERENCES pictures                  -- the picture whose words it shares
);
CREATE TABLE contents (
  sha256 BLOB PRIMARY KEY, picture INTEGER NOT NULL REFERENCES pictures ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  path BLOB NOT NULL UNIQUE,
  archive BLOB, member INTEGER,                      -- where in which .tar or .parquet
  size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  picture INTEGER REFERENCES pictures,               -- NULL while it could not be read
  problem TEXT,
  missing TEXT                                       -- since when it was not found
);
CREATE TABLE archives (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE captions (
  id INTEGER PRIMARY KEY,
  picture INTEGER NOT NULL REFERENCES pictures ON DELETE CASCADE,
  language TEXT NOT NULL, caption TEXT NOT NULL, confidence REAL, log_prob REAL NOT NULL,
  model INTEGER NOT NULL REFERENCES models,
  UNIQUE (picture, language)
);
CREATE TABLE bands (key INTEGER NOT NULL, picture INTEGER NOT NULL, PRIMARY KEY (key, picture)) WITHOUT ROWID;
CREATE TABLE scans (
  id INTEGER PRIMARY KEY, begun TEXT NOT NULL, ended TEXT, folders TEXT NOT NULL, counts TEXT
);
CREATE TABLE holder (one INTEGER PRIMARY KEY CHECK (one = 1), what TEXT, pid INTEGER, host TEXT, since TEXT);
CREATE TABLE writes (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL, written TEXT NOT NULL,
  file INTEGER, path BLOB NOT NULL,                  -- the file that was changed or made: the picture, or its sidecar
  state TEXT NOT NULL,                               -- planned, done, undone
  before BLOB, after BLOB NOT NULL,                  -- SHA-256; before is NULL for a file that was made
  before_mtime_ns INTEGER,
  patch BLOB                                         -- what gives the old content back
);
CREATE INDEX files_of_picture ON files (picture);
CREATE INDEX files_of_archive ON files (archive) WHERE archive IS NOT NULL;
CREATE INDEX pictures_alike ON pictures (alike) WHERE alike IS NOT NULL;
CREATE INDEX contents_of_picture ON contents (picture);
CREATE VIRTUAL TABLE words USING fts5 (text, content='', tokenize='{TOKENIZER}');
{OBJECTS.strip()}
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""


class LibraryError(RecurError):
    """The index cannot be used. The message begins with its path."""


def default_index() -> Path:
    """Where the index is when nobody says: `$RECUR_INDEX`, or `recur/library.sqlite` in the user's data folder."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen)
    # The XDG base directory specification: a relative value is to be ignored.
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share") / "recur" / "library.sqlite"


def now() -> str:
    """This second, local time, ISO 8601 with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class Index:
    """An open index, to be used in a `with` block: it closes the file and turns errors of SQLite into LibraryError.

    `create`: make it, with its folder, when there is none. `durable`: what is committed survives a power failure too,
    not only a kill; slower. On a drive where nothing can be written it can be read, unless a scan was cut off there.
    Errors: LibraryError when it is missing, damaged, locked, or of another program or version.
    """

    def __init__(self, path: str | Path, *, create: bool = False, durable: bool = False) -> None:
        self.path = Path(path)
        self._lock: sqlite3.Connection | None = None
        if create:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LibraryError(
                    f"{self.path}: its folder cannot be made ({error.strerror}); choose another place with --index"
                ) from None
        elif not self.path.exists():
            raise LibraryError(f"{self.path}: no such index; make it with `recur library scan`, or give --index")
        log = Path(f"{self.path}-wal")
        cut_off = log.exists() and log.stat().st_size > 0
        try:
            try:
                self._use(self.connect(), partial(self._prepare, create=create, durable=durable))
            except sqlite3.OperationalError as error:
                if create or cut_off or "unable to open" not in str(error):
                    raise
                # Readers make a file beside the index. Where that cannot be, nobody else writes to it either.
                place = f"{self.path.absolute().as_uri()}?immutable=1"
                self._use(sqlite3.connect(place, uri=True, isolation_level=None), self._check)
        except sqlite3.Error as error:
            raise self.refusal(error) from error

    def _use(self, db: sqlite3.Connection, prepare: Callable[[], None]) -> None:
        self.db = db
        try:
            prepare()
        except BaseException:
            db.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """Another connection, for another thread to read with. The caller closes it."""
        # Transactions are begun and ended here by hand; sqlite3's own ones would begin at surprising places.
        db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            # Hashes lie all over their trees: pages are written many times, and only the last time need reach the
            # database.
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, *, create: bool, durable: bool) -> None:
        if create and self._number("page_count") == 0:
            with self.transaction():
                if self._number("page_count") <= 1 and not self.db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in SCHEMA.split(";\n"):
                        self.db.execute(statement)
        self._check()
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")

    def _check(self) -> None:
        """Whether it is an index of this version, which one of the first version becomes."""
        application, version = self._number("application_id"), self._number("user_version")
        if application != APPLICATION:
            raise LibraryError(
                f"{self.path}: no index of recur; expected one made by `recur library scan`; name another"
            )
        if version == 1:
            with self.transaction():
                if self._number("user_version") == 1:  # nobody else was quicker
                    for statement in OBJECTS.split(";\n"):
                        self.db.execute(statement)
                    self.db.execute(f"PRAGMA user_version = {FORMAT}")
            version = FORMAT
        if version != FORMAT:
            raise LibraryError(f"{self.path}: index format {version}, expected {FORMAT}; upgrade recur, or scan anew")

    def _number(self, pragma: str) -> int:
        return int(self.db.execute(f"PRAGMA {pragma}").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise self.refusal(error) from error

    def close(self) -> None:
        """Close the file. What was not committed is as if it had not been."""
        self.release()
        with suppress(sqlite3.Error):  # the error that led here is the one to tell
            self.db.close()

    def refusal(self, error: sqlite3.Error) -> LibraryError:
        """`error` in words, with what to do."""
        text = str(error)
        low = text.lower()
        if "full" in low:
            return LibraryError(f"{self.path}: the disk is full; what was done until now is kept; free space and go on")
        if "locked" in low or "busy" in low:
            return LibraryError(f"{self.path}: another program has it locked; close that program and try again")
        if "readonly" in low or "unable to open" in low:
            return LibraryError(
                f"{self.path}: cannot be written to ({text}); expected a file in a folder of your own; "
                "change the permissions, or name another place with --index"
            )
        if "malformed" in low or "not a database" in low or "corrupt" in low:
            return LibraryError(
                f"{self.path}: is damaged ({text}); put back a copy of it, or move it away and scan again"
            )
        return LibraryError(f"{self.path}: {text}; check the disk, or name another place with --index")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite rolls back by itself when the disk is full
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # ------------------------------------------------------------------------------------------------ one at a time

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Keep others from changing the library. Errors: LibraryError that says who does, and since when.

        The lock is an open transaction on a file beside the index: the system lets go of it when the process ends,
        however it ends, so that no stale lock is ever left.
        """
        lock = sqlite3.connect(f"{self.path}.lock", timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            lock.close()
            if "locked" not in str(error):
                raise
            raise LibraryError(f"{self.path}: in use by {self.holder()}; wait until that is done") from None
        self._lock = lock
        try:
            self.db.execute(
                "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?, ?)", (what, os.getpid(), socket.gethostname(), now())
            )
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let others change the library."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def holder(self) -> str:
        """Who changes the library, or was the last to."""
        row = self.db.execute("SELECT what, pid, host, since FROM holder").fetchone()
        return "another program" if row is None else "`recur library {}`, process {} on {}, since {}".format(*row)

    # ---------------------------------------------------------------------------------------------------- the pieces

    def model(self, name: str, sha256: str) -> int:
        """The number of a model in this index, known by the SHA-256 of its bundle."""
        self.db.execute("INSERT OR IGNORE INTO models (name, sha256) VALUES (?, ?)", (name, sha256))
        return int(self.db.execute("SELECT id FROM models WHERE sha256 = ?", (sha256,)).fetchone()[0])

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row, None when there is no row."""
        row = self.db.execute(statement, values).fetchone()
        return None if row is None else row[0]


def within(folder: bytes) -> tuple[bytes, bytes]:
    """The range `low <= path < high` that holds the paths below `folder` and no others."""
    # "0" is the character after "/": every path that begins with "folder/" sorts between the two.
    separator = os.fsencode(os.sep)
    start = folder if folder.endswith(separator) else folder + separator
    return start, start[:-1] + bytes([start[-1] + 1])
