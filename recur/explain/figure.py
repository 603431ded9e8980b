"""An explanation as a figure for a paper; the only place of this room that uses matplotlib, when it is asked to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from recur.errors import RecurError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recur.explain.explanation import Explanation

COLUMNS = 5


def draw(explanation: Explanation, language: str | None = None) -> Figure:
    """The picture once for each word of the sentence in `language` (the first one when None), lit by its attention.

    Errors: RecurError without matplotlib, and for a language that is not in the explanation.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise RecurError('a figure needs matplotlib; install it with: pip install "recur[train]"') from None
    sentences = {each["language"]: each for each in explanation.data["sentences"]}
    name = next(iter(sentences)) if language is None else language
    if name not in sentences:
        raise RecurError(f"no sentence in {name!r}; expected one of {', '.join(sentences)}; choose one of them")
    words: list[dict[str, Any]] = sentences[name]["words"]
    pixels = explanation.pixels
    rows = math.ceil((len(words) + 1) / COLUMNS)
    tall = pixels.shape[0] / pixels.shape[1]
    figure = Figure(figsize=(2.2 * COLUMNS, (2.2 * tall + 0.45) * rows), layout="constrained")
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
