"""`recur library`: a collection of pictures of any size, described once, searched, exported, written into the files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.library_options import add_action, add_json, add_wanted, wanted_from
from recur.cli.library_write import add_undo, add_write
from recur.cli.options import Commands, add_languages, add_max_pixels, add_model, whole
from recur.cli.shards import add_engine, chosen_engine, model_for_workers
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.library.chunk import Event
    from recur.library.query import Entry

SCAN = """\
Bring the index up to what lies in these places, and describe every picture that has no words yet. A place is a picture,
a folder (read recursively), a .tar archive or a .parquet table with a column of pictures, here or under a URL. A second
scan opens only what is new or changed; moved files are known by their content, and pictures that look like one that is
there already share its words. A scan may be stopped in any way at any moment; the next one goes on.
"""
SEARCH = """\
Find pictures by what is in them. All words must be there, in any order, and "quoted ones" next to each other; English
words are found in all their forms, Chinese ones as they stand in the text. Dates are those of the EXIF, or else of the
file. The best come first; without words, the order is that of the paths, or with --not-sure the least sure first.
"""


def add(commands: Commands) -> None:
    """Add `library` with its actions."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "library", help="describe, search and label a whole collection of pictures", allow_abbrev=False
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_scan(actions)
    _add_search(actions)
    _add_duplicates(actions)
    _add_export(actions)
    _add_stats(actions)
    _add_forget(actions)
    add_write(actions)
    add_undo(actions)


# ---------------------------------------------------------------------------------------------------------------- scan


def _add_scan(actions: Commands) -> None:
    parser = add_action(actions, "scan", "bring the index up to date, and describe what is new", scan, SCAN)
    parser.add_argument("places", nargs="*", metavar="PLACE", help="a folder, a picture, a .tar or a .parquet file")
    parser.add_argument(
        "--list", dest="list_file", metavar="FILE", help="a file with one path a line; - is standard input"
    )
    add_model(parser)
    add_languages(parser)
    parser.add_argument("--recaption", action="store_true", help="describe again what another model described")
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=16, metavar="B", help="pictures computed together (default: 16)"
    )
    parser.add_argument("--objects", action="store_true", help="look for objects, too: search --object finds them")
    parser.add_argument(
        "--detector", metavar="NAME_OR_PATH", default="detector", help="who looks for objects (default: detector)"
    )
    add_max_pixels(parser)
    add_engine(parser)
    add_json(parser)


def scan(
    *,
    places: list[str],
    list_file: str | None = None,
    index: Path | None = None,
    model: str = "captioner",
    lang: tuple[str, ...] | None = None,
    recaption: bool = False,
    batch: int = 16,
    objects: bool = False,
    detector: str = "detector",
    max_pixels: int | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    json: bool = False,
) -> int:
    """Scan; returns the exit status. The arguments are the options of the command."""
    from recur import load
    from recur.cli.inputs import names_in
    from recur.data.images import MAX_PIXELS
    from recur.library.index import Index, default_index
    from recur.library.reading import add_readers
    from recur.library.scan import Scan
    from recur.library.sources import absolute, roots
    from recur.scale.scan import describer

    if not places and list_file is None:
        raise RecurError("no place given; name folders, pictures or archives, or a list of them with --list FILE")
    found: Iterable[str] = roots(places)
    if list_file is not None:
        found = chain(found, map(absolute, names_in(list_file)))
    captioner = load(model)
    eye = _detector(detector) if objects else None
    languages = lang if lang is not None else captioner.languages[:1]
    most = MAX_PIXELS if max_pixels is None else max_pixels
    add_readers()
    with (
        chosen_engine(engine, address, workers) as worked,
        Index(index or default_index(), create=True) as library,
        library.held("scan"),
        Progress(None, unit="files") as bar,
    ):

        def tell(event: Event) -> None:
            if event.error is not None:
                bar.line(visible(str(event.error)))
            elif json:
                bar.result(json_line(event.to_json()))

        job = Scan(
            library,
            captioner,
            languages=languages,
            recaption=recaption,
            batch=batch,
            max_pixels=most,
            describe=None
            if engine == "local"
            else describer(
                worked,
                model_for_workers(model),
                languages,
                batch=batch,
                max_pixels=most,
                detector=None if eye is None else model_for_workers(detector),
            ),
            detector=eye,
            tell=tell,
            walked=bar.update,
        )
        outcome = job.run(found)
        summary = {"index": str(library.path), "counts": dict(+outcome.counts), "seconds": round(outcome.seconds, 3)}
        bar.result(json_line(summary) if json else _summary(outcome.counts, library.path))
        for other, captions in job.other_models():
            bar.line(
                f"note: {captions} captions are by the model {other!r}; --recaption replaces those of these places"
            )
    return 1 if outcome.counts["failed"] else 0


