"""`recur train TASK`: the table of the tasks that can be trained."""

from __future__ import annotations

from recur.cli import (
    train_answer,
    train_caption,
    train_frames,
    train_heads,
    train_language,
    train_sentiment,
    train_span,
    train_translate,
)
from recur.cli.options import Commands

TASKS = (
    train_caption.add,
    train_sentiment.add,
    train_language.add,
    train_heads.add,
    train_translate.add,
    train_frames.add,
    train_answer.add,
    train_span.add,
)


def add(commands: Commands) -> None:
    """Add `train` with its tasks."""
    parser = commands.add_parser("train", help="train a model on your own data", allow_abbrev=False)
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    for add_task in TASKS:
        add_task(tasks)
