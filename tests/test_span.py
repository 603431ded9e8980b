"""Questions about a passage answered with a part of it: SQuAD's formats, the reader, its scores, its training."""

from __future__ import annotations

import importlib.util
import itertools
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recur
from recur.bundle import read_bundle, update_bundle, write_bundle
from recur.bundle.span import span_shapes
from recur.cli import main
from recur.data.passages import read_asked, tokens_of
from recur.data.text import Vocabulary
from recur.engine.span import BUCKETS, features_of, numbers_of
from recur.errors import InputError, RecurError
from recur.explain.span import explain_span
from recur.metrics.spans import span_scores

SIZES = {"hidden": 5, "embedding": 4, "told": 3}


def write_squad(path: Path, paragraphs: list[tuple[str, list[dict[str, Any]]]]) -> Path:
    data = [{"paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs]}]
    path.write_text(json.dumps({"version": "v2", "data": data}, ensure_ascii=False), encoding="utf-8")
    return path


def ask(question: str, answer: str, start: int, **more: Any) -> dict[str, Any]:
    return {"id": question, "question": question, "answers": [{"text": answer, "answer_start": start}], **more}


def write_span_reader(path: Path) -> Path:
    """A bundle with random weights that reads 12 tokens at a time."""
    random = np.random.default_rng(3)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in span_shapes(**SIZES).items()}
    meta = {"task": "span", "name": "tiny", **SIZES, "window": 12, "longest": 4}
    return write_bundle(path, meta, weights, tokenizer=Vocabulary((), ("any",), {}), encoder=None, card="")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_span_reader(tmp_path_factory.mktemp("span") / "tiny")


def test_tokens_know_their_places_in_every_script() -> None:
    text = "El gato's 3,5 猫坐。かな x"
    assert [text[start:end] for start, end in tokens_of(text)] == [
        *("El", "gato", "'", "s", "3", ",", "5", "猫", "坐", "。", "か", "な", "x")
    ]


def test_squad_is_read_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    text = "东京是日本的首都。Tokyo is big, Tokyo is old."
    qas = [
        ask("首都?", "东京", 0),
        ask("Which?", "Tokyo", 20),
        ask("Gone?", "Paris", 3),
        ask("Never?", "x", 0, is_impossible=True),
        ask("?!", "Tokyo", 9),
        ask(" ", "Tokyo", 9),
    ]
    asked, problems = read_asked(write_squad(tmp_path / "a.json", [(text, qas)]))
    assert [each.answers for each in asked] == [((0, 2),), ((23, 28),), (), ((9, 14),)]
    assert ["Gone?" in problems[0], len(problems)] == [True, 2]
    assert len({each.group for each in asked}) == 1


def test_lines_of_tokens_are_read(tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl.xz"
    rows = [
        {"context": "He said , well .", "question": "Who ?", "answer": "x", "span": span} for span in ([0, 0], [2, 9])
    ]
    file.write_bytes(lzma.compress("\n".join(map(json.dumps, rows)).encode()))
    asked, problems = read_asked(file)
    assert [each.passage[slice(*each.answers[0])] for each in asked] == ["He"]
    assert "line 2" in problems[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"data": [{"paragraphs": [{}]}]}', b"\xff\xfe", b"[" * 99999])
def test_broken_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.json", "a.json.xz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecurError, match=name):
            read_asked(tmp_path / name)


def test_features_tell_where_the_question_is_spoken_of() -> None:
    table = features_of(["The", "cats", "sat", "in", "1999"], ["Where", "sat", "the", "catsy"])
    assert table[:, 0].tolist() == [1, 0, 1, 0, 0]
    assert table[:, 1].tolist() == [1, 1, 1, 0, 0]
    assert table[:, 5].tolist() == [0, 0, 0, 0, 1]
    assert 0 < table[4, 2] < table[1, 2]
    numbers = numbers_of(["Cat", "cat", "😀"])
    assert numbers[0, 0] == numbers[1, 0]
    assert numbers[0, 3] != numbers[1, 3]
    assert numbers.max() < BUCKETS


def test_the_runtime_computes_what_the_network_does() -> None:
    torch = pytest.importorskip("torch")
    from recur.engine.span import SpanNetwork as Twin
    from recur.nn.span import SpanNetwork

    torch.manual_seed(0)
    network = SpanNetwork(**SIZES).eval()
    long, short = ["Mary", "sat", "in", "the", "park", "."], ["小", "明"]
    question = ["Where", "?"]
    features = torch.zeros(2, 6, 6)
    passage = torch.zeros(2, 6, 4, dtype=torch.long)
    for row, words in enumerate((long, short)):
        passage[row, : len(words)] = torch.from_numpy(numbers_of(words))
        features[row, : len(words)] = torch.from_numpy(features_of(words, question))
    asked = torch.from_numpy(numbers_of(question))[None].repeat(2, 1, 1)
    with torch.no_grad():
        starts, ends = network(passage, features, torch.tensor([6, 2]), asked, torch.tensor([2, 2]))
    twin = Twin({name: value.numpy() for name, value in network.engine_weights().items()})
    for row, words in enumerate((long, short)):
        reading = twin.read(numbers_of(words), features_of(words, question), numbers_of(question))
        kept = [*range(len(words)), 6]
        np.testing.assert_allclose(reading.start, starts[row, kept].numpy(), atol=1e-4)
        np.testing.assert_allclose(reading.end, ends[row, kept].numpy(), atol=1e-4)
        np.testing.assert_allclose(reading.aligned.sum(1), 1, atol=1e-5)
        assert (reading.aligned.shape, reading.asked.shape) == ((len(words), 2), (2,))


def test_an_answer_stands_where_it_says(model: Path) -> None:
    reader = recur.load(str(model))
    passage = "小明 went to the park. " * 400 + "Él vive aquí."
    found = reader(passage, ["Who went?", "¿Dónde vive él?", "谁？", "x " * 300])
    for each in found:
        assert 0 < each.confidence <= 1
        assert (each.answer or "<i>no answer</i>") in each._repr_html_()
        if each.answer is not None:
            assert passage[each.start : each.end] == each.answer
            assert 1 <= len(tokens_of(each.answer)) <= 4
    # A line of 10 MB, and one of a single character.
    found = reader("x" * (10 << 20) + " 小明 went to the park.", "Who went?")
    assert found.end <= (10 << 20) + 23
    assert reader("x", "x").answer in ("x", None)
    for bad in ("", " \n"):
        with pytest.raises(InputError, match="passage"):
            reader(bad, "Who?")
        with pytest.raises(InputError, match="question 1"):
            reader("Mary sat.", bad)


def test_all_that_an_answer_could_be_adds_up_to_one(model: Path) -> None:
    reader = recur.load(str(model))
    for words in (1, 3, 12, 13, 40):  # windows have 12 tokens and overlap by 4
        passage = " ".join(f"w{number}" for number in range(words))
        odds = {(): 1.0}
        for window in reader.windows(passage, "What is it?"):
            table = reader.odds(window.reading)
            for (at, more), odd in np.ndenumerate(table):
                if odd > -np.inf:
                    odds.setdefault((window.tokens[at][0], window.tokens[at + more][1]), float(np.exp(odd)))
        assert len(odds) == 1 + sum(min(4, words - at) for at in range(words))
        told = reader(passage, "What is it?")
        ranked = [(told.probability, told.start, told.end), *((o.probability, o.start, o.end) for o in told.others)]
        for probability, start, end in ranked:
            key = () if start is None else (start, end)
            assert probability == pytest.approx(odds[key] / sum(odds.values()), rel=1e-3)
        assert ranked == sorted(ranked, key=lambda each: -each[0])
        assert told.probability == pytest.approx(max(odds.values()) / sum(odds.values()), rel=1e-3)
        places = sorted((start, end) for _, start, end in ranked if start is not None)
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(places))


