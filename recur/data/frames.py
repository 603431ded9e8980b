"""Frames in their order, with their times and, where there are some, their labels: videos, folders, drives, features.

A video is decoded frame by frame and never held; every frame has the time that the file gives it, so a variable frame
rate needs no rule of its own. A folder is read in the natural order of its names (frame2 before frame10). A drive is
the folder, or the .tar or .tar.gz of it, that a camera car wrote: catalogs of JSON lines, and pictures. Features are a
NumPy archive with `FOLD/NAME/scores` [T, D] and `FOLD/NAME/labels` [T].
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from recur.data.images import MAX_PIXELS, Square, find_pictures, read_square, to_square
from recur.errors import InputError, RecurError

DIRECTIONS: Final = ("left", "straight", "right")
TURN: Final = 0.1  # of the steering wheel's way to one side; what is less is straight
MAX_DRIVE: Final = 1 << 30  # bytes of the pictures of a packed drive, which are held
TAIL: Final = 0.05  # a video that ends this share of its length too early was cut off
# Only files that hold their pictures themselves: a play list would make the decoder open what it names.
FORMATS: Final = (
    "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,avi,mpeg,mpegts,mpegvideo,flv,ogg,gif,asf,h264,hevc,ivf,apng,webp"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """`number` from 0; `seconds` from the start, or None; `pixels` uint8 [S, S, 3] or a feature vector [D]."""

    number: int
    seconds: float | None
    pixels: NDArray[Any]


@dataclass(frozen=True)
class LabelledFrames:
    """A labelled sequence: features [T, D] or pixels [T, S, S, 3], labels [T] as numbers into `classes`."""

    name: str
    fold: str
    values: NDArray[Any]
    labels: NDArray[np.int64]


def direction(angle: float) -> int:
    """0 left, 1 straight, 2 right, of a steering angle from -1 (left) to 1 (right)."""
    return 0 if angle < -TURN else 2 if angle > TURN else 1


def read_frames(
    path: str | Path, *, size: int, fps: float | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Frame]:
    """The frames of a video, a folder of pictures or a drive, as squares of `size` pixels.

    `fps`: frames a second, for a folder, which has no times. Errors: InputError, after the frames that could be read.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(path, "does not exist", "check the name")
    if is_drive(source):
        yield from _drive_frames(source, size, max_pixels)
    elif source.is_dir():
        yield from _folder_frames(source, size, fps, max_pixels)
    else:
        yield from _video_frames(source, source, size, max_pixels)


def read_video(data: bytes, *, size: int, name: str = "video", max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """The frames of a video in memory. Errors: InputError, after the frames that could be read."""
    yield from _video_frames(io.BytesIO(data), name, size, max_pixels)


# -------------------------------------------------------------------------------------------------------------- videos


def _video_frames(source: Path | io.BytesIO, name: str | Path, size: int, max_pixels: int) -> Iterator[Frame]:
    try:
        import av
    except ModuleNotFoundError:
        raise RecurError('videos need PyAV, which is not installed; pip install "recur[video]"') from None
    if (source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())) == 0:
        raise InputError(name, "an empty file", "give a video")
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    stream: Any = source.open("rb") if isinstance(source, Path) else source
    with stream:
        try:
            container = av.open(stream, mode="r", options=options)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise InputError(name, f"no video that can be read ({_reason(error)})", "give a video file") from error
        with container:
            yield from _decoded(av, container, name, size, max_pixels)


def _decoded(av: Any, container: Any, name: str | Path, size: int, max_pixels: int) -> Iterator[Frame]:
    if not container.streams.video:
        raise InputError(name, "holds no pictures", "give a video")
    track = container.streams.video[0]
    step = 1 / float(track.average_rate) if track.average_rate else 0.0
    told = [container.duration / 1_000_000 if container.duration else 0.0, (track.frames or 0) * step]
    if track.duration and track.time_base:
        told.append(float(track.duration * track.time_base))
    whole = max(told)
    number, start, last, broken = 0, None, 0.0, 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            pictures = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            # One packet that is broken costs its own frames; a demuxer that fails again and again has reached its end.
            broken += 1
            if broken > 1000:
                raise InputError(name, f"broken after frame {number} ({_reason(error)})", "get it again") from error
            continue
        for picture in pictures:
            if picture.width * picture.height > max_pixels:
                raise InputError(
                    name,
                    f"frames of {picture.width}x{picture.height} pixels; at most {max_pixels:,} are read",
                    "make it smaller",
                )
            at = picture.time if picture.time is not None else (last + step if number else 0.0)
            start = at if start is None else start
            last = max(at, last) if number else at
            yield Frame(number, round(last - start, 6), to_square(picture.to_ndarray(format="rgb24"), size))
            number += 1
    if number == 0:
        raise InputError(name, "a video without a frame that can be read", "get it again")
    if broken:
        raise InputError(name, f"{broken} broken parts; {number} frames could be read", "get it again")
    if start is not None and last - start + 2 * step < whole * (1 - TAIL):
        raise InputError(name, f"cut off: it ends after {last - start:.1f} of {whole:.1f} seconds", "get it again")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:100]


