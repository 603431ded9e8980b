"""Search: from a function that scores the next token to whole sequences. Greedy, sampling, and beam search in batches.

The search knows nothing of networks. A `StepFunction` takes the last tokens and a state and returns logits for the
next; captions, translation and text generation all come through here. The caller runs the prompt (START, language
token, ...) himself and hands over what it gave as `first`.

N items (pictures) still in the search, K rows of an item (hypotheses or samples), V tokens, R regions. The length of a
hypothesis counts its END. Scores are log-probabilities divided by `length ** length_penalty`: 0 is the plain sum,
1 the mean (the "length power" form; not the one of GNMT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

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
    return _distribution(logits)[0]


def _distribution(logits: Array) -> tuple[Array, Array]:
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


class _Rules:
    """What may not come next. The probabilities of what is left are not raised to make up for it."""

    def __init__(
        self,
        *,
        end: int,
        min_length: int,
        max_length: int,
        forbidden: Sequence[int],
        no_repeat_ngram: int,
        no_end_after: Sequence[int],
    ) -> None:
        if not 0 <= min_length <= max_length:
            raise ValueError(
                f"min_length {min_length}, max_length {max_length}; expected 0 <= min_length <= max_length"
            )
        if no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram {no_repeat_ngram}; expected 0 (off) or more")
        if end in forbidden:
            raise ValueError(f"forbidden has END ({end}), without which nothing can finish; leave it out")
        self.end, self.min_length, self.max_length = end, min_length, max_length
        self.forbidden = np.asarray(forbidden, np.intp)
        self.no_repeat_ngram = no_repeat_ngram
        self.no_end_after = np.asarray(no_end_after, np.intp)

    @property
    def active(self) -> bool:
        """Whether anything but the lengths is ruled."""
        return bool(self.forbidden.size or self.no_repeat_ngram or self.no_end_after.size)

    def apply(self, log_probs: Array, history: IntArray) -> bool:
        """Set what may not follow history [N, K, t] to -inf in log_probs [N, K, V], in place. False: nothing to do."""
        length = history.shape[2]
        if length >= self.max_length:
            kept = log_probs[..., self.end].copy()
            log_probs[...] = -np.inf
            log_probs[..., self.end] = kept
            return True
        if not (self.active or length < self.min_length):
            return False
        kept = log_probs[..., self.end].copy()
        log_probs[..., self.forbidden] = -np.inf
        if length < self.min_length:
            log_probs[..., self.end] = -np.inf
        elif length and self.no_end_after.size:
            log_probs[..., self.end][np.isin(history[:, :, -1], self.no_end_after)] = -np.inf
        if self.no_repeat_ngram and length >= self.no_repeat_ngram:
            self._no_repeats(log_probs, history)
        # Where nothing at all may follow, END may: a short sentence is better than none.
        stuck = np.isneginf(log_probs.max(axis=-1))
        log_probs[..., self.end][stuck] = kept[stuck]
        return True

    def _no_repeats(self, log_probs: Array, history: IntArray) -> None:
        n = self.no_repeat_ngram
        windows = np.lib.stride_tricks.sliding_window_view(history, n, axis=2)  # [N, K, t - n + 1, n]
        last = history[:, :, None, history.shape[2] - n + 1 :]  # the n - 1 tokens that the next one would complete
        item, row, place = np.nonzero((windows[..., :-1] == last).all(axis=-1))
        log_probs[item, row, windows[item, row, place, -1]] = -np.inf


class _Trace:
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
        log_probs, entropies = _distribution(now.logits)
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


# -------------------------------------------------------------------------------------------------------- beam search


def beam_search(
    step: StepFunction,
    first: Step,
    *,
    end: int,
    max_length: int,
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.0,
    min_length: int = 0,
    forbidden: Sequence[int] = (),
    no_repeat_ngram: int = 0,
    no_end_after: Sequence[int] = (),
    growth: Growth | None = None,
) -> list[tuple[Hypothesis, ...]]:
    """The `n_best` best hypotheses of each item that a beam of width `beam` finds, best score first.

    `first` has K = 1. A hypothesis has `min_length` to `max_length` tokens before END (after `max_length` only END may
    come, at its own probability); `forbidden` tokens never occur; no `no_repeat_ngram` tokens in a row occur twice;
    END does not come right after a token of `no_end_after`. Where all this leaves nothing, END may come anyway.

    An END among the best continuations finishes a hypothesis and takes its place out of the beam, so that beam 1 is
    greedy search. An item stops early only when no hypothesis still growing can reach its `n_best` best: a
    log-probability never rises, so the score it has now, divided by the greatest length, is a bound.
    `growth`, for one item alone, is told of every step.

    Errors: ValueError for widths, lengths or tokens that make no sense, and for a growth of several items.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"beam {beam}, n_best {n_best}; expected 1 <= n_best <= beam")
    if length_penalty < 0:
        raise ValueError(f"length_penalty {length_penalty}; expected 0 or more")
    rules = _Rules(
        end=end,
        min_length=min_length,
        max_length=max_length,
        forbidden=forbidden,
        no_repeat_ngram=no_repeat_ngram,
        no_end_after=no_end_after,
    )
    count = first.logits.shape[0]
    if growth is not None and count != 1:
        raise ValueError(f"a growth of {count} items; expected one item; search them one by one")
    trace = _Trace()
    finished: list[list[tuple[float, int, int, float]]] = [[] for _ in range(count)]  # score, step, row, END's log p
    items = np.arange(count)
    totals = np.zeros((count, 1))
    history = np.zeros((count, 1, 0), np.int64)
    longest = (max_length + 1) ** length_penalty
    now = first
    for length in range(max_length + 1):
        rows = totals.shape[1]
        log_probs, ids, values = trace.see(now, beam)
        if rules.apply(log_probs, history):
            ids, values = top(log_probs, beam)
        each = ids.shape[2]
        scores = (totals[:, :, None] + values).reshape(len(items), rows * each)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :beam]
        scores = np.take_along_axis(scores, order, axis=1)
        tokens = np.take_along_axis(ids.reshape(len(items), -1), order, axis=1)
        gained = np.take_along_axis(values.reshape(len(items), -1), order, axis=1)
        parents = order // each

        free = np.array([beam - len(finished[item]) for item in items])
        taken = np.isfinite(scores) & (np.arange(order.shape[1]) < free[:, None])
        ended = taken & (tokens == end)
        for n, k in np.argwhere(ended):
            score = float(scores[n, k]) / (length + 1) ** length_penalty
            finished[items[n]].append((score, length, int(n * rows + parents[n, k]), float(gained[n, k])))
        live = taken & ~ended
        going = np.array([
            n for n, item in enumerate(items)
            if live[n].any() and not _settled(finished[item], n_best, float(scores[n][live[n]][0]) / longest)
        ], np.intp)  # fmt: skip
        if growth is not None:
            growth.see(ids[0], values[0], totals[0], int(free[0]), end, last=not going.size)
        if not going.size:
            break
        width = int(live[going].sum(axis=1).max())
        # Live rows to the front, in order; what is left over in items with fewer of them is dead (-inf) and harmless.
        slots = np.argsort(~live[going], axis=1, kind="stable")[:, :width]
        pick = (going[:, None], slots)
        totals = np.where(live[pick], scores[pick], -np.inf)
        tokens, parents = np.where(live[pick], tokens[pick], end), parents[pick]
        trace.link(going[:, None] * rows + parents, tokens, gained[pick])
        history = np.concatenate([history[going[:, None], parents], tokens[:, :, None]], axis=2)
        items = items[going]
        now = step(tokens, tuple(part[going[:, None], parents] for part in now.state), items)
    out: list[tuple[Hypothesis, ...]] = []
    for entries in finished:
        entries.sort(key=lambda entry: -entry[0])
        out.append(tuple(trace.hypothesis(t, row, last, length_penalty) for _, t, row, last in entries[:n_best]))
    return out


