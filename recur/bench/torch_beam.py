"""The caption decoder and a batched beam search in plain PyTorch: what recur's core is compared with.

Written the way a careful PyTorch user writes it: all pictures and hypotheses are rows of one batch, gate products are
`torch.lstm_cell` and `torch.gru_cell`, the memory and its keys are computed once, and only the words of the language
are scored. It finds what `recur.engine.search.beam_search` finds.

B pictures, K hypotheses of a picture, R regions, F features, V words that may be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recur.engine.reference import Array, Cell


class TorchCaptioner:
    """The network of `recur.engine.reference.caption_step` on tensors; the caller imports `torch`."""

    def __init__(
        self,
        torch: Any,
        weights: Mapping[str, Array],
        *,
        cell: Cell,
        layers: int,
        words: Any,
        language: int,
        end: int,
    ) -> None:
        """`words` [V] are ids, END among them; `language` and `end` are ids."""
        self.torch, self.cell, self.layers = torch, cell, layers
        self.w = {name: torch.from_numpy(value) for name, value in weights.items()}
        self.words = torch.from_numpy(words)
        self.embedding = self.w["embedding.weight"][self.words]
        self.head_bias = self.w["head.bias"][self.words]
        self.language = self.w["embedding.weight"][language]
        self.end = int((self.words == end).nonzero()[0, 0])
        self.attention = "attention.score.weight" in self.w

    def beam_search(
        self, features: Array, *, beam: int, max_length: int, min_length: int, length_penalty: float
    ) -> list[tuple[list[int], float]]:
        """The best caption of each picture, features [B, R, F]: ids without END, log-probability."""
        with self.torch.inference_mode():
            return self._beam_search(self.torch.from_numpy(features), beam, max_length, min_length, length_penalty)

    def _beam_search(
        self, features: Any, beam: int, max_length: int, min_length: int, length_penalty: float
    ) -> list[tuple[list[int], float]]:
        torch, w = self.torch, self.w
        linear = torch.nn.functional.linear
        count = len(features)
        memory: Any = None
        keys: Any = None
        if self.attention:
            memory = linear(features, w["memory.weight"], w["memory.bias"])
            keys = linear(memory, w["attention.key.weight"])
        hidden = w["rnn.weight_hh_l0"].shape[1]
        parts = 2 if self.cell == "lstm" else 1
        state = [tuple(torch.zeros(count, hidden) for _ in range(parts)) for _ in range(self.layers)]
        start = linear(features.mean(1), w["start.weight"], w["start.bias"])
        _, state = self._step(start, state, memory, keys)
        logits, state = self._step(self.language.expand(count, -1), state, memory, keys)
        if memory is not None:
            memory, keys = memory.repeat_interleave(beam, 0), keys.repeat_interleave(beam, 0)
        state = [tuple(part.repeat_interleave(beam, 0) for part in layer) for layer in state]
        log_probs = logits.log_softmax(-1).repeat_interleave(beam, 0)
        totals = torch.full((count, beam), -torch.inf)
        totals[:, 0] = 0  # one hypothesis a picture to begin with
        texts = torch.zeros(count * beam, 0, dtype=torch.long)
        finished: list[list[tuple[float, float, list[int]]]] = [[] for _ in range(count)]
        going = [True] * count
        vocabulary = len(self.words)
        offsets = (torch.arange(count) * beam)[:, None]
        for length in range(max_length + 1):
            if length < min_length:
                log_probs[:, self.end] = -torch.inf
            if length == max_length:
                last = log_probs[:, self.end].clone()
                log_probs = torch.full_like(log_probs, -torch.inf)
                log_probs[:, self.end] = last
            scores = (totals.view(-1, 1) + log_probs).view(count, beam * vocabulary)
            values, places = scores.topk(beam, dim=1)
            parents, tokens = places // vocabulary + offsets, places % vocabulary
            totals = values.clone()
            rows = zip(values.tolist(), tokens.tolist(), parents.tolist(), strict=True)
            for n, (found, chosen, above) in enumerate(rows):
                free = beam - len(finished[n])
                best = -float("inf")
                for k, (value, token, parent) in enumerate(zip(found, chosen, above, strict=True)):
                    if k >= free or value == -float("inf") or not going[n]:
                        totals[n, k] = -torch.inf
                    elif token == self.end:
                        finished[n].append((value / (length + 1) ** length_penalty, value, texts[parent].tolist()))
                        totals[n, k] = -torch.inf
                    else:
                        best = max(best, value)
                bound = best / (max_length + 1) ** length_penalty
                going[n] = best > -float("inf") and not (finished[n] and max(finished[n])[0] >= bound)
            if not any(going):
                break
            flat = parents.flatten()
            texts = torch.cat([texts[flat], tokens.flatten()[:, None]], 1)
            state = [tuple(part[flat] for part in layer) for layer in state]
            logits, state = self._step(self.embedding[tokens.flatten()], state, memory, keys)
            log_probs = logits.log_softmax(-1)
        ids = self.words.tolist()
        best_of = [max(each, key=lambda entry: entry[0]) for each in finished]
        return [([ids[place] for place in text], total) for _, total, text in best_of]

    def _step(self, x: Any, state: list[Any], memory: Any, keys: Any) -> tuple[Any, list[Any]]:
        torch, w = self.torch, self.w
        linear = torch.nn.functional.linear
        below, after, context = x, [], None
        for layer, before in enumerate(state):
            if layer == 1 and context is not None:
                below = torch.cat([below, context], -1)
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [w[f"rnn.{name}_l{layer}"] for name in names]
            if self.cell == "lstm":
                now = torch.lstm_cell(below, before, *weights)
            else:
                now = ((torch.gru_cell if self.cell == "gru" else torch.rnn_tanh_cell)(below, before[0], *weights),)
            after.append(now)
            below = now[0]
            if layer == 0 and memory is not None:
                query = linear(below, w["attention.query.weight"], w["attention.query.bias"])
                alpha = linear(torch.tanh(keys + query[:, None]), w["attention.score.weight"])[..., 0].softmax(-1)
                context = torch.bmm(alpha[:, None], memory)[:, 0]
        top = below if context is None else torch.cat([below, context], -1)
        output = torch.tanh(linear(top, w["output.weight"], w["output.bias"]))
        return linear(output, self.embedding, self.head_bias), after
