"""BLEU, ROUGE-L and CIDEr-D: expected numbers, pycocoevalcap itself, the published values."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recur.metrics.caption import CiderD, bleu, cider_d, rouge_l

# Odd on purpose: no word, one word, other scripts, a word said again and again, equal and differing lengths.
REFERENCES = [
    ["a dog runs on the grass", "the brown dog is running", "dog"],
    ["two children play with a red ball in the park", "kids play"],
    ["一 只 狗 在 草 地 上 奔 跑", "一 只 棕 色 的 狗"],
    ["", "a man"],
    ["the the the the", "the cat"],
    ["", ""],
    ["naïve café Москва ﬁ ß", "a café"],
]
CANDIDATES = [
    "a dog runs on grass",
    "kids play with a ball",
    "一 只 狗 在 跑",
    "",
    "the the the the the the the",
    "",
    "café",
]

# What pycocoevalcap says of these.
BLEU = [0.869565217353, 0.761386987589, 0.661800313091, 0.543032146627]
BLEU_1_EACH = [0.9999999996, 0.9999999998, 0.81873075275, 0.0, 0.571428571347, 0.0, 0.367879440436]
ROUGE = 0.854300966237
ROUGE_EACH = [1.0, 0.907063197026, 0.679287305122, 1.0, 0.764890282132, 1.0, 0.628865979381]
CIDER = 1.6426531454
CIDER_EACH = [2.696443141687, 2.266938056743, 2.953504359763, 0.0, 1.94932085161, 0.0, 1.632365607996]


def split(texts: list[Any]) -> list[Any]:
    return [text.split() if isinstance(text, str) else split(text) for text in texts]


def made_up(seed: int, pictures: int = 40) -> tuple[list[list[str]], list[str]]:
    """Captions of few words, so that runs repeat within and between pictures, with all lengths from 0."""
    source = random.Random(seed)
    words = ["a", "dog", "on", "the", "éclair", "狗", "'s", "-lrb-"]

    def caption() -> str:
        return " ".join(source.choices(words, k=source.choice((0, 1, 2, 3, 5, 8, 13))))

    return [[caption() for _ in range(source.randint(1, 5))] for _ in range(pictures)], [
        caption() for _ in range(pictures)
    ]


def by_pycocoevalcap(name: str, references: list[list[str]], candidates: list[str]) -> tuple[Any, Any]:
    module = pytest.importorskip(f"pycocoevalcap.{name.lower()}.{name.lower()}")
    scorer = module.Bleu(4) if name == "Bleu" else getattr(module, name)()
    with contextlib.redirect_stdout(io.StringIO()):
        corpus, each = scorer.compute_score(dict(enumerate(references)), {n: [c] for n, c in enumerate(candidates)})
    return corpus, np.asarray(each)


SETS = [(REFERENCES, CANDIDATES), *(made_up(seed) for seed in range(6)), ([["a b", "c"]], ["a b"]), ([["", "a"]], [""])]


@pytest.mark.parametrize(("references", "candidates"), SETS)
@pytest.mark.parametrize(("name", "score"), [("Rouge", rouge_l), ("Cider", cider_d), ("Bleu", bleu)])
def test_equals_pycocoevalcap(name: str, score: Any, references: list[list[str]], candidates: list[str]) -> None:
    corpus, each = by_pycocoevalcap(name, references, candidates)
    ours, ours_each = score(split(references), split(candidates))
    np.testing.assert_allclose(ours, corpus, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours_each, each.T, rtol=0, atol=1e-9)


def test_expected_numbers() -> None:
    """The same as above, written down, for where pycocoevalcap is not installed."""
    references, candidates = split(REFERENCES), split(CANDIDATES)
    orders, each = bleu(references, candidates)
    assert orders == pytest.approx(BLEU, abs=1e-9)
    assert each.shape == (7, 4)
    assert each[:, 0] == pytest.approx(BLEU_1_EACH, abs=1e-9)
    score, each = rouge_l(references, candidates)
    assert score == pytest.approx(ROUGE, abs=1e-9)
    assert each == pytest.approx(ROUGE_EACH, abs=1e-9)
    score, each = cider_d(references, candidates)
    assert score == pytest.approx(CIDER, abs=1e-9)
    assert each == pytest.approx(CIDER_EACH, abs=1e-9)


def test_by_hand() -> None:
    """Two pictures without a common word: every run weighs log 2, so each cosine is a count over square roots."""
    references = split([["a b c d e"], ["v w x y z"]])
    score, each = cider_d(references, split(["a b c d e", "v w x"]))
    assert each[0] == pytest.approx(10.0)
    cosines = math.sqrt(3 / 5) + math.sqrt(2 / 4) + math.sqrt(1 / 3)  # three, two, one and no common runs
    assert each[1] == pytest.approx(10 / 4 * cosines * math.exp(-4 / 72))
    assert score == pytest.approx(each.mean())
    (one, two, _, _), _ = bleu(split([["a b c d", "a b"]]), split(["a b a"]))  # clipped; the reference of 2 is closest
    assert (one, two) == (pytest.approx(2 / 3), pytest.approx(math.sqrt(2 / 3 * 1 / 2)))
    score, _ = rouge_l(split([["a x b"]]), split(["a b"]))  # precision 1, recall 2/3
    assert score == pytest.approx(2.44 * (2 / 3) / (2 / 3 + 1.44))


def test_scorer_takes_ids_and_any_order_of_pictures() -> None:
    references, candidates = split(REFERENCES), split(CANDIDATES)
    texts = [*candidates, *(caption for captions in references for caption in captions)]
    words = sorted({word for text in texts for word in text})
    number = {word: place for place, word in enumerate(words)}
    scorer = CiderD([[[number[w] for w in caption] for caption in captions] for captions in references])
    assert len(scorer) == 7
    ids = [[number[w] for w in caption] for caption in candidates]
    _, expected = cider_d(references, candidates)
    order = [4, 0, 0, 2, 1, 6, 5, 3, 4]
    found = scorer.score([ids[place] for place in order], order)
    assert found.dtype == np.float64
    assert found == pytest.approx(expected[order], abs=1e-12)
    assert scorer.score([], []).shape == (0,)


def test_end_as_a_token_rewards_stopping_in_the_right_place() -> None:
    references = [[["a", "dog", "runs", 1]], [["a", "cat", "sits", 1]], [["two", "men", "talk", 1]]]
    complete, cut, longer = CiderD(references).score(
        [["a", "dog", "runs", 1], ["a", "dog", "runs"], ["a", "dog", "runs", "a", 1]], [0, 0, 0]
    )
    assert complete > cut
    assert complete > longer


@pytest.mark.parametrize("score", [bleu, rouge_l, cider_d])
def test_refuses_what_cannot_be_scored(score: Any) -> None:
    with pytest.raises(ValueError, match="one candidate each"):
        score([[["a"]]], [["a"], ["b"]])
    with pytest.raises(ValueError, match="no pictures"):
        score([], [])
    with pytest.raises(ValueError, match="picture 1 has no reference"):
        score([[["a"]], []], [["a"], ["a"]])
    with pytest.raises(ValueError, match="one picture each"):
        CiderD([[["a"]]]).score([["a"]], [0, 0])


@pytest.mark.data
def test_published_values() -> None:
    """1,000 COCO pictures, tokenized; the values come with the data."""
    folder = Path(os.environ.get("RECUR_DATA", "")) / "metrics"
    if "RECUR_DATA" not in os.environ or not (folder / "gts.json.xz").is_file():
        pytest.skip("RECUR_DATA does not name a folder with metrics/gts.json.xz")
    with lzma.open(folder / "gts.json.xz", "rt") as first, lzma.open(folder / "res.json.xz", "rt") as second:
        known, given = json.load(first), json.load(second)
    references, candidates = split([known[key] for key in known]), split([given[key][0] for key in known])
    orders, _ = bleu(references, candidates)
    published = (0.5793995754573356, 0.40439129741018104, 0.2785363856619147, 0.1908290437674253)
    assert orders == pytest.approx(published, abs=1e-9)
    assert rouge_l(references, candidates)[0] == pytest.approx(0.39625269357570847, abs=1e-9)
    assert cider_d(references, candidates)[0] == pytest.approx(0.5997905185184199, abs=1e-9)
