"""`recur classify`: what is in pictures, as a stream."""

from __future__ import annotations

import argparse

from recur.cli.detect import add_pictures, add_stream, load_for
from recur.cli.options import Commands, add_model, probability, whole
from recur.cli.terminal import json_line, visible
from recur.progress import Progress

DESCRIPTION = """\
Say what is in every picture. Pictures are files, folders (read recursively), globs, or lists with one path a line
(--list FILE, or - for standard input). Results come in the order of the inputs, as they are ready.

For one picture each label is a line with its probability; for several a picture is a line, its path and then its labels
with their probabilities, parted by tabs. --json prints one JSON object a picture instead.
"""


def add(commands: Commands) -> None:
    """Add `classify`."""
    parser = commands.add_parser(
        "classify",
        help="say what is in pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=classify)
    add_pictures(parser)
    add_model(parser, "classifier")
    parser.add_argument(
        "--top", type=whole(1, 1024), default=5, metavar="N", help="the N most probable labels (default: 5)"
    )
    parser.add_argument(
        "--min-probability", type=probability, default=0.0, metavar="P", help="labels of at least this probability"
    )
    add_stream(parser)


def classify(
    *,
    pictures: list[str],
    list_file: str | None = None,
    model: str = "classifier",
    top: int = 5,
    min_probability: float = 0.0,
    batch: int = 16,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Name what is in every picture; returns the exit status. The arguments are the options of the command."""
    from recur.cli.inputs import Listing
    from recur.data.images import MAX_PIXELS

    listing = Listing(pictures, list_file)
    classifier = load_for(model, "classify")
    most = MAX_PIXELS if max_pixels is None else max_pixels
    failed = False
    results = classifier.stream(listing, top=top, min_probability=min_probability, batch=batch, max_pixels=most)
    with Progress(listing.count, unit="pictures") as progress:
        for found in results:
            if found.problem is not None:
                failed = True
                progress.line(visible(str(found.problem)))
            else:
                for note in found.notes:
                    progress.line(visible(f"{found.path}: note: {note}"))
                if json:
                    progress.result(json_line(found.to_json()))
                elif listing.single:
                    for name, share in found.labels or (("nothing", 0.0),):
                        progress.result(f"{visible(name)}\t{share:.2f}")
                else:
                    shown = [f"{visible(name)} {share:.2f}" for name, share in found.labels]
                    progress.result("\t".join([visible(str(found.path)), *shown]))
            progress.advance()
    return 1 if failed else 0
