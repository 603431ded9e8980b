"""`recur train frames`: the command line of `recur.train.frames.train_frames`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, positive_or_zero, probability, whole
from recur.cli.training import add_run, run_training

DESCRIPTION = """\
Train a model that gives every frame a label, and write it as a bundle. The data are an archive of features (.npz with
FOLD/NAME/scores and FOLD/NAME/labels), the drive of a camera car (.tar.gz or the folder; a steering angle below -0.1 is
left, above 0.1 right, else straight), or a folder of pictures with labels.csv (file, label). Pictures are seen by the
trunk of the captioner that comes with recur. --fold names the fold that is held out; else it is the last --held-out
share of every sequence. Stop with Ctrl-C at any time and go on with --resume.
"""


def add(tasks: Commands) -> None:
    """Add the task `frames`."""
    parser = tasks.add_parser(
        "frames",
        help="a label for every frame",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_frames)
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="labelled frames")
    parser.add_argument("--fold", metavar="NAME", help="hold out this fold")
    parser.add_argument("--held-out", type=probability, metavar="S", help="hold out the last share S (default: 0.2)")
    parser.add_argument(
        "--cell", choices=("lstm", "gru", "none"), help="none looks at each frame alone (default: lstm)"
    )
    parser.add_argument("--head", choices=("softmax", "crf"), help="crf learns which label follows which")
    parser.add_argument("--direction", choices=("both", "forward"), help="forward reads no frame ahead (default: both)")
    parser.add_argument("--hidden", type=whole(1), metavar="H", help="hidden units of each direction (default: 32)")
    parser.add_argument("--reduced", type=whole(1), metavar="P", help="numbers a frame is reduced to (default: 32)")
    parser.add_argument("--dropout", type=probability, metavar="P", help="share of inputs left out (default: 0.3)")
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data (default: 60)")
    parser.add_argument("--crop", type=whole(1), metavar="N", help="frames that are read at a time (default: 256)")
    parser.add_argument(
        "--mirror",
        nargs="*",
        metavar="A:B",
        help="learn mirrored pictures as well, with the labels A and B changed for one another",
    )
    parser.add_argument("--smooth", type=positive_or_zero, metavar="C", help="nats that a change costs (default: 0)")
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    add_run(parser, "the bundle to write: a folder")


def train_frames(**options: Any) -> int:
    """`recur train frames`; the options are the keyword arguments of the training function."""
    run_training("frames", "train_frames", options)
    return 0
