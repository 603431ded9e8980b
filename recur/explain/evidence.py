"""Why it answered that: the sentences a story network points at, what its readings let in, and whether that can be
believed: without the sentence that it points at, the answer must become less likely than without another one.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recur.data.stories import Story
from recur.explain.page import asset
from recur.files import write_atomically
from recur.predict.answer import Answer, Reader

STYLE = """
.asked { margin: 0; font-weight: 650; font-size: 1rem; }
.answer { margin: 4px 0 14px; }
.answer small, td small { color: var(--soft); font-variant-numeric: tabular-nums; }
td:first-child { width: 50%; min-width: 11em; }
tr.named td:first-child { font-weight: 650; box-shadow: inset 3px 0 var(--mark); padding-left: 10px; }
svg { display: block; width: 84px; height: 8px; border-radius: 4px; margin: 6px 0 2px; }
"""


def faithfulness(reader: Reader, stories: Sequence[Story], *, of_each: int, seed: int = 1) -> dict[str, Any]:
    """On up to `of_each` questions of each task, with stories of two sentences or more: the mean fall of the answer's
    probability without the sentence that is pointed at most, and without one drawn from the others; the share of
    questions in which the first is more; and the share in which the sentence pointed at is one that the data name.
    """
    taken: dict[str, list[Story]] = {}
    for story in stories:
        some = taken.setdefault(story.task, [])
        if len(some) < of_each and len(story.sentences) > 1:
            some.append(story)
    random = np.random.default_rng(seed)
    named, others, right, told = [], [], 0, 0
    for some in taken.values():
        for story in some:
            sentences = story.sentences[-reader.sentences :]
            skipped = len(story.sentences) - len(sentences)
            whole = reader.read([sentences], [story.question])
            best = int(whole.answers[0].argmax())
            pointed = int(whole.support[:, 0].argmax())
            other = int(random.integers(len(sentences) - 1))
            other += other >= pointed
            less = [(*sentences[:at], *sentences[at + 1 :]) for at in (pointed, other)]
            without = reader.read(less, [story.question] * 2).answers[:, best]
            named.append(float(whole.answers[0, best] - without[0]))
            others.append(float(whole.answers[0, best] - without[1]))
            if story.support:
                told += 1
                right += pointed + skipped in story.support
    if not named:
        return {"questions": 0}
    more = np.mean([first > second for first, second in zip(named, others, strict=True)])
    return {
        "questions": len(named),
        "fall_without_named": round(float(np.mean(named)), 4),
        "fall_without_other": round(float(np.mean(others)), 4),
        "named_more": round(float(more), 4),
        "named_is_support": round(right / told, 4) if told else None,
    }


def write_page(path: Path, answers: Sequence[Answer]) -> None:
    """Write a page, complete in itself, of answers and the sentences behind them. Raises OSError."""
    style = asset("page.css") + STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    model = html.escape(answers[0].model) if answers else ""
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the answers rest on</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What the answers rest on</h1>
<p class="hint">For each sentence: how likely the answer rests on it, and how far the gates of each reading opened at
it. Marked are those that it rests on.</p>
</header>
<main>
{"".join(_section(each) for each in answers)}</main>
<footer><p>Written by recur with the model {model} · This page is complete: it loads nothing from a network.</p>
</footer>
</body>
</html>
"""
    write_atomically(path, page.encode("utf-8", "backslashreplace"))


def _section(answer: Answer) -> str:
    readings = range(1, len(answer.evidence[0].gates) + 1)
    head = "".join(f'<th scope="col">reading {number}</th>' for number in readings)
    rows = "".join(
        f"<tr{' class=named' if each.support >= 0.5 else ''}><td>{html.escape(each.sentence)}</td>"
        + "".join(_meter(value) for value in (each.support, *each.gates))
        + "</tr>\n"
        for each in answer.evidence
    )
    others = ", ".join(f"{html.escape(name)} {100 * p:.0f} %" for name, p in answer.others)
    return f"""<section class="card">
<h2 class="asked">{html.escape(answer.question)}</h2>
<p class="answer"><b class="verdict">{html.escape(answer.answer)}</b> {100 * answer.confidence:.0f} %
<small>then {others}</small></p>
<div class="scroll" tabindex="0"><table>
<thead><tr><th scope="col">sentence</th><th scope="col">rests on</th>{head}</tr></thead>
<tbody>
{rows}</tbody></table></div>
</section>
"""


def _meter(value: float) -> str:
    bar = f'<rect class="track" width="84" height="8"/><rect class="fill" width="{84 * value:.1f}" height="8"/>'
    return f'<td><svg viewBox="0 0 84 8" aria-hidden="true">{bar}</svg><small>{value:.2f}</small></td>'
