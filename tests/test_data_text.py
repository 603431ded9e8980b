"""Tokens, joining them again, and the vocabulary."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recur.data.text import END, PAD, UNK, Vocabulary, base_language, detokenize, normalise, tokenize
from recur.errors import RecurError

LANGUAGES = st.sampled_from(["en", "zh", "fr", "tr", "th", "hi"])
# Mostly characters that mean something to the tokenizer, so that random text meets the rules.
MIXED = st.text(
    st.one_of(st.sampled_from("a s n't'’-.,:&3 0中々ガーำกिकéİIı\u200c\u0301ǅ"), st.characters()), max_size=20
)


@pytest.mark.parametrize(
    ("text", "lang", "tokens"),
    [
        ("A man's 3 T-shirts!", "en", ["a", "man", "'s", "3", "t-shirts"]),
        ("a man 's hat .", "en", ["a", "man", "'s", "hat"]),
        ("They don’t, shouldn't've", "en", ["they", "do", "n't", "should", "n't", "'ve"]),
        ("rock 'n' roll at five o'clock", "en", ["rock", "n", "roll", "at", "five", "o'clock"]),
        ("two dogs' toys -- \"red\" & 'blue'", "en", ["two", "dogs", "toys", "red", "and", "blue"]),
        ("1,000 dogs, 3.5 cats at 10:30. 1,2", "en", ["1,000", "dogs", "3.5", "cats", "at", "10:30", "1", "2"]),
        ("\uff28ello\u3000W\u00adorld\ufeff \U0001f600", "en", ["hello", "world"]),
        ("两个人，在12楼穿着T恤。", "zh", ["两", "个", "人", "在", "12", "楼", "穿", "着", "t", "恤"]),
        ("两个 人", "en", ["两", "个", "人"]),
        ("ｶﾞコーヒー", "ja", ["ガ", "コ", "ー", "ヒ", "ー"]),
        ("น้ำ", "th", ["น้", "ำ"]),
        ("एक घोड़े", "hi", ["एक", "घोड\u093cे"]),
        ("L’homme d'aujourd'hui", "fr", ["l'", "homme", "d'", "aujourd'", "hui"]),
        ("Straße über Ä", "de", ["straße", "über", "ä"]),
        ("IŞIK İZMİR", "tr", ["ışık", "izmir"]),
        ("두 사람", "ko", ["두", "사람"]),
        ("رجل، وامرأة؟", "ar", ["رجل", "وامرأة"]),
        ("", "en", []),
        (" .!? ", "zh", []),
    ],
)
def test_tokenize(text: str, lang: str, tokens: list[str]) -> None:
    assert tokenize(text, lang) == tokens


@pytest.mark.parametrize(
    ("tokens", "lang", "text"),
    [
        (["a", "man", "'s", "hat"], "en", "a man's hat"),
        (["it", "does", "n't"], "en", "it doesn't"),
        (["'s", "hat"], "en", "'s hat"),
        (["两", "个", "人"], "zh", "两个人"),
        (["穿", "t", "恤", "abc", "shirt", "的", "12"], "zh", "穿t恤abc shirt的12"),
        (["l'", "homme"], "fr", "l'homme"),
        (["", "a", ""], "en", "a"),
        ([], "en", ""),
    ],
)
def test_detokenize(tokens: list[str], lang: str, text: str) -> None:
    assert detokenize(tokens, lang) == text


@pytest.mark.parametrize(
    ("text", "lang", "clean"),
    [
        ("  A\tman’s\n “hat” & coat. ", "en", 'A man\'s "hat" and coat.'),
        ("两个 人 在\u3000跑。", "zh", "两个人在跑。"),
        ("穿 T恤 的 人", "zh", "穿 T恤的人"),
        ("a\x00b\ud800c", "en", "abc"),
        ("น้ำ", "th", "น้ำ"),
        ("A & B", "de", "A & B"),
    ],
)
def test_normalise(text: str, lang: str, clean: str) -> None:
    assert normalise(text, lang) == clean


def test_base_language() -> None:
    assert [base_language(lang) for lang in ("zh-CN", "zh_Hans", "EN")] == ["zh", "zh", "en"]


@settings(max_examples=300, deadline=None)
@given(MIXED, LANGUAGES)
def test_tokens_survive_joining(text: str, lang: str) -> None:
    tokens = tokenize(text, lang)
    assert tokenize(detokenize(tokens, lang), lang) == tokens
    assert all(token and not any(char.isspace() for char in token) for token in tokens)


@settings(max_examples=200, deadline=None)
@given(MIXED, LANGUAGES)
def test_normalise_twice_is_once(text: str, lang: str) -> None:
    clean = normalise(text, lang)
    assert normalise(clean, lang) == clean
    assert clean == clean.strip()
    assert "\n" not in clean


def small() -> Vocabulary:
    return Vocabulary.build(
        {"en": [["a", "dog", "a"], ["a", "cat", "1"]], "zh": [["狗", "1"], ["狗", "a"]]}, min_count={"en": 1, "zh": 1}
    )


def test_vocabulary_order_and_languages() -> None:
    vocabulary = small()
    assert vocabulary.tokens == ("<pad>", "<end>", "<unk>", "<en>", "<zh>", "cat", "dog", "a", "1", "狗")
    assert vocabulary.counts == (1, 1, 4, 2, 2)
    assert (PAD, END, UNK) == (0, 1, 2)
    assert vocabulary.language_id("zh") == 4
    assert len(vocabulary) == 10
    assert "dog" in vocabulary
    assert np.flatnonzero(vocabulary.allowed("en")).tolist() == [1, 5, 6, 7, 8]
    assert np.flatnonzero(vocabulary.allowed("zh")).tolist() == [1, 7, 8, 9]
    assert not vocabulary.allowed("zh").flags.writeable
    with pytest.raises(RecurError, match="'de' is not in this model; expected one of en, zh"):
        vocabulary.language_id("de")


def test_vocabulary_min_count_is_per_language() -> None:
    captions = {"en": [["a", "a", "b"]], "zh": [["a", "狗"]]}
    assert Vocabulary.build(captions, 2).tokens[5:] == ("a",)
    assert np.flatnonzero(Vocabulary.build(captions, 2).allowed("zh")).tolist() == [END]
    assert Vocabulary.build(captions, {"en": 2, "zh": 1}).tokens[5:] == ("a", "狗")
    with pytest.raises(RecurError, match="smaller min_count"):
        Vocabulary.build(captions, 9)


def test_encode_and_decode() -> None:
    vocabulary = small()
    assert vocabulary.encode(["dog", "zebra", "狗"]) == [6, UNK, 9]
    assert vocabulary.decode([3, PAD, 6, UNK, 7, END, 8]) == ["dog", "<unk>", "a"]
    assert vocabulary.decode(np.array([6, 7])) == ["dog", "a"]
    with pytest.raises(RecurError, match="id 10"):
        vocabulary.decode([10])


WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["en", "zh", "pt-BR"]), st.lists(WORDS, max_size=4), min_size=1))
@example({"en": [["<en>", "<pad>", "x"]]})
def test_vocabulary_round_trip(captions: dict[str, list[list[str]]]) -> None:
    try:
        vocabulary = Vocabulary.build(captions, 1)
    except RecurError:
        assert not any(
            word not in ("<en>", "<pad>") for lists in captions.values() for words in lists for word in words
        )
        return
    again = Vocabulary.from_bytes(vocabulary.to_bytes())
    assert again == vocabulary
    assert again.tokens == vocabulary.tokens
    assert again.counts == vocabulary.counts
    for lang, lists in captions.items():
        assert np.array_equal(again.allowed(lang), vocabulary.allowed(lang))
        for words in lists:
            kept = [word for word in words if word not in ("<en>", "<pad>")]
            assert again.decode(again.encode(kept)) == kept
            assert again.allowed(lang)[again.encode(kept)].all()


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    vocabulary = small()
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    assert vocabulary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    meta = json.loads(path.read_text("utf-8"))
    assert meta["allowed"] == {"en": [[5, 9]], "zh": [[7, 10]]}
    assert meta["version"] == 1
    assert meta["languages"] == ["en", "zh"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "newer than 1"),
        ({"version": "1"}, "version '1'"),
        ({"version": True}, "version True"),
        ({"tokens": "abc"}, "'tokens' is not a list of str"),
        ({"tokens": ["<pad>", "<end>"]}, "tokens begin"),
        ({"tokens": ["<pad>", "<end>", "<unk>", "<en>", "<zh>", "x", "x", "a", "1", "狗"]}, "'x' appears twice"),
        ({"tokens": ["<pad>", "<end>", "<unk>", "<en>", "<zh>", "", "b", "a", "1", "狗"]}, "empty word"),
        ({"languages": ["zh", "en"]}, "tokens begin"),
        ({"counts": [1]}, "1 counts for 5 words"),
        ({"counts": [1, 1, 1, 1, -1]}, "below zero"),
        ({"counts": [1.5, 1, 1, 1, 1]}, "'counts' is not a list of int"),
        ({"allowed": {"en": [[5, 9]]}}, "'allowed' does not have"),
        ({"allowed": {"en": [[5, 9]], "zh": [[7, 11]]}}, "runs up to 10"),
        ({"allowed": {"en": [[5, 9]], "zh": [[7, 9], [5, 6]]}}, "ascending"),
        ({"allowed": {"en": [[5, 9]], "zh": [[0, 9]]}}, "expected word ids 5..9"),
        ({"allowed": {"en": [[5, 9]], "zh": [7]}}, "expected a run"),
        ({"allowed": {"en": [[5, 9]], "zh": None}}, "not a list of"),
    ],
)
def test_broken_tokenizer_is_refused(change: dict[str, Any], message: str) -> None:
    meta = json.loads(small().to_bytes())
    with pytest.raises(RecurError, match="x.json: .*" + message.replace("[", r"\[")):
        Vocabulary.from_bytes(json.dumps({**meta, **change}).encode(), source="x.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{", "broken JSON"), (b"[]", "expected an object"), (b"\xff", "not UTF-8"), (b"[" * 99_999, "broken")],
)
def test_not_json_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(RecurError, match=message):
        Vocabulary.from_bytes(data)


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecurError, match="cannot be read"):
        Vocabulary.load(tmp_path / "tokenizer.json")
