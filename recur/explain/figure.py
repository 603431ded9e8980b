"""Explanations as figures for a paper; the only place of this room that uses matplotlib, when it is asked to."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from recur.errors import RecurError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recur.explain.explanation import Explanation
    from recur.predict.answer import Answer

COLUMNS = 5
CHARACTERS = 100  # of a reading, the first ones: more cannot be read side by side
AROUND = 20  # tokens of a passage on each side of the likeliest place
# As on the page: colours that people with any kind of colour vision can tell apart (Okabe and Ito, 2008).
INKS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#8a8a8a")


def empty(width: float, height: float) -> Figure:
    """A figure of so many inches. Errors: RecurError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise RecurError('a figure needs matplotlib; install it with: pip install "recur[train]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def draw(explanation: Explanation, language: str | None = None) -> Figure:
    """The picture once for each word of the sentence in `language` (the first one when None), lit by its attention.

    Errors: RecurError without matplotlib, and for a language that is not in the explanation.
    """
    sentences = {each["language"]: each for each in explanation.data["sentences"]}
    name = next(iter(sentences)) if language is None else language
    if name not in sentences:
        raise RecurError(f"no sentence in {name!r}; expected one of {', '.join(sentences)}; choose one of them")
    words: list[dict[str, Any]] = sentences[name]["words"]
    pixels = explanation.pixels
    rows = math.ceil((len(words) + 1) / COLUMNS)
    tall = pixels.shape[0] / pixels.shape[1]
    figure = empty(2.2 * COLUMNS, (2.2 * tall + 0.45) * rows)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axis in axes:
        axis.axis("off")
    axes[0].imshow(pixels)
    for axis, word in zip(axes[1:], words, strict=False):
        axis.imshow(lit(pixels, word["attention"]))
        axis.set_title(f"{word['word']}  {word['probability']:.2f}", fontsize=10)
    return figure


def lit(pixels: Any, attention: list[list[float]] | None) -> Any:
    """Pixels [Y, X, 3] with everything in shade but what attention [gy, gx] rests on; as they are without any."""
    if attention is None:
        return pixels
    grid = np.asarray(attention, np.float32)
    # As on the page: the scale ends at the strongest cell, yet never below four times the even share.
    share = grid / max(float(grid.max()), 4 / grid.size)
    light = Image.fromarray(share).resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(light), 0, 1)[:, :, None]
    return (pixels * (0.3 + 0.7 * strength)).astype(np.uint8)


def draw_film(data: Mapping[str, Any]) -> Figure:
    """The probabilities of the labels of a video over time, one upon the other, with its changes as lines.

    `data` is that of a `FilmExplanation`. Errors: RecurError without matplotlib.
    """
    figure = empty(7, 2.2)
    axis = figure.subplots()
    timed = all(seconds is not None for seconds in data["seconds"])
    times = data["seconds"] if timed else data["frames"]
    table = np.array(data["probabilities"], np.float64).reshape(len(times), len(data["classes"]))
    inks = [INKS[number % len(INKS)] for number in range(len(data["classes"]))]
    axis.stackplot(times, table.T, labels=data["classes"], colors=inks, linewidth=0)
    for change in data["changes"]:
        axis.axvline(times[change["at"]], color="black", linewidth=0.6)
    axis.set(xlabel="seconds" if timed else "frame", ylabel="probability", ylim=(0, 1))
    axis.margins(x=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def draw_text(data: Mapping[str, Any]) -> Figure:
    """What an explanation of a text has that can be drawn: of a judgement the probability after each word, of a
    translation its first sentence's alignment, of a part of a passage where it may start and end, of a reading the cost
    of its first characters and the unit that follows each rule best.

    `data` is that of a `TextExplanation`. Errors: RecurError without matplotlib, and for the other tasks.
    """
    task = data["task"]
    if task == "generate":
        return _reading(data)
    if task == "sentiment":
        running = data.get("running", ())
        return _curves([word for word, _ in running], {"positive": [p for _, p in running]})
    if task == "span":
        words = [data["passage"][start:end] for start, end in data["tokens"]]
        near = np.argsort(-np.maximum(data["starts"], data["ends"]), kind="stable")[0]
        part = slice(max(0, int(near) - AROUND), int(near) + AROUND)
        return _curves(words[part], {"start": data["starts"][part], "end": data["ends"][part]})
    if task == "translate" and data["parts"]:
        part = data["parts"][0]
        figure = empty(0.4 * len(part["source"]) + 1.5, 0.4 * len(part["words"]) + 1)
        axis = figure.subplots()
        axis.imshow(np.array(part["weights"]), cmap="Greys", vmin=0, vmax=1)
        axis.set_xticks(range(len(part["source"])), part["source"], rotation=90)
        axis.set_yticks(range(len(part["words"])), part["words"])
        return figure
    raise RecurError(f"an explanation of {task!r} has nothing that a figure shows; write its page")


def draw_story(answer: Answer) -> Figure:
    """What an answer about a story rests on: for each sentence how likely the answer rests on it, and how far the gates
    of each reading opened at it. Errors: RecurError without matplotlib.
    """
    rows = [(each.support, *each.gates) for each in answer.evidence]
    columns = ["rests on", *(f"reading {number}" for number in range(1, len(rows[0])))]
    longest = max(len(each.sentence) for each in answer.evidence)
    figure = empty(0.6 * len(columns) + 0.075 * longest + 1.2, 0.28 * len(rows) + 1.2)
    axis = figure.subplots()
    axis.imshow(np.array(rows), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="left")
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(rows)), [each.sentence for each in answer.evidence])
    axis.set_xlabel(f"{answer.question} {answer.answer} ({answer.confidence:.2f})")
    return figure


def _reading(data: Mapping[str, Any]) -> Figure:
    text = data["text"][:CHARACTERS]
    named = [(each["rule"], each["units"][0]) for each in data["follows"] if each["units"]]
    shape = data["shape"]
    numbers = np.frombuffer(base64.b64decode(data["hidden"]["int8"]), np.int8).reshape(shape) * data["hidden"]["scale"]
    figure = empty(max(5, 0.13 * len(text) + 3), 1.6 + 0.24 * max(1, len(named)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 0.24 * max(1, len(named))))
    above.bar(range(len(text)), [cost or 0.0 for cost in data["nats"][: len(text)]], color=INKS[0])
    above.set(ylabel="nats")
    if named:
        rows = [numbers[unit["layer"] - 1, : len(text), unit["unit"] - 1] for _, unit in named]
        below.imshow(np.array(rows), cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    below.set_yticks(range(len(named)), [f"{rule}: unit {unit['unit']}" for rule, unit in named], fontsize=8)
    shown = [each if each.isprintable() else "\N{RETURN SYMBOL}" for each in text]
    below.set_xticks(range(len(text)), shown, fontsize=8, family="monospace")
    return figure


def _curves(words: Sequence[str], curves: Mapping[str, Sequence[float]]) -> Figure:
    figure = empty(max(4, 0.28 * len(words)), 2.6)
    axis = figure.subplots()
    for (name, values), ink in zip(curves.items(), INKS, strict=False):
        axis.plot(range(len(words)), values, color=ink, label=name, marker=".")
    axis.set_xticks(range(len(words)), words, rotation=90)
    axis.set(ylabel="probability", ylim=(0, 1))
    axis.legend(frameon=False)
    return figure
