"""The reference engine against PyTorch, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import random_weights

from recur.engine.reference import GATES, caption_logits, scan, sigmoid, softmax

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def recurrent(cell: str, inputs: int, hidden: int, layers: int) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(3)
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    module = kind(inputs, hidden, num_layers=layers, batch_first=True, dtype=torch.float64)
    return module, {name: value.detach().numpy() for name, value in module.named_parameters()}


def torch_state(cell: str, state: list[Any]) -> Any:
    parts = [torch.from_numpy(np.stack([layer[i] for layer in state])) for i in range(len(state[0]))]
    return tuple(parts) if cell == "lstm" else parts[0]


def parts_of(state: Any) -> list[Any]:
    return [part.detach().numpy() for part in (state if isinstance(state, tuple) else (state,))]


def stacked(state: list[Any]) -> list[Any]:
    return [np.stack([layer[i] for layer in state]) for i in range(len(state[0]))]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_scan_equals_torch(cell: Any, layers: int) -> None:
    module, weights = recurrent(cell, 5, 7, layers)
    x = np.random.default_rng(0).standard_normal((3, 11, 5))
    out, state = scan(cell, x, weights, layers=layers)
    expected, last = module(torch.from_numpy(x))
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=0, atol=1e-12)
    for mine, theirs in zip(stacked(state), parts_of(last), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_scan_with_lengths_equals_packed_torch(cell: Any) -> None:
    module, weights = recurrent(cell, 4, 6, 2)
    random = np.random.default_rng(1)
    x, lengths = random.standard_normal((4, 9, 4)), np.array([9, 1, 5, 8])
    begin = [tuple(random.standard_normal((4, 6)) for _ in range(2 if cell == "lstm" else 1)) for _ in range(2)]
    out, state = scan(cell, x, weights, layers=2, state=begin, lengths=lengths)
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(torch.from_numpy(x), lengths, batch_first=True, enforce_sorted=False)
    expected, last = module(packed, torch_state(cell, begin))
    expected, _ = rnn.pad_packed_sequence(expected, batch_first=True, total_length=9)
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=0, atol=1e-12)
    for mine, theirs in zip(stacked(state), parts_of(last), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_state_carries_a_scan_on(cell: Any) -> None:
    _, weights = recurrent(cell, 4, 6, 2)
    x = np.random.default_rng(2).standard_normal((2, 10, 4))
    whole, last = scan(cell, x, weights, layers=2)
    head, between = scan(cell, x[:, :3], weights, layers=2)
    tail, after = scan(cell, x[:, 3:], weights, layers=2, state=between)
    np.testing.assert_array_equal(np.concatenate([head, tail], axis=1), whole)
    for mine, theirs in zip(stacked(after), stacked(last), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_length_zero_leaves_the_state_alone() -> None:
    _, weights = recurrent("lstm", 4, 6, 1)
    random = np.random.default_rng(3)
    begin = [(random.standard_normal((2, 6)), random.standard_normal((2, 6)))]
    out, state = scan("lstm", random.standard_normal((2, 3, 4)), weights, state=begin, lengths=np.array([0, 3]))
    assert (out[0] == 0).all()
    assert (out[1] != 0).all()
    np.testing.assert_array_equal(state[0][0][0], begin[0][0][0])
    np.testing.assert_array_equal(state[0][1][0], begin[0][1][0])


def test_the_type_of_the_numbers_is_kept() -> None:
    sizes = {"cell": "gru", "hidden": 6, "layers": 2, "embedding": 5, "attention": 4, "vocabulary": 9, "channels": 3}
    for dtype in (np.float32, np.float64):
        features = np.ones((2, 4, 3), dtype)
        logits, alpha = caption_logits(
            features, np.zeros((2, 3), int), random_weights(dtype=dtype, **sizes), cell="gru", layers=2, attention=True
        )
        assert alpha is not None
        assert logits.dtype == alpha.dtype == dtype


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    np.testing.assert_allclose(sigmoid(x), torch.sigmoid(torch.from_numpy(x)).numpy(), atol=1e-15)
    np.testing.assert_allclose(softmax(x), [0, 0, 0, 0, 1], atol=1e-15)


def torch_caption_logits(features: Any, tokens: Any, w: dict[str, Any], cell: str, layers: int, attention: bool) -> Any:
    """The decoder once more, with torch's own cells and its attention written out one picture at a time."""
    kind = {"rnn": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell]
    hidden = w["rnn.weight_hh_l0"].shape[1]
    cells = []
    for i in range(layers):
        module = kind(w[f"rnn.weight_ih_l{i}"].shape[1], hidden, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(module, name).data = w[f"rnn.{name}_l{i}"]
        cells.append(module)
    linear = torch.nn.functional.linear
    results, alphas = [], []
    for picture, words in zip(features, tokens, strict=True):
        memory = linear(picture, w["memory.weight"], w["memory.bias"]) if attention else None
        inputs = [linear(picture.mean(0), w["start.weight"], w["start.bias"]), *w["embedding.weight"][words]]
        state: list[Any] = [None] * layers
        rows, looks = [], []
        for x in inputs:
            below, context = x[None], None
            for i, module in enumerate(cells):
                if i == 1 and context is not None:
                    below = torch.cat([below, context], 1)
                state[i] = module(below, state[i])
                below = state[i][0] if cell == "lstm" else state[i]
                if i == 0 and memory is not None:
                    query = linear(below, w["attention.query.weight"], w["attention.query.bias"])
                    mixed = torch.tanh(linear(memory, w["attention.key.weight"]) + query)
                    alpha = torch.softmax(linear(mixed, w["attention.score.weight"])[:, 0], 0)
                    context = alpha[None] @ memory
                    looks.append(alpha)
            top = below if context is None else torch.cat([below, context], 1)
            out = torch.tanh(linear(top, w["output.weight"], w["output.bias"]))
            rows.append(linear(out, w["embedding.weight"], w["head.bias"])[0])
        results.append(torch.stack(rows[1:]))
        alphas.append(torch.stack(looks[1:]) if looks else None)
    return torch.stack(results), torch.stack(alphas) if attention else None


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("attention", [0, 4])
def test_caption_decoder_equals_torch(cell: Any, layers: int, attention: int) -> None:
    weights = random_weights(
        4, np.float64, cell=cell, hidden=6, layers=layers, embedding=5, attention=attention, vocabulary=11, channels=3
    )
    random = np.random.default_rng(5)
    features, tokens = random.standard_normal((3, 4, 3)), random.integers(0, 11, (3, 5))
    logits, alpha = caption_logits(features, tokens, weights, cell=cell, layers=layers, attention=bool(attention))
    with torch.no_grad():
        expected, looks = torch_caption_logits(
            torch.from_numpy(features),
            torch.from_numpy(tokens),
            {name: torch.from_numpy(value) for name, value in weights.items()},
            cell,
            layers,
            bool(attention),
        )
    assert logits.shape == (3, 5, 11)
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-12)
    if attention:
        assert alpha is not None
        np.testing.assert_allclose(alpha, looks.numpy(), rtol=0, atol=1e-12)
    else:
        assert alpha is None
    assert len(weights["rnn.bias_hh_l0"]) == GATES[cell] * 6
