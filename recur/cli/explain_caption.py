"""`recur explain caption`: a page that shows where each word came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.options import Commands, add_languages, add_max_pixels, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.predict.caption import Caption

DETAIL_LIMIT = 20  # pictures whose page has the inside of the network too, which is half a megabyte each
PAGE_LIMIT = 500  # pictures; a page holds them all at once, and so does a browser


def add(tasks: Commands) -> None:
    """Add the task `caption`."""
    page = tasks.add_parser(
        "caption",
        help="an HTML page",
        description="Write one HTML page, complete in itself: the pictures, their captions, and for each word the part "
        "of the picture it came from and the runners-up; a click on one shows the sentence that would have followed. "
        f"For the first {DETAIL_LIMIT} pictures also how the search went, and every state and gate of the network.",
        allow_abbrev=False,
    )
    page.set_defaults(run=explain_caption)
    page.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help=f"files, folders or globs; {PAGE_LIMIT} pictures at most"
    )
    page.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write")
    page.add_argument("--json", action="store_true", help="print the same as one JSON object a picture")
    add_model(page)
    add_languages(page, default="all of the model's")
    page.add_argument("--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step")
    page.add_argument("--n-best", type=whole(1, 64), default=5, metavar="N", help="captions listed (default: 5)")
    page.add_argument(
        "--detector",
        metavar="NAME_OR_PATH",
        help="a model that finds objects; the page then shows the object that a word names",
    )
    add_max_pixels(page)


def explain_caption(
    *,
    pictures: list[str],
    out: Path | None = None,
    json: bool = False,
    model: str = "captioner",
    lang: tuple[str, ...] | None = None,
    beam: int | None = None,
    n_best: int = 5,
    detector: str | None = None,
    max_pixels: int | None = None,
) -> int:
    """Caption the pictures in `lang`, all languages of the model when None, and write the page; the exit status."""
    from itertools import islice

    from recur import load
    from recur.cli.inputs import Listing
    from recur.data.images import MAX_PIXELS
    from recur.errors import InputError
    from recur.explain.explanation import explain
    from recur.explain.page import write_page

    if out is None and not json:
        raise RecurError("nothing to write; give --out FILE.html, or --json, or both")
    if out is not None:
        check_page(out)
    most = MAX_PIXELS if max_pixels is None else max_pixels
    listing = Listing(pictures)
    paths = iter(listing)
    captioner = load(model)
    finder = None if detector is None else load(detector)
    good = []
    failed = False
    with Progress(lambda: at_most(listing.count()), unit="pictures") as progress:
        for number, path in enumerate(islice(paths, PAGE_LIMIT)):
            try:
                told = explain(
                    captioner,
                    path,
                    languages=lang,
                    beam=beam,
                    n_best=n_best,
                    detail=number < DETAIL_LIMIT,
                    objects=() if finder is None else finder([path])[0].objects,
                    max_pixels=most,
                )
            except InputError as error:
                failed = True
                progress.line(visible(str(error)))
            else:
                if json:
                    progress.result(json_line(told.data))
                if out is not None:
                    good.append(told)
            progress.advance()
        if next(paths, None) is not None:
            progress.line(
                f"note: the page has the first {PAGE_LIMIT} pictures only, the others are left out; "
                "give them in smaller groups"
            )
    if out is not None and good:
        write_page(out, good)
    return 1 if failed else 0


def at_most(count: int | None) -> int | None:
    """`count`, or the number of pictures that a page holds when that is less."""
    return None if count is None else min(count, PAGE_LIMIT)


def check_page(out: Path) -> None:
    """Raise RecurError when a page cannot be written to `out`: to be asked before the work, which may be long."""
    if out.is_dir():
        raise RecurError(f"{out}: is a folder; expected the name of an HTML file; name one in it")
    above = next((folder for folder in out.absolute().parents if folder.exists()), Path("/"))
    if not above.is_dir():
        raise RecurError(f"{out}: {above} is no folder; expected one to write the page into; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RecurError(f"{out}: {above} cannot be written to; expected a folder of your own; name another place")


def write_captions(out: Path, results: Sequence[Sequence[Caption]], *, max_pixels: int) -> None:
    """Write the page of captions of picture files, each with its languages. Raises InputError where a file has gone."""
    from recur.data.images import read_picture
    from recur.explain.explanation import SHOWN_SIDE, from_captions
    from recur.explain.page import write_page

    pictures = []
    for captions in results:
        path = captions[0].path
        if path is None:
            raise ValueError("only pictures that are files have a page")
        pictures.append(from_captions(captions, read_picture(path, target=SHOWN_SIDE, max_pixels=max_pixels)))
    write_page(out, pictures)
