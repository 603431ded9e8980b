"""The caption page: complete in itself, closed to the outside, safe with hostile text, readable without script."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from recur.explain.page import PagePicture, render_page, write_page


@dataclass(frozen=True)
class Word:
    word: str
    log_prob: float
    alternatives: tuple[tuple[str, float], ...] = ()
    region: tuple[float, float, float, float] | None = None
    attention: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Caption:
    caption: str | None
    language: str
    confidence: float | None
    words: tuple[Word, ...]
    n_best: tuple[tuple[str, float], ...] = ()
    model: str = "captioner"


def picture(*captions: Caption, name: str = "photo.jpg", height: int = 300, width: int = 900) -> PagePicture:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 200
    return PagePicture(name, pixels, width, height, captions)


def sentence(text: str, language: str = "en", **changes: object) -> Caption:
    words = tuple(Word(each, math.log(0.5)) for each in text.split())
    return Caption(text, language, 0.71, words, **changes)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects elements, their attributes and the text inside each kind of element."""

    VOID = frozenset({"meta", "img", "link", "rect", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def test_page_is_well_formed_and_names_every_word() -> None:
    page = Reader(render_page([picture(sentence("a dog runs"), sentence("一 只 狗", "zh"))]))
    assert page.open == []
    assert page.texts["button"] == ["a", "dog", "runs", "一", "只", "狗"]
    buttons = [attributes for tag, attributes in page.elements if tag == "button"]
    assert [each["data-word"] for each in buttons] == ["0", "1", "2", "3", "4", "5"]
    assert {each["type"] for each in buttons} == {"button"}
    languages = [a["lang"] for tag, a in page.elements if tag == "p" and "lang" in a]
    assert languages == ["en", "zh"]


def test_nothing_is_fetched_and_the_policy_names_the_pages_own_code() -> None:
    text = render_page([picture(sentence("a dog"))])
    page = Reader(text)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for element in ("style", "script"):
        (own,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert "style" not in attributes, f"<{tag}> has a style attribute, which the policy forbids"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")
    code = re.sub(r"data:image/jpeg;base64,[^\"]*|sha256-[^']*|http://www\.w3\.org/2000/svg", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", code)


def test_hostile_words_and_names_stay_text() -> None:
    nasty = "</script><img src=x onerror=alert(1)>&\"'"
    word = Word(nasty, -0.1, ((nasty + "2", 0.3),))
    caption = Caption(nasty, "en", 0.5, (word,), ((nasty, -1.0), (nasty + "3", -2.0)), nasty)
    page = Reader(render_page([picture(caption, name=f"dir/{nasty}\n\udcff")]))
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert page.texts["button"] == [nasty]
    assert page.open == []


def test_words_carry_probability_runners_up_and_region() -> None:
    grid = np.full((7, 7), 0.01, np.float32)
    grid[6, 0] = 0.52
    word = Word("dog", math.log(0.6), (("dog", 0.6), ("cat", 0.25), ("ball", 0.05)), (0.0, 200.0, 300.0, 300.0), grid)
    text = render_page([picture(Caption("dog", "en", 0.4, (word,)))])
    found = re.search(r'<script type="application/json" class="words">(.*?)</script>', text, re.S)
    assert found is not None
    (data,) = json.loads(found[1])
    assert data["bars"] == [["dog", 0.6], ["cat", 0.25], ["ball", 0.05]]
    assert data["box"] == pytest.approx([0, 2 / 3, 1 / 3, 1], abs=1e-4)
    assert data["where"] == "bottom left"
    assert data["grid"][6][0] == pytest.approx(0.52)
    assert len(data["grid"]) == len(data["grid"][0]) == 7
    assert "cat 25\N{NO-BREAK SPACE}%" in text  # the table says it without script


def test_not_sure_shows_no_words() -> None:
    unsure = Caption(None, "en", 0.1, (Word("dog", -1.0),), (("a dog", -1.0), ("a cat", -2.0)))
    text = render_page([picture(unsure, sentence("一 只 狗", "zh"))])
    page = Reader(text)
    assert page.texts["button"] == ["一", "只", "狗"]
    assert "not sure" in text
    assert "a cat" not in text


def test_picture_is_reduced_and_page_stays_small() -> None:
    captions = (sentence("a dog runs " * 6, n_best=(("x", -1.0),) * 5),) * 2
    page = Reader(render_page([picture(*captions, height=2000, width=3000)]))
    image = next(a for tag, a in page.elements if tag == "img")
    opened = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert (opened.width, opened.height) == (640, 427) == (int(image["width"]), int(image["height"]))
    text = render_page([picture(*captions, height=2000, width=3000)])
    assert len(text) - len(image["src"]) < 200_000


def test_small_and_odd_pictures() -> None:
    for height, width in ((1, 1), (1, 900), (900, 1)):
        assert Reader(render_page([picture(sentence("a dog"), height=height, width=width)])).open == []


def test_chinese_page_speaks_chinese() -> None:
    text = render_page([picture(sentence("一 只 狗", "zh"))])
    assert '<html lang="zh">' in text
    assert "置信度" in text
    assert '<html lang="en">' in render_page([picture(sentence("一 只 狗", "zh"), sentence("a dog"))])


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a page 一.html"
    target.write_text("old")
    broken = PagePicture("x", np.zeros((2, 2, 3), np.uint8), 2, 2, (Caption("x", "en", float("nan"), ()),))
    with pytest.raises(ValueError, match="NaN"):
        write_page(target, [broken])
    assert target.read_text() == "old"
    assert write_page(target, [picture(sentence("a dog"))]) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
