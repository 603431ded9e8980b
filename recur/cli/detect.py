"""`recur detect`: objects in pictures, as a stream."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, add_max_pixels, add_model, probability, whole
from recur.cli.shards import SHARD, add_shards, check_here, run_shards
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.predict.detect import Detected, Detections, Detector

DESCRIPTION = """\
Find the objects in every picture. Pictures are files, folders (read recursively), globs, or lists with one path a line
(--list FILE, or - for standard input). Results come in the order of the inputs, as they are ready.

Each object is a line: label, score, and its box as x0 y0 x1 y1 in pixels of the picture as a person sees it; for
several pictures with the path before it, all parted by tabs. --json prints one JSON object a picture instead. --save
DIR also writes every picture with its boxes drawn, as DIR/NAME.png.

With --out the objects go into files, in shards that are each written exactly once, by this process or by a Ray cluster.
"""


def add(commands: Commands) -> None:
    """Add `detect`."""
    parser = commands.add_parser(
        "detect",
        help="find objects in pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=detect)
    add_pictures(parser)
    add_model(parser, "detector")
    parser.add_argument(
        "--min-score", type=probability, metavar="P", help="objects of at least this score (default: the model's own)"
    )
    add_stream(parser)
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the pictures with boxes drawn into this folder")
    add_shards(parser)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """The pictures that a command is pointed at."""
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help="a file, a folder, a glob, or - for a list on standard input"
    )
    parser.add_argument(
        "--list", dest="list_file", metavar="FILE", help="a file with one path a line; - is standard input"
    )


def add_stream(parser: argparse.ArgumentParser) -> None:
    """How they are computed and shown."""
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=16, metavar="B", help="pictures computed together (default: 16)"
    )
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_objects(parser: argparse.ArgumentParser) -> None:
    """The options of commands that look for objects as well."""
    parser.add_argument(
        "--objects", action="store_true", help="also the objects of the picture, and which words speak of which"
    )
    parser.add_argument(
        "--detector", metavar="NAME_OR_PATH", default="detector", help="what finds them (default: detector)"
    )
    parser.add_argument(
        "--min-score", type=probability, metavar="P", help="objects of at least this score (default: the model's own)"
    )


def load_for(model: str, task: str) -> Any:
    """The predictor of that name or path. Errors: RecurError when the model is for another task."""
    from recur import load

    found = load(model)
    if found.bundle.task != task:
        raise RecurError(f"{model}: a model for {found.bundle.task!r}; expected one for {task!r}; choose another")
    return found


def load_detector(model: str) -> Detector:
    """The detector of that name or path. Errors: RecurError when the model does something else."""
    detector: Detector = load_for(model, "detect")
    return detector


def detect(
    *,
    pictures: list[str],
    list_file: str | None = None,
    model: str = "detector",
    min_score: float | None = None,
    batch: int = 16,
    max_pixels: int | None = None,
    json: bool = False,
    save: Path | None = None,
    out: str | None = None,
    form: str = "jsonl",
    shard_size: int = SHARD,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
) -> int:
    """Find the objects of every picture; returns the exit status. The arguments are the options of the command."""
    from recur.cli.inputs import Listing
    from recur.data.images import MAX_PIXELS

    most = MAX_PIXELS if max_pixels is None else max_pixels
    if out is not None:
        if save is not None:
            raise RecurError("--save draws pictures, and --out writes records; give one of them")
        return run_shards(
            task="detect",
            pictures=pictures,
            list_file=list_file,
            model=model,
            options={"min_score": min_score, "batch": batch, "max_pixels": most},
            out=out,
            form=form,
            shard_size=shard_size,
            engine=engine,
            address=address,
            workers=workers,
            json=json,
        )
    check_here(engine, address, workers)
    listing = Listing(pictures, list_file)
    names = None if save is None else Names(save)
    detector = load_detector(model)
    failed = False
    with Progress(listing.count, unit="pictures") as progress:
        for found in detector.stream(listing, min_score=min_score, batch=batch, max_pixels=most):
            if found.problem is not None:
                failed = True
                progress.line(visible(str(found.problem)))
            else:
                for note in found.notes:
                    progress.line(visible(f"{found.path}: note: {note}"))
                for line in [json_line(found.to_json())] if json else readable(found, plain=listing.single):
                    progress.result(line)
                if names is not None:
                    write_drawn(names.of(found.path), found, most)
            progress.advance()
    return 1 if failed else 0


def readable(found: Detections, *, plain: bool) -> list[str]:
    """A line an object; one that says so where there is none."""
    before = [] if plain else [visible(str(found.path))]
    if not found.objects:
        return ["\t".join([*before, "nothing found"])]
    return ["\t".join([*before, *columns(each)]) for each in found.objects]


def columns(each: Detected) -> list[str]:
    """`dog`, `0.83`, `10 20 110 220`"""
    return [visible(each.label), f"{each.score:.2f}", " ".join(f"{side:.0f}" for side in each.box)]


class Names:
    """File names in a folder for pictures: each its own, however many folders they come from."""

    def __init__(self, folder: Path) -> None:
        """Errors: RecurError when the folder cannot be written to."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecurError(
                f"{folder}: cannot be made ({error.strerror}); expected a folder to write pictures into; name another"
            ) from error
        self.folder = folder
        self._used: dict[str, int] = {}

    def of(self, path: str | None) -> Path:
        """A name like that of the picture, with a number where that has been used."""
        stem = Path(path or "picture").stem
        count = self._used.get(stem, 0)
        self._used[stem] = count + 1
        return self.folder / (f"{stem}.png" if count == 0 else f"{stem}-{count + 1}.png")


def write_drawn(target: Path, found: Detections, max_pixels: int) -> None:
    """The picture with its boxes, as a PNG."""
    from recur.data.images import read_picture
    from recur.explain.boxes import draw_boxes, png_bytes
    from recur.files import write_atomically

    assert found.path is not None
    picture = read_picture(found.path, target=1600, max_pixels=max_pixels)
    boxes = [(each.label, each.score, each.box) for each in found.objects]
    write_atomically(target, png_bytes(draw_boxes(picture.pixels, boxes, picture.width, picture.height)))
