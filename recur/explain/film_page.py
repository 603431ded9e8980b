"""The offline page of a video: its labels over time, and the frames that changed them. Nothing is fetched.

It is drawn by the module that the service's page draws with. Without script there are tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recur.explain.film import FilmExplanation
from recur.explain.page import TASK_SCRIPTS, TEXTS, escaped, joined, quiet_json, whole_page
from recur.explain.words_page import table
from recur.files import write_atomically


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
    script = joined(("texts.js", "draw.js", *TASK_SCRIPTS, "words.js"))
    return whole_page("en", f"{heading} · recur", heading, articles, made, script)


def _article(film: FilmExplanation) -> str:
    data = film.data
    left = data["changes_left_out"]
    note = f'<p class="note">{left} more changes are not explained.</p>' if left else ""
    return f"""<article class="words film">
<h2>{escaped(data["path"])}</h2>
<div class="drawn"></div>
<details><summary>Table</summary>
<div class="scroll">{table(("From", "To", "Label"), _segments(data))}</div>
<div class="scroll">{table(("Change", "To", "Probability", "Without", "Probability without"), _changes(data))}</div>
{note}</details>
<script type="application/json" class="explanation">{quiet_json(film.drawn())}</script>
</article>"""


def _segments(data: dict[str, Any]) -> list[list[str]]:
    labels, rows, first = data["labels"], [], 0
    for at in range(1, len(labels) + 1):
        if at == len(labels) or labels[at] != labels[first]:
            rows.append([_when(data, first), _when(data, at - 1), data["classes"][labels[first]]])
            first = at
    return rows


def _changes(data: dict[str, Any]) -> list[list[str]]:
    return [
        [
            _when(data, change["at"]),
            change["to"],
            f"{change['probability']:.2f}",
            _when(data, each["at"]),
            f"{each['without']:.2f}",
        ]
        for change in data["changes"]
        for each in change["named"]
    ]


def _when(data: dict[str, Any], at: int) -> str:
    seconds = data["seconds"][at]
    return f"frame {data['frames'][at]}" + ("" if seconds is None else f" ({seconds:.2f} s)")
