"""The maps of a frozen trunk, computed once and kept on disk: what the heads are trained on.

Every picture is seen in several views: whole, its mirror image, and random cut-outs, with which a head learns objects
of other sizes and pictures that cut them. The maps are those of the graph that will run, kept as 8-bit numbers.

N pictures, V views; a view is (x0, y0, x1, y1, flip) in shares of the picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recur.data.images import iterate_pictures
from recur.engine.vision import Encoder
from recur.errors import InputError, RecurError
from recur.files import fingerprint, write_atomically
from recur.nn.export_heads import MAPS, attach, name_maps
from recur.train.checkpoint import Progress, StopRequest

LEAST_SHARE = 0.4  # of the picture's area that a cut-out has
LEAST_SIDE = 0.55
PROBE = 64  # pictures that the scale of each map is measured on
OUTLIERS = 1e-5
BATCH = 16


@dataclass(frozen=True, eq=False)
class Pyramids:
    """Maps uint8 [N, V, C, gy, gx] of stride 8, 16 and 32, what 255 stands for in each, and the views [N, V, 5].

    kept      the rows that hold a picture, ascending
    problems  one for each picture that could not be read
    complete  False when it was stopped before the end; call again to go on
    """

    maps: tuple[NDArray[np.uint8], ...]
    levels: tuple[float, ...]
    views: NDArray[np.float32]
    kept: NDArray[np.int64]
    problems: tuple[InputError, ...]
    complete: bool

    @property
    def channels(self) -> tuple[int, ...]:
        """C of each map."""
        return tuple(int(each.shape[2]) for each in self.maps)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(gy, gx) of each map."""
        return [(int(each.shape[3]), int(each.shape[4])) for each in self.maps]

    def batch(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> list[Tensor]:
        """The maps of pictures `rows` in `views` as floats [B, C, gy, gx]."""
        return [
            torch.from_numpy(each[rows, views]).to(torch.float32, memory_format=torch.channels_last).mul_(level / 255)
            for each, level in zip(self.maps, self.levels, strict=True)
        ]


def draw_views(count: int, views: int, *, seed: int) -> NDArray[np.float32]:
    """[N, V, 5]: the whole picture, its mirror image, then cut-outs, every second one mirrored."""
    random = np.random.default_rng([seed, 7])
    drawn = np.zeros((count, views, 5), np.float32)
    drawn[:, :, 2:4] = 1
    drawn[:, 1::2, 4] = 1
    for view in range(2, views):
        sides = random.uniform(LEAST_SIDE, 1.0, (count, 2))
        short = sides.prod(1) < LEAST_SHARE
        sides[short] *= np.sqrt(LEAST_SHARE / sides[short].prod(1))[:, None]
        sides = np.minimum(sides, 1.0)
        corner = random.uniform(0, 1, (count, 2)) * (1 - sides)
        drawn[:, view, :2], drawn[:, view, 2:4] = corner, corner + sides
    return drawn


def cut_view(pixels: NDArray[np.uint8], view: NDArray[np.float32]) -> NDArray[np.uint8]:
    """One view of a picture [Y, X, 3], at the same size."""
    size = pixels.shape[0]
    x0, y0, x1, y1, flip = (float(v) for v in view)
    if (x0, y0, x1, y1) != (0.0, 0.0, 1.0, 1.0):
        box = (x0 * size, y0 * size, x1 * size, y1 * size)
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box=box))
    return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)


