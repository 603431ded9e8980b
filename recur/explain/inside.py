"""What happened inside the captioner: every number behind one sentence, and what it would have said instead.

T words of a sentence, S = T + 2 steps (START, the language token, the words), L layers, H hidden units, G gates,
R regions, V words of one language, P tokens of a beginning, N beginnings or pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.data.text import END, detokenize
from recur.engine.decoder import CaptionDecoder
from recur.engine.hypotheses import Growth, Hypothesis, Step, log_softmax, top
from recur.engine.reference import (
    GATES,
    PARTS,
    Array,
    Cell,
    IntArray,
    Weights,
    attend,
    caption_memory,
    cell_step,
    layer_weights,
    sigmoid,
)
from recur.engine.search import beam_search
from recur.predict.voice import Voice

GATE_NAMES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "z", "n"), "rnn": ("h",), "rnn_relu": ("h",)}
OPEN_OR_SHUT = {"lstm": ("i", "f", "o"), "gru": ("r", "z"), "rnn": (), "rnn_relu": ()}  # gates from 0 to 1
SATURATED = (0.1, 0.9)  # below is shut, above is open: the bounds of Karpathy et al. 2016, "Visualizing and
# Understanding Recurrent Networks", section 4.2


@dataclass(frozen=True, eq=False)
class Pass:
    """One reading of a sentence by the network, S steps: START, the language token, then each word.

    `log_probs` [S - 1, V] of what comes after each token (START says nothing); `attention` [S - 1, R] or None. `hidden`
    and, of the lstm, `cells` [L, S, H]; `gates` [L, S, G * H] after their nonlinearities, in PyTorch's order.
    """

    log_probs: Array
    attention: Array | None
    hidden: Array
    cells: Array | None
    gates: Array


def read_sentence(weights: Weights, cell: Cell, layers: int, voice: Voice, features: Array, tokens: IntArray) -> Pass:
    """The network reads a sentence, tokens [T] by place, about a picture, features [1, R, F].

    Through the compiled core where that writes the captions; START, of which the core keeps no gates, by the reference.
    """
    ids = np.concatenate([[voice.start], voice.ids[np.asarray(tokens, np.int64)]])
    if isinstance(voice.decoder, CaptionDecoder):
        return _read_slowly(weights, cell, layers, features, ids, voice.ids)
    first = _read_slowly(weights, cell, layers, features, ids[:0], voice.ids)
    reading = voice.decoder.read(ids[None], features, trace=True)
    assert reading.hidden is not None
    assert reading.gates is not None
    return Pass(
        log_softmax(reading.logits[0]),
        None if reading.attention is None else reading.attention[0],
        np.concatenate([first.hidden, reading.hidden[:, 0]], axis=1),
        None if first.cells is None or reading.cells is None
        else np.concatenate([first.cells, reading.cells[:, 0]], axis=1),
        np.concatenate([first.gates, reading.gates[:, 0]], axis=1),
    )  # fmt: skip


def _read_slowly(weights: Weights, cell: Cell, layers: int, features: Array, ids: IntArray, words: IntArray) -> Pass:
    """As `read_sentence`, by the steps of the reference; ids [S - 1] of the vocabulary."""
    hidden = weights["rnn.weight_hh_l0"].shape[1]
    attends = "attention.query.weight" in weights
    memory, keys = caption_memory(features, weights) if attends else (None, None)
    zero = np.zeros((1, hidden), features.dtype)
    state = [(zero,) * PARTS[cell] for _ in range(layers)]
    start = features.mean(axis=1) @ weights["start.weight"].T + weights["start.bias"]
    kept: dict[str, list[Array]] = {"hidden": [], "cells": [], "gates": [], "attention": [], "logits": []}
    for x in [start, *(weights["embedding.weight"][[number]] for number in ids)]:
        below, context, alpha = x, None, None
        for layer in range(layers):
            if layer == 1 and context is not None:
                below = np.concatenate([below, context], axis=-1)
            kept["gates"].append(_gates(cell, below, state[layer][0], weights, layer))
            state[layer] = cell_step(cell, below, state[layer], weights, layer, "rnn.")
            below = state[layer][0]
            if layer == 0 and memory is not None and keys is not None:
                context, alpha = attend(memory, keys, below, weights)
        above = below if context is None else np.concatenate([below, context], axis=-1)
        above = np.tanh(above @ weights["output.weight"].T + weights["output.bias"])
        kept["logits"].append(above @ weights["embedding.weight"][words].T + weights["head.bias"][words])
        kept["hidden"] += [part[0] for part in state]
        if cell == "lstm":
            kept["cells"] += [part[1] for part in state]
        if alpha is not None:
            kept["attention"].append(alpha)
    steps = len(ids) + 1

    def stacked(name: str) -> Array:
        return np.concatenate(kept[name]).reshape(steps, layers, -1).transpose(1, 0, 2)

    return Pass(
        log_softmax(np.concatenate(kept["logits"][1:])) if len(ids) else np.zeros((0, len(words)), features.dtype),
        np.concatenate(kept["attention"])[1:] if kept["attention"] else None,
        stacked("hidden"),
        stacked("cells") if cell == "lstm" else None,
        stacked("gates"),
    )


def _gates(cell: Cell, x: Array, h: Array, weights: Weights, layer: int) -> Array:
    """The gates [1, G * H] of one step after their nonlinearities, in PyTorch's order."""
    ih, hh, b_ih, b_hh = layer_weights(weights, layer, "rnn.")
    read, kept = x @ ih.T + b_ih, h @ hh.T + b_hh
    size = h.shape[-1]
    if cell == "gru":
        r_z = sigmoid(read[:, : 2 * size] + kept[:, : 2 * size])
        return np.concatenate([r_z, np.tanh(read[:, 2 * size :] + r_z[:, :size] * kept[:, 2 * size :])], axis=1)
    mixed = read + kept
    if cell == "lstm":
        i_f, g, o = np.split(mixed, [2 * size, 3 * size], axis=1)
        return np.concatenate([sigmoid(i_f), np.tanh(g), sigmoid(o)], axis=1)
    result: Array = np.tanh(mixed) if cell == "rnn" else np.maximum(mixed, 0)
    return result


