"""What a recurrent network is: beside an n-gram model and a hidden Markov model, on the same text."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from lesson import COLOURS, CharacterModel, Text, figure, learn, nats, options, rows_of, table, write
from numpy.typing import NDArray

Array = NDArray[np.float64]
PAGE = """\
# What a recurrent network is

All of these foresee the next character of a text. They differ in what they keep of the characters before it.

* An **n-gram model** keeps the last n - 1 characters as they are and looks up what followed them before. Its memory
  ends there, and every context is a row of its own in a table: nothing that is learned about one helps another, but for
  the shorter context it falls back on (Witten & Bell 1991).
* A **hidden Markov model** keeps one of S states, and is unsure which: a distribution over S. At each step the states
  change by fixed chances, each has its own chances of characters, and that is all (Baum et al. 1970). To remember b
  bits it needs 2^b states.
* A **recurrent network** keeps H numbers, h' = tanh(W x + U h + b), and says what comes next from them: softmax(V h).
  What h means is learned; H numbers can hold many facts side by side, so b bits need about b of them, not 2^b.

Trained on the same {train} characters and measured on the same {dev} that none has seen:

![nats a character of each model](what.png)

{table}

The n-grams show the dilemma: a longer context knows more and has been seen less often, and from some n on nothing is
gained. The hidden Markov models grow slowly with their states. The recurrent networks share what they learn among all
contexts; the gated one of the third lesson ([what the LSTM adds](memory.md)) shares it over more steps. That the plain
one is trained at all rests on its activation: [why tanh](tanh.md).

