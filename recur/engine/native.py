"""The compiled core's Python face: recurrent stacks over whole sequences, and token decoders, on packed weights.

Weights are packed once, when a `Stack` or `Decoder` is made, in float32, bfloat16 or int8 (one scale a row;
activations are quantized on the fly). The core (`engine/_core`, C++) is chosen when it can be loaded; where it cannot,
the plain loops of `engine/reference.py` and `engine/search.py` run instead, with one warning that says why. Both take
the same arguments and give the same results to the tolerance of the precision, so `isa="reference"` is the slow twin.

Environment: `RECUR_ISA` names the instruction set when the caller does not ("plain", "avx2", … or "reference").

B batch, T time, D input features, H hidden units, L layers, G gates, E embedding, V vocabulary, R regions,
F features of a region, A attention units, P tokens of a prompt, W words that may be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recur.engine.reference import Array, Cell, IntArray, State, Weights
from recur.engine.search import Hypothesis

Precision = Literal["float32", "bfloat16", "int8"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Where:
    """What runs here. `reason` says why the core does not, and is None when it does.

    `isa` is the instruction set used by default, `isas` are all that this machine has, slowest first.
    """

    core: bool
    reason: str | None
    isa: str
    isas: tuple[str, ...]
    threads: int
    compiler: str | None


def where() -> Where:
    """Whether the core is there, the instruction set it runs on, and how many threads large work is spread over."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Scan:
    """A scanned sequence, and on request what happened at every step.

    `outputs` [B, T, H] of the top layer ([B, T, 2H] in both directions), `state` the last one: L entries of (h,) or
    (h, c), each [B, H]; in both directions 2L entries, forward and backward by turns. With `trace`: `hidden` and, for
    the lstm, `cells`, [L, B, T, H], and `gates` [L, B, T, G * H] after their nonlinearities, in PyTorch's order.
    """

    outputs: FloatArray
    state: list[State]
    hidden: FloatArray | None = None
    cells: FloatArray | None = None
    gates: FloatArray | None = None


class Stack:
    """Layers of one kind of cell, packed, for whole sequences. One may serve several threads."""

    def __init__(
        self,
        weights: Weights,
        *,
        cell: Cell,
        layers: int = 1,
        bidirectional: bool = False,
        prefix: str = "",
        precision: Precision = "float32",
        isa: str | None = None,
        threads: int | None = None,
    ) -> None:
        """`weights` under PyTorch's names with `prefix` before them (`weight_ih_l0`, …, `_reverse` for the other
        direction). Where `norm_ih_l0` is among them the cell is layer-normalised (see `reference.normed`).
        `threads`: the most to use, all processors when None.

        Errors: ValueError for shapes that do not fit, numbers that are not finite, or an `isa` that is not here.
        """
        raise NotImplementedError

    def scan(
        self,
        x: Array,
        *,
        state: Sequence[State] | None = None,
        lengths: IntArray | Sequence[int] | None = None,
        resets: npt.NDArray[np.bool_] | None = None,
        trace: bool = False,
    ) -> Scan:
        """The whole sequence x [B, T, D], from `state` (zeros when None). Row b ends after `lengths[b]` steps: its
        state stands still and its outputs are zero. Where `resets` [B, T] is true, the state is zero before that step
        is read: another sequence begins there (for the backward direction, one ends before it).

        Errors: ValueError or TypeError for arrays that do not fit.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Generation:
    """What `Decoder.generate` wrote: `tokens` [B, T], the model's own `log_probs` [B, T], and the state to go on."""

    tokens: npt.NDArray[np.int64]
    log_probs: FloatArray
    state: list[State]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a decoder makes of given tokens [B, T]: `logits` [B, T, V or W] of what follows each, `attention`
    [B, T, R] or None, the last `state`, and with `trace` `hidden`, `cells` and `gates` as in `Scan`."""

    logits: FloatArray
    attention: FloatArray | None
    state: list[State]
    hidden: FloatArray | None = None
    cells: FloatArray | None = None
    gates: FloatArray | None = None


class Decoder:
    """Tokens in, tokens out: embedding, layers, attention over a memory, head, and the whole search loop in the core.

    `weights` have the caption network's names (`engine/decoder.py`): `embedding.weight` [V, E], `rnn.*`; and of these
    what the network has: `start.{weight,bias}`; `memory.{weight,bias}` (without them the memory is the features
    themselves), `attention.query.{weight,bias}`, `attention.key.weight`, `attention.score.weight` (with it attention is
    additive, without it a dot product over sqrt(A)); `output.{weight,bias}`, a tanh layer before the head; `head.weight`
    [V, ·] (without it the head is tied to the embedding); `head.bias` [V].

    One decoder may serve several threads.
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
        """`words` [W] are the ids that may be written, all when None: only these are scored. Everywhere below tokens
        are vocabulary ids; in results with V or W columns, column j is `words[j]`."""
        raise NotImplementedError

    def with_words(self, words: IntArray | Sequence[int]) -> Decoder:
        """The same network with other words: the packed layers are shared."""
        raise NotImplementedError

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
        raise NotImplementedError

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
        """Sequences drawn as `search.sample` draws them: the same tokens from the same seed."""
        raise NotImplementedError

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
        raise NotImplementedError

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

        `temperature` 0 takes the most probable token; above 0 tokens are drawn as by `sample`.
        """
        raise NotImplementedError

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
        raise NotImplementedError


def elementwise(function: Literal["tanh", "sigmoid", "exp"], x: Array, *, isa: str | None = None) -> Any:
    """The core's own tanh, sigmoid or exp of x, float32 in and out: for tests of their error bounds."""
    raise NotImplementedError
