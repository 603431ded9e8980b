"""`recur evaluate sentiment`: how often the label is right, and how honest the probability is."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from recur.cli.options import Commands, add_model
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError

DESCRIPTION = """\
Judge labelled texts and compare: accuracy, expected calibration error (15 bins of equal mass) and Brier score, for the
texts of each language. --split train or dev is what training would have learned from or held out (default: all texts).
Texts with a label that the model does not know are named and left out, and the status is 1.
"""
TOGETHER = 32


def add(tasks: Commands) -> None:
    """Add the task `sentiment`."""
    task = tasks.add_parser(
        "sentiment",
        help="good or bad, of texts",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    task.set_defaults(run=evaluate_sentiment)
    add_model(task)
    task.set_defaults(model="sentiment")
    task.add_argument("--data", type=Path, required=True, metavar="PATH", help="labelled texts, as training reads them")
    task.add_argument("--split", choices=("train", "dev", "all"), default="all", help="the part to use (default: all)")
    task.add_argument("--column", metavar="NAME", help="the column of the texts, when it has no usual name")
    task.add_argument("--label-column", metavar="NAME", help="the column of the labels, likewise")
    task.add_argument("--json", action="store_true", help="one JSON object a language")


def evaluate_sentiment(
    *,
    data: Path,
    model: str = "sentiment",
    split: str = "all",
    column: str | None = None,
    label_column: str | None = None,
    json: bool = False,
) -> int:
    """Measure; returns the exit status. The arguments are the options of the command."""
    import numpy as np

    from recur import load
    from recur.data.labelled import read_labelled, read_splits
    from recur.metrics.calibration import brier_score, expected_calibration_error
    from recur.predict.sentiment import SentimentClassifier

    classifier = load(model)
    if not isinstance(classifier, SentimentClassifier):
        raise RecurError(f"{model}: no model for sentiment; choose one of `recur models`")
    options = {"column": column, "label_column": label_column}
    found = read_labelled(data, **options) if split == "all" else read_splits(data, **options)[split == "dev"]
    failed = bool(found.problems)
    for line in found.problems:
        sys.stderr.write(visible(line) + "\n")
    unknown = sorted(set(found.labels) - set(classifier.labels))
    for label in unknown:
        count = found.labels.count(label)
        known = " and ".join(classifier.labels)
        sys.stderr.write(
            visible(f"{data}: {count} texts have the label {label!r}; the model knows {known}; left out") + "\n"
        )
        failed = True
    kept = [place for place, label in enumerate(found.labels) if label in classifier.labels]
    if not kept:
        raise RecurError(f"{data}: no text with a label that the model knows; give others, or another model")
    begun = time.perf_counter()
    scored: dict[str, list[tuple[float, bool]]] = {}
    for start in range(0, len(kept), TOGETHER):
        places = kept[start : start + TOGETHER]
        judged = classifier.judge([found.texts[place] for place in places])
        for place, item in zip(places, judged, strict=True):
            if item is None:
                sys.stderr.write(
                    visible(f"{data}: a text without a word ({found.texts[place][:40]!r}); left out") + "\n"
                )
                failed = True
            else:
                language, probability = item
                scored.setdefault(language, []).append((probability, found.labels[place] == classifier.labels[1]))
    seconds = time.perf_counter() - begun
    for language, pairs in sorted(scored.items()):
        p, good = np.array([each for each, _ in pairs]), np.array([second for _, second in pairs])
        row = {
            "model": classifier.name,
            "data": str(data),
            "split": split,
            "language": language,
            "texts": len(pairs),
            "accuracy": round(float(((p >= 0.5) == good).mean()), 4),
            "ece": round(expected_calibration_error(p, good), 4),
            "brier": round(brier_score(p, good), 4),
            "texts_a_second": round(len(kept) / seconds, 1),
        }
        print(json_line(row) if json else "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return 1 if failed else 0
