"""Captioned pictures in shards: `.tar` archives as WebDataset writes them, and Parquet tables, here or in a store.

They are read through once. What stays in memory is captions and places; the pictures stay where they are, and
come back a block of neighbours at a time.

* In an archive, files of one name but for the ending are a sample: a picture; `.txt` or `.caption` with a caption a
  line, `.LANG.txt` with those of a language; `.json` with an object as a line of annotations.jsonl is.
* In a table, a row is one: the column of pictures, and columns named as the keys of annotations.jsonl.
* The split is what a sample states, else the word train, dev (val, validation) or test in the name of the shard, or of
  its folder; where nothing states one, a hash of the names decides.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from recur.data import storage
from recur.data.archives import is_end, picture_column
from recur.data.caption_formats import SPLITS, Row, look_in_folder, record_row
from recur.data.captions import CaptionData, Collector, Entry, guess_language
from recur.data.images import SUFFIXES, iterate_pictures
from recur.errors import InputError, RecurError
from recur.files import write_atomically

FORMAT: Final = 1
ENDINGS: Final = (".tar", ".parquet")
BLOCK: Final = 256  # pictures of an archive that are read together; in a table a row group is
_CHECKED_AT: Final = 72  # pixels a side: enough to find a picture that cannot be decoded


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a shard: block `block` of it; there its bytes from `start` on (.tar), or the row (.parquet)."""

    name: str
    block: int
    start: int
    size: int
    split: Any
    captions: list[tuple[str | None, Any]]


@dataclass(frozen=True, slots=True)
class Shard:
    """What is in one shard. `blocks`: from and to which byte (.tar), or nothing (.parquet)."""

    path: str
    blocks: list[tuple[int, int]]
    samples: list[Sample]


class Shards:
    """The captions of all shards in `data`, and the pictures when asked for. Made by `open_shards`."""

    def __init__(self, data: CaptionData, places: Mapping[Path, tuple[Shard, Sample]]) -> None:
        self.data, self.places = data, places
        self._first: dict[str, int] = {}
        count = 0
        for shard, _ in places.values():
            if shard.path not in self._first:
                self._first[shard.path] = count
                count += 1 + max(sample.block for sample in shard.samples)

    def block_of(self, path: Path) -> int:
        """The number, among all of them, of the block that a picture is in."""
        shard, sample = self.places[path]
        return self._first[shard.path] + sample.block


class Reader:
    """The bytes of pictures in shards, with the last `keep` blocks in memory."""

    def __init__(self, shards: Shards, keep: int) -> None:
        self.shards, self.keep = shards, keep
        self._blocks: OrderedDict[int, Any] = OrderedDict()

    def __call__(self, path: Path) -> bytes:
        """Those of one picture. Errors: RecurError when its shard is gone or was changed."""
        shard, sample = self.shards.places[path]
        number = self.shards.block_of(path)
        if number not in self._blocks:
            if len(self._blocks) >= self.keep:
                self._blocks.popitem(last=False)
            self._blocks[number] = _load(shard, sample.block)
        self._blocks.move_to_end(number)
        block = self._blocks[number]
        start = sample.start
        if shard.path.lower().endswith(".parquet"):
            return bytes(block[start]) if start < len(block) else b""
        start -= shard.blocks[sample.block][0]
        return bytes(block[start : start + sample.size])


def are_shards(data: str | Path) -> bool:
    """Whether this is a shard, a folder of shards without a caption file, or a URL."""
    name = str(data)
    if storage.is_url(name) or (name.lower().endswith(ENDINGS) and os.path.isfile(name)):
        return True
    if not os.path.isdir(name):
        return False
    try:
        look_in_folder(Path(name))
    except (RecurError, OSError):
        return any(True for _ in _found(name))
    return False


