"""Recurrent stacks over whole sequences on the compiled core, and the checks of arrays that go into it.

B batch, T time, D input features, H hidden units, L layers, G gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from recur.engine import core, reference
from recur.engine.reference import GATES, PARTS, Array, Cell, IntArray, State, Weights
from recur.engine.vision import processors

Precision = Literal["float32", "bfloat16", "int8"]
FloatArray = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

CELLS: Final[tuple[Cell, ...]] = ("rnn", "rnn_relu", "lstm", "gru")
PRECISIONS: Final[tuple[str, ...]] = get_args(Precision)
_LAYER: Final = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh", "norm_c", "norm_c_bias")


@dataclass(frozen=True, slots=True)
class Scan:
    """A scanned sequence, and on request what happened at every step.

    `outputs` [B, T, H] of the top layer ([B, T, 2H] in both directions), `state` the last one: L entries of (h,) or
    (h, c), each [B, H]; in both directions 2L entries, forward and backward by turns. With `trace`: `hidden` and, for
    the lstm, `cells`, [L, B, T, H], and `gates` [L, B, T, G * H] after their nonlinearities, in PyTorch's order.
    """

    outputs: FloatArray
    state: list[State]
    hidden: FloatArray | None = None
    cells: FloatArray | None = None
    gates: FloatArray | None = None


# ------------------------------------------------------------------------------------------------------ arrays, checked


def floats(x: object, name: str, axes: int | None = None) -> FloatArray:
    """float32, contiguous, finite. Errors: TypeError for what holds no real numbers, ValueError for the rest."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} has type {array.dtype}; expected real numbers; convert them first")
    if axes is not None and array.ndim != axes:
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {axes} axes; reshape it")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, np.float32)
    module = core.loaded()
    if not (np.isfinite(result).all() if module is None else module.finite(result)):
        raise ValueError(
            f"{name} has a number that is not finite; expected finite float32 numbers; look where it came from"
        )
    return result


def whole(x: object, name: str, shape: tuple[int, ...] | None, least: int, most: int) -> Ids:
    """int64, contiguous, least..most. `shape` None: two axes."""
    array = np.asarray(x)
    if array.size == 0 and array.dtype.kind == "f":  # np.asarray([]) is an array of floats
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has type {array.dtype}; expected whole numbers; convert them first")
    if array.ndim != 2 if shape is None else array.shape != shape:
        expected = "two axes" if shape is None else f"shape {list(shape)}"
        raise ValueError(f"{name} has shape {list(array.shape)}; expected {expected}; reshape it")
    if array.size and not (least <= int(array.min()) and int(array.max()) <= most):
        raise ValueError(
            f"{name} has {int(array.min())} to {int(array.max())}; expected {least} to {most}; give others"
        )
    return np.ascontiguousarray(array, np.int64)


def packed_state(
    state: Sequence[State] | None, cell: Cell, layers: int, batch: int, hidden: int
) -> tuple[FloatArray, FloatArray | None]:
    """h and c [L, B, H] that the core may write into."""
    parts = PARTS[cell]
    if state is None:
        zeros = [np.zeros((layers, batch, hidden), np.float32) for _ in range(parts)]
        return zeros[0], zeros[1] if parts == 2 else None
    if len(state) != layers or any(len(layer) != parts for layer in state):
        raise ValueError(f"a state of {len(state)} layers; expected {layers}, of {parts} arrays each; give them all")
    arrays = []
    for part in range(parts):
        each = [floats(layer[part], "the state", 2) for layer in state]
        if any(array.shape != (batch, hidden) for array in each):
            raise ValueError(
                f"a state of shape {list(each[0].shape)}; expected [{batch}, {hidden}]; give one that fits"
            )
        arrays.append(np.stack(each))
    return arrays[0], arrays[1] if parts == 2 else None


def layers_of(h: FloatArray, c: FloatArray | None) -> list[State]:
    return [(h[i],) if c is None else (h[i], c[i]) for i in range(len(h))]


def code(value: str, known: Sequence[str], name: str) -> int:
    if value not in known:
        raise ValueError(f"{name} {value!r}; expected one of {', '.join(known)}; choose one of them")
    return known.index(value)


