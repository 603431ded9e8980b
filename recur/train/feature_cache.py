"""What a frozen encoder sees, computed once and kept on disk: the pictures as they are, mirrored, and cut out.

N pictures, V views of each, R = gy * gx regions, F channels.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recur.data.images import iterate_pictures
from recur.errors import InputError, RecurError
from recur.files import fingerprint, write_atomically
from recur.train.checkpoint import Progress, StopRequest
from recur.train.encoders import FeatureEncoder
from recur.train.graph import first_line
from recur.train.teacher import cut_view, draw_views

FLOAT16_MAX = 65504.0
LEAST_AREA = 0.65  # of a crop, as a share of the picture: what the captions speak of has to be in it


@dataclass(frozen=True)
class FeatureCache:
    """Features of N pictures on disk.

    features  float16 [N, V, R, F], memory-mapped; view 1 is the mirror image, those after it are crops, every other one
              mirrored. Rows of bad pictures are zero
    kept      the rows that hold a picture, ascending
    problems  one for each picture that could not be read
    complete  False when it was stopped before the end; call again to go on
    """

    features: NDArray[np.float16]
    kept: NDArray[np.int64]
    problems: tuple[InputError, ...]
    complete: bool


def cache_features(
    encoder: FeatureEncoder,
    paths: Sequence[Path],
    folder: str | Path,
    *,
    views: int = 2,
    batch: int = 16,
    workers: int = 2,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> FeatureCache:
    """What the encoder sees in every picture, computed once and kept in `folder`.

    A killed or stopped call goes on where it was; pictures that could not be read are tried again. RecurError when the
    folder holds features of other pictures or of another encoder, when the disk is too small, or no picture is good.
    """
    folder = Path(folder)
    features, done = _open_cache(encoder, paths, folder, views=views)
    boxes = draw_views(len(paths), views, seed=0, least_area=LEAST_AREA)
    todo = np.flatnonzero(done == 0)
    finished = len(paths) - len(todo)
    problems: list[InputError] = []
    rows: list[int] = []
    squares: list[NDArray[np.uint8]] = []

    def look() -> None:
        pixels = np.stack(squares)
        for view in range(features.shape[1]):
            cut = [cut_view(square, boxes[row, view], encoder.size) for row, square in zip(rows, pixels, strict=True)]
            seen = encoder.features(torch.cat(cut).permute(0, 2, 3, 1).contiguous().numpy())
            features[rows, view] = seen.clip(-FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
        # After the features: a kill between the two computes them again. The kernel keeps what was written.
        done[rows] = 1
        rows.clear()
        squares.clear()

    stopped = False
    pictures = iterate_pictures([paths[int(row)] for row in todo], size=encoder.size, workers=workers, ahead=4 * batch)
    for row, (_, square) in zip(todo, pictures, strict=True):
        if isinstance(square, InputError):
            problems.append(square)
        else:
            rows.append(int(row))
            squares.append(square.pixels)
        if len(rows) == batch:
            look()
        finished += 1
        if progress is not None:
            progress.update(finished, "looking at the pictures")
        if stop is not None and stop.requested:
            stopped = True
            break
    if rows:
        look()
    kept = np.flatnonzero(done).astype(np.int64)
    if not stopped and not len(kept):
        raise RecurError(
            f"none of {len(paths)} pictures can be read; the first: {problems[0] if problems else 'none given'}"
        )
    return FeatureCache(features, kept, tuple(problems), not stopped)


def _open_cache(
    encoder: FeatureEncoder, paths: Sequence[Path], folder: Path, *, views: int
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The memory-mapped features [N, V, R, F] and marks [N] of a folder, which are made when it is new."""
    shape = (len(paths), views, encoder.regions, encoder.channels)
    identity = {"encoder": encoder.identity, "pictures": fingerprint(paths), "shape": list(shape)}
    stamp, files = folder / "cache.json", {"features": folder / "features.npy", "done": folder / "done.npy"}
    help_text = "delete it or name another folder"
    if stamp.exists():
        try:
            known = json.loads(stamp.read_text(encoding="utf-8"))
            if known != identity:
                raise RecurError(f"{folder}: holds features of other pictures or of another encoder; {help_text}")
            for file in files.values():
                np.lib.format.open_memmap(file, mode="r")  # refuses a short file, which "r+" would fill up with zeros
            features = np.lib.format.open_memmap(files["features"], mode="r+")
            done = np.lib.format.open_memmap(files["done"], mode="r+")
        except (OSError, ValueError) as error:
            raise RecurError(f"{folder}: a broken feature cache ({first_line(error)}); {help_text}") from error
        if features.shape != shape or done.shape != shape[:1]:
            raise RecurError(f"{folder}: a broken feature cache (features {list(features.shape)}); {help_text}")
        return features, done
    try:
        folder.mkdir(parents=True, exist_ok=True)
        need, free = 2 * int(np.prod(shape)), shutil.disk_usage(folder).free
        if need > free:
            raise RecurError(
                f"{folder}: the features need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; use another "
                "disk, fewer pictures or a smaller encoder"
            )
        features = np.lib.format.open_memmap(files["features"], mode="w+", dtype=np.float16, shape=shape)
        done = np.lib.format.open_memmap(files["done"], mode="w+", dtype=np.uint8, shape=shape[:1])
        write_atomically(stamp, json.dumps(identity))
    except OSError as error:
        raise RecurError(
            f"{folder}: cannot write the feature cache ({first_line(error)}); use another folder"
        ) from error
    return features, done
