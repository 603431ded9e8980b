"""A whole sequence through an LSTM, fast on a CPU.

PyTorch's CPU kernels multiply the weight gradient once a step; here backpropagation through time only collects the
gradients of the gates, and one large matrix product at the end makes the weight gradient of all steps. The slow twin
is `torch.nn.LSTM`, whose weights these are; the tests compare outputs and every gradient.

N rows, T steps, D inputs, H hidden units; gate order i, f, g, o (Hochreiter & Schmidhuber 1997; Gers et al. 2000).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


class _Scan(torch.autograd.Function):
    """Gate inputs [T, N, 4H] and recurrent weights [4H, H] to hidden states [T, N, H], from a state of zeros."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        steps, rows, width = inputs.shape
        size = width // 4
        weight = weight.to(inputs.dtype)
        across = weight.t()
        gates = inputs.new_empty(steps, rows, width)
        exact = torch.promote_types(inputs.dtype, torch.float32)
        cells = inputs.new_zeros(steps + 1, rows, size, dtype=exact)
        hidden = inputs.new_zeros(steps + 1, rows, size)
        with torch.autocast("cpu", enabled=False):
            for t in range(steps):
                now = torch.addmm(inputs[t], hidden[t], across, out=gates[t])
                now[:, : 2 * size].sigmoid_()
                now[:, 2 * size : 3 * size].tanh_()
                now[:, 3 * size :].sigmoid_()
                i, f, g, o = now.chunk(4, 1)
                torch.addcmul(f * cells[t], i.to(exact), g.to(exact), out=cells[t + 1])
                hidden[t + 1] = o * cells[t + 1].tanh().to(inputs.dtype)
        ctx.save_for_backward(gates, cells, hidden, weight)
        return hidden[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gates, cells, hidden, weight = ctx.saved_tensors
        steps, rows, width = gates.shape
        change = torch.empty_like(gates)  # gradient of the gates before their nonlinearities
        exact = cells.dtype
        upper = grads[0]
        dh = upper.new_zeros(rows, width // 4)
        dc = cells.new_zeros(rows, width // 4)
        with torch.autocast("cpu", enabled=False):
            for t in range(steps - 1, -1, -1):
                i, f, g, o = gates[t].to(exact).chunk(4, 1)
                squashed = cells[t + 1].tanh()
                dh = (upper[t] + dh).to(exact)
                dc = dc.addcmul(dh * o, 1 - squashed * squashed)
                parts = change[t].chunk(4, 1)
                parts[0].copy_(dc * g * i * (1 - i))
                parts[1].copy_(dc * cells[t] * f * (1 - f))
                parts[2].copy_(dc * i * (1 - g * g))
                parts[3].copy_(dh * squashed * o * (1 - o))
                dh = change[t] @ weight
                dc = dc * f
            flat = change.reshape(steps * rows, width)
            gradient = flat.t() @ hidden[:-1].reshape(steps * rows, -1)
        return change, gradient


def lstm_scan(x: Tensor, layer: nn.LSTM) -> Tensor:
    """Hidden states [N, T, H] of inputs [N, T, D] through a one-layer, one-direction `torch.nn.LSTM`, from zeros."""
    weight_ih, weight_hh, bias_ih, bias_hh = (
        cast(Tensor, getattr(layer, name)) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    )
    inputs = functional.linear(x.transpose(0, 1), weight_ih, bias_ih + bias_hh)
    out: Tensor = _Scan.apply(inputs.contiguous(), weight_hh)  # type: ignore[no-untyped-call]
    return out.transpose(0, 1)


def locked_dropout(x: Tensor, share: float, *, training: bool) -> Tensor:
    """Dropout with one mask [N, 1, D] for all steps of x [N, T, D] (Gal & Ghahramani 2016)."""
    if not training or share == 0:
        return x
    mask = torch.rand(x.shape[0], 1, x.shape[2], dtype=torch.float32) >= share
    return x * (mask.to(x.dtype) / (1 - share))