def make_stack(
    module: Any,
    weights: Mapping[str, FloatArray],
    *,
    cell: Cell,
    suffixes: Sequence[str],
    inputs: list[list[int]],
    prefix: str,
    precision: Precision,
    exact_first: bool,
    isa: str,
) -> Any:
    hidden = weights[f"{prefix}weight_hh_l0"].shape[1]
    arrays = [[weights.get(f"{prefix}{name}_l{suffix}") for name in _LAYER] for suffix in suffixes]
    kind, size = code(cell, CELLS, "cell"), code(precision, PRECISIONS, "precision")
    ways = 2 if any(suffix.endswith("_reverse") for suffix in suffixes) else 1
    return module.make_stack(kind, size, hidden, ways, arrays, inputs, exact_first, isa)


def checked(weights: Weights, names: Sequence[str]) -> dict[str, FloatArray]:
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"{missing[0]} is missing; expected weights {', '.join(names)}; give it")
    return {name: floats(value, name) for name, value in weights.items()}


Kept = tuple[FloatArray | None, FloatArray | None, FloatArray | None]  # hidden, cells, gates


def kept_of(trace: reference.Trace | None) -> Kept:
    """What the reference kept, as the core gives it."""
    if trace is None:
        return None, None, None
    return cast(Kept, (trace.hidden, trace.cells, trace.gates))


def fitting(x: FloatArray, name: str, shape: tuple[int, ...]) -> None:
    if x.shape != shape:
        raise ValueError(f"{name} has shape {list(x.shape)}; expected {list(shape)}; give weights that fit together")


def layer_shapes(
    weights: Mapping[str, FloatArray], cell: Cell, prefix: str, suffixes: Sequence[str], widths: Sequence[int]
) -> int:
    """Check the layers' weights, which read inputs of `widths`; the number of hidden units."""
    code(cell, CELLS, "cell")
    first = weights[f"{prefix}weight_hh_l{suffixes[0]}"]
    if first.ndim != 2 or first.shape[1] < 1:
        raise ValueError(f"weight_hh has shape {list(first.shape)}; expected [G * H, H]; give another")
    hidden = int(first.shape[1])
    rows = GATES[cell] * hidden
    for suffix, width in zip(suffixes, widths, strict=True):
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, width), "weight_hh": (rows, hidden)}
        shapes |= dict.fromkeys(("bias_ih", "bias_hh"), (rows,))
        if f"{prefix}norm_ih_l{suffixes[0]}" in weights:
            shapes |= dict.fromkeys(("norm_ih", "norm_hh"), (rows,))
            if cell == "lstm":
                shapes |= dict.fromkeys(("norm_c", "norm_c_bias"), (hidden,))
        for name, shape in shapes.items():
            full = f"{prefix}{name}_l{suffix}"
            if full not in weights:
                raise ValueError(f"{full} is missing; expected shape {list(shape)}; give it")
            fitting(weights[full], full, shape)
    return hidden


# ------------------------------------------------------------------------------------------------------ whole sequences


