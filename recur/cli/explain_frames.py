"""`recur explain frames`: a page that shows which frames changed the label of a video."""

from __future__ import annotations

import argparse
from pathlib import Path

from recur.cli.explain_texts import check_outputs
from recur.cli.frames import MODEL
from recur.cli.options import Commands, add_max_pixels, add_model, positive, positive_or_zero
from recur.cli.terminal import json_line, visible
from recur.errors import InputError, RecurError

DESCRIPTION = """\
Write one HTML page, complete in itself: the label of every frame with the probabilities of all labels, small pictures,
and at each change of label the frames that changed the mind: without them the new label would be least probable.
A page holds 5,000 frames (fewer with more than 20 labels); what is longer is refused. The first 40 changes are
explained.
`recur evaluate frames --faithful N` measures whether that can be believed.
"""


def add(tasks: Commands) -> None:
    """Add the task `frames`."""
    task = tasks.add_parser(
        "frames",
        help="which frames changed the label",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=explain_frames)
    task.add_argument("video", metavar="VIDEO", help="a video, a folder, a drive, or features")
    add_model(task, MODEL)
    task.add_argument("--fps", type=positive, metavar="N", help="frames a second of folders and of features")
    task.add_argument(
        "--smooth", type=positive_or_zero, metavar="C", help="nats that a change of label costs (default: the model's)"
    )
    add_max_pixels(task)
    task.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write")
    task.add_argument("--json", action="store_true", help="print the same as one JSON object a sequence")


def explain_frames(
    *,
    video: str,
    model: str = MODEL,
    fps: float | None = None,
    smooth: float | None = None,
    max_pixels: int | None = None,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Explain the labels of a video; returns the exit status."""
    check_outputs(out, json)
    from recur import load
    from recur.data.images import MAX_PIXELS
    from recur.explain.film import FilmExplanation, explain_film
    from recur.explain.film_page import write_film_page
    from recur.predict.frames import FrameLabeller
    from recur.progress import Progress

    labeller = load(model)
    if not isinstance(labeller, FrameLabeller):
        raise RecurError(f"{model}: no model for frames; choose one of `recur models`")
    films: list[FilmExplanation] = []
    failed = False
    with Progress(None, unit="sequences") as progress:
        try:
            for found in explain_film(labeller, video, fps=fps, smooth=smooth, max_pixels=max_pixels or MAX_PIXELS):
                if isinstance(found, InputError):
                    raise found
                progress.advance()
                if json:
                    progress.result(json_line(found.data))
                films.append(found)
        except InputError as error:
            failed = True
            progress.line(visible(str(error)))
    if out is not None and films:
        write_film_page(out, films)
    return 1 if failed else 0
