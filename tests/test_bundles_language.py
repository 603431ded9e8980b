"""The language models that come with recur are small, and foresee their kind of text as their cards say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import recur
from recur.data.characters import dev_begins, read_text
from recur.hub import EMBEDDED
from recur.predict.language import LanguageModel

SENTENCES = {
    "shakespeare": "To be, or not to be: that is the question:\nWhether 'tis nobler in the mind to suffer",
    "warandpeace": "The old prince did not reply, and Natasha looked at him with a smile on her face.",
}
TEXTS = {"shakespeare": "text/tinyshakespeare.txt", "warandpeace": "text/warpeace.txt.xz"}


@pytest.mark.parametrize("name", SENTENCES)
def test_it_is_small_and_knows_english(name: str) -> None:
    size = sum(file.stat().st_size for file in (EMBEDDED / name).iterdir())
    assert size <= 4_000_000
    model = recur.load(name)
    assert isinstance(model, LanguageModel)
    sentence = SENTENCES[name]
    found = model.evaluate(sentence)
    assert found["nats"] < 2.0
    assert found["unknown"] == 0
    backwards = model.evaluate(sentence[::-1])
    assert backwards["nats"] > found["nats"] + 1
    assert f"{model.meta['results']['dev']['nats']:.4f}" in (EMBEDDED / name / "CARD.md").read_text(encoding="utf-8")


@pytest.mark.data
@pytest.mark.parametrize("name", TEXTS)
def test_it_scores_what_its_card_says(name: str) -> None:
    folder = os.environ.get("RECUR_DATA")
    if not folder:
        pytest.skip("RECUR_DATA does not name the folder with the texts")
    text, _ = read_text(Path(folder) / TEXTS[name])
    model = recur.load(name)
    found = model.evaluate(text[dev_begins(len(text)) :])
    assert found["nats"] == pytest.approx(model.meta["results"]["dev"]["nats"], abs=1e-3)
