"""A language model writes and measures text: in pieces, with the state carried on, whatever the characters."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recur
from recur.bundle import BundleError, read_bundle, write_bundle
from recur.bundle.language import language_shapes
from recur.cli import main
from recur.data.characters import Characters
from recur.engine.reference import scan
from recur.errors import RecurError
from recur.predict.language import READ, WRITTEN, LanguageModel

KNOWN = "\n abcdefghij.,生死👩"


def write_language_bundle(path: Path, *, seed: int = 0, scale: float = 1.0, **changes: Any) -> Path:
    """A language model with random weights."""
    sizes: dict[str, Any] = {"cell": "lstm", "hidden": 9, "layers": 2, "embedding": 6}
    sizes |= {key: value for key, value in changes.items() if key in sizes}
    characters = Characters(sorted(KNOWN))
    random = np.random.default_rng(seed)
    shapes = language_shapes(**sizes, vocabulary=len(characters))
    weights = {name: (scale * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    meta = {"task": "language", "name": path.stem, "languages": [], "vocabulary_size": len(characters), **sizes}
    return write_bundle(
        path, {**meta, **changes}, weights, tokenizer=characters.to_bytes(), encoder=None, card="# tiny\n"
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_bundle(tmp_path_factory.mktemp("language") / "tiny")


@pytest.fixture(scope="module")
def model(bundle: Path) -> LanguageModel:
    found = recur.load(bundle)
    assert isinstance(found, LanguageModel)
    return found


def test_costs_are_those_of_the_plain_loops(model: LanguageModel) -> None:
    text = "abc, 生死👩.\n" * 4
    ids = model.characters.encode(text)
    weights = model.bundle.weights
    layers = {name.removeprefix("rnn."): value for name, value in weights.items() if name.startswith("rnn.")}
    hidden, _ = scan("lstm", weights["embedding.weight"][ids][None], layers, layers=2)
    logits = (hidden[0] @ weights["head.weight"].T + weights["head.bias"])[:, 1:]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -log_probs[np.arange(len(ids) - 1), ids[1:] - 1]
    (surprise,) = model.surprises([text])
    assert math.isnan(surprise.nats[0])
    np.testing.assert_allclose(surprise.nats[1:], expected, atol=1e-4)
    assert model.evaluate(text)["nats"] == pytest.approx(expected.mean(), abs=1e-4)


def test_pieces_of_any_size_cost_the_same(model: LanguageModel) -> None:
    text = "".join(np.random.default_rng(0).choice(list(KNOWN), READ + 40))
    (whole, rest) = model.surprises([text])
    costs = np.concatenate([whole.nats, rest.nats])
    for size in (1, 7, READ):
        pieces = list(model.surprises(text[at : at + size] for at in range(0, len(text), size)))
        assert "".join(piece.text for piece in pieces) == text
        np.testing.assert_allclose(np.concatenate([piece.nats for piece in pieces]), costs, atol=1e-5)


def test_unknown_characters_are_read_and_not_counted(model: LanguageModel) -> None:
    (surprise,) = model.surprises(["aЖ🎈b"])
    assert np.isnan(surprise.nats).tolist() == [True, True, True, False]
    found = model.evaluate("aЖ🎈b")
    assert (found["characters"], found["unknown"]) == (1, 2)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"]))
    assert found["bits"] == pytest.approx(found["nats"] / math.log(2))
    assert surprise.to_json()["nats"][:3] == [None] * 3
    for nothing in ("", "a", "aЖ"):
        with pytest.raises(RecurError, match="nothing to measure"):
            model.evaluate(nothing)


def test_a_longer_text_begins_like_a_shorter_one(model: LanguageModel) -> None:
    long = model("ab", length=3 * WRITTEN + 5, seed=4)
    assert len(long) == 3 * WRITTEN + 5
    for length in (0, 1, WRITTEN, WRITTEN + 1):
        assert model("ab", length=length, seed=4) == long[:length]
    assert "".join(itertools.islice(model.stream("ab", seed=4), 2)) == long[: 2 * WRITTEN]
    assert model("ab", length=100, seed=5) != long[:100]
    assert set(long) <= set(KNOWN)


def test_the_state_is_carried_on(model: LanguageModel) -> None:
    """Writing in pieces is what one long reading foresees: greedy text is its own most probable continuation."""
    text = "a" + model("a", length=2 * WRITTEN, temperature=0.0)
    trace = model.trace(text)
    for place in range(1, len(text)):
        assert trace.alternatives[place][0][0] == text[place]


def test_without_a_prompt_it_begins_after_a_line_end(model: LanguageModel) -> None:
    assert model(length=20, seed=1) == model("\n", length=20, seed=1)


def test_narrower_choices(model: LanguageModel) -> None:
    greedy = model("b", length=50, temperature=0.0)
    assert model("b", length=50, top_k=1, seed=9) == greedy
    assert model("b", length=50, top_p=1e-6, seed=9) == greedy
    assert model("b", length=50, temperature=0.01, seed=9) == greedy
    assert model("b", length=50, temperature=1.0, seed=9) != greedy


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1.0}, {"temperature": math.nan}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1},
     {"length": -1}],
)  # fmt: skip
def test_options_that_make_no_sense(model: LanguageModel, options: dict[str, Any]) -> None:
    with pytest.raises(RecurError, match="expected"):
        model.stream("a", **options)


def test_a_trace_tells_states_gates_and_expectations(model: LanguageModel) -> None:
    text = "abc生Ж."
    trace = model.trace(text, alternatives=3)
    (surprise,) = model.surprises([text])
    np.testing.assert_allclose(trace.nats, surprise.nats, atol=1e-5)
    assert trace.hidden.shape == (2, len(text), 9)
    assert trace.cells is not None
    assert trace.cells.shape == (2, len(text), 9)
    assert trace.gates.shape == (2, len(text), 36)
    assert trace.alternatives[0] == ()
    assert [len(each) for each in trace.alternatives[1:]] == [3] * (len(text) - 1)
    assert all(p >= q for each in trace.alternatives[1:] for (_, p), (_, q) in itertools.pairwise(each))
    with pytest.raises(RecurError, match="no text"):
        model.trace("")


def test_memory_does_not_grow_with_the_text(model: LanguageModel) -> None:
    piece = "abc de" * 200

    def peak(pieces: int) -> int:
        tracemalloc.start()
        model.evaluate(itertools.repeat(piece, pieces))
        for _ in itertools.islice(model.stream("a", seed=1), pieces):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(40) < 1.5 * peak(4)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hidden": 8}, r"head.weight of \[18, 9\]; expected \[18, 8\]"),
        ({"layers": 0}, "layers 0"),
        ({"cell": "transformer"}, "cell 'transformer'"),
        ({"embedding": "6"}, "embedding '6'"),
        ({"vocabulary_size": 5}, "characters, bundle.json says 5"),
    ],
)
def test_bundles_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    good = write_language_bundle(tmp_path / "good")
    meta = dict(read_bundle(good).meta)
    with pytest.raises(BundleError, match=what):
        write_bundle(
            tmp_path / "bad",
            {**meta, **changes},
            dict(read_bundle(good).weights),
            tokenizer=read_bundle(good).tokenizer,
            encoder=None,
            card="",
        )


def test_generate_prints_as_it_goes(bundle: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["generate", "--model", str(bundle), "--prompt", "ab", "--length", "70", "--seed", "3"]
    assert main(call) == 0
    assert capsys.readouterr().out == "ab" + model("ab", length=70, seed=3)
    assert main([*call, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line == {"prompt": "ab", "text": model("ab", length=70, seed=3), "seed": 3, "model": "tiny"}


def test_text_without_an_end_ends_when_nobody_reads_it(bundle: Path, model: LanguageModel) -> None:
    call = [sys.executable, "-m", "recur", "generate", "--model", str(bundle), "--length", "unlimited", "--seed", "8"]
    environment = {**os.environ, "PYTHONPATH": str(Path(recur.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read = process.stdout.read(3000).decode("utf-8", "ignore")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    assert len(read) > 500
    assert model(length=len(read), seed=8) == read


def test_generate_says_what_it_does_not_know(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", str(bundle), "--prompt", "aЖ\t", "--length", "1"]) == 0
    assert "2 characters of the prompt are unknown to tiny" in capsys.readouterr().err


def test_generate_reads_a_prompt_from_a_file(
    bundle: Path, model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.txt"
    path.write_text("bad cab", encoding="utf-8")
    assert main(["generate", "--model", str(bundle), "--prompt-file", str(path), "--length", "9"]) == 0
    assert capsys.readouterr().out == "bad cab" + model("bad cab", length=9)


def test_generate_calls_that_are_wrong(
    bundle: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for call, what in (
        (["--prompt", "a", "--prompt-file", "x"], "both --prompt and --prompt-file"),
        (["--length", "unlimited", "--json"], "never print"),
        (["--prompt-file", str(tmp_path / "none")], "cannot be read"),
    ):
        assert main(["generate", "--model", str(bundle), *call]) == 2
        assert what in capsys.readouterr().err
    assert main(["generate", "--model", str(tiny_bundle)]) == 2
    assert "no language model" in capsys.readouterr().err


def test_evaluate_measures_files_and_splits(
    bundle: Path, model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"a.txt": "abc de 生死.\n" * 20, "b.txt": "Ж" + "jihgfedc" * 10, "empty.txt": "", "one.txt": "a"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [str(tmp_path / name) for name in texts]
    call = ["evaluate", "language", "--model", str(bundle), "--json", "--data"]
    assert main([*call, *paths, str(tmp_path / "none.txt")]) == 1
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["a.txt", "b.txt"]
    for row in rows:
        assert row["nats"] == pytest.approx(model.evaluate(texts[Path(row["path"]).name])["nats"], abs=1e-6)
    assert rows[1]["unknown"] == 1
    failures = printed.err.splitlines()
    assert len(failures) == 3
    assert all("expected" in line for line in failures)
    assert main([*call, *paths[:2], "--split", "dev"]) == 0
    row = json.loads(capsys.readouterr().out)
    whole = texts["a.txt"] + texts["b.txt"]
    assert row["nats"] == pytest.approx(model.evaluate(whole[int(len(whole) * 0.9) :])["nats"], abs=1e-6)
