"""The `recur` command: one parser, one small table of commands, one place where errors become exit statuses.

Exit status: 0 all went well; 1 some inputs failed (one line each on stderr); 2 the call itself is wrong;
130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from recur.cli import (
    answer,
    bench,
    caption,
    classify,
    detect,
    evaluate,
    explain,
    frames,
    generate,
    library,
    models,
    sentiment,
    serve,
    train,
    translate,
)
from recur.cli.terminal import prepare_streams, visible
from recur.errors import RecurError

COMMANDS = (
    caption.add,
    detect.add,
    classify.add,
    sentiment.add,
    translate.add,
    answer.add,
    generate.add,
    frames.add,
    evaluate.add,
    explain.add,
    serve.add,
    library.add,
    train.add,
    bench.add,
    models.add,
)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from recur import __version__

        print(f"recur {__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Every option's name is the name of a keyword argument of the function that runs."""
    parser = argparse.ArgumentParser(
        prog="recur",
        description="Recurrent networks on a plain CPU, captions for photographs above all: run, explain, train them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="print the version and leave"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` are those of the process unless given."""
    options = vars(build_parser().parse_args(arguments))
    run = options.pop("run")
    prepare_streams(json_lines=bool(options.get("json")))
    try:
        status = int(run(**options))
        sys.stdout.flush()
        return status
    except RecurError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader has gone (`recur … | head`). What is still buffered goes nowhere, or the exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")


def _fail(message: str) -> int:
    sys.stderr.write(f"recur: {visible(message)}\n")
    return 2
