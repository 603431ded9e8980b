"""Pictures on their way to a model: computed together in groups, read ahead of them, results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from recur.data.ahead import Ahead
from recur.data.images import Source, Square, read_ahead, read_square
from recur.engine.vision import processors
from recur.errors import InputError

IDLE_SECONDS = 0.1  # a stream no longer waits for a batch to fill up when its source has given nothing for so long

Group: TypeAlias = list[tuple[Source, Square | InputError]]
Seen = TypeVar("Seen")
Result = TypeVar("Result")


def results(
    pictures: Source | Iterable[Source],
    see: Callable[[npt.NDArray[np.uint8]], list[Seen]],
    say: Callable[[Source, Square, Seen], Result],
    *,
    size: int,
    batch: int,
    max_pixels: int,
    eager: bool,
) -> Generator[tuple[Source, Result | InputError], None, None]:
    """Each source with what `say` makes of what `see` gives for its pixels, in order; a bad one with its error.

    `see` takes pixels [B, size, size, 3] and runs in a thread of its own, while pictures are read ahead in others.
    """

    def look(group: Group) -> list[Seen]:
        squares = [item.pixels for _, item in group if not isinstance(item, InputError)]
        return see(np.stack(squares)) if squares else []

    def told(group: Group, seen: list[Seen]) -> Iterator[tuple[Source, Result | InputError]]:
        rows = iter(seen)
        for source, item in group:
            yield source, item if isinstance(item, InputError) else say(source, item, next(rows))

    if isinstance(pictures, (str, Path, bytes, Image)) or is_picture(pictures):
        # One alone has nothing to run beside: threads would only cost it time.
        alone: Group = [(pictures, read_square(pictures, size=size, max_pixels=max_pixels))]
        yield from told(alone, look(alone))
        return
    squares = read_ahead(pictures, size=size, workers=processors(), ahead=2 * batch, max_pixels=max_pixels)
    ahead = Ahead(look, groups(squares, batch, eager=eager), workers=1, ahead=1, name="recur-encoder")
    try:
        for group, seen in ahead:
            yield from told(group, seen)
    finally:
        squares.close()  # first, because the other one may wait for it
        ahead.close()


def first_error(found: Generator[tuple[Source, Any], None, None]) -> list[Any]:
    """All results as a list; the first error is raised."""
    out = []
    with closing(found) as pairs:
        for _, result in pairs:
            if isinstance(result, InputError):
                raise result
            out.append(result)
    return out


def groups(pictures: Ahead[Source, Square | InputError], batch: int, *, eager: bool) -> Iterator[Group]:
    """Pictures to be computed together, at most `batch` that can be read and twice as many in all.

    `eager`: the first groups are small (1, 4, 16, ... pictures), so that something is there soon; failures at the
    front go on at once; and nothing waits for a source that gives nothing.
    """
    size = 1 if eager else batch
    group: Group = []
    good = 0
    try:
        for source, item in pictures:
            group.append((source, item))
            good += not isinstance(item, InputError)
            full = good == size or len(group) == 2 * batch
            if full or (eager and (good == 0 or pictures.idle(IDLE_SECONDS))):
                yield group
                size = min(4 * size, batch) if good else size
                group, good = [], 0
    except Exception:  # the source failed: what it gave before comes first
        if group:
            yield group
        raise
    if group:
        yield group


def is_picture(pictures: object) -> TypeGuard[npt.NDArray[Any]]:
    return isinstance(pictures, np.ndarray) and pictures.ndim <= 3


def picture_name(source: Source) -> str | None:
    """The path of a picture that is a file."""
    return os.fspath(source) if isinstance(source, (str, Path)) else None
