"""What the training page shows is what happened: gradients against finite differences, updates against the weights."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from recur.nn.language import LanguageNetwork  # noqa: E402
from recur.nn.state import State  # noqa: E402
from recur.train.watch import gradients_back, render_training, update_ratios, weights_of  # noqa: E402


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_gradients_back_are_those_of_small_changes(cell: str) -> None:
    torch.manual_seed(2)
    network = LanguageNetwork(vocabulary=7, cell=cell, embedding=3, hidden=4, layers=2).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(network.head.weight)
    piece = torch.randint(1, 7, (6, 1))
    norms = gradients_back(network, piece)
    assert network.training
    assert len(norms) == 4
    network.eval()

    def last_loss(state: State, at: int) -> float:
        """The loss of the last character, read on from what the step before `at` handed on."""
        with torch.no_grad():
            scores, _ = network(piece[at:-1], state)
        return float(torch.nn.functional.cross_entropy(scores[-1], piece[-1]))

    for back in (1, 4):
        at = len(piece) - 1 - back
        with torch.no_grad():
            _, state = network(piece[:at], network.first_state(1))
        squares = 0.0
        for number, layer in enumerate(state.layers):
            for part in range(len(layer)):
                for unit in range(4):
                    costs = []
                    for sign in (1, -1):
                        moved = [[each.clone() for each in parts] for parts in state.layers]
                        moved[number][part][0, unit] += sign * 1e-6
                        costs.append(last_loss(State(tuple(tuple(parts) for parts in moved)), at))
                    squares += ((costs[0] - costs[1]) / 2e-6) ** 2
        assert norms[back - 1] == pytest.approx(squares**0.5, rel=1e-4)


def test_ratios_are_those_of_the_step() -> None:
    torch.manual_seed(0)
    network = LanguageNetwork(vocabulary=5, embedding=3, hidden=4, layers=1)
    before = weights_of(network)
    with torch.no_grad():
        for value in network.parameters():
            value *= 1.01
    ratios = update_ratios(before, network)
    assert "head.weight" not in ratios  # it begins with zeros
    assert ratios["rnn.0.weight_hh_l0"] == pytest.approx(0.01, rel=1e-3)


def test_the_page_fetches_nothing() -> None:
    log = [{"epoch": 1, "loss": 2.5, "dev": 2.25}, {"epoch": 2, "loss": 2.0, "dev": 2.1}]
    watched = [{"epoch": n, "gradients": [0.5, 0.25, 0.0], "ratios": {"a<b": 0.001}} for n in (1, 2)]
    page = render_training("cats & dogs", log, watched)
    assert "default-src 'none'" in page
    assert page.count('<img src="data:image/png;base64,') == 3
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\(""", page)
    assert "cats &amp; dogs" in page
    assert "a&lt;b" in page
    assert "2.25" in page
    assert render_training("x", log, []).count("<img") == 1
