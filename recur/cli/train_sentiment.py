"""`recur train sentiment`: the command line of `recur.train.sentiment.train_sentiment`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, whole
from recur.cli.training import add_run, run_training

DESCRIPTION = """\
Train a model that tells two kinds of texts apart, and write it as a bundle. The data are tables (.csv, .tsv, .jsonl,
plain or compressed) with a text and a label in each row, or folders with a folder for each label and a file for each
text. `train.tsv` with a `dev.tsv` beside it (or a folder with train/ and dev/) says what is held out; else it is one
text in ten. Stop with Ctrl-C at any time and go on with --resume.
"""


def add(tasks: Commands) -> None:
    """Add the task `sentiment`."""
    parser = tasks.add_parser(
        "sentiment",
        help="good or bad, of texts",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_sentiment)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH", help="labelled texts")
    parser.add_argument("--column", metavar="NAME", help="the column of the texts, when it has no usual name")
    parser.add_argument("--label-column", metavar="NAME", help="the column of the labels, likewise")
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    parser.add_argument("--init", metavar="NAME_OR_PATH", help="start from the words and the network of this model")
    parser.add_argument(
        "--min-count", type=whole(1), metavar="N", help="words seen less often are unknown to the network"
    )
    parser.add_argument("--embedding", type=whole(1), metavar="E", help="numbers of a word vector")
    parser.add_argument("--hidden", type=whole(1), metavar="H", help="hidden units of each direction")
    parser.add_argument("--epochs", type=whole(0), metavar="N", help="passes over the data; 0 with --init")
    add_run(parser, "the bundle to write: a folder")


def train_sentiment(**options: Any) -> int:
    """`recur train sentiment`; the options are the keyword arguments of the training function."""
    run_training("sentiment", "train_sentiment", options)
    return 0