def _settled(finished: list[tuple[float, int, int, float]], n_best: int, bound: float) -> bool:
    """Whether no live hypothesis, none of which can score above `bound`, gets among the n_best any more."""
    return len(finished) >= n_best and sorted((entry[0] for entry in finished), reverse=True)[n_best - 1] >= bound


# ------------------------------------------------------------------------------------------- one choice after another


def greedy(
    step: StepFunction,
    first: Step,
    *,
    end: int,
    max_length: int,
    min_length: int = 0,
    forbidden: Sequence[int] = (),
    no_repeat_ngram: int = 0,
    no_end_after: Sequence[int] = (),
) -> list[Hypothesis]:
    """The most probable token each time, one hypothesis an item. Rules as in `beam_search`."""
    rules = _Rules(
        end=end,
        min_length=min_length,
        max_length=max_length,
        forbidden=forbidden,
        no_repeat_ngram=no_repeat_ngram,
        no_end_after=no_end_after,
    )
    found = _roll(step, first, rules, lambda log_probs, items, length: log_probs.argmax(axis=-1))
    return [hypotheses[0] for hypotheses in found]


def sample(
    step: StepFunction,
    first: Step,
    *,
    end: int,
    max_length: int,
    seed: int | Sequence[int],
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_length: int = 0,
    forbidden: Sequence[int] = (),
    no_repeat_ngram: int = 0,
    no_end_after: Sequence[int] = (),
) -> list[tuple[Hypothesis, ...]]:
    """`samples` sequences of each item, tokens drawn from softmax(logits / temperature). Rules as in `beam_search`.

    `top_k` > 0 keeps the k most probable tokens, `top_p` < 1 the fewest whose probabilities reach p (nucleus sampling,
    Holtzman et al. 2020); what is kept is normalised. `seed` is one number for every item or one for each. Draws depend
    on the seed, the number of the sample and the place in the sequence only: the batch makes no difference.

    Errors: ValueError for a temperature, top_k, top_p, seed or length that makes no sense.
    """
    uniform = draws(
        first.logits.shape[0],
        seed=seed,
        places=max_length + 1 if max_length >= 0 else 0,
        samples=samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    rules = _Rules(
        end=end,
        min_length=min_length,
        max_length=max_length,
        forbidden=forbidden,
        no_repeat_ngram=no_repeat_ngram,
        no_end_after=no_end_after,
    )

    def drawn(log_probs: Array, items: IntArray, length: int) -> IntArray:
        return choose(log_probs, uniform[items, :, length], temperature, top_k, top_p)

    wide = Step(
        np.repeat(first.logits, samples, axis=1),
        tuple(np.repeat(part, samples, axis=1) for part in first.state),
        None if first.attention is None else np.repeat(first.attention, samples, axis=1),
    )
    return _roll(step, wide, rules, drawn)


def draws(
    count: int,
    *,
    seed: int | Sequence[int],
    places: int,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> npt.NDArray[np.float64]:
    """The numbers in [0, 1) that `sample` draws with, [N, K, places]: one stream a sample, so a place keeps its draw.

    Errors: ValueError for options of `sample` that make no sense.
    """
    seeds = [seed] * count if isinstance(seed, int) else list(seed)
    if len(seeds) != count or any(number < 0 for number in seeds):
        raise ValueError(f"seed {seed!r}; expected a number >= 0, or {count} of them, one an item")
    if samples < 1 or not temperature > 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"samples {samples}, temperature {temperature}, top_k {top_k}, top_p {top_p}; "
            "expected samples >= 1, temperature > 0, top_k >= 0, 0 < top_p <= 1"
        )
    streams = [np.random.default_rng([number, k]).random(places) for number in seeds for k in range(samples)]
    return np.array(streams, np.float64).reshape(count, samples, places)


def choose(log_probs: Array, draw: Array, temperature: float, top_k: int, top_p: float) -> IntArray:
    """The tokens [N, K] on which draw [N, K] falls, of log-probabilities [N, K, V], most probable first."""
    scores = log_probs.astype(np.float64) / temperature
    order = np.argsort(-scores, axis=-1, kind="stable")
    probs = np.exp(log_softmax(np.take_along_axis(scores, order, axis=-1)))
    if top_k:
        probs[..., top_k:] = 0
    if top_p < 1:
        probs[np.cumsum(probs, axis=-1) - probs >= top_p * probs.sum(axis=-1, keepdims=True)] = 0
    heights = np.cumsum(probs, axis=-1)
    place = (heights <= draw[..., None] * heights[..., -1:]).sum(axis=-1, keepdims=True)
    result: IntArray = np.take_along_axis(order, np.minimum(place, probs.shape[-1] - 1), axis=-1)[..., 0]
    return result


def check_rules(
    *,
    end: int,
    min_length: int,
    max_length: int,
    forbidden: Sequence[int],
    no_repeat_ngram: int,
    no_end_after: Sequence[int],
) -> None:
    """Errors: ValueError for lengths and tokens that make no sense."""
    _Rules(
        end=end,
        min_length=min_length,
        max_length=max_length,
        forbidden=forbidden,
        no_repeat_ngram=no_repeat_ngram,
        no_end_after=no_end_after,
    )


class _Choose(Protocol):
    def __call__(self, log_probs: Array, items: IntArray, length: int, /) -> IntArray: ...


def _roll(step: StepFunction, first: Step, rules: _Rules, choose: _Choose) -> list[tuple[Hypothesis, ...]]:
    """One token after another for K independent rows an item, until all of them have chosen END."""
    count, rows = first.logits.shape[:2]
    trace = _Trace()
    found: list[list[Hypothesis | None]] = [[None] * rows for _ in range(count)]
    items = np.arange(count)
    over = np.zeros((count, rows), bool)
    history = np.zeros((count, rows, 0), np.int64)
    now = first
    for length in range(rules.max_length + 1):
        log_probs = trace.see(now)[0]
        own = log_probs.copy()
        rules.apply(log_probs, history)
        tokens = choose(log_probs, items, length)
        gained = np.take_along_axis(own, tokens[..., None], axis=-1)[..., 0]
        for n, k in np.argwhere((tokens == rules.end) & ~over):
            found[items[n]][k] = trace.hypothesis(length, int(n * rows + k), float(gained[n, k]), 0.0)
        over |= tokens == rules.end
        going = np.flatnonzero(~over.all(axis=1))
        if not going.size:
            break
        trace.link(going[:, None] * rows + np.arange(rows), tokens[going], gained[going])
        history = np.concatenate([history[going], tokens[going][:, :, None]], axis=2)
        items, over = items[going], over[going]
        now = step(tokens[going], tuple(part[going] for part in now.state), items)
    return [tuple(entry for entry in entries if entry is not None) for entries in found]


# ------------------------------------------------------------------------------------------------- how sure a result is


def search_features(hypotheses: Sequence[Hypothesis]) -> dict[str, float]:
    """Numbers that tell how sure a search was, for calibration; hypotheses of one item, best first.

    mean_log_prob (of all words and END), log_prob (their sum), min_log_prob (of the least likely word), end_log_prob,
    length (words), mean_entropy and max_entropy (nats a step), first_entropy (before the first word),
    margin (mean_log_prob over the second hypothesis', 0 when there is none), score.
    """
    best = hypotheses[0]
    length = len(best.tokens)
    mean = best.log_prob / (length + 1)
    second = hypotheses[1] if len(hypotheses) > 1 else None
    return {
        "mean_log_prob": mean,
        "log_prob": best.log_prob,
        "min_log_prob": float(best.log_probs.min()) if length else best.end_log_prob,
        "end_log_prob": best.end_log_prob,
        "length": float(length),
        "mean_entropy": float(best.entropies.mean()),
        "max_entropy": float(best.entropies.max()),
        "first_entropy": float(best.entropies[0]),
        "margin": 0.0 if second is None else mean - second.log_prob / (len(second.tokens) + 1),
        "score": best.score,
    }
