"""`recur train caption` and `recur train trunk`: the command line of the functions in `recur.train`.

Options not given are not passed on: their defaults are stated once, in the functions. PyTorch is imported when a
training starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recur.cli.options import Commands, probability, whole
from recur.cli.training import OF_EACH, add_run, run_training

CIDER_EPOCHS = 6  # of --cider without a number


def add(tasks: Commands) -> None:
    """Add the tasks of the captioner: `caption`, `trunk`, `quantize` and `calibrate`."""
    _add_caption(tasks)
    _add_trunk(tasks)
    _add_again(
        tasks,
        "quantize",
        quantize_bundle,
        "an existing captioner's encoder in 8-bit numbers",
        "Write a captioner again with an encoder that computes in 8-bit numbers, three times as fast, if the captions "
        "of the dev split stay as good (within half a point of CIDEr-D). The confidence is fitted again.",
    )
    _add_again(
        tasks,
        "calibrate",
        calibrate_bundle,
        "an existing captioner's search and confidence",
        "Write a captioner again with its search, its second opinion and its confidence fitted to other pictures and "
        "captions. Its networks stay as they are; it takes a minute or two.",
    )


def _add_caption(tasks: Commands) -> None:
    parser = tasks.add_parser(
        "caption",
        help="a captioner",
        description="Train a captioner and write it as a bundle. Stop with Ctrl-C at any time and go on with --resume.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_caption)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        type=_place,
        required=True,
        metavar="PATH",
        help="COCO or Karpathy JSON, Flickr *.token.txt, annotations.jsonl, a folder with metadata.csv or .jsonl; or "
        "shards, whose pictures are streamed: .tar, .parquet, a folder of them, a URL (s3://…)",
    )
    data.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the captions"
    )
    data.add_argument("--language", metavar="LANG", help="language of captions that do not say theirs")
    data.add_argument("--data-name", metavar="TEXT", help="what the data is called, for the card")
    data.add_argument("--terms", metavar="TEXT", help="the terms of the data as its source states them, for the card")
    data.add_argument(
        "--min-count", type=whole(1), metavar="N", help="words seen less often are left out of the vocabulary"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--cell", choices=("rnn", "lstm", "gru"), help="the recurrent cell")
    network.add_argument(
        "--attention",
        action=argparse.BooleanOptionalAction,
        help="look at the picture at every word; without, it enters once, as START",
    )
    network.add_argument("--hidden", type=whole(1), metavar="H", help="hidden units")
    network.add_argument("--layers", type=whole(1, 16), metavar="L", help="recurrent layers")
    network.add_argument(
        "--dropout", type=probability, metavar="P", help="share of the units that a sentence leaves out"
    )
    network.add_argument("--init", metavar="NAME_OR_PATH", help="start from the weights of this model")
    seeing = parser.add_argument_group("encoder")
    seeing.add_argument(
        "--encoder",
        metavar="embedded|HF_NAME_OR_PATH|FILE.onnx",
        help="what sees: the network that comes with recur, or another",
    )
    seeing.add_argument(
        "--output-name", metavar="NAME", help="the output of an ONNX encoder to read, when it has several"
    )
    seeing.add_argument("--finetune-encoder", action="store_true", help="train the encoder along with the rest")
    seeing.add_argument(
        "--views",
        type=whole(1, 64),
        metavar="N",
        help="what a frozen encoder looks at of each picture: it as it is, mirrored, and N - 2 crops",
    )
    seeing.add_argument(
        "--teacher", type=Path, metavar="FILE.onnx", help="a larger network that goes on teaching it meanwhile"
    )
    seeing.add_argument(
        "--quantize",
        action=argparse.BooleanOptionalAction,
        help="compute in 8-bit numbers, three times as fast, if the captions of the dev split stay as good",
    )
    course = parser.add_argument_group("course")
    course.add_argument(
        "--epochs", type=whole(0), metavar="N", help="passes over the data at most; 0 with --init and --cider"
    )
    course.add_argument("--batch", type=whole(1, 4096), metavar="B", help=f"pictures in a step; {OF_EACH}")
    course.add_argument(
        "--cider",
        type=whole(1),
        nargs="?",
        const=CIDER_EPOCHS,
        metavar="N",
        help=f"then N epochs ({CIDER_EPOCHS}) of self-critical training on CIDEr-D",
    )
    add_run(course, "the bundle to write: a folder")


def _add_trunk(tasks: Commands) -> None:
    parser = tasks.add_parser(
        "trunk",
        help="a small CNN, taught by a larger one",
        description="Train the picture encoder from nothing: a larger network's feature maps are its targets.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.set_defaults(run=train_trunk)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of pictures")
    parser.add_argument("--teacher", type=Path, required=True, metavar="FILE.onnx", help="the network to learn from")
    parser.add_argument("--init", metavar="NAME_OR_PATH", help="go on from the trunk of this bundle or .onnx file")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where the teacher's answers are kept")
    parser.add_argument(
        "--views", type=whole(2), metavar="N", help="views of a picture that the teacher is asked about"
    )
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the data")
    parser.add_argument("--batch", type=whole(1, 4096), metavar="B", help=f"pictures in a step; {OF_EACH}")
    add_run(parser, "the encoder to write: an .onnx file")


def _add_again(tasks: Commands, name: str, run: Callable[..., int], short: str, long: str) -> None:
    """A task that writes an existing captioner again."""
    parser = tasks.add_parser(
        name, help=short, description=long, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", required=True, metavar="NAME_OR_PATH", help="the captioner")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="pictures and captions with a train and a dev split"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside them")
    parser.add_argument("--language", metavar="LANG", help="language of captions that do not say theirs")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the bundle to write; may be the same")


def _place(name: str) -> Path | str:
    """A path, or a URL, whose slashes count."""
    return name if "://" in name else Path(name)


def train_caption(**options: Any) -> int:
    """`recur train caption`; the options are the keyword arguments of `recur.train.caption.train_caption`."""
    run_training("caption", "train_caption", options)
    return 0


def train_trunk(**options: Any) -> int:
    """`recur train trunk`; the options are the keyword arguments of `recur.train.trunk.train_trunk`."""
    run_training("trunk", "train_trunk", options)
    return 0


def quantize_bundle(**options: Any) -> int:
    """`recur train quantize`; the options are the keyword arguments of `recur.train.quantize.quantize_bundle`."""
    run_training("quantize", "quantize_bundle", options)
    return 0


def calibrate_bundle(**options: Any) -> int:
    """`recur train calibrate`; the options are the keyword arguments of `recur.train.finish.calibrate_bundle`."""
    run_training("finish", "calibrate_bundle", options)
    return 0
