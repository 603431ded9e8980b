"""The span reader: two recurrent networks read question and passage both ways, and two pointers say where the answer
starts and ends, or that there is none (after Chen et al. 2017, the reader of DrQA).

Words are sums of hashed parts, so that none is unknown. B, R, Q, E, H as in `recur.engine.span`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recur.engine.span import BUCKETS, FEATURES
from recur.nn.dropout import Among, dropout


class SpanNetwork(nn.Module):
    """Tokens of passage and question in, log-probabilities of start and end out."""

    def __init__(self, *, embedding: int = 48, hidden: int = 64, told: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.share = dropout
        self.embedding = nn.Embedding(BUCKETS, embedding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.question = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.passage = nn.LSTM(2 * embedding + FEATURES + told, hidden, batch_first=True, bidirectional=True)
        self.pool = nn.Linear(2 * hidden, 1, bias=False)
        self.align = nn.Linear(embedding, embedding, bias=False)
        self.told = nn.Linear(2 * hidden, told, bias=False)
        self.start, self.end = nn.Linear(2 * hidden, 2 * hidden), nn.Linear(2 * hidden, 2 * hidden)
        self.start_none, self.end_none = nn.Linear(4 * hidden, 1), nn.Linear(4 * hidden, 1)

    def forward(
        self,
        passage: Tensor,
        features: Tensor,
        sizes: Tensor,
        question: Tensor,
        lengths: Tensor,
        among: Among | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B, R + 1], the last one: there is no answer.

        passage [B, R, 4] and question [B, Q, 4], of which the first `sizes` and `lengths` [B] are there; features
        [B, R, 6]. `among`: see `recur.nn.dropout`.
        """
        x, q = self.embedding(passage).sum(2), self.embedding(question).sum(2)
        x, q = (dropout(each, self.share, training=self.training, among=among) for each in (x, q))
        there = torch.arange(x.shape[1], device=x.device) < sizes[:, None]
        asked_there = torch.arange(q.shape[1], device=x.device) < lengths[:, None]
        asked = _scan(self.question, q, lengths)
        share = self.pool(asked)[..., 0].masked_fill(~asked_there, -1e9).softmax(1)
        summary = (share[:, None] @ asked)[:, 0]
        keys = torch.tanh(self.align(x)) @ torch.tanh(self.align(q)).transpose(1, 2)
        aligned = keys.masked_fill(~asked_there[:, None], -1e9).softmax(2) @ q
        told = torch.tanh(self.told(summary))[:, None].expand(-1, x.shape[1], -1)
        states = _scan(self.passage, torch.cat([x, aligned, features, told], 2), sizes)
        states = dropout(states, self.share, training=self.training, among=among)
        most = states.masked_fill(~there[..., None], -2).amax(1)
        found = []
        for pointer, none in ((self.start, self.start_none), (self.end, self.end_none)):
            scores = (states @ pointer(summary)[..., None])[..., 0].masked_fill(~there, -1e9)
            scores = torch.cat([scores, none(torch.cat([summary, most], 1))], 1)
            found.append(scores.log_softmax(1))
        return found[0], found[1]

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights by the names that the engine reads."""
        return {name: value.detach().float() for name, value in self.named_parameters()}


def _scan(layer: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    out, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])
    return out
