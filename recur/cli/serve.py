"""`recur serve`: predictions over HTTP, and the page in the browser."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, positive, whole
from recur.errors import RecurError

if TYPE_CHECKING:
    from recur.serve.app import Limits

DESCRIPTION = """\
Serve predictions over HTTP, and a page at / that shows them: every task that has a model. Needs the extra "serve".
Ctrl-C or SIGTERM stops it, once what it took is answered. It fetches no URLs and reads no paths that a client names.
"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add(commands: Commands) -> None:
    """Add `serve`."""
    parser = commands.add_parser(
        "serve", help="a page in the browser, and an HTTP service", description=DESCRIPTION, allow_abbrev=False
    )
    parser.set_defaults(run=serve)
    parser.add_argument(
        "--model",
        action="append",
        dest="models",
        metavar="NAME_OR_PATH",
        help="a model to serve, one a task; may be given several times (default: all that come with recur)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0, 65535), default=8000, help="the port; 0 takes a free one (default: 8000)"
    )
    parser.add_argument(
        "--token", metavar="TOKEN", help="ask every client for this bearer token (default: RECUR_TOKEN, if it is set)"
    )
    parser.add_argument("--max-bytes", type=whole(1), metavar="N", help="largest body (default: 20000000)")
    parser.add_argument("--max-pixels", type=whole(1), metavar="N", help="largest picture (default: 50000000)")
    parser.add_argument("--queue", type=whole(1), metavar="N", help="requests that may wait (default: 256)")
    parser.add_argument("--batch", type=whole(1, 1024), metavar="B", help="requests computed together (default: 16)")
    parser.add_argument("--timeout", type=positive, metavar="SECONDS", help="longest wait for an answer (default: 60)")
    parser.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads of the encoder (default: all processors)"
    )


def serve(
    *,
    models: list[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_bytes: int | None = None,
    max_pixels: int | None = None,
    queue: int | None = None,
    batch: int | None = None,
    timeout: float | None = None,
    threads: int | None = None,
) -> int:
    """Serve until told to stop; returns the exit status."""
    try:
        from recur.serve.app import Limits, make_app
        from recur.serve.run import listen, run
    except ModuleNotFoundError as error:
        raise RecurError(
            f'{error.name} is missing; the service needs it; install it with: pip install "recur[serve]"'
        ) from None
    given = {"bytes": max_bytes, "pixels": max_pixels, "room": queue, "batch": batch, "wait_seconds": timeout}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    secret = token if token is not None else os.environ.get("RECUR_TOKEN") or None
    predictors = load_models(models, threads, limits)
    warm(predictors)
    with listen(host, port) as listener:
        number = listener.getsockname()[1]
        app = make_app(predictors, limits=limits, token=secret, hosts=LOOPBACK if host in LOOPBACK else ())
        shown = f"[{host}]" if ":" in host else host
        run(app, listener, ready=lambda: _say(f"recur: serving {', '.join(predictors)} on http://{shown}:{number}/"))
    return 0


def load_models(names: list[str] | None, threads: int | None, limits: Limits) -> dict[str, Any]:
    """Predictors by task. Errors: RecurError for two models of one task, and for one that cannot be served."""
    from recur import load
    from recur.hub import models
    from recur.serve.tasks import rows

    known = dict.fromkeys(row.task for row in rows())
    chosen = names if names is not None else [model.name for model in models() if model.task in known]
    found: dict[str, Any] = {}
    for name in chosen:
        predictor = load(name, threads=threads)
        task = predictor.bundle.task
        if task not in known:
            raise RecurError(f"{name}: a model for {task!r}; expected one for {', '.join(known)}; leave it out")
        if task in found:
            if names is None:  # of the models that come along the first of a task is its own
                continue
            raise RecurError(f"{name}: a second model for {task!r}; expected one a task; leave one out")
        found[task] = predictor
    if not found:
        raise RecurError("no model to serve; expected one at least; give one with --model")
    return found


def warm(predictors: dict[str, Any]) -> None:
    """Show a grey picture to those that look at pictures, so that no client waits for what is made only once."""
    import numpy as np

    for task in ("caption", "detect", "classify"):
        if task in predictors:
            for language in getattr(predictors[task], "languages", ("",)):
                predictors[task](np.full((16, 16, 3), 128, np.uint8), **({"lang": language} if language else {}))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