def in_view(
    boxes: NDArray[np.float64], view: NDArray[np.float32], *, least: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes [M, 4] in shares of the picture as shares of a view, cut at its edges, and which of them [M] still show.

    Those do of which at least the share `least` is inside.
    """
    x0, y0, x1, y1, flip = (float(v) for v in view)
    moved = (boxes - [x0, y0, x0, y0]) / [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    inner = moved.clip(0, 1)
    area, whole = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (inner, moved))
    if flip:
        inner = np.stack([1 - inner[:, 2], inner[:, 1], 1 - inner[:, 0], inner[:, 3]], 1)
    return inner, area >= least * whole


def cache_pyramids(
    encoded: bytes,
    paths: Sequence[Path],
    folder: Path,
    *,
    size: int,
    views: int,
    seed: int,
    levels: Sequence[float] | None = None,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
) -> Pyramids:
    """The maps of every picture in `views` views, kept in `folder`.

    A killed or stopped call goes on where it was. `levels` (of another split) instead of measuring them. RecurError
    when the folder holds something else, or no picture can be read.
    """
    encoder = Encoder(encoded + attach(encoded, name_maps))
    drawn = draw_views(len(paths), views, seed=seed)
    probe = [each.shape[1:] for each in encoder.raw(np.zeros((1, size, size, 3), np.uint8), MAPS)]
    identity = {
        "encoder": hashlib.sha256(encoded).hexdigest(),
        "pictures": fingerprint(paths),
        "views": [len(paths), views, seed, size],
    }
    stamp = folder / "pyramids.json"
    files = [folder / f"{name}.npy" for name in (*MAPS, "done")]
    if stamp.exists():
        try:
            known = json.loads(stamp.read_text(encoding="utf-8"))
            *maps, done = (np.lib.format.open_memmap(file, mode="r+") for file in files)
        except (OSError, ValueError) as error:
            raise RecurError(f"{folder}: broken maps ({error}); delete the folder") from error
        if {key: known.get(key) for key in identity} != identity:
            raise RecurError(f"{folder}: maps of other pictures or of another encoder; delete it or name another --out")
        level = tuple(float(value) for value in known["levels"])
    else:
        level = tuple(levels) if levels is not None else _measure(encoder, paths, size)
        folder.mkdir(parents=True, exist_ok=True)
        maps = [
            np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(len(paths), views, *shape))
            for file, shape in zip(files, probe, strict=False)
        ]
        done = np.lib.format.open_memmap(files[-1], mode="w+", dtype=np.uint8, shape=(len(paths),))
        write_atomically(stamp, json.dumps({**identity, "levels": list(level)}))
    todo = np.flatnonzero(done == 0)
    finished = len(paths) - len(todo)
    problems: list[InputError] = []
    stopped = False
    for rows, pixels, bad in _groups([paths[int(row)] for row in todo], todo, size):
        problems += bad
        for view in range(views if len(rows) else 0):
            seen = np.stack([cut_view(each, drawn[row, view]) for row, each in zip(rows, pixels, strict=True)])
            for stored, values, top in zip(maps, encoder.raw(seen, MAPS), level, strict=True):
                stored[rows, view] = np.rint(values * np.float32(255 / top)).clip(0, 255).astype(np.uint8)
        done[rows] = 1  # after the maps: a kill between the two computes them again
        finished += len(rows) + len(bad)
        if progress is not None:
            progress.update(finished, "looking at the pictures")
        if stop is not None and stop.requested:
            stopped = True
            break
    kept = np.flatnonzero(done).astype(np.int64)
    if not stopped and not len(kept):
        raise RecurError(f"none of {len(paths)} pictures can be read; the first: {problems[0] if problems else 'none'}")
    return Pyramids(tuple(maps), level, drawn, kept, tuple(problems), not stopped)


def _groups(
    paths: Sequence[Path], rows: NDArray[np.int64], size: int
) -> Iterator[tuple[list[int], list[NDArray[np.uint8]], list[InputError]]]:
    numbers: list[int] = []
    pixels: list[NDArray[np.uint8]] = []
    bad: list[InputError] = []
    for row, (_, square) in zip(rows, iterate_pictures(paths, size=size, workers=2, ahead=4 * BATCH), strict=True):
        if isinstance(square, InputError):
            bad.append(square)
        else:
            numbers.append(int(row))
            pixels.append(square.pixels)
        if len(numbers) == BATCH:
            yield numbers, pixels, bad
            numbers, pixels, bad = [], [], []
    if numbers or bad:
        yield numbers, pixels, bad


def _measure(encoder: Encoder, paths: Sequence[Path], size: int) -> tuple[float, ...]:
    """What 255 stands for in each map: nearly the greatest value of some pictures."""
    found = []
    step = max(1, len(paths) // PROBE)
    for _, pixels, _ in _groups(paths[::step][:PROBE], np.arange(len(paths[::step][:PROBE])), size):
        if pixels:
            found.append([float(np.quantile(each, 1 - OUTLIERS)) for each in encoder.raw(np.stack(pixels), MAPS)])
    if not found:
        raise RecurError(f"none of the first {PROBE} of {len(paths)} pictures can be read; check --data and --images")
    return tuple(max(each, 1e-6) for each in np.max(found, axis=0).tolist())