def open_shards(
    data: str | Path, known: Path, *, language: str | None = None, share: tuple[int, int] = (0, 1)
) -> Shards:
    """Read the captions of all shards, and look at each picture once: those that cannot be read are left out.

    What was found is kept in the folder `known`, a file a shard, and not read again until the shard changes. `share`
    (which, of how many): processes that do this at once each begin at another place, and take what others have done.
    Raises RecurError when nothing usable is there.
    """
    name = str(data)
    try:
        listed = list(_found(name))
    except OSError as error:
        raise RecurError(f"{name}: cannot be read ({error.strerror}); check its permissions") from None
    if not listed:
        raise RecurError(
            f"{name}: no .tar and no .parquet in it; expected shards of captioned pictures; check the path"
        )
    begin = len(listed) * share[0] // share[1]
    found: dict[str, tuple[Shard, list[str]]] = {}
    for path, identity in (*listed[begin:], *listed[:begin]):
        found[path] = _read_shard(path, identity, known)
    collector = Collector("shards", language)
    places: dict[Path, tuple[Shard, Sample]] = {}
    shards = [found[path] for path, _ in listed]
    texts = [text for shard, _ in shards for sample in shard.samples for lang, text in sample.captions if not lang]
    default = language or guess_language(texts)
    for shard, problems in shards:
        collector.problems += problems
        for sample in shard.samples:
            picture = Path(f"{shard.path}/{sample.name}")
            if picture in places:
                collector.problem(str(picture), "is there twice", "the first one counts")
                continue
            places[picture] = (shard, sample)
            collector.rows += 1
            # Named without its folders: which ones are held out is the same on every machine.
            entry = collector.entries[str(picture)] = Entry(
                str(picture), f"{os.path.basename(shard.path)}/{sample.name}", sample.split
            )
            row = Row(str(picture), (sample.name,), sample.split, sample.captions, whole=True)
            collector.add_captions(row, entry, default)
    return Shards(collector.finish(Path(name)), places)


# -------------------------------------------------------------------------------------------------------------- inside


def _found(place: str) -> Iterator[tuple[str, list[Any]]]:
    """Every shard in a place, by name, and by what a change of it shows: path, size, time."""
    if storage.is_url(place):
        top = storage.find(place)
        for entry in storage.listed(place) if top.folder else [top]:
            base = entry.path.rsplit("/", 1)[-1]
            if entry.folder and not base.startswith("."):
                yield from _found(entry.path)
            elif base.lower().endswith(ENDINGS) and not base.startswith("."):
                yield entry.path, [entry.path, entry.size, entry.mtime_ns]
    elif os.path.isdir(place):
        for name in sorted(os.listdir(place)):
            path = os.path.join(place, name)
            if not name.startswith(".") and (os.path.isdir(path) or name.lower().endswith(ENDINGS)):
                yield from _found(path)
    else:
        status = os.stat(place)
        yield place, [place, status.st_size, status.st_mtime_ns]


def _read_shard(path: str, identity: list[Any], known: Path) -> tuple[Shard, list[str]]:
    """One shard, and lines about what is wrong in it; from its file in `known` where that is of this very shard."""
    kept = known / f"{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.json"
    stamp = [FORMAT, BLOCK, *identity]
    try:
        content = json.loads(kept.read_bytes())
        if content["stamp"] == stamp:
            samples = [Sample(**row) for row in content["samples"]]
            return Shard(path, content["blocks"], samples), content["problems"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    problems: list[str] = []
    broken: list[str] = []
    samples = list(_readable(path, problems, broken))
    spans: dict[int, tuple[int, int]] = {}
    for sample in samples:
        low, high = spans.get(sample.block, (sample.start, 0))
        spans[sample.block] = (min(low, sample.start), max(high, sample.start + sample.size))
    blocks = [spans.get(number, (0, 0)) for number in range(1 + max(spans, default=-1))]
    if not broken:  # what breaks off may be whole the next time
        content = {"stamp": stamp, "blocks": blocks, "samples": list(map(asdict, samples)), "problems": problems}
        known.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(content))
    return Shard(path, blocks, samples), [*problems, *broken]


def _readable(path: str, problems: list[str], broken: list[str]) -> Iterator[Sample]:
    """The samples of a shard whose pictures can be decoded."""
    waiting: deque[Sample] = deque()
    read = _table if path.lower().endswith(".parquet") else _archive

    def contents() -> Iterator[bytes]:
        try:
            for sample, content in read(path, problems):
                waiting.append(sample)
                yield content
        except (tarfile.TarError, OSError, ValueError, RecurError) as error:
            broken.append(f"{path}: breaks off ({error}); copy it again, what was read of it is used")

    for _, square in iterate_pictures(contents(), size=_CHECKED_AT, workers=2, ahead=64):
        sample = waiting.popleft()
        if isinstance(square, InputError):
            problems.append(f"{path}/{sample.name}: {square.what}; {square.fix}")
        else:
            yield sample


