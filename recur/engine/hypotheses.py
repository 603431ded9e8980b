"""What a search sees and what it finds: steps, distributions over tokens, finished sequences and how they came about.

N items (pictures) still in the search, K rows of an item (hypotheses or samples), V tokens, R regions. The length of a
hypothesis counts its END. Scores are log-probabilities divided by `length ** length_penalty`: 0 is the plain sum,
1 the mean (the "length power" form; not the one of GNMT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recur.engine.reference import Array, IntArray

RUNNERS_UP = 5


@dataclass(frozen=True, slots=True)
class Step:
    """What one step gives: logits [N, K, V] of the next token, the state after it, attention [N, K, R] or None."""

    logits: Array
    state: tuple[Array, ...]  # each [N, K, ...]: the search reorders the first two axes
    attention: Array | None = None


class StepFunction(Protocol):
    """Feeds tokens [N, K] and a state (arrays [N, K, ...]); `items` [N] says which of the batch are left."""

    def __call__(self, tokens: IntArray, state: tuple[Array, ...], items: IntArray, /) -> Step: ...


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation that a beam search weighed: what `Growth` keeps.

    `parent` is the branch it continues (its number in the growth; -1: the beginning). `log_prob` is that of the token,
    `total` that of the whole so far. `fate`: "kept", it went on to the next step; "ended", the token was END; "beaten",
    there was no room for it in the beam; "stopped", it was still growing when nothing could win any more.
    """

    parent: int
    token: int
    log_prob: float
    total: float
    fate: str


class Growth:
    """How the beam of one item grew: every branch that was kept, and as many of the best of those that were not."""

    def __init__(self) -> None:
        self.branches: list[Branch] = []
        self._rows = [-1]  # the branch that each row of the beam is

    def see(self, ids: IntArray, values: Array, totals: Array, free: int, end: int, *, last: bool) -> None:
        """One step: continuations ids [K, n] with log-probabilities `values`, of rows with `totals` [K].

        `free`: places in the beam; `last`: no further step is taken.
        """
        scores = (totals[:, None] + values).reshape(-1)
        each = ids.shape[1]
        rows: list[int] = []
        for rank, place in enumerate(np.argsort(-scores, kind="stable")[: 2 * max(free, 1)].tolist()):
            if not np.isfinite(scores[place]):
                break
            row, column = divmod(place, each)
            token = int(ids[row, column])
            fate = "beaten" if rank >= free else "ended" if token == end else "stopped" if last else "kept"
            if rank < free and token != end:
                rows.append(len(self.branches))
            self.branches.append(Branch(self._rows[row], token, float(values[row, column]), float(scores[place]), fate))
        self._rows = rows


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One finished sequence of T tokens (END left out) and how it came about.

    `log_probs` are the model's own, whatever sampling or penalties were used; `log_prob` is their sum and END's.
    `alternatives` are the most probable tokens at each place other than the one chosen, with their probabilities.
    """

    tokens: IntArray  # [T]
    log_probs: Array  # [T]
    end_log_prob: float
    log_prob: float
    score: float
    alternatives: IntArray  # [T, 5], fewer in a tiny vocabulary
    alternative_probs: Array  # [T, 5]
    entropies: Array  # [T + 1], nats; the last one is where END was chosen
    attention: Array | None  # [T, R]


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis."""
    return distribution(logits)[0]


def distribution(logits: Array) -> tuple[Array, Array]:
    """Log-probabilities [.., V] and entropy [..] in nats; logits of -inf are tokens that cannot come."""
    log_probs = logits - logits.max(axis=-1, keepdims=True)
    powers = np.exp(log_probs)
    total = powers.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        mean = np.einsum("...v,...v->...", powers, log_probs)
    if np.isnan(mean).any():  # 0 times -inf, which is 0 here
        mean = np.einsum("...v,...v->...", powers, np.where(powers > 0, log_probs, 0))
    log_total = np.log(total)
    log_probs -= log_total[..., None]
    return log_probs, log_total - mean / total


