"""Where the shards of a job go: a folder on a disk, or one in a store. Files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recur.data import storage
from recur.errors import RecurError
from recur.files import write_atomically


class Folder:
    """A folder by its path or URL. Names of files in it are relative, with `/`. Errors: OSError, RecurError."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") if storage.is_url(place) else os.path.abspath(place)
        self.remote = storage.is_url(place)

    def path(self, name: str) -> str:
        """The full name of a file."""
        return f"{self.place}/{name}" if self.remote else os.path.join(self.place, *name.split("/"))

    def names(self, below: str = "") -> dict[str, int]:
        """The files right below a folder of it, and their sizes in bytes; none when it is not there."""
        top = f"{self.place}/{below}".rstrip("/")
        if self.remote:
            try:
                return {each.path.rsplit("/", 1)[-1]: each.size for each in storage.listed(top) if not each.folder}
            except storage.Missing:
                return {}
        try:
            with os.scandir(top) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when it is not there."""
        try:
            return storage.read(self.path(name)) if self.remote else Path(self.path(name)).read_bytes()
        except (storage.Missing, FileNotFoundError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Put a file in the place of what had its name, in one step."""
        if self.remote:
            storage.write(self.path(name), content)
        else:
            write_atomically(self.path(name), content)

    def draft(self, name: str) -> str:
        """A name that nobody else uses, for a file that is to become `name`."""
        return f"drafts/{name.replace('/', '-')}.{secrets.token_hex(8)}"

    def move(self, source: str, target: str) -> None:
        """Give a file another name, in the place of what had that, in one step."""
        if self.remote:
            storage.move(self.path(source), self.path(target))
        else:
            os.replace(self.path(source), self.path(target))

    def remove(self, name: str) -> None:
        """Take a file away if it is there."""
        if self.remote:
            storage.remove(self.path(name))
        else:
            Path(self.path(name)).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a second driver out. A store has nothing to hold on to: there it is not noticed."""
        if self.remote:
            yield
            return
        os.makedirs(self.place, exist_ok=True)
        # The system lets go of SQLite's lock when the process ends, however it ends.
        lock = sqlite3.connect(self.path(".lock"), timeout=0.0, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
            yield
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise RecurError(f"{self.place}: cannot be written to ({error}); choose another --out") from None
            raise RecurError(f"{self.place}: another run is writing here; wait until it is done") from None
        finally:
            lock.close()
