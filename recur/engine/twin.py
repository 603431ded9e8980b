"""The slow twin of `native.Decoder`: the same decoder from `reference.py` and `search.py`, step by step.

It runs where the core is not there, and in tests wherever the core is held against it.

B batch, T time, N items still in the search, K rows of an item, P tokens of a prompt, W words that may be written,
R regions, E embedding, H hidden units, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from recur.engine import search
from recur.engine.hypotheses import Step, log_softmax
from recur.engine.native_stack import FloatArray, Ids, kept_of, layers_of, packed_state
from recur.engine.reference import Array, Cell, IntArray, State, Trace, Weights, caption_memory, caption_step


@dataclass(frozen=True, slots=True)
class Generation:
    """What `Decoder.generate` wrote: `tokens` [B, T], the model's own `log_probs` [B, T], and the state to go on."""

    tokens: npt.NDArray[np.int64]
    log_probs: FloatArray
    state: list[State]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a decoder makes of given tokens [B, T]: `logits` [B, T, V or W] of what follows each, `attention`
    [B, T, R] or None, the last `state`, and with `trace` `hidden`, `cells` and `gates` as in `native.Scan`."""

    logits: FloatArray
    attention: FloatArray | None
    state: list[State]
    hidden: FloatArray | None = None
    cells: FloatArray | None = None
    gates: FloatArray | None = None


@dataclass(frozen=True)
class Twin:
    """A network and the words it may write. `items` are what `Decoder` has checked: features, memory_lengths, prompt,
    h and c."""

    weights: Weights
    cell: Cell
    layers: int
    words: Ids  # [W]

    @property
    def attends(self) -> bool:
        return "attention.query.weight" in self.weights

    def begin(self, features: Array | None, lengths: IntArray | None) -> TwinItems:
        """Items whose memory is read, features [B, R, F] of which the first `lengths[b]` regions count."""
        if features is None or not self.attends:
            return TwinItems(self, None, None, lengths)
        return TwinItems(self, *caption_memory(features, self.weights), lengths)

    def start(self, features: Array, lengths: IntArray | None) -> Array:
        """What START feeds the first layer: [B, E], from the mean of the regions that count."""
        if lengths is None:
            mean = features.mean(axis=1)
        else:
            inside = np.arange(features.shape[1]) < np.asarray(lengths)[:, None]
            mean = (features * inside[:, :, None]).sum(axis=1) / np.asarray(lengths, features.dtype)[:, None]
        result: Array = mean @ self.weights["start.weight"].T + self.weights["start.bias"]
        return result

    def prompted(self, items: dict[str, Any]) -> tuple[TwinItems, Step]:
        """The step function of the search and what the prompt gives."""
        step, logits, state, alpha = self._fed(items)
        return step, step_of(logits, state, alpha, len(logits))

    def read(self, items: dict[str, Any], *, trace: bool = False) -> Reading:
        """As `Decoder.read`."""
        batch, time = items["prompt"].shape
        hidden = self.weights["rnn.weight_hh_l0"].shape[1]
        seen: list[_Seen] = []
        _, _, state, _ = self._fed(items, seen)
        seen = seen[len(seen) - time :]  # without START
        logits = np.stack([each.logits for each in seen], 1) if seen else np.zeros((batch, 0, len(self.words)))
        looks = [each.alpha for each in seen if each.alpha is not None]
        attention = np.stack(looks, 1).astype(np.float32) if looks else None
        kept = None
        if trace:
            kept = Trace.empty(self.cell, self.layers, batch, time, hidden, self.weights["embedding.weight"])
            for place, each in enumerate(seen):
                for layer, (after, gates) in enumerate(zip(each.state, each.gates, strict=True)):
                    kept.note(layer, place, np.ones(batch, bool), after, gates)
        return Reading(logits.astype(np.float32), attention, state, *kept_of(kept))

    def generate(
        self, items: dict[str, Any], length: int, temperature: float, top_k: int, top_p: float, draws: Any
    ) -> Generation:
        """As `Decoder.generate`, with the draws already made."""
        step, logits, state, _ = self._fed(items)
        everyone = np.arange(len(logits))
        chosen: list[Ids] = []
        gained: list[Array] = []
        for place in range(length):
            log_probs = log_softmax(logits.copy())
            if temperature:
                tokens = search.choose(log_probs[:, None], draws[:, :, place], temperature, top_k, top_p)[:, 0]
            else:
                tokens = log_probs.argmax(axis=-1)
            chosen.append(np.asarray(tokens, np.int64))
            gained.append(log_probs[everyone, tokens])
            if place < length - 1:
                x = self.weights["embedding.weight"][self.words[tokens]]
                logits, state, _ = step.feed(x, state, everyone)
        empty = np.zeros((len(everyone), 0))
        tokens_out = np.stack(chosen, 1) if chosen else empty.astype(np.int64)
        log_out = np.stack(gained, 1) if gained else empty
        return Generation(self.words[tokens_out], log_out.astype(np.float32), state)

    def _fed(
        self, items: dict[str, Any], seen: list[_Seen] | None = None
    ) -> tuple[TwinItems, Array, list[State], Array | None]:
        """START and the prompt, read: the step function, and logits, state and attention after them."""
        tokens = items["prompt"]
        batch = len(tokens)
        everyone = np.arange(batch)
        step = self.begin(items["features"], items["memory_lengths"])
        h, c = items["h"], items["c"]
        if h is None:
            h, c = packed_state(None, self.cell, self.layers, batch, self.weights["rnn.weight_hh_l0"].shape[1])
        state = layers_of(h, c)
        inputs = [self.weights["embedding.weight"][tokens[:, place]] for place in range(tokens.shape[1])]
        if "start.weight" in self.weights:
            inputs.insert(0, cast(FloatArray, self.start(items["features"], items["memory_lengths"])))
        logits: Array = np.zeros((batch, len(self.words)), np.float32)
        alpha: Array | None = None
        for x in inputs:
            gates: list[Array] | None = None if seen is None else []
            logits, state, alpha = step.feed(x, state, everyone, gates)
            if seen is not None and gates is not None:
                seen.append(_Seen(logits, state, alpha, gates))
        return step, logits, state, alpha


@dataclass(frozen=True)
class _Seen:
    """One step of reading: logits [B, W], state, attention, gates of each layer."""

    logits: Array
    state: list[State]
    alpha: Array | None
    gates: list[Array]


@dataclass(frozen=True)
class TwinItems:
    """The step function of the search for some items."""

    twin: Twin
    memory: Array | None
    keys: Array | None
    lengths: IntArray | None

    def feed(
        self, x: Array, state: list[State], items: IntArray, gates: list[Array] | None = None
    ) -> tuple[Array, list[State], Array | None]:
        """One step of rows x [N, E], which belong to items [N]: logits [N, W], state, attention. `gates` gets those of
        each layer."""
        logits, after, alpha = caption_step(
            x,
            state,
            None if self.memory is None else self.memory[items],
            None if self.keys is None else self.keys[items],
            self.twin.weights,
            self.twin.cell,
            None if self.lengths is None or self.memory is None else np.asarray(self.lengths)[items],
            gates,
        )
        return logits[:, self.twin.words], after, alpha

    def __call__(self, tokens: IntArray, state: tuple[Array, ...], items: IntArray) -> Step:
        """Feed columns [N, K] of the words; as the search wants it."""
        count, rows = tokens.shape
        flat = [part.reshape(count * rows, -1) for part in state]
        x = self.twin.weights["embedding.weight"][self.twin.words[tokens.reshape(-1)]]
        logits, after, alpha = self.feed(x, self.layered(flat), np.repeat(items, rows))
        return step_of(logits, after, alpha, count)

    def layered(self, parts: list[Array]) -> list[State]:
        """A flat list of state arrays as one tuple a layer."""
        each = 2 if self.twin.cell == "lstm" else 1
        return [tuple(parts[i : i + each]) for i in range(0, len(parts), each)]


def step_of(logits: Array, state: list[State], alpha: Array | None, count: int) -> Step:
    """Rows [N * K, ...] as a step of N items."""
    return Step(
        logits.reshape(count, -1, logits.shape[-1]),
        tuple(part.reshape(count, -1, part.shape[-1]) for layer in state for part in layer),
        None if alpha is None else alpha.reshape(count, -1, alpha.shape[-1]),
    )
