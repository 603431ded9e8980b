"""`recur translate`: sentences in another language."""

from __future__ import annotations

import argparse

from recur.cli.options import Commands, add_model, add_texts, whole
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError

DESCRIPTION = """\
Translate texts. They are arguments, the lines of a file (--file), the column of a table (--file with --column), or the
lines of standard input; texts of several sentences are translated sentence by sentence. Translations come in the order
of the texts, one a line; --align adds the source word that each word was read from, --json prints one JSON object a
line with both.
"""


def add(commands: Commands) -> None:
    """Add `translate`."""
    parser = commands.add_parser(
        "translate",
        help="translate texts",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=translate)
    add_texts(parser)
    add_languages(parser)
    add_model(parser)
    parser.set_defaults(model=None)
    parser.add_argument(
        "--beam", type=whole(1, 64), metavar="K", help="hypotheses kept at every step (default: the model's own)"
    )
    parser.add_argument(
        "--batch", type=whole(1, 1024), default=32, metavar="B", help="sentences computed together (default: 32)"
    )
    parser.add_argument("--align", action="store_true", help="show which word each word was read from")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_languages(parser: argparse.ArgumentParser) -> None:
    """`--from` and `--to`."""
    parser.add_argument(
        "--from", dest="source", metavar="LANG", help="language of the texts (default: the model's first)"
    )
    parser.add_argument("--to", dest="target", metavar="LANG", help="language of the translation (default: likewise)")


def translator_for(model: str | None, source: str | None, target: str | None) -> object:
    """The named model, or the embedded one that translates from `source` to `target`. Errors: RecurError."""
    from recur import load
    from recur.hub import models
    from recur.predict.translation import Translator

    if model is None:
        embedded = [each for each in models() if each.task == "translate"]
        pairs = [(each.name, tuple(pair)) for each in embedded for pair in each.meta["directions"]]
        fitting = [name for name, (a, b) in pairs if source in (None, a) and target in (None, b)]
        if not fitting:
            known = ", ".join(f"{a} to {b}" for _, (a, b) in pairs) or "nothing"
            raise RecurError(
                f"{source or 'any'} to {target or 'any'}: no embedded model; they translate {known}; "
                "choose one of these, or name a bundle with --model"
            )
        model = fitting[0]
    found = load(model)
    if not isinstance(found, Translator):
        raise RecurError(f"{model}: no model for translation; choose one of `recur models`")
    return found


def translate(
    *,
    texts: list[str],
    file: str | None = None,
    column: str | None = None,
    source: str | None = None,
    target: str | None = None,
    model: str | None = None,
    beam: int | None = None,
    batch: int = 32,
    align: bool = False,
    json: bool = False,
) -> int:
    """Translate every text; returns the exit status. The arguments are the options of the command."""
    from recur.cli.texts import Texts
    from recur.errors import InputError
    from recur.predict.translation import Translator
    from recur.progress import Progress

    given = Texts(texts, file, column)
    translator = translator_for(model, source, target)
    assert isinstance(translator, Translator)
    failed = False
    results = translator.stream(given, source=source, target=target, beam=beam, batch=1 if given.single else batch)
    with Progress(None, unit="texts") as progress:
        for result in results:
            if isinstance(result, InputError):
                failed = True
                progress.line(visible(str(result)))
            elif json:
                progress.result(json_line(result.to_json()))
            else:
                progress.result(visible(result.translation))
                if align:
                    pairs = (
                        f"{visible(word)} < {visible(other)} {share:.2f}" for word, other, share in result.alignment
                    )
                    progress.result("    " + ", ".join(pairs))
            progress.advance()
    return 1 if failed else 0
