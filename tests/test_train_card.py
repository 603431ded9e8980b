"""The card says what the bundle says, and says so when the bundle does not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers import tiny_meta

pytest.importorskip("torch")

from recur.train.card import render_card


def report(**changes: Any) -> dict[str, Any]:
    scores = {"bleu1": 0.5793, "bleu2": 0.4, "bleu3": 0.3, "bleu4": 0.1908, "rouge_l": 0.396, "cider_d": 0.5998}
    signs = {"distinct": 512, "mean_length": 10.26, "vocabulary": 301, "unfinished": 0.0123, "empty": 0.0}
    return {"tokens": "ptb", "pictures": 1000, "meteor": None, **scores, **signs, **changes}


def full_meta() -> dict[str, Any]:
    entry = {
        "features": ["margin"],
        "weights": [1.0],
        "bias": 0.0,
        "criterion": "sentence CIDEr-D of at least 0.412 | against the human captions",
        "acceptable": 0.5,
        "ece": 0.0214,
        "brier": 0.2,
        "measured": "5-fold cross-validation on 1000 dev pictures",
        "risk_coverage": [[0.1, 0.125], [1.0, 0.5]],
    }
    log = [
        {"phase": "decoder", "epoch": 1, "loss": 4.0, "en": 20.0, "en_distinct": 90.0},
        {"phase": "decoder", "epoch": 2, "loss": 3.0, "en": 31.5, "en_distinct": 90.0, "zh": 80.0, "zh_distinct": 9.0},
        {"phase": "cider", "epoch": 1, "loss": -0.5, "en": 44.4, "en_distinct": 90.0},
    ]
    training = {
        "seed": 7,
        "data": "ab" * 32,
        "pictures": 6000,
        "encoder": "embedded",
        "finetune_encoder": True,
        "command": "recur train caption --data photos --out my.bundle",
        "log": log,
    }
    words = {"tokens": "jieba", "bleu1": 0.1, "cider_d": 0.7}
    return tiny_meta(
        version="0.1.0",
        created="2026-01-02",
        decode={"beam": 5, "length_penalty": {"en": 0.4, "zh": 0.8}, "max_length": {"en": 24, "zh": 32}},
        training=training,
        calibration={"en": entry, "zh": {**entry, "risk_coverage": [[0.1, 0.2], [1.0, 0.6]]}},
        results={"dev": {"en": report(), "zh": report(tokens="characters", meteor=0.2, words=words)}},
    )


def rows_of(card: str, first: str) -> list[list[str]]:
    """The rows of all tables whose first cell is `first`."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in card.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines if line[0].strip() == first]


def test_a_full_card() -> None:
    card = render_card(full_meta())
    assert card.startswith("# tiny\n\nWrites one sentence in English and Chinese about a photograph.")
    assert "an LSTM looks at the part of the picture" in card
    assert "Made on 2026-01-02 with recur 0.1.0." in card
    assert "recur caption photo.jpg --model tiny --lang en" in card
    assert "recur train caption --data photos --out my.bundle" in card
    assert f"`{'ab' * 32}`" in card
    assert "Seed 7." in card
    assert rows_of(card, "search") == [
        [
            "search",
            "beam of 5, length penalty 0.4 (en), 0.8 (zh), at most 24 (en), 32 (zh) words (characters in Chinese)",
        ]
    ]
    assert rows_of(card, "layers x hidden units") == [["layers x hidden units", "2 x 8"]]
    english = rows_of(card, "English")
    assert english[0] == [
        "English",
        "Penn Treebank words",
        "57.9",
        "40.0",
        "30.0",
        "19.1",
        "not stated",
        "39.6",
        "60.0",
    ]
    assert english[1] == ["English", "1000", "512", "301", "10.3", "1.2 %", "0.0 %"]
    assert english[2][2:] == ["50.0 %", "0.021", "0.200", "5-fold cross-validation on 1000 dev pictures"]
    assert [row[1] for row in rows_of(card, "Chinese")][:2] == ["characters", "words cut by jieba"]
    assert rows_of(card, "10 %") == [["10 %", "12.5 %", "20.0 %"]]
    assert rows_of(card, "100 %") == [["100 %", "50.0 %", "60.0 %"]]
    phases = [line for line in card.splitlines() if "cross-entropy |" in line]
    assert [[cell.strip() for cell in line.split("|")[2:-1]] for line in phases] == [
        ["2", "4.00 to 3.00", "31.5", "80.0"],
        ["1", "-0.50 to -0.50", "44.4", "not stated"],
    ]


def test_every_table_is_whole() -> None:
    for meta in (full_meta(), tiny_meta()):
        widths: list[int] = []
        for line in [*render_card(meta).splitlines(), ""]:
            if line.startswith("|"):
                widths.append(len(re.findall(r"(?<!\\)\|", line)))
            else:
                assert len({*widths}) <= 1, line
                widths = []


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("results", "Nothing was measured."),
        ("calibration", "This model has no calibrated confidence"),
        ("training", "The command was not recorded."),
    ],
)
def test_what_is_missing_is_said(missing: str, said: str) -> None:
    meta = full_meta()
    assert said not in render_card(meta)
    del meta[missing]
    assert said in render_card(meta)
    assert said in render_card({})


def test_terms_are_named() -> None:
    meta = full_meta()
    assert "Terms: not stated when it was trained." in render_card(meta)
    meta["training"]["terms"] = "Flickr terms,\nresearch only"
    assert "- Terms: Flickr terms, research only\n" in render_card(meta)


def test_no_attention_and_other_cells() -> None:
    card = render_card({**full_meta(), "attention": 0, "cell": "gru", "languages": ["xx"]})
    assert "a GRU is shown the picture once" in card
    assert "Writes one sentence in xx about" in card
    assert rows_of(card, "attention units") == [["attention units", "no attention"]]
