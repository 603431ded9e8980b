"""Precision against recall of a detector, as a picture."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from recur.errors import RecurError
from recur.metrics.detection import RECALLS, Found, Truth, match, precision_recall

MOST_CLASSES = 8


def plot_precision_recall(truth: Sequence[Truth], found: Sequence[Found], classes: Sequence[str]) -> bytes:
    """A PNG: precision at each recall at IoU 0.50, of the classes with most objects and of the mean over all.

    Errors: RecurError without matplotlib, which is loaded by name: the running half does without it.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise RecurError('a plot needs matplotlib, which is not installed; pip install "recur[train]"') from error
    curves = {}
    for label, name in enumerate(classes):
        matches = match(truth, found, label)
        if matches.objects:
            curves[name] = (matches.objects, precision_recall(matches)[0][0])
    figure = figures.Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in sorted(curves, key=lambda name: -curves[name][0])[:MOST_CLASSES]:
        axes.plot(RECALLS, curves[name][1], linewidth=1.2, label=f"{name} {curves[name][1].mean():.2f}")
    if curves:
        mean = np.mean([precision for _, precision in curves.values()], axis=0)
        axes.plot(RECALLS, mean, color="black", linewidth=2.2, label=f"all {len(curves)} classes {mean.mean():.2f}")
        axes.legend(fontsize=8, title="AP50", title_fontsize=8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