On so little text, and taught for seconds, a small network is about as good as the best table. A table gains nothing
from more context; a network gains from more text, more units and more time: recur's own of 512 units, taught on the
whole text for some minutes, is at 1.390.
"""


class NGram:
    """Witten-Bell: P(c | context) = (count + N · P(c | shorter)) / (total + N), N the kinds of characters seen."""

    def __init__(self, ids: list[int], order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        self.counts: list[dict[tuple[int, ...], dict[int, int]]] = []
        for length in range(order):
            table: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
            for at in range(length, len(ids)):
                row = table[tuple(ids[at - length : at])]
                row[ids[at]] = row.get(ids[at], 0) + 1
            self.counts.append(table)

    def probability(self, context: tuple[int, ...], character: int) -> float:
        """P(character | the end of context)."""
        found = 1 / self.vocabulary
        for length in range(min(self.order, len(context) + 1)):
            row = self.counts[length].get(context[len(context) - length :])
            if row is None:
                break
            found = (row.get(character, 0) + len(row) * found) / (sum(row.values()) + len(row))
        return found

    def nats(self, ids: list[int]) -> float:
        """Mean surprise a character."""
        costs = [
            -math.log(self.probability(tuple(ids[max(0, at - self.order + 1) : at]), ids[at]))
            for at in range(1, len(ids))
        ]
        return sum(costs) / len(costs)

    @property
    def numbers(self) -> int:
        """How many counts it keeps."""
        return sum(len(row) for each in self.counts for row in each.values())


class Hmm:
    """S states: chances of the first one [S], of the next [S, S], of characters [S, V]; learned by Baum-Welch."""

    def __init__(self, states: int, vocabulary: int) -> None:
        random = np.random.default_rng(0)
        self.first = np.full(states, 1 / states)
        self.next = random.dirichlet(np.ones(states), states)
        self.says = random.dirichlet(np.ones(vocabulary), states)

    def learn(self, text: NDArray[np.int64], rounds: int) -> None:
        """`rounds` of expectation and maximisation on text [T, B], rows that are read side by side."""
        steps, _ = text.shape
        kinds = np.eye(self.says.shape[1])
        for _ in range(rounds):
            forward, scale = self.forward(text)
            moves, says = np.zeros_like(self.next), np.zeros_like(self.says)
            back: Array = np.ones_like(forward[0])
            for t in range(steps - 1, -1, -1):
                at = forward[t] * back
                says += (at / at.sum(1, keepdims=True)).T @ kinds[text[t]]
                if t:
                    seen = self.says[:, text[t]].T * back / scale[t][:, None]  # [B, S]
                    moves += forward[t - 1].T @ seen
                    back = seen @ self.next.T
            first = forward[0] * back
            self.first = first.sum(0) / first.sum()
            moves = moves * self.next + 1e-6
            says += 1e-3
            self.next = moves / moves.sum(1, keepdims=True)
            self.says = says / says.sum(1, keepdims=True)

    def forward(self, text: NDArray[np.int64]) -> tuple[Array, Array]:
        """Chances of the states after each step [T, B, S], and of each character given those before it [T, B]."""
        steps, rows = text.shape
        found, scale = np.empty((steps, rows, len(self.first))), np.empty((steps, rows))
        before: Array = np.tile(self.first, (rows, 1))
        for t in range(steps):
            joint = before * self.says[:, text[t]].T
            scale[t] = joint.sum(1)
            found[t] = joint / scale[t][:, None]
            before = found[t] @ self.next
        return found, scale

    def nats(self, text: NDArray[np.int64]) -> float:
        """Mean surprise a character of text [T, B], but for the first."""
        return float(-np.log(self.forward(text)[1][1:]).mean())

    @property
    def numbers(self) -> int:
        """How many chances it keeps."""
        return int(self.first.size + self.next.size + self.says.size)


def main(text: Path, out: Path, *, quick: bool = False) -> dict[str, float]:
    """Measure, draw, write; nats of each model."""
    data = Text.read(text, 200_000)
    vocabulary = len(data.characters)
    train, dev = data.train.tolist(), data.dev.tolist()
    orders, states, rounds, updates = ((2, 3), (4,), 2, 10) if quick else ((1, 2, 3, 4, 5, 6, 8), (8, 32), 15, 700)
    rows: list[tuple[str, float, int, str]] = []
    for order in orders:
        gram = NGram(train, order, vocabulary)
        rows.append((f"{order}-gram", gram.nats(dev), gram.numbers, f"the last {order - 1} characters"))
    for count in states:
        hmm = Hmm(count, vocabulary)
        hmm.learn(rows_of(data.train, 200).numpy(), rounds)
        rows.append((f"HMM, {count} states", hmm.nats(rows_of(data.dev, 10).numpy()), hmm.numbers, f"one of {count}"))
    for name, cell, hidden in (("plain RNN", "rnn", 128), ("LSTM", "lstm", 128)):
        torch.manual_seed(1)
        model = CharacterModel(cell, vocabulary, hidden)
        learn(model, data.train, updates=updates, rate=3e-3)
        numbers = sum(p.numel() for p in model.parameters())
        rows.append((f"{name}, {hidden} units", nats(model, data.dev), numbers, f"{hidden} numbers"))
    drawn, (plot,) = figure(7, 0.32 * len(rows) + 0.8, 1)
    kinds = ["n-gram" if "gram" in name else "HMM" if "HMM" in name else "network" for name, *_ in rows]
    colours = dict(zip(("n-gram", "HMM", "network"), COLOURS, strict=False))
    plot.barh([name for name, *_ in rows], [cost for _, cost, *_ in rows], color=[colours[kind] for kind in kinds])
    for place, (_, cost, *_) in enumerate(rows):
        plot.annotate(f"{cost:.2f}", (cost, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    plot.invert_yaxis()
    plot.set(xlabel="nats a character on held-out text", xlim=(1, None))
    shown = [(name, f"{cost:.3f}", f"{cost / math.log(2):.3f}", f"{size:,}", kept) for name, cost, size, kept in rows]
    heads = ("model", "nats a character", "bits", "numbers learned", "what it keeps")
    page = PAGE.format(train=f"{len(train):,}", dev=f"{len(dev):,}", table=table(heads, list(shown)))
    write(out, "what", page, drawn)
    return {name: cost for name, cost, *_ in rows}


if __name__ == "__main__":
    given = options(__doc__ or "")
    main(given.text, given.out, quick=given.quick)
