"""The story network: a question is reduced, sentence by sentence, to one that the sentence need not be read for.

Query-reduction network (Seo et al. 2017): a recurrent layer whose gates see the sentence and the question as it stands,
so that every layer is a reading of the story with a better question. Words of a sentence are added up, each weighed by
its place (Sukhbaatar et al. 2015), with weights that are learned.

B questions, S sentences, U different sentences, W words, H units.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from recur.nn.dropout import Among, dropout


class _Keep(torch.autograd.Function):
    """h_t = (1 - z_t) h_{t-1} + z_t c_t from a state of zeros, for z and c [S, B, H]; the gradient goes in one pass."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, c: Tensor) -> Tensor:
        added, kept = z * c, 1 - z
        out = torch.empty_like(c)
        h = torch.zeros_like(c[0])
        for step in range(len(c)):
            h = torch.addcmul(added[step], kept[step], h, out=out[step])
        ctx.save_for_backward(z, c, kept, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        z, c, kept, out = ctx.saved_tensors
        change = grads[0].clone()
        for step in range(len(c) - 2, -1, -1):
            change[step].addcmul_(kept[step + 1], change[step + 1])
        before = torch.cat([torch.zeros_like(out[:1]), out[:-1]])
        return change * (c - before), change * z


def keep(z: Tensor, c: Tensor) -> Tensor:
    """States [S, B, H] of gates z and candidates c [S, B, H]."""
    return cast(Tensor, _Keep.apply(z, c))  # type: ignore[no-untyped-call]


class StoryNetwork(nn.Module):
    """Sentences and a question in, scores of the answers out, and which sentences they rest on."""

    def __init__(
        self, *, vocabulary: int, answers: int, places: int, hidden: int = 64, layers: int = 3, dropout: float = 0.1
    ) -> None:
        """`places`: words of a sentence that are read."""
        super().__init__()
        self.share = dropout
        self.embedding = nn.Embedding(vocabulary, hidden, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.3)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        self.place = nn.Parameter(1 + 0.5 * torch.randn(places, hidden))
        self.question_place = nn.Parameter(1 + 0.5 * torch.randn(places, hidden))
        self.layers = nn.ModuleList(nn.Linear(3 * hidden, 3 * hidden) for _ in range(layers))
        self.support = nn.Linear(layers * hidden, 1)
        self.head = nn.Linear(hidden, answers)

    def forward(
        self, sentences: Tensor, story: Tensor, live: Tensor, question: Tensor, among: Among | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, answers] and logits of support [S, B].

        sentences [U, W] and question [B, W] are words, 0 where there is none; story [S, B] says which sentences, live
        [S, B] where there is one. `among`: see `recur.nn.dropout`; the sentences are then those of all questions.
        """
        count = sentences.shape[1]
        each = (self.embedding(sentences) * self.place[:count]).sum(1)
        first = (self.embedding(question) * self.question_place[: question.shape[1]]).sum(1)
        each = nn.functional.dropout(each, self.share, self.training)
        x = each[story]
        query = first[None].expand_as(x)
        there = live[..., None].to(x.dtype)
        opened = []
        for number, layer in enumerate(self.layers):
            z, r, c = layer(torch.cat([x, query, x * query], 2)).chunk(3, 2)
            z = torch.sigmoid(z) * there
            c = torch.sigmoid(r) * torch.tanh(c)
            opened.append(z)
            state = keep(z, c)
            if number + 1 < len(self.layers):
                query = state + keep(z.flip(0), c.flip(0)).flip(0)
        scores = self.head(dropout(state[-1], self.share, training=self.training, among=among))
        return scores, self.support(torch.cat(opened, 2))[..., 0]

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights by the names that the runtime reads."""
        found = {"embedding.weight": self.embedding.weight, "place": self.place, "question_place": self.question_place}
        for number, layer in enumerate(self.layers):
            found |= {f"layer{number}.{name}": value for name, value in layer.named_parameters()}
        for name, part in (("support", self.support), ("head", self.head)):
            found |= {f"{name}.{key}": value for key, value in part.named_parameters()}
        return {name: value.detach().float() for name, value in found.items()}
