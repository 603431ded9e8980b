"""Drawings of what is in a library; the only place of the running half that uses matplotlib, when it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recur.errors import RecurError


def draw_stats(path: Path, counts: dict[str, Any]) -> None:
    """Pictures a year, and captions by confidence, as a PNG. Raises RecurError without matplotlib; OSError."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise RecurError('a plot needs matplotlib; install it with: pip install "recur[train]"') from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    years, sure = figure.subplots(1, 2)
    known = {year: count for year, count in counts["years"].items() if year}
    years.bar(list(known), list(known.values()), color="#4477aa")
    years.set(title="pictures by the year in their EXIF", ylabel="pictures")
    years.tick_params(axis="x", rotation=90 if len(known) > 8 else 0)
    years.text(
        0.99, 0.98, f"{counts['years'].get('', 0):,} without a date", transform=years.transAxes, ha="right", va="top"
    )
    sure.bar([tenth / 10 + 0.05 for tenth in range(10)], counts["confidence"], width=0.09, color="#228833")
    sure.set(title="captions by confidence", xlabel="confidence", ylabel="captions", xlim=(0, 1))
    figure.savefig(path, dpi=120, format="png")
