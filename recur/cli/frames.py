"""`recur frames`: a label for every frame of a video."""

from __future__ import annotations

import argparse
import csv
import io
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from recur.cli.options import Commands, add_max_pixels, add_model, positive, positive_or_zero
from recur.cli.terminal import json_line, visible

if TYPE_CHECKING:
    from recur.predict.frames import FrameLabel

MODEL = "driving"
DESCRIPTION = """\
Label every frame of videos (with the extra `video`), folders of pictures, drives of a camera car (.tar, .tar.gz or the
folder), and archives of features (.npz). A video of any length is read in constant memory; every frame has the time
that the file gives it. Without --json each line is a segment of one label: path, tab, start, tab, end, tab, label.
--json prints one JSON object a frame. --csv and --srt write the same as a table of frames and as subtitles.

What is broken after some frames gives the labels of those, then one line on stderr, and the status is 1.
"""


def add(commands: Commands) -> None:
    """Add `frames`."""
    parser = commands.add_parser(
        "frames",
        help="label every frame of a video",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=frames)
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video, a folder, a drive, or features")
    add_model(parser, MODEL)
    parser.add_argument("--fps", type=positive, metavar="N", help="frames a second of folders and of features")
    parser.add_argument(
        "--smooth", type=positive_or_zero, metavar="C", help="nats that a change of label costs (default: the model's)"
    )
    add_max_pixels(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a frame")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write a table: path, frame, seconds, label, probability"
    )
    parser.add_argument("--srt", type=Path, metavar="FILE", help="write subtitles; for one video")


def frames(
    *,
    videos: list[str],
    model: str = MODEL,
    fps: float | None = None,
    smooth: float | None = None,
    max_pixels: int | None = None,
    json: bool = False,
    csv: Path | None = None,
    srt: Path | None = None,
) -> int:
    """Label everything; returns the exit status. The arguments are the options of the command."""
    from recur import load
    from recur.data.images import MAX_PIXELS
    from recur.errors import InputError, RecurError
    from recur.files import writing
    from recur.predict.frames import FrameLabeller
    from recur.progress import Progress

    labeller = load(model)
    if not isinstance(labeller, FrameLabeller):
        raise RecurError(f"{model}: no model for frames; choose one of `recur models`")
    if srt is not None and len(videos) != 1:
        raise RecurError(f"--srt for {len(videos)} videos; expected one; give one")
    failed = False
    with ExitStack() as open_files, Progress(None, unit="frames") as progress:
        table = open_files.enter_context(writing(csv)) if csv is not None else None
        titles = open_files.enter_context(writing(srt)) if srt is not None else None
        if table is not None:
            _row(table, ("path", "frame", "seconds", "label", "probability"))
        number = 0
        for video in videos:
            found = labeller.stream(video, fps=fps, smooth=smooth, max_pixels=max_pixels or MAX_PIXELS)
            run: list[FrameLabel] = []  # the first frame of the segment, and the last one so far
            try:
                for label in found:
                    progress.advance()
                    if json:
                        progress.result(json_line(label.to_json()))
                    if table is not None:
                        _row(table, tuple(label.to_json().values()))
                    if titles is not None and label.seconds is None:
                        raise InputError(video, "its frames have no times for subtitles", "give --fps")
                    if run and (run[0].label, run[0].path) == (label.label, label.path):
                        run[1:] = [label]
                        continue
                    if run:
                        number += 1
                        if not json:
                            progress.result(segment(run[0], run[-1]))
                        if titles is not None:
                            titles.write(subtitle(number, run[0], label.seconds))
                    run = [label]
            except InputError as error:
                failed = True
                progress.line(visible(str(error)))
            if run:
                number += 1
                if not json:
                    progress.result(segment(run[0], run[-1]))
                if titles is not None:
                    titles.write(subtitle(number, run[0], None, last=run[-1]))
    return 1 if failed else 0


def segment(first: FrameLabel, last: FrameLabel) -> str:
    """A line of the list of segments: times where there are some, else numbers of frames."""
    times = (first.frame, last.frame) if first.seconds is None else (f"{first.seconds:.3f}", f"{last.seconds:.3f}")
    return f"{visible(first.path or '')}\t{times[0]}\t{times[1]}\t{visible(first.label)}"


def subtitle(number: int, first: FrameLabel, until: float | None, last: FrameLabel | None = None) -> bytes:
    """One entry of a .srt: it stands until the next one comes, the last one 40 ms beyond its last frame."""
    end = until if until is not None else (last.seconds or 0.0) + 0.04 if last is not None else 0.0
    name = " ".join(first.label.split())
    return f"{number}\n{clock(first.seconds or 0.0)} --> {clock(end)}\n{name}\n\n".encode()


def clock(seconds: float) -> str:
    """3661.5 -> 01:01:01,500."""
    thousandths = round(seconds * 1000)
    hours, rest = divmod(thousandths, 3_600_000)
    return f"{hours:02d}:{rest // 60_000:02d}:{rest // 1000 % 60:02d},{rest % 1000:03d}"


def _row(table: BinaryIO, values: tuple[object, ...]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    table.write(text.getvalue().encode("utf-8", "surrogateescape"))
