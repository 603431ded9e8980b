"""Where pictures lie: folders, single files, `.tar` archives (as WebDataset shards are) and Parquet tables.

All of them may lie in a store, under a URL (`s3://bucket/folder`). The rules, which docs/library.md states for people:

* Paths are absolute, or URLs; the order is that of the names: every scan sees the same pictures in the same order.
* What is named with a dot in front is left out, in folders and in archives, unless it is named outright.
* A link to a file is a place like any other. A link to a folder is followed when it leads out of everything that is
  scanned already; what lies within has its own name there. So loops end, and no picture is found by two ways.
* A member of an archive is shown as `ARCHIVE.tar/MEMBER`, a row of a table as `TABLE.parquet/ROW`.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from recur.data import storage
from recur.data.archives import is_end, picture_column
from recur.data.images import SUFFIXES
from recur.errors import InputError, RecurError

ARCHIVES: Final = (".tar", ".parquet")
_ROWS: Final = 32  # of a table in memory at once


@dataclass(frozen=True, slots=True)
class Place:
    """Where one picture lies. `path` names it; `size` in bytes.

    In an archive, `member` is the offset of its bytes (.tar) or its row (.parquet), and `mtime_ns` is the archive's.
    `content` holds its bytes where finding it meant reading it.
    """

    path: str
    size: int
    mtime_ns: int
    archive: str | None = None
    member: int | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """Said after the last picture of an archive, or instead of them all when it is `known`.

    `whole`: it could be read to its end.
    """

    path: str
    size: int
    mtime_ns: int
    known: bool
    whole: bool = True


Found: TypeAlias = Place | Archive | InputError
Known: TypeAlias = Callable[[str, int, int], bool]  # whether an archive of this path, size and time is done already


def absolute(name: str) -> str:
    """The name under which something is known: an absolute path, or a URL without a slash at its end."""
    return name.rstrip("/") if storage.is_url(name) else os.path.abspath(name)


def roots(arguments: Iterable[str]) -> list[str]:
    """The absolute paths (or URLs) of the arguments, each once, without those within another."""
    kept: dict[str, None] = {}
    for path in sorted(set(map(absolute, arguments))):  # what is above a path comes before it
        above = os.path.dirname(path)
        while above not in kept and os.path.dirname(above) != above:
            above = os.path.dirname(above)
        if above not in kept or above == path:
            kept[path] = None
    return list(kept)


def contains(folder: str, path: str) -> bool:
    """Whether `path` lies below `folder`, or is it; both absolute, compared as names."""
    return path == folder or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)


def walk(arguments: Iterable[str], known: Known = lambda path, size, mtime_ns: False) -> Iterator[Found]:
    """Every picture below the absolute paths in `arguments`, lazily; what cannot be read as its error, in its place."""
    # A lazy stream (a list of files) can be gone through only once; its folders are known when they come.
    tops = (
        [os.path.realpath(path) for path in arguments if os.path.isdir(path)] if isinstance(arguments, Sequence) else []
    )
    for path in arguments:
        if storage.is_url(path):
            yield from _stored(path, known)
            continue
        try:
            status = os.stat(path)
        except OSError as error:
            yield _unreachable(path, error)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _folder(path, tops, known)
        elif not stat.S_ISREG(status.st_mode):
            yield InputError(path, "not an ordinary file", "name a picture, a folder, a .tar or a .parquet file")
        else:
            yield from _file(path, status, known, outright=True)


def _folder(top: str, tops: list[str], known: Known) -> Iterator[Found]:
    """Depth first, with a stack of its own: folders may be nested deeper than Python calls may."""
    real = os.path.realpath(top)
    if not any(contains(each, real) for each in tops):
        tops.append(real)
    stack: list[tuple[Iterator[os.DirEntry[str]], bool]] = []
    problem = _listed(top, stack, away=False)
    if problem is not None:
        yield problem
    while stack:
        entries, away = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        try:
            if entry.is_dir():
                linked = entry.is_symlink()
                if linked or away:
                    target = os.path.realpath(entry.path)
                    if target in tops or (linked and any(contains(each, target) for each in tops)):
                        continue
                    if linked:
                        tops.append(target)
                problem = _listed(entry.path, stack, away=linked or away)
                if problem is not None:
                    yield problem
            elif entry.name.lower().endswith((*SUFFIXES, *ARCHIVES)):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield from _file(entry.path, status, known, outright=False)
        except OSError as error:  # gone meanwhile; a link to nothing or to itself; no permission
            yield _unreachable(entry.path, error)


def _listed(folder: str, stack: list[tuple[Iterator[os.DirEntry[str]], bool]], *, away: bool) -> InputError | None:
    """Put what is in a folder on the stack; `away`: it was reached through a link that leads out of the places."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        return _unreachable(folder, error)
    seen.sort(key=lambda entry: entry.name)
    stack.append((iter(seen), away))
    return None


