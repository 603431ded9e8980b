"""The offline page: one HTML file that shows, for each word, where the captioner looked and what else it considered.

The page is self-contained: pictures are JPEG data URIs, styles and scripts are inside the file and named by their
SHA-256 in a strict content security policy, and nothing is fetched from anywhere. The scripts are the modules that the
service's page is made of, joined. Sentences and a table of the words are there without script, too.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recur.files import write_atomically

if TYPE_CHECKING:
    from recur.explain.explanation import Explanation

END_WORD = "<end>"  # as `recur.predict.caption` names the end of the sentence among the alternatives of a word
# Each one imports from those before it only: joined in this order they are one module.
SCRIPTS = ("texts.js", "draw.js", "tree.js", "inside.js", "view.js")
# What draws the texts and videos of the other tasks, here and in the service.
TASK_SCRIPTS = ("chars.js", "feel.js", "film.js", "span.js", "tongue.js")

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What the captioner saw",
        "not_sure": "not sure",
        "word": "Word",
        "probability": "Probability",
        "runners": "Runners-up",
        "end": "(end of sentence)",
        "made": "Written by recur with the model",
        "offline": "This page is complete: it loads nothing from a network.",
    },
    "zh": {
        "title": "模型看到了什么",
        "not_sure": "不确定",
        "word": "词",
        "probability": "概率",
        "runners": "其他候选词",
        "end": "（句末）",
        "made": "由 recur 生成，模型：",
        "offline": "本页面完整独立，不访问网络。",
    },
}


def write_page(path: str | Path, pictures: Sequence[Explanation]) -> Path:
    """Write the page of `pictures` to `path`, whole or not at all, and return its path. Raises OSError."""
    target = Path(path)
    write_atomically(target, render_page(pictures).encode("utf-8", "backslashreplace"))
    return target


def render_page(pictures: Sequence[Explanation]) -> str:
    """The page as one string of HTML."""
    every = [picture.data for picture in pictures]
    languages = [sentence["language"] for data in every for sentence in data["sentences"]]
    # The page's own words are Chinese only when every caption is: a mixed page is read by people who can read both.
    chrome = "zh" if languages and all(language.startswith("zh") for language in languages) else "en"
    texts = TEXTS[chrome]
    names = [PurePath(data["picture"]["name"] or "").name for data in every]
    title = f"{names[0]} · {texts['title']}" if len(names) == 1 and names[0] else texts["title"]
    models = ", ".join(dict.fromkeys(data["model"] for data in every))
    articles = "\n".join(_article(picture, number, texts) for number, picture in enumerate(pictures, start=1))
    made = f"{texts['made']} {escaped(models)} · {texts['offline']}"
    return whole_page(chrome, title, texts["title"], articles, made, joined((*SCRIPTS, "offline.js")))


def whole_page(language: str, title: str, heading: str, articles: str, made: str, script: str) -> str:
    """An HTML page that fetches nothing: `articles` and `made` are HTML, `title` and `heading` plain text."""
    style = asset("page.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escaped(heading)}</h1><p class="hint"></p></header>
<main>
{articles}
</main>
<footer><p>{made}</p></footer>
<script type="module">{script}</script>
</body>
</html>
"""


def framed(page: str, *, height: int = 640) -> str:
    """A page for a notebook, in a frame of its own: its script can reach nothing of the notebook."""
    held = html.escape(page)
    return f'<iframe srcdoc="{held}" sandbox="allow-scripts" width="100%" height="{height}" style="border:0"></iframe>'


def asset(name: str) -> str:
    """The text of a file of the page."""
    return resources.files("recur.explain").joinpath("web", name).read_text(encoding="utf-8")


def joined(names: Sequence[str]) -> str:
    """Modules as one, which imports nothing."""
    return "\n".join(re.sub(r"^import .* from .*;\n", "", asset(name), flags=re.M) for name in names)


def _article(picture: Explanation, number: int, texts: dict[str, str]) -> str:
    """One picture with its captions; what the script shows goes to it as JSON, which no browser executes."""
    data = picture.data
    uri, width, height = _jpeg(picture.pixels)
    spoken = next((each["caption"] for each in data["sentences"] if each["caption"] is not None), None)
    about = data["picture"]
    name = PurePath(about["name"] or "").name or about["name"] or ""
    alt = escaped(spoken or texts["not_sure"])
    notes = "".join(f'<p class="note">{escaped(note)}</p>' for note in about["notes"])
    sentences = "".join(_sentence(sentence, texts) for sentence in data["sentences"])
    return f"""<article id="picture-{number}" aria-labelledby="name-{number}">
<figure>
<div class="frame"><img src="{uri}" width="{width}" height="{height}" alt="{alt}"></div>
<figcaption id="name-{number}">{escaped(name)} <span>{about["width"]} × {about["height"]}</span></figcaption>
{notes}
</figure>
<div class="reading">
{sentences}</div>
<script type="application/json" class="explanation">{quiet_json(data)}</script>
</article>"""


def _sentence(sentence: dict[str, Any], texts: dict[str, str]) -> str:
    """A sentence with its words in a table: what a reader without script sees."""
    language = escaped(sentence["language"])
    if sentence["caption"] is None:
        return f'<p class="sentence unsure">{texts["not_sure"]}</p>\n'
    rows = []
    for word in sentence["words"]:
        runners = ", ".join(
            f"{escaped(texts['end'] if each['word'] == END_WORD else each['word'])} {_percent(each['probability'])}"
            for each in word["runners_up"]
        )
        rows.append(
            f'<tr><th scope="row" lang="{language}">{escaped(word["word"])}</th>'
            f"<td>{_percent(word['probability'])}</td>"
            f'<td lang="{language}">{runners}</td></tr>'
        )
    columns = "".join(f'<th scope="col">{texts[name]}</th>' for name in ("word", "probability", "runners"))
    return (
        f'<p class="sentence" lang="{language}">{escaped(sentence["caption"])}</p>\n'
        f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>\n'
    )


def _jpeg(pixels: NDArray[np.uint8]) -> tuple[str, int, int]:
    """A picture as a data URI, with its width and height in pixels."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True, progressive=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), image.width, image.height


def _percent(value: float) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%" if value >= 0.01 else "<\N{NO-BREAK SPACE}1\N{NO-BREAK SPACE}%"


def escaped(value: str) -> str:
    """Escaped for HTML; control characters of odd file names become visible."""
    return html.escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value))


def quiet_json(value: object) -> str:
    """JSON that cannot end its script element: every `<` is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
