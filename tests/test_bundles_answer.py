"""The models for questions that come with recur answer simple ones, and are as good as their cards say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import recur
from recur.data.stories import read_stories
from recur.hub import EMBEDDED
from recur.metrics.answers import story_scores
from recur.predict.answer import Reader


def test_it_is_small_and_follows_a_story() -> None:
    assert sum(file.stat().st_size for file in (EMBEDDED / "babi").iterdir()) <= 1_500_000
    reader = recur.load("babi")
    assert isinstance(reader, Reader)
    story = "Mary went to the kitchen. Mary got the football there. John went to the office. Mary moved to the garden."
    asked = {"Where is the football?": "garden", "Where is John?": "office", "Is John in the garden?": "no"}
    for question, answer in asked.items():
        found = reader(story, question)
        assert found.answer == answer
        assert found.confidence > 0.5
    evidence = reader(story, "Where is John?").evidence
    assert max(evidence, key=lambda each: each.support).sentence == "John went to the office."
    assert f"{reader.bundle.meta['results']['held out']['mean']:.4f}" in (EMBEDDED / "babi" / "CARD.md").read_text()


def test_the_reader_points_at_what_it_was_asked() -> None:
    assert sum(file.stat().st_size for file in (EMBEDDED / "reader").iterdir()) <= 2_500_000
    reader = recur.load("reader")
    passage = "The lighthouse was built in 1872 by Anna Meier, an engineer from Bremen. It is 31 metres high."
    asked = {"How high is it?": "31 metres", "When was it built?": "1872", "Who is the mayor of Paris?": None}
    for question, answer in asked.items():
        found = reader(passage, question)
        assert found.answer == answer
        assert answer is None or passage[found.start : found.end] == answer


@pytest.mark.data
def test_it_scores_what_its_card_says() -> None:
    folder = os.environ.get("RECUR_DATA")
    if not folder:
        pytest.skip("RECUR_DATA does not name the folder with the stories")
    stories, _ = read_stories(Path(folder) / "text" / "babi_en_10k.tar.xz", "valid")
    reader = recur.load("babi")
    found = story_scores(stories, reader.answers_to(stories), reader.tasks)
    assert found["mean"] == pytest.approx(reader.bundle.meta["results"]["held out"]["mean"], abs=1e-3)
