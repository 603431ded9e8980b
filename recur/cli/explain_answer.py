"""`recur explain answer`: a page that shows which sentences, or which words, an answer rests on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.answer import add_reading, answers, check_asked, load_reader, passage_of, questions_of
from recur.cli.explain_texts import check_outputs, tell
from recur.cli.options import Commands
from recur.cli.terminal import json_line, visible
from recur.errors import InputError

if TYPE_CHECKING:
    from recur.explain.texts import TextExplanation
    from recur.predict.span import SpanReader

PAGE_LIMIT = 500  # questions
DESCRIPTION = """\
Write one HTML page, complete in itself. Of a model of stories: each question with its answer, the runners-up, and for
each sentence of the passage how likely the answer rests on it and how far the gates of each reading opened at it.
`recur evaluate answer --faithful N` measures whether that can be believed. Of a model of `recur train span`: the answer
in its passage, what it loses without each word of the question and around it, where it may start and end, and how the
words of the passage looked at the question; `recur evaluate explanations` measures that.
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
    task.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write")
    task.add_argument("--json", action="store_true", help="print the same as one JSON object a question")


def explain_answer(
    *,
    questions: list[str],
    out: Path | None = None,
    json: bool = False,
    passage: str = "-",
    file: str | None = None,
    model: str = "babi",
) -> int:
    """Answer the questions and write the page; returns the exit status."""
    check_outputs(out, json)
    check_asked(questions, passage, file)
    from recur.explain.evidence import write_page
    from recur.predict.answer import Answer
    from recur.predict.span import SpanReader

    reader = load_reader(model)
    if isinstance(reader, SpanReader):
        return tell(_spans(reader, reader.story(passage_of(passage)), questions_of(questions, file)), out, json)
    good: list[Answer] = []
    failed = False
    for result in answers(questions, passage, file, model):
        if isinstance(result, InputError):
            failed = True
            sys.stderr.write(visible(str(result)) + "\n")
            continue
        assert isinstance(result, Answer)
        if json:
            print(json_line(result.to_json()), flush=True)
        if len(good) < PAGE_LIMIT:
            good.append(result)
        elif out is not None:
            sys.stderr.write(
                f"note: the page has the first {PAGE_LIMIT} questions only, the others are left out; "
                "give them in smaller groups\n"
            )
            break
    if good and out is not None:
        write_page(out, good)
    return 1 if failed else 0


def _spans(
    reader: SpanReader, passage: str, questions: Iterator[str | InputError]
) -> Iterator[TextExplanation | InputError]:
    from recur.explain.span import explain_span

    for place, question in enumerate(questions, 1):
        try:
            if isinstance(question, InputError):
                raise question
            yield explain_span(reader, passage, question)
        except InputError as error:
            yield InputError(f"question {place}", error.what, error.fix)
