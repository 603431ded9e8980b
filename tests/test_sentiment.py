"""Sentiment, from labelled texts to a bundle, to probabilities, words and the command line."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import recur
from recur.bundle import read_bundle, write_bundle
from recur.bundle.sentiment import sentiment_shapes
from recur.cli import main
from recur.data import lines
from recur.data.labelled import hold_out, read_labelled, read_splits
from recur.data.lines import Line
from recur.data.sentiment import BITS, ORDERS, language_of, ngrams, tokens
from recur.data.text import Vocabulary
from recur.engine.reference import scan
from recur.errors import InputError, RecurError
from recur.predict.sentiment import EXPLAINED, FEATURES, SentimentClassifier

GOOD = ("good", "fine", "lovely", "好", "美")
BAD = ("bad", "awful", "dull", "坏", "脏")
WORDS = (*GOOD, *BAD, "film", "the", "not", "n't", "房", "间", "!")


def write_texts(folder: Path, count: int = 120) -> Path:
    """A table of made-up reviews in two languages."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        good = bool(number % 2)
        if number % 4 < 2:
            word = (GOOD if good else BAD)[int(random.integers(3))]
            text = f"the film {number} is {word} and the {'sound' if number % 3 else 'light'} is too"
        else:
            text = f"房间{(GOOD if good else BAD)[3 + int(random.integers(2))]}，早餐{number}也是"
        rows.append({"text": text, "label": "pos" if good else "neg"})
    path = folder / "reviews.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights and windows of 8 tokens. Not to be changed."""
    return write_sentiment_bundle(tmp_path_factory.mktemp("sentiment") / "tiny")


def write_sentiment_bundle(path: Path) -> Path:
    """The same at `path`."""
    random = np.random.default_rng(3)
    languages = ("en", "zh")
    first = 3 + len(languages)
    vocabulary = Vocabulary(WORDS, languages, dict.fromkeys(languages, range(first, first + len(WORDS))))
    sizes: dict[str, Any] = {"cell": "lstm", "hidden": 5, "embedding": 4}
    shapes = sentiment_shapes(**sizes, vocabulary=len(vocabulary), languages=2)
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    entry = {"features": list(FEATURES), "weights": [0.7, 0.4, 0.3, -0.2], "bias": 0.1}
    meta = {
        "task": "sentiment",
        "name": "tiny",
        "languages": list(languages),
        "labels": ["neg", "pos"],
        **sizes,
        "window": 8,
        "ngrams": {"bits": BITS, "orders": ORDERS},
        "calibration": {"en": entry, "zh": {**entry, "bias": -0.1}},
    }
    return write_bundle(path, meta, weights, tokenizer=vocabulary, encoder=None, card="# tiny\n", quantize=False)


# ------------------------------------------------------------------------------------------------------------ tokens


def test_tokens() -> None:
    assert list(tokens("It doesn’t WORK!<br />10/10 :)")) == ["it", "does", "n't", "work", "!", "10", "10", ":)"]
    assert list(tokens("wo n't, won't")) == ["wo", "n't", "wo", "n't"]
    assert list(tokens("房间Ａ很好。👍")) == ["房", "间", "a", "很", "好", "👍"]
    assert list(tokens("... —")) == []


def test_long_texts_are_cut_between_words() -> None:
    text = "wonderful " * 20_000
    assert list(tokens(text)) == ["wonderful"] * 20_000
    assert sum(1 for _ in tokens("好" * 200_000)) == 200_000


def test_language_and_ngrams() -> None:
    assert [language_of(list(tokens(text))) for text in ("a film", "很好的film", "", "a b c d 好")] == [
        "en", "zh", "en", "en",
    ]  # fmt: skip
    assert len(ngrams(["a", "b", "a", "b"])) == 4  # a, b, a b, b a
    assert ngrams(["a", "b"]).max() < 1 << BITS
    assert not np.array_equal(ngrams(["a", "b"]), ngrams(["b", "a"]))
    assert ngrams([]).size == 0


# -------------------------------------------------------------------------------------------------------------- files


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    rows = [('it\'s "good", yes', "pos"), ("bad", "neg")]
    (tmp_path / "a.csv").write_text('text,label\n"it\'s ""good"", yes",positive\nbad,0\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text('it\'s "good", yes\t1\nbad\t0\n', encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"review": text, "sentiment": label}) + "\n" for text, label in rows), encoding="utf-8"
    )
    for number, (text, label) in enumerate(rows):
        folder = tmp_path / "d" / label
        folder.mkdir(parents=True)
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    for name in ("a.csv", "b.tsv", "c.jsonl", "d"):
        found = read_labelled(tmp_path / name)
        assert sorted(zip(found.texts, found.labels, strict=True)) == sorted(rows), name
        assert found.problems == []


