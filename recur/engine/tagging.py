"""A label for every step: scores of the recurrent network, and the best chain of labels through them.

K labels, T steps. A chain has the weight exp(sum of its emissions + sum of its transitions) (Lafferty, McCallum &
Pereira 2001, linear-chain conditional random fields). A softmax head is the chain whose transitions are all alike; what
a change of label costs beyond that is the smoothing. All here is float64 NumPy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def logsumexp(x: FloatArray, axis: int) -> FloatArray:
    """log(sum(exp(x))) that does not overflow."""
    most = x.max(axis, keepdims=True)
    result: FloatArray = np.log(np.exp(x - most).sum(axis)) + most.squeeze(axis)
    return result


def smoothed(transitions: FloatArray, cost: float) -> FloatArray:
    """Transitions [K, K] in which every change of label costs `cost` nats more."""
    changed: FloatArray = transitions - cost * (1 - np.eye(len(transitions)))
    return changed


def viterbi(emissions: FloatArray, transitions: FloatArray, start: FloatArray) -> Labels:
    """The best chain [T] through emissions [T, K]; transitions [K, K] are from row to column (Viterbi 1967)."""
    steps, count = emissions.shape
    back = np.zeros((steps, count), np.int64)
    score = start + emissions[0]
    for t in range(1, steps):
        table = score[:, None] + transitions
        back[t] = table.argmax(0)
        score = table.max(0) + emissions[t]
    path = np.zeros(steps, np.int64)
    path[-1] = int(score.argmax())
    for t in range(steps - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def marginals(emissions: FloatArray, transitions: FloatArray, start: FloatArray) -> FloatArray:
    """The probability [T, K] of each label at each step (forward-backward algorithm, Rabiner 1989)."""
    steps = len(emissions)
    ahead, behind = np.zeros_like(emissions), np.zeros_like(emissions)
    ahead[0] = start + emissions[0]
    for t in range(1, steps):
        ahead[t] = logsumexp(ahead[t - 1][:, None] + transitions, 0) + emissions[t]
    for t in range(steps - 2, -1, -1):
        behind[t] = logsumexp(transitions + (emissions[t + 1] + behind[t + 1])[None, :], 1)
    both = ahead + behind
    result: FloatArray = np.exp(both - logsumexp(both, 1)[:, None])
    return result
