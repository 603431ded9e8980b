"""`recur explain answer`: a page that shows which sentences an answer rests on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recur.cli.answer import add_reading, answers, load_reader
from recur.cli.options import Commands
from recur.cli.terminal import visible
from recur.errors import InputError, RecurError

PAGE_LIMIT = 500  # questions
DESCRIPTION = """\
Write one HTML page, complete in itself: each question with its answer, the runners-up, and for each sentence of the
passage how likely the answer rests on it and how far the gates of each reading opened at it.
`recur evaluate answer --faithful N` measures whether that can be believed.
"""


def add(tasks: Commands) -> None:
    """Add the task `answer`."""
    task = tasks.add_parser(
        "answer",
        help="an HTML page",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=explain_answer)
    add_reading(task)
    task.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="the page to write")


def explain_answer(
    *, questions: list[str], out: Path, passage: str = "-", file: str | None = None, model: str = "babi"
) -> int:
    """Answer the questions and write the page; returns the exit status."""
    from recur.cli.explain_caption import check_page
    from recur.explain.evidence import write_page
    from recur.predict.answer import Answer, Reader

    check_page(out)
    good: list[Answer] = []
    failed = False
    if not isinstance(load_reader(model), Reader):
        raise RecurError(f"{model}: answers with parts of a passage, which are their own evidence; use a story model")
    for result in answers(questions, passage, file, model):
        if isinstance(result, InputError):
            failed = True
            sys.stderr.write(visible(str(result)) + "\n")
        elif isinstance(result, Answer) and len(good) < PAGE_LIMIT:
            good.append(result)
        else:
            sys.stderr.write(
                f"note: the page has the first {PAGE_LIMIT} questions only, the others are left out; "
                "give them in smaller groups\n"
            )
            break
    if good:
        write_page(out, good)
    return 1 if failed else 0
