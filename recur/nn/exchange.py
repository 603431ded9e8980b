"""Recurrent weights to and from other programs: `torch.nn` modules and Keras layers.

Here weights have PyTorch's names and layout (`weight_ih_l0` [G*H, D], two biases, `_reverse` for the other direction;
gates i, f, g, o or r, z, n). Keras (`keras.layers.LSTM`, `GRU`, `SimpleRNN`) keeps a layer as `[kernel [D, G*H],
recurrent_kernel [H, G*H], bias]`, what `layer.get_weights()` gives and `set_weights` takes:

* LSTM: gates i, f, c, o, which is PyTorch's order under other names; one bias [4H], the sum of PyTorch's two;
* GRU: gates z, r, h; with `reset_after=True`, its default and PyTorch's form, bias [2, 3H], the input's first;
* SimpleRNN: one gate, one bias [H].

D input features, H hidden units, G gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recur.engine.reference import GATES, Array, Cell
from recur.errors import RecurError

KINDS: dict[Cell, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
LAYER = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
KerasLayer = Sequence[Array]  # kernel, recurrent_kernel, bias


def from_torch(module: nn.RNNBase) -> tuple[Cell, dict[str, NDArray[np.float32]]]:
    """The cell and the weights of a `torch.nn.RNN` (tanh), `LSTM` or `GRU`, any layers, one direction or both.

    A module without biases gives biases of zero. Errors: RecurError for projections (`proj_size`) and ReLU.
    """
    cell = next((name for name, kind in KINDS.items() if isinstance(module, kind)), None)
    if cell is None or module.proj_size or getattr(module, "nonlinearity", "tanh") != "tanh":
        raise RecurError(f"{module}: expected torch.nn.RNN with tanh, LSTM or GRU without proj_size; convert it first")
    weights = {name: value.detach().cpu().float().numpy().copy() for name, value in module.state_dict().items()}
    if not module.bias:
        zeros = np.zeros(GATES[cell] * module.hidden_size, np.float32)
        for suffix in _suffixes(module.num_layers, module.bidirectional):
            weights[f"bias_ih_l{suffix}"], weights[f"bias_hh_l{suffix}"] = zeros.copy(), zeros.copy()
    return cell, weights


def to_torch(weights: Mapping[str, Array], cell: Cell, *, prefix: str = "") -> nn.RNNBase:
    """A `torch.nn` module (batch first) with these weights; `prefix` comes before their names ("rnn.").

    Errors: RecurError when a weight is missing or has another shape than its layer needs.
    """
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(f"{prefix}weight_")}
    own |= {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(f"{prefix}bias_")}
    if "weight_ih_l0" not in own:
        raise RecurError(f"{prefix}weight_ih_l0 is missing; expected PyTorch's names after {prefix!r}; give the prefix")
    layers = sum(name.startswith("weight_ih_l") and not name.endswith("_reverse") for name in own)
    rows, inputs = own["weight_ih_l0"].shape
    module = KINDS[cell](
        inputs, rows // GATES[cell], layers, batch_first=True, bidirectional="weight_ih_l0_reverse" in own
    )
    try:
        module.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in own.items()})
    except RuntimeError as error:
        raise RecurError(f"weights do not make a {cell} of {layers} layers: {error}") from error
    return module.eval()


def from_keras(layers: Sequence[KerasLayer], cell: Cell) -> dict[str, NDArray[np.float32]]:
    """The weights of Keras layers, each as its `get_weights()`, stacked in this order.

    A layer in both directions (`Bidirectional`) is six arrays, forward ones first. Errors: RecurError for shapes that
    are not Keras', and for a GRU with `reset_after=False`, which is another function than PyTorch's.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for number, arrays in enumerate(layers):
        if len(arrays) not in (3, 6):
            what = f"layer {number}: {len(arrays)} arrays"
            raise RecurError(
                f"{what}; expected kernel, recurrent_kernel, bias of each direction; use layers with biases"
            )
        for way, suffix in enumerate(("", "_reverse")[: len(arrays) // 3]):
            parts = _from_keras_layer(arrays[3 * way : 3 * way + 3], cell, number)
            for name, value in zip(LAYER, parts, strict=True):
                weights[f"{name}_l{number}{suffix}"] = np.ascontiguousarray(value, np.float32)
    return weights


def to_keras(weights: Mapping[str, Array], cell: Cell, *, prefix: str = "") -> list[list[NDArray[np.float32]]]:
    """What `set_weights` of each Keras layer takes (`GRU` with `reset_after=True`); both directions are six arrays."""
    both = f"{prefix}weight_ih_l0_reverse" in weights
    layers = sum(name.startswith(f"{prefix}weight_ih_l") and not name.endswith("_reverse") for name in weights)
    found: list[list[NDArray[np.float32]]] = []
    for number in range(layers):
        arrays: list[Array] = []
        for suffix in ("", "_reverse")[: 1 + both]:
            names = (f"{prefix}{name}_l{number}{suffix}" for name in LAYER)
            ih, hh, b_ih, b_hh = (_swapped(weights[name], cell) for name in names)
            bias = np.stack([b_ih, b_hh]) if cell == "gru" else b_ih + b_hh
            arrays += [ih.T, hh.T, bias]
        found.append([np.ascontiguousarray(array, np.float32) for array in arrays])
    return found


def _suffixes(layers: int, both: bool) -> Iterator[str]:
    for layer in range(layers):
        yield from (f"{layer}", f"{layer}_reverse")[: 1 + both]


def _from_keras_layer(arrays: Sequence[Array], cell: Cell, number: int) -> tuple[Array, Array, Array, Array]:
    kernel, recurrent, bias = (np.asarray(array) for array in arrays)
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    rows = GATES[cell] * hidden
    if cell == "gru" and bias.shape == (rows,):
        raise RecurError(
            f"layer {number}: a GRU with reset_after=False, which gates the state before it is multiplied; expected "
            "reset_after=True; train it so"
        )
    expected = ((kernel.shape[0], rows), (hidden, rows), (2, rows) if cell == "gru" else (rows,))
    if not hidden or tuple(each.shape for each in (kernel, recurrent, bias)) != expected:
        found = ", ".join(str(list(each.shape)) for each in (kernel, recurrent, bias))
        raise RecurError(f"layer {number}: arrays of shapes {found}; expected [D, {GATES[cell]}H], [H, {GATES[cell]}H] "
                         f"and a bias of a {cell}; give get_weights()")  # fmt: skip
    given, other = (bias[0], bias[1]) if cell == "gru" else (bias, np.zeros_like(bias))
    return tuple(_swapped(each, cell) for each in (kernel.T, recurrent.T, given, other))  # type: ignore[return-value]


def _swapped(value: Array, cell: Cell) -> Array:
    """Gates r, z, n of a GRU as z, r, h, and the other way round; the first axis is G*H. Others stay as they are."""
    if cell != "gru":
        return value
    first, second, third = np.split(value, 3)
    return np.concatenate([second, first, third])
