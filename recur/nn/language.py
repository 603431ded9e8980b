"""A language model: characters in, scores of the next character out, state carried from one piece of text to the next.

Embedding, a stack of recurrent layers, a linear head (Graves 2013, "Generating Sequences With Recurrent Neural
Networks"). Dropout is what decides on small texts: one mask for all steps of a piece between layers (Gal & Ghahramani
2016) and one on the recurrent weights (Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models").

T steps, B rows of text, V characters, E embedding, H hidden units. Tensors are [T, B, …]: a step is contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.nn.dropout import Among, locked, weight_drop
from recur.nn.scan import lstm_scan
from recur.nn.state import State

Cell = Literal["rnn", "lstm", "gru"]
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class LanguageNetwork(nn.Module):
    """Tokens [T, B] and a state in; scores [T, B, V] of what follows each, and the next state out."""

    def __init__(
        self,
        *,
        vocabulary: int,
        cell: Cell = "lstm",
        embedding: int = 64,
        hidden: int = 512,
        layers: int = 2,
        dropout: float = 0.2,
        weight_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell, self.hidden, self.dropout, self.weight_drop = cell, hidden, dropout, weight_drop
        self.embedding = nn.Embedding(vocabulary, embedding)
        sizes = [embedding, *[hidden] * (layers - 1)]
        self.rnn = nn.ModuleList(CELLS[cell](size, hidden) for size in sizes)
        self.head = nn.Linear(hidden, vocabulary)
        nn.init.normal_(self.embedding.weight, std=1.0)
        with torch.no_grad():
            self.embedding.weight[0] = 0  # what was never seen says nothing
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            for layer in self.rnn:
                nn.init.orthogonal_(cast(Tensor, layer.weight_hh_l0))
                nn.init.zeros_(cast(Tensor, layer.bias_hh_l0))
                if cell == "lstm":
                    # A forget gate that starts open remembers from the first step on (Jozefowicz et al. 2015).
                    cast(Tensor, layer.bias_hh_l0)[hidden : 2 * hidden] = 1.0

    def first_state(self, rows: int) -> State:
        """All zeros for B rows."""
        like = self.head.weight
        parts = 2 if self.cell == "lstm" else 1
        return State(tuple(tuple(like.new_zeros(rows, self.hidden) for _ in range(parts)) for _ in self.rnn))

    def forward(self, tokens: Tensor, state: State, among: Among | None = None) -> tuple[Tensor, State]:
        """tokens [T, B] -> scores [T, B, V] and the state after the last step. `among`: see `recur.nn.dropout`."""
        following: list[tuple[Tensor, ...]] = []
        hidden = tokens
        for number, (layer, before) in enumerate(zip(self.rnn, state.layers, strict=True)):
            weight_ih, weight_hh, bias_ih, bias_hh = (
                cast(Tensor, getattr(layer, name))
                for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            )
            weight_hh = weight_drop(weight_hh, self.weight_drop, training=self.training)
            if self.cell == "lstm":
                if number == 0:
                    # There are few characters and many places: what each adds to the gates is computed once.
                    table = functional.linear(self.embedding.weight, weight_ih, bias_ih + bias_hh)
                    inputs = functional.embedding(tokens, table)
                else:
                    inputs = functional.linear(hidden, weight_ih, bias_ih + bias_hh)
                hidden, *after = lstm_scan(inputs, weight_hh, *before)
            else:
                x = self.embedding(tokens) if number == 0 else hidden
                kernel = torch.gru if self.cell == "gru" else torch.rnn_tanh
                hidden, last = kernel(
                    x,
                    before[0][None],
                    [weight_ih, weight_hh, bias_ih, bias_hh],
                    True,
                    1,
                    0.0,
                    True,  # without dropout it is the same; a GPU's kernel wants to know whether gradients may follow
                    False,
                    False,
                )
                after = [last[0]]
            following.append(tuple(after))
            hidden = locked(hidden, self.dropout, training=self.training, among=among)
        return self.head(hidden), State(tuple(following))

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights under the names that a bundle uses, float32."""
        named = {
            "embedding.weight": self.embedding.weight,
            "head.weight": self.head.weight,
            "head.bias": self.head.bias,
        }
        for number, layer in enumerate(self.rnn):
            named |= {f"rnn.{name.removesuffix('_l0')}_l{number}": value for name, value in layer.named_parameters()}
        return {name: value.detach().float().contiguous() for name, value in named.items()}
