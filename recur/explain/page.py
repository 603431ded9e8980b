"""The caption page: one HTML file that shows, for each word, where the captioner looked and what else it considered.

The page is self-contained: the picture is a JPEG data URI, styles and script are inside the file and named by their
SHA-256 in a strict content security policy, and nothing is fetched from anywhere. Beside the pictures it stays far
below 200 KB. Everything the script shows on hover is also there as a plain table, for readers without script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recur.files import write_atomically

LONGEST_SIDE = 640
RUNNERS_UP = 5
END_WORD = "<end>"  # as `recur.predict.caption` names the end of the sentence among the alternatives of a word


class WordLike(Protocol):
    """One word of a caption, as `recur.predict.caption.Word` has it."""

    @property
    def word(self) -> str: ...
    @property
    def log_prob(self) -> float: ...
    @property
    def alternatives(self) -> Sequence[tuple[str, float]]: ...
    @property
    def region(self) -> Sequence[float] | None: ...
    @property
    def attention(self) -> NDArray[Any] | None: ...


class CaptionLike(Protocol):
    """One caption of a picture, as `recur.predict.caption.Caption` has it."""

    @property
    def caption(self) -> str | None: ...
    @property
    def language(self) -> str: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def words(self) -> Sequence[WordLike]: ...
    @property
    def n_best(self) -> Sequence[tuple[str, float]]: ...
    @property
    def model(self) -> str: ...


@dataclass(frozen=True)
class PagePicture:
    """One picture of the page.

    `pixels` is uint8 [Y, X, 3], any size; `width` and `height` are those of the whole picture, the frame in which the
    regions of the words are given. `captions` holds one caption a language, in the order in which they are shown.
    """

    name: str
    pixels: NDArray[np.uint8]
    width: int
    height: int
    captions: tuple[CaptionLike, ...]
    notes: tuple[str, ...] = ()


TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "What the captioner saw",
        "hint": "Point at a word, tap it, or use Tab and the arrow keys, to see where the captioner looked. "
        "Escape shows the plain picture.",
        "confidence": "confidence",
        "not_sure": "not sure",
        "others": "Other captions it considered",
        "every": "Every word in a table",
        "word": "Word",
        "probability": "Probability",
        "runners": "Runners-up",
        "where": "Where",
        "end": "(end of sentence)",
        "looked": "looked at",
        "log_prob": "The numbers are log-probabilities.",
        "made": "Written by recur with the model",
        "offline": "This page is complete: it loads nothing from a network.",
        "places": "top left|top|top right|left|middle|right|bottom left|bottom|bottom right",
        "whole": "the whole picture",
    },
    "zh": {
        "title": "模型看到了什么",
        "hint": "指向、点按一个词，或用 Tab 键和方向键，就能看到模型当时注视的位置。按 Esc 显示原图。",
        "confidence": "置信度",
        "not_sure": "不确定",
        "others": "其他候选描述",
        "every": "逐词列表",
        "word": "词",
        "probability": "概率",
        "runners": "其他候选词",
        "where": "位置",
        "end": "（句末）",
        "looked": "注视",
        "log_prob": "数字为对数概率。",
        "made": "由 recur 生成，模型：",
        "offline": "本页面完整独立，不访问网络。",
        "places": "左上|上方|右上|左侧|中间|右侧|左下|下方|右下",
        "whole": "整幅图片",
    },
}


def write_page(path: str | Path, pictures: Sequence[PagePicture]) -> Path:
    """Write the page of `pictures` to `path`, whole or not at all, and return its path. Raises OSError."""
    target = Path(path)
    write_atomically(target, render_page(pictures).encode("utf-8", "backslashreplace"))
    return target


def render_page(pictures: Sequence[PagePicture]) -> str:
    """The page as one string of HTML."""
    languages = [caption.language for picture in pictures for caption in picture.captions]
    # The page's own words are Chinese only when every caption is: a mixed page is read by people who can read both.
    chrome = "zh" if languages and all(language.startswith("zh") for language in languages) else "en"
    texts = TEXTS[chrome]
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = texts["title"] if len(pictures) != 1 else f"{PurePath(pictures[0].name).name} · {texts['title']}"
    models = dict.fromkeys(caption.model for picture in pictures for caption in picture.captions)
    articles = "\n".join(_article(picture, number, texts) for number, picture in enumerate(pictures, start=1))
    return f"""<!doctype html>
