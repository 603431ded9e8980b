"""Benchmarks: nothing is timed before results agree, and what is told is whole. How fast it is, is not asserted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recur
from recur.bench import measure, step
from recur.bench.beam import noise, settings
from recur.cli import main
from recur.cli.bench import BENCHMARKS
from recur.data.text import END
from recur.engine.hypotheses import Hypothesis
from recur.errors import RecurError

ROW: dict[str, Any] = {
    "ours": "mine",
    "against": ["slow", "slower"],
    "unit": "ms",
    "scale": 1e3,
    "checked": "all equal",
}


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    times = measure.together({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "b": 3}


def test_rested_contestants_run_untimed_before_each_timed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM", 0.0)
    calls: list[str] = []
    contestants = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    times = measure.together(contestants, rounds=2, rested=True)
    assert "".join(calls) == "ab" + "aabb" + "bbaa"
    assert {name: len(each) for name, each in times.items()} == {"a": 2, "b": 2}
    monkeypatch.setattr(measure, "WARM", 0.005)
    calls.clear()
    measure.together({"a": lambda: calls.append("a")}, rounds=1, rested=True)
    assert len(calls) > 3


def test_a_row_has_medians_and_the_median_of_the_ratios_to_the_best() -> None:
    times = {"mine": [1.0, 2.0, 4.0], "slow": [10.0, 12.0, 20.0], "slower": [90.0, 90.0, 90.0]}
    row = measure.compare("x", "what", times, need=5, **ROW)
    assert row.times == {"mine": 2000.0, "slow": 12000.0, "slower": 90000.0}
    assert row.ratio == 6.0
    told = row.to_json()
    assert told["ratio"] == 6.0
    assert told["checked"] == "all equal"
    assert json.loads(json.dumps(told)) == told


def test_time_is_told_only_of_equal_results() -> None:
    assert measure.require(True, "x", "the same") == "the same"
    with pytest.raises(measure.Unequal, match="x: results differ \\(far apart\\); expected equal ones"):
        measure.require(False, "x", "far apart")


def test_rounds_end_when_time_is_up() -> None:
    times = measure.together({"a": lambda: time.sleep(0.01)}, rounds=1000, seconds=0.02)
    assert len(times["a"]) == 3


def test_where_names_what_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--where", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)["machine"]
    assert machine["core_instructions"] in machine["core_available"]
    assert machine["versions"]["recur"] == recur.__version__
    assert main(["bench", "--where"]) == 0
    assert "picture encoder: onnxruntime" in capsys.readouterr().out


@pytest.mark.parametrize(("names", "said"), [(["speed"], "no benchmark 'speed'"), ([], "nothing to measure")])
def test_only_known_benchmarks(names: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *names]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert all(name in err for name in BENCHMARKS)


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(RecurError, match=r'needs no_such_package.*pip install "recur\[train\]"'):
        measure.load("no_such_package")


def test_bandwidth_and_bytes_are_counted() -> None:
    measure.fastest_reader(100_000, seconds=0.03)()
    decoder = step.Decoder(step.weights_of(16, 9), cell="lstm", layers=2, precision="int8")
    assert step.streamed_bytes(decoder, 9) == (3 * 64 + 9) * (16 + 4)


def test_a_process_is_measured(tiny_bundle: Path, photos: list[Path]) -> None:
    arguments = ["caption", str(photos[0]), "--model", str(tiny_bundle), "--json"]
    seconds, memory, output = measure.peak_memory(arguments)
    assert seconds > 0
    assert memory > 1e7
    assert json.loads(output)["path"] == str(photos[0])
    with pytest.raises(RecurError, match="ended with status 2"):
        measure.peak_memory(["caption", "--model", "no-such-model", str(photos[0])])


torch = pytest.importorskip("torch")


def test_the_step_of_pytorch_is_the_same_network() -> None:
    hidden = 16
    weights = step.weights_of(hidden, 9)
    ours = {name: step.Decoder(weights, cell="lstm", layers=2, precision=name) for name in step.PRECISIONS}
    checked = step._check(ours, weights, hidden, torch)
    assert "greedy tokens the same: True" in checked["float32"]
    wrong = {**weights, "head.bias": weights["head.bias"] + np.arange(9, dtype=np.float32)}
    with pytest.raises(measure.Unequal):
        step._check(ours, wrong, hidden, torch)
    for kind in ("LSTM", "LSTMCell"):
        begin = step.torch_step(torch, weights, hidden, kind, False)
        tokens = step.torch_loop(torch, *begin, 12, 1)()
        found = ours["float32"].generate(np.zeros((1, 1), np.int64), length=12)
        assert tokens == found.tokens[0].tolist()


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("beam", [1, 4])
def test_the_beam_search_in_pytorch_finds_the_same(tiny_bundle: Path, beam: int, penalty: float) -> None:
    from recur.bench.torch_beam import TorchCaptioner

    model = recur.load(tiny_bundle)
    bundle = model.bundle
    vocabulary = bundle.vocabulary()
    words = np.flatnonzero(vocabulary.allowed("en"))
    sizes: dict[str, Any] = {"cell": bundle.meta["cell"], "layers": bundle.meta["layers"]}
    theirs = TorchCaptioner(torch, bundle.weights, **sizes, words=words, language=vocabulary.language_id("en"), end=END)
    ours = step.Decoder(bundle.weights, **sizes, words=words)
    features = model.encoder(noise(6, model.size))
    limits = settings(bundle, "en") | {"length_penalty": penalty}
    prompt = np.full((6, 1), vocabulary.language_id("en"))
    found: list[tuple[Hypothesis, ...]] = ours.beam_search(features, prompt=prompt, end=END, beam=beam, **limits)
    expected = theirs.beam_search(features, beam=beam, **limits)
    assert [each[0].tokens.tolist() for each in found] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose([each[0].log_prob for each in found], [total for _, total in expected], atol=1e-4)


def test_rows_become_a_picture() -> None:
    pytest.importorskip("matplotlib")
    from recur.bench.plot import plot

    bars = measure.compare("x", "what", {"mine": [1.0], "slow": [9.0], "slower": [20.0]}, **ROW)
    curve = measure.Row("growth", "what", "s", {"10": 1.0, "100": 9.0}, "100", None, None, "equal")
    for rows in ([bars, bars], [curve] * 4):
        assert plot(rows, title="here").startswith(b"\x89PNG")


def test_growth_is_measured_and_checked(tiny_bundle: Path) -> None:
    from recur.bench import growth

    rows = list(growth.run(model=recur.load(tiny_bundle), name=str(tiny_bundle), quick=True))
    assert [list(row.times) for row in rows] == [["10", "40"], ["64", "128"], ["100", "1000"], ["1", "2"]]
    assert rows[0].more["peak_memory_mb_40"] > 10
    assert all(np.isfinite(row.more["exponent"]) for row in rows)
    assert all(min(row.times.values()) > 0 for row in rows)


def test_photographs_are_captioned_by_the_command_as_by_the_library(tiny_bundle: Path, tmp_path: Path) -> None:
    from recur.bench import caption

    folder = caption.write_photographs(tmp_path / "photos", 3)
    paths = sorted(str(path) for path in folder.iterdir())
    assert caption._size(paths[0]) == "500 x 375"
    model = recur.load(tiny_bundle)
    output = measure.peak_memory(["caption", str(folder), "--model", str(tiny_bundle), "--json"])[2]
    assert caption._check(model, paths, output).startswith("3 captions of 3 pictures, 3 of 3 the same")
    with pytest.raises(measure.Unequal, match="2 captions of 3 pictures"):
        caption._check(model, paths, b"".join(output.splitlines(keepends=True)[:2]))


def test_a_scan_is_compared_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    from recur.bench import scan

    monkeypatch.setattr(scan, "HIDDEN", (8,))
    monkeypatch.setattr(scan, "BATCHES", (2,))
    monkeypatch.setattr(scan, "TIMES", (3, 5))
    rows = list(scan.run(quick=True))
    assert [row.what for row in rows] == [
        f"lstm, B 2, T {time}, H 8, {precision}" for time in (3, 5) for precision in ("float32", "bfloat16")
    ]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows)
