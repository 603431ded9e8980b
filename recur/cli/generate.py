"""`recur generate`: text without an end, as it is written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.options import Commands, positive_or_zero, share, whole
from recur.errors import RecurError

if TYPE_CHECKING:
    from recur.predict.language import LanguageModel

DESCRIPTION = """\
Write text, character by character, as a language model goes on from the prompt. The text is printed as it is written
and takes the same memory however long it is; --length unlimited writes until it is stopped. The same seed gives the
same text.
"""


def add(commands: Commands) -> None:
    """Add `generate`."""
    parser = commands.add_parser(
        "generate",
        help="write text in the manner of what a model has read",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=generate)
    parser.add_argument("--prompt", default=None, metavar="TEXT", help="what the text begins with; - is standard input")
    parser.add_argument("--prompt-file", type=Path, metavar="FILE", help="the same from a file")
    parser.add_argument(
        "--model", metavar="NAME_OR_PATH", default="shakespeare", help="a name from `recur models`, or a bundle's path"
    )
    parser.add_argument(
        "--length", type=length, default=500, metavar="N", help="characters to write, or unlimited (default: 500)"
    )
    parser.add_argument(
        "--temperature",
        type=positive_or_zero,
        default=0.8,
        metavar="T",
        help="0 takes the most probable character, 1 draws as the model thinks, above 1 more wildly (default: 0.8)",
    )
    parser.add_argument("--top-k", type=whole(0), default=0, metavar="K", help="draw from the K most probable only")
    parser.add_argument(
        "--top-p", type=share, default=1.0, metavar="P", help="draw from the fewest that have the share P together"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="the same seed gives the same text")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of text as it comes")


def length(text: str) -> int | None:
    """A number of characters, or None for `unlimited`."""
    return None if text == "unlimited" else whole(0)(text)


def generate(
    *,
    prompt: str | None = None,
    prompt_file: Path | None = None,
    model: str = "shakespeare",
    length: int | None = 500,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Print the prompt and what follows it; returns the exit status. The arguments are the options of the command."""
    from recur.cli.terminal import json_line, visible

    if prompt is not None and prompt_file is not None:
        raise RecurError("both --prompt and --prompt-file; expected one of them; leave one out")
    if json and length is None:
        raise RecurError("--json with --length unlimited would never print anything; give a number of characters")
    begin = prompt_of(prompt, prompt_file)
    writer = load_language_model(model)
    unknown = sorted({c for c in begin if c not in writer.characters})
    if unknown:
        some = visible("".join(unknown[:20]))
        sys.stderr.write(f"note: {len(unknown)} characters of the prompt are unknown to {writer.name}: {some}\n")
    pieces = writer.stream(begin, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if json:
        print(json_line({"prompt": begin, "text": "".join(pieces), "seed": seed, "model": writer.name}))
        return 0
    sys.stdout.write(begin)
    last = begin[-1:]
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
        last = piece[-1:] or last
    if last != "\n" and sys.stdout.isatty():
        sys.stdout.write("\n")
    return 0


def prompt_of(prompt: str | None, prompt_file: Path | None) -> str:
    from recur.data.characters import decode_pieces, pieces_of, read_text

    if prompt_file is not None:
        return read_text(prompt_file)[0]
    if prompt == "-":
        return "".join(decode_pieces(pieces_of(sys.stdin.buffer)))
    return prompt or ""


def load_language_model(model: str) -> LanguageModel:
    """The language model of a name or path. Errors: RecurError when it is another kind of model, or none."""
    from recur import load
    from recur.predict.language import LanguageModel

    found = load(model)
    if not isinstance(found, LanguageModel):
        raise RecurError(f"{model}: no language model; expected one that `recur train language` wrote; choose another")
    return found
