"""`recur explain detect`: from the detector to the sentence, drawn."""

from __future__ import annotations

import argparse
from pathlib import Path

from recur.cli.detect import load_detector
from recur.cli.options import Commands, add_max_pixels, add_model, probability
from recur.errors import RecurError

DESCRIPTION = """\
Draw how a photograph becomes a sentence, from a real run, as three pictures in the folder --out: boxes.png, the objects
that the trunk finds with its detection head on; features.png, what is left when the head comes off; unrolled.png, the
recurrent network that these features start, step by step from START to END, with where it looks. Words that speak of an
object stand on the colour of its box.
"""


def add(tasks: Commands) -> None:
    """Add the task `detect`."""
    task = tasks.add_parser(
        "detect",
        help="from the detector to the sentence, as pictures",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=explain_detect)
    task.add_argument("picture", metavar="PICTURE", help="a photograph")
    task.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures are written")
    add_model(task)
    task.add_argument(
        "--detector", metavar="NAME_OR_PATH", default="detector", help="what finds the objects (default: detector)"
    )
    task.add_argument(
        "--min-score", type=probability, metavar="P", help="objects of at least this score (default: the model's own)"
    )
    add_max_pixels(task)


def explain_detect(
    *,
    picture: str,
    out: Path,
    model: str = "captioner",
    detector: str = "detector",
    min_score: float | None = None,
    max_pixels: int | None = None,
) -> int:
    """Draw the three pictures; returns the exit status."""
    import numpy as np
    from PIL import Image

    from recur import load
    from recur.data.images import MAX_PIXELS, read_picture, to_square
    from recur.explain.boxes import draw_boxes, png_bytes
    from recur.explain.story import draw_features, draw_unrolled
    from recur.files import write_atomically

    if out.exists() and not out.is_dir():
        raise RecurError(f"{out}: is a file; expected a folder to write pictures into; name another")
    most = MAX_PIXELS if max_pixels is None else max_pixels
    captioner, finder = load(model), load_detector(detector)
    seen = read_picture(picture, target=480, max_pixels=most)
    (caption,) = captioner([picture], detector=finder, min_score=min_score, max_pixels=most)
    square = to_square(seen, captioner.size)
    features = captioner.encoder(square[None])[0]
    objects = caption.objects or ()
    shown = Image.fromarray(seen.pixels)
    shown.thumbnail((480, 480))
    drawn = {
        "boxes": draw_boxes(
            np.asarray(shown), [(each.label, each.score, each.box) for each in objects], caption.width, caption.height
        ),
        "features": draw_features(square, features.reshape(*captioner.encoder.grid, -1).astype(np.float32)),
        "unrolled": draw_unrolled(
            square,
            [word.word for word in caption.words],
            [word.attention for word in caption.words],
            [None if word.object is None else objects[word.object].label for word in caption.words],
            cell=str(captioner.bundle.meta["cell"]).upper(),
            language=caption.language,
        ),
    }
    for name, image in drawn.items():
        write_atomically(out / f"{name}.png", png_bytes(image.quantize(128, dither=Image.Dither.NONE)))
        print(out / f"{name}.png")
    return 0
