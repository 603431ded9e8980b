"""`recur evaluate language`: how well a model foresees a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from recur.cli.options import Commands
from recur.cli.terminal import json_line, visible

DESCRIPTION = """\
How surprising texts are to a language model: nats and bits a character, perplexity. Each file is read from its
beginning with the state carried on to its end, in constant memory; its first character is only read. --split dev takes
the last tenth of all files read as one text, which is what `recur train language` keeps apart.
"""


def add(tasks: Commands) -> None:
    """Add `language`."""
    parser = tasks.add_parser(
        "language",
        help="nats a character of texts",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    parser.set_defaults(run=evaluate_language)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="text files; - is standard input")
    parser.add_argument(
        "--model", metavar="NAME_OR_PATH", default="shakespeare", help="a name from `recur models`, or a bundle's path"
    )
    parser.add_argument("--split", choices=("all", "train", "dev"), default="all", help="which part (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object a file")


def evaluate_language(*, data: list[str], model: str = "shakespeare", split: str = "all", json: bool = False) -> int:
    """Print the scores; returns the exit status. The arguments are the options of the command."""
    from recur.cli.generate import load_language_model
    from recur.data.characters import decode_pieces, dev_begins, pieces_of, read_text, text_pieces
    from recur.errors import InputError, RecurError

    reader = load_language_model(model)
    failed = False

    def show(name: str, scores: dict[str, float]) -> None:
        row: dict[str, Any] = {"path": name, "split": split, "model": reader.name, **scores}
        if json:
            print(json_line(row), flush=True)
        else:
            print(
                f"{visible(name)}\t{scores['nats']:.4f} nats\t{scores['bits']:.4f} bits\t"
                f"perplexity {scores['perplexity']:.3f}\t{scores['characters']} characters\t"
                f"{scores['unknown']} unknown",
                flush=True,
            )

    if split != "all":
        text = "".join(read_text(Path(name))[0] for name in data)
        cut = dev_begins(len(text))
        show(", ".join(data), reader.evaluate(text[cut:] if split == "dev" else text[:cut]))
        return 0
    for name in data:
        try:
            pieces = decode_pieces(pieces_of(sys.stdin.buffer)) if name == "-" else text_pieces(Path(name))
            show(name, reader.evaluate(pieces))
        except InputError as error:
            failed = True
            sys.stderr.write(visible(str(error)) + "\n")
        except RecurError as error:
            failed = True
            sys.stderr.write(visible(f"{name}: {error}") + "\n")
    return 1 if failed else 0