def word_scores(voice: Voice, features: Array, tokens: IntArray) -> Array:
    """Log-probabilities [N, T] of tokens [T], each after those before it, for features [N, R, F]."""
    count = len(features)
    if isinstance(voice.decoder, CaptionDecoder):
        step, now = voice.decoder.start(features)
        logits = [now.logits[:, 0]]
        for token in tokens[:-1]:
            now = step(np.full((count, 1), token), now.state, np.arange(count))
            logits.append(now.logits[:, 0])
        log_probs = log_softmax(np.stack(logits, axis=1))
    else:
        ids = np.concatenate([[voice.start], voice.ids[tokens[:-1]]])
        log_probs = log_softmax(voice.decoder.read(np.repeat(ids[None], count, axis=0), features).logits)
    result: Array = log_probs[:, np.arange(len(tokens)), tokens]
    return result


# ------------------------------------------------------------------------------------------------ how the search went


@dataclass(frozen=True)
class _Again:
    """The search's step function, by reading every beginning anew: slow, and exactly what the core computes."""

    voice: Voice
    features: Array

    def __call__(self, tokens: IntArray, state: tuple[Array, ...], items: IntArray) -> Step:
        """The state is the beginning itself, [1, K, P]."""
        history = np.concatenate([state[0], tokens[:, :, None]], axis=2)
        return self.score(history)

    def score(self, history: Any) -> Step:
        rows = history.shape[1]
        start = np.full((rows, 1), self.voice.start)
        ids = np.concatenate([start, self.voice.ids[history[0].astype(np.int64)]], axis=1)
        decoder = self.voice.decoder
        assert not isinstance(decoder, CaptionDecoder)
        reading = decoder.read(ids, np.repeat(self.features, rows, axis=0))
        looks = None if reading.attention is None else reading.attention[None, :, -1]
        return Step(reading.logits[None, :, -1], (history,), looks)


def grow(voice: Voice, features: Array, beam: int) -> Growth:
    """How the search for a caption of one picture, features [1, R, F], went; tokens are places in `voice.words`."""
    growth = Growth()
    if isinstance(voice.decoder, CaptionDecoder):
        step, first = voice.decoder.start(features)
        beam_search(step, first, end=voice.decoder.end, beam=beam, growth=growth, **voice.limits)
    else:
        again = _Again(voice, features)
        first = again.score(np.zeros((1, 1, 0), np.float32))
        end = int(np.searchsorted(voice.ids, END))
        beam_search(again, first, end=end, beam=beam, growth=growth, **voice.limits)
    return growth


