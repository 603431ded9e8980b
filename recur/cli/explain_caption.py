"""`recur explain caption`: a page that shows where each word came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.options import Commands, add_languages, add_max_pixels, add_model, whole
from recur.cli.terminal import visible
from recur.errors import RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.predict.caption import Caption

PAGE_LIMIT = 500  # pictures; a page holds them all at once, and so does a browser


def add(tasks: Commands) -> None:
    """Add the task `caption`."""
    page = tasks.add_parser(
        "caption",
        help="an HTML page",
        description="Write one HTML page, complete in itself: the pictures, their captions, and for each word the part "
        "of the picture it came from and the runners-up.",
        allow_abbrev=False,
    )
    page.set_defaults(run=explain_caption)
    page.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help=f"files, folders or globs; {PAGE_LIMIT} pictures at most"
    )
    page.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the page to write")
    add_model(page)
    add_languages(page, default="all of the model's")
    page.add_argument("--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step")
    page.add_argument("--n-best", type=whole(1, 64), default=5, metavar="N", help="captions listed (default: 5)")
    add_max_pixels(page)


def explain_caption(
    *,
    pictures: list[str],
    out: Path,
    model: str = "captioner",
    lang: tuple[str, ...] | None = None,
    beam: int | None = None,
    n_best: int = 5,
    max_pixels: int | None = None,
) -> int:
    """Caption the pictures in `lang`, all languages of the model when None, and write the page; the exit status."""
    from itertools import islice

    from recur import load
    from recur.cli.inputs import Listing
    from recur.data.images import MAX_PIXELS
    from recur.errors import InputError

    check_page(out)
    most = MAX_PIXELS if max_pixels is None else max_pixels
    listing = Listing(pictures)
    paths = iter(listing)
    captioner = load(model)
    good: list[tuple[Caption, ...]] = []
    failed = False
    results = captioner.stream_languages(islice(paths, PAGE_LIMIT), lang, beam=beam, n_best=n_best, max_pixels=most)
    with Progress(lambda: at_most(listing.count()), unit="pictures") as progress:
        for result in results:
            if isinstance(result, InputError):
                failed = True
                progress.line(visible(str(result)))
            else:
                good.append(result)
            progress.advance()
        if next(paths, None) is not None:
            progress.line(
                f"note: the page has the first {PAGE_LIMIT} pictures only, the others are left out; "
                "give them in smaller groups"
            )
    if good:
        write_captions(out, good, max_pixels=most)
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
    from recur.explain.page import LONGEST_SIDE, PagePicture, write_page

    pictures = []
    for captions in results:
        path = captions[0].path
        if path is None:
            raise ValueError("only pictures that are files have a page")
        picture = read_picture(path, target=LONGEST_SIDE, max_pixels=max_pixels)
        pictures.append(
            PagePicture(path, picture.pixels, picture.width, picture.height, tuple(captions), tuple(picture.notes))
        )
    write_page(out, pictures)
