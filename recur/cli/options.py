"""Types of option values, and the options that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

Commands = Any  # argparse keeps the type of `add_subparsers()` private


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number of at least `low`, and at most `high`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            span = f"{low} to {high}" if high is not None else f"{low} or more"
            raise argparse.ArgumentTypeError(f"{value} is out of range; give {span}")
        return value

    return convert


def positive(text: str) -> float:
    """A finite number above zero."""
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give a number above 0")
    return value


def positive_or_zero(text: str) -> float:
    """A finite number of zero or more."""
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give 0 or more")
    return value


def share(text: str) -> float:
    """A number above 0, and at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give a number above 0, at most 1")
    return value


def probability(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; give a probability from 0 to 1")
    return value


def languages(text: str) -> tuple[str, ...]:
    """A comma list of language tags, in order, each once."""
    tags = tuple(dict.fromkeys(tag.strip().lower() for tag in text.split(",") if tag.strip()))
    if not tags:
        raise argparse.ArgumentTypeError("names no language; give for example en, or en,zh")
    return tags


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def add_model(parser: argparse.ArgumentParser, default: str = "captioner") -> None:
    """`--model`, the same wherever a bundle is read."""
    parser.add_argument(
        "--model",
        metavar="NAME_OR_PATH",
        default=default,
        help="a name from `recur models`, or the path of a bundle",
    )


def add_languages(parser: argparse.ArgumentParser, *, default: str = "the model's first") -> None:
    """`--lang`: one language or several; `default` says which when it is not given."""
    parser.add_argument(
        "--lang",
        type=languages,
        metavar="LANG",
        help=f"language of the captions; en,zh gives both (default: {default})",
    )


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """`--max-pixels`, the same wherever pictures are read."""
    parser.add_argument(
        "--max-pixels",
        type=whole(1),
        metavar="N",
        help="refuse pictures of more pixels, before they are decoded (default: 100000000)",
    )


def add_texts(parser: argparse.ArgumentParser, what: str = "texts") -> None:
    """The options that say where texts are."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=f"{what}; - or none: --file or standard input")
    parser.add_argument(
        "--file", metavar="FILE", help="a file with one text a line, .gz, .xz and .bz2 too; - is standard input"
    )
    parser.add_argument("--column", metavar="NAME", help="--file is a .csv, .tsv or .jsonl: read this column of it")


def add_search(parser: argparse.ArgumentParser) -> None:
    """The options of the search for a caption, and of what is shown of it."""
    add_languages(parser)
    parser.add_argument(
        "--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step (default: the model's own)"
    )
    parser.add_argument(
        "--n-best", type=whole(1, 64), default=1, metavar="N", help="show the N best captions (default: 1)"
    )
    parser.add_argument(
        "--min-confidence",
        type=probability,
        metavar="P",
        help='say "not sure" where the confidence is below P (default: always answer)',
    )
