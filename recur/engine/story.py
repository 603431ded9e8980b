"""The story network (`recur.nn.answer`) in NumPy: a question is reduced sentence by sentence, in several readings.

B questions, S sentences, U different sentences, W words, H units, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """Probabilities of the answers [B, answers], that each sentence is one the answer rests on [S, B], and how far
    each layer's gates opened at each sentence [L, S, B].
    """

    answers: Floats
    support: Floats
    gates: Floats


class StoryNetwork:
    """The network with its weights. One may serve several threads."""

    def __init__(self, weights: Mapping[str, Floats], layers: int) -> None:
        self._embedding, self._place = weights["embedding.weight"], weights["place"]
        self._question_place = weights["question_place"]
        self._layers = [(weights[f"layer{i}.weight"].T, weights[f"layer{i}.bias"]) for i in range(layers)]
        self._support = weights["support.weight"][0], weights["support.bias"]
        self._head = weights["head.weight"].T, weights["head.bias"]

    def read(self, sentences: Ids, story: Ids, live: NDArray[np.bool_], question: Ids) -> Reading:
        """sentences [U, W] and question [B, W] are words, 0 where there is none; story [S, B] says which sentences,
        live [S, B] where there is one.
        """
        each = (self._embedding[sentences] * self._place[: sentences.shape[1]]).sum(1)
        first = (self._embedding[question] * self._question_place[: question.shape[1]]).sum(1)
        x = each[story]
        query = np.broadcast_to(first[None], x.shape)
        opened = []
        for number, (weight, bias) in enumerate(self._layers):
            z, r, c = np.split(np.concatenate([x, query, x * query], 2) @ weight + bias, 3, 2)
            z = _sigmoid(z) * live[..., None]
            c = _sigmoid(r) * np.tanh(c)
            opened.append(z)
            state = _keep(z, c)
            if number + 1 < len(self._layers):
                query = state + _keep(z[::-1], c[::-1])[::-1]
        weight, bias = self._head
        scores = state[-1] @ weight + bias
        scores = np.exp(scores - scores.max(1, keepdims=True))
        pointed = np.concatenate(opened, 2) @ self._support[0] + self._support[1]
        return Reading(
            scores / scores.sum(1, keepdims=True),
            _sigmoid(pointed) * live,
            np.stack([z.mean(2) for z in opened]),
        )


def _keep(z: Floats, c: Floats) -> Floats:
    """h_t = (1 - z_t) h_{t-1} + z_t c_t, from zeros."""
    out = z * c
    for step in range(1, len(out)):
        out[step] += (1 - z[step]) * out[step - 1]
    return out


def _sigmoid(x: Floats) -> Floats:
    half: Floats = np.tanh(0.5 * x)
    return 0.5 + 0.5 * half