<html lang="{chrome}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{texts["title"]}</h1><p class="hint">{texts["hint"]}</p></header>
<main>
{articles}
</main>
<footer><p>{texts["made"]} {_text(", ".join(models))} · {texts["offline"]}</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _article(picture: PagePicture, number: int, texts: dict[str, str]) -> str:
    """One picture with its captions; the data of its words goes to the script as JSON, which no browser executes."""
    uri, width, height = _jpeg(picture.pixels)
    words = [word for caption in picture.captions if caption.caption is not None for word in caption.words]
    data = [_word_data(word, picture, texts) for word in words]
    spoken = next((caption.caption for caption in picture.captions if caption.caption is not None), None)
    sentences, start = [], 0
    for caption in picture.captions:
        sentences.append(_sentence(caption, start, texts, number))
        start += len(caption.words) if caption.caption is not None else 0
    notes = "".join(f'<p class="note">{_text(note)}</p>' for note in picture.notes)
    name = PurePath(picture.name).name or picture.name
    return f"""<article id="picture-{number}" aria-labelledby="name-{number}">
<figure>
<div class="frame"><img src="{uri}" width="{width}" height="{height}" alt="{_text(spoken or texts["not_sure"])}">
<canvas width="{width}" height="{height}" aria-hidden="true"></canvas>
<div class="region" aria-hidden="true" hidden></div></div>
<figcaption id="name-{number}">{_text(name)} <span>{picture.width} × {picture.height}</span></figcaption>
{notes}
</figure>
<div class="reading">
{"".join(sentences)}
<section class="panel" id="panel-{number}" aria-live="polite" data-looked="{texts["looked"]}"></section>
{_others(picture.captions, texts)}
{_table(picture.captions, data, texts)}
</div>
<script type="application/json" class="words">{_json(data)}</script>
</article>"""


def _sentence(caption: CaptionLike, start: int, texts: dict[str, str], number: int) -> str:
    """The sentence as a row of buttons, one a word; `start` is the number of its first word within the picture."""
    language = _text(caption.language)
    if caption.caption is None:
        body = f'<p class="sentence unsure">{texts["not_sure"]}</p>'
    else:
        # Written without spaces, as Chinese is, when the sentence is no longer than its words.
        tight = " tight" if len(caption.caption) <= sum(len(word.word) for word in caption.words) else ""
        buttons = []
        for offset, word in enumerate(caption.words):
            level = min(4, int(math.exp(min(0.0, word.log_prob)) * 5))
            buttons.append(
                f'<button type="button" class="word p{level}" data-word="{start + offset}" aria-pressed="false" '
                f'aria-controls="panel-{number}">{_text(word.word)}</button>'
            )
        separator = "" if tight else " "
        body = f'<p class="sentence{tight}" lang="{language}">{separator.join(buttons)}</p>'
    meter = ""
    if caption.confidence is not None:
        percent = round(100 * caption.confidence)
        meter = (
            f'<span class="confidence">{texts["confidence"]} <b>{percent} %</b></span>'
            f'<svg class="gauge" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="4"/><rect class="fill" width="{percent}" height="4"/></svg>'
        )
    facts = f'<p class="facts"><span class="language">{language}</span>{meter}</p>'
    return f'<section class="caption">{facts}{body}</section>\n'


