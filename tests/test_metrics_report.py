"""The report on captions: what it scores on, what it counts, and that METEOR is never made up."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from recur.metrics import captions_report
from recur.metrics.caption import bleu, cider_d, rouge_l
from recur.metrics.captions_report import evaluate_captions, is_unfinished

REFERENCES = [["A dog's ball, red.", "The dog runs!"], ["Two men talk.", "Men can't sit."], ["A cat.", "The cat sits."]]
CANDIDATES = ["A dog runs with a", "two men talk", "Two men talk."]
TOKENS = [
    [["a", "dog", "'s", "ball", "red"], ["the", "dog", "runs"]],
    [["two", "men", "talk"], ["men", "ca", "n't", "sit"]],
    [["a", "cat"], ["the", "cat", "sits"]],
]


def test_english() -> None:
    report = evaluate_captions(REFERENCES, CANDIDATES, "en-GB")
    words = [["a", "dog", "runs", "with", "a"], ["two", "men", "talk"], ["two", "men", "talk"]]
    orders, _ = bleu(TOKENS, words)
    assert [report[f"bleu{order}"] for order in range(1, 5)] == list(orders)
    assert report["rouge_l"] == rouge_l(TOKENS, words)[0]
    assert report["cider_d"] == cider_d(TOKENS, words)[0]
    assert (report["tokens"], report["pictures"], report["language"]) == ("ptb", 3, "en-GB")
    assert (report["distinct"], report["vocabulary"]) == (2, 7)
    assert report["mean_length"] == pytest.approx(11 / 3)
    assert report["unfinished"] == pytest.approx(1 / 3)
    assert (report["empty"], report["meteor"]) == (0, None)
    assert "words" not in report


def test_chinese_is_scored_on_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)  # as if it were not installed
    report = evaluate_captions([["一只狗。", "狗在跑"], ["两个男人", "男人"]], ["一只狗在", ""], "zh")
    references = [[list("一只狗"), list("狗在跑")], [list("两个男人"), list("男人")]]
    assert report["tokens"] == "characters"
    assert report["cider_d"] == cider_d(references, [list("一只狗在"), []])[0]
    assert (report["unfinished"], report["empty"]) == (1.0, 0.5)
    assert "words" not in report


def test_chinese_words_with_jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    jieba: Any = ModuleType("jieba")
    jieba.setLogLevel = lambda level: None
    jieba.lcut = lambda text: [text[:2], text[2:]] if len(text) > 2 else [text]
    monkeypatch.setitem(sys.modules, "jieba", jieba)
    report = evaluate_captions([["一只狗"], ["两个男人"]], ["一只狗", "两个人"], "zh")
    assert report["words"]["tokens"] == "jieba"
    assert report["words"]["bleu1"] == pytest.approx(
        bleu([[["一只", "狗"]], [["两个", "男人"]]], [["一只", "狗"], ["两个", "人"]])[0][0]
    )
    assert report["words"]["bleu1"] != report["bleu1"]


@pytest.mark.parametrize(
    ("caption", "lang", "expected"),
    [
        ("a man with a", "en", True),
        ("a man looks ON", "en", True),
        ("a man", "en", False),
        ("", "en", True),
        ("男 人 和", "zh", True),
        ("穿红衣服 的", "zh-CN", True),
        ("男人", "zh", False),
        ("", "zh", True),
        ("un homme avec un", "fr", False),  # no list for it
    ],
)
def test_unfinished(caption: str, lang: str, expected: bool) -> None:
    assert is_unfinished(caption.split(), lang) is expected


def test_no_break_spaces_inside_tokens() -> None:
    """The tokenizer keeps `1 1/2` together; BLEU and CIDEr count it as two words, as in COCO's code."""
    report = evaluate_captions([["1 1/2 dogs"], ["a cat"]], ["1 dogs", "a cat"], "en")
    assert report["bleu1"] == pytest.approx(
        bleu([[["1", "1/2", "dogs"]], [["a", "cat"]]], [["1", "dogs"], ["a", "cat"]])[0][0]
    )


def test_meteor_is_absent_without_java_or_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    def score() -> Any:
        return evaluate_captions(REFERENCES, CANDIDATES, "en", meteor=True)["meteor"]

    monkeypatch.setattr(captions_report.shutil, "which", lambda name: None)
    assert score() is None
    monkeypatch.setattr(captions_report.shutil, "which", lambda name: "/bin/" + name)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    assert score() is None

    class Meteor:
        def __init__(self) -> None:
            pipe = SimpleNamespace(close=lambda: None)
            self.meteor_p = SimpleNamespace(stdout=pipe, stderr=pipe)

        def compute_score(self, references: Any, candidates: Any) -> tuple[float, list[float]]:
            if self.broken:
                raise BrokenPipeError
            assert references[1] == ["two men talk", "men ca n't sit"]
            assert candidates[0] == ["a dog runs with a"]
            return 0.25, []

        broken = False

    module: Any = ModuleType("meteor")
    module.Meteor = Meteor
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", module)
    assert score() == 0.25
    assert evaluate_captions(REFERENCES, CANDIDATES, "de", meteor=True)["meteor"] is None  # made for English
    Meteor.broken = True
    assert score() is None


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one candidate each"):
        evaluate_captions(REFERENCES, CANDIDATES[:2], "en")
    with pytest.raises(ValueError, match="no pictures"):
        evaluate_captions([], [], "en")
