"""`recur explain TASK`: the table of the tasks that can show why they said what they said."""

from __future__ import annotations

from recur.cli import explain_answer, explain_caption, explain_detect, explain_frames, explain_texts
from recur.cli.options import Commands

TASKS = (
    explain_caption.add,
    explain_detect.add,
    explain_texts.add,
    explain_answer.add,
    explain_frames.add,
)


def add(commands: Commands) -> None:
    """Add `explain` with its tasks."""
    parser = commands.add_parser("explain", help="show why a model said what it said", allow_abbrev=False)
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    for add_task in TASKS:
        add_task(tasks)