def _archive(path: str, problems: list[str]) -> Iterator[tuple[Sample, bytes]]:
    """The samples of an archive, whose files lie together."""
    stated, count = _stated(path), 0
    key: str | None = None
    record: dict[str, Any] = {}
    picture: tuple[str, int, bytes] | None = None

    def sample() -> Iterator[tuple[Sample, bytes]]:
        if picture is not None:
            yield _sample(path, picture, count // BLOCK, record, stated, problems), picture[2]

    with (
        storage.open_any(path) as file,
        tarfile.open(fileobj=file, mode="r|" if storage.is_url(path) else "r:") as archive,
    ):
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # they would all be kept, however many
            name = member.name.removeprefix("./")
            folder, _, base = name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not member.isreg() or not stem:
                continue
            if f"{folder}/{stem}" != key:
                yield from sample()
                count += picture is not None
                key, record, picture = f"{folder}/{stem}", {}, None
            opened = archive.extractfile(member)
            content = b"" if opened is None else opened.read()
            ending = ending.lower()
            if f".{ending}".endswith(SUFFIXES):
                picture = (name, member.offset_data, content)
            else:
                record |= _said(f"{path}/{name}", ending, content, problems)
        yield from sample()
        if not is_end(path, archive.offset):  # tarfile takes a broken header for the end
            raise tarfile.ReadError("no mark of its end")


def _said(where: str, ending: str, content: bytes, problems: list[str]) -> dict[str, Any]:
    """What a file beside a picture says about it."""
    language, _, kind = ending.rpartition(".")
    if kind not in ("txt", "caption", "json"):
        return {}
    try:
        text = content.decode("utf-8-sig")
        if kind == "json":
            said = json.loads(text)
            return said if isinstance(said, dict) else {}
    except (ValueError, RecursionError) as error:
        problems.append(f"{where}: cannot be read ({error}); expected UTF-8 text or a JSON object; left out")
        return {}
    return {f"captions_{language}" if language else "caption": [line for line in text.splitlines() if line.strip()]}


def _table(path: str, problems: list[str]) -> Iterator[tuple[Sample, bytes]]:
    """The samples of a table."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise RecurError("Parquet needs pyarrow, which is not installed (recur[library])") from None
    stated, row = _stated(path), 0
    try:
        with storage.open_any(path) as file, ParquetFile(file) as table:
            column, inner = picture_column(table.schema_arrow)
            if column is None:
                problems.append(f"{path}: no column of pictures; expected binary, or struct{{bytes, path}}; left out")
                return
            for block in range(table.num_row_groups):
                at = 0
                for batch in table.iter_batches(batch_size=32, row_groups=[block]):
                    for record in batch.to_pylist():
                        value = record.pop(column)
                        content = value.get(inner) if inner and value is not None else value
                        picture = (str(row), at, content or b"")
                        yield _sample(path, picture, block, record, stated, problems), content or b""
                        row, at = row + 1, at + 1
    except ArrowException as error:
        raise RecurError(str(error)) from None


def _sample(
    path: str, picture: tuple[str, int, bytes], block: int, record: dict[str, Any], stated: str | None, tell: list[str]
) -> Sample:
    name, start, content = picture
    where = f"{path}/{name}"
    row = record_row(
        {**record, "file_name": name}, where, stated, lambda *parts: tell.append(f"{parts[0]}: {parts[1]}; {parts[2]}")
    )
    assert row is not None  # it has a name
    split = str(row.split).strip().lower() if row.split else None
    if split is not None and split not in SPLITS:
        tell.append(f"{where}: unknown split {split!r}; expected train, dev, test or none; not used")
        split = "none"
    return Sample(name, block, start, len(content), None if split is None else SPLITS[split], row.captions)


def _stated(path: str) -> str | None:
    """The split that the name of a shard states, or that of its folder."""
    for part in reversed(path.replace("\\", "/").split("/")[-2:]):
        for word in re.split("[^a-z]+", part.lower()):
            if SPLITS.get(word, "none") != "none":
                return SPLITS[word]
    return None


def _load(shard: Shard, block: int) -> Any:
    """The bytes of a block of an archive; the pictures of a row group of a table."""
    changed = f"{shard.path}: gone, or changed since the training began"
    try:
        if not shard.path.lower().endswith(".parquet"):
            low, high = shard.blocks[block]
            if storage.is_url(shard.path):
                return storage.read(shard.path, low, high)
            with open(shard.path, "rb") as whole:
                whole.seek(low)
                return whole.read(high - low)
        from pyarrow.parquet import ParquetFile

        with storage.open_any(shard.path) as file, ParquetFile(file) as table:
            column, inner = picture_column(table.schema_arrow)
            values = table.read_row_group(block, columns=[column]).column(0).to_pylist()
            return [(value.get(inner) if inner and value is not None else value) or b"" for value in values]
    except (OSError, ValueError) as error:  # Arrow's errors are among these
        raise RecurError(f"{changed} ({error}); put it back, or begin again without --resume") from None