def top(values: Array, k: int) -> tuple[IntArray, Array]:
    """Indices and values of the k largest along the last axis, largest first; of equal ones the lower index first.

    A few passes of argmax beat sorting for small k. `values` must be contiguous; it comes back as it was. Where only
    -inf is left, indices may repeat.
    """
    flat = values.reshape(-1, values.shape[-1])
    k = min(k, flat.shape[1])
    if k > 10:
        order = np.argsort(-flat, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(flat, order, axis=1)
    else:
        rows = np.arange(len(flat))
        order = np.empty((len(flat), k), np.intp)
        found = np.empty((len(flat), k), flat.dtype)
        for j in range(k):
            order[:, j] = best = flat.argmax(axis=1)
            found[:, j] = flat[rows, best]
            flat[rows, best] = -np.inf
        for j in reversed(range(k)):  # backwards, because a row of nothing but -inf gives the same index again
            flat[rows, order[:, j]] = found[:, j]
    shape = (*values.shape[:-1], k)
    return order.reshape(shape), found.reshape(shape)


class Trace:
    """What was seen at every step, with links backwards, so that a finished hypothesis can be told from its end."""

    def __init__(self) -> None:
        self.vocabulary = 0
        self.ids: list[IntArray] = []
        self.values: list[Array] = []
        self.entropies: list[Array] = []
        self.attention: list[Array | None] = []
        self.links: list[tuple[IntArray, IntArray, Array]] = []  # row before, token, its log-probability: all [rows]

    def see(self, now: Step, count: int = 0) -> tuple[Array, IntArray, Array]:
        """Note one step; log-probabilities [N, K, V] and the `count` most probable tokens and theirs, [N, K, count]."""
        log_probs, entropies = distribution(now.logits)
        self.vocabulary = log_probs.shape[-1]
        ids, values = top(log_probs, max(count, RUNNERS_UP + 1))
        if np.isneginf(values[..., -1]).any():  # fewer possible tokens than that: name each once all the same
            ids = np.argsort(-log_probs, axis=-1, kind="stable")[..., : ids.shape[-1]]
            values = np.take_along_axis(log_probs, ids, axis=-1)
        self.entropies.append(entropies.reshape(-1))
        self.ids.append(ids.reshape(-1, ids.shape[-1])[:, : RUNNERS_UP + 1])
        self.values.append(values.reshape(-1, values.shape[-1])[:, : RUNNERS_UP + 1])
        seen = now.attention
        self.attention.append(None if seen is None else seen.reshape(-1, seen.shape[-1]))
        return log_probs, ids[..., :count], values[..., :count]

    def link(self, before: IntArray, tokens: IntArray, log_probs: Array) -> None:
        """The rows of the next step, [N, K] each: which row of this step they continue, with which token."""
        self.links.append((before.reshape(-1), tokens.reshape(-1), log_probs.reshape(-1)))

    def hypothesis(self, step: int, row: int, end_log_prob: float, length_penalty: float) -> Hypothesis:
        """The sequence that ends where step number `step` saw row `row`."""
        entropies = [float(self.entropies[step][row])]
        words: list[tuple[int, float, IntArray, Array, Array | None]] = []
        while step:
            before, tokens, log_probs = self.links[step - 1]
            token, log_prob, row, step = int(tokens[row]), float(log_probs[row]), int(before[row]), step - 1
            others = self.ids[step][row] != token
            seen = self.attention[step]
            words.append((
                token,
                log_prob,
                self.ids[step][row][others][:RUNNERS_UP],
                np.exp(self.values[step][row][others][:RUNNERS_UP]),
                None if seen is None else seen[row],
            ))  # fmt: skip
            entropies.append(float(self.entropies[step][row]))
        words.reverse()
        log_prob = sum(word[1] for word in words) + end_log_prob
        looks = [word[4] for word in words if word[4] is not None]
        seen = self.attention[0]
        others_shown = min(RUNNERS_UP, self.vocabulary - 1)
        return Hypothesis(
            tokens=np.array([word[0] for word in words], np.int64),
            log_probs=np.array([word[1] for word in words], np.float64),
            end_log_prob=end_log_prob,
            log_prob=log_prob,
            score=log_prob / (len(words) + 1) ** length_penalty,
            alternatives=np.array([word[2] for word in words], np.int64).reshape(len(words), others_shown),
            alternative_probs=np.array([word[3] for word in words], np.float64).reshape(len(words), others_shown),
            entropies=np.array(entropies[::-1], np.float64),
            attention=None if seen is None else np.array(looks, seen.dtype).reshape(len(words), seen.shape[-1]),
        )
