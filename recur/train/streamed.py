"""Training on pictures that stay in their shards: read again in every epoch, a few blocks of neighbours at a time.

The order of an epoch is a function of seed and epoch. Blocks are drawn, `WINDOW` at a time, and the pictures of these
are mixed: so nearly any two pictures may meet in a step, a block is read once an epoch, and memory holds the files of
`WINDOW` blocks, however many there are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.data.caption_shards import Reader, Shards, are_shards, open_shards
from recur.data.images import read_square
from recur.errors import InputError, RecurError
from recur.train.caption_data import ALL, FeatureSource, Split, TrainedFeatures
from recur.train.encoders import FeatureEncoder
from recur.train.team import is_first

WINDOW: Final = 16  # blocks that are mixed, 4,096 pictures of archives
TOGETHER: Final = 32  # pictures in one pass of an encoder that learns nothing

Order: TypeAlias = Callable[..., NDArray[np.int64]]  # (count, seed=, epoch=) -> [count], as `epoch_order`


def shards_in(data: Path | str, work: Path, language: str | None) -> Shards | None:
    """The shards that `data` is, None when it is a caption file or a folder with one.

    Processes that a launcher has started share the first look at them.
    """
    if not are_shards(data):
        return None
    if is_first():
        print(f"{data}: looking at the shards, once", file=sys.stderr)
    share = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return open_shards(data, work / "shards", language=language, share=share)


def streamed(split: Split, shards: Shards) -> Split:
    """The split with the files of its pictures as they are in the shards."""
    return replace(split, contents=Contents(Reader(shards, WINDOW), [picture.path for picture in split.pictures]))


def order_in(shards: Shards, split: Split) -> Order:
    """The order of epochs through a split."""
    return partial(block_order, np.array([shards.block_of(picture.path) for picture in split.pictures], np.int64))


def block_order(blocks: NDArray[np.int64], count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which `epoch` goes through examples of which number i is in block `blocks[i]`, [N].

    Depends on nothing but its arguments.
    """
    assert count == len(blocks)
    random = np.random.default_rng([seed, epoch])
    there, which = np.unique(blocks, return_inverse=True)
    window = random.permutation(len(there)) // WINDOW
    return np.lexsort((random.random(count), window[which])).astype(np.int64)


class Contents(Sequence[bytes]):
    """The files of pictures, read when asked for."""

    def __init__(self, reader: Reader, paths: Sequence[Path]) -> None:
        self.reader, self.paths = reader, paths

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> Contents: ...
    def __getitem__(self, place: int | slice) -> bytes | Contents:
        if isinstance(place, slice):
            return Contents(self.reader, self.paths[place])
        return self.reader(self.paths[place])


class Pixels:
    """Pictures [N, side, side, 3] as an array has them, decoded when asked for. Errors: RecurError for one that has
    been changed since it was first looked at.
    """

    def __init__(self, contents: Contents, side: int) -> None:
        self.contents = contents
        self.shape = (len(contents), side, side, 3)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        square = read_square(self.contents[int(row)], size=self.shape[1])
        if isinstance(square, InputError):
            path = self.contents.paths[int(row)]
            raise RecurError(f"{path}: could be read when the training began ({square.what}); begin again")
        return np.array(square.pixels)  # PyTorch asks for memory that may be written to


class StreamedFeatures:
    """Features computed when a step asks for them; `learning`: the encoder is being trained, in this phase."""

    def __init__(self, split: Split, eye: FeatureEncoder, *, moving: bool) -> None:
        assert isinstance(split.contents, Contents)
        self.pixels, self.eye = Pixels(split.contents, eye.size), eye
        self.learning = False
        self.trained: FeatureSource | None = None
        if moving:
            assert eye.module is not None
            self.trained = TrainedFeatures(cast(Any, self.pixels), eye.module)

    def features(self, rows: NDArray[np.int64], rng: np.random.Generator | None, part: slice = ALL) -> Tensor:
        """[P, R, F] as `FeatureSource` has it; where nothing is learned, of the picture or its mirror image."""
        if self.learning and self.trained is not None:
            return self.trained.features(rows, rng, part)
        flips = np.zeros(len(rows), int) if rng is None else rng.integers(0, 2, len(rows))
        mine = list(zip(rows[part], flips[part], strict=True))
        seen = []
        for start in range(0, len(mine), TOGETHER):
            views = [self.pixels[row][:, :: -1 if flip else 1] for row, flip in mine[start : start + TOGETHER]]
            seen.append(self.eye.features(np.stack(views)))
        return torch.from_numpy(np.concatenate(seen))


def streamed_sources(train: Split, dev: Split, eye: FeatureEncoder, *, moving: bool) -> dict[str, FeatureSource]:
    """Where the features of both splits come from."""
    return {name: StreamedFeatures(split, eye, moving=moving) for name, split in (("train", train), ("dev", dev))}
