"""A scan of a library whose pictures are read and described by the workers of an engine.

The index is the manifest: whoever holds it walks, compares and writes, and what is not in it is done by the next scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from recur.bundle import read_bundle
from recur.errors import InputError
from recur.hub import resolve
from recur.library.chunk import Back, Failed, Item
from recur.library.objects import Seen, look
from recur.library.reading import Reading, add_readers, read_place
from recur.library.sources import Found, Place
from recur.predict import predictor
from recur.scale.engine import Engine, Lost

GROUP: Final = 64  # pictures given to a worker at once

Group: TypeAlias = tuple[Found | Back, ...]


class Describing:
    """Reads and describes places; made once in each process."""

    def __init__(
        self,
        model: str,
        languages: tuple[str, ...],
        batch: int,
        max_pixels: int,
        threads: int | None,
        detector: str | None = None,
    ) -> None:
        bundle = read_bundle(resolve(model), task="caption")
        self.captioner = predictor("caption")(bundle, threads=threads)
        self.languages, self.batch, self.max_pixels = languages, batch, max_pixels
        self.detector = None
        if detector is not None:
            self.detector = predictor("detect")(read_bundle(resolve(detector), task="detect"), threads=threads)
        add_readers()

    def __call__(self, group: Group) -> tuple[Item, ...]:
        """What was read of each place, with its words; other items as they are."""
        items = [self._read(item) if isinstance(item, Place) else item for item in group]
        pixels = [item.pixels for item in items if isinstance(item, Reading) and item.pixels is not None]
        objects = None if self.detector is None else iter(look(self.detector, pixels))
        found = self.captioner.stream_languages(pixels, self.languages, batch=self.batch, words=False)
        return tuple(
            self._described(item, next(found), None if objects is None else next(objects))
            if isinstance(item, Reading)
            else item
            for item in items
        )

    def _read(self, place: Place) -> Item:
        read = read_place(place, size=self.captioner.size, max_pixels=self.max_pixels)
        return Failed(place, read) if isinstance(read, InputError) else read

    def _described(self, reading: Reading, captions: object, objects: tuple[Seen, ...] | None) -> Item:
        if isinstance(captions, InputError):
            raise captions
        assert isinstance(captions, tuple)
        words = tuple((each.language, each.caption or "", each.confidence, each.log_prob) for each in captions)
        return replace(reading, pixels=None, words=words, objects=objects)


def describer(
    engine: Engine,
    model: str,
    languages: tuple[str, ...],
    *,
    batch: int,
    max_pixels: int,
    detector: str | None = None,
    threads: int | None = 1,
) -> Callable[[Iterator[Found | Back]], Iterator[Item]]:
    """What `recur.library.scan.Scan` takes as `describe`."""
    make = partial(Describing, model, languages, batch, max_pixels, threads, detector)

    def describe(source: Iterator[Found | Back]) -> Iterator[Item]:
        # In order: that an archive was read to its end is told after its last picture.
        for group, result in engine.map(make, _groups(source), ordered=True):
            if not isinstance(result, Lost):
                yield from result
                continue
            for item in group:
                if isinstance(item, Place):
                    yield Failed(item, InputError(item.path, result.reason, "scan again, or look at the file"))
                else:
                    yield item

    return describe


def _groups(source: Iterator[Found | Back]) -> Iterator[Group]:
    group: list[Found | Back] = []
    for item in source:
        group.append(item)
        if len(group) >= GROUP:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)