def _detector(name: str) -> Any:
    """The predictor of objects. Raises RecurError when there is none of that name, or it is for something else."""
    from recur import load

    try:
        found = load(name)
    except RecurError as error:
        raise RecurError(f"--objects needs a model that detects: {error}; or leave out --objects") from None
    if found.bundle.task != "detect":
        raise RecurError(f"--detector {name}: a model for {found.bundle.task!r}; expected one for 'detect'")
    return found


def _summary(counts: dict[str, int], index: Path) -> str:
    texts = {
        "new": "new",
        "changed": "changed",
        "moved": "moved",
        "copy": "copied",
        "back": "back again",
        "words": "described anew",
        "unchanged": "as before",
        "missing": "missing",
        "failed": "failed",
    }
    parts = [f"{counts[kind]:,} {text}" for kind, text in texts.items() if counts.get(kind)]
    if counts.get("alike"):
        parts.append(f"{counts['alike']:,} look like others and share their words")
    return visible(f"{', '.join(parts) or 'no pictures'}; index: {index}")


# -------------------------------------------------------------------------------------------------- search and export


def _add_search(actions: Commands) -> None:
    parser = add_action(actions, "search", "find pictures by words, objects, date, or doubt", search, SEARCH)
    parser.add_argument("words", nargs="*", metavar="WORD", help="what is to be in the picture: dog on a beach")
    add_wanted(parser)
    parser.add_argument("--limit", type=whole(1), default=20, metavar="N", help="so many at most (default: 20)")
    add_json(parser)


def search(
    *,
    words: list[str],
    index: Path | None = None,
    lang: tuple[str, ...] | None = None,
    since: str | None = None,
    until: str | None = None,
    not_sure: float | None = None,
    under: list[str] | None = None,
    missing: bool = False,
    objects: list[str] | None = None,
    limit: int = 20,
    json: bool = False,
) -> int:
    """Print what is found; returns the exit status."""
    from recur.library.index import Index, default_index
    from recur.library.query import entries, why_none

    wanted = wanted_from(" ".join(words) or None, lang, since, until, not_sure, under, missing, objects)
    with Index(index or default_index()) as library:
        none = True
        for entry in islice(entries(library, wanted), limit):
            none = False
            if json:
                print(json_line(entry.to_json()))
            else:
                print("\n".join(_lines(entry)))
        if none:
            sys.stderr.write(visible(f"note: no picture found; {why_none(library, wanted)}") + "\n")
    return 0


def _lines(entry: Entry) -> Iterator[str]:
    for each in entry.words:
        confidence = "" if each.confidence is None else f"{each.confidence:.2f}"
        language = [each.language] if len(entry.words) > 1 else []
        yield "\t".join([visible(entry.place.path), *language, visible(each.caption), confidence])


def _add_export(actions: Commands) -> None:
    parser = add_action(
        actions,
        "export",
        "write the library, or a part of it, to one file",
        export,
        "Write the library, or the part that is found, to one file: a table (CSV), JSON lines, or a gallery (HTML,\n"
        "complete in itself) of thumbnails with their words as alternative text.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only pictures with these words; see search")
    kinds = parser.add_mutually_exclusive_group(required=True)
    kinds.add_argument("--csv", type=Path, metavar="FILE", help="a table, one line a file and language")
    kinds.add_argument("--jsonl", type=Path, metavar="FILE", help="one JSON object a line and file")
    kinds.add_argument("--html", type=Path, metavar="FILE", help="a gallery")
    add_wanted(parser)
    parser.add_argument(
        "--limit",
        type=whole(1),
        metavar="N",
        help="so many at most (default: all; 500 in a gallery, which never has more)",
    )


