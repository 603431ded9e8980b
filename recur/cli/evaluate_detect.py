"""`recur evaluate detect`: how well objects are found, as COCO counts it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.detect import load_detector
from recur.cli.options import Commands, add_max_pixels, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError

if TYPE_CHECKING:
    from recur.metrics.detection import Found, Truth
    from recur.predict.detect import Detector

SPLITS = ("train", "dev", "test", "none", "all")
LEAST_SCORE = 0.01  # of the detections that are counted
DESCRIPTION = """\
Find the objects in every picture of a split and compare them with the boxes of the data: average precision over ten
overlaps from 0.50 to 0.95 (AP), at 0.50 and 0.75, by size of the object, and by class, as COCO's pycocotools counts it.
Classes are matched by name; what the model does not know counts as never found. --json prints one object.
"""
ROWS = (
    ("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"), ("AP small", "ap_small"), ("AP medium", "ap_medium"),
    ("AP large", "ap_large"), ("AR 1", "ar1"), ("AR 10", "ar10"), ("AR 100", "ar100"), ("AR small", "ar100_small"),
    ("AR medium", "ar100_medium"), ("AR large", "ar100_large"),
)  # fmt: skip


def add(tasks: Commands) -> None:
    """Add the task `detect`."""
    task = tasks.add_parser(
        "detect",
        help="objects",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_detect)
    add_model(task, "detector")
    task.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="pictures and boxes, in any format that training reads"
    )
    task.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the data")
    task.add_argument("--split", choices=SPLITS, default="dev", help="the part of the data to use (default: dev)")
    task.add_argument("--limit", type=whole(1), metavar="N", help="the first N pictures only")
    task.add_argument(
        "--merge",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        metavar="A,B,…",
        help="also AP50 of these classes taken as one",
    )
    task.add_argument("--plot", type=Path, metavar="FILE.png", help="draw precision against recall; needs matplotlib")
    add_max_pixels(task)
    task.add_argument("--json", action="store_true", help="one JSON object")


def evaluate_detect(
    *,
    data: Path,
    model: str = "detector",
    images: Path | None = None,
    split: str = "dev",
    limit: int | None = None,
    merge: tuple[str, ...] | None = None,
    plot: Path | None = None,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Measure a detector on data; returns the exit status."""
    from recur.data.boxes import read_boxes
    from recur.metrics.detection import evaluate_detections, merged

    found = read_boxes(data, images=images)
    for line in found.problems:
        sys.stderr.write(visible(line) + "\n")
    pictures = (found.pictures if split == "all" else found.split(split))[:limit]
    if not pictures:
        raise RecurError(f"{data}: no picture in split {split!r}; expected some; choose another --split")
    odd = sorted({*(merge or ())} - {*found.classes})
    if odd:
        raise RecurError(f"--merge: {odd[0]!r} is no class; expected some of {', '.join(found.classes)}; choose others")
    detector = load_detector(model)
    begun = time.monotonic()
    truth, seen, failed = compare(detector, pictures, found.classes, max_pixels)
    report: dict[str, Any] = {"model": detector.name, "data": str(data), "split": split}
    report |= evaluate_detections(truth, seen, found.classes)
    if merge:
        labels = [found.classes.index(name) for name in merge]
        report["merged"] = {"classes": list(merge), **_one(evaluate_detections(*merged(truth, seen, labels), ["one"]))}
    report |= {"failed": failed, "seconds": round(time.monotonic() - begun, 3)}
    if json:
        print(json_line(report))
    else:
        _show(report)
    if plot is not None:
        from recur.explain.precision_recall import plot_precision_recall
        from recur.files import write_atomically

        write_atomically(plot, plot_precision_recall(truth, seen, found.classes))
    return 1 if failed else 0


def compare(
    detector: Detector, pictures: Any, classes: tuple[str, ...], max_pixels: int | None
) -> tuple[list[Truth], list[Found], int]:
    """What is there and what is found, with the data's numbers of classes; how many pictures could not be read."""
    from recur.data.images import MAX_PIXELS
    from recur.metrics.detection import Truth
    from recur.predict.detect import found_in

    most = MAX_PIXELS if max_pixels is None else max_pixels
    truth, seen = [], []
    failed = 0
    results = detector.stream([picture.path for picture in pictures], min_score=LEAST_SCORE, max_pixels=most)
    for picture, result in zip(pictures, results, strict=True):
        if result.problem is not None:
            failed += 1
            sys.stderr.write(visible(str(result.problem)) + "\n")
        truth.append(Truth(picture.boxes, picture.labels, picture.ignored))
        seen.append(found_in(result, classes, picture.width, picture.height))
    return truth, seen, failed


def _one(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("ap", "ap50", "ap75")}


def _show(report: dict[str, Any]) -> None:
    print(f"{report['pictures']} pictures of split {report['split']}, {report['seconds']:.1f} s")
    for name, key in ROWS:
        print(f"{name}\t{_figure(report[key])}")
    if "merged" in report:
        print(f"AP50 of {', '.join(report['merged']['classes'])} as one\t{_figure(report['merged']['ap50'])}")
    print("class\tobjects\tAP\tAP50")
    for name, row in sorted(report["classes"].items(), key=lambda pair: -pair[1]["objects"]):
        print(f"{visible(name)}\t{row['objects']}\t{_figure(row['ap'])}\t{_figure(row['ap50'])}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
