"""The textbook recurrent network, whole: four letters, three hidden units, taught to spell "hello".

    python examples/hello.py

At every step the network reads one letter and says which letter comes next. Inputs are one-hot: h = [1 0 0 0],
e = [0 1 0 0], and so on. One set of weights serves all steps:

    h_t = tanh(W_xh x_t + W_hh h_{t-1} + b_h)      the hidden layer: what the network remembers (Elman 1990)
    y_t = W_hy h_t + b_y                           a score for every letter
    p_t = softmax(y_t),  loss = -log p_t[target]   summed over the steps

"hell" is read and "ello" is wanted. The letter l is followed once by l and once by o: without a memory this cannot be
learned. Only NumPy is needed; the last part runs the same weights through recur's own engine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]

WORD = "hello"
LETTERS = "helo"
HIDDEN = 3
RATE = 0.1
STEPS = 2000

ids = [LETTERS.index(letter) for letter in WORD]
inputs, targets = ids[:-1], ids[1:]


def make_weights(seed: int = 0) -> Weights:
    """Small random numbers to begin with; W_xh [3, 4], W_hh [3, 3], W_hy [4, 3] and two biases."""
    random = np.random.default_rng(seed)
    shapes = {"W_xh": (HIDDEN, len(LETTERS)), "W_hh": (HIDDEN, HIDDEN), "W_hy": (len(LETTERS), HIDDEN)}
    weights = {name: random.normal(0, 0.3, shape) for name, shape in shapes.items()}
    return {**weights, "b_h": np.zeros(HIDDEN), "b_y": np.zeros(len(LETTERS))}


def one_hot(letter: int) -> Array:
    row: Array = np.eye(len(LETTERS))[letter]
    return row


def step(weights: Weights, letter: int, h: Array) -> tuple[Array, Array]:
    """One step: the next hidden layer [3] and the scores [4]."""
    h = np.tanh(weights["W_xh"] @ one_hot(letter) + weights["W_hh"] @ h + weights["b_h"])
    return h, weights["W_hy"] @ h + weights["b_y"]


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    shares: Array = powers / powers.sum()
    return shares


def forward(weights: Weights) -> tuple[float, list[Array], list[Array]]:
    """The loss of the whole word, every hidden layer (the first is the zero before the word), every probability."""
    hidden, probabilities, loss = [np.zeros(HIDDEN)], [], 0.0
    for letter, target in zip(inputs, targets, strict=True):
        h, scores = step(weights, letter, hidden[-1])
        hidden.append(h)
        probabilities.append(softmax(scores))
        loss -= np.log(probabilities[-1][target])
    return float(loss), hidden, probabilities


def backward(weights: Weights) -> Weights:
    """Backpropagation through time: the same chain rule, from the last step to the first.

    What step t+1 wants of h_t comes back through W_hh and is added to what y_t wants of it. The weights are shared, so
    the gradients of all steps add up.
    """
    _, hidden, probabilities = forward(weights)
    gradient = {name: np.zeros_like(value) for name, value in weights.items()}
    from_later = np.zeros(HIDDEN)
    for t in reversed(range(len(inputs))):
        d_scores = probabilities[t] - one_hot(targets[t])  # of softmax and logarithm together
        gradient["W_hy"] += np.outer(d_scores, hidden[t + 1])
        gradient["b_y"] += d_scores
        d_h = weights["W_hy"].T @ d_scores + from_later
        d_sum = d_h * (1 - hidden[t + 1] ** 2)  # the slope of tanh
        gradient["W_xh"] += np.outer(d_sum, one_hot(inputs[t]))
        gradient["W_hh"] += np.outer(d_sum, hidden[t])
        gradient["b_h"] += d_sum
        from_later = weights["W_hh"].T @ d_sum
    return gradient


def check_gradient(weights: Weights, small: float = 1e-5) -> float:
    """The largest difference between `backward` and what nudging each weight does to the loss."""
    gradient = backward(weights)
    worst = 0.0
    for name, values in weights.items():
        for place in np.ndindex(values.shape):
            kept = values[place]
            values[place] = kept + small
            above = forward(weights)[0]
            values[place] = kept - small
            below = forward(weights)[0]
            values[place] = kept
            worst = max(worst, abs((above - below) / (2 * small) - float(gradient[name][place])))
    return worst


def spell(weights: Weights, first: str = WORD[0], length: int = len(WORD)) -> str:
    """Give it one letter; each letter it says is its next input."""
    said, h = first, np.zeros(HIDDEN)
    while len(said) < length:
        h, scores = step(weights, LETTERS.index(said[-1]), h)
        said += LETTERS[int(scores.argmax())]
    return said


def show(weights: Weights) -> None:
    """The picture of the lecture, as text: input layer, hidden layer, scores, target, for every step."""
    h = np.zeros(HIDDEN)
    print(f"{'input':8}{'input layer':14}{'hidden layer':24}{'scores of ' + ' '.join(LETTERS):32}{'target':8}says")
    for letter, target in zip(inputs, targets, strict=True):
        h, scores = step(weights, letter, h)
        columns = (
            f"{LETTERS[letter]:8}",
            f"{' '.join(f'{value:.0f}' for value in one_hot(letter)):14}",
            f"{' '.join(f'{value:+.2f}' for value in h):24}",
            f"{' '.join(f'{value:+.2f}' for value in scores):32}",
            f"{LETTERS[target]:8}",
            LETTERS[int(scores.argmax())],
        )
        print("".join(columns))


def train(weights: Weights, steps: int = STEPS) -> float:
    """Plain gradient descent; the loss at the end."""
    for number in range(steps):
        if number % (steps // 5) == 0:
            print(f"step {number:5}   loss {forward(weights)[0]:.4f}   spells {spell(weights)}")
        for name, change in backward(weights).items():
            weights[name] -= RATE * change
    return forward(weights)[0]


def engine_hidden(weights: Weights) -> Array:
    """The hidden layers [4, 3] as recur's engine computes them from the same weights."""
    from recur.engine.reference import scan

    named = {
        "weight_ih_l0": weights["W_xh"],
        "weight_hh_l0": weights["W_hh"],
        "bias_ih_l0": weights["b_h"],
        "bias_hh_l0": np.zeros(HIDDEN),
    }
    outputs, _ = scan("rnn", np.stack([one_hot(letter) for letter in inputs])[None], named)
    return np.asarray(outputs[0])


def main() -> None:
    weights = make_weights()
    print("Before training:")
    show(weights)
    print(f"\nGradient check: largest difference {check_gradient(weights):.1e}\n")
    train(weights)
    print("\nAfter training:")
    show(weights)
    print(f"\nGiven '{WORD[0]}', it spells '{spell(weights)}'.")
    difference = np.abs(engine_hidden(weights) - np.stack(forward(weights)[1][1:])).max()
    print(f"The same weights in recur's engine: largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
