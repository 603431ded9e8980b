"""Token decoders on the compiled core: embedding, layers, attention over a memory, head, and the search loop.

B batch, T time, H hidden units, L layers, E embedding, V vocabulary, R regions, F features of a region, M width of the
memory, A attention units, P tokens of a prompt, W words that may be written.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.engine import core, search
from recur.engine.hypotheses import RUNNERS_UP, Hypothesis
from recur.engine.native_stack import (
    PRECISIONS,
    FloatArray,
    Precision,
    checked,
    code,
    fitting,
    floats,
    layer_shapes,
    layers_of,
    make_stack,
    packed_state,
    whole,
)
from recur.engine.reference import GATES, Array, Cell, IntArray, State, Weights
from recur.engine.rules import Rules
from recur.engine.twin import Generation, Reading, Twin
from recur.engine.vision import processors


class Decoder:
    """Tokens in, tokens out: embedding, layers, attention over a memory, head, and the whole search loop in the core.

    `weights` have the caption network's names (`engine/decoder.py`): `embedding.weight` [V, E], `rnn.*`; and of these
    what the network has: `start.{weight,bias}`; `memory.{weight,bias}` (without them the memory is the features
    themselves), `attention.query.{weight,bias}`, `attention.key.weight`, `attention.score.weight` (with it attention
    is additive, without it a dot product over sqrt(A)); `output.{weight,bias}`, a tanh layer before the head;
    `head.weight` [V, .] (without it the head is tied to the embedding); `head.bias` [V].

    Tokens are vocabulary ids everywhere. One decoder may serve several threads.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        cell: Cell,
        layers: int = 1,
        precision: Precision = "float32",
        words: IntArray | Sequence[int] | None = None,
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`words` [W] are the ids that may be written, all when None: only these are scored. `threads`: the most to
        use, all processors when None; items are shared among them.

        Errors: ValueError for weights that do not fit together, TypeError for what are no numbers.
        """
        if layers < 1:
            raise ValueError(f"layers {layers}; expected 1 or more; give another")
        code(precision, PRECISIONS, "precision")
        names = [
            "embedding.weight",
            *(f"rnn.{name}_l{i}" for i in range(layers) for name in ("weight_ih", "weight_hh")),
        ]
        self.weights = checked(weights, names)
        self.cell, self.layers, self.precision = cell, layers, precision
        self.threads = threads or processors()
        self._fit()
        module, self.isa = core.chosen(isa)
        self._module: Any = module
        self._network: Any = None
        if module is not None:
            stack = make_stack(
                module,
                self.weights,
                cell=cell,
                suffixes=[str(layer) for layer in range(layers)],
                inputs=[self._pieces(layer) for layer in range(layers)],
                prefix="rnn.",
                precision=precision,
                exact_first=True,
                isa=self.isa,
            )
            output = len(self.weights["output.weight"]) if "output.weight" in self.weights else 0
            self._network = module.make_network(
                stack,
                self.weights,
                *self.weights["embedding.weight"].shape,
                self.features,
                self.memory,
                self.attention,
                output,
                PRECISIONS.index(precision),
            )
        self._choose(range(self.vocabulary) if words is None else words)

    def with_words(self, words: IntArray | Sequence[int]) -> Decoder:
        """The same network with other words: the packed layers are shared."""
        other = copy.copy(self)
        other._choose(words)
        return other

    # ------------------------------------------------------------------------------------------------------- search

    def greedy(
        self,
        features: Array | None = None,
        *,
        prompt: IntArray,
        end: int,
        max_length: int,
        memory_lengths: IntArray | Sequence[int] | None = None,
        state: Sequence[State] | None = None,
        min_length: int = 0,
        forbidden: Sequence[int] = (),
        no_repeat_ngram: int = 0,
        no_end_after: Sequence[int] = (),
    ) -> list[Hypothesis]:
        """The most probable token each time. features [B, R, F], prompt [B, P]; the rest as `search.greedy`."""
        items = self._items(features, prompt, memory_lengths, state)
        rules = self._rules(end, min_length, max_length, forbidden, no_repeat_ngram, no_end_after)
        if self._module is None:
            step, first = self._twin.prompted(items)
            return [self._named(found) for found in search.greedy(step, first, **rules)]
        rolled = self._core.roll(
            **items, **rules, samples=1, temperature=0.0, top_k=0, top_p=1.0, draws=None, threads=self.threads
        )
        return [found for (found,) in self._told(rolled, items)]

    def sample(
        self,
        features: Array | None = None,
        *,
        prompt: IntArray,
        end: int,
        max_length: int,
        seed: int | Sequence[int],
        samples: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        memory_lengths: IntArray | Sequence[int] | None = None,
        state: Sequence[State] | None = None,
        min_length: int = 0,
        forbidden: Sequence[int] = (),
        no_repeat_ngram: int = 0,
        no_end_after: Sequence[int] = (),
    ) -> list[tuple[Hypothesis, ...]]:
        """Sequences drawn as `search.sample` draws them: the same tokens from the same seed, whatever the batch."""
        items = self._items(features, prompt, memory_lengths, state)
        rules = self._rules(end, min_length, max_length, forbidden, no_repeat_ngram, no_end_after)
        options: dict[str, Any] = {"samples": samples, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        draws = search.draws(len(items["prompt"]), seed=seed, places=max_length + 1, **options)
        if self._module is None:
            step, first = self._twin.prompted(items)
            found = search.sample(step, first, **rules, seed=seed, **options)
            return [tuple(map(self._named, each)) for each in found]
        return self._told(self._core.roll(**items, **rules, **options, draws=draws, threads=self.threads), items)

    def beam_search(
        self,
        features: Array | None = None,
        *,
        prompt: IntArray,
        end: int,
        max_length: int,
        beam: int = 5,
        n_best: int = 1,
        length_penalty: float = 0.0,
        memory_lengths: IntArray | Sequence[int] | None = None,
        state: Sequence[State] | None = None,
        min_length: int = 0,
        forbidden: Sequence[int] = (),
        no_repeat_ngram: int = 0,
        no_end_after: Sequence[int] = (),
    ) -> list[tuple[Hypothesis, ...]]:
        """The best hypotheses of each item, for the whole batch at once, as `search.beam_search` finds them."""
        items = self._items(features, prompt, memory_lengths, state)
        rules = self._rules(end, min_length, max_length, forbidden, no_repeat_ngram, no_end_after)
        options: dict[str, Any] = {"beam": beam, "n_best": n_best, "length_penalty": length_penalty}
        if self._module is None:
            step, first = self._twin.prompted(items)
            return [tuple(map(self._named, each)) for each in search.beam_search(step, first, **rules, **options)]
        return self._told(self._core.beam_search(**items, **rules, **options, threads=self.threads), items)

    # ----------------------------------------------------------------------------------------------- without an end

    def generate(
        self,
        prompt: IntArray,
        *,
        length: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | Sequence[int] = 0,
        state: Sequence[State] | None = None,
    ) -> Generation:
        """Exactly `length` tokens after prompt [B, P], for language models: no END, no record of runners-up.

        `temperature` 0 takes the most probable token; above 0 tokens are drawn as by `sample`. To go on where it
        stopped, call it with the last token as the prompt and with the state that it gave.
        """
        if length < 0:
            raise ValueError(f"length {length}; expected 0 or more; give another")
        items = self._items(None, prompt, None, state)
        batch = len(items["prompt"])
        draws = None
        if temperature != 0:
            draws = search.draws(
                batch, seed=seed, places=length, samples=1, temperature=temperature, top_k=top_k, top_p=top_p
            )
        if self._module is None:
            return self._twin.generate(items, length, temperature, top_k, top_p, draws)
        tokens = np.zeros((batch, length), np.int64)
        log_probs = np.zeros((batch, length), np.float32)
        h, c = packed_state(None, self.cell, self.layers, batch, self.hidden)
        self._core.generate(
            items["prompt"],
            items["h"],
            items["c"],
            temperature,
            top_k,
            top_p,
            draws,
            tokens,
            log_probs,
            h,
            c,
            self.threads,
        )
        return Generation(self.words[tokens], log_probs, layers_of(h, c))

    def read(
        self,
        tokens: IntArray,
        features: Array | None = None,
        *,
        memory_lengths: IntArray | Sequence[int] | None = None,
        state: Sequence[State] | None = None,
        trace: bool = False,
    ) -> Reading:
        """Feed given tokens [B, T] (teacher forcing). START, where the network has one, comes before them."""
        items = self._items(features, tokens, memory_lengths, state)
        batch, time = items["prompt"].shape
        if self._module is None:
            return self._twin.read(items, trace=trace)
        logits = np.zeros((batch, time, len(self.words)), np.float32)
        regions = 0 if items["features"] is None else items["features"].shape[1]
        attention = np.zeros((batch, time, regions), np.float32) if self.attention else None
        h, c = packed_state(None, self.cell, self.layers, batch, self.hidden)
        kept: list[FloatArray | None] = [None, None, None]
        if trace:
            shape = (self.layers, batch, time)
            kept = [
                np.zeros((*shape, self.hidden), np.float32),
                None if c is None else np.zeros((*shape, self.hidden), np.float32),
                np.zeros((*shape, GATES[self.cell] * self.hidden), np.float32),
            ]
        given = (items["features"], items["memory_lengths"], items["prompt"], items["h"], items["c"])
        self._core.read(*given, logits, attention, h, c, *kept, self.threads)
        return Reading(logits, attention, layers_of(h, c), *kept)

    # ------------------------------------------------------------------------------------------------------- inside

    def _fit(self) -> None:
        """Read the sizes off the weights and check that they fit together."""
        weights = self.weights
        embedding = weights["embedding.weight"]
        if embedding.ndim != 2 or 0 in embedding.shape:
            raise ValueError(f"embedding.weight has shape {list(embedding.shape)}; expected [V, E]; give another")
        self.vocabulary, width = embedding.shape
        self.attention = self.memory = self.features = 0
        if "start.weight" in weights:
            self.features = weights["start.weight"].shape[-1]
            fitting(weights["start.weight"], "start.weight", (width, self.features))
            self._bias("start.bias", width)
        if "attention.query.weight" in weights:
            if "attention.key.weight" not in weights:
                raise ValueError("attention.key.weight is missing; expected [A, M]; give it")
            key = weights["attention.key.weight"]
            if key.ndim != 2:
                raise ValueError(f"attention.key.weight has shape {list(key.shape)}; expected [A, M]; give another")
            self.attention, self.memory = key.shape
            if "memory.weight" in weights:
                self.features = self.features or weights["memory.weight"].shape[-1]
                fitting(weights["memory.weight"], "memory.weight", (self.memory, self.features))
                self._bias("memory.bias", self.memory)
            else:
                self.features = self.features or self.memory
            if "attention.score.weight" in weights:
                fitting(weights["attention.score.weight"], "attention.score.weight", (1, self.attention))
        self.hidden = weights["rnn.weight_hh_l0"].shape[-1]
        suffixes = [str(layer) for layer in range(self.layers)]
        widths = [width, *(sum(self._pieces(layer)) for layer in range(1, self.layers))]
        layer_shapes(weights, self.cell, "rnn.", suffixes, widths)
        top = self.hidden + self.memory
        if self.attention:
            fitting(weights["attention.query.weight"], "attention.query.weight", (self.attention, self.hidden))
            self._bias("attention.query.bias", self.attention)
        if "output.weight" in weights:
            output = weights["output.weight"]
            fitting(output, "output.weight", (len(output), top))
            self._bias("output.bias", len(output))
            top = len(output)
        head = weights.get("head.weight", embedding)
        fitting(head, "head.weight" if "head.weight" in weights else "embedding.weight", (self.vocabulary, top))
        if "head.bias" in weights:
            self._bias("head.bias", self.vocabulary)

    def _bias(self, name: str, size: int) -> None:
        if name not in self.weights:
            raise ValueError(f"{name} is missing; expected shape [{size}]; give it")
        fitting(self.weights[name], name, (size,))

    def _pieces(self, layer: int) -> list[int]:
        """Widths of what a layer reads."""
        if layer == 0:
            return [self.weights["embedding.weight"].shape[1]]
        return [self.hidden, self.memory] if layer == 1 and self.attention else [self.hidden]

    def _choose(self, words: IntArray | Sequence[int] | range) -> None:
        count = len(words)
        self.words = whole(np.asarray(words), "words", (count,), 0, self.vocabulary - 1)
        if count == 0 or len(np.unique(self.words)) != count:
            raise ValueError(f"{count} words, some of them twice or none; expected different ids; give those")
        self._column = {int(word): column for column, word in enumerate(self.words)}
        self._twin = Twin(self.weights, self.cell, self.layers, self.words)
        self._core: Any = None
        if self._module is not None:
            head = np.ascontiguousarray(self.weights.get("head.weight", self.weights["embedding.weight"])[self.words])
            bias = self.weights["head.bias"][self.words] if "head.bias" in self.weights else None
            self._core = self._module.make_decoder(
                self._network, self.words, head, bias, PRECISIONS.index(self.precision)
            )

    def _items(
        self,
        features: Array | None,
        prompt: IntArray,
        memory_lengths: IntArray | Sequence[int] | None,
        state: Sequence[State] | None,
    ) -> dict[str, Any]:
        """What the core takes of every call, checked."""
        tokens = whole(prompt, "the prompt", None, 0, self.vocabulary - 1)
        batch = len(tokens)
        starts = "start.weight" in self.weights
        if not starts and tokens.shape[1] == 0:
            raise ValueError("an empty prompt; expected a token at least, [B, P]; give one to begin with")
        given = ends = None
        if starts or self.attention:
            if features is None:
                raise ValueError("no features; expected [B, R, F], which this network reads; give them")
            given = floats(features, "features", 3)
            if given.shape[0] != batch or given.shape[1] == 0 or given.shape[2] != self.features:
                raise ValueError(
                    f"features have shape {list(given.shape)}; expected [{batch}, R, {self.features}]; give others"
                )
            if memory_lengths is not None:
                ends = whole(memory_lengths, "memory_lengths", (batch,), 1, given.shape[1])
        h, c = (None, None) if state is None else packed_state(state, self.cell, self.layers, batch, self.hidden)
        return {"features": given, "memory_lengths": ends, "prompt": tokens, "h": h, "c": c}

    def _columns(self, ids: Sequence[int], name: str) -> list[int]:
        try:
            return [self._column[int(number)] for number in ids]
        except KeyError as error:
            raise ValueError(f"{name} has id {error}, which is none of the words; expected some of them") from None

    def _rules(
        self,
        end: int,
        min_length: int,
        max_length: int,
        forbidden: Sequence[int],
        no_repeat_ngram: int,
        no_end_after: Sequence[int],
    ) -> dict[str, Any]:
        rules: dict[str, Any] = {
            "end": self._columns([end], "end")[0],
            "min_length": min_length,
            "max_length": max_length,
            "forbidden": self._columns(forbidden, "forbidden"),
            "no_repeat_ngram": no_repeat_ngram,
            "no_end_after": self._columns(no_end_after, "no_end_after"),
        }
        Rules(**rules)  # refuses what makes no sense
        return rules

    def _named(self, found: Hypothesis) -> Hypothesis:
        return replace(found, tokens=self.words[found.tokens], alternatives=self.words[found.alternatives])

    def _told(self, results: tuple[npt.NDArray[Any], ...], items: dict[str, Any]) -> list[tuple[Hypothesis, ...]]:
        """Hypotheses from the flat arrays that the core gives."""
        counts, lengths, totals, tokens, log_probs, others, other_probs, entropies, attention = results
        tokens, others = self.words[tokens], self.words[others]
        width = min(RUNNERS_UP, len(self.words) - 1)
        others, other_probs = others.reshape(len(tokens), width), other_probs.reshape(len(tokens), width)
        looks = attention.reshape(len(tokens), -1) if self.attention and len(tokens) else None
        regions = items["features"].shape[1] if self.attention else 0
        none = np.zeros((0, regions), np.float32) if self.attention else None
        found: list[Hypothesis] = []
        at = 0
        for number, length in enumerate(lengths.tolist()):
            part = slice(at, at + length)
            end_log_prob, log_prob, score = totals[number].tolist()
            found.append(
                Hypothesis(
                    tokens=tokens[part],
                    log_probs=log_probs[part],
                    end_log_prob=end_log_prob,
                    log_prob=log_prob,
                    score=score,
                    alternatives=others[part],
                    alternative_probs=other_probs[part],
                    entropies=entropies[at + number : at + number + length + 1],
                    attention=none if looks is None else looks[part],
                )
            )
            at += length
        ends = np.cumsum(counts).tolist()
        return [tuple(found[stop - count : stop]) for stop, count in zip(ends, counts.tolist(), strict=True)]
