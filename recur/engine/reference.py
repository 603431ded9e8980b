"""The truth: recurrent cells, scans, attention and the caption decoder as plain NumPy, written to be read.

Everything fast (`engine/native.py`, `engine/decoder.py`, the torch modules) is held against this file. The type of the
numbers is kept: float64 in, float64 out. Weights have PyTorch's layout and names: `weight_ih [G*H, D]`,
`weight_hh [G*H, H]` and two biases `[G*H]`, where G gates are stacked in the order i, f, g, o (lstm), r, z, n (gru) or
are one alone (rnn, and rnn_relu, whose nonlinearity is max(x, 0) instead of tanh).

B batch, T time, D input features, H hidden units, L layers, R regions, A attention units, E embedding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]
Cell = Literal["rnn", "rnn_relu", "lstm", "gru"]
State = tuple[Array, ...]  # of one layer: (h,), or (h, c) for lstm, each [B, H]
Weights = Mapping[str, Array]

GATES: dict[Cell, int] = {"rnn": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}
PARTS: dict[Cell, int] = {"rnn": 1, "rnn_relu": 1, "lstm": 2, "gru": 1}  # arrays in the state of a layer


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), as a tanh so that no x overflows."""
    result: Array = 0.5 * (np.tanh(0.5 * x) + 1)
    return result


