"""Pictures of a training and of a confidence, as PNG. Drawn without a screen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from recur.errors import RecurError
from recur.metrics.calibration import expected_calibration_error, risk_coverage

OWN_KEYS = ("phase", "epoch", "loss", "mean")
DISTINCT = "_distinct"
# Apart in hue and in lightness, so that they differ on paper and for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", "--", ":")  # of lines that have the same colour
NARROW = 0.25  # of all epochs: a phase that was shorter is drawn as wide as one that took so many
BINS = 10


def plot_training(log: Sequence[Mapping[str, Any]], *, score: str = "dev CIDEr-D x 100") -> bytes:
    """Loss and a score on dev by epoch, as PNG.

    `log` has a row an epoch: `phase`, `epoch`, `loss`, and for each language its `score` under its own name (`mean` is
    of them, and keys that end in `_distinct` count captions; both are left out). Phases minimise different things: the
    loss of each has a panel and a scale of its own. Below, a grey line marks where a phase begins.
    """
    if not log:
        raise RecurError("training plot: the log is empty; train for at least one epoch")
    epochs = np.arange(1, len(log) + 1)
    starts = _starts(log)
    stops = [*starts[1:], len(log)]
    languages = sorted({key for row in log for key in row if key not in OWN_KEYS and not key.endswith(DISTINCT)})
    figure = _figure(6.4, 5.6)
    widths = [max(stop - start, NARROW * len(log)) for start, stop in zip(starts, stops, strict=True)]
    grid = figure.add_gridspec(2, len(starts), width_ratios=widths)
    below = figure.add_subplot(grid[1, :])
    panels = [figure.add_subplot(grid[0, place]) for place in range(len(starts))]
    for panel, start, stop in zip(panels, starts, stops, strict=True):
        losses = [float(row["loss"]) for row in log[start:stop]]
        panel.plot(epochs[start:stop], losses, marker=".", color="#333333")
        if log[start].get("phase"):
            panel.set_title(str(log[start]["phase"]), fontsize=10, color="#777777", loc="left")
    for colour, lang in zip(_colours(len(languages)), languages, strict=True):
        scores = np.array([float(row.get(lang, np.nan)) for row in log])
        below.plot(epochs, scores, marker=".", color=colour, label=lang)
        if np.isfinite(scores).any():
            best = int(np.nanargmax(scores))
            below.annotate(
                f"{scores[best]:.1f}", (epochs[best], scores[best]), (0, 5), textcoords="offset points", ha="center"
            )
    _mark(below, log)
    for axes in (*panels, below):
        axes.grid(axis="y", color="#eeeeee")
        axes.margins(y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panels[0].set_ylabel("loss")
    below.set_ylabel(score)
    below.set_xlabel("epoch")
    if languages:
        below.legend(loc="lower right", frameon=False)
    return _png(figure)


def plot_losses(log: Sequence[Mapping[str, Any]]) -> bytes:
    """Nats a character by epoch, on the training text as it was learned (`loss`) and on dev (`dev`), as PNG."""
    if not log:
        raise RecurError("training plot: the log is empty; train for at least one epoch")
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    epochs = np.arange(1, len(log) + 1)
    axes.plot(epochs, [float(row["loss"]) for row in log], marker=".", color="#333333", label="training")
    dev = [float(row["dev"]) for row in log]
    axes.plot(epochs, dev, marker=".", color=COLOURS[1], label="dev")
    axes.annotate(f"{min(dev):.3f}", (epochs[int(np.argmin(dev))], min(dev)), (0, -12), textcoords="offset points")
    axes.set(xlabel="epoch", ylabel="nats a character")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#eeeeee")
    axes.legend(frameon=False)
    return _png(figure)


def plot_gradients(watched: Sequence[Mapping[str, Any]]) -> bytes:
    """The norm of a gradient by the steps that it has come back, a line an epoch, later ones darker, as PNG."""
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    for number, row in enumerate(watched, 1):
        norms = np.maximum(np.asarray(row["gradients"], float), 1e-12)
        axes.semilogy(np.arange(1, len(norms) + 1), norms, color=COLOURS[0], alpha=(1 + number) / (1 + len(watched)))
    axes.set(xlabel="steps back", ylabel="gradient norm")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#eeeeee")
    return _png(figure)


def plot_ratios(watched: Sequence[Mapping[str, Any]]) -> bytes:
    """The size of an update against the weights by epoch, a line a matrix, as PNG."""
    names = list(dict.fromkeys(name for row in watched for name in row["ratios"]))
    many = len(names) > len(COLOURS)
    figure = _figure(8.8 if many else 6.4, 3.6)
    axes = figure.subplots()
    epochs = [int(row["epoch"]) for row in watched]
    for number, (colour, name) in enumerate(zip(_colours(len(names)), names, strict=True)):
        values = [max(float(row["ratios"].get(name, np.nan)), 1e-12) for row in watched]
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        axes.semilogy(epochs, values, marker=".", color=colour, linestyle=style, label=name)
    axes.axhline(1e-3, color="#bbbbbb", linewidth=1)
    _mark(axes, watched)
    axes.set(xlabel="epoch", ylabel="update / weights")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#eeeeee")
    if many:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    else:
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def plot_reliability(confidence: NDArray[np.floating[Any]], good: NDArray[np.bool_]) -> bytes:
    """How far a confidence can be believed, as PNG. confidence [N] in 0..1, good [N]: was the caption acceptable?

    Left: the share that was acceptable against the confidence, in `BINS` bins of equally many pictures, with twice the
    standard error; on the diagonal it is right. Right: the share that is wrong when only the surest part is answered.
    """
    confidence, outcome = np.asarray(confidence, np.float64), np.asarray(good, np.float64)
    if confidence.ndim != 1 or confidence.shape != outcome.shape or not len(confidence):
        raise RecurError(
            f"reliability plot: got {list(confidence.shape)} confidences and {list(outcome.shape)} outcomes; "
            "expected one of each a picture"
        )
    figure = _figure(8.0, 3.8)
    left, right = figure.subplots(1, 2)
    bins = [part for part in np.array_split(np.argsort(confidence, kind="stable"), BINS) if len(part)]
    said = np.array([confidence[part].mean() for part in bins])
    was = np.array([outcome[part].mean() for part in bins])
    error = np.array([2 * np.sqrt(w * (1 - w) / len(part)) for w, part in zip(was, bins, strict=True)])
    left.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    left.errorbar(said, was, yerr=error, marker="o", markersize=4, color=COLOURS[0], capsize=2)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share acceptable")
    ece = expected_calibration_error(confidence, outcome)
    left.set_title(f"calibration error {ece:.3f}, {len(confidence)} pictures", fontsize=10)
    coverage, risk = risk_coverage(confidence, outcome)
    right.plot(coverage, risk, color=COLOURS[1])
    right.axhline(1 - outcome.mean(), color="#bbbbbb", linewidth=1)
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of pictures answered", ylabel="share of answers not acceptable")
    right.set_title("risk and coverage", fontsize=10)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    """An empty figure that no window and no global state of matplotlib knows of; inches."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _starts(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The rows with which a phase begins."""
    phases = [str(row.get("phase", "")) for row in rows]
    return [i for i in range(len(rows)) if i == 0 or phases[i] != phases[i - 1]]


def _mark(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A grey line before every phase but the first; `rows` have an epoch each, numbered through or not."""
    first = int(rows[0]["epoch"])
    for start in _starts(rows)[1:]:
        axes.axvline(first + start - 0.5, color="#bbbbbb", linewidth=1)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _png(figure: Figure) -> bytes:
    """The file, the same bytes for the same picture: it names no program version and no date."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
