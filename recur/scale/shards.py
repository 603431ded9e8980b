"""A job in shards: what is in each is planned once, each is committed once, and a later run does what is missing.

In the folder of a job lie

    plan.jsonl          the job in its first line, then a shard a line: its name, and what goes into it
    drafts/             what workers have written and nobody has committed
    part-000000.jsonl   the records of a committed shard
    commits/            one small file a shard: it is there when the shard is done
    manifest.jsonl      all of these, a line a shard, written when a run ends

A worker writes a draft; the one driver gives it its name and then commits it. A killed worker costs the shard that it
had in hand, a killed driver those that were not committed; a worker that nobody expects any more can do no harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from recur.errors import InputError, RecurError
from recur.library.sources import Archive, Place, walk
from recur.scale.engine import Engine, Lost
from recur.scale.folder import Folder
from recur.scale.tasks import Broken, Draft, Shard

FORMAT: Final = 1
PLAN, MANIFEST, COMMITS, DRAFTS = "plan.jsonl", "manifest.jsonl", "commits", "drafts"


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one shard: an entry of the manifest, or the `problem` that it has."""

    shard: str
    entry: Mapping[str, Any] | None = None
    errors: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(slots=True)
class Outcome:
    """Shards that were done before and now, and those that could not be; of all done ones, the pictures."""

    before: int = 0
    done: int = 0
    broken: int = 0
    pictures: int = 0
    failed: int = 0


@dataclass
class Job:
    """One job in `folder`. `header` says what it is; a folder holds one job. `form`: jsonl or parquet.

    To be used inside `folder.held()`. Errors: RecurError for a folder with another job in it; OSError.
    """

    folder: Folder
    header: Mapping[str, Any]
    form: str
    shards: list[Shard] = field(default_factory=list)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def plan(self, places: Iterable[str], size: int) -> list[InputError]:
        """Put what lies in these places, and is in no shard yet, into shards; what cannot be found is returned.

        An archive is a shard; loose pictures are put together, `size` in each, in the order of their names.
        """
        self._read_plan()
        known = {name for shard in self.shards for name in shard.inputs}
        problems: list[InputError] = []
        before, loose = len(self.shards), list[str]()
        for found in walk(places, known=lambda path, size, mtime_ns: True):
            if isinstance(found, InputError):
                problems.append(found)
            elif found.path in known:
                continue
            elif isinstance(found, Archive):
                self._add((found.path,), archive=True)
            elif isinstance(found, Place):
                loose.append(found.path)
                if len(loose) >= size:
                    self._add(tuple(loose), archive=False)
                    loose = []
        if loose:
            self._add(tuple(loose), archive=False)
        if len(self.shards) > before or self.folder.read(PLAN) is None:
            lines = [dict(self.header), *map(asdict, self.shards)]
            self.folder.write(PLAN, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        return problems

    def run(
        self,
        engine: Engine,
        make: Callable[[], Callable[[Shard], Draft | Broken]],
        tell: Callable[[Told], None] = lambda told: None,
    ) -> Outcome:
        """Do the shards that are missing."""
        self._read_commits()
        outcome = Outcome(before=len(self.entries))
        missing = [shard for shard in self.shards if shard.name not in self.entries]
        try:
            for shard, result in engine.map(make, missing, ordered=False) if missing else ():
                reason = self._settle(shard, result, tell)
                outcome.done += not reason
                outcome.broken += bool(reason)
                if reason:
                    tell(Told(shard.name, problem=reason))
        finally:
            self._write_manifest()
        for name in self.folder.names(DRAFTS):
            self.folder.remove(f"{DRAFTS}/{name}")
        outcome.pictures = sum(entry["pictures"] for entry in self.entries.values())
        outcome.failed = sum(entry["failed"] for entry in self.entries.values())
        return outcome

    # ------------------------------------------------------------------------------------------------------- inside

    def _add(self, inputs: tuple[str, ...], *, archive: bool) -> None:
        self.shards.append(Shard(f"part-{len(self.shards):06d}", inputs, archive))

    def _read_plan(self) -> None:
        content = self.folder.read(PLAN)
        if content is None:
            return
        try:
            header, *rows = [json.loads(line) for line in content.splitlines()]
            self.shards = [Shard(row["name"], tuple(row["inputs"]), row["archive"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RecurError(f"{self.folder.path(PLAN)}: is no plan of recur ({error}); choose another --out") from None
        plain = json.loads(json.dumps(self.header))
        for key in sorted({*header, *plain}):
            if header.get(key) != plain.get(key):
                raise RecurError(
                    f"{self.folder.place}: holds another job ({key} {header.get(key)!r}, expected {plain.get(key)!r}); "
                    "give the same options, or choose another --out"
                )

    def _read_commits(self) -> None:
        """What is done: its commit is there, and its records are whole. The manifest saves opening each commit."""
        files = self.folder.names()
        found = {entry["shard"]: entry for entry in _lines(self.folder.read(MANIFEST))}
        planned = {shard.name for shard in self.shards}
        for file in self.folder.names(COMMITS):
            name = file.removesuffix(".json")
            if name in planned and name not in found:
                found |= {entry["shard"]: entry for entry in _lines(self.folder.read(f"{COMMITS}/{file}"))}
        self.entries = {name: entry for name, entry in found.items() if files.get(entry["file"]) == entry["bytes"]}

    def _settle(self, shard: Shard, result: Draft | Broken | Lost, tell: Callable[[Told], None]) -> str:
        """Commit a draft and tell of it; why the shard is not done, empty when it is."""
        if not isinstance(result, Draft):
            return result.reason
        try:
            entry = self._commit(shard, result)
        except (RecurError, OSError) as error:  # the disk is full, the store does not answer: others may go better
            return str(error)
        tell(Told(shard.name, entry, result.errors))
        return ""

    def _commit(self, shard: Shard, draft: Draft) -> dict[str, Any]:
        entry = {
            "shard": shard.name,
            "file": f"{shard.name}.{self.form}",
            "bytes": draft.bytes,
            "sha256": draft.sha256,
            "pictures": draft.pictures,
            "records": draft.records,
            "failed": draft.failed,
        }
        self.folder.move(draft.file, str(entry["file"]))
        self.folder.write(f"{COMMITS}/{shard.name}.json", json.dumps(entry).encode())
        self.entries[shard.name] = entry
        return entry

    def _write_manifest(self) -> None:
        lines = (json.dumps(self.entries[name]).encode() + b"\n" for name in sorted(self.entries))
        self.folder.write(MANIFEST, b"".join(lines))


def _lines(content: bytes | None) -> Iterator[dict[str, Any]]:
    """The entries of a manifest or a commit; a damaged line is none: its shard is done again."""
    for line in (content or b"").splitlines():
        try:
            entry = json.loads(line)
            if {"shard", "file", "bytes", "pictures", "failed"} <= set(entry):
                yield entry
        except (ValueError, TypeError):
            continue
