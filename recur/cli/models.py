"""`recur models`: the models that come with the package."""

from __future__ import annotations

from recur.cli.options import Commands
from recur.cli.terminal import json_line


def add(commands: Commands) -> None:
    """Add `models`."""
    parser = commands.add_parser(
        "models",
        help="list the models that come with recur",
        description="List the models that come with recur: name, task, languages, size, and what they score where that "
        "is known. Any bundle of your own is used by its path.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=models)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def models(*, json: bool = False) -> int:
    """List the embedded models; returns the exit status."""
    from recur.hub import models as embedded

    found = embedded()
    for model in found:
        if json:
            print(
                json_line(
                    {
                        "name": model.name,
                        "task": model.task,
                        "languages": list(model.languages),
                        "bytes": model.size,
                        "path": str(model.path),
                        "results": model.meta.get("results", {}),
                    }
                )
            )
        else:
            print(f"{model.name}\t{model.task}\t{', '.join(model.languages)}\t{model.size / 1e6:.1f} MB")
    return 0
