"""The plots: whole pictures that show what was given."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from recur.errors import RecurError
from recur.train import plot
from recur.train.plot import plot_ratios, plot_reliability, plot_training

LOG = [
    {"phase": "decoder", "epoch": 1, "loss": 4.0, "en": 20.0, "en_distinct": 100.0},
    {"phase": "decoder", "epoch": 2, "loss": 3.0, "en": 30.0, "zh": 55.5, "zh_distinct": 20.0},
    {"phase": "cider", "epoch": 1, "loss": -0.5, "mean": 50.625, "en": 41.25, "zh": 60.0},
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were made."""
    figures: list[Any] = []
    real = plot._png
    monkeypatch.setattr(plot, "_png", lambda figure: figures.append(figure) or real(figure))
    return figures


def size_of(encoded: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(encoded)) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


def test_training_plot(drawn: list[Any]) -> None:
    first = plot_training(LOG)
    assert size_of(first) == (704, 616)
    below, *above = drawn[0].axes
    losses = [[line.get_ydata().tolist() for line in panel.lines] for panel in above]
    assert losses == [[[4.0, 3.0]], [[-0.5]]], "a panel a phase"
    scores = {line.get_label(): line.get_ydata() for line in below.lines if line.get_marker() == "."}
    assert list(scores) == ["en", "zh"]
    np.testing.assert_array_equal(scores["zh"], [np.nan, 55.5, 60.0])
    assert {text.get_text() for text in below.texts} == {"41.2", "60.0"}
    assert [panel.get_title("left") for panel in above] == ["decoder", "cider"]
    assert [line.get_xdata()[0] for line in below.lines if line.get_marker() != "."] == [2.5], "where a phase begins"
    assert plot_training(LOG) == first


def test_training_plot_of_one_epoch_and_of_none() -> None:
    assert size_of(plot_training([{"phase": "decoder", "epoch": 1, "loss": 4.0}])) == (704, 616)
    with pytest.raises(RecurError, match="log is empty"):
        plot_training([])


@pytest.mark.parametrize(("count", "width"), [(6, 704), (7, 968)])
def test_lines_of_many_matrices_are_told_apart(count: int, width: int, drawn: list[Any]) -> None:
    watched = [{"epoch": n, "ratios": {f"w{i}": 0.001 * n for i in range(count)}} for n in (1, 2)]
    assert size_of(plot_ratios(watched))[0] == width
    lines = [line for line in drawn[0].axes[0].lines if line.get_marker() == "."]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == count


def test_reliability_plot(drawn: list[Any]) -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0, 1, 500)
    good = random.uniform(0, 1, 500) < confidence
    assert size_of(plot_reliability(confidence, good)) == (880, 418)
    left, right = drawn[0].axes
    said, was = left.lines[1].get_data()
    assert len(said) == 10
    assert np.abs(said - was).max() < 0.2
    assert abs(float(right.lines[0].get_ydata()[-1]) - (1 - good.mean())) < 1e-9


@pytest.mark.parametrize("count", [1, 3])
def test_reliability_plot_of_few(count: int) -> None:
    assert size_of(plot_reliability(np.full(count, 0.5), np.ones(count, bool))) == (880, 418)


def test_reliability_plot_refuses_what_does_not_fit() -> None:
    for confidence, good in (([], []), ([0.5, 0.5], [True])):
        with pytest.raises(RecurError, match="expected one of each a picture"):
            plot_reliability(np.array(confidence), np.array(good))