def test_the_confidence_is_that_of_the_calibration(model: Path, tmp_path: Path) -> None:
    calibration = {"features": ["lead", "none"], "weights": [0.5, -2.0], "bias": -1.0}
    sure = recur.load(update_bundle(model, {"calibration": calibration}, out=tmp_path / "sure"))
    told, features = sure.features("Mary sat in the park.", "Who sat?")
    z = 0.5 * features["lead"] - 2 * features["none"] - 1
    assert sure("Mary sat in the park.", "Who sat?").confidence == pytest.approx(1 / (1 + np.exp(-z)))
    assert told.confidence == told.probability
    for wrong in ({**calibration, "features": ["x", "y"]}, {**calibration, "weights": [1]}, [1]):
        with pytest.raises(RecurError, match="calibration"):
            update_bundle(model, {"calibration": wrong}, out=tmp_path / "wrong")


def test_what_an_answer_rests_on_is_what_it_loses_without_it(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = recur.load(str(model))
    passage = "Mary <b> sat in the old park of the small town, and John went home. " * 3
    answered = 0
    for question in ("Who sat?", "Where did John go?", "What is old?"):
        told = explain_span(reader, passage, question).data
        words = [passage[start:end] for start, end in told["tokens"]]
        assert len(told["asked_costs"]) == len(told["asked"]) == len(told["attention"][0])
        assert len(told["starts"]) == len(told["attention"]) == len(words)
        assert sum(told["starts"]) + told["none"][0] == pytest.approx(1, abs=0.01)
        if told["answer"] is None:
            assert told["costs"] == []
            continue
        answered += 1
        first = next(at for at, (start, _) in enumerate(told["tokens"]) if start == told["start"])
        for at, cost in told["costs"]:
            less = reader.read(words[:at] + words[at + 1 :], told["asked"])
            full = reader.read(words, told["asked"])
            last = next(n for n, (_, end) in enumerate(told["tokens"]) if end == told["end"])
            back = at < first
            fall = full.start[first] + full.end[last] - less.start[first - back] - less.end[last - back]
            assert cost == pytest.approx(fall, abs=2e-3)
        best = sorted((cost for _, cost in told["costs"]), reverse=True)
        assert [dict(map(tuple, told["costs"]))[at] for at in told["named"]] == [cost for cost in best[:3] if cost > 0]
    assert answered
    if importlib.util.find_spec("matplotlib"):
        (axis,) = explain_span(reader, passage, "Who sat?").figure().axes
        assert [line.get_label() for line in axis.lines] == ["start", "end"]
    (tmp_path / "p.txt").write_text(passage, encoding="utf-8")
    page = tmp_path / "page.html"
    call = ["explain", "answer", "--model", str(model), "--passage", str(tmp_path / "p.txt")]
    assert main([*call, "--out", str(page), "--json", "Who sat?", " ", "Where?"]) == 1
    told_twice = capsys.readouterr()
    assert [json.loads(line)["task"] for line in told_twice.out.splitlines()] == ["span", "span"]
    assert "question 2" in told_twice.err
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == 2
    assert "<b> sat" not in text
    assert main([*call, "Who sat?"]) == 2
    assert "nothing to write" in capsys.readouterr().err


def test_faithfulness_is_measured(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passage = "Mary sat in the old park of the small town, and John went home."
    asked = [ask(f"Who sat {number}?", "Mary", 0) for number in range(3)]
    data = write_squad(tmp_path / "a.json", [(passage, asked)])
    call = ["evaluate", "explanations", "--model", str(model), "--data", str(data)]
    assert main([*call, "--split", "all", "--limit", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["texts"], told["question"]["all"]["words"]) == (2, 2)
    assert main([*call, "--split", "all"]) == 0
    assert "question" in capsys.readouterr().out
    assert main([*call, "--split", "test"]) == 2


def test_scores_are_those_of_squad() -> None:
    said = ["The Big Cat!", "big", None, "cat", None, "黑猫"]
    known = [["big cat"], ["a big cat", "big dog"], [], [], ["x"], ["黑狗"]]
    scores = span_scores(said, known)
    assert scores["em"] == pytest.approx(100 * 2 / 6, abs=0.01)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3 + 1 + 0 + 0 + 0.5) / 6, abs=0.01)


def test_training_learns_to_point_and_goes_on_to_the_same_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from recur.train import span as training

    monkeypatch.setattr(training, "ELSEWHERE", 0.0)
    paragraphs = []
    for number in range(60):
        words = f"alpha beta code{number} gamma delta epsilon"
        at = words.index("code")
        paragraphs.append((words, [ask(f"What code has {number}?", words[at:].split()[0], at)]))
    data = write_squad(tmp_path / "train.json", paragraphs)
    call = ["train", "span", "--data", str(data), "--hidden", "8", "--embedding", "8", "--batch", "8", "--seed", "2"]
    assert main([*call, "--epochs", "12", "--out", str(tmp_path / "whole")]) == 0
    loss = training._loss
    count = 0

    def stopped(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 20:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(training, "_loss", stopped)
    assert main([*call, "--epochs", "12", "--out", str(tmp_path / "parts")]) == 130
    monkeypatch.setattr(training, "_loss", loss)
    assert main([*call, "--epochs", "12", "--out", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = read_bundle(tmp_path / "whole"), read_bundle(tmp_path / "parts")
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(value, parts.weights[name])
    capsys.readouterr()
    assert main(["evaluate", "span", "--model", str(tmp_path / "whole"), "--data", str(data), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["em"] > 80
    assert 0 <= measured["ece"] <= 1
    calibration = whole.meta["calibration"]
    assert calibration["questions"] == whole.meta["training"]["held_out"]
    assert calibration["elsewhere"] >= 1
    assert f"{calibration['ece_alone']:.3f}" in whole.card
    (tmp_path / "passage.txt").write_text("alpha beta code77 gamma delta epsilon", encoding="utf-8")
    ask_it = ["answer", "--model", str(tmp_path / "whole"), "--passage", str(tmp_path / "passage.txt"), "--json"]
    assert main([*ask_it, "What code has 77?"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["answer"], row["start"], row["end"]) == ("code77", 11, 17)
