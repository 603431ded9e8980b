"""`recur evaluate TASK`: the table of the tasks that can be measured."""

from __future__ import annotations

from recur.cli import (
    evaluate_answer,
    evaluate_caption,
    evaluate_detect,
    evaluate_explanations,
    evaluate_frames,
    evaluate_grounding,
    evaluate_language,
    evaluate_sentiment,
    evaluate_span,
    evaluate_translate,
)
from recur.cli.options import Commands

TASKS = (
    evaluate_caption.add,
    evaluate_sentiment.add,
    evaluate_language.add,
    evaluate_detect.add,
    evaluate_grounding.add,
    evaluate_explanations.add,
    evaluate_translate.add,
    evaluate_frames.add,
    evaluate_answer.add,
    evaluate_span.add,
)


def add(commands: Commands) -> None:
    """Add `evaluate` with its tasks."""
    parser = commands.add_parser("evaluate", help="measure a model, or ready-made captions", allow_abbrev=False)
    tasks = parser.add_subparsers(metavar="TASK", required=True)
    for add_task in TASKS:
        add_task(tasks)
