"""Whole sequences through an LSTM, fast on a CPU, and no step computed that no sequence has.

PyTorch's CPU kernels multiply the weight gradient once a step; here backpropagation through time only collects the
gradients of the gates, and one large matrix product at the end makes the weight gradient of all steps. Sequences of
unequal length are packed step by step, longest first (the layout of `torch.nn.utils.rnn.PackedSequence`): sentences
are half as long as the longest of their batch, so half of the work falls away. The slow twin is `torch.nn.LSTM`,
whose weights these are; the tests compare outputs and every gradient.

N rows, T steps, M live places (row, step), D inputs, H hidden units; gate order i, f, g, o (Hochreiter & Schmidhuber
1997; Gers et al. 2000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


@dataclass(frozen=True)
class Packing:
    """Where the M live places of N sequences are: step by step, within a step the longest sequence first.

    row, step  [M] the place in a padded [N, T]
    live       how many sequences have step 0, 1, 2, ...
    """

    row: Tensor
    step: Tensor
    live: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Tensor) -> Packing:
        """The packing of sequences with `lengths` [N], each 1 or more."""
        order = torch.argsort(lengths, descending=True, stable=True)
        steps = torch.arange(int(lengths.max()), device=lengths.device)
        step, place = (steps[:, None] < lengths[order][None]).nonzero(as_tuple=True)
        return cls(order[place], step, tuple(torch.bincount(step).tolist()))

    def pack(self, x: Tensor) -> Tensor:
        """[M, ...] of padded x [N, T, ...]"""
        return x.flatten(0, 1).index_select(0, self.row * x.shape[1] + self.step)

    def after_first(self) -> Packing:
        """The same sequences without their first step: what is left are the places [N:], one step earlier."""
        first = self.live[0]
        return Packing(self.row[first:], self.step[first:] - 1, self.live[1:])


class _Scan(torch.autograd.Function):
    """Gate inputs [M, 4H] and recurrent weights [4H, H] to hidden states [M, H], from a state of zeros."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, live: tuple[int, ...]) -> Tensor:
        places, width = inputs.shape
        size = width // 4
        weight = weight.to(inputs.dtype)
        across = weight.t()
        gates = torch.empty_like(inputs)
        exact = torch.promote_types(inputs.dtype, torch.float32)
        cells = inputs.new_empty(places, size, dtype=exact)
        hidden = inputs.new_empty(places, size)
        h, c = inputs.new_zeros(live[0], size), cells.new_zeros(live[0], size)
        at = 0
        with torch.autocast("cpu", enabled=False):
            for rows in live:
                here = slice(at, at + rows)
                now = torch.addmm(inputs[here], h[:rows], across, out=gates[here])
                now[:, : 2 * size].sigmoid_()
                now[:, 2 * size : 3 * size].tanh_()
                now[:, 3 * size :].sigmoid_()
                i, f, g, o = now.chunk(4, 1)
                c = torch.addcmul(f * c[:rows], i.to(exact), g.to(exact), out=cells[here])
                h = hidden[here]
                h.copy_(o * c.tanh().to(inputs.dtype))
                at += rows
        ctx.save_for_backward(gates, cells, hidden, weight)
        ctx.live = live
        return hidden

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        gates, cells, hidden, weight = ctx.saved_tensors
        live: tuple[int, ...] = ctx.live
        places, width = gates.shape
        size = width // 4
        change = torch.empty_like(gates)  # gradient of the gates before their nonlinearities
        exact = cells.dtype
        dh, dc = grads[0].new_zeros(0, size), cells.new_zeros(0, size)
        before: list[Tensor] = []  # the hidden state that each place of step 1, 2, ... started from
        at = places
        with torch.autocast("cpu", enabled=False):
            for t in range(len(live) - 1, -1, -1):
                rows = live[t]
                here = slice(at - rows, at)
                i, f, g, o = gates[here].to(exact).chunk(4, 1)
                squashed = cells[here].tanh()
                above = grads[0][here].to(exact, copy=True)
                above[: len(dh)] += dh
                if len(dc) < rows:  # sequences that end here
                    dc = torch.cat([dc, dc.new_zeros(rows - len(dc), size)])
                dc = dc.addcmul(above * o, 1 - squashed * squashed)
                parts = change[here].chunk(4, 1)
                parts[0].copy_(dc * g * i * (1 - i))
                if t:
                    start = at - rows - live[t - 1]
                    parts[1].copy_(dc * cells[start : start + rows] * f * (1 - f))
                    before.append(hidden[start : start + rows])
                else:
                    parts[1].zero_()
                parts[2].copy_(dc * i * (1 - g * g))
                parts[3].copy_(above * squashed * o * (1 - o))
                dh = change[here] @ weight
                dc = dc * f
                at -= rows
            later = change[live[0] :]
            gradient = later.t() @ torch.cat(before[::-1]) if before else torch.zeros_like(weight)
        return change, gradient, None


def packed_lstm(x: Tensor, layer: nn.LSTM, live: tuple[int, ...]) -> Tensor:
    """Hidden states [M, H] of packed inputs [M, D] through a one-layer, one-direction `torch.nn.LSTM`, from zeros."""
    weight_ih, weight_hh, bias_ih, bias_hh = (
        cast(Tensor, getattr(layer, name)) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    out: Tensor = _Scan.apply(functional.linear(x, weight_ih, bias_ih + bias_hh), weight_hh, live)  # type: ignore[no-untyped-call]
    return out


def locked_dropout(
    x: Tensor, share: float, packing: Packing, *, training: bool, among: tuple[int, Tensor] | None = None
) -> Tensor:
    """Dropout on packed x [M, D] with one mask for all steps of a sequence (Gal & Ghahramani 2016).

    `among` (count, places [N]): these sequences are a part of so many, and get the masks that they have there.
    """
    if not training or share == 0:
        return x
    rows = int(packing.row.max()) + 1 if among is None else among[0]
    mask = torch.rand(rows, x.shape[1], dtype=torch.float32, device=x.device) >= share
    if among is not None:
        mask = mask[among[1]]
    return x * (mask.to(x.dtype) / (1 - share))[packing.row]
