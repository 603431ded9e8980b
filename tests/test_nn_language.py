"""The language model: its fast scan, its state, its dropout, and its twin in the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recur.engine.native import Decoder  # noqa: E402
from recur.nn.language import LanguageNetwork  # noqa: E402
from recur.nn.scan import lstm_scan  # noqa: E402


def network(cell: str, layers: int = 2, **options: Any) -> LanguageNetwork:
    torch.manual_seed(0)
    made = LanguageNetwork(vocabulary=7, cell=cell, embedding=5, hidden=6, layers=layers, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def test_scan_is_torch_lstm_with_every_gradient() -> None:
    torch.manual_seed(1)
    steps, rows, inputs, hidden = 7, 3, 4, 5
    layer = torch.nn.LSTM(inputs, hidden).double()
    x = torch.randn(steps, rows, inputs, dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(rows, hidden, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mine_in = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0)
    mine = lstm_scan(mine_in, layer.weight_hh_l0, h, c)
    theirs, (last_h, last_c) = layer(x, (h[None], c[None]))
    weights = [torch.randn_like(theirs), torch.randn_like(h), torch.randn_like(c)]
    leaves = [x, h, c, *layer.parameters()]
    gradients = []
    for outputs in (mine, (theirs, last_h[0], last_c[0])):
        total = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
        gradients.append(torch.autograd.grad(total, leaves))
    for a, b in zip((*mine, *gradients[0]), (theirs, last_h[0], last_c[0], *gradients[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_scan_passes_gradcheck() -> None:
    torch.manual_seed(2)
    shapes = ((3, 2, 12), (12, 3), (2, 3), (2, 3))
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lstm_scan, given)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_text_in_pieces_is_the_whole_text(cell: str) -> None:
    model = network(cell).eval()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 7, (11, 2)))
    whole, last = model(tokens, model.first_state(2))
    parts, state = [], model.first_state(2)
    for piece in tokens.split(4):
        scores, state = model(piece, state)
        parts.append(scores)
    torch.testing.assert_close(torch.cat(parts), whole)
    assert state.to_dict().keys() == last.to_dict().keys()
    for name, part in state.to_dict().items():
        torch.testing.assert_close(part, last.to_dict()[name])


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("isa", [None, "reference"])
def test_engine_gives_the_same_scores(cell: str, isa: str | None) -> None:
    model = network(cell).eval()
    tokens = np.random.default_rng(0).integers(0, 7, (1, 20))
    with torch.no_grad():
        scores, _ = model(torch.from_numpy(tokens.T.copy()), model.first_state(1))
    weights = {name: value.numpy() for name, value in model.engine_weights().items()}
    reading = Decoder(weights, cell=cell, layers=2, isa=isa).read(tokens)  # type: ignore[arg-type]
    np.testing.assert_allclose(reading.logits[0], scores[:, 0].numpy(), atol=2e-5)


def test_dropout_is_the_same_at_every_step_and_gone_when_measuring() -> None:
    model = network("lstm", layers=1, dropout=0.5)
    model.head.weight.data = torch.eye(7, 6)
    model.head.bias.data.zero_()
    tokens = torch.zeros(9, 4, dtype=torch.long)
    torch.manual_seed(3)
    out, _ = model(tokens, model.first_state(4))
    dropped = (out[..., :6] == 0).all(0)
    assert 0 < int(dropped.sum()) < dropped.numel()
    assert not (out[..., :6] == 0)[:, ~dropped].any()
    model.eval()
    assert not (model(tokens, model.first_state(4))[0][..., :6] == 0).any()


def test_weight_drop_leaves_recurrent_weights_out() -> None:
    model = network("gru", layers=1, dropout=0.0, weight_drop=0.5)
    tokens = torch.zeros(3, 1, dtype=torch.long)
    torch.manual_seed(4)
    first, _ = model(tokens, model.first_state(1))
    second, _ = model(tokens, model.first_state(1))
    torch.testing.assert_close(first[0], second[0])  # from a state of zeros nothing recurs yet
    assert float((first[2] - second[2]).detach().abs().max()) > 1e-3
