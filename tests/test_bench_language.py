"""Learning a text beside a small GPT: both learn, the course is the published one, and what is told is whole."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from recur.bench import language, small_gpt  # noqa: E402
from recur.cli import main  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.train import language as training  # noqa: E402


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat, and the dog ran to the door.\n" * 60, encoding="utf-8")
    return path


def test_the_course_of_the_recipe() -> None:
    assert small_gpt.rate_at(0, 2000) == pytest.approx(1e-3 / 101)
    assert small_gpt.rate_at(100, 2000) == pytest.approx(1e-3)
    assert small_gpt.rate_at(1050, 2000) == pytest.approx(0.55e-3)
    assert small_gpt.rate_at(2000, 2000) == pytest.approx(1e-4)


def test_the_small_gpt_has_its_size_and_sees_no_future() -> None:
    torch.manual_seed(0)
    network = small_gpt.make(torch, 65)
    assert sum(p.numel() for p in network.parameters()) - network.places.weight.numel() == pytest.approx(
        0.80e6, rel=0.01
    )
    tokens, others = torch.randint(65, (2, 2, 20))
    scores = network(tokens)
    assert float(torch.nn.functional.cross_entropy(scores.flatten(0, 1), others.flatten()).detach()) == pytest.approx(
        math.log(65), abs=0.2
    )
    changed = tokens.clone()
    changed[:, 12:] = 0
    torch.testing.assert_close(network(changed)[:, :12], scores[:, :12])
    assert not torch.allclose(network(changed)[:, 12:], scores[:, 12:])


def test_both_learn(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.from_numpy(training.Characters.build(text.read_text()).encode(text.read_text()))
    torch.manual_seed(0)
    gpt = small_gpt.make(torch, 30)
    before = small_gpt.nats(torch, gpt, ids)
    small_gpt.train(torch, gpt, ids, steps=20)
    assert small_gpt.nats(torch, gpt, ids) < before - 0.3
    ticks = itertools.count(0.0, 0.04)  # a clock of our own: how fast the machine is must not matter
    monkeypatch.setattr(language, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    network, seconds, read = language.learn(torch, training, ids, 30, 1.0, 0.01)
    assert seconds == pytest.approx(1.0, abs=0.1)
    assert read > 20_000
    assert training.dev_loss(network, ids) < math.log(30) - 0.3


def test_what_is_told(text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(small_gpt, "STEPS", 40)
    assert main(["bench", "language", "--text", str(text), "--quick", "--json"]) == 0
    machine, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert "machine" in machine
    assert [row["need"] for row in rows] == [6, 1]
    for row in rows:
        assert set(row["times"]) == {"LSTM", "GPT"}
        assert (row["ratio"] is None) == (row["lstm_nats"] > row["gpt_nats"])
    assert rows[0]["times"]["LSTM"] >= rows[1]["times"]["GPT"] / 6 * 0.99


def test_a_text_is_needed(tmp_path: Path) -> None:
    with pytest.raises(RecurError, match="--text FILE"):
        next(language.run(text=None))
    (tmp_path / "short").write_text("abc" * 50)
    with pytest.raises(RecurError, match="longer text"):
        next(language.run(text=tmp_path / "short"))