def test_what_is_wrong_with_a_row_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\ngood,pos\n\xff\xfe,neg\n,pos\nbad\nugly,neg\n")
    found = read_labelled(path)
    assert found.texts == ["good", "ugly"]
    assert len(found.problems) == 3
    assert "no UTF-8" in " ".join(found.problems)
    assert "1 cells; expected 2" in " ".join(found.problems)
    with pytest.raises(RecurError, match="it has text, label; name one with --column"):
        read_labelled(path, column="words")
    (tmp_path / "e.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(RecurError, match="no text with a label"):
        read_labelled(tmp_path / "e.jsonl")


def test_a_broken_archive_is_an_error(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "good", "label": "pos"}\n' * 1000)[:40])
    with pytest.raises(RecurError, match="broken after line"):
        read_labelled(path)


def test_splits(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("good film, really\t1\nbad film, really\t0\n", encoding="utf-8")
    train, dev = read_splits(tmp_path / "train.tsv")
    assert (len(train) + len(dev)) == 2
    (tmp_path / "dev.tsv").write_text("a dull film, all in all\t0\n", encoding="utf-8")
    train, dev = read_splits(tmp_path / "train.tsv")
    assert (len(train), len(dev)) == (2, 1)
    found = read_labelled(write_texts(tmp_path))
    once, again = hold_out(found), hold_out(found)
    assert once[1].texts == again[1].texts
    assert 0 < len(once[1]) < len(once[0])
    assert len(once[0]) + len(once[1]) == len(found)


def test_lines_that_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 10)
    found = list(lines.decoded(io.BytesIO(b"short\n" + b"x" * 35 + b"\nafter\n"), "f"))
    assert found[0] == "short"
    assert isinstance(found[1], InputError)
    assert "f: line 2" in str(found[1])
    assert found[2] == "after"


# --------------------------------------------------------------------------------------------------------- prediction


def slow_probability(path: Path, read: list[str]) -> float:
    """The probability of the second label from plain loops."""
    bundle = read_bundle(path)
    weights, meta = bundle.weights, bundle.meta
    ids = {word: number for number, word in enumerate(bundle.vocabulary().tokens)}
    stack = {name.removeprefix("rnn."): value for name, value in weights.items()}
    states = []
    for start in range(0, len(read), meta["window"]):
        window = [ids.get(word, 2) for word in read[start : start + meta["window"]]]
        out, _ = scan("lstm", weights["embedding.weight"][window][None], stack, bidirectional=True)
        states.append(out[0])
    joined = np.concatenate(states)
    network = np.concatenate([joined.max(0), joined.mean(0)]) @ weights["head.weight"][0] + weights["head.bias"][0]
    row = meta["languages"].index(language_of(read))
    grams = ngrams(read)
    wide = weights["wide.bias"][row] + weights["wide.weight"].reshape(2, -1)[row, grams].sum() / len(grams) ** 0.5
    features = np.array([network, wide, network * len(read) ** -0.5, wide * len(read) ** -0.5])
    entry = meta["calibration"][meta["languages"][row]]
    return float(1 / (1 + np.exp(-(features @ entry["weights"] + entry["bias"]))))


TEXTS = (
    "good",
    "the film is not good",
    "the film is bad and dull and awful and not lovely at all but fine !",
    "房间很脏，不好",
    "👍👍",
    "the room 很好 was 美",
)


def test_probability_equals_plain_loops(model: Path) -> None:
    classifier = recur.load(model)
    results = classifier(TEXTS)
    for text, result in zip(TEXTS, results, strict=True):
        expected = slow_probability(model, list(tokens(text)))
        got = result.probability if result.label == "pos" else 1 - result.probability
        assert got == pytest.approx(expected, abs=1e-5), text
    assert [result.language for result in results] == ["en", "en", "en", "zh", "en", "zh"]
    one_by_one = [classifier(text)[0] for text in TEXTS]
    assert [each.words for each in one_by_one] == [each.words for each in results]


def test_words_are_weighed_by_leaving_each_out(model: Path) -> None:
    def log_odds(probability: float) -> float:
        return float(np.log(probability / (1 - probability)))

    text = TEXTS[2]
    read = list(tokens(text))
    (result,) = recur.load(model)(text)
    assert [word for word, _ in result.words] == read
    bundle = read_bundle(model)
    row = bundle.weights["wide.weight"].reshape(2, -1)[0]
    for place in (0, 3, 8, len(read) - 1):
        # The same text without knowing the word, and without the n-grams that only it is in.
        other = [*read[:place], "qqq", *read[place + 1 :]]
        kept = np.intersect1d(ngrams(read), ngrams(other))
        strange = np.setdiff1d(ngrams(other), kept)
        before, changed = slow_probability(model, read), slow_probability(model, other)
        total = row[kept].sum() + row[strange].sum()
        fair = row[kept].sum() / len(kept) ** 0.5 - total / len(ngrams(other)) ** 0.5
        entry = bundle.meta["calibration"]["en"]["weights"]
        without = log_odds(changed) + fair * (entry[1] + entry[3] * len(read) ** -0.5)
        assert result.words[place][1] == pytest.approx(log_odds(before) - without, abs=2e-4)


def test_running_probability_is_that_of_the_beginning(model: Path) -> None:
    text = TEXTS[2]
    read = list(tokens(text))
    (result,) = recur.load(model)([text], words=False, running=True)
    assert result.words == ()
    assert [word for word, _ in result.running] == read
    for stop in (1, 5, 8, 9, len(read)):
        assert result.running[stop - 1][1] == pytest.approx(slow_probability(model, read[:stop]), abs=1e-5)
    assert "running" in result.to_json()


def test_texts_that_fail_keep_their_place(model: Path) -> None:
    error = InputError("x", "broken")
    results = list(recur.load(model).stream(["good", "", Line("f: line 3", " — "), error, "bad"], batch=2))
    assert [isinstance(result, InputError) for result in results] == [False, True, True, True, False]
    assert str(results[1]) == "text 2: no word in it; give some words"
    assert str(results[2]).startswith("f: line 3: ")
    assert results[3] is error
    with pytest.raises(InputError, match="text 1"):
        recur.load(model)("")


def test_a_very_long_text_is_read_whole(model: Path) -> None:
    classifier = recur.load(model)
    text = "the film is good " * (EXPLAINED // 2)
    (result,) = classifier(text)
    assert result.words == ()
    read = list(tokens(text))
    got = result.probability if result.label == "pos" else 1 - result.probability
    assert got == pytest.approx(slow_probability(model, read), abs=1e-4)


def test_a_slow_pipe_is_not_waited_for(model: Path) -> None:
    seen = threading.Event()

    def slow() -> Iterator[str]:
        yield from ("good", "bad", "the film")
        assert seen.wait(30), "results of three texts were kept back until there were more"
        yield "fine"

    results = recur.load(model).stream(slow(), words=False)
    assert all(next(results) is not None for _ in range(3))
    seen.set()
    assert len(list(results)) == 1


def test_a_bundle_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    bundle = read_bundle(model)

    def written(changes: dict[str, Any], weights: dict[str, Any] | None = None) -> None:
        write_bundle(
            tmp_path / "b",
            {**bundle.meta, **changes},
            {**bundle.weights, **(weights or {})},
            tokenizer=bundle.vocabulary(),
            encoder=None,
            card="",
        )

    for changes, message in (
        ({"labels": ["pos", "pos"]}, "expected two"),
        ({"hidden": 0}, "hidden 0"),
        ({"cell": "qrnn"}, "cell 'qrnn'"),
        ({"ngrams": {}}, "ngrams"),
        ({"languages": ["en"]}, "other words or languages"),
        ({"calibration": {"en": {"features": ["moon"], "weights": [1.0], "bias": 0.0}}}, "makes no sense"),
        ({"embedding": 6}, "of shape"),
    ):
        with pytest.raises(RecurError, match=message):
            written(changes)
    with pytest.raises(RecurError, match="does not have"):
        written({}, {"odd": np.zeros((2, 2), np.float32)})
    with pytest.raises(RecurError, match="expected one for 'sentiment'"):
        SentimentClassifier(SimpleNamespace(task="caption", path="x"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- command line


def test_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sentiment", "--model", str(model), "--json", "a good film", "房间脏"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["a good film", "房间脏"]
    assert list(rows[0]) == ["text", "label", "probability", "language", "words", "model"]
    assert [word for word, _ in rows[1]["words"]] == ["房", "间", "脏"]
    assert main(["sentiment", "--model", str(model), "a good film"]) == 0
    assert "probability" in capsys.readouterr().out
    table = tmp_path / "t.csv"
    table.write_text('id,words\n1,"a good, fine film"\n2,bad\n', encoding="utf-8")
    assert main(["sentiment", "--model", str(model), "--file", str(table), "--column", "words"]) == 0
    lines_out = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines_out] == ["a good, fine film", "bad"]
    assert main(["sentiment", "--model", str(model), "--file", str(table), "--column", "moon"]) == 2
    assert "its first line is 'id, words'" in capsys.readouterr().err


def test_bad_lines_are_named_and_the_others_go_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"good\n\n\xff\xfe\nx\n" + "mixed 很好 текст 👍 עברית\n".encode() + b"bad"
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    assert main(["sentiment", "--model", str(model), "--json", "--no-words", "--file", str(path)]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["text"] for line in captured.out.splitlines()] == [
        "good", "x", "mixed 很好 текст 👍 עברית", "bad",
    ]  # fmt: skip
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert "line 2: no word in it" in errors[0]
    assert "line 3: no UTF-8" in errors[1]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))
    assert main(["sentiment", "--model", str(model), "--json", "--no-words"]) == 1
    assert capsys.readouterr().out == captured.out
    sys.stdin.buffer.seek(0)
    assert main(["sentiment", "--model", str(model), "--json", "--no-words", "-"]) == 1
    assert capsys.readouterr().out == captured.out


def test_a_line_of_ten_megabytes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.txt"
    path.write_text("good " * 10 + "x" * (10 << 20) + "\nbad\n", encoding="utf-8")
    assert main(["sentiment", "--model", str(model), "--file", str(path)]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_evaluate(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_texts(tmp_path)
    assert main(["evaluate", "sentiment", "--model", str(model), "--data", str(data), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["language"] for row in rows] == ["en", "zh"]
    assert sum(row["texts"] for row in rows) == 120
    found = read_labelled(data)
    english = [
        (result.label == label)
        for result, label in zip(recur.load(model)(found.texts, words=False), found.labels, strict=True)
        if result.language == "en"
    ]
    assert rows[0]["accuracy"] == pytest.approx(np.mean(english), abs=1e-4)
    with data.open("a", encoding="utf-8") as file:
        file.write('{"text": "hm", "label": "neutral"}\n')
    assert main(["evaluate", "sentiment", "--model", str(model), "--data", str(data), "--json"]) == 1
    assert "label 'neutral'; the model knows neg and pos" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- training


def test_training_learns_resumes_and_writes_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from recur.train import sentiment as training
    from recur.train import sentiment_data, wide

    data = write_texts(tmp_path)
    options = ["--data", str(data), "--min-count", "2", "--hidden", "8", "--embedding", "8", "--epochs", "3"]
    monkeypatch.setattr(training, "RATE", 0.1)
    monkeypatch.setattr(sentiment_data, "STEP_TOKENS", 60)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", "sentiment", *options, "--out", str(whole)]) == 0
    meta = read_bundle(whole).meta
    assert meta["labels"] == ["neg", "pos"]
    assert {*meta["results"]["held out"]} == {f"{tmp_path.name}/reviews.jsonl ({lang})" for lang in ("en", "zh")}
    results = recur.load(whole)(["the film is lovely", "the film is awful", "房间好", "房间脏"])
    assert [result.label for result in results] == ["pos", "neg", "pos", "neg"]
    weights = dict(results[0].words)
    assert max(weights, key=lambda word: weights[word]) == "lovely"

    # Killed in the second epoch and taken up again, it ends with the same weights.
    epoch = training._epoch

    def stopped(run: Any, number: int, optimizer: Any, stop: Any) -> float | None:
        if number == 1:
            stop.request("the test")
        return epoch(run, number, optimizer, stop)

    monkeypatch.setattr(training, "_epoch", stopped)
    assert main(["train", "sentiment", *options, "--out", str(parts)]) == 0
    assert not parts.exists()
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(training, "_epoch", epoch)
    assert main(["train", "sentiment", *options, "--out", str(parts), "--resume"]) == 0
    first, second = read_bundle(whole), read_bundle(parts)
    assert {*first.weights} == {*second.weights}
    for name, value in first.weights.items():
        assert np.array_equal(value, second.weights[name]), name
    assert main(["train", "sentiment", *options, "--seed", "9", "--out", str(parts), "--resume"]) == 2
    assert "seed was 1, now 9" in capsys.readouterr().err

    # From a finished model: the network stays to the last bit, what is fitted beside it is fitted again.
    monkeypatch.setattr(wide, "STRENGTH", 0.5)
    again = tmp_path / "again"
    options = ["--data", str(data), "--init", str(whole), "--out", str(again)]
    assert main(["train", "sentiment", *options, "--epochs", "0"]) == 0
    found = read_bundle(again)
    same = [name for name, value in first.weights.items() if np.array_equal(value, found.weights[name])]
    assert sorted({*first.weights} - {*same}) == ["wide.bias", "wide.weight"]
    assert found.meta["training"]["before"] == [first.meta["training"]["command"]]
    assert main(["train", "sentiment", *options, "--epochs", "1"]) == 0
    assert not np.array_equal(read_bundle(again).weights["head.weight"], first.weights["head.weight"])
    assert main(["train", "sentiment", *options[:2], "--epochs", "0", "--out", str(again)]) == 2
    assert "--epochs 0 is for a model that --init names" in capsys.readouterr().err
    # Texts of one language leave the other's linear model and calibration as they were.
    english = tmp_path / "english.jsonl"
    rows = data.read_text(encoding="utf-8").splitlines()
    english.write_text("\n".join(row for row in rows if "film" in row), encoding="utf-8")
    assert main(["train", "sentiment", "--data", str(english), *options[2:], "--epochs", "0"]) == 0
    found = read_bundle(again)
    one, two = (each.weights["wide.weight"].reshape(2, -1) for each in (first, found))
    kept = [lang for lang, a, b in zip(found.meta["languages"], one, two, strict=True) if np.array_equal(a, b)]
    assert kept == ["zh"]
    assert found.meta["calibration"]["zh"] == first.meta["calibration"]["zh"]
    assert found.meta["calibration"]["en"] != first.meta["calibration"]["en"]
    other = tmp_path / "other.tsv"
    other.write_text("".join(f"text {number}\t{'ab'[number % 2]}\n" for number in range(60)), encoding="utf-8")
    assert main(["train", "sentiment", "--data", str(other), *options[2:]]) == 2
    assert "its labels are neg and pos; the texts have a and b" in capsys.readouterr().err


def test_training_wants_two_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "t.jsonl"
    for labels, message in ((("a", "b", "c"), "3 labels (a, b, c); expected two"), (("a",), "1 labels (a)")):
        rows = [{"text": f"text {number}", "label": labels[number % len(labels)]} for number in range(60)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        assert main(["train", "sentiment", "--data", str(path), "--out", str(tmp_path / "b")]) == 2
        assert message in capsys.readouterr().err
    path.write_text('{"text": "...", "label": "a"}\n{"text": "—", "label": "b"}\n' * 20, encoding="utf-8")
    (tmp_path / "train.jsonl").write_bytes(path.read_bytes())
    (tmp_path / "dev.jsonl").write_bytes(path.read_bytes())
    assert main(["train", "sentiment", "--data", str(tmp_path / "train.jsonl"), "--out", str(tmp_path / "b")]) == 2
    assert "no text has a word in it" in capsys.readouterr().err
    train, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    train.write_text("one text\t0\nanother\t1\n", encoding="utf-8")
    dev.write_text("a third one, of a kind not seen before\t2\n", encoding="utf-8")
    assert main(["train", "sentiment", "--data", str(train), "--out", str(tmp_path / "b")]) == 2
    assert "held-out texts have the label '2'" in capsys.readouterr().err


def test_network_equals_engine() -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.sentiment import SentimentNetwork

    torch.manual_seed(0)
    network = SentimentNetwork(vocabulary=11, embedding=4, hidden=3).eval()
    windows = torch.randint(0, 11, (4, 6))
    lengths, owner = torch.tensor([6, 2, 6, 5]), torch.tensor([0, 0, 1, 2])
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    stack = {name.removeprefix("rnn."): value for name, value in weights.items()}
    got = network(windows, lengths, owner).detach().numpy()
    for text, rows in enumerate(([0, 1], [2], [3])):
        states = np.concatenate(
            [
                scan("lstm", weights["embedding.weight"][windows[row, : lengths[row]].numpy()][None], stack,
                     bidirectional=True)[0][0]
                for row in rows
            ]
        )  # fmt: skip
        pooled = np.concatenate([states.max(0), states.mean(0)])
        assert got[text] == pytest.approx(float(pooled @ weights["head.weight"][0] + weights["head.bias"][0]), abs=1e-5)
