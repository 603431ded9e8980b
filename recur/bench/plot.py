"""Benchmarks as pictures: bars side by side on a logarithmic scale, and curves of growth."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from recur.bench.measure import Row, load

OURS, OTHERS = "#0072b2", "#bbbbbb"
BEST = 3  # of the others' bars: the fastest ones, because they are what counts


def plot(rows: Sequence[Row], *, title: str) -> bytes:
    """PNG of the rows: of `growth` a curve each, of the others a group of bars each, shortest best."""
    load("matplotlib")
    agg: Any = load("matplotlib.backends.backend_agg")
    figures: Any = load("matplotlib.figure")
    curves = all(row.benchmark == "growth" for row in rows)
    bars = sum(len(_bars(row)) + 1 for row in rows)
    figure = figures.Figure(figsize=(8, 5.6 if curves else 1.0 + 0.24 * bars), dpi=90)
    agg.FigureCanvasAgg(figure)
    if curves:
        for axes, row in zip(figure.subplots(2, 2).flat, rows, strict=False):
            sizes = [int(size) for size in row.times]
            axes.loglog(sizes, list(row.times.values()), marker="o", color=OURS)
            axes.set_xlabel(row.what, fontsize=8)
            axes.set_ylabel(row.unit, fontsize=8)
            axes.grid(color="#eeeeee")
    else:
        axes = figure.subplots()
        place, labels = 0, []
        for row in rows:
            for name, value in _bars(row):
                ours = name == row.ours
                axes.barh(place, value, color=OURS if ours else OTHERS)
                axes.text(value, place, f" {_number(value)} {row.unit}", va="center", fontsize=8)
                labels.append((place, f"{row.what}: {'recur' if ours else name}" if ours else name))
                place += 1
            place += 1
        axes.set_xscale("log")
        lengths = [value for row in rows for _, value in _bars(row)]
        axes.set_xlim(10 ** math.floor(math.log10(min(lengths))), 6 * max(lengths))  # room for what stands behind a bar
        axes.set_yticks([at for at, _ in labels], [label for _, label in labels], fontsize=8)
        axes.invert_yaxis()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bars(row: Row) -> list[tuple[str, float]]:
    others = sorted((value, name) for name, value in row.times.items() if name != row.ours)[:BEST]
    return [(row.ours, row.times[row.ours]), *((name, value) for value, name in others)]
