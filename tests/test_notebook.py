"""What results show of themselves in a notebook: all that matters, and what was typed stays text."""

from __future__ import annotations

import html
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recur.errors import InputError
from recur.predict.classify import Labels
from recur.predict.detect import Detected, Detections
from recur.predict.frames import FrameLabel
from recur.predict.language import Surprise
from recur.predict.sentiment import Sentiment
from recur.predict.translation import Translation

HOSTILE = '<img src=x onerror="1">&'
JUDGED = Sentiment(f"a bad {HOSTILE}", "neg", 0.913, "en", (("a", 0.1), ("bad", -5.0), (HOSTILE, 1.5)), "sentiment")
TRANSLATED = Translation(
    "A dog runs", "Ein Hund rennt", -1.0, (("ein", "A", 0.9), ("Hund", HOSTILE, 0.8), ("rennt", "runs", 0.7)),
    ("en", "de"), "en-de",
)  # fmt: skip
FOUND = Detections(
    None, (Detected("dog", 0.91, (10, 20, 60, 50)), Detected(HOSTILE, 0.5, (0, 0, 5, 5))), None, "detector", 100, 80
)
NAMED = Labels(None, (("forest", 0.75), (HOSTILE, 0.2)), None, "classifier")
FRAME = FrameLabel(None, 12, 0.4, HOSTILE, 0.93, "right")
READ = Surprise(f"q\n{HOSTILE}", np.array([math.nan, 0.0, *np.linspace(0.5, 9, len(HOSTILE))]))


class Shown(HTMLParser):
    """The text, and of every tag its name and attributes; all that is opened is closed."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(result._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "result", [JUDGED, TRANSLATED, FOUND, NAMED, FRAME, READ], ids=lambda each: type(each).__name__
)
def test_what_was_typed_stays_text(result: Any) -> None:
    shown = Shown(result)
    assert html.escape(HOSTILE, quote=True) in result._repr_html_() or HOSTILE in shown.text
    assert {tag for tag, _ in shown.tags} <= {"p", "b", "br", "i", "small", "span", "svg", "g", "rect", "title"}
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)


def test_words_of_a_judgement_are_coloured_by_what_they_weigh() -> None:
    shown = Shown(JUDGED)
    assert "neg" in shown.text
    assert "0.91" in shown.text
    told = {each["title"]: each["style"] or "" for tag, each in shown.tags if tag == "span"}
    assert list(told) == ["+0.10", "-5.00", "+1.50"]
    strength = [float(re.findall(r"[\d.]+", style)[-1]) for style in told.values()]
    assert strength[0] < strength[2] < strength[1]
    good, bad, other = (style.partition("(")[2].split(",")[0] for style in told.values())
    assert good == other != bad
    assert HOSTILE in Shown(Sentiment(HOSTILE, "pos", 0.6, "en", (), "sentiment")).text


def test_words_of_a_translation_tell_their_source() -> None:
    shown = Shown(TRANSLATED)
    assert shown.text == "A dog runsEin Hund rennt"
    titles = [each["title"] for tag, each in shown.tags if tag == "span" and "title" in each]
    assert titles == [f"{HOSTILE} 0.80", "runs 0.70"]  # "Ein" was written with a capital in the end


def test_boxes_are_drawn_where_they_are() -> None:
    shown = Shown(FOUND)
    boxes = [each for tag, each in shown.tags if tag == "rect"]
    assert len(boxes) == 3  # with the frame
    assert [boxes[1][name] for name in ("x", "y", "width", "height")] == ["10", "20", "50", "30"]
    assert "dog 0.91" in shown.text
    assert Shown(Detections(None, ())).text == "nothing found"


def test_labels_frames_and_characters() -> None:
    assert Shown(NAMED).text.startswith("forest 0.75, ")
    assert Shown(Labels(None, ())).text == "not sure"
    assert "frame 12, 0.40 s" in Shown(FRAME).text
    assert "frame 3:" in Shown(FrameLabel(None, 3, None, "left", 1.0, "right")).text
    shown = Shown(READ)
    assert shown.text == READ.text
    assert [each["title"] for tag, each in shown.tags if tag == "span"][-1] == "9.00 nats"


@pytest.mark.parametrize("kind", [Labels, Detections])
def test_a_picture_that_could_not_be_read_says_why(kind: Any, tmp_path: Path) -> None:
    problem = InputError(tmp_path / "<b>.jpg", "is empty", "send another")
    assert "is empty" in Shown(kind(str(tmp_path), (), problem)).text