# ------------------------------------------------------------------------------------------------- folders and drives


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which frame2 comes before frame10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _folder_frames(folder: Path, size: int, fps: float | None, max_pixels: int) -> Iterator[Frame]:
    names = sorted(find_pictures([folder], recursive=False), key=lambda name: natural(Path(name).name))
    if not names:
        raise InputError(folder, "holds no frames", "give a folder of pictures")
    problem: InputError | None = None
    for number, name in enumerate(names):
        found = read_square(name, size=size, max_pixels=max_pixels)
        if isinstance(found, InputError):
            problem = problem or found  # the frame keeps its number; the others go on
            continue
        yield Frame(number, number / fps if fps else None, found.pixels)
    if problem is not None:
        raise problem


def is_drive(path: Path) -> bool:
    """Whether it looks like what a camera car wrote, packed or not."""
    if path.is_dir():
        return any(path.glob("*.catalog"))
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


@dataclass(frozen=True)
class Drive:
    """`records` in their order, each with its angle and time; `picture` gives the bytes of a name."""

    records: list[dict[str, Any]]
    pictures: Mapping[str, bytes] | None
    folder: Path

    def picture(self, record: Mapping[str, Any], size: int, max_pixels: int) -> Square:
        """The square of a record. Errors: InputError."""
        name = Path(str(record["cam/image_array"])).name
        source: bytes | Path = self.folder / "images" / name
        if self.pictures is not None:
            if name not in self.pictures:
                raise InputError(self.folder, f"has no picture {name!r}", "get it again")
            source = self.pictures[name]
        found = read_square(source, size=size, max_pixels=max_pixels)
        if isinstance(found, InputError):
            raise InputError(f"{self.folder}: {name}", found.what, found.fix)
        return found


