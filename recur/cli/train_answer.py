"""`recur train answer`: the command line of `recur.train.answer.train_answer`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, whole
from recur.cli.training import OF_EACH, add_run, run_training

DESCRIPTION = """\
Train a model that answers questions about stories, and write it as a bundle. The data are bAbI files: a folder with
NAME_train.txt and NAME_valid.txt, one pair a task, or a tar archive of them; one model learns all tasks. Stop with
Ctrl-C at any time and go on with --resume.
"""


def add(tasks: Commands) -> None:
    """Add the task `answer`."""
    parser = tasks.add_parser(
        "answer",
        help="answers to questions about stories",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_answer)
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="a folder or archive of bAbI files")
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    parser.add_argument("--hidden", type=whole(1, 4096), metavar="H", help="hidden units")
    parser.add_argument("--layers", type=whole(1, 16), metavar="N", help="readings of the story")
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    parser.add_argument("--batch", type=whole(1), metavar="B", help=f"questions in a step; {OF_EACH}")
    add_run(parser, "the bundle to write: a folder")


def train_answer(**options: Any) -> int:
    """`recur train answer`; the options are the keyword arguments of the training function."""
    run_training("answer", "train_answer", options)
    return 0
