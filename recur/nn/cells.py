"""Cells: one step of a recurrent network, h and what else it keeps in, the next ones out.

A cell is the function that is applied at every step with the same weights. Each is a module with `step(x, state)`;
`first_state(rows)` is what everything starts from. Weights have PyTorch's names, layout and order of gates, so that
they go through `recur.engine` and `torch.nn` unchanged.

B rows, D input features, H hidden units, T steps, G gates. σ is the sigmoid, * the product of each with each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

Parts = tuple[Tensor, ...]  # (h,) or (h, c), each [B, H]
Activation = Literal["tanh", "relu", "sigmoid", "identity"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class Cell(nn.Module):
    """What all cells share: G gates read x through `weight_ih` [G·H, D] and h through `weight_hh` [G·H, H]."""

    parts = 1  # tensors of the state; the first is h, which is what the layer above reads

    def __init__(self, inputs: int, hidden: int, gates: int) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        bound = 1 / math.sqrt(hidden)
        for name, shape in (
            ("weight_ih", (gates * hidden, inputs)),
            ("weight_hh", (gates * hidden, hidden)),
            ("bias_ih", (gates * hidden,)),
            ("bias_hh", (gates * hidden,)),
        ):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def first_state(self, rows: int) -> Parts:
        """Zeros for B rows."""
        return tuple(self.weight_ih.new_zeros(rows, self.hidden) for _ in range(self.parts))

    def read(self, x: Tensor) -> Tensor:
        """W x + b: what the input adds to the gates, [.., G·H]. It needs no state: all steps at once will do."""
        return functional.linear(x, self.weight_ih, self.bias_ih)

    def keep(self, h: Tensor, weight_hh: Tensor) -> Tensor:
        """U h + b': what the state adds to them."""
        return functional.linear(h, weight_hh, self.bias_hh)

    def step(self, x: Tensor, state: Parts, weight_hh: Tensor | None = None) -> Parts:
        """x [B, D] and a state to the next state; with `weight_hh` in the place of the cell's own, when given."""
        return self.advance(self.read(x), state, self.weight_hh if weight_hh is None else weight_hh)

    def advance(self, read: Tensor, state: Parts, weight_hh: Tensor) -> Parts:
        """As `step`, for an input that has been read already: [B, G·H]."""
        raise NotImplementedError


class RnnCell(Cell):
    """h' = f(W x + b + U h + b') (Elman 1990, "Finding structure in time").

    f is tanh; ReLU (Le et al. 2015), the sigmoid and the identity are there to be compared with it.
    """

    def __init__(self, inputs: int, hidden: int, activation: Activation = "tanh") -> None:
        super().__init__(inputs, hidden, 1)
        self.activation = activation

    def advance(self, read: Tensor, state: Parts, weight_hh: Tensor) -> Parts:
        return (ACTIVATIONS[self.activation](read + self.keep(state[0], weight_hh)),)


