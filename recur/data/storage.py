"""Files that are not on this machine: anything fsspec opens by a URL (`s3://`, `gs://`, `file://`, `memory://`).

Names stay URLs throughout. What is not there is an `InputError`, as for a file on the disk; a store that does not
answer is a `StorageError`: whoever asked did not find out, and should ask again later.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final

from recur.errors import InputError, RecurError

# Stores in which folders are made before files are put into them.
_FOLDERS: Final = frozenset({"file", "local", "memory", "sftp", "ssh", "hdfs"})
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class StorageError(RecurError):
    """A store could not be asked. The message begins with the URL."""


class Missing(InputError):
    """Nothing is at a URL."""


class Unanswered(InputError):
    """Nobody knows what is at a URL, because its store could not be asked."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry of a store: `path` is its URL, `mtime_ns` 0 where the store does not tell."""

    path: str
    size: int
    mtime_ns: int
    folder: bool


def is_url(name: str) -> bool:
    """Whether a name is that of something in a store, and not a path."""
    return _URL.match(name) is not None


def find(url: str) -> Stored:
    """What is at a URL. Raises Missing when there is nothing."""
    with _asking(url) as (system, path):
        return _stored(url, system.info(path))


def listed(url: str) -> list[Stored]:
    """What lies right below a folder, by name."""
    with _asking(url) as (system, path):
        top = path.rstrip("/")
        found = {}
        for info in system.ls(path, detail=True, refresh=True):
            name = str(info["name"]).rstrip("/").rsplit("/", 1)[-1]
            # Stores without folders may keep an empty object in the place of one.
            if name and str(info["name"]).rstrip("/").strip("/") != top.strip("/"):
                found[name] = _stored(f"{url.rstrip('/')}/{name}", info)
        return [found[name] for name in sorted(found)]


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of a file, or those from `start` to before `end`. Raises Missing when it is gone."""
    with _asking(url) as (system, path):
        return bytes(system.cat_file(path, start=start, end=end))


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """A file to read from, which may be sought in."""
    with _asking(url) as (system, path), system.open(path, "rb") as file:
        yield file


def open_any(name: str) -> AbstractContextManager[IO[bytes]]:
    """A file by its path or URL, to read from."""
    return opened(name) if is_url(name) else open(name, "rb")


def write(url: str, content: bytes) -> None:
    """Put a file in the place of what has its name, in one step."""
    with _asking(url) as (system, path):
        if not _has_folders(system):  # a store of objects shows them whole or not at all
            system.pipe_file(path, content)
            return
        folder, _, name = path.rpartition("/")
        system.makedirs(folder, exist_ok=True)
        draft = f"{folder}/.{name}.{secrets.token_hex(8)}"
        system.pipe_file(draft, content)
        system.mv(draft, path)


def move(source: str, target: str) -> None:
    """Give a file another name in the same store, in the place of what has that."""
    with _asking(target) as (system, path):
        before = system._strip_protocol(source)
        if _has_folders(system):
            system.mv(before, path)
        else:  # as `mv` does it, without asking first whether these are folders: each question takes its time
            system.cp_file(before, path)
            system.rm_file(before)


def _has_folders(system: Any) -> bool:
    protocols = [system.protocol] if isinstance(system.protocol, str) else system.protocol
    return not _FOLDERS.isdisjoint(protocols)


def remove(url: str) -> None:
    """Take a file away. One that is gone already is as good."""
    try:
        with _asking(url) as (system, path):
            system.rm_file(path)
    except Missing:
        return


@contextmanager
def _asking(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path on it; what goes wrong in the block as our errors."""
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise RecurError(f'{url}: stores are opened by fsspec, which is missing; pip install "recur[cloud]"') from None
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # no such protocol, or its package is missing
        raise RecurError(f'{url}: cannot be opened ({error}); pip install "recur[cloud]", or check the URL') from None
    try:
        yield system, path
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(url, "no such file or folder", "check the URL, and that the bucket is there") from None
    except PermissionError as error:
        raise InputError(url, f"no permission ({error})", "check the credentials") from None
    except (OSError, TimeoutError) as error:
        raise StorageError(f"{url}: the store does not answer ({error}); check the network and try again") from None
    except RecurError:
        raise
    except Exception as error:
        # Each store has errors of its own (botocore's, google's); they have no base in common but this one.
        if type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "gcsfs", "google", "aiohttp"):
            raise StorageError(f"{url}: {error}; check the credentials and the network, and try again") from None
        raise


def _stored(url: str, info: dict[str, Any]) -> Stored:
    return Stored(url, int(info.get("size") or 0), _time(info), info.get("type") == "directory")


def _time(info: dict[str, Any]) -> int:
    """Nanoseconds since 1970 when it was last written, under whatever name the store has for it."""
    for key in ("LastModified", "mtime", "updated", "last_modified", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return int(value.timestamp() * 1_000_000) * 1000
        if isinstance(value, int | float):
            return int(value * 1_000_000) * 1000
        if isinstance(value, str):
            return int(datetime.fromisoformat(value).timestamp() * 1_000_000) * 1000
    return 0
