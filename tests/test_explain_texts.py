"""Explanations of texts tell what the models computed; the pages fetch nothing; what they name matters."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_predict_language import write_language_bundle
from test_sentiment import write_sentiment_bundle
from test_translation import write_translation_bundle

import recur
from recur.cli import main
from recur.errors import InputError, RecurError
from recur.explain.faithful_texts import reading_faithfulness, sentiment_faithfulness, translation_faithfulness
from recur.explain.follow import RULES, correlations, follows, rule_values
from recur.explain.texts import TextExplanation, explain_reading, explain_sentiment, explain_translation
from recur.explain.words_page import render_texts_page
from recur.predict.sentiment import Sentiment

READ_TEXT = "abc, 生死👩.\nbad cafe, (j) ab.\n" * 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_text_models(tmp_path_factory.mktemp("models"))


def write_text_models(folder: Path) -> dict[str, Path]:
    """A model with random weights for each task."""
    return {
        "generate": write_language_bundle(folder / "reader"),
        "sentiment": write_sentiment_bundle(folder / "feeling"),
        "translate": write_translation_bundle(folder / "tongue"),
    }


def explained(models: dict[str, Path]) -> dict[str, TextExplanation]:
    (feeling,) = explain_sentiment(recur.load(models["sentiment"]), ["a good film </script>, not a bad one"])
    (tongue,) = explain_translation(recur.load(models["translate"]), ["A dog runs. 猫 A man <b>."])
    assert isinstance(feeling, TextExplanation)
    assert isinstance(tongue, TextExplanation)
    return {
        "generate": explain_reading(recur.load(models["generate"]), READ_TEXT),
        "sentiment": feeling,
        "translate": tongue,
    }


# ------------------------------------------------------------------------------------------------------------- rules


def test_rules_say_what_is_known_after_each_character() -> None:
    assert rule_values("inside quotes", 'a "b" c').tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert rule_values("inside quotes", "“a\n\nb").tolist() == [1, 1, 1, 0, 0]
    assert rule_values("inside brackets", "(a) b").tolist() == [1, 1, 0, 0, 0]
    assert rule_values("position in the line", "ab\ncd").tolist() == [1, 2, 0, 1, 2]
    assert rule_values("after a comma", "a, b").tolist() == [0, 1, 1, 0]
    assert rule_values("position in the word", "ab c").tolist() == [1, 2, 0, 1]
    for name in RULES:
        assert len(rule_values(name, READ_TEXT)) == len(READ_TEXT)


def test_the_unit_that_follows_a_rule_is_found() -> None:
    text = 'He said "no, never" and (then) went.\nShe: "yes." ' * 4
    hidden = np.random.default_rng(3).standard_normal((2, len(text), 5)).astype(np.float32)
    quotes = rule_values("inside quotes", text)
    hidden[1, :, 3] = -quotes + 0.1 * hidden[0, :, 0]
    (units,) = [rule["units"] for rule in follows(text, hidden) if rule["rule"] == "inside quotes"]
    assert (units[0]["layer"], units[0]["unit"]) == (2, 4)
    assert units[0]["correlation"] == pytest.approx(np.corrcoef(quotes, hidden[1, :, 3])[0, 1], abs=1e-3)
    assert not correlations(rule_values("inside quotes", "none"), hidden[:, :4]).any()
    assert [rule["units"] for rule in follows("none", hidden[:, :4]) if rule["rule"] == "inside quotes"] == [[]]


# ------------------------------------------------------------------------------------------------------ explanations


def test_a_reading_is_what_the_model_computed(models: dict[str, Path]) -> None:
    model = recur.load(models["generate"])
    told, trace = explain_reading(model, READ_TEXT).data, model.trace(READ_TEXT)
    assert told["text"] == READ_TEXT
    np.testing.assert_allclose(np.array(told["nats"], float), trace.nats, atol=1e-3)
    packed = told["hidden"]
    hidden = np.frombuffer(base64.b64decode(packed["int8"]), np.int8).reshape(told["shape"]) * packed["scale"]
    np.testing.assert_allclose(hidden, trace.hidden, atol=packed["scale"])
    gates = trace.gates.reshape(2, len(READ_TEXT), 4, 9)
    for kind in told["saturated"]:
        values = gates[kind["layer"] - 1, :, "ifgo".index(kind["gate"])]
        assert kind["shut"] == pytest.approx((values < 0.1).mean(), abs=1e-4)
        np.testing.assert_allclose([each[1] for each in kind["units"]], (values > 0.9).mean(axis=0), atol=1e-3)
    for rule in told["follows"]:
        for each in rule["units"]:
            own = correlations(rule_values(rule["rule"], READ_TEXT), trace.hidden)[each["layer"] - 1, each["unit"] - 1]
            assert each["correlation"] == pytest.approx(own, abs=1e-4)
    with pytest.raises(RecurError, match="no text"):
        explain_reading(model, "")


def test_a_long_text_is_read_and_shown_in_part(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recur.explain.texts.READ", 50)
    monkeypatch.setattr("recur.explain.texts.SHOWN", 20)
    told = explain_reading(recur.load(models["generate"]), READ_TEXT).data
    assert (told["read"], told["left_out"], told["text"]) == (50, len(READ_TEXT) - 50, READ_TEXT[:20])
    assert len(told["nats"]) == len(told["expected"]) == told["shape"][1] == 20


def test_a_judgement_and_a_translation_are_those_of_the_models(models: dict[str, Path]) -> None:
    told = explained(models)
    feeling = recur.load(models["sentiment"])
    (result,) = feeling(["a good film </script>, not a bad one"], running=True)
    assert told["sentiment"].data == {"task": "sentiment", **result.to_json()}
    assert told["sentiment"].data["running"]
    (line,) = recur.load(models["translate"])(["A dog runs. 猫 A man <b>."])
    data = told["translate"].data
    assert data["translation"] == line.translation
    assert sum(len(part["words"]) for part in data["parts"]) >= len(data["alignment"])
    strongest = []
    for part in data["parts"]:
        for word, row in zip(part["words"], part["weights"], strict=True):
            assert sum(row) == pytest.approx(1, abs=1e-3)
            strongest.append([word, part["source"][int(np.argmax(row))]])
    assert [entry[:2] for entry in data["alignment"]] == strongest


def test_of_a_long_text_the_first_sentences_have_their_shares(models: dict[str, Path]) -> None:
    (told,) = recur.load(models["translate"])(["A dog runs in the park. " * 25])
    assert len(told.parts) == 20
    assert len(told.alignment) > sum(len(part.words) for part in told.parts)


def test_texts_that_fail_keep_their_place(models: dict[str, Path]) -> None:
    first, second = explain_sentiment(recur.load(models["sentiment"]), ["  ", "good"])
    assert isinstance(first, InputError)
    assert isinstance(second, TextExplanation)
    first, second = explain_translation(recur.load(models["translate"]), ["", "A dog."])
    assert isinstance(first, InputError)
    assert isinstance(second, TextExplanation)


# -------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("task", ["generate", "sentiment", "translate"])
def test_pages_are_complete_and_fetch_nothing(models: dict[str, Path], task: str) -> None:
    told = explained(models)[task]
    page = render_texts_page([told])
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\(|fetch\(|XMLHttp""", page)
    assert not re.search(r"^import ", page, flags=re.M)
    (lying,) = re.findall(r'<script type="application/json" class="explanation">(.*?)</script>', page, flags=re.S)
    assert json.loads(lying) == json.loads(json.dumps(told.data))
    assert 'sandbox="allow-scripts"' in told._repr_html_()


