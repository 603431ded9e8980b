"""The offline page: complete in itself, closed to the outside, safe with hostile text, readable without script."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import recur
from recur.data.images import read_picture
from recur.explain.explanation import Explanation, explain, from_captions
from recur.explain.page import SCRIPTS, asset, joined, render_page, write_page


def word(text: str, probability: float = 0.5, **changes: Any) -> dict[str, Any]:
    return {"word": text, "probability": probability, "runners_up": [], "region": None, "attention": None, **changes}


def sentence(text: str, language: str = "en", **changes: Any) -> dict[str, Any]:
    words = [word(each) for each in text.split()]
    return {
        "language": language, "caption": text, "confidence": 0.71, "n_best": [[text, -1.0]], "log_prob": -1.0,
        "words": words, "end": None, **changes,
    }  # fmt: skip


def picture(*sentences: dict[str, Any], name: str = "photo.jpg", height: int = 300, width: int = 640) -> Explanation:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 200
    about = {"name": name, "width": width, "height": height, "grid": [7, 7], "notes": []}
    return Explanation({"picture": about, "model": "captioner", "sentences": list(sentences), "objects": []}, pixels)


class Reader(HTMLParser):
    """Collects elements, their attributes and the text inside each kind of element."""

    VOID = frozenset({"meta", "img", "link", "br"})

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

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def carried(text: str) -> list[dict[str, Any]]:
    """The explanations that a page hands to its script."""
    return [json.loads(each) for each in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)]


def test_page_is_well_formed_and_has_every_sentence_without_script() -> None:
    page = Reader(render_page([picture(sentence("a dog runs"), sentence("一 只 狗", "zh"))]))
    assert page.open == []
    languages = [a["lang"] for tag, a in page.elements if tag == "p" and "lang" in a]
    assert languages == ["en", "zh"]
    words = ["a", "dog", "runs", "一", "只", "狗"]
    assert [text for text in page.texts["th"] if text in words] == words


def test_nothing_is_fetched_and_the_policy_names_the_pages_own_code() -> None:
    text = render_page([picture(sentence("a dog"))])
    page = Reader(text)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for element, opening in (("style", "<style>"), ("script", '<script type="module">')):
        (own,) = re.findall(rf"{opening}(.*?)</{element}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.elements:
        assert "style" not in attributes, f"<{tag}> has a style attribute, which the policy forbids"
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:")
    code = re.sub(r"data:image/jpeg;base64,[^\"]*|sha256-[^']*|http://www\.w3\.org/2000/svg", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(", code)


def test_joined_modules_import_nothing_and_name_nothing_twice() -> None:
    code = joined((*SCRIPTS, "offline.js"))
    assert not re.search(r"^import\b", code, re.M)
    named = re.findall(r"^(?:export )?(?:async )?(?:function|const|let) (\w+)", code, re.M)
    assert len(named) == len(set(named))
    for place, name in enumerate(SCRIPTS):
        for source in re.findall(r'^import .* from "\./(.*)";$', asset(name), re.M):
            assert source in SCRIPTS[:place], f"{name} imports {source}, which comes after it"


def test_hostile_words_and_names_stay_text() -> None:
    nasty = "</script><img src=x onerror=alert(1)>&\"'"
    words = [word(nasty, runners_up=[{"word": nasty + "2", "probability": 0.3}])]
    told = sentence(nasty, words=words, n_best=[[nasty, -1.0], [nasty + "3", -2.0]])
    text = render_page([picture(told, name=f"dir/{nasty}\n\udcff")])
    page = Reader(text)
    assert [tag for tag, _ in page.elements].count("img") == 1
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert nasty in page.texts["th"]
    assert page.open == []
    assert carried(text)[0]["sentences"][0]["words"][0]["word"] == nasty


def test_the_table_says_the_runners_up_without_script() -> None:
    told = sentence("dog", words=[word("dog", 0.6, runners_up=[{"word": "cat", "probability": 0.25}])])
    assert "cat 25\N{NO-BREAK SPACE}%" in render_page([picture(told)])


def test_not_sure_shows_no_words() -> None:
    unsure = sentence("", caption=None, words=[], n_best=[])
    text = render_page([picture(unsure, sentence("一 只 狗", "zh"))])
    assert "not sure" in Reader(text).texts["p"]
    assert len(carried(text)[0]["sentences"]) == 2


def test_picture_is_reduced_and_the_page_of_one_picture_stays_small(tiny_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    coarse.resize((3000, 2000), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg")
    text = render_page([explain(recur.load(tiny_bundle, threads=1), tmp_path / "a.jpg")])
    image = next(a for tag, a in Reader(text).elements if tag == "img")
    opened = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert (opened.width, opened.height) == (640, 427) == (int(image["width"]), int(image["height"]))
    assert len(text.encode()) - len(image["src"]) < 2_000_000


def test_small_and_odd_pictures() -> None:
    for height, width in ((1, 1), (1, 900), (900, 1)):
        assert Reader(render_page([picture(sentence("a dog"), height=height, width=width)])).open == []


def test_chinese_page_speaks_chinese() -> None:
    text = render_page([picture(sentence("一 只 狗", "zh"))])
    assert '<html lang="zh">' in text
    assert '<html lang="en">' in render_page([picture(sentence("一 只 狗", "zh"), sentence("a dog"))])


def test_captions_that_are_there_already_make_a_page(tiny_bundle: Path, photos: list[Path]) -> None:
    captioner = recur.load(tiny_bundle, threads=1)
    (caption,) = captioner(photos[:1], n_best=2)
    told = from_captions([caption], read_picture(photos[0]))
    (data,) = carried(render_page([told]))
    (one,) = data["sentences"]
    assert one["caption"] == caption.caption
    assert [each["word"] for each in one["words"]] == [each.word for each in caption.words]
    assert one["words"][0]["region"] == list(caption.words[0].region)
    assert np.allclose(one["words"][0]["attention"], caption.words[0].attention, atol=6e-4)
    assert (data["picture"]["width"], data["picture"]["height"]) == (caption.width, caption.height)
    own = explain(captioner, photos[0], languages=["en"], n_best=2, detail=False).data["sentences"][0]
    assert [each["runners_up"] for each in own["words"]] == [each["runners_up"] for each in one["words"]]


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a page 一.html"
    target.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_page(target, [picture(sentence("x", confidence=float("nan")))])
    assert target.read_text() == "old"
    assert write_page(target, [picture(sentence("a dog"))]) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_an_explanation_shows_itself_in_a_notebook_in_a_frame_that_reaches_nothing() -> None:
    told = picture(sentence("a dog"))
    frame = Reader(told._repr_html_())
    ((tag, attributes),) = frame.elements
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == render_page([told])
