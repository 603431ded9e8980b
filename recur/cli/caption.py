"""`recur caption`: sentences about pictures, as a stream."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.detect import add_objects, columns, load_detector
from recur.cli.options import Commands, add_max_pixels, add_model, add_search, whole
from recur.cli.shards import SHARD, add_shards, check_here, run_shards
from recur.cli.terminal import json_line, visible
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.predict.caption import Caption

DESCRIPTION = """\
Write a caption for every picture. Pictures are files, folders (read recursively), globs, or lists with one path a line
(--list FILE, or - for standard input). Results come in the order of the inputs, as they are ready.

For one picture the caption is printed with its confidence: the share of captions of this confidence that were
acceptable on pictures held out of training. For several, each line is: path, tab, caption, tab, confidence; with
several languages the language is a column before the caption. --json prints one JSON object a line instead.

With --out the captions go into files, in shards that are each written exactly once, by this process or by a Ray
cluster.
"""


def add(commands: Commands) -> None:
    """Add `caption`."""
    parser = commands.add_parser(
        "caption",
        help="write captions for pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=caption)
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", help="a file, a folder, a glob, or - for a list on standard input"
    )
    parser.add_argument(
        "--list", dest="list_file", metavar="FILE", help="a file with one path a line; - is standard input"
    )
    add_model(parser)
    add_search(parser)
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=16, metavar="B", help="pictures computed together (default: 16)"
    )
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_objects(parser)
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page that shows where each word came from"
    )
    parser.add_argument(
        "--html-limit", type=whole(1, 500), default=20, metavar="N", help="pictures on that page at most (default: 20)"
    )
    add_shards(parser)
    parser.add_argument(
        "--words", action="store_true", help="with --out: also each word as --json shows it, at ten times the size"
    )


def caption(
    *,
    pictures: list[str],
    list_file: str | None = None,
    model: str = "captioner",
    lang: tuple[str, ...] | None = None,
    beam: int | None = None,
    n_best: int = 1,
    min_confidence: float | None = None,
    batch: int = 16,
    max_pixels: int | None = None,
    json: bool = False,
    objects: bool = False,
    detector: str = "detector",
    min_score: float | None = None,
    html: Path | None = None,
    html_limit: int = 20,
    out: str | None = None,
    form: str = "jsonl",
    shard_size: int = SHARD,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    words: bool = False,
) -> int:
    """Caption every picture; returns the exit status. The arguments are the options of the command."""
    from recur import load
    from recur.cli.explain_caption import check_page, write_captions
    from recur.cli.inputs import Listing
    from recur.data.images import MAX_PIXELS
    from recur.errors import InputError, RecurError

    if out is not None:
        if html is not None:
            raise RecurError("--html shows pictures, and --out writes records; give one of them")
        options = {
            "languages": lang,
            "beam": beam,
            "n_best": n_best,
            "batch": batch,
            "min_confidence": min_confidence,
            "max_pixels": MAX_PIXELS if max_pixels is None else max_pixels,
            "words": words,
        }
        return run_shards(
            task="caption",
            pictures=pictures,
            list_file=list_file,
            model=model,
            options=options,
            out=out,
            form=form,
            shard_size=shard_size,
            engine=engine,
            address=address,
            workers=workers,
            json=json,
        )
    check_here(engine, address, workers, words=words)
    listing = Listing(pictures, list_file)
    if html is not None:
        check_page(html)
    most = MAX_PIXELS if max_pixels is None else max_pixels
    captioner = load(model)
    finder = load_detector(detector) if objects else None
    results = captioner.stream_languages(
        listing,
        lang if lang is not None else captioner.languages[:1],
        beam=beam,
        n_best=n_best,
        batch=batch,
        min_confidence=min_confidence,
        max_pixels=most,
        words=json or html is not None or objects,
        detector=finder,
        min_score=min_score,
    )
    shown: list[tuple[Caption, ...]] = []
    failed = left_out = False
    with Progress(listing.count, unit="pictures") as progress:
        for result in results:
            if isinstance(result, InputError):
                failed = True
                progress.line(visible(str(result)))
            else:
                for note in result[0].notes:
                    progress.line(visible(f"{result[0].path}: note: {note}"))
                for each in result:
                    progress.result(
                        json_line(each.to_json())
                        if json
                        else readable(each, plain=listing.single, tagged=len(result) > 1)
                    )
                if html is not None:
                    left_out = len(shown) == html_limit
                    if not left_out:
                        shown.append(result)
            progress.advance()
        if left_out:
            progress.line(f"note: {html} has the first {html_limit} pictures only; --html-limit N for more")
    if html is not None and shown:
        write_captions(html, shown, max_pixels=most)
    return 1 if failed else 0


def readable(result: Caption, *, plain: bool, tagged: bool) -> str:
    """One caption for people: a sentence for a single picture, else columns; further hypotheses on lines below."""
    text = "not sure" if result.caption is None else result.caption
    confidence = "" if result.confidence is None else f"{result.confidence:.2f}"
    if plain:
        tag = f"{result.language}: " if tagged else ""
        first = tag + text + (f"  (confidence {confidence})" if confidence else "")
    else:
        language = [result.language] if tagged else []
        first = "\t".join([visible(str(result.path)), *language, visible(text), confidence])
    others = [f"    {rank}. {visible(each)}" for rank, (each, _) in enumerate(result.n_best[1:], start=2)]
    return "\n".join([first, *others, *found_lines(result)])


def found_lines(result: Caption) -> list[str]:
    """An indented line for each object, with the words that speak of it."""
    lines = []
    for place, each in enumerate(result.objects or ()):
        words = [word.word for word in result.words if word.object == place]
        said = ("" if result.language in ("zh", "ja", "th") else " ").join(words)
        lines.append(
            "\t".join(["    " + columns(each)[0], *columns(each)[1:], *([f'"{visible(said)}"'] if said else [])])
        )
    return lines
