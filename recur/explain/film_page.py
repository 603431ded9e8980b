"""The offline page of a video: its labels over time, and the frames that changed them. Nothing is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from recur.explain.film import FilmExplanation
from recur.explain.page import TEXTS, asset, escaped, quiet_json, whole_page
from recur.explain.words_page import table
from recur.files import write_atomically

COLUMNS: Final = 400  # points of a curve at most
HEIGHT: Final = 120  # of the timeline, in its own units


def write_film_page(path: str | Path, films: Sequence[FilmExplanation]) -> Path:
    """Write the page to `path`, whole or not at all, and return its path. Raises OSError."""
    target = Path(path)
    write_atomically(target, render_film_page(films).encode("utf-8", "backslashreplace"))
    return target


def render_film_page(films: Sequence[FilmExplanation]) -> str:
    """The page as one string of HTML."""
    heading = "Which frames changed the label"
    articles = "\n".join(_article(film) for film in films)
    models = ", ".join(dict.fromkeys(film.data["model"] for film in films))
    made = f"{TEXTS['en']['made']} {escaped(models)} · {TEXTS['en']['offline']}"
    return whole_page("en", f"{heading} · recur", heading, articles, made, asset("film.js"))


def _article(film: FilmExplanation) -> str:
    data = film.data
    pictures = {at: _thumb(data, at, pixels) for at, pixels in film.thumbs.items()}
    changes = "".join(_change(data, change, pictures) for change in data["changes"])
    left = data["changes_left_out"]
    note = f'<p class="note">{left} more changes are not explained.</p>' if left else ""
    keys = "".join(
        f'<li><svg viewBox="0 0 9 9" aria-hidden="true"><rect width="9" height="9" fill="{_colour(data, n)}"/></svg>'
        f" {escaped(name)}</li>"
        for n, name in enumerate(data["classes"])
    )
    return f"""<article class="words film">
<h2>{escaped(data["path"])}</h2>
{_timeline(data)}
<ul class="keys">{keys}</ul>
<div class="drawn"></div>
<div class="strip">{"".join(pictures.values())}</div>
<h3>What changed the mind</h3>
{changes or "<p>The label never changes.</p>"}{note}
<details><summary>Table</summary><div class="scroll">{table(("From", "To", "Label"), _segments(data))}</div></details>
<script type="application/json" class="explanation">{quiet_json(data)}</script>
</article>"""


def _change(data: dict[str, Any], change: dict[str, Any], pictures: dict[int, str]) -> str:
    told = f"{_when(data, change['at'])}: {change['from']} → {change['to']} ({change['probability']:.2f})"
    rows = [
        [_when(data, each["at"]), f"{each['without']:.2f}", f"{each['without'] - change['probability']:+.2f}"]
        for each in change["named"]
    ]
    strip = "".join(pictures.get(each["at"], "") for each in change["named"])
    words = ("Without", f"Probability of {change['to']}", "Change")
    return (
        f'<section><h4>{escaped(told)}</h4><div class="strip">{strip}</div>'
        f'<div class="scroll">{table(words, rows)}</div></section>\n'
    )


def _timeline(data: dict[str, Any]) -> str:
    """The probabilities of all labels, one upon the other, and under them the label of every frame."""
    steps = len(data["labels"])
    if not steps:
        return "<p>No frames.</p>"
    places = np.unique(np.linspace(0, steps - 1, min(steps, COLUMNS)).round().astype(int))
    tops = np.cumsum(np.array(data["probabilities"])[places], 1).clip(0, 1)
    below = np.zeros(len(places))
    shapes = []
    for number in range(len(data["classes"])):
        upper = [f"{at + 0.5:g},{100 * (1 - y):.1f}" for at, y in zip(places, tops[:, number], strict=True)]
        lower = [f"{at + 0.5:g},{100 * (1 - y):.1f}" for at, y in zip(places, below, strict=True)]
        shapes.append(f'<polygon fill="{_colour(data, number)}" points="{" ".join(upper + lower[::-1])}"/>')
        below = tops[:, number]
    edges = [0, *(at for at in range(1, steps) if data["labels"][at] != data["labels"][at - 1]), steps]
    for first, last in pairwise(edges):
        fill = _colour(data, data["labels"][first])
        shapes.append(f'<rect x="{first}" y="104" width="{last - first}" height="16" fill="{fill}"/>')
    return (
        f'<svg class="timeline" viewBox="0 0 {steps} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Probabilities of the labels, and the label, of every frame">{"".join(shapes)}</svg>'
    )


def _segments(data: dict[str, Any]) -> list[list[str]]:
    labels, rows, first = data["labels"], [], 0
    for at in range(1, len(labels) + 1):
        if at == len(labels) or labels[at] != labels[first]:
            rows.append([_when(data, first), _when(data, at - 1), data["classes"][labels[first]]])
            first = at
    return rows


def _thumb(data: dict[str, Any], at: int, pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    told = escaped(f"{_when(data, at)}: {data['classes'][data['labels'][at]]}")
    return f'<button type="button" data-at="{at}" title="{told}"><img src="{uri}" alt="{told}"></button>'


def _when(data: dict[str, Any], at: int) -> str:
    seconds = data["seconds"][at]
    return f"frame {data['frames'][at]}" + ("" if seconds is None else f" ({seconds:.2f} s)")


def _colour(data: dict[str, Any], number: int) -> str:
    return f"hsl({round(360 * number / len(data['classes']) + 30)} 50% 55%)"
