"""`recur train span`: the command line of `recur.train.span.train_span`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, whole
from recur.cli.training import OF_EACH, add_run, run_training

DESCRIPTION = """\
Train a reader that answers with a part of the passage, or says that there is none, and write it as a bundle. The data
are files in SQuAD's JSON (v1.1 and v2), or lines of JSON with context, question and the span in tokens; plain or
compressed. One passage in ten is held out. Stop with Ctrl-C at any time and go on with --resume.
"""


def add(tasks: Commands) -> None:
    """Add the task `span`."""
    parser = tasks.add_parser(
        "span",
        help="answers that are parts of a passage",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_span)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH", help="files of questions")
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    parser.add_argument("--embedding", type=whole(1, 4096), metavar="E", help="numbers of a word vector")
    parser.add_argument("--hidden", type=whole(1, 4096), metavar="H", help="hidden units of each direction")
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    parser.add_argument("--batch", type=whole(1), metavar="B", help=f"questions in a step; {OF_EACH}")
    add_run(parser, "the bundle to write: a folder")


def train_span(**options: Any) -> int:
    """`recur train span`; the options are the keyword arguments of the training function."""
    run_training("span", "train_span", options)
    return 0
