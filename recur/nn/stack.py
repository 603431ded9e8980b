"""A cell scanned over sequences: layers on layers, one direction or both, with a state in and out.

Standard cells run on PyTorch's kernels, minimal ones all steps at once; whatever else is asked for (zoneout, layer
normalisation, sequences of unequal length, resets) goes step by step through `cell.step`, which is the same function.

T steps, B rows, D input features, H hidden units, L layers.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recur.nn.cells import CELLS, Cell, GruCell, LayerNormLstmCell, LstmCell, MinimalCell, Parts, RnnCell
from recur.nn.dropout import locked, weight_drop, zoneout
from recur.nn.scan import lstm_scan
from recur.nn.state import State


class Stack(nn.Module):
    """L layers of one kind of cell; of both directions the outputs stand side by side, [T, B, 2H]."""

    def __init__(
        self,
        cell: str,
        inputs: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        zoneout: float = 0.0,
        weight_drop: float = 0.0,
    ) -> None:
        """`cell` is a key of `recur.nn.cells.CELLS`. `dropout`: of what a layer gives to the one above."""
        super().__init__()
        self.hidden, self.ways = hidden, 2 if bidirectional else 1
        self.dropout, self.zoneout, self.weight_drop = dropout, zoneout, weight_drop
        sizes = [inputs, *[self.ways * hidden] * (layers - 1)]
        self.cells = nn.ModuleList(CELLS[cell](size, hidden) for size in sizes for _ in range(self.ways))

    def first_state(self, rows: int) -> State:
        """What everything starts from, for B rows."""
        return State(tuple(cast(Cell, cell).first_state(rows) for cell in self.cells))

    def scan(
        self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs [T, B, H] (or 2H) of the top layer for x [T, B, D], and the last state.

        Row b ends after `lengths[b]` steps: from there on its state stands still and its outputs are zero. Where
        `resets` [T, B] is true the state is what everything starts from before that step is read; backwards, a
        sequence is left for the one before it there.
        """
        before = self.first_state(x.shape[1]) if state is None else state
        following: list[Parts] = []
        for layer in range(len(self.cells) // self.ways):
            outputs: list[Tensor] = []
            for way in range(self.ways):
                number = layer * self.ways + way
                cell, start = cast(Cell, self.cells[number]), before.layers[number]
                if lengths is None and resets is None and self._has_kernel(cell):
                    out, after = self._fast(cell, x.flip(0) if way else x, start)
                    out = out.flip(0) if way else out
                else:
                    out, after = self._slow(cell, x, start, lengths, resets, backward=bool(way))
                outputs.append(out)
                following.append(after)
            x = torch.cat(outputs, -1) if self.ways == 2 else outputs[0]
            if number < len(self.cells) - 1:
                x = locked(x, self.dropout, training=self.training)
        return x, State(tuple(following))

    def _has_kernel(self, cell: Cell | MinimalCell) -> bool:
        if self.zoneout or isinstance(cell, LayerNormLstmCell):
            return False
        return not isinstance(cell, RnnCell) or cell.activation in ("tanh", "relu")

    def _fast(self, cell: Cell | MinimalCell, x: Tensor, start: Parts) -> tuple[Tensor, Parts]:
        """All steps [T, B, D] by a kernel."""
        if isinstance(cell, MinimalCell):
            return cell.scan(x, start)
        weight_hh = weight_drop(cell.weight_hh, self.weight_drop, training=self.training)
        if isinstance(cell, LstmCell):
            out, *after = lstm_scan(cell.read(x) + cell.bias_hh, weight_hh, *start)
            return out, tuple(after)
        assert isinstance(cell, (GruCell, RnnCell))
        tanh = isinstance(cell, RnnCell) and cell.activation == "tanh"
        kernel = torch.gru if isinstance(cell, GruCell) else torch.rnn_tanh if tanh else torch.rnn_relu
        weights = [cell.weight_ih, weight_hh, cell.bias_ih, cell.bias_hh]
        out, last = kernel(x, start[0][None], weights, True, 1, 0.0, self.training, False, False)
        return out, (last[0],)

    def _slow(
        self,
        cell: Cell | MinimalCell,
        x: Tensor,
        start: Parts,
        lengths: Tensor | None,
        resets: Tensor | None,
        *,
        backward: bool,
    ) -> tuple[Tensor, Parts]:
        """One step after the other."""
        steps, rows, _ = x.shape
        ends = torch.full((rows,), steps) if lengths is None else lengths
        first, state = cell.first_state(rows), start
        if isinstance(cell, Cell):
            dropped = weight_drop(cell.weight_hh, self.weight_drop, training=self.training)
        outputs: list[Tensor] = [x.new_zeros(rows, self.hidden)] * steps
        for t in reversed(range(steps)) if backward else range(steps):
            border = t + 1 if backward else t
            if resets is not None and border < steps:
                fresh = (resets[border] & (border < ends))[:, None]
                state = tuple(torch.where(fresh, new, old) for new, old in zip(first, state, strict=True))
            after = cell.step(x[t], state) if isinstance(cell, MinimalCell) else cell.step(x[t], state, dropped)
            after = tuple(
                zoneout(new, old, self.zoneout, training=self.training) for new, old in zip(after, state, strict=True)
            )
            going = (t < ends)[:, None]
            state = tuple(torch.where(going, new, old) for new, old in zip(after, state, strict=True))
            outputs[t] = torch.where(going, after[0], torch.zeros_like(after[0]))
        return torch.stack(outputs), state