class Stack:
    """Layers of one kind of cell, packed, for whole sequences. One may serve several threads."""

    def __init__(
        self,
        weights: Weights,
        *,
        cell: Cell,
        layers: int = 1,
        bidirectional: bool = False,
        prefix: str = "",
        precision: Precision = "float32",
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`weights` under PyTorch's names with `prefix` before them (`weight_ih_l0`, …, `_reverse` for the other
        direction). Where `norm_ih_l0` is among them the cell is layer-normalised (see `reference.normed`).
        `threads`: the most to use, all processors when None.

        Errors: ValueError for shapes that do not fit, numbers that are not finite, or an `isa` that is not here.
        """
        ways = ("", "_reverse") if bidirectional else ("",)
        if layers < 1:
            raise ValueError(f"layers {layers}; expected 1 or more; give another")
        self.cell, self.layers, self.bidirectional, self.prefix = cell, layers, bidirectional, prefix
        suffixes = [f"{layer}{way}" for layer in range(layers) for way in ways]
        first = [f"{prefix}{name}_l{suffix}" for suffix in suffixes for name in ("weight_ih", "weight_hh")]
        self.weights = checked(weights, first)
        self.inputs = self.weights[first[0]].shape[-1]
        hidden = self.weights[first[1]].shape[-1]
        widths = [self.inputs if layer == 0 else len(ways) * hidden for layer in range(layers) for _ in ways]
        self.hidden = layer_shapes(self.weights, cell, prefix, suffixes, widths)
        self.threads = threads or processors()
        module, self.isa = core.chosen(isa)
        self._core: Any = None
        code(precision, PRECISIONS, "precision")
        if module is not None:
            self._core = make_stack(
                module,
                self.weights,
                cell=cell,
                suffixes=suffixes,
                inputs=[[width] for width in widths],
                prefix=prefix,
                precision=precision,
                exact_first=False,
                isa=self.isa,
            )

    def scan(
        self,
        x: Array,
        *,
        state: Sequence[State] | None = None,
        lengths: IntArray | Sequence[int] | None = None,
        resets: npt.NDArray[np.bool_] | None = None,
        trace: bool = False,
    ) -> Scan:
        """The whole sequence x [B, T, D], from `state` (zeros when None). Row b ends after `lengths[b]` steps: its
        state stands still and its outputs are zero. Where `resets` [B, T] is true, the state is zero before that step
        is read: another sequence begins there (for the backward direction, one ends before it).

        Errors: ValueError or TypeError for arrays that do not fit.
        """
        x = floats(x, "x", 3)
        batch, time, inputs = x.shape
        if inputs != self.inputs:
            raise ValueError(f"x has shape {list(x.shape)}; expected [B, T, {self.inputs}]; give what the weights read")
        ends = np.full(batch, time, np.int64) if lengths is None else whole(lengths, "lengths", (batch,), 0, time)
        if resets is not None:
            resets = np.ascontiguousarray(resets)
            if resets.dtype != np.bool_ or resets.shape != (batch, time):
                raise ValueError(
                    f"resets are {resets.dtype} of shape {list(resets.shape)}; expected bool [{batch}, {time}]"
                )
        ways = 1 + self.bidirectional
        h, c = packed_state(state, self.cell, ways * self.layers, batch, self.hidden)
        if self._core is None:
            return self._slow(x, layers_of(h, c), ends, resets, trace)
        out = np.zeros((batch, time, ways * self.hidden), np.float32)
        kept: list[FloatArray | None] = [None, None, None]
        if trace:
            shape = (ways * self.layers, batch, time)
            kept = [
                np.zeros((*shape, self.hidden), np.float32),
                None if c is None else np.zeros((*shape, self.hidden), np.float32),
                np.zeros((*shape, GATES[self.cell] * self.hidden), np.float32),
            ]
        flags = None if resets is None else resets.view(np.uint8)
        self._core.scan(x, ends, flags, h, c, out, *kept, self.threads)
        return Scan(out, layers_of(h, c), *kept)

    def _slow(
        self,
        x: FloatArray,
        state: list[State],
        ends: Ids,
        resets: npt.NDArray[np.bool_] | None,
        trace: bool,
    ) -> Scan:
        batch, time, _ = x.shape
        kept = reference.Trace.empty(self.cell, len(state), batch, time, self.hidden, x) if trace else None
        out, after = reference.scan(
            self.cell,
            x,
            self.weights,
            layers=self.layers,
            state=state,
            lengths=ends,
            resets=resets,
            bidirectional=self.bidirectional,
            prefix=self.prefix,
            trace=kept,
        )
        return Scan(cast(FloatArray, out), after, *kept_of(kept))


def elementwise(function: Literal["tanh", "sigmoid", "exp"], x: Array, *, isa: str | None = None) -> FloatArray:
    """The core's own tanh, sigmoid or exp of x [n], float32 in and out: for tests of their error bounds."""
    module, name = core.chosen(isa)
    number = code(function, ("tanh", "sigmoid", "exp"), "function")
    if module is None:
        raise ValueError(f"no compiled core ({core.where().reason}); expected it; install with a C++ compiler")
    flat = np.zeros(-(-len(x) // 16) * 16, np.float32)
    flat[: len(x)] = x
    module.apply(name, number, flat)
    return flat[: len(x)]
