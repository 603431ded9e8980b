"""`recur evaluate explanations`: does hiding what a word is said to come from make the word less likely?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recur.cli.evaluate_caption import SPLITS
from recur.cli.options import Commands, add_languages, add_max_pixels, add_model, whole
from recur.cli.terminal import json_line, visible
from recur.errors import InputError, RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.data.images import Square

DESCRIPTION = """\
For every word of every caption, hide the region that the page shows, and another one of the same size drawn at random:
how often does its own cost the word more of its probability, and how much? With --model the same is asked of models of
texts, and --data is a text file: of a sentiment model for the word that speaks most for the label, of a translator for
the source word that each word was read from (both taken out, against another one taken out); of a language model,
whether the units named on the first half of the text follow their rules on the second half. Of a model that answers
with a part of a passage --data are questions in SQuAD's formats: does the answer lose more without the words that the
page names than without others?
"""


def add(tasks: Commands) -> None:
    """Add the task `explanations`."""
    task = tasks.add_parser(
        "explanations",
        help="how far what the pages show is to be believed",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_explanations)
    add_model(task)
    task.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="pictures, in any format of training; a text for models of texts",
    )
    task.add_argument("--images", type=Path, metavar="FOLDER", help="where the pictures are, when not beside the data")
    task.add_argument("--split", choices=SPLITS, default="dev", help="the part of the data to use (default: dev)")
    add_languages(task, default="all of the model's")
    task.add_argument("--column", metavar="NAME", help="--data is a table of texts: read this column of it")
    task.add_argument("--from", dest="source", metavar="LANG", help="of a translator: the language of the texts")
    task.add_argument("--to", dest="target", metavar="LANG", help="of a translator: the language of the translation")
    task.add_argument("--limit", type=whole(1), metavar="N", help="the first N pictures or texts only")
    task.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of the random regions (default: 0)")
    add_max_pixels(task)
    task.add_argument("--json", action="store_true", help="one JSON object a line")


def evaluate_explanations(
    *,
    data: Path,
    model: str = "captioner",
    images: Path | None = None,
    split: str = "dev",
    lang: tuple[str, ...] | None = None,
    column: str | None = None,
    source: str | None = None,
    target: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    max_pixels: int | None = None,
    json: bool = False,
) -> int:
    """Measure the explanations of a model; returns the exit status."""
    from recur import load
    from recur.cli.evaluate_explanations_texts import measure_spans, measure_texts, told_lines
    from recur.data.captions import read_captions
    from recur.data.images import MAX_PIXELS
    from recur.explain.faithful import faithfulness

    captioner = load(model)
    if captioner.bundle.task == "span":
        told = measure_spans(captioner, data, split, limit, seed)
        print(json_line(told) if json else "\n".join(told_lines(told)))
        return 0
    if captioner.bundle.task != "caption":
        told = measure_texts(captioner, str(data), column, source, target, limit, seed)
        print(json_line(told) if json else "\n".join(told_lines(told)))
        return 0
    found = read_captions(data, images=images)
    for line in found.problems:
        sys.stderr.write(visible(line) + "\n")
    paths = [str(picture.path) for picture in found.pictures if split in ("all", picture.split)][:limit]
    if not paths:
        raise RecurError(f"{data}: no pictures in split {split!r}; expected some; choose with --split")
    failed: list[str] = []
    for language in lang or captioner.languages:
        with Progress(len(paths), unit="pictures") as progress:
            squares = _squares(
                paths, captioner.size, MAX_PIXELS if max_pixels is None else max_pixels, progress, failed
            )
            told = {"model": captioner.name, "data": str(data), "split": split}
            told |= faithfulness(captioner, squares, language, seed=seed)
        if json:
            print(json_line(told))
        else:
            for kind in ("all", "content", "felt"):
                each = told[kind]
                print(
                    f"{language}  {kind:<8} {each['words']:>6} words  own region costs more: "
                    f"{100 * each['own_costs_more']:.1f} %  cost in nats: own {each['cost_own']:.3f}, "
                    f"another {each['cost_other']:.3f}"
                )
    return 1 if failed else 0


def _squares(paths: Sequence[str], size: int, most: int, progress: Progress, failed: list[str]) -> Iterator[Square]:
    """The pictures that can be read; what is wrong with the others is told once."""
    from recur.data.images import iterate_pictures

    for path, square in iterate_pictures(paths, size=size, workers=1, max_pixels=most):
        progress.advance()
        if not isinstance(square, InputError):
            yield square
        elif path not in failed:
            failed.append(path)
            progress.line(visible(str(square)))