def export(
    *,
    words: list[str],
    csv: Path | None = None,
    jsonl: Path | None = None,
    html: Path | None = None,
    index: Path | None = None,
    lang: tuple[str, ...] | None = None,
    since: str | None = None,
    until: str | None = None,
    not_sure: float | None = None,
    under: list[str] | None = None,
    missing: bool = False,
    objects: list[str] | None = None,
    limit: int | None = None,
) -> int:
    """Write the file; returns the exit status."""
    from recur.cli.explain_caption import check_page
    from recur.library.export import GALLERY_LIMIT, write_csv, write_gallery, write_jsonl
    from recur.library.index import Index, default_index
    from recur.library.query import entries
    from recur.library.reading import add_readers

    out = csv or jsonl or html
    assert out is not None
    check_page(out)
    wanted = wanted_from(" ".join(words) or None, lang, since, until, not_sure, under, missing, objects)
    failed = False
    with Index(index or default_index()) as library:
        found = entries(library, wanted)
        if html is None:
            (write_csv if csv is not None else write_jsonl)(out, islice(found, limit))
            return 0
        add_readers()
        for problem in write_gallery(out, islice(found, min(limit or GALLERY_LIMIT, GALLERY_LIMIT))):
            failed = True
            sys.stderr.write(visible(str(problem)) + "\n")
        if (limit is None or limit > GALLERY_LIMIT) and next(found, None) is not None:
            sys.stderr.write(
                f"note: {visible(str(out))} has the first {GALLERY_LIMIT} pictures only; narrow the search\n"
            )
    return 1 if failed else 0


# -------------------------------------------------------------------------------------------------------------- others


def _add_duplicates(actions: Commands) -> None:
    parser = add_action(
        actions,
        "duplicates",
        "list files with the same picture, or pictures that look alike",
        duplicates,
        "List groups of files with the same content, or with pictures that look alike: bursts, resized copies.\n"
        "Each line is: number of the group, tab, kind (first, copy, alike), tab, bits that differ, tab, path.",
    )
    add_json(parser)


def duplicates(*, index: Path | None = None, json: bool = False) -> int:
    """Print the groups; returns the exit status."""
    from recur.library.index import Index, default_index
    from recur.library.query import duplicates as groups_in

    with Index(index or default_index()) as library:
        for number, group in enumerate(groups_in(library), start=1):
            if json:
                files = [{"path": each.path, "kind": each.kind, "bits": each.bits} for each in group]
                print(json_line({"group": number, "files": files}))
            else:
                for each in group:
                    print(f"{number}\t{each.kind}\t{each.bits}\t{visible(each.path)}")
    return 0


def _add_stats(actions: Commands) -> None:
    parser = add_action(actions, "stats", "count what is in the library", stats)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw it; needs matplotlib")
    add_json(parser)


def stats(*, index: Path | None = None, plot: Path | None = None, json: bool = False) -> int:
    """Print the counts; returns the exit status."""
    from recur.cli.explain_caption import check_page
    from recur.library.index import Index, default_index
    from recur.library.query import stats as counts_of

    if plot is not None:
        check_page(plot)
    with Index(index or default_index()) as library:
        counts = counts_of(library)
    if plot is not None:
        from recur.library.plot import draw_stats

        draw_stats(plot, counts)
    if json:
        print(json_line(counts))
        return 0
    for name in ("index", "bytes", "files", "in_archives", "missing", "failed", "pictures", "alike"):
        value = counts[name]
        print(f"{name.replace('_', ' ')}\t{visible(value) if isinstance(value, str) else format(value, ',')}")
    for row in counts["captions"]:
        mean = "" if row["mean_confidence"] is None else f", mean confidence {row['mean_confidence']:.2f}"
        print(visible(f"captions {row['language']}, {row['model']}") + f"\t{row['captions']:,}{mean}")
    for label, count in counts["objects"].items():
        print(f"pictures with {visible(label)}\t{count:,}")
    for year, count in counts["years"].items():
        print(f"taken in {year or 'an unknown year'}\t{count:,}")
    return 0


def _add_forget(actions: Commands) -> None:
    parser = add_action(
        actions,
        "forget",
        "remove files from the index; the files themselves stay",
        forget,
        "Remove a file, or all that is below a folder or in an archive, from the index, with the words that nothing\n"
        "else shares. The files themselves stay as they are; a later scan of their place finds them again.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder or an archive, there or not")


def forget(*, paths: list[str], index: Path | None = None) -> int:
    """Remove them; returns the exit status."""
    from recur.library.index import Index, default_index
    from recur.library.records import forget as forget_path

    failed = False
    with Index(index or default_index()) as library, library.held("forget"):
        for path in paths:
            count = forget_path(library, path)
            if count:
                print(f"{visible(path)}\t{count:,} {'file' if count == 1 else 'files'} forgotten")
            else:
                failed = True
                sys.stderr.write(visible(f"{path}: not in the index; check the path") + "\n")
    return 1 if failed else 0
