"""Options that several actions of `recur library` share, and the conditions that they make together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, add_languages, probability

if TYPE_CHECKING:
    from recur.library.query import Wanted

NOT_SURE = 0.5  # confidence below which a caption is doubtful when nobody says


def add_action(actions: Commands, name: str, summary: str, run: Any, description: str = "") -> argparse.ArgumentParser:
    """An action of `recur library`, with `--index`."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--index",
        type=Path,
        metavar="FILE",
        help="the index (default: $RECUR_INDEX, or recur/library.sqlite in the user's data folder)",
    )
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, the same wherever something is printed."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_wanted(parser: argparse.ArgumentParser) -> None:
    """Which entries of the index are meant."""
    add_languages(parser, default="all that are there")
    parser.add_argument("--since", metavar="DATE", help="of this date or later: YYYY, YYYY-MM or YYYY-MM-DD")
    parser.add_argument("--until", metavar="DATE", help="of this date or earlier, itself included")
    parser.add_argument(
        "--not-sure",
        type=probability,
        nargs="?",
        const=NOT_SURE,
        metavar="P",
        help=f"only where the confidence is below P ({NOT_SURE} when P is left out)",
    )
    parser.add_argument(
        "--object", dest="objects", action="append", metavar="LABEL", help="only where a detector saw it: dog"
    )
    parser.add_argument("--under", action="append", metavar="PATH", help="only this file, or what is below this folder")
    parser.add_argument("--missing", action="store_true", help="files that are not there any more, too")


def wanted_from(
    text: str | None,
    lang: tuple[str, ...] | None,
    since: str | None,
    until: str | None,
    not_sure: float | None,
    under: list[str] | None,
    missing: bool,
    objects: list[str] | None,
) -> Wanted:
    """The conditions that these options make. Raises RecurError for what is no date."""
    from recur.library.query import Wanted, checked_date
    from recur.library.sources import absolute

    return Wanted(
        text,
        lang,
        None if since is None else checked_date(since),
        None if until is None else checked_date(until),
        not_sure,
        tuple(map(absolute, under or ())),
        missing,
        tuple(objects or ()),
    )
