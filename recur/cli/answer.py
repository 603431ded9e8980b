"""`recur answer`: questions about a passage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, add_model
from recur.cli.terminal import json_line, visible
from recur.errors import InputError, RecurError

if TYPE_CHECKING:
    from recur.predict.answer import Answer, Reader
    from recur.predict.span import Span, SpanReader

MODEL = "babi"
NONE = "no answer"
TOGETHER = 32
DESCRIPTION = """\
Answer questions about a passage: a text file (--passage, plain or compressed), or standard input. Questions are
arguments, or the lines of a file (--questions); answers come in their order.

For one question the answer is printed with its probability and the sentences that it rests on; for several, each line
is: answer, tab, probability, tab, question. A model of `recur train span` answers with a part of the passage, or says
"no answer". --json prints one JSON object a line.
"""


def add(commands: Commands) -> None:
    """Add `answer`."""
    parser = commands.add_parser(
        "answer",
        help="answer questions about a passage",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=answer)
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The options that say what is asked about what."""
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="questions; without any, --questions")
    parser.add_argument("--passage", metavar="FILE", default="-", help="the passage (default: standard input)")
    parser.add_argument("--questions", dest="file", metavar="FILE", help="a file with one question a line")
    add_model(parser)
    parser.set_defaults(model=MODEL)


def answer(
    *,
    questions: list[str],
    passage: str = "-",
    file: str | None = None,
    model: str = MODEL,
    json: bool = False,
) -> int:
    """Answer every question; returns the exit status. The arguments are the options of the command."""
    single = len(questions) == 1
    failed = False
    for result in answers(questions, passage, file, model):
        if isinstance(result, InputError):
            failed = True
            sys.stderr.write(visible(str(result)) + "\n")
        elif json:
            print(json_line(result.to_json()), flush=True)
        elif single:
            print(f"{visible(result.answer or NONE)}  (confidence {result.confidence:.2f})")
            for each in getattr(result, "evidence", ()):
                if each.support >= 0.5:
                    print(f"    {visible(each.sentence)}")
        else:
            print(f"{visible(result.answer or NONE)}\t{result.confidence:.3f}\t{visible(result.question)}", flush=True)
    return 1 if failed else 0


def answers(questions: list[str], passage: str, file: str | None, model: str) -> Iterator[Answer | Span | InputError]:
    """Answers in the order of the questions. Errors: RecurError when there is no passage or no question."""
    from recur.data.lines import groups

    check_asked(questions, passage, file)
    reader: Any = load_reader(model)
    story = reader.story(passage_of(passage))
    place = 0
    for group in groups(questions_of(questions, file), TOGETHER):
        found = iter(reader.answer([(story, each) for each in group if isinstance(each, str)]))
        for each in group:
            place += 1
            result = each if isinstance(each, InputError) else next(found)
            yield InputError(f"question {place}", result.what, result.fix) if isinstance(result, InputError) else result


def check_asked(questions: list[str], passage: str, file: str | None) -> None:
    """Errors: RecurError when there is no passage or no question, or two of them."""
    if bool(questions) == (file is not None):
        raise RecurError("questions are arguments, or --questions FILE; expected one of the two; give some")
    if passage == "-" and file == "-":
        raise RecurError("--questions - and the passage from standard input; expected one of them in a file")
    if passage == "-" and sys.stdin.isatty():
        raise RecurError("no passage given; name a file with --passage, or pipe it in")


def load_reader(model: str) -> Reader | SpanReader:
    """A model that answers questions. Errors: RecurError when it is for something else."""
    from recur import load
    from recur.predict.answer import Reader
    from recur.predict.span import SpanReader

    found = load(model)
    if not isinstance(found, Reader | SpanReader):
        raise RecurError(f"{model}: no model that answers questions; choose one of `recur models`")
    return found


def questions_of(questions: list[str], file: str | None) -> Iterator[str | InputError]:
    """The questions that were asked, or what is wrong with a line of the file."""
    from recur.data.lines import decoded, lines_of

    if file is None:
        yield from questions
    else:
        yield from decoded(sys.stdin.buffer, "standard input") if file == "-" else lines_of(file)


def passage_of(name: str) -> Iterator[str]:
    """The lines of the passage. Errors: RecurError."""
    from recur.data.lines import decoded, lines_of

    for line in decoded(sys.stdin.buffer, "standard input") if name == "-" else lines_of(name):
        if isinstance(line, InputError):
            raise RecurError(str(line))
        yield line