def tree(growth: Growth, voice: Voice, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """The growth as plain objects; `chosen` are the tokens of the best hypothesis, END left out."""
    end = int(np.searchsorted(voice.ids, END))
    path = [*map(int, chosen), end]
    depth: list[int] = []
    on_path: list[bool] = []
    out = []
    for branch in growth.branches:
        place = 0 if branch.parent < 0 else depth[branch.parent] + 1
        before = branch.parent < 0 or on_path[branch.parent]
        depth.append(place)
        on_path.append(before and place < len(path) and branch.token == path[place])
        out.append(
            {
                "parent": branch.parent,
                "word": voice.words[branch.token],
                "probability": round(float(np.exp(branch.log_prob)), 4),
                "log_prob": round(branch.total, 3),
                "score": round(branch.total / (place + 1) ** voice.limits["length_penalty"], 3),
                "fate": branch.fate,
                "chosen": on_path[-1],
            }
        )
    return out


# --------------------------------------------------------------------------------------------- what it would have said


def continue_from(
    voice: Voice, features: Array, beginnings: IntArray, log_probs: Sequence[float], beam: int
) -> list[tuple[Hypothesis, float]]:
    """The best ends of sentences about one picture, features [1, R, F], that begin with beginnings [N, P].

    `log_probs` [N] are those of the beginnings. Each comes with the log-probability of the whole; its tokens do not
    include the beginning. Of the hypotheses those that repeat no more than the bundle allows come first.
    """
    count, given = beginnings.shape
    limits = dict(voice.limits)
    penalty, ngram = limits["length_penalty"], limits["no_repeat_ngram"]
    limits["max_length"] = max(0, limits["max_length"] - given)
    limits["min_length"] = min(max(0, limits["min_length"] - given), limits["max_length"])
    if isinstance(voice.decoder, CaptionDecoder):
        step, first = voice.decoder.start(np.repeat(features, count, axis=0))
        for place in range(given):
            first = step(beginnings[:, place : place + 1], first.state, np.arange(count))
        found = beam_search(step, first, end=voice.decoder.end, beam=beam, n_best=beam, **limits)
    else:
        limits["no_end_after"] = [int(voice.ids[place]) for place in limits["no_end_after"]]
        prompt = np.concatenate([np.full((count, 1), voice.start), voice.ids[beginnings]], axis=1)
        found = [
            tuple(voice.by_place(each) for each in hypotheses)
            for hypotheses in voice.decoder.beam_search(
                np.repeat(features, count, axis=0), prompt=prompt, end=END, beam=beam, n_best=beam, **limits
            )
        ]
    out = []
    for beginning, before, hypotheses in zip(beginnings, log_probs, found, strict=True):

        def rank(each: Hypothesis, beginning: IntArray = beginning, before: float = before) -> tuple[bool, float]:
            whole = [*beginning.tolist(), *each.tokens.tolist()]
            twice = _repeats(whole, ngram) or voice.repeats(whole)
            return twice, -(before + each.log_prob) / (len(whole) + 1) ** penalty

        best = min(hypotheses, key=rank)
        out.append((best, before + best.log_prob))
    return out


def _repeats(tokens: Sequence[int], n: int) -> bool:
    """Whether `n` tokens in a row come twice; never when `n` is 0."""
    runs = [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)] if n else []
    return len({*runs}) < len(runs)


def sentence_tokens(voice: Voice, words: Sequence[str]) -> IntArray:
    """Words as places. Errors: KeyError for one that the language does not have."""
    known = {word: place for place, word in enumerate(voice.words)}
    return np.array([known[word] for word in words], np.int64)


def runners_up(log_probs: Array, chosen: int, voice: Voice, count: int = 5) -> list[tuple[int, float]]:
    """The most probable places other than `chosen`, with their probabilities, of log_probs [V]."""
    ids, values = top(np.ascontiguousarray(log_probs[None]), min(count + 1, len(voice.words)))
    pairs = zip(ids[0].tolist(), np.exp(values[0]).tolist(), strict=True)
    return [(place, probability) for place, probability in pairs if place != chosen][:count]


def text_of(voice: Voice, tokens: Sequence[int]) -> str:
    """The sentence of places."""
    return detokenize([voice.words[token] for token in tokens], voice.language)


# ------------------------------------------------------------------------------------------------------ plain objects


def states(told: Pass, cell: Cell) -> dict[str, Any]:
    """States and gates as plain objects: numbers in 8 bits, and how saturated the gates are.

    Each of "hidden", "cells" and the gates is {"scale", "int8"}: base64 of int8 [L, S, H], to be multiplied by `scale`.
    """
    layers, steps, units = told.hidden.shape
    gates = told.gates.reshape(layers, steps, GATES[cell], units)
    out: dict[str, Any] = {"cell": cell, "shape": [layers, steps, units], "hidden": packed(told.hidden)}
    if told.cells is not None:
        out["cells"] = packed(told.cells)
    names = GATE_NAMES[cell]
    out["gates"] = {name: packed(gates[:, :, number]) for number, name in enumerate(names)} if len(names) > 1 else {}
    out["saturated"] = saturation(gates, cell)
    return out


def saturation(gates: Array, cell: Cell) -> list[dict[str, Any]]:
    """The shares of the gates [L, S, G, H] of each layer and kind that were shut, and open, over steps and units."""
    names = GATE_NAMES[cell]
    return [
        {
            "layer": layer + 1,
            "gate": name,
            "shut": round(float((gates[layer, :, names.index(name)] < SATURATED[0]).mean()), 4),
            "open": round(float((gates[layer, :, names.index(name)] > SATURATED[1]).mean()), 4),
        }
        for layer in range(len(gates))
        for name in OPEN_OR_SHUT[cell]
    ]


def packed(values: Array) -> dict[str, Any]:
    """Numbers as {"scale", "int8"}: within half a `scale` of what they were."""
    scale = float(np.abs(values).max()) / 127 or 1.0
    whole: npt.NDArray[np.int8] = np.round(values / scale).astype(np.int8)
    return {"scale": scale, "int8": base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode("ascii")}
