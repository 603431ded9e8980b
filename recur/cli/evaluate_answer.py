"""`recur evaluate answer`: how many questions are answered right, task by task, and how well the evidence holds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError

DESCRIPTION = """\
Answer the questions of bAbI files (a folder or archive of NAME_SPLIT.txt) and compare: accuracy by task, the mean of
the tasks that the model was trained on, and how many of these reach 0.95. --faithful N asks N questions of each task
again without the sentence that the model points at most, and without another one: how much does the probability of the
answer fall?
"""


def add(tasks: Commands) -> None:
    """Add the task `answer`."""
    task = tasks.add_parser(
        "answer",
        help="answers to questions about stories",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_answer)
    add_model(task)
    task.set_defaults(model="babi")
    task.add_argument("--data", type=Path, required=True, metavar="PATH", help="a folder or archive of bAbI files")
    task.add_argument("--split", choices=("train", "valid", "test"), default="test", help="the part (default: test)")
    task.add_argument("--faithful", type=whole(1), metavar="N", help="measure the evidence on N questions of each task")
    task.add_argument("--json", action="store_true", help="one JSON object")


def evaluate_answer(
    *, data: Path, model: str = "babi", split: str = "test", faithful: int | None = None, json: bool = False
) -> int:
    """Measure; returns the exit status. The arguments are the options of the command."""
    from recur.cli.answer import load_reader
    from recur.data.stories import read_stories
    from recur.explain.evidence import faithfulness
    from recur.metrics.answers import story_scores
    from recur.predict.answer import Reader

    reader = load_reader(model)
    if not isinstance(reader, Reader):
        raise RecurError(f"{model}: answers with parts of a passage; measure it with `recur evaluate span`")
    stories, problems = read_stories(data, split)
    for line in problems:
        sys.stderr.write(visible(line) + "\n")
    scores = story_scores(stories, reader.answers_to(stories), reader.tasks)
    row: dict[str, Any] = {"model": reader.name, "data": str(data), "split": split, **scores}
    if faithful is not None:
        row["faithful"] = faithfulness(reader, stories, of_each=faithful)
    if json:
        print(json_line(row))
    else:
        for name, entry in scores["tasks"].items():
            print(f"{visible(name)}\t{entry['accuracy']:.3f}\t{entry['questions']} questions")
        print(
            f"mean {scores['mean']:.4f}  solved {scores['solved']} of {len(scores['tasks']) - len(scores['untrained'])}"
        )
        for name in scores["untrained"]:
            print(f"not trained on: {visible(name)}")
        if faithful is not None:
            print("  ".join(f"{name} {value}" for name, value in row["faithful"].items()))
    return 1 if problems else 0
