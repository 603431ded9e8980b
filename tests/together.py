"""Every training on a little data, called alike: what several processes do is to be what one does.

As a program, in a folder with the data, started as PyTorch's launcher starts it, it trains all of them in one pair of
processes: to the end (`NAME-both`), and until the process that does not lead is asked to stop (`NAME-changed`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from recur.nn.vision import Trunk
from recur.train.checkpoint import StopRequest
from recur.train.team import gathered


@dataclass(frozen=True)
class Training:
    """`recur.train.MODULE.FUNCTION` with `options`, and constants of modules that make it small.

    `batch` of one process that trains alone; None where there is no such option, and the step is shared out.
    `asked`: how often the second process is asked whether to stop before it says yes. `after` is what is called first
    when an epoch is over.
    """

    function: str
    options: dict[str, Any]
    batch: int | None = None
    asked: int = 4
    small: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    after: str = ""

    def __call__(self, name: str, place: Path, *, processes: int = 1, **more: Any) -> Path:
        """Train with the data in `place`, and write `name` there."""
        module, function = self.function.split(".")
        options = {key: find(place) if callable(find) else find for key, find in self.options.items()}
        if self.batch is not None:
            options["batch"] = self.batch // processes
        out = place / f"{name}{self.out}"
        with ExitStack() as stack:
            for constant, value in self.small.items():
                where, _, what = constant.rpartition(".")
                stack.enter_context(patch.object(importlib.import_module(f"recur.train.{where}"), what, value))
            getattr(importlib.import_module(f"recur.train.{module}"), function)(out=out, seed=3, **options, **more)
        return out


def _in(name: str) -> Callable[[Path], Path]:
    return lambda place: place / name


def _of(name: str) -> Callable[[Path], list[Path]]:
    return lambda place: [place / name]


TRAININGS = {
    "language": Training(
        "language.train_language",
        {"data": _of("text.txt"), "hidden": 12, "embedding": 8, "layers": 2, "epochs": 2, "length": 32}
        | {"weight_drop": 0.2, "min_count": 25},
        batch=6,
        asked=2,
        small={"language.STEPS": 10},
    ),
    "translate": Training(
        "translation.train_translation",
        {"data": _of("pairs/train"), "source": "en", "target": "de", "both": True, "pieces": 60, "embedding": 8}
        | {"hidden": 8, "encoder": 8, "epochs": 2, "word_dropout": 0.1},
        asked=6,
        small={"translation.STEP_PIECES": 240, "translation.ATTENTION": 8},
    ),
    "sentiment": Training(
        "sentiment.train_sentiment",
        {"data": _of("reviews.jsonl"), "min_count": 2, "hidden": 8, "embedding": 8, "epochs": 2},
        asked=5,
        after="epochs.save_checkpoint",
        small={"sentiment_data.STEP_TOKENS": 300, "sentiment_data.WINDOW": 8},
    ),
    "answer": Training(
        "answer.train_answer",
        {"data": _in("tasks"), "hidden": 8, "layers": 2, "epochs": 2},
        batch=250,
        asked=3,
        after="epochs.save_checkpoint",
    ),
    "frames": Training(
        "frames.train_frames",
        {"data": _in("frames.npz"), "fold": "split1", "epochs": 3, "head": "crf", "hidden": 8, "crop": 20},
        asked=2,
        small={"frames.BATCH": 5},  # of 6: one process has nothing to do in the last step
    ),
    "detect": Training(
        "detect.train_detect",
        {"data": _in("boxes"), "encoder": lambda place: str(place / "captioner"), "epochs": 2, "views": 3},
        batch=4,
        asked=5,
    ),
    "classify": Training(
        "classify.train_classify",
        {"data": _in("boxes"), "encoder": lambda place: str(place / "captioner"), "epochs": 2, "views": 2},
        asked=0,
        after="classify.attach",
        small={"classify.BATCH": 11, "classify.LOOK": 4},
    ),
    "trunk": Training(
        "trunk.train_trunk",
        {"data": _of("shapes"), "teacher": _in("teacher.onnx"), "cache": _in("answers"), "epochs": 1, "views": 3},
        batch=8,
        asked=1,
        small={
            "trunk.Trunk": lambda: Trunk((8, 8, 16, 16), (1, 1, 1, 1)),
            "trunk.RESOLUTIONS": ((0.5, 64), (0.5, 96)),
        },
        out=".onnx",
    ),
    "span": Training(
        "span.train_span",
        {"data": _of("squad.json"), "hidden": 8, "embedding": 8, "epochs": 2},
        batch=16,
        asked=6,
    ),
}


def stop_second(asked: int) -> Any:
    """Within it the process that does not lead is asked to stop, after it was asked `asked` times whether it is."""
    left = [asked]

    def requested(_: StopRequest) -> bool:
        left[0] -= 1
        return left[0] < 0

    return patch.object(StopRequest, "requested", property(requested))


def main() -> None:
    """Both kinds of runs of every training."""
    place = Path.cwd()
    with gathered() as team:
        for name, training in TRAININGS.items():
            training(f"{name}-both", place, processes=team.size)
            with ExitStack() as stack:
                if not team.leads:
                    stack.enter_context(stop_second(training.asked))
                training(f"{name}-changed", place, processes=team.size)


if __name__ == "__main__":
    main()
