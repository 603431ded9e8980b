"""`recur explain generate`, `sentiment` and `translate`: pages that show why a model of texts said what it said."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.explain_caption import check_page
from recur.cli.generate import load_language_model, prompt_of
from recur.cli.options import Commands, add_model, add_texts, whole
from recur.cli.sentiment import load_classifier
from recur.cli.terminal import json_line, visible
from recur.cli.translate import add_languages, translator_for
from recur.errors import InputError, RecurError

if TYPE_CHECKING:
    from recur.explain.texts import TextExplanation

TEXT_LIMIT = 200  # texts of a page; it holds them all at once


def add(tasks: Commands) -> None:
    """Add the tasks `generate`, `sentiment` and `translate`."""
    reading = _task(
        tasks,
        "generate",
        explain_generate,
        "what surprises a character model in a text, and what its units follow",
        "Read a text with a language model and write one HTML page, complete in itself: how surprising each character "
        "was, the output of any unit over the text, which units follow what (quotes, position in the line, after a "
        "comma …), and how saturated the gates are. At most 20,000 characters are read and 2,000 shown.",
    )
    reading.add_argument("text", nargs="?", metavar="TEXT", help="the text; without it --file")
    reading.add_argument("--file", type=Path, metavar="FILE", help="a file with the text")
    add_model(reading, default="shakespeare")
    feeling = _task(
        tasks,
        "sentiment",
        explain_sentiment,
        "what made a text sound good or bad",
        "Judge texts and write one HTML page, complete in itself: the probability after each word, and what each word "
        f"contributed. The page holds the first {TEXT_LIMIT} texts.",
    )
    add_texts(feeling)
    add_model(feeling, default="sentiment")
    tongue = _task(
        tasks,
        "translate",
        explain_translate,
        "which word came from which",
        "Translate texts and write one HTML page, complete in itself: for each word of the translation how its "
        f"attention was shared among the words of the source. The page holds the first {TEXT_LIMIT} texts.",
    )
    add_texts(tongue)
    add_languages(tongue)
    add_model(tongue)
    tongue.set_defaults(model=None)
    tongue.add_argument("--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step")


def _task(tasks: Commands, name: str, run: Callable[..., int], brief: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tasks.add_parser(name, help=brief, description=about, allow_abbrev=False)
    parser.set_defaults(run=run)
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write")
    parser.add_argument("--json", action="store_true", help="print the same as one JSON object a text")
    return parser


def explain_generate(
    *,
    text: str | None = None,
    file: Path | None = None,
    out: Path | None = None,
    json: bool = False,
    model: str = "shakespeare",
) -> int:
    """Explain what a character model reads; returns the exit status."""
    check_outputs(out, json)
    if (text is None) == (file is None):
        raise RecurError("expected a text or --file FILE, one of the two; give it")
    from recur.explain.texts import explain_reading

    reader = load_language_model(model)
    return tell(iter([explain_reading(reader, prompt_of(text, file))]), out, json)


def explain_sentiment(
    *,
    texts: list[str],
    file: str | None = None,
    column: str | None = None,
    out: Path | None = None,
    json: bool = False,
    model: str = "sentiment",
) -> int:
    """Explain judgements; returns the exit status."""
    check_outputs(out, json)
    from recur.cli.texts import Texts
    from recur.explain.texts import explain_sentiment as explained

    given = Texts(texts, file, column)
    return tell(explained(load_classifier(model), given), out, json)


def explain_translate(
    *,
    texts: list[str],
    file: str | None = None,
    column: str | None = None,
    source: str | None = None,
    target: str | None = None,
    out: Path | None = None,
    json: bool = False,
    model: str | None = None,
    beam: int | None = None,
) -> int:
    """Explain translations; returns the exit status."""
    check_outputs(out, json)
    from recur.cli.texts import Texts
    from recur.explain.texts import explain_translation
    from recur.predict.translation import Translator

    given = Texts(texts, file, column)
    translator = translator_for(model, source, target)
    assert isinstance(translator, Translator)
    return tell(explain_translation(translator, given, source=source, target=target, beam=beam), out, json)


def check_outputs(out: Path | None, json: bool) -> None:
    """Errors: RecurError when there is nothing to write, or no place for it."""
    if out is None and not json:
        raise RecurError("nothing to write; give --out FILE.html, or --json, or both")
    if out is not None:
        check_page(out)


def tell(results: Iterator[TextExplanation | InputError], out: Path | None, json: bool) -> int:
    """Print each as JSON where asked to, and write the page of the good ones; the exit status."""
    from recur.explain.words_page import SIZE, write_texts_page
    from recur.progress import Progress

    kept: list[TextExplanation] = []
    failed = full = False
    size = 0
    with Progress(None, unit="texts") as progress:
        for result in results:
            if isinstance(result, InputError):
                failed = True
                progress.line(visible(str(result)))
                continue
            line = json_line(result.data)
            if json:
                progress.result(line)
            # A table and what surrounds the numbers take as much again at most.
            size += 2 * len(line.encode()) if result.data["task"] != "generate" else len(line.encode())
            full = full or len(kept) == TEXT_LIMIT or size > SIZE - 100_000
            if full and not json:
                break
            if not full and out is not None:
                kept.append(result)
            progress.advance()
        if full and out is not None:
            progress.line(f"note: the page has the first {len(kept)} texts only; give the others in smaller groups")
    if out is not None and kept:
        write_texts_page(out, kept)
    return 1 if failed or (full and not kept) else 0
