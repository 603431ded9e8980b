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
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recur.engine.hypotheses import Growth, Hypothesis, Step, StepFunction, Trace, log_softmax, top
from recur.engine.reference import Array, IntArray
from recur.engine.rules import Rules


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
    rules = Rules(
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
    trace = Trace()
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
    rules = Rules(
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
    rules = Rules(
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


class _Choose(Protocol):
    def __call__(self, log_probs: Array, items: IntArray, length: int, /) -> IntArray: ...


def _roll(step: StepFunction, first: Step, rules: Rules, choose: _Choose) -> list[tuple[Hypothesis, ...]]:
    """One token after another for K independent rows an item, until all of them have chosen END."""
    count, rows = first.logits.shape[:2]
    trace = Trace()
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
