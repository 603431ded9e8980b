"""The caption network: a picture STARTs a recurrent network, each word is its next input, until END.

Vinyals et al. 2015 ("Show and Tell") for START; Xu et al. 2015 ("Show, Attend and Tell") for looking again at every
word; the place of attention, between the first and the second recurrent layer, follows Anderson et al. 2018
("Bottom-Up and Top-Down Attention"). Nothing of a later layer flows back into the first one, so a whole sentence is
a few large matrix products in training, and one step at a time gives the same numbers.

P pictures, N captions (each belongs to one picture), T steps, R grid cells, F features of a cell, E embedding,
H hidden units, A attention units, V vocabulary. Step 0 reads START, step 1 the language token, then the words;
the first word is predicted after step 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from recur.nn.sequence import Packing, locked_dropout, packed_lstm

Cell = Literal["rnn", "lstm", "gru"]
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_CellWeights = tuple[Tensor, Tensor, Tensor, Tensor]
State = list[tuple[Tensor, ...]]  # one entry a layer: (h,) or (h, c), each [N, H]


class CaptionNetwork(nn.Module):
    """Features and words in, scores of the next word out. The output head is tied to the embedding."""

    def __init__(
        self,
        *,
        channels: int,
        vocabulary: int,
        cell: Cell = "lstm",
        embedding: int = 256,
        hidden: int = 512,
        layers: int = 2,
        attention: int = 128,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.cell, self.hidden, self.layer_count, self.attention_units = cell, hidden, layers, attention
        self.start = nn.Linear(channels, embedding)
        self.embedding = nn.Embedding(vocabulary, embedding)
        sizes = [embedding] + [2 * hidden if attention and i == 1 else hidden for i in range(1, layers)]
        self.rnn = nn.ModuleList(CELLS[cell](size, hidden, batch_first=True) for size in sizes)
        if attention:
            self.memory = nn.Linear(channels, hidden)
            self.key = nn.Linear(hidden, attention, bias=False)
            self.query = nn.Linear(hidden, attention)
            self.score = nn.Linear(attention, 1, bias=False)
        self.output = nn.Linear(2 * hidden if attention else hidden, embedding)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary))
        self.dropout_share = dropout
        self.feature_scale: Tensor
        self.register_buffer("feature_scale", torch.ones(channels))
        nn.init.normal_(self.embedding.weight, std=0.1)
        if cell == "lstm":
            for layer in self.rnn:
                # A forget gate that starts open remembers from the first step on (Jozefowicz et al. 2015).
                nn.init.constant_(cast(Tensor, layer.bias_ih_l0)[hidden : 2 * hidden], 1.0)

    def dropout(self, x: Tensor, packing: Packing, among: tuple[int, Tensor] | None = None) -> Tensor:
        """Dropout on packed x [M, D], the same units at every step, so that the recurrence is not shaken."""
        return locked_dropout(x, self.dropout_share, packing, training=self.training, among=among)

    def scan(self, layer: int, x: Tensor, packing: Packing) -> Tensor:
        """Hidden states [M, H] of one layer for packed inputs [M, D]."""
        module = self.rnn[layer]
        if isinstance(module, nn.LSTM):
            return packed_lstm(x, module, packing.live)
        hidden: Tensor = module(PackedSequence(x, torch.tensor(packing.live)))[0].data
        return hidden

    @torch.no_grad()
    def normalise(self, features: Tensor) -> None:
        """Learn the spread of each channel from features [P, R, F], so that encoders of any scale are heard alike.

        Channels that hardly ever speak are not shouted out: a tenth of the mean spread is the least that counts.
        """
        spread = features.float().flatten(0, 1).std(0)
        self.feature_scale.copy_(1 / spread.clamp_min(float(spread.mean()) / 10 + 1e-6))

    def look(self, features: Tensor, regions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """START [P, E], memory [P, R, H] and attention keys [P, R, A] of features [P, R, F].

        `regions` [P]: how many of R there are in each, all when left out; the others are zero.
        """
        features = features * self.feature_scale
        start = self.start(features.mean(1) if regions is None else features.sum(1) / regions[:, None])
        if not self.attention_units:
            nothing = features.new_zeros(features.shape[0], 1, 1)
            return start, nothing, nothing
        memory = self.memory(features)
        return start, memory, self.key(memory)

    def attend(self, hidden: Tensor, memory: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Additive attention (Bahdanau et al. 2015). Context [P, T, H] and weights [P, T, R] for hidden [P, T, H]."""
        return self._read(self.query(hidden), memory, keys)

    def attend_packed(
        self, hidden: Tensor, picture: Tensor, memory: Tensor, keys: Tensor, regions: Tensor | None = None
    ) -> Tensor:
        """Context [M, H] for hidden [M, H], each of which looks at its own picture [M] of P.

        All places of a picture are brought together, so that what it gives to read is not copied for each of them.
        """
        counts = torch.bincount(picture, minlength=len(memory))
        order = torch.argsort(picture, stable=True)
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        width = int(counts.max())
        place = picture * width + slot  # [M] in [P, width]
        query = self.query(hidden)
        asked = query.new_zeros(len(memory) * width, query.shape[1]).index_copy(0, place, query)
        context, _ = self._read(asked.view(len(memory), width, -1), memory, keys, regions)
        return context.flatten(0, 1).index_select(0, place)

    def _read(
        self, query: Tensor, memory: Tensor, keys: Tensor, regions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mixed = torch.tanh(keys[:, None] + query[:, :, None])  # [P, T, R, A]
        scores = self.score(mixed).squeeze(-1).float()
        if regions is not None:
            outside = torch.arange(memory.shape[1], device=regions.device) >= regions[:, None]
            scores = scores.masked_fill(outside[:, None], float("-inf"))
        weights = scores.softmax(-1)
        return weights.to(memory.dtype) @ memory, weights

    def forward(self, features: Tensor, owner: Tensor, tokens: Tensor, words: Tensor | None = None) -> Tensor:
        """Scores [N, T, V] of what follows each of tokens [N, T], the first of them the language token.

        `owner` [N] names the picture of each row. `words` [W] are the ids to score (those of one language), in this
        order; all when left out.
        """
        packing, scores = self.score_sentences(
            features, owner, tokens, tokens.new_full((len(tokens),), tokens.shape[1]), words
        )
        out = scores.new_empty(*tokens.shape, scores.shape[1])
        out[packing.row, packing.step] = scores
        return out

    def score_sentences(
        self,
        features: Tensor,
        owner: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        words: Tensor | None = None,
        regions: Tensor | None = None,
        among: tuple[int, Tensor] | None = None,
    ) -> tuple[Packing, Tensor]:
        """As `forward`, for the first `lengths` [N] tokens of each row only: where they are, and scores [M, V].

        `regions` [P]: how many regions of each picture there are, all when left out. `among` (count, places [N]): the
        rows are a part of so many, whose dropout masks are drawn together.
        """
        start, memory, keys = self.look(features, regions)
        inputs = torch.cat([start[owner][:, None], self.embedding(tokens).to(start.dtype)], 1)
        packing = Packing.of(lengths + 1)
        picture = owner[packing.row]
        hidden = self.scan(0, self.dropout(packing.pack(inputs), packing, among), packing)
        if self.attention_units:
            context = self.attend_packed(hidden, picture, memory, keys, regions)
        for i in range(1, self.layer_count):
            below = torch.cat([hidden, context], -1) if self.attention_units and i == 1 else hidden
            hidden = self.scan(i, self.dropout(below, packing, among), packing)
        top = torch.cat([hidden, context], -1) if self.attention_units else hidden
        after = packing.after_first()
        return after, self.predict(self.dropout(top[packing.live[0] :], after, among), words)

    def predict(self, top: Tensor, words: Tensor | None = None) -> Tensor:
        """Scores [.., V] from the top of the network [.., H or 2H], or of `words` only."""
        table: Tensor = self.embedding.weight
        bias: Tensor = self.head_bias
        if words is not None:
            table, bias = table[words], bias[words]
        return functional.linear(torch.tanh(self.output(top)), table, bias)

    def first_state(self, rows: int, like: Tensor) -> State:
        """All zeros for N rows."""
        parts = 2 if self.cell == "lstm" else 1
        return [tuple(like.new_zeros(rows, self.hidden) for _ in range(parts)) for _ in self.rnn]

    def step(self, x: Tensor, state: State, memory: Tensor, keys: Tensor) -> tuple[Tensor, State]:
        """One step of N rows: input [N, E], memory [N, R, H], keys [N, R, A] -> top [N, H or 2H] and the next state."""
        following: State = []
        hidden, context = x, x
        for i, (layer, before) in enumerate(zip(self.rnn, state, strict=True)):
            if i == 1 and self.attention_units:
                hidden = torch.cat([hidden, context], -1)
            names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            weights = cast(_CellWeights, tuple(getattr(layer, name) for name in names))
            if self.cell == "lstm":
                after: tuple[Tensor, ...] = torch.lstm_cell(hidden, before, *weights)
            elif self.cell == "gru":
                after = (torch.gru_cell(hidden, before[0], *weights),)
            else:
                after = (torch.rnn_tanh_cell(hidden, before[0], *weights),)
            hidden = after[0]
            following.append(after)
            if i == 0 and self.attention_units:
                context = self.attend(hidden[:, None], memory, keys)[0][:, 0]
        return (torch.cat([hidden, context], -1) if self.attention_units else hidden), following

    @torch.no_grad()
    def generate(
        self,
        features: Tensor,
        language: int,
        words: Tensor,
        *,
        end: int,
        copies: int = 1,
        length: int = 24,
        temperature: float = 0.0,
    ) -> Tensor:
        """Sentences [P * copies, <= length] as ids, after END only END: the most probable word each time, or,
        at a `temperature` above 0, a sample.

        features [P, R, F]; `language` is the id of the language token, `words` [W] are the ids it may use, `end` too.
        Samples are drawn by inverting the cumulative distribution: one random number a row, not one a word.
        """
        start, memory, keys = (x.repeat_interleave(copies, 0) for x in self.look(features))
        rows = start.shape[0]
        state = self.first_state(rows, start)
        _, state = self.step(start, state, memory, keys)
        word = words.new_full((rows,), language)
        over = torch.zeros(rows, dtype=torch.bool, device=words.device)
        chosen: list[Tensor] = []
        for _ in range(length):
            top, state = self.step(self.embedding(word).to(start.dtype), state, memory, keys)
            scores = self.predict(top, words).float()
            if temperature:
                total = (scores / temperature).softmax(-1).cumsum(-1)
                drawn = torch.rand(rows, 1, device=total.device) * total[:, -1:]
                place = torch.searchsorted(total, drawn).clamp_(max=len(words) - 1)[:, 0]
            else:
                place = scores.argmax(-1)
            word = words[place].masked_fill(over, end)
            chosen.append(word)
            over = over | (word == end)
            if bool(over.all()):
                break
        return torch.stack(chosen, 1)

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights under the names that a bundle uses, float32; those that read features take the scale in."""
        named: dict[str, Tensor] = {}
        for i, layer in enumerate(self.rnn):
            for name, value in layer.named_parameters():
                named[f"rnn.{name.removesuffix('_l0')}_l{i}"] = value
        for name in ("start", "memory", "output"):
            if hasattr(self, name):
                module = getattr(self, name)
                weight = module.weight if name == "output" else module.weight * self.feature_scale
                named |= {f"{name}.weight": weight, f"{name}.bias": module.bias}
        if self.attention_units:
            named |= {
                "attention.key.weight": self.key.weight,
                "attention.query.weight": self.query.weight,
                "attention.query.bias": self.query.bias,
                "attention.score.weight": self.score.weight,
            }
        named |= {"embedding.weight": self.embedding.weight, "head.bias": self.head_bias}
        return {name: value.detach().float().contiguous() for name, value in named.items()}

    def load_engine_weights(self, weights: dict[str, Tensor]) -> None:
        """The reverse of `engine_weights`, for the feature scale that this network has."""
        mine = self.state_dict()
        for name in list(mine):
            if name == "feature_scale":
                continue
            engine = name
            if name.startswith("rnn."):
                _, layer, rest = name.split(".", 2)
                engine = f"rnn.{rest.removesuffix('_l0')}_l{layer}"
            elif name.split(".")[0] in ("key", "query", "score"):
                engine = f"attention.{name}"
            elif name == "head_bias":
                engine = "head.bias"
            reads_features = name in ("start.weight", "memory.weight")
            mine[name] = weights[engine] / self.feature_scale if reads_features else weights[engine]
        self.load_state_dict(mine)
