"""docs/cli.md, made from the parser: `python -m recur.cli.reference > docs/cli.md`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from recur.cli import build_parser

HEADER = """\
# The command line

Made from the program by `python -m recur.cli.reference`; change the program, not this page. What other programs
may rely on is in [design.md](design.md).
"""


def reference() -> str:
    """Every command with every option, as Markdown; the same on every version of Python."""
    return "\n".join([HEADER, *(_page(command) for command in commands(build_parser()))])


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands that do something, in the order of `recur --help`."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for each in group.choices.values():
            yield from commands(each)


def _page(command: argparse.ArgumentParser) -> str:
    parts = [f"## {command.prog}\n", (command.description or "").strip() + "\n"]
    for group in command._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            title = "inputs" if group.title == "positional arguments" else group.title
            parts += [f"| {title} | |", "|---|---|", *(_row(action) for action in actions), ""]
    return "\n".join(parts)


def _row(action: argparse.Action) -> str:
    value = _value(action)
    if action.option_strings:
        name = ", ".join(action.option_strings)
        call = f"{name} {value}" if value else name
        must = " (required)" if action.required else ""
    else:
        call, must = value, ""
    text = f"{action.help}{must}".replace("*", "\\*")
    return "| `{}` | {} |".format(*(part.replace("|", "\\|") for part in (call, text)))


def _value(action: argparse.Action) -> str:
    """What an option takes, as its usage says it: `N`, `[N]`, `FOLDER…`, `rnn|lstm|gru`, or nothing."""
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        name = "|".join(map(str, action.choices))
    else:
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"?": f"[{name}]", "+": f"{name}…", "*": f"[{name}…]"}.get(str(action.nargs), name)


if __name__ == "__main__":
    print(reference(), end="")
