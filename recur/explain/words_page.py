"""The offline page of texts: one HTML file that shows why a model of texts said what it said.

It is made as the page of pictures is: complete in itself, under a content security policy that forbids every request,
drawn by the modules that the service's page draws with. Without script there is a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recur.explain.page import TASK_SCRIPTS, TEXTS, escaped, joined, quiet_json, whole_page
from recur.files import write_atomically

if TYPE_CHECKING:
    from recur.explain.texts import TextExplanation

TITLES: Final = {
    "generate": "What a character model makes of a text",
    "sentiment": "What made it sound so",
    "translate": "Which word came from which",
    "span": "What the answers rest on",
}
SIZE: Final = 2_000_000  # bytes of a page at most; texts that would make it larger are left out


def write_texts_page(path: str | Path, texts: Sequence[TextExplanation]) -> Path:
    """Write the page of `texts` to `path`, whole or not at all, and return its path. Raises OSError."""
    target = Path(path)
    write_atomically(target, render_texts_page(texts).encode("utf-8", "backslashreplace"))
    return target


def render_texts_page(texts: Sequence[TextExplanation]) -> str:
    """The page as one string of HTML. All `texts`, of which there is at least one, are of one task."""
    heading = TITLES[texts[0].data["task"]]
    models = ", ".join(dict.fromkeys(text.data["model"] for text in texts))
    articles = "\n".join(article(text.data, number) for number, text in enumerate(texts, 1))
    made = f"{TEXTS['en']['made']} {escaped(models)} · {TEXTS['en']['offline']}"
    script = joined(("texts.js", "draw.js", *TASK_SCRIPTS, "words.js"))
    return whole_page("en", f"{heading} · recur", heading, articles, made, script)


def article(data: dict[str, Any], number: int) -> str:
    """One text: what is drawn, the same as a table, and the numbers as JSON, which no browser executes."""
    return f"""<article class="words" id="text-{number}">
<div class="drawn"></div>
<details><summary>Table</summary>
<div class="scroll">{_TABLES[data["task"]](data)}</div>
</details>
<script type="application/json" class="explanation">{quiet_json(data)}</script>
</article>"""


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _reading(data: dict[str, Any]) -> str:
    rows = []
    for rule in data["follows"]:
        named = (f"layer {each['layer']}, unit {each['unit']}: {each['correlation']:.2f}" for each in rule["units"])
        rows.append([rule["rule"], ", ".join(named)])
    return f"<pre>{html_text(data['text'])}</pre>" + table(("Rule", "Units that follow it, by correlation"), rows)


def html_text(text: str) -> str:
    """A text of several lines, escaped line by line."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _sentiment(data: dict[str, Any]) -> str:
    pairs = zip(data["words"], data.get("running", ()), strict=False)
    rows = [[word, f"{weight:+.2f}", f"{p:.2f}"] for (word, weight), (_, p) in pairs]
    told = f"<p>{html_text(data['text'])}</p><p>{escaped(data['label'])} {data['probability']:.2f}</p>"
    return told + table(("Word", "Moves the log-odds by", "Probability after it"), rows)


def _translation(data: dict[str, Any]) -> str:
    rows = [[word, other, f"{share:.2f}"] for word, other, share in data["alignment"]]
    told = f"<p>{html_text(data['source'])}</p><p>{html_text(data['translation'])}</p>"
    return told + table(("Word", "Read from", "Share of attention"), rows)


def _span(data: dict[str, Any]) -> str:
    letters = data["passage"]
    tokens = [letters[start:end] for start, end in data["tokens"]]
    costs = [[tokens[at], f"{cost:+.2f}"] for at, cost in sorted(data["costs"], key=lambda each: -each[1])[:10]]
    asked = [[word, f"{cost:+.2f}"] for word, cost in zip(data["asked"], data["asked_costs"], strict=True)]
    ranked = [[data["answer"], data["probability"]], *data["others"]]
    rows = [[each[0] or "(no answer)", f"{each[1]:.2f}"] for each in ranked]
    told = f"<p>{html_text(data['passage'])}</p><p>{escaped(data['question'])}</p>"
    return (
        told
        + table(("Answer", "Probability"), rows)
        + table(("Word of the question", "The answer loses without it, in nats"), asked)
        + table(("Word of the passage", "The answer loses without it, in nats"), costs)
    )


_TABLES: Final = {"span": _span, "generate": _reading, "sentiment": _sentiment, "translate": _translation}