def read_drive(path: Path) -> Drive:
    """The records of a drive. Errors: InputError when it has none, or is broken."""
    pictures: dict[str, bytes] | None = None
    texts: list[tuple[str, bytes]] = []
    if path.is_dir():
        texts = [(file.name, file.read_bytes()) for file in path.glob("*.catalog") if not file.name.startswith("._")]
    else:
        pictures, held = {}, 0
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = Path(member.name).name
                    kept = name.endswith((".catalog", ".jpg", ".jpeg", ".png")) and not name.startswith("._")
                    if not member.isfile() or not kept:
                        continue
                    held += member.size
                    if held > MAX_DRIVE:
                        raise InputError(path, f"more than {MAX_DRIVE:,} bytes of pictures", "unpack it")
                    stream = archive.extractfile(member)
                    data = stream.read() if stream is not None else b""
                    if name.endswith(".catalog"):
                        texts.append((name, data))
                    else:
                        pictures[name] = data
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise InputError(path, f"a broken archive ({str(error)[:100]})", "get it again") from error
    records: list[dict[str, Any]] = []
    for _, text in sorted(texts, key=lambda entry: natural(entry[0])):
        for line in text.decode("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
                record["user/angle"] = float(record["user/angle"])
                record["cam/image_array"], record["_index"] = str(record["cam/image_array"]), int(record["_index"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(path, f"a record that cannot be read ({str(error)[:80]})", "mend it") from error
            records.append(record)
    if not records:
        raise InputError(path, "holds no record of a drive", "give one with a .catalog")
    return Drive(sorted(records, key=lambda record: cast(int, record["_index"])), pictures, path)


def _drive_frames(path: Path, size: int, max_pixels: int) -> Iterator[Frame]:
    drive = read_drive(path)
    first = drive.records[0].get("_timestamp_ms")
    for number, record in enumerate(drive.records):
        at = record.get("_timestamp_ms")
        seconds = (at - first) / 1000 if type(at) is int and type(first) is int else None
        yield Frame(number, seconds, drive.picture(record, size, max_pixels).pixels)


# ---------------------------------------------------------------------------------------------------- features, labels


def read_features(path: str | Path) -> list[tuple[str, str, NDArray[np.float32], NDArray[np.int64] | None]]:
    """(fold, name, scores [T, D], labels [T] or None) of every sequence of an archive.

    Errors: InputError for one that is broken, or whose labels do not match its frames.
    """
    found = []
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for key in archive.files:
                if key.rpartition("/")[2] not in ("scores", "features"):
                    continue
                scores, stem = archive[key], key.rpartition("/")[0]
                labels = archive[f"{stem}/labels"] if f"{stem}/labels" in archive.files else None
                fold, _, name = stem.rpartition("/")
                if scores.ndim != 2 or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
                    raise InputError(path, f"{key} has shape {list(scores.shape)}; expected finite [frames, features]")
                if labels is not None and (labels.shape != scores.shape[:1] or labels.dtype.kind not in "iu"):
                    raise InputError(
                        path,
                        f"{stem} has {list(labels.shape)} labels for {len(scores)} frames; expected one for each",
                        "mend it",
                    )
                if labels is not None and len(labels) and int(labels.min()) < 0:
                    raise InputError(path, f"{stem} has the label {labels.min()}; expected 0 or more", "mend it")
                found.append(
                    (fold, name, scores.astype(np.float32), None if labels is None else labels.astype(np.int64))
                )
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(path, f"no NumPy archive that can be read ({str(error)[:100]})", "get it again") from error
    if not found:
        raise InputError(path, "holds no scores", "expected FOLD/NAME/scores and FOLD/NAME/labels")
    widths = sorted({scores.shape[1] for _, _, scores, _ in found})
    if len(widths) > 1:
        raise InputError(path, f"scores of {widths[0]} and of {widths[1]} numbers; expected one", "mend it")
    return found


def read_labelled_frames(
    path: str | Path, *, size: int, max_pixels: int = MAX_PIXELS
) -> tuple[list[LabelledFrames], list[str]]:
    """The labelled sequences of an archive of features, a drive, or a folder with `labels.csv`; and the classes.

    `labels.csv` has the columns `file` and `label`, a row for each frame. Errors: InputError; RecurError.
    """
    source = Path(path)
    if not source.exists():
        raise InputError(path, "does not exist", "check the name")
    if source.suffix.lower() == ".npz":
        parts = read_features(source)
        bare = [name for _, name, _, labels in parts if labels is None]
        if bare:
            raise InputError(path, f"{bare[0]} has no labels", "give labels for every sequence")
        sequences = [LabelledFrames(n, f, s, y) for f, n, s, y in parts if y is not None and len(y)]
        most = max((int(each.labels.max()) for each in sequences), default=-1)
        if not 1 <= most < 10_000:
            raise InputError(path, f"labels up to {most}; expected two classes at least", "mend it")
        return sequences, [str(label) for label in range(most + 1)]
    if is_drive(source):
        drive = read_drive(source)
        pixels = np.stack([drive.picture(record, size, max_pixels).pixels for record in drive.records])
        labels = np.array([direction(record["user/angle"]) for record in drive.records], np.int64)
        return [LabelledFrames(source.name, "", pixels, labels)], list(DIRECTIONS)
    if source.is_dir():
        names = sorted(find_pictures([source], recursive=False), key=lambda name: natural(Path(name).name))
        table = _label_table(source)
        _check_names(source, [Path(name).name for name in names], table)
        classes = sorted(set(table.values()))
        found = [read_square(name, size=size, max_pixels=max_pixels) for name in names]
        for square in found:
            if isinstance(square, InputError):
                raise square
        squares = np.stack([square.pixels for square in found if not isinstance(square, InputError)])
        numbers = np.array([classes.index(table[Path(name).name]) for name in names], np.int64)
        return [LabelledFrames(source.name, "", squares, numbers)], classes
    raise InputError(path, "no labelled frames", "expected an .npz, a drive, or a folder with labels.csv")


def _label_table(folder: Path) -> dict[str, str]:
    file = folder / "labels.csv"
    if not file.is_file():
        raise InputError(folder, "has no labels.csv", "give one with the columns file and label")
    table: dict[str, str] = {}
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            if not rows.fieldnames or not {"file", "label"} <= set(rows.fieldnames):
                raise InputError(file, "has not the columns file and label", "name them in the first line")
            for number, row in enumerate(rows, 1):
                name, label = row["file"], row["label"]
                if not name or not label:
                    raise InputError(f"{file}: row {number}", "has no file or no label", "mend it")
                if table.setdefault(name, label) != label:
                    raise InputError(f"{file}: row {number}", f"another label for {name!r}", "leave one")
    except (ValueError, csv.Error) as error:
        raise InputError(file, f"no table that can be read ({str(error)[:80]})", "mend it") from error
    return table


def _check_names(folder: Path, names: Sequence[str], table: Mapping[str, str]) -> None:
    missing, odd = sorted(set(names) - set(table)), sorted(set(table) - set(names))
    if not names:
        raise InputError(folder, "holds no frames", "give a folder of pictures")
    if missing or odd:
        raise InputError(
            folder,
            f"{len(names)} frames and {len(table)} labels that do not match (first: {(missing or odd)[0]!r})",
            "give a row of labels.csv for each frame",
        )


def held_out_part(sequences: Sequence[LabelledFrames], *, fold: str | None, share: float) -> list[LabelledFrames]:
    """The sequences of a fold, or without one the last share of every sequence."""
    if fold is not None:
        return [each for each in sequences if each.fold == fold]
    found = []
    for each in sequences:
        cut = len(each.labels) - int(share * len(each.labels))
        if cut < len(each.labels):
            found.append(LabelledFrames(each.name, each.fold, each.values[cut:], each.labels[cut:]))
    return found
