"""Training a language model: it learns, stops and goes on with the same weights, and refuses what it cannot use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from recur.bundle import read_bundle  # noqa: E402
from recur.data.characters import Characters  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.predict.language import LanguageModel  # noqa: E402
from recur.train import language, plot  # noqa: E402
from recur.train.orthogonal import orthogonal  # noqa: E402

TEXT = "the cat sat on the mat. 猫坐在垫子上。\n" * 60
SMALL: dict[str, Any] = {"hidden": 12, "embedding": 8, "epochs": 2, "batch": 4, "length": 16}
pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def weights(path: Path) -> dict[str, Any]:
    return dict(read_bundle(path, task="language").weights)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, how: Any) -> None:
    """Call `how` before the `at`-th step of training."""
    real, calls = language.piece_loss, iter(range(1, 10_000))

    def step(*given: Any) -> Any:
        if next(calls) == at:
            how()
        return real(*given)

    monkeypatch.setattr(language, "piece_loss", step)


def test_it_learns_a_text_and_says_so(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: Callable[[Any], bytes]
) -> None:
    monkeypatch.setattr(plot, "_png", undrawn)
    out = tmp_path / "model"
    language.train_language(
        data=[text], out=out, hidden=48, epochs=12, batch=4, length=16, rate=0.005, dropout=0.0, data_name="cats"
    )
    model = LanguageModel(read_bundle(out))
    assert model.meta["results"]["dev"]["nats"] < 0.25
    assert model("the cat", length=40, temperature=0.0).startswith(" sat on the mat. 猫坐在垫子上。\nthe c")
    card = (out / "CARD.md").read_text(encoding="utf-8")
    assert "cats" in card
    assert f"{model.meta['results']['dev']['nats']:.4f}" in card
    log = model.meta["training"]["log"]
    assert [row["epoch"] for row in log] == list(range(1, 13))
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert (tmp_path / "model.work" / "training.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "model.work" / "training.html").read_text(encoding="utf-8").count("<img") == 3


@pytest.mark.parametrize(("cell", "clean"), [("lstm", False), ("lstm", True), ("gru", False), ("rnn", True)])
def test_killed_or_stopped_and_resumed_is_the_same(
    cell: str, clean: bool, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "data": [text], "cell": cell, "dropout": 0.3, "weight_drop": 0.2}
    whole = weights(language.train_language(out=tmp_path / "whole", **options))

    def kill() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        interrupt(patch, 30, (lambda: os.kill(os.getpid(), signal.SIGTERM)) if clean else kill)
        if clean:
            language.train_language(out=tmp_path / "torn", **options)
        else:
            with pytest.raises(KeyboardInterrupt):
                language.train_language(out=tmp_path / "torn", **options)
    assert not (tmp_path / "torn").exists()
    with monkeypatch.context() as patch:
        interrupt(patch, 40, lambda: pytest.fail("it began again"))
        assert same(whole, weights(language.train_language(out=tmp_path / "torn", resume=True, **options)))


def test_another_seed_is_another_model_and_cannot_resume(text: Path, tmp_path: Path) -> None:
    first = weights(language.train_language(data=[text], out=tmp_path / "a", seed=1, **SMALL))
    second = weights(language.train_language(data=[text], out=tmp_path / "b", seed=2, **SMALL))
    assert not same(first, second)
    with pytest.raises(RecurError, match="seed was 1, now 3"):
        language.train_language(data=[text], out=tmp_path / "a", seed=3, resume=True, **SMALL)


def test_a_model_goes_on_from_another(text: Path, tmp_path: Path) -> None:
    first = language.train_language(data=[text], out=tmp_path / "a", **SMALL)
    other = tmp_path / "other.txt"
    other.write_text("the hat! " * 60, encoding="utf-8")
    torch.manual_seed(0)
    vocabulary = Characters.build("the hat! ")
    network = language.LanguageNetwork(vocabulary=len(vocabulary), embedding=8, hidden=12, layers=1)
    before = network.head.weight.detach().clone()
    language.start_from(network, vocabulary, first)
    theirs = read_bundle(first)
    known = Characters.from_bytes(theirs.tokenizer)
    row, theirs_row = vocabulary.encode("h")[0], known.encode("h")[0]
    np.testing.assert_array_equal(network.head.weight[row].detach().numpy(), theirs.weights["head.weight"][theirs_row])
    assert torch.equal(network.head.weight[vocabulary.encode("!")[0]], before[vocabulary.encode("!")[0]])
    np.testing.assert_array_equal(network.rnn[0].weight_hh_l0.detach().numpy(), theirs.weights["rnn.weight_hh_l0"])
    with pytest.raises(RecurError, match=r"weight_ih_l0 has shape \[48, 8\]; expected \[64, 8\]"):
        language.train_language(data=[other], out=tmp_path / "b", init=first, **{**SMALL, "hidden": 16})


def test_a_dev_text_of_its_own_and_rare_characters(text: Path, tmp_path: Path) -> None:
    dev = tmp_path / "dev.txt"
    dev.write_text("the mat sat on the çat.", encoding="utf-8")
    out = language.train_language(data=[text, text], dev=dev, out=tmp_path / "m", min_count=150, **SMALL)
    model = LanguageModel(read_bundle(out))
    assert set(model.characters.characters) == {c for c in TEXT if 2 * TEXT.count(c) >= 150}
    assert model.meta["training"]["characters"] == 2 * len(TEXT)
    assert model.meta["results"]["dev"]["unknown"] > 0


@pytest.mark.parametrize(("content", "what"), [("", "no text in it"), ("a", "1 characters"), ("a" * 19, "19 char")])
def test_too_little_text_is_refused(content: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecurError, match=what):
        language.train_language(data=[path], out=tmp_path / "m", **SMALL)


def test_the_least_text_there_may_be(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("ab" * 10, encoding="utf-8")
    out = language.train_language(data=[path], out=tmp_path / "m", **SMALL)
    assert read_bundle(out).meta["results"]["dev"]["characters"] == 1


def test_what_is_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(TEXT.encode() + b"\xff")
    language.train_language(data=[path], out=tmp_path / "m", **SMALL)
    assert "warning" in (said := capsys.readouterr().err)
    assert "1 characters were no text" in said


def test_steps_of_equal_length_in_every_direction() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 24, 16) * torch.tensor([1.0, 1e-3])[:, None, None]
    found = torch.linalg.svdvals(orthogonal(matrices, 5))
    assert float(found.min()) > 0.5
    assert float(found.max()) < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    alignment = (orthogonal(matrices, 5) * (left @ right)).sum((1, 2)) / 16
    assert float(alignment.min()) > 0.7