def _unreachable(path: str, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(path, "no such file or folder", "check the path, and that its drive is there")
    if isinstance(error, PermissionError):
        return InputError(path, "no permission to read it", "change its permissions (chmod +rX)")
    return InputError(path, f"cannot be read ({error.strerror})", "check the disk or the link")


def _file(path: str, status: os.stat_result, known: Known, *, outright: bool) -> Iterator[Found]:
    yield from _entry(path, status.st_size, status.st_mtime_ns, known, outright=outright)


def _entry(path: str, size: int, mtime_ns: int, known: Known, *, outright: bool) -> Iterator[Found]:
    """A picture, or what is in an archive."""
    low = path.lower()
    if not low.endswith(ARCHIVES):
        yield Place(path, size, mtime_ns)
        return
    if known(path, size, mtime_ns):
        yield Archive(path, size, mtime_ns, known=True)
        return
    members = _tar(path, mtime_ns) if low.endswith(".tar") else _parquet(path, mtime_ns, outright=outright)
    whole = True
    for member in members:
        whole = whole and not isinstance(member, InputError)
        yield member
    yield Archive(path, size, mtime_ns, known=False, whole=whole)


def _stored(url: str, known: Known) -> Iterator[Found]:
    """What lies at a URL. Stores have no links, so there are no loops."""
    try:
        top = storage.find(url)
        if not top.folder:
            yield from _entry(url, top.size, top.mtime_ns, known, outright=True)
            return
        stack = [iter(storage.listed(url))]
    except RecurError as error:
        yield _unanswered(url, error)
        return
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        name = entry.path.rsplit("/", 1)[-1]
        if name.startswith("."):
            continue
        try:
            if entry.folder:
                stack.append(iter(storage.listed(entry.path)))
            elif name.lower().endswith((*SUFFIXES, *ARCHIVES)):
                yield from _entry(entry.path, entry.size, entry.mtime_ns, known, outright=False)
        except RecurError as error:
            yield _unanswered(entry.path, error)


def _unanswered(url: str, error: RecurError) -> InputError:
    if isinstance(error, InputError):
        return error
    return storage.Unanswered(url, str(error).removeprefix(f"{url}: "))


def _tar(path: str, mtime_ns: int) -> Iterator[Place | InputError]:
    count = 0
    # From a store everything is read, in one go, since each request takes its time; from a disk the headers alone.
    stream = storage.is_url(path)
    try:
        with storage.open_any(path) as file, tarfile.open(fileobj=file, mode="r|" if stream else "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # they would all be kept, however many
                name = member.name.removeprefix("./").strip("/")
                hidden = any(part.startswith(".") for part in name.split("/"))
                if not member.isreg() or member.issparse() or hidden or not name.lower().endswith(SUFFIXES):
                    continue
                count += 1
                content = None
                if stream:
                    whole = archive.extractfile(member)
                    content = b"" if whole is None else whole.read()
                yield Place(f"{path}/{name}", member.size, mtime_ns, path, member.offset_data, content)
            # tarfile takes a broken header for the end; the real one is a block of zeros.
            if not is_end(path, archive.offset):
                raise tarfile.ReadError("no mark of its end")
    except storage.StorageError as error:
        yield storage.Unanswered(path, str(error))
    except (tarfile.TarError, OSError, ValueError, RecurError) as error:
        yield InputError(path, f"not a whole tar archive, {count} pictures found in it ({error})", "copy it again")


def _parquet(path: str, mtime_ns: int, *, outright: bool) -> Iterator[Place | InputError]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        yield InputError(path, "a Parquet table, which needs pyarrow", 'pip install "recur[library]"')
        return
    try:
        with storage.open_any(path) as file, ParquetFile(file) as table:
            column, inner = picture_column(table.schema_arrow)
            if column is None:
                if outright:
                    what = f"no column of pictures among {', '.join(table.schema_arrow.names)}"
                    yield InputError(path, what, "expected binary, or struct{bytes, path}; name another file")
                return
            row = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    content = value.get(inner) if inner and value is not None else value
                    name = f"{path}/{row}"
                    if content:
                        yield Place(name, len(content), mtime_ns, path, row, content)
                    else:
                        yield InputError(name, "no bytes of a picture in this row", "store the pictures in the table")
                    row += 1
    except storage.StorageError as error:
        yield storage.Unanswered(path, str(error))
    except (ArrowException, OSError, RecurError) as error:
        yield InputError(path, f"not a whole Parquet table ({error})", "copy it again")
