"""The sentiment network: a recurrent network reads both ways, and one number says how good what it read was.

A text is read in windows of `WINDOW` tokens, each from a state of zeros, forwards and backwards (Schuster & Paliwal
1997); what the text amounts to is the greatest and the mean value that each unit took at any token (Conneau et al.
2017). So memory does not grow with the text, every word counts, and all windows are computed side by side.

N windows, M tokens of all of them, R texts, E embedding, H hidden units of a direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from recur.nn.dropout import Among, dropout
from recur.nn.sequence import Packing, locked_dropout, packed_lstm


class SentimentNetwork(nn.Module):
    """Tokens in, one logit a text out: above zero is the second label."""

    def __init__(self, *, vocabulary: int, embedding: int = 64, hidden: int = 128, dropout: float = 0.4) -> None:
        super().__init__()
        self.hidden, self.share = hidden, dropout
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.forwards = nn.LSTM(embedding, hidden)
        self.backwards = nn.LSTM(embedding, hidden)
        self.head = nn.Linear(4 * hidden, 1)
        nn.init.normal_(self.embedding.weight, std=0.1)
        for layer in (self.forwards, self.backwards):
            # A forget gate that starts open remembers from the first step on (Jozefowicz et al. 2015).
            nn.init.constant_(cast(Tensor, layer.bias_ih_l0)[hidden : 2 * hidden], 1.0)

    def forward(
        self,
        windows: Tensor,
        lengths: Tensor,
        owner: Tensor,
        among: Among | None = None,
        texts: Among | None = None,
    ) -> Tensor:
        """Logits [R] of texts from windows [N, T] of tokens, the first `lengths` [N] of each; `owner` [N], rising, says
        whose each is. `among` of the windows, and `texts` of the texts: see `recur.nn.dropout`.
        """
        packing = Packing.of(lengths)
        x = self.embedding(packing.pack(windows))
        x = locked_dropout(x, self.share, packing, training=self.training, among=among)
        # The backward direction reads the same packing with the tokens of each window turned round.
        places = packing.step * len(lengths) + packing.row
        turned = (lengths[packing.row] - 1 - packing.step) * len(lengths) + packing.row
        where = torch.empty(windows.shape[1] * len(lengths), dtype=torch.long, device=windows.device)
        where[places] = torch.arange(len(places), device=windows.device)
        order = where[turned]
        ahead = packed_lstm(x, self.forwards, packing.live)
        behind = packed_lstm(x[order], self.backwards, packing.live)[order]
        states = torch.cat([ahead, behind], 1)  # [M, 2H]
        return cast(Tensor, self.head(self.pool(states, packing, owner, texts))[:, 0])

    def pool(self, states: Tensor, packing: Packing, owner: Tensor, among: Among | None = None) -> Tensor:
        """Greatest and mean value of each unit over a text's tokens, [R, 4H], of states [M, 2H]."""
        count = int(owner[-1]) + 1
        text = owner[packing.row]
        sizes = torch.bincount(text, minlength=count)
        order = torch.argsort(text, stable=True)
        slot = torch.arange(len(order), device=states.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        least = states.new_full((count, int(sizes.max()), states.shape[1]), -1.0)  # no unit is ever below -1
        padded = least.index_put((text[order], slot), states[order])
        total = states.new_zeros(count, states.shape[1]).index_add(0, text, states)
        pooled = torch.cat([padded.amax(1), total / sizes[:, None]], 1)
        return dropout(pooled, self.share, training=self.training, among=among)

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights by the names that the engine reads: both directions are one layer of a stack."""
        found = {"embedding.weight": self.embedding.weight}
        for layer, way in ((self.forwards, ""), (self.backwards, "_reverse")):
            for name, value in layer.named_parameters():
                found[f"rnn.{name}{way}"] = value
        found["head.weight"], found["head.bias"] = self.head.weight, self.head.bias
        return {name: value.detach() for name, value in found.items()}

    def load_engine_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that `engine_weights` names. Errors: KeyError, RuntimeError for others."""
        with torch.no_grad():
            for name, value in self.engine_weights().items():
                value.copy_(weights[name])
