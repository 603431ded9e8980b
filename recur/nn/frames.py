"""The network of frames: a label for every step, from features of a CNN read forwards and, on request, backwards.

The head is a softmax of each step, or a linear-chain conditional random field (Lafferty, McCallum & Pereira 2001; on
top of a recurrent network, Huang, Xu & Yu 2015), whose loss is found by the forward algorithm.

B sequences, T steps, D features, P numbers they are reduced to, H hidden units of a direction, K labels.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.nn.dropout import Among, dropout

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class FrameNetwork(nn.Module):
    """Features in, K scores a step out. `cell` "none" looks at each frame alone, which recurrence is compared with."""

    def __init__(
        self,
        *,
        features: int,
        classes: int,
        cell: str = "lstm",
        reduced: int = 32,
        hidden: int = 32,
        bidirectional: bool = True,
        crf: bool = False,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.crf, self.share = crf, dropout
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.reduce = nn.Linear(features, reduced)
        self.forwards = CELLS[cell](reduced, hidden, batch_first=True) if cell != "none" else None
        self.backwards = CELLS[cell](reduced, hidden, batch_first=True) if cell != "none" and bidirectional else None
        width = reduced if self.forwards is None else hidden * (2 if self.backwards is not None else 1)
        self.head = nn.Linear(width, classes)
        self.transitions = nn.Parameter(torch.zeros(classes, classes), requires_grad=crf)
        self.start = nn.Parameter(torch.zeros(classes), requires_grad=crf)

    def forward(self, x: Tensor, lengths: Tensor, among: Among | None = None) -> Tensor:
        """Emissions [B, T, K] of features x [B, T, D]; only the first `lengths` [B] steps mean anything. `among`: see
        `recur.nn.dropout`.
        """
        x = (x - cast(Tensor, self.mean)) * cast(Tensor, self.scale)
        x = torch.tanh(self.reduce(dropout(x, self.share, training=self.training, among=among)))
        x = dropout(x, self.share, training=self.training, among=among)
        if self.forwards is not None:
            states = [self.forwards(x)[0]]
            if self.backwards is not None:
                order = _turned(lengths, x.shape[1])
                behind = self.backwards(_picked(x, order))[0]
                states.append(_picked(behind, order))
            x = dropout(torch.cat(states, -1), self.share, training=self.training, among=among)
        return cast(Tensor, self.head(x))

    def loss(self, emissions: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        """Mean nats a step of labels [B, T]."""
        if self.crf:
            nats = crf_nats(emissions, labels, lengths, self.transitions, self.start)
            return nats.sum() / lengths.sum()
        real = torch.arange(labels.shape[1], device=labels.device) < lengths[:, None]
        return functional.cross_entropy(emissions[real], labels[real])

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights by the names that the engine reads; normalisation is folded into the reduction."""
        scale, mean = cast(Tensor, self.scale), cast(Tensor, self.mean)
        weight = self.reduce.weight * scale
        found = {"reduce.weight": weight, "reduce.bias": self.reduce.bias - weight @ mean}
        for prefix, layer in (("forwards.", self.forwards), ("backwards.", self.backwards)):
            if layer is not None:
                found |= {prefix + name: value for name, value in layer.named_parameters()}
        found |= {"head.weight": self.head.weight, "head.bias": self.head.bias}
        found |= {"crf.transitions": self.transitions, "crf.start": self.start}
        return {name: value.detach() for name, value in found.items()}


def crf_nats(emissions: Tensor, labels: Tensor, lengths: Tensor, transitions: Tensor, start: Tensor) -> Tensor:
    """-log p [B] of the chains labels [B, T] under emissions [B, T, K], transitions [K, K] and start [K]."""
    steps = emissions.shape[1]
    rows = torch.arange(len(labels), device=labels.device)
    alpha = start + emissions[:, 0]
    score = start[labels[:, 0]] + emissions[rows, 0, labels[:, 0]]
    for t in range(1, steps):
        going = t < lengths
        after = torch.logsumexp(alpha[:, :, None] + transitions, 1) + emissions[:, t]
        alpha = torch.where(going[:, None], after, alpha)
        more = transitions[labels[:, t - 1], labels[:, t]] + emissions[rows, t, labels[:, t]]
        score = score + torch.where(going, more, torch.zeros_like(more))
    return torch.logsumexp(alpha, 1) - score


def _turned(lengths: Tensor, steps: int) -> Tensor:
    """Places [B, T] that turn the first `lengths` steps round and leave the rest."""
    place = torch.arange(steps, device=lengths.device).expand(len(lengths), steps)
    return torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)


def _picked(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[:, :, None].expand(-1, -1, x.shape[2]))