def test_figures_for_papers(models: dict[str, Path]) -> None:
    pytest.importorskip("matplotlib")
    told = explained(models)
    (axis,) = told["sentiment"].figure().axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [p for _, p in told["sentiment"].data["running"]])
    (axis,) = told["translate"].figure().axes
    np.testing.assert_allclose(axis.images[0].get_array(), told["translate"].data["parts"][0]["weights"])
    above, below = told["generate"].figure().axes
    data = told["generate"].data
    costs = [cost or 0.0 for cost in data["nats"][:100]]
    np.testing.assert_allclose([bar.get_height() for bar in above.patches], costs)
    trace = recur.load(models["generate"]).trace(READ_TEXT)
    units = [each["units"][0] for each in data["follows"] if each["units"]]
    rows = [trace.hidden[unit["layer"] - 1, :100, unit["unit"] - 1] for unit in units]
    np.testing.assert_allclose(below.images[0].get_array(), rows, atol=data["hidden"]["scale"])
    with pytest.raises(RecurError, match="write its page"):
        TextExplanation({**told["translate"].data, "parts": []}).figure()


@pytest.mark.parametrize("task", ["generate", "sentiment", "translate"])
def test_commands(models: dict[str, Path], task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = {"generate": READ_TEXT, "sentiment": "a good film", "translate": "A dog runs."}[task]
    out = tmp_path / "page.html"
    assert main(["explain", task, text, "--model", str(models[task]), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == task
    assert told["model"] in out.read_text(encoding="utf-8")
    assert main(["explain", task, text, "--model", str(models[task])]) == 2
    assert "nothing to write" in capsys.readouterr().err
    other = models["sentiment" if task == "generate" else "generate"]
    assert main(["explain", task, text, "--model", str(other), "--json"]) == 2
    assert "choose" in capsys.readouterr().err


def test_a_page_has_no_more_than_it_can_hold(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recur.cli.explain_texts.TEXT_LIMIT", 2)
    out = tmp_path / "page.html"
    texts = ["good", "bad", "a film", " "]
    command = ["explain", "sentiment", *texts, "--model", str(models["sentiment"]), "--out", str(out), "--json"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3
    assert "first 2 texts only" in told.err
    assert out.read_text(encoding="utf-8").count("<article") == 2


# ----------------------------------------------------------------------------------------------------- is it true?


def test_the_word_that_decides_is_named(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in which one word decides everything: taking it out costs, taking another out does not."""
    model = recur.load(models["sentiment"])

    def judge(texts: list[str]) -> list[tuple[str, float]]:
        return [("en", 0.9 if "good" in text else 0.2) for text in texts]

    def call(texts: list[str], **_: Any) -> list[Any]:
        words = tuple((word, 3.0 if word == "good" else 0.0) for word in texts[0].split())
        return [Sentiment(texts[0], "pos", 0.9, "en", words, "tiny")]

    monkeypatch.setattr(model, "judge", judge)
    monkeypatch.setattr(type(model), "__call__", lambda self, texts, **options: call(texts, **options))
    told = sentiment_faithfulness(model, ["a good film", "good", "the good and the bad"])
    assert told["texts"] == 2
    assert told["all"]["own_costs_more"] == 1
    assert told["all"]["cost_own"] == pytest.approx(np.log(0.9 / 0.2))
    assert told["all"]["cost_other"] == 0


def test_the_cost_of_a_source_word_is_that_of_the_text_without_it(models: dict[str, Path]) -> None:
    translator = recur.load(models["translate"])
    words = ["▁A", "▁dog", "▁runs", "."]
    part = translator.sentence(words)
    (best,) = translator.search([part], "de", 1, 0.0)
    numbers = best.tokens.tolist()
    fewer = translator.sentence(words[:1] + words[2:])
    together = translator.log_probs([part, fewer], numbers, "de")
    for row, each in zip(together, (part, fewer), strict=True):
        np.testing.assert_allclose(row, translator.log_probs([each], numbers, "de")[0], atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    told = translation_faithfulness(translator, ["A dog runs.", "A", "猫 runs."], "en", "de")
    assert told["texts"] == 1
    assert told["all"]["words"] == len(translator.spelled(numbers))


def test_units_are_asked_on_the_other_half(models: dict[str, Path]) -> None:
    model = recur.load(models["generate"])
    text = READ_TEXT * 2
    told = reading_faithfulness(model, text)
    half = text[len(text) // 2 :]
    hidden = model.trace(half).hidden
    assert told["rules"]
    for each in told["rules"]:
        own = correlations(rule_values(each["rule"], half), hidden)[each["layer"] - 1, each["unit"] - 1]
        assert each["own"] == pytest.approx(abs(own), abs=1e-4)
    assert told["own_goes_closer"] == np.mean([each["own"] > each["other"] for each in told["rules"]])


@pytest.mark.parametrize("task", ["generate", "sentiment", "translate"])
def test_evaluate_explanations(
    models: dict[str, Path], task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "texts.txt"
    text = {"generate": READ_TEXT, "sentiment": "a good film\na bad one\n", "translate": "A dog runs.\nA man.\n"}[task]
    data.write_text(text, encoding="utf-8")
    command = ["evaluate", "explanations", "--model", str(models[task]), "--data", str(data)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == task
    assert main(command) == 0
    assert "own" in capsys.readouterr().out
    data.write_text("", encoding="utf-8")
    assert main(command) == 2
