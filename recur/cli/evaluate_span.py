"""`recur evaluate span`: F1 and exact match of answers that are parts of a passage."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recur.cli.options import Commands
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError

DESCRIPTION = """\
Answer questions in SQuAD's JSON (v1.1 and v2), or lines of JSON with context, question and span, and compare: F1 and
exact match in percent, the share of acceptable answers (an F1 of 50 or more, or no answer where there is none), and
the expected calibration error of the confidence, which says how probable that is. --split train or dev is what training
would have learned from or held out (default: all).
Questions whose answer is not in their passage are named and left out, and the status is 1.
"""


def add(tasks: Commands) -> None:
    """Add the task `span`."""
    task = tasks.add_parser(
        "span",
        help="answers that are parts of a passage",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_span)
    task.add_argument("--model", metavar="NAME_OR_PATH", required=True, help="a model of `recur train span`")
    task.add_argument("--data", type=Path, required=True, metavar="PATH", help="a file of questions")
    task.add_argument("--split", choices=("train", "dev", "all"), default="all", help="the part (default: all)")
    task.add_argument("--json", action="store_true", help="one JSON object")


def evaluate_span(*, model: str, data: Path, split: str = "all", json: bool = False) -> int:
    """Measure; returns the exit status. The arguments are the options of the command."""
    from recur import load
    from recur.data.passages import read_asked
    from recur.predict.span import SpanReader, measure

    reader = load(model)
    if not isinstance(reader, SpanReader):
        raise RecurError(f"{model}: no model that answers with a part of a passage; train one with `recur train span`")
    asked, problems = read_asked(data)
    for line in problems:
        sys.stderr.write(visible(line) + "\n")
    asked = [each for each in asked if split == "all" or each.held_out == (split == "dev")]
    if not asked:
        raise RecurError(f"{data}: no question in the split {split}; expected some; give more passages")
    row = {"model": reader.name, "data": str(data), "split": split, **measure(reader, asked)}
    print(json_line(row) if json else "  ".join(f"{name} {value}" for name, value in row.items()))
    return 1 if problems else 0