class LstmCell(Cell):
    """c' = σ(f) * c + σ(i) * tanh(g), h' = σ(o) * tanh(c') (Hochreiter & Schmidhuber 1997; the gate f of Gers et al.
    2000): what is kept is kept by a sum, not by a product with the same matrix at every step.
    """

    parts = 2

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 4)

    def advance(self, read: Tensor, state: Parts, weight_hh: Tensor) -> Parts:
        i, f, g, o = (read + self.keep(state[0], weight_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GruCell(Cell):
    """h' = (1 - σ(z)) * n + σ(z) * h, n = tanh(W_n x + b_n + σ(r) * (U_n h + b'_n)) (Cho et al. 2014; in PyTorch's
    form, where r is applied after the product).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 3)

    def advance(self, read: Tensor, state: Parts, weight_hh: Tensor) -> Parts:
        (h,) = state
        r_x, z_x, n_x = read.chunk(3, -1)
        r_h, z_h, n_h = self.keep(h, weight_hh).chunk(3, -1)
        z = torch.sigmoid(z_x + z_h)
        return ((1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h,)


class LayerNormLstmCell(LstmCell):
    """The LSTM with N(W x) + N(U h) in its gates and tanh(N(c')) in its output, N(a) = gain * (a - mean) / deviation +
    bias over all units (Ba et al. 2016, "Layer normalization", equations 20 to 22).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.norm_ih, self.norm_hh = (nn.Parameter(torch.ones(4 * hidden)) for _ in range(2))
        self.norm_c, self.norm_c_bias = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.zeros(hidden))

    def read(self, x: Tensor) -> Tensor:
        across = functional.linear(x, self.weight_ih)
        return functional.layer_norm(across, across.shape[-1:], self.norm_ih, self.bias_ih)

    def keep(self, h: Tensor, weight_hh: Tensor) -> Tensor:
        across = functional.linear(h, weight_hh)
        return functional.layer_norm(across, across.shape[-1:], self.norm_hh, self.bias_hh)

    def advance(self, read: Tensor, state: Parts, weight_hh: Tensor) -> Parts:
        i, f, g, o = (read + self.keep(state[0], weight_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        squashed = torch.tanh(functional.layer_norm(c, c.shape[-1:], self.norm_c, self.norm_c_bias))
        return torch.sigmoid(o) * squashed, c


class MinimalCell(nn.Module):
    """Gates that read the input alone: h' = a * h + b with a and b of x only (Feng et al. 2024, "Were RNNs all we
    needed?"), so that all steps can be computed at once.

    `scan` does that in the logarithms of the paper's appendix, where a product of many gates is a sum; h is positive,
    and so are the candidates: g(x) = x + 1/2 above zero, σ(x) below.
    """

    parts = 1

    def __init__(self, inputs: int, hidden: int, gates: int) -> None:
        super().__init__()
        self.inputs, self.hidden, self.gates = inputs, hidden, gates
        self.linear = nn.Linear(inputs, gates * hidden)

    def first_state(self, rows: int) -> Parts:
        """What the paper starts from: g(0) = 1/2 for B rows."""
        return (self.linear.weight.new_full((rows, self.hidden), 0.5),)

    def logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log a and log b, [.., H] each."""
        raise NotImplementedError

    def step(self, x: Tensor, state: Parts) -> Parts:
        """x [B, D] and a state to the next state."""
        a, b = self.logs(x)
        return (a.exp() * state[0] + b.exp(),)

    def scan(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [T, B, D] from `state`: h [T, B, H] of every step, all at once, and the last state.

        h_t = A_t (h_0 + Σ_{s ≤ t} b_s / A_s) with A_t = a_1 · … · a_t (Heinsen 2023).
        """
        a, b = self.logs(x)
        along = a.cumsum(0)
        start = state[0].log()[None]
        h = (along + torch.cat([start, b - along]).logcumsumexp(0)[1:]).exp()
        return h, (h[-1],)


def _log_candidate(x: Tensor) -> Tensor:
    """log g(x), g(x) = x + 1/2 where x ≥ 0, else σ(x)."""
    return torch.where(x >= 0, (functional.relu(x) + 0.5).log(), functional.logsigmoid(x))


class MinGruCell(MinimalCell):
    """h' = (1 - σ(z)) * h + σ(z) * g(n), z and n of x alone."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 2)

    def logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, n = self.linear(x).chunk(2, -1)
        return functional.logsigmoid(-z), functional.logsigmoid(z) + _log_candidate(n)


class MinLstmCell(MinimalCell):
    """h' = f' * h + i' * g(n), where f' = σ(f) / (σ(f) + σ(i)) and i' = 1 - f', all of x alone."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 3)

    def logs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f, i, n = self.linear(x).chunk(3, -1)
        between = functional.softplus(-f) - functional.softplus(-i)  # log σ(i) - log σ(f)
        return -functional.softplus(between), -functional.softplus(-between) + _log_candidate(n)


CELLS: dict[str, Callable[[int, int], Cell | MinimalCell]] = {
    "rnn": RnnCell,
    "rnn_relu": lambda inputs, hidden: RnnCell(inputs, hidden, "relu"),
    "rnn_sigmoid": lambda inputs, hidden: RnnCell(inputs, hidden, "sigmoid"),
    "rnn_identity": lambda inputs, hidden: RnnCell(inputs, hidden, "identity"),
    "lstm": LstmCell,
    "gru": GruCell,
    "lstm_norm": LayerNormLstmCell,
    "mingru": MinGruCell,
    "minlstm": MinLstmCell,
}
