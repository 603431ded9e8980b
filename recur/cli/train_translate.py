"""`recur train translate`: the command line of `recur.train.translation.train_translation`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, probability, whole
from recur.cli.training import add_run, run_training

DESCRIPTION = """\
Train a translator and write it as a bundle. The data are two files in which each line of one is the translation of the
other's (--data train.en train.de), their common beginning (--data train, for train.en and train.de), or one table
(.csv, .tsv, .jsonl) with a column for each language; all of them plain or compressed. Stop with Ctrl-C at any time and
go on with --resume.
"""


def add(tasks: Commands) -> None:
    """Add the task `translate`."""
    parser = tasks.add_parser(
        "translate",
        help="a translator",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_translate)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH", help="pairs to learn from")
    parser.add_argument(
        "--dev", type=Path, nargs="+", metavar="PATH", help="pairs to measure on (default: one in thirty is held out)"
    )
    parser.add_argument(
        "--also",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="tables of pairs of another kind, read less and less; the second half of the passes does without them",
    )
    parser.add_argument(
        "--repeat", type=whole(1), metavar="N", help="times that a pass reads the pairs of --data (default 1)"
    )
    parser.add_argument("--from", dest="source", required=True, metavar="LANG", help="language of the source")
    parser.add_argument("--to", dest="target", required=True, metavar="LANG", help="language of the translation")
    parser.add_argument("--both", action="store_true", help="one model for both directions")
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    parser.add_argument("--pieces", type=whole(1), metavar="N", help="pieces of words to learn")
    parser.add_argument("--embedding", type=whole(1), metavar="E", help="numbers of a piece's vector")
    parser.add_argument("--hidden", type=whole(1), metavar="H", help="hidden units of the decoder")
    parser.add_argument("--encoder", type=whole(1), metavar="H", help="hidden units of each direction of the encoder")
    parser.add_argument("--layers", type=whole(1, 16), metavar="L", help="layers of the decoder")
    parser.add_argument("--dropout", type=probability, metavar="P", help="share of the units that a step leaves out")
    parser.add_argument(
        "--word-dropout", type=probability, metavar="P", help="share of the pieces that a step does not see (default 0)"
    )
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    add_run(parser, "the bundle to write: a folder")


def train_translate(**options: Any) -> int:
    """`recur train translate`; the options are the keyword arguments of the training function."""
    run_training("translation", "train_translation", options)
    return 0
