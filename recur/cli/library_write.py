"""`recur library write` and `undo`: words into files, and out of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from recur.cli.library_options import add_action, add_json
from recur.cli.options import Commands, add_languages, probability
from recur.cli.terminal import json_line, visible
from recur.progress import Progress

WRITE = """\
Write the words of the pictures where other programs read them: as XMP (dc:description and Iptc4xmpCore:
AltTextAccessibility, an alternative for each language), into sidecar files beside the pictures, or into the pictures.
The pixels are never touched. Words that a person wrote stay unless --overwrite. Every change is in a journal; see undo.
"""


def add_write(actions: Commands) -> None:
    """Add `write`."""
    parser = add_action(actions, "write", "write the words into the pictures, or beside them", write, WRITE)
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="only these pictures, or what is below these folders (default: all)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--sidecar", action="store_true", help="beside each picture, as PICTURE.xmp; this is the default"
    )
    where.add_argument("--embed", action="store_true", help="into the pictures: JPEG, PNG, WebP, TIFF")
    add_languages(parser, default="all that are there; the first is the default text")
    parser.add_argument(
        "--min-confidence",
        type=probability,
        metavar="P",
        help="leave out words of less confidence (default: write all)",
    )
    parser.add_argument("--overwrite", action="store_true", help="also replace words that a person wrote")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; show what would be written")
    add_json(parser)


def write(
    *,
    paths: list[str],
    index: Path | None = None,
    sidecar: bool = False,
    embed: bool = False,
    lang: tuple[str, ...] | None = None,
    min_confidence: float | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Write the words; returns the exit status. Beside the pictures unless `embed`."""
    from recur.library.index import Index, default_index
    from recur.library.metadata import exiv2
    from recur.library.query import Wanted, entries
    from recur.library.sources import absolute
    from recur.library.writing import Writer

    assert not (sidecar and embed)
    exiv2()
    wanted = Wanted(languages=lang, under=tuple(map(absolute, paths)))
    counts = Counter[str]()
    with Index(index or default_index(), durable=True) as library, library.held("write"), Progress(None) as bar:
        writer = Writer(library, embed=embed, overwrite=overwrite, dry_run=dry_run, least=min_confidence)
        for each in writer.write(entries(library, wanted)):
            counts[each.what] += 1
            bar.advance()
            if each.error is not None:
                bar.line(visible(str(each.error)))
            elif json:
                bar.result(json_line(each.to_json()))
            elif dry_run and each.what == "planned":
                bar.result(visible(each.target) + "\t" + visible(each.texts["x-default"]))
        if not json:
            done = f"{counts['planned']:,} would be written" if dry_run else f"{counts['written']:,} written"
            bar.result(
                f"{done}, {counts['same']:,} have these words, "
                f"{counts['person']:,} left with the words of a person, {counts['failed']:,} failed"
            )
    return 1 if counts["failed"] else 0


def add_undo(actions: Commands) -> None:
    """Add `undo`."""
    parser = add_action(
        actions,
        "undo",
        "take back the last run of write",
        undo,
        "Take back the last run of write that has not been taken back: sidecars that it made go, and files that it\n"
        "changed get back the very bytes they had. What somebody has changed since stays as it is.",
    )
    add_json(parser)


def undo(*, index: Path | None = None, json: bool = False) -> int:
    """Take it back; returns the exit status."""
    from recur.library.index import Index, default_index
    from recur.library.writing import Written
    from recur.library.writing import undo as take_back

    failed = 0
    with Index(index or default_index(), durable=True) as library, library.held("undo"), Progress(None) as bar:

        def tell(each: Written) -> None:
            nonlocal failed
            if each.error is not None:
                failed += 1
                bar.line(visible(str(each.error)))
            elif json:
                bar.result(json_line(each.to_json()))

        count = take_back(library, tell)
        if not json:
            bar.result(f"{count - failed:,} changes taken back" if count else "nothing to take back")
    return 1 if failed else 0
