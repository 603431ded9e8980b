"""Weights to and from torch.nn and Keras, and ONNX graphs of recurrent networks: the same numbers everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from helpers import random_weights

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from recur.engine.reference import PARTS, Cell, caption_logits, scan  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.nn.exchange import KINDS, from_keras, from_torch, to_keras, to_torch  # noqa: E402
from recur.nn.export_sequence import export_caption, export_stack  # noqa: E402

CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")
Weights = dict[str, npt.NDArray[np.float32]]


def made(cell: Cell, *, both: bool = False, layers: int = 2, bias: bool = True) -> Any:
    torch.manual_seed(0)
    module = KINDS[cell](5, 7, layers, batch_first=True, bidirectional=both, bias=bias)
    for value in module.parameters():
        torch.nn.init.uniform_(value, -0.8, 0.8)
    return module.eval()


def sequences(batch: int = 3, time: int = 6) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((batch, time, 5)).astype(np.float32)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_and_back_is_the_same_module(cell: Cell, both: bool) -> None:
    module = made(cell, both=both)
    kind, weights = from_torch(module)
    assert kind == cell
    again = to_torch({f"rnn.{name}": value for name, value in weights.items()}, cell, prefix="rnn.")
    x = torch.from_numpy(sequences())
    assert torch.equal(module(x)[0], again(x)[0])
    if not both:
        found, _ = scan(cell, sequences(), weights, layers=2)
        np.testing.assert_allclose(found, module(x)[0].detach(), atol=1e-5)


def test_a_module_without_biases_gets_zeros() -> None:
    module = made("gru", bias=False)
    _, weights = from_torch(module)
    found, _ = scan("gru", sequences(), weights, layers=2)
    np.testing.assert_allclose(found, module(torch.from_numpy(sequences()))[0].detach(), atol=1e-5)


def test_what_is_another_function_is_refused() -> None:
    for module in (torch.nn.LSTM(5, 7, proj_size=3), torch.nn.RNN(5, 7, nonlinearity="relu")):
        with pytest.raises(RecurError, match=r"expected torch\.nn\.RNN with tanh"):
            from_torch(module)
    with pytest.raises(RecurError, match="weight_ih_l0 is missing"):
        to_torch({}, "lstm")
    _, weights = from_torch(made("lstm"))
    with pytest.raises(RecurError, match="do not make a lstm of 2 layers"):
        to_torch({**weights, "weight_hh_l1": weights["weight_hh_l1"][:, 1:]}, "lstm")


# Keras' published equations (the documentation of keras.layers.LSTM, GRU and SimpleRNN), one step.


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def keras_layer(cell: Cell, arrays: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    kernel, recurrent, bias = arrays
    units = recurrent.shape[0]
    h = c = np.zeros((len(x), units))
    out = []
    for t in range(x.shape[1]):
        if cell == "rnn":
            h = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        elif cell == "lstm":
            z = x[:, t] @ kernel + h @ recurrent + bias
            i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            given, inner = x[:, t] @ kernel + bias[0], h @ recurrent + bias[1]
            z = sigmoid(given[:, :units] + inner[:, :units])
            r = sigmoid(given[:, units : 2 * units] + inner[:, units : 2 * units])
            candidate = np.tanh(given[:, 2 * units :] + r * inner[:, 2 * units :])
            h = z * h + (1 - z) * candidate
        out.append(h)
    return np.stack(out, 1)


def keras_shapes(cell: Cell, inputs: int, units: int) -> list[tuple[int, ...]]:
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell] * units
    return [(inputs, gates), (units, gates), (2, gates) if cell == "gru" else (gates,)]


@pytest.mark.parametrize("cell", CELLS)
def test_keras_layers_give_the_same_outputs_here(cell: Cell) -> None:
    random = np.random.default_rng(1)
    layers = [
        [random.standard_normal(shape).astype(np.float32) for shape in keras_shapes(cell, inputs, 4)]
        for inputs in (5, 4)
    ]
    weights = from_keras(layers, cell)
    found, _ = scan(cell, sequences(), weights, layers=2)
    expected = keras_layer(cell, layers[1], keras_layer(cell, layers[0], sequences()))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(to_torch(weights, cell)(torch.from_numpy(sequences()))[0].detach(), expected, atol=1e-5)
    for before, after in zip(layers, to_keras(weights, cell), strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_own_weights_give_the_same_outputs_in_keras(cell: Cell) -> None:
    _, weights = from_torch(made(cell))
    first, second = to_keras({f"rnn.{name}": value for name, value in weights.items()}, cell, prefix="rnn.")
    expected, _ = scan(cell, sequences(), weights, layers=2)
    found = keras_layer(cell, second, keras_layer(cell, first, sequences()))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_keras_both_directions_are_six_arrays() -> None:
    _, weights = from_torch(made("gru", both=True))
    layers = to_keras(weights, "gru")
    assert [len(arrays) for arrays in layers] == [6, 6]
    again = from_keras(layers, "gru")
    assert set(again) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value)


def test_keras_arrays_that_do_not_fit_are_refused() -> None:
    random = np.random.default_rng(1)
    gru = [random.standard_normal(shape) for shape in keras_shapes("gru", 5, 4)]
    with pytest.raises(RecurError, match="reset_after=False"):
        from_keras([[gru[0], gru[1], gru[2][0]]], "gru")
    with pytest.raises(RecurError, match=r"expected \[D, 4H\]"):
        from_keras([gru], "lstm")
    with pytest.raises(RecurError, match="2 arrays"):
        from_keras([gru[:2]], "gru")


def run(encoded: bytes, **inputs: Any) -> dict[str, npt.NDArray[Any]]:
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_onnx_runtime_scans_any_batch_and_time(cell: Cell, both: bool) -> None:
    module = made(cell, both=both)
    encoded = export_stack(from_torch(module)[1], cell)
    for batch, time in ((3, 6), (1, 1), (5, 11)):
        x = sequences(batch, time)
        expected = module(torch.from_numpy(x))[0].detach().numpy()
        np.testing.assert_allclose(run(encoded, x=x)["outputs"], expected, atol=1e-5)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_onnx_state_goes_in_and_out(cell: Cell, both: bool) -> None:
    module = made(cell, both=both)
    encoded = export_stack(from_torch(module)[1], cell, state=True)
    count = 2 * (1 + both)
    random = np.random.default_rng(2)
    names = ("h", "c")[: PARTS[cell]]
    state = {name: random.standard_normal((count, 3, 7)).astype(np.float32) for name in names}
    given = tuple(torch.from_numpy(state[name]) for name in names)
    out, last = module(torch.from_numpy(sequences()), given if cell == "lstm" else given[0])
    found = run(encoded, x=sequences(), **state)
    np.testing.assert_allclose(found["outputs"], out.detach(), atol=1e-5)
    for name, value in zip(names, last if cell == "lstm" else (last,), strict=True):
        np.testing.assert_allclose(found[f"last_{name}"], value.detach(), atol=1e-5)


def test_onnx_language_model_goes_on_where_it_stopped() -> None:
    random = np.random.default_rng(3)
    weights: Weights = {f"rnn.{name}": value for name, value in from_torch(made("lstm"))[1].items()}
    weights["embedding.weight"] = random.standard_normal((11, 5)).astype(np.float32)
    weights["head.weight"] = random.standard_normal((11, 7)).astype(np.float32)
    weights["head.bias"] = random.standard_normal(11).astype(np.float32)
    tokens = random.integers(0, 11, (2, 8))
    out, _ = scan("lstm", weights["embedding.weight"][tokens], weights, layers=2, prefix="rnn.")
    expected = out @ weights["head.weight"].T + weights["head.bias"]
    whole = run(export_stack(weights, "lstm", prefix="rnn."), tokens=tokens)["logits"]
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    encoded = export_stack(weights, "lstm", prefix="rnn.", state=True)
    state = {name: np.zeros((4 // 2, 2, 7), np.float32) for name in ("h", "c")}
    first = run(encoded, tokens=tokens[:, :3], **state)
    second = run(encoded, tokens=tokens[:, 3:], h=first["last_h"], c=first["last_c"])
    np.testing.assert_allclose(np.concatenate([first["logits"], second["logits"]], 1), expected, atol=1e-5)


@pytest.mark.parametrize("attention", [0, 4])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_onnx_captioner_reads_words_as_the_reference_does(cell: Cell, attention: int, layers: int) -> None:
    sizes: dict[str, Any] = {"cell": cell, "hidden": 6, "layers": layers, "embedding": 5, "attention": attention}
    weights = random_weights(0, **sizes, vocabulary=12, channels=3)
    encoded = export_caption(weights, cell)
    random = np.random.default_rng(4)
    for batch, time, regions in ((2, 5, 4), (1, 1, 9)):
        features = random.standard_normal((batch, regions, 3)).astype(np.float32)
        tokens = random.integers(0, 12, (batch, time))
        logits, alphas = caption_logits(features, tokens, weights, cell=cell, layers=layers, attention=bool(attention))
        found = run(encoded, features=features, tokens=tokens)
        np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
        assert ("attention" in found) == bool(attention)
        if alphas is not None:
            np.testing.assert_allclose(found["attention"], alphas, atol=1e-5)


def test_onnx_of_missing_weights_is_refused() -> None:
    with pytest.raises(RecurError, match=r"rnn\.weight_hh_l0 is missing"):
        export_stack({}, "lstm", prefix="rnn.")
