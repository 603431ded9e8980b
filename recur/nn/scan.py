"""An LSTM layer over dense sequences with a state in and out: what truncated backpropagation through time needs.

As in `sequence.py`, backpropagation only collects the gradients of the gates, and one large product at the end makes
the weight gradient of all steps; the recurrent weights are laid out once a call so that every step's product reads
them in order. The slow twin is `torch.nn.LSTM`; the tests compare outputs, states and every gradient.

T steps, B rows, H hidden units; gate order i, f, g, o (Hochreiter & Schmidhuber 1997; Gers et al. 2000).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Scan(torch.autograd.Function):
    """Gate inputs [T, B, 4H], recurrent weights [4H, H], h and c [B, H] to hidden states [T, B, H] and the last c."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        steps, rows, width = inputs.shape
        size = width // 4
        across = weight.t().contiguous()
        gates = torch.empty_like(inputs)
        cells = inputs.new_empty(steps + 1, rows, size)
        hidden = inputs.new_empty(steps + 1, rows, size)
        cells[0], hidden[0] = c, h
        squashed, new = inputs.new_empty(rows, size), inputs.new_empty(rows, size)
        for t in range(steps):
            now = torch.addmm(inputs[t], hidden[t], across, out=gates[t])
            now[:, : 2 * size].sigmoid_()
            now[:, 2 * size : 3 * size].tanh_()
            now[:, 3 * size :].sigmoid_()
            i, f, g, o = now.chunk(4, 1)
            torch.mul(i, g, out=new)
            torch.mul(f, cells[t], out=cells[t + 1]).add_(new)
            torch.tanh(cells[t + 1], out=squashed)
            torch.mul(o, squashed, out=hidden[t + 1])
        ctx.save_for_backward(gates, cells, hidden, weight)
        return hidden[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, cells, hidden, weight = ctx.saved_tensors
        steps, _, width = gates.shape
        size = width // 4
        above, dc = grads[0], grads[1].clone()
        change = torch.empty_like(gates)  # gradient of the gates before their nonlinearities
        dh = torch.zeros_like(dc)
        squashed, inner, part = torch.empty_like(dc), torch.empty_like(dc), torch.empty_like(dc)
        for t in range(steps - 1, -1, -1):
            i, f, g, o = gates[t].chunk(4, 1)
            di, df, dg, do = change[t].chunk(4, 1)
            dh += above[t]
            torch.tanh(cells[t + 1], out=squashed)
            torch.mul(dh, squashed, out=part)
            _through_sigmoid(part, o, inner, do)
            torch.mul(dh, o, out=part)
            dc += part
            part.mul_(squashed).mul_(squashed)
            dc -= part
            torch.mul(dc, g, out=part)
            _through_sigmoid(part, i, inner, di)
            torch.mul(dc, cells[t], out=part)
            _through_sigmoid(part, f, inner, df)
            torch.mul(dc, i, out=part)
            torch.mul(part, g, out=inner).mul_(g)
            torch.sub(part, inner, out=dg)
            dc *= f
            torch.mm(change[t], weight, out=dh)
        gradient = change.view(-1, width).t() @ hidden[:-1].reshape(-1, size)
        return change, gradient, dh, dc


def _through_sigmoid(change: Tensor, gate: Tensor, spare: Tensor, out: Tensor) -> None:
    """out = change · gate · (1 - gate); `change` and `spare` are overwritten.

    A product at a time: PyTorch's fused ones are slow where rows do not lie one after the other.
    """
    change *= gate
    torch.mul(change, gate, out=spare)
    torch.sub(change, spare, out=out)


def lstm_scan(inputs: Tensor, weight: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [T, B, H] and the last h and c [B, H] from gate inputs [T, B, 4H] (biases included)."""
    hidden, last = _Scan.apply(inputs, weight, h, c)  # type: ignore[no-untyped-call]
    return hidden, hidden[-1], last
