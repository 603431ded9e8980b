"""The slow twin of `native.Decoder`: the same decoder from `reference.py` and `search.py`, step by step.

It runs where the core is not there, and in tests wherever the core is held against it.

B batch, N items still in the search, K rows of an item, P tokens of a prompt, W words that may be written, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recur.engine.reference import Array, Cell, IntArray, State, Weights, caption_memory, caption_step
from recur.engine.search import Step


@dataclass(frozen=True)
class Twin:
    """A network and the words it may write."""

    weights: Weights
    cell: Cell
    words: IntArray  # [W]

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


@dataclass(frozen=True)
class TwinItems:
    """The step function of the search for some items."""

    twin: Twin
    memory: Array | None
    keys: Array | None
    lengths: IntArray | None

    def feed(self, x: Array, state: list[State], items: IntArray) -> tuple[Array, list[State], Array | None]:
        """One step of rows x [N, E], which belong to items [N]: logits [N, W], state, attention."""
        logits, after, alpha = caption_step(
            x,
            state,
            None if self.memory is None else self.memory[items],
            None if self.keys is None else self.keys[items],
            self.twin.weights,
            self.twin.cell,
            None if self.lengths is None or self.memory is None else np.asarray(self.lengths)[items],
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