def softmax(x: Array) -> Array:
    """exp(x) normalised over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result


# ------------------------------------------------------------------------------------------------------------- cells


def rnn_step(x: Array, state: State, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> State:
    """h' = tanh(W x + b + U h + b'). Input [B, D], state (h [B, H],) (Elman 1990; `torch.nn.RNN`)."""
    (h,) = state
    return (np.tanh(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh),)


def rnn_relu_step(x: Array, state: State, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> State:
    """h' = max(W x + b + U h + b', 0) (`torch.nn.RNN` with `nonlinearity="relu"`; Le et al. 2015)."""
    (h,) = state
    return (np.maximum(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh, 0),)


def lstm_step(x: Array, state: State, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> State:
    """c' = f c + i g, h' = o tanh(c'). State (h, c), each [B, H] (Hochreiter & Schmidhuber 1997; `torch.nn.LSTM`)."""
    h, c = state
    i, f, g, o = np.split(x @ weight_ih.T + bias_ih + h @ weight_hh.T + bias_hh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return (sigmoid(o) * np.tanh(c), c)


def gru_step(x: Array, state: State, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> State:
    """h' = (1 - z) n + z h, where r gates U h + b' inside n (Cho et al. 2014, in the form of `torch.nn.GRU`)."""
    (h,) = state
    r_x, z_x, n_x = np.split(x @ weight_ih.T + bias_ih, 3, axis=-1)
    r_h, z_h, n_h = np.split(h @ weight_hh.T + bias_hh, 3, axis=-1)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    return ((1 - z) * np.tanh(n_x + r * n_h) + z * h,)


STEPS: dict[Cell, Callable[[Array, State, Array, Array, Array, Array], State]] = {
    "rnn": rnn_step,
    "rnn_relu": rnn_relu_step,
    "lstm": lstm_step,
    "gru": gru_step,
}


def layer_weights(
    weights: Weights, layer: int, prefix: str = "", suffix: str = ""
) -> tuple[Array, Array, Array, Array]:
    """`weight_ih, weight_hh, bias_ih, bias_hh` of one layer; `prefix` comes before PyTorch's names ("rnn."), `suffix`
    after them ("_reverse")."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ih, hh, b_ih, b_hh = (weights[f"{prefix}{name}_l{layer}{suffix}"] for name in names)
    return ih, hh, b_ih, b_hh


def normed(x: Array, gain: Array, bias: Array) -> Array:
    """(x - mean) / sqrt(variance + 1e-5) * gain + bias over the last axis (`torch.nn.LayerNorm`)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias
    return result


def cell_step(
    cell: Cell, x: Array, state: State, weights: Weights, layer: int, prefix: str = "", suffix: str = ""
) -> State:
    """One step of one layer, layer-normalised where `norm_ih` is among its weights (Ba et al. 2016, equations 20-22).

    Then W x and U h are normalised, each over all G * H gates together, with gains `norm_ih` and `norm_hh` [G*H]; the
    two biases are those of the normalisation. In the lstm, h' = o tanh(c) reads c normalised with gain `norm_c` and
    bias `norm_c_bias` [H].
    """
    ih, hh, b_ih, b_hh = layer_weights(weights, layer, prefix, suffix)

    def extra(name: str) -> Array:
        return weights[f"{prefix}{name}_l{layer}{suffix}"]

    if f"{prefix}norm_ih_l{layer}{suffix}" not in weights:
        return STEPS[cell](x, state, ih, hh, b_ih, b_hh)
    read = normed(x @ ih.T, extra("norm_ih"), b_ih)
    kept = normed(state[0] @ hh.T, extra("norm_hh"), b_hh)
    if cell == "lstm":
        i, f, g, o = np.split(read + kept, 4, axis=-1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return (sigmoid(o) * np.tanh(normed(c, extra("norm_c"), extra("norm_c_bias"))), c)
    if cell == "gru":
        r_x, z_x, n_x = np.split(read, 3, axis=-1)
        r_h, z_h, n_h = np.split(kept, 3, axis=-1)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        return ((1 - z) * np.tanh(n_x + r * n_h) + z * state[0],)
    return (np.tanh(read + kept) if cell == "rnn" else np.maximum(read + kept, 0),)


def cell_gates(
    cell: Cell, x: Array, state: State, weights: Weights, layer: int, prefix: str = "", suffix: str = ""
) -> Array:
    """The gates with which `cell_step` takes the same step, after their sigmoid or tanh: [B, G * H], in the order of
    the weights. Those of the plain RNNs are h' itself."""
    ih, hh, b_ih, b_hh = layer_weights(weights, layer, prefix, suffix)
    if f"{prefix}norm_ih_l{layer}{suffix}" in weights:
        read = normed(x @ ih.T, weights[f"{prefix}norm_ih_l{layer}{suffix}"], b_ih)
        kept = normed(state[0] @ hh.T, weights[f"{prefix}norm_hh_l{layer}{suffix}"], b_hh)
    else:
        read, kept = x @ ih.T + b_ih, state[0] @ hh.T + b_hh
    if cell == "lstm":
        i, f, g, o = np.split(read + kept, 4, axis=-1)
        return np.concatenate([sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)], axis=-1)
    if cell == "gru":
        r_x, z_x, n_x = np.split(read, 3, axis=-1)
        r_h, z_h, n_h = np.split(kept, 3, axis=-1)
        r = sigmoid(r_x + r_h)
        return np.concatenate([r, sigmoid(z_x + z_h), np.tanh(n_x + r * n_h)], axis=-1)
    return np.tanh(read + kept) if cell == "rnn" else np.maximum(read + kept, 0)


@dataclass(frozen=True, slots=True)
class Trace:
    """Every state and gate of a scan, zero where a sequence is over; S layers times directions, forward first."""

    hidden: Array  # [S, B, T, H]
    cells: Array | None  # the same, for lstm
    gates: Array  # [S, B, T, G * H], see `cell_gates`

    @classmethod
    def empty(cls, cell: Cell, stacks: int, batch: int, time: int, hidden: int, like: Array) -> Trace:
        """Zeros of the same float type as `like`, to be filled."""
        shape = (stacks, batch, time, hidden)
        cells = np.zeros(shape, like.dtype) if PARTS[cell] == 2 else None
        return cls(np.zeros(shape, like.dtype), cells, np.zeros((*shape[:3], GATES[cell] * hidden), like.dtype))

    def note(self, stack: int, time: int, rows: npt.NDArray[np.bool_], after: State, gates: Array) -> None:
        """One step of one layer and direction, of the `rows` [B] that took it."""
        self.hidden[stack, rows, time] = after[0][rows]
        self.gates[stack, rows, time] = gates[rows]
        if self.cells is not None:
            self.cells[stack, rows, time] = after[1][rows]


def zero_state(cell: Cell, layers: int, rows: int, hidden: int, like: Array) -> list[State]:
    """The state that everything starts from, of the same float type as `like`: [L] states of arrays [rows, H]."""
    return [tuple(np.zeros((rows, hidden), like.dtype) for _ in range(PARTS[cell])) for _ in range(layers)]


def scan(
    cell: Cell,
    x: Array,
    weights: Weights,
    *,
    layers: int = 1,
    state: Sequence[State] | None = None,
    lengths: IntArray | None = None,
    resets: npt.NDArray[np.bool_] | None = None,
    bidirectional: bool = False,
    prefix: str = "",
    trace: Trace | None = None,
) -> tuple[Array, list[State]]:
    """A stack of layers over a whole sequence x [B, T, D]: outputs [B, T, H] of the top layer and the last state.

    `state` is where to go on from (zeros when left out). Row b ends after `lengths[b]` steps (0..T, T when left out):
    from there on its state stands still and its outputs are zero, as with `torch.nn.utils.rnn.PackedSequence`.
    Where `resets` [B, T] is true, a new sequence begins with that step: the state is zero before it is read. In both
    directions, outputs are [B, T, 2H], and states come forward and backward by turns, as in PyTorch. An empty `trace`
    is filled.
    """
    batch, time, _ = x.shape
    ends = np.full(batch, time) if lengths is None else np.asarray(lengths)
    hidden = weights[f"{prefix}weight_hh_l0"].shape[1]
    ways = ("", "_reverse") if bidirectional else ("",)
    now = list(state) if state is not None else zero_state(cell, layers * len(ways), batch, hidden, x)
    below = x
    for layer in range(layers):
        out = np.zeros((batch, time, len(ways) * hidden), x.dtype)
        for way, suffix in enumerate(ways):
            index = layer * len(ways) + way
            for t in range(time) if way == 0 else reversed(range(time)):
                # Backwards, a sequence is left for the one before it where that one ends.
                border = t if way == 0 else t + 1
                fresh = np.zeros(batch, bool)
                if resets is not None and border < time:
                    fresh = np.asarray(resets)[:, border] & (border < ends)
                before = tuple(np.where(fresh[:, None], 0, part).astype(x.dtype) for part in now[index])
                after = cell_step(cell, below[:, t], before, weights, layer, prefix, suffix)
                if trace is not None:
                    gates = cell_gates(cell, below[:, t], before, weights, layer, prefix, suffix)
                    trace.note(index, t, t < ends, after, gates)
                going = (t < ends)[:, None]
                now[index] = tuple(np.where(going, new, old) for new, old in zip(after, now[index], strict=True))
                out[:, t, way * hidden : (way + 1) * hidden] = np.where(going, after[0], 0)
        below = out
    return below, now


# --------------------------------------------------------------------------------------------------------- attention


def attend(
    memory: Array, keys: Array, h: Array, weights: Weights, lengths: IntArray | None = None
) -> tuple[Array, Array]:
    """Attention: context [B, M] and weights [B, R] for h [B, H], which asks a memory [B, R, M] by its keys [B, R, A].

    With `attention.score.weight` it is additive (Bahdanau et al. 2015, equations 5 and 6), without it the scaled dot
    product of query and key (Vaswani et al. 2017, equation 1). Only the first `lengths[b]` regions count.
    """
    query = h @ weights["attention.query.weight"].T + weights["attention.query.bias"]
    if "attention.score.weight" in weights:
        scores = np.tanh(keys + query[:, None, :]) @ weights["attention.score.weight"][0]
    else:
        scores = (keys * query[:, None, :]).sum(axis=-1) / np.sqrt(np.array(query.shape[-1], h.dtype))
    if lengths is not None:
        scores = np.where(np.arange(scores.shape[1]) < np.asarray(lengths)[:, None], scores, -np.inf)
    alpha = softmax(scores)
    return (alpha[:, :, None] * memory).sum(axis=1), alpha


# --------------------------------------------------------------------------------------------------- caption decoder


def caption_memory(features: Array, weights: Weights) -> tuple[Array, Array]:
    """What attention reads of features [B, R, F]: memory [B, R, H] and its keys [B, R, A]."""
    memory = features
    if "memory.weight" in weights:
        memory = features @ weights["memory.weight"].T + weights["memory.bias"]
    return memory, memory @ weights["attention.key.weight"].T


def caption_step(
    x: Array,
    state: Sequence[State],
    memory: Array | None,
    keys: Array | None,
    weights: Weights,
    cell: Cell,
    lengths: IntArray | None = None,
    gates: list[Array] | None = None,
) -> tuple[Array, list[State], Array | None]:
    """One step of the caption decoder: input x [B, E] -> logits [B, V], the next state, attention [B, R] or None.

    With a memory, the first layer's h asks attention for a context c; the second layer reads [h, c], and so does the
    output. Layers above the second read the layer below. Without one, the layers are a plain stack. The tanh layer
    before the head (`output`) and a head of its own (`head.weight`, else the embedding) are there where their weights
    are. `lengths` [B]: how many regions of the memory count. `gates` gets each layer's (`cell_gates`).
    """
    after: list[State] = []
    below, context, alpha = x, None, None
    for layer, before in enumerate(state):
        if layer == 1 and context is not None:
            below = np.concatenate([below, context], axis=-1)
        if gates is not None:
            gates.append(cell_gates(cell, below, before, weights, layer, "rnn."))
        after.append(cell_step(cell, below, before, weights, layer, "rnn."))
        below = after[-1][0]
        if layer == 0 and memory is not None and keys is not None:
            context, alpha = attend(memory, keys, below, weights, lengths)
    top = below if context is None else np.concatenate([below, context], axis=-1)
    if "output.weight" in weights:
        top = np.tanh(top @ weights["output.weight"].T + weights["output.bias"])
    logits = top @ weights.get("head.weight", weights["embedding.weight"]).T
    return logits + weights["head.bias"] if "head.bias" in weights else logits, after, alpha


def caption_logits(
    features: Array, tokens: IntArray, weights: Weights, *, cell: Cell, layers: int, attention: bool
) -> tuple[Array, Array | None]:
    """Logits [B, T, V] of what follows each of tokens [B, T], and the attention [B, T, R] that they were read with.

    The first token is the language token; before it, the mean of features [B, R, F] enters once, as START.
    """
    hidden = weights["rnn.weight_hh_l0"].shape[1]
    memory, keys = caption_memory(features, weights) if attention else (None, None)
    start = features.mean(axis=1) @ weights["start.weight"].T + weights["start.bias"]
    state = zero_state(cell, layers, len(features), hidden, features)
    _, state, _ = caption_step(start, state, memory, keys, weights, cell)
    logits, alphas = [], []
    for t in range(tokens.shape[1]):
        x = weights["embedding.weight"][tokens[:, t]]
        scores, state, alpha = caption_step(x, state, memory, keys, weights, cell)
        logits.append(scores)
        alphas.append(alpha)
    return np.stack(logits, axis=1), np.stack([a for a in alphas if a is not None], axis=1) if attention else None
