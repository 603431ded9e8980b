"""`recur evaluate grounding`: whether the words of captions point at the things that they name."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.detect import load_detector
from recur.cli.options import Commands, add_max_pixels, add_model, probability, whole
from recur.cli.terminal import json_line, visible
from recur.errors import InputError, RecurError

if TYPE_CHECKING:
    from recur.predict.caption import Caption

SPLITS = ("train", "dev", "test", "none", "all")
DESCRIPTION = """\
Caption every picture of a split and look where its nouns point: of the nouns whose class has a box in the data, how
many point into such a box. `attention` points at the middle of the cell that has most of it, `object` at the middle of
the detected box that the word is tied to (at the attention where there is none), `centre`, the baseline, at the middle
of the picture. --json prints one object.
"""


def add(tasks: Commands) -> None:
    """Add the task `grounding`."""
    task = tasks.add_parser(
        "grounding",
        help="whether words point at what they name",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_grounding)
    add_model(task)
    task.add_argument(
        "--detector", metavar="NAME_OR_PATH", default="detector", help="what finds the objects (default: detector)"
    )
    task.add_argument("--data", type=Path, required=True, metavar="PATH", help="pictures and boxes")
    task.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the data")
    task.add_argument("--split", choices=SPLITS, default="dev", help="the part of the data to use (default: dev)")
    task.add_argument("--lang", metavar="LANG", help="language of the captions (default: the model's first)")
    task.add_argument("--limit", type=whole(1), metavar="N", help="the first N pictures only")
    task.add_argument(
        "--min-score", type=probability, metavar="P", help="objects of at least this score (default: the model's own)"
    )
    add_max_pixels(task)
    task.add_argument("--json", action="store_true", help="one JSON object")


def evaluate_grounding(
    *,
    data: Path,
    model: str = "captioner",
    detector: str = "detector",
    images: Path | None = None,
    split: str = "dev",
    lang: str | None = None,
    limit: int | None = None,
    min_score: float | None = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Measure where words point; returns the exit status."""
    from recur import load
    from recur.data.boxes import read_boxes
    from recur.data.images import MAX_PIXELS
    from recur.metrics.grounding import pointing

    found = read_boxes(data, images=images)
    pictures = (found.pictures if split == "all" else found.split(split))[:limit]
    if not pictures:
        raise RecurError(f"{data}: no picture in split {split!r}; expected some; choose another --split")
    captioner, finder = load(model), load_detector(detector)
    captions = captioner.stream(
        [picture.path for picture in pictures],
        lang=lang,
        detector=finder,
        min_score=min_score,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
    )
    failed = 0
    hits: list[tuple[bool, bool, bool]] = []
    for picture, caption in zip(pictures, captions, strict=True):
        if isinstance(caption, InputError):
            failed += 1
            sys.stderr.write(visible(str(caption)) + "\n")
            continue
        names = finder.nouns.classes_of([word.word for word in caption.words], caption.language)
        for word, name in zip(caption.words, names, strict=True):
            if name is None or name not in found.classes or word.attention is None:
                continue
            boxes = picture.shares()[picture.labels == found.classes.index(name)]
            if len(boxes):
                hits.append(pointing(word.attention, _middle(word, caption), boxes))
    report: dict[str, Any] = {"model": captioner.name, "detector": finder.name, "data": str(data), "split": split}
    report |= {"language": lang or captioner.languages[0], "pictures": len(pictures), "nouns": len(hits)}
    for place, key in enumerate(("attention", "object", "centre")):
        report[key] = round(sum(hit[place] for hit in hits) / len(hits), 4) if hits else None
    report["failed"] = failed
    if json:
        print(json_line(report))
    else:
        print(f"{report['nouns']} nouns with a box, in captions of {report['pictures']} pictures of split {split}")
        for key in ("attention", "object", "centre"):
            print(f"{key}\t{'-' if report[key] is None else format(report[key], '.3f')}")
    return 1 if failed else 0


def _middle(word: Any, caption: Caption) -> tuple[float, float] | None:
    """The middle of the object that a word is tied to, in shares of the picture."""
    if word.object is None or not caption.objects:
        return None
    x0, y0, x1, y1 = caption.objects[word.object].box
    return (x0 + x1) / 2 / caption.width, (y0 + y1) / 2 / caption.height
