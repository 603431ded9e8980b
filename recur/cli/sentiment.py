"""`recur sentiment`: is a text good or bad?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from recur.cli.options import Commands, add_model, add_texts, whole
from recur.cli.terminal import json_line, visible

if TYPE_CHECKING:
    from recur.predict.sentiment import SentimentClassifier

MODEL = "sentiment"
STRONGEST = 5  # words that are named for a single text
DESCRIPTION = """\
Say whether texts are positive or negative. Texts are arguments, the lines of a file (--file), the column of a table
(--file with --column), or the lines of standard input. Results come in the order of the texts, as they are ready.

For one text the label is printed with its probability and the words that mattered most; for several, each line is:
label, tab, probability, tab, text. --json prints one JSON object a line, in which every word has its weight: how far
it moves the log-odds of the second label, measured by reading the text without knowing the word.
"""


def add(commands: Commands) -> None:
    """Add `sentiment`."""
    parser = commands.add_parser(
        "sentiment",
        help="say whether texts are positive or negative",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=sentiment)
    add_texts(parser)
    add_model(parser)
    parser.set_defaults(model=MODEL)
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=32, metavar="B", help="texts computed together (default: 32)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--words",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="weigh every word of texts of up to 1,000 (default: with --json, and for a single text)",
    )
    parser.add_argument(
        "--running", action="store_true", help="with --json: the probability of the second label after every word"
    )


def sentiment(
    *,
    texts: list[str],
    file: str | None = None,
    column: str | None = None,
    model: str = MODEL,
    batch: int = 32,
    json: bool = False,
    words: bool | None = None,
    running: bool = False,
) -> int:
    """Judge every text; returns the exit status. The arguments are the options of the command."""
    from recur.cli.texts import Texts
    from recur.errors import InputError
    from recur.predict.sentiment import Sentiment
    from recur.progress import Progress

    source = Texts(texts, file, column)
    classifier = load_classifier(model)
    weigh = words if words is not None else json or source.single
    failed = False

    def readable(result: Sentiment) -> str:
        head = f"{result.label}\t{result.probability:.3f}\t{visible(result.text)}"
        if not source.single:
            return head
        head = f"{result.label}  (probability {result.probability:.2f})"
        strongest = sorted(result.words, key=lambda entry: -abs(entry[1]))[:STRONGEST]
        named = ", ".join(f"{visible(word)} {weight:+.2f}" for word, weight in strongest)
        return f"{head}\n    {named}" if named else head

    with Progress(None, unit="texts") as progress:
        for result in classifier.stream(source, batch=1 if source.single else batch, words=weigh, running=running):
            if isinstance(result, InputError):
                failed = True
                progress.line(visible(str(result)))
            else:
                progress.result(json_line(result.to_json()) if json else readable(result))
            progress.advance()
    return 1 if failed else 0


def load_classifier(model: str) -> SentimentClassifier:
    """The named model, or the one at a path. Errors: RecurError when it does not judge texts."""
    from recur import load
    from recur.errors import RecurError
    from recur.predict.sentiment import SentimentClassifier

    found = load(model)
    if not isinstance(found, SentimentClassifier):
        raise RecurError(f"{model}: no model for sentiment; choose one of `recur models`")
    return found
