"""`recur train language`: the command line of `recur.train.language.train_language`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, positive, probability, whole
from recur.cli.training import OF_EACH, add_run, run_training


def add(tasks: Commands) -> None:
    """Add `language`. Options that are not given are not passed on: the function states the defaults."""
    parser = tasks.add_parser(
        "language",
        help="a model that writes text, character by character",
        description="Train a character model on text files and write it as a bundle. Files are UTF-8 (.gz, .bz2 and "
        ".xz are unpacked) and are read as one text in the order given; its last tenth is the dev split. "
        "Stop with Ctrl-C at any time and go on with --resume.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_language)
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="text files")
    data.add_argument("--dev", type=Path, metavar="FILE", help="measure on this text instead of the last tenth")
    data.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    data.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    data.add_argument("--min-count", type=whole(1), metavar="N", help="rarer characters are unknown to the model")
    network = parser.add_argument_group("network")
    network.add_argument("--cell", choices=("rnn", "lstm", "gru"), help="the recurrent cell")
    network.add_argument("--hidden", type=whole(1, 1 << 14), metavar="H", help="hidden units")
    network.add_argument("--layers", type=whole(1, 16), metavar="L", help="recurrent layers")
    network.add_argument("--embedding", type=whole(1, 1 << 14), metavar="E", help="numbers that stand for a character")
    network.add_argument("--init", metavar="NAME_OR_PATH", help="start from the weights of this model")
    course = parser.add_argument_group("course")
    course.add_argument("--dropout", type=probability, metavar="P", help="share of hidden units left out")
    course.add_argument("--weight-drop", type=probability, metavar="P", help="share of recurrent weights left out")
    course.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the text")
    course.add_argument(
        "--batch", type=whole(1, 1 << 16), metavar="B", help=f"rows of text read side by side; {OF_EACH}"
    )
    course.add_argument("--length", type=whole(1, 1 << 16), metavar="T", help="characters between two updates")
    course.add_argument("--rate", type=positive, metavar="R", help="the highest learning rate")
    add_run(course, "the bundle to write: a folder, or a .zip")


def train_language(**options: Any) -> int:
    """`recur train language`; the options are the keyword arguments of `recur.train.language.train_language`."""
    run_training("language", "train_language", options)
    return 0
