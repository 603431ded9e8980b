"""`recur evaluate frames`: by frame, by the order of segments, and by their overlap."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recur.cli.options import Commands, whole
from recur.cli.terminal import json_line
from recur.errors import RecurError

DESCRIPTION = """\
Label frames and compare: share of right frames, edit score, and F1 of segments that overlap by 10, 25 and 50 %. Each
model is measured on what was held out when it was trained (its fold, or the end of each sequence), or with --split all
on everything. Several models, one a fold, are followed by a line of their means. --faithful N hides, for N frames, the
frames that `recur explain frames` names and as many others beside them: how far does the probability of the label fall?
"""


def add(tasks: Commands) -> None:
    """Add the task `frames`."""
    task = tasks.add_parser(
        "frames",
        help="labels of frames",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_frames)
    task.add_argument(
        "--model", nargs="+", default=["driving"], metavar="NAME_OR_PATH", help="one model, or one a fold"
    )
    task.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="labelled frames, as training reads them"
    )
    task.add_argument("--split", choices=("held-out", "all"), default="held-out", help="(default: held-out)")
    task.add_argument("--faithful", type=whole(1), metavar="N", help="measure the frames that are named, for N frames")
    task.add_argument("--json", action="store_true", help="one JSON object a line")


def evaluate_frames(
    *, model: list[str], data: Path, split: str = "held-out", faithful: int | None = None, json: bool = False
) -> int:
    """Measure; returns the exit status. The arguments are the options of the command."""
    import numpy as np

    from recur import load
    from recur.data.frames import held_out_part, read_labelled_frames
    from recur.explain.film import faithfulness
    from recur.predict.frames import FrameLabeller, measure

    rows: list[dict[str, float]] = []
    for name in model:
        labeller = load(name)
        if not isinstance(labeller, FrameLabeller):
            raise RecurError(f"{name}: no model for frames; choose one of `recur models`")
        sequences, classes = read_labelled_frames(data, size=labeller.size or 1)
        if tuple(classes) != labeller.classes:
            raise RecurError(f"{data}: classes {classes[:5]}; {name} knows {list(labeller.classes)[:5]}; give others")
        training = labeller.bundle.meta.get("training", {})
        if split == "held-out":
            share = float(training.get("held_out") or 0)
            sequences = held_out_part(sequences, fold=training.get("fold"), share=share)
        if not sequences:
            raise RecurError(f"{data}: nothing of it was held out for {name}; try --split all")
        seen = [replace(e, values=labeller.see(e.values)) if e.values.ndim == 4 else e for e in sequences]
        rows.append({"frames": sum(len(each.labels) for each in seen), **measure(labeller, seen)})
        _tell({"model": labeller.name, "split": training.get("fold") or split, **rows[-1]}, json)
        if faithful is not None:
            _tell(
                {"model": labeller.name, **faithfulness(labeller, [each.values for each in seen], count=faithful)}, json
            )
    if len(rows) > 1:
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "frames"}
        _tell(
            {"model": "mean", "split": f"{len(rows)} folds", "frames": sum(row["frames"] for row in rows), **mean}, json
        )
    return 0


def _tell(row: dict[str, object], json: bool) -> None:
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
    print(json_line(shown) if json else "  ".join(f"{name} {value}" for name, value in shown.items()), flush=True)