def _others(captions: Sequence[CaptionLike], texts: dict[str, str]) -> str:
    """The hypotheses after the first, of every language that has any."""
    lists = []
    for caption in captions:
        if caption.caption is None or len(caption.n_best) < 2:
            continue
        others = [(text, score) for text, score in caption.n_best if text != caption.caption]
        items = "".join(f"<li>{_text(text)} <small>{score:.2f}</small></li>" for text, score in others)
        lists.append(f'<ol start="2" lang="{_text(caption.language)}">{items}</ol>')
    if not lists:
        return ""
    unit = f'<p class="unit">{texts["log_prob"]}</p>'
    return f"<details><summary>{texts['others']}</summary>{''.join(lists)}{unit}</details>"


def _table(captions: Sequence[CaptionLike], data: Sequence[dict[str, Any]], texts: dict[str, str]) -> str:
    """What the script shows word by word, as a table that needs no script."""
    if not data:
        return ""
    languages = [
        caption.language for caption in captions if caption.caption is not None for _ in range(len(caption.words))
    ]
    rows = []
    for word, language in zip(data, languages, strict=True):
        runners = ", ".join(f"{_text(name)} {_percent(p)}" for name, p in word["bars"] if name != word["word"])
        rows.append(
            f'<tr><th scope="row" lang="{_text(language)}">{_text(word["word"])}</th><td>{_percent(word["p"])}</td>'
            f'<td lang="{_text(language)}">{runners}</td><td>{_text(word["where"])}</td></tr>'
        )
    head = "".join(f'<th scope="col">{texts[key]}</th>' for key in ("word", "probability", "runners", "where"))
    return (
        f'<details><summary>{texts["every"]}</summary><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _word_data(word: WordLike, picture: PagePicture, texts: dict[str, str]) -> dict[str, Any]:
    """What the script needs of one word: probabilities in 0..1, its box in shares of the picture, attention in rows."""
    probability = math.exp(min(0.0, word.log_prob))
    others = [pair for pair in word.alternatives if pair[0] != word.word]
    shown = [(word.word, probability), *sorted(others, key=lambda pair: -pair[1])[:RUNNERS_UP]]
    bars = [[texts["end"] if name == END_WORD else name, round(p, 4)] for name, p in shown]
    box = None
    if word.region is not None:
        x0, y0, x1, y1 = word.region
        box = [round(v, 4) for v in (x0 / picture.width, y0 / picture.height, x1 / picture.width, y1 / picture.height)]
    grid: list[list[float]] = []
    if word.attention is not None and word.attention.ndim == 2:
        grid = [[round(float(value), 4) for value in row] for row in word.attention]
    return {
        "word": word.word,
        "p": round(probability, 4),
        "bars": bars,
        "box": box,
        "where": _where(box, texts),
        "grid": grid,
    }


def _where(box: Sequence[float] | None, texts: dict[str, str]) -> str:
    """The place of a box in words: the third of the picture in which its middle lies, or the whole when it is large."""
    if box is None or (box[2] - box[0]) * (box[3] - box[1]) > 0.6:
        return texts["whole"]
    column, row = (min(2, int(3 * (box[side] + box[side + 2]) / 2)) for side in (0, 1))
    return texts["places"].split("|")[3 * row + column]


def _jpeg(pixels: NDArray[np.uint8]) -> tuple[str, int, int]:
    """The picture as a data URI, its longer side at most `LONGEST_SIDE`; with its width and height in pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True, progressive=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), image.width, image.height


def _percent(value: float) -> str:
    return f"{100 * value:.0f}\N{NO-BREAK SPACE}%" if value >= 0.01 else "<\N{NO-BREAK SPACE}1\N{NO-BREAK SPACE}%"


def _text(value: str) -> str:
    """Escaped for HTML; control characters of odd file names become visible."""
    return html.escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value))


def _json(value: object) -> str:
    """JSON that cannot end its script element: every `<` is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _asset(name: str) -> str:
    return resources.files("recur.explain").joinpath(name).read_text(encoding="utf-8")
