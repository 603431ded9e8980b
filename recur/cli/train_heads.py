"""`recur train detect` and `recur train classify`: heads on the trunk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, whole
from recur.cli.training import OF_EACH, add_run, run_training


def add(tasks: Commands) -> None:
    """Add the tasks of the heads: `detect` and `classify`."""
    _add_detect(tasks)
    _add_classify(tasks)


def _parser(tasks: Commands, name: str, help_text: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tasks.add_parser(
        name, help=help_text, description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    return parser


def _add_common(parser: argparse.ArgumentParser, data: str) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=data)
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the data"
    )
    parser.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    parser.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    parser.add_argument(
        "--share-trunk",
        action="store_true",
        help="leave the trunk out of the bundle: it is that of the captioner that comes with recur",
    )
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    add_run(parser, "the bundle to write: a folder")


def _add_detect(tasks: Commands) -> None:
    parser = _parser(
        tasks,
        "detect",
        "a detector of objects",
        "Train a detection head on the trunk of a model, which stays as it is, and write it as a bundle.",
    )
    parser.set_defaults(run=train_detect)
    _add_common(
        parser, "COCO's instances_*.json, a Pascal VOC folder, a YOLO folder, annotations.jsonl, or a folder with one"
    )
    parser.add_argument(
        "--encoder",
        metavar="embedded|BUNDLE|FILE.onnx|HF_NAME_OR_PATH",
        help="what sees: the trunk that comes with recur, another of its kind, or a detector for `transformers`",
    )
    parser.add_argument("--init", metavar="NAME_OR_PATH", help="start from the head of this detector")
    parser.add_argument("--batch", type=whole(1, 4096), metavar="B", help=f"pictures in a step; {OF_EACH}")
    parser.add_argument(
        "--views", type=whole(1), metavar="N", help="views of each picture: whole, its mirror image, cut-outs"
    )
    parser.add_argument(
        "--alike", type=_names, metavar="A,B,…", help="classes that one object may have any of: it gets one box"
    )
    parser.add_argument(
        "--nouns",
        action="append",
        metavar="LANG=FILE.json",
        help="the words of captions that name each class, {class: words}; English ones are read from classes.json",
    )


def _add_classify(tasks: Commands) -> None:
    parser = _parser(
        tasks,
        "classify",
        "a classifier of pictures",
        "Train a classification head on the trunk of a model, which stays as it is, and write it as a bundle.",
    )
    parser.set_defaults(run=train_classify)
    _add_common(
        parser, "a folder with a folder of pictures for each class, or pictures with boxes: then any number may apply"
    )
    parser.add_argument(
        "--encoder", metavar="embedded|BUNDLE|FILE.onnx", help="what sees: the trunk that comes with recur, or another"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def train_detect(**options: Any) -> int:
    """`recur train detect`; the options are the keyword arguments of `recur.train.detect.train_detect`."""
    run_training("detect", "train_detect", options)
    return 0


def train_classify(**options: Any) -> int:
    """`recur train classify`; the options are the keyword arguments of `recur.train.classify.train_classify`."""
    run_training("classify", "train_classify", options)
    return 0
