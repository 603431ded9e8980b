"""The second opinion on captions: how it is learned, that it decides, and what a bundle refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CHANNELS, write_tiny_bundle

import recur
from recur.bundle import BundleError, read_bundle, write_bundle
from recur.engine.hypotheses import Hypothesis
from recur.predict.consensus import Consensus, phrases, pooled, shares

ROWS = {(5,): 0, (6,): 1, (5, 6): 2}
RARITY = (1.0, 2.0, 3.0)


def with_opinion(path: Path, *, settings: Any = None, phrases: Any = (7, -1, 5, 6), **changes: Any) -> Path:
    """A tiny bundle that likes the English word 7 in every picture, and the pair 5 6 a little."""
    plain = read_bundle(write_tiny_bundle(path))
    rows = len(phrases) // 2
    tensors = {
        "consensus.en.phrases": np.array(phrases, np.float32),
        "consensus.en.weight": np.zeros((rows, 2 * CHANNELS), np.float32),
        "consensus.en.bias": np.array([5.0, 0.5], np.float32)[:rows],
        "consensus.en.rarity": np.ones(rows, np.float32),
    }
    tensors |= changes.pop("tensors", {})
    decode = {
        **plain.meta["decode"],
        "consensus": {"en": {"rare": 1.0, "log_prob": 0.0, **(settings or {})}},
        **changes,
    }
    meta = {**plain.meta, "decode": decode}
    weights = {**plain.weights, **tensors}
    return write_bundle(
        path, meta, weights, tokenizer=plain.tokenizer, encoder=plain.encoder, card="", quantize=plain.stored
    )


def test_phrases_and_their_shares() -> None:
    assert list(phrases([5, 6, 7])) == [(5,), (6,), (7,), (5, 6), (6, 7)]
    assert list(phrases([])) == []
    # Words 5 5 6 9: weights 2 * 1, 1 * 2 and 1 * 4 (of a word without a row); pairs 5 5, 5 6 and 6 9: 4, 3 and 4.
    found = shares([5, 5, 6, 9], ROWS, RARITY, 4.0)
    assert found == pytest.approx({0: 2 / math.sqrt(24), 1: 2 / math.sqrt(24), 2: 3 / math.sqrt(41)})
    assert shares([], ROWS, RARITY, 4.0) == {}
    assert shares([5], {(5,): 0}, (0.0,), 1.0) == {}, "said of every picture: it says nothing"


def test_scores_are_what_the_model_foresees() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 3)).astype(np.float32)
    weight = random.normal(size=(3, 6)).astype(np.float32)
    opinion = Consensus(ROWS, weight, np.array([0.1, 0.2, 0.3], np.float32), RARITY, 4.0, 0.5)
    like = Hypothesis(
        np.array([5, 6]), np.zeros(2), 0.0, -3.0, 0.0, np.zeros((2, 0)), np.zeros((2, 0)), np.zeros(3), None
    )
    none = replace(like, tokens=np.array([9]), log_prob=-1.0)
    expected = weight @ np.concatenate([features.mean(0), features.max(0)]) + opinion.bias
    first = expected[0] / math.sqrt(5) + 2 * expected[1] / math.sqrt(5) + expected[2] + 0.5 * -3.0 / 3
    assert opinion.scores(features[None], [[like, none]])[0] == pytest.approx([first, 0.5 * -1.0 / 2], rel=1e-5)
    assert pooled(features[None]).shape == (1, 6)
    # What both say on average: the shares of each, halved; and so much for each word.
    more = replace(opinion, others=0.4, length=-0.1)
    norm = (1 + 4) / 5 + 1  # of the first one's shares, which are 1 / sqrt(5), 2 / sqrt(5) and 1
    assert more.scores(features[None], [[like, none]])[0] == pytest.approx(
        [first + 0.4 * norm / 2 - 0.2, 0.5 * -1.0 / 2 - 0.1], rel=1e-5
    )
    both = [each.agreement(features[None], [[like, none]])[0] for each in (more, opinion)]
    assert both[0] == pytest.approx(both[1])


def test_all_sentences_at_once_are_told_as_one_by_one() -> None:
    random = np.random.default_rng(3)
    known = [
        *{(int(a),) for a in random.integers(0, 9, 6)},
        *{tuple(map(int, p)) for p in random.integers(0, 9, (20, 2))},
    ]
    rarity = (0.0, *random.uniform(0, 5, len(known) - 1).tolist())
    opinion = Consensus(
        {phrase: row for row, phrase in enumerate(known)},
        random.normal(size=(len(known), 6)).astype(np.float32),
        random.normal(size=len(known)).astype(np.float32),
        rarity,
        4.0,
        0.5,
    )
    sentences = [random.integers(0, 9, n) for n in (0, 1, 2, 5, 12, 1, 0)]
    which, row, share = opinion._told(sentences)
    for number, words in enumerate(sentences):
        told = dict(zip(row[which == number].tolist(), share[which == number].tolist(), strict=True))
        assert told == pytest.approx(shares(words.tolist(), opinion.rows, rarity, 4.0))
    assert [part.size for part in opinion._told([np.zeros(0, np.int64)])] == [0, 0, 0]
    assert opinion.scores(np.zeros((0, 4, 3), np.float32), []) == []


def test_it_decides_in_its_language(tmp_path: Path, photos: list[Path]) -> None:
    without = recur.load(write_tiny_bundle(tmp_path / "a"), threads=1)
    liking = recur.load(with_opinion(tmp_path / "b"), threads=1)
    word = without.bundle.vocabulary().tokens[7]
    changed = 0
    for plain, chosen in zip(without(photos, beam=8, n_best=8), liking(photos, beam=8, n_best=8), strict=True):
        assert {text for text, _ in plain.n_best} == {text for text, _ in chosen.n_best}
        having = [word in text.split() for text, _ in plain.n_best]
        assert (word in (chosen.caption or "").split()) == any(having)
        changed += any(having) and not having[0]
    assert changed, "no caption was decided by the second opinion: this test shows nothing"
    for plain, chosen in zip(without(photos, lang="zh"), liking(photos, lang="zh"), strict=True):
        assert plain.caption == chosen.caption


def test_the_reference_decides_alike(tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECUR_PRECISION", "float32")
    path = with_opinion(tmp_path / "b")
    fast = [caption.caption for caption in recur.load(path, threads=1)(photos)]
    monkeypatch.setattr("recur.predict.voice.core.chosen", lambda _: (None, "for the test"))
    assert [caption.caption for caption in recur.load(path, threads=1)(photos)] == fast


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"consensus": {"fr": {"rare": 1.0, "log_prob": 0.0}}}, "languages of the model"),
        ({"consensus": []}, "languages of the model"),
        ({"tensors": {"consensus.en.bias": np.zeros(3, np.float32)}}, "expected"),
        ({"tensors": {"consensus.en.weight": np.zeros((2, 3), np.float32)}}, "expected"),
        ({"tensors": {"consensus.zh.bias": np.zeros(2, np.float32)}}, "does not have"),
        ({"phrases": (7, -1, 5, 10**6)}, "that tokenizer.json has not"),
        ({"phrases": (7, -2, 5, 6)}, "that tokenizer.json has not"),
    ],
)
def test_opinions_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        with_opinion(tmp_path / "b", **changes)


@pytest.mark.parametrize("wrong", [-1.0, "much", None])
@pytest.mark.parametrize("name", ["log_prob", "others"])
def test_senseless_settings_are_refused(tmp_path: Path, photos: list[Path], name: str, wrong: Any) -> None:
    path = with_opinion(tmp_path / "b", settings={name: wrong})
    with pytest.raises(BundleError, match="make no sense"):
        recur.load(path, threads=1)(photos[:1])


def test_rounded_weights_foresee_as_much_on_average() -> None:
    """The weights of features that hardly vary are large, and those of the others are rounded coarsely beside them."""
    pytest.importorskip("torch")
    from recur.train.consensus import ridge

    random = np.random.default_rng(0)
    x = (random.normal(size=(200, 8)) * [0.01, 1, 1, 1, 1, 1, 1, 1] + 5).astype(np.float32)
    y = (x[:, :3] * [50, 1, 1] + random.normal(size=(200, 3))).astype(np.float32)
    exact, bias = ridge(x, y)
    rounded, shifted = ridge(x, y, "int8")
    assert np.abs(rounded - exact).max() > 0.01, "a test of nothing"
    assert np.abs((x @ exact.T + bias).mean(0) - y.mean(0)).max() < 1e-3
    assert np.abs((x @ rounded.T + shifted).mean(0) - y.mean(0)).max() < 1e-3
    assert np.abs((x @ rounded.T + bias).mean(0) - y.mean(0)).max() > 0.01
