"""What is done to the pictures of one shard: read, given to a model, written as records.

Any task whose predictor has `stream`, with results that have `to_json`, can be done in shards. One that needs options
of its own, or columns in Parquet, has a line in `TASKS`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from recur.bundle import read_bundle
from recur.data.storage import Unanswered
from recur.errors import InputError, RecurError
from recur.hub import resolve
from recur.library.reading import add_readers, read_bytes
from recur.library.sources import Place, walk
from recur.predict import predictor
from recur.scale.folder import Folder

FORMS: Final = ("jsonl", "parquet")
SHOWN: Final = 20  # pictures of one shard that failed and are named; its records have them all

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """`results(model, contents, options)` gives the records of each picture, or its error, in the order of `contents`.

    `columns` are the fields of a record, with their types in Arrow's words, that Parquet shows as columns.
    """

    results: Callable[[Any, Iterable[bytes], Mapping[str, Any]], Iterator[list[Record] | InputError]]
    columns: Mapping[str, str] = field(default_factory=dict)


def stream(model: Any, contents: Iterable[bytes], options: Mapping[str, Any]) -> Iterator[list[Record] | InputError]:
    """One record a picture, of any predictor."""
    for result in model.stream(contents, **options):
        problem = result if isinstance(result, InputError) else getattr(result, "problem", None)
        yield [result.to_json()] if problem is None else problem


def captions(model: Any, contents: Iterable[bytes], options: Mapping[str, Any]) -> Iterator[list[Record] | InputError]:
    """One record a picture and language; `options` are those of `stream_languages`."""
    languages = options["languages"] or model.languages[:1]
    for result in model.stream_languages(contents, **{**options, "languages": languages}):
        yield result if isinstance(result, InputError) else [each.to_json() for each in result]


TASKS: Final[dict[str, Task]] = {
    "caption": Task(
        captions,
        {"language": "string", "caption": "string", "confidence": "double", "log_prob": "double", "model": "string"},
    ),
}


def task_of(name: str) -> Task:
    """How a task is done in shards."""
    return TASKS.get(name, Task(stream))


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a job: the pictures named by `inputs`, or all that are in one `archive`."""

    name: str
    inputs: tuple[str, ...]
    archive: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """The records of a shard, written under a name that nobody reads yet. `errors` are the first of the `failed`."""

    file: str
    bytes: int
    sha256: str
    pictures: int
    records: int
    failed: int
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A shard that could not be done, and is to be tried again."""

    reason: str


class Work:
    """Makes shards with one model; made once in each process."""

    def __init__(self, model: str, options: Mapping[str, Any], out: str, form: str, threads: int | None) -> None:
        bundle = read_bundle(resolve(model))
        self.task, self.model = task_of(bundle.task), predictor(bundle.task)(bundle, threads=threads)
        self.options, self.folder, self.form = options, Folder(out), form
        add_readers()

    def __call__(self, shard: Shard) -> Draft | Broken:
        """Do it, and write what came of it."""
        errors: list[InputError] = []
        try:
            rows, pictures = [], 0
            for path, result in self._results(shard):
                pictures += 1
                if isinstance(result, InputError):
                    errors.append(InputError(path, result.what, result.fix))
                    reason = str(errors[-1]).removeprefix(f"{path}: ")
                    rows.append({"path": path, "error": reason})
                else:
                    rows += [{**record, "path": path} for record in result]
            content = encoded(rows, self.form, self.task.columns)
            draft = self.folder.draft(f"{shard.name}.{self.form}")
            self.folder.write(draft, content)
        except (RecurError, OSError) as error:
            return Broken(str(error))
        shown = tuple(map(str, errors[:SHOWN]))
        return Draft(draft, len(content), hashlib.sha256(content).hexdigest(), pictures, len(rows), len(errors), shown)

    def _results(self, shard: Shard) -> Iterator[tuple[str, list[Record] | InputError]]:
        """(path, records or error) of every picture, in order."""
        met: list[tuple[str, InputError | None]] = []

        def contents() -> Iterator[bytes]:
            for found in walk(shard.inputs):
                if isinstance(found, Place):
                    try:
                        content, _ = read_bytes(found)
                    except Unanswered:
                        raise
                    except InputError as error:
                        met.append((found.path, error))
                        continue
                    met.append((found.path, None))
                    yield content
                elif isinstance(found, InputError):
                    # Of an archive that breaks off nobody knows what is missing: it is not done.
                    if isinstance(found, Unanswered) or (shard.archive and found.path == shard.inputs[0]):
                        raise found
                    met.append((found.path, found))

        place = 0
        for result in self.task.results(self.model, contents(), self.options):
            while met[place][1] is not None:
                path, error = met[place]
                assert error is not None
                yield path, error
                place += 1
            yield met[place][0], result
            place += 1
        for path, error in met[place:]:
            assert error is not None
            yield path, error


def maker(
    model: str, options: Mapping[str, Any], out: str, form: str, threads: int | None
) -> Callable[[], Callable[[Shard], Draft | Broken]]:
    """What an engine needs to make shards in every process."""
    return partial(Work, model, options, out, form, threads)


def encoded(rows: list[Record], form: str, columns: Mapping[str, str]) -> bytes:
    """Records as a file: JSON lines; or Parquet with path, `columns`, error, and the whole record as JSON."""
    lines = [json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") for row in rows]
    if form == "jsonl":
        return b"".join(line + b"\n" for line in lines)
    pa, parquet = arrow()
    table: dict[str, Any] = {"path": pa.array([_text(row["path"]) for row in rows], pa.string())}
    for name, kind in columns.items():
        table[name] = pa.array([row.get(name) for row in rows], pa.type_for_alias(kind))
    table["error"] = pa.array([row.get("error") for row in rows], pa.string())
    table["record"] = pa.array([line.decode() for line in lines], pa.string())
    out = io.BytesIO()
    parquet.write_table(pa.table(table), out, compression="zstd")
    return out.getvalue()


def arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet. Raises RecurError without the package."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise RecurError('Parquet needs pyarrow, which is not installed; pip install "recur[library]"') from None
    return pyarrow, pyarrow.parquet


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
