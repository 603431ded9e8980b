"""Why tanh? Four activations in the same recurrent network, on the same text, from the same start."""

from __future__ import annotations

from pathlib import Path

import torch
from lesson import COLOURS, CharacterModel, Text, figure, learn, nats, options, rows_of, table, write
from torch import Tensor, nn

CELLS = {"tanh": "rnn", "sigmoid": "rnn_sigmoid", "ReLU": "rnn_relu", "identity": "rnn_identity"}
HIDDEN, LAGS = 128, 100
PAGE = """\
# Why tanh?

The plain recurrent network is h' = f(W x + U h + b). Every book takes f = tanh, and every student asks why. Here are
four choices of f in one network of {hidden} units, from the same random start, on the same {characters} characters
of text, {updates} updates of Adam each, gradients clipped at 1.

![state, gradient and loss of four activations](tanh.png)

{table}

* **Range.** tanh keeps every unit between -1 and 1, whatever is read; the sigmoid between 0 and 1. With ReLU and the
  identity nothing bounds the state: the column shows the greatest |h| that was seen in the run.
* **Gradient.** The middle picture shows the length of the gradient of one prediction's loss for the state k characters
  before it, in the trained network, relative to k = 0. It is a product of k factors U f'. f' of the sigmoid is at most
  1/4, so its gradient is gone first: what happened earlier cannot be learned from. tanh has f'(0) = 1 and keeps it
  longer; that f' is below 1 away from zero is also what keeps the product from growing. With ReLU and the identity f'
  is 1 wherever it is not 0: nothing damps the product, it lives or dies with U alone.
* **Learning.** A state without bounds makes a loss without bounds: look for spikes in the picture on the right, and at
  the greatest |h|. ReLU learns as well as tanh here, with a state that is many times as large.
* **Zero in the middle.** tanh is odd: states have both signs and a mean near zero, and a new input moves the state
  either way. The sigmoid's states are all positive, which pushes all units of the next step in the same direction.
* **The identity** makes the whole network one linear map of its inputs: however long it is trained, it can add up what
  it has read, and no more. Its loss shows what the nonlinearity is worth.

None of them keeps a gradient alive over {lags} characters. That is what the next lesson is about: [what the LSTM
adds](memory.md).
"""


def gradient_by_lag(model: CharacterModel, pieces: Tensor) -> list[float]:
    """‖∂ loss of the last prediction / ∂ h of k steps before‖, k = 0, 1, …; the mean of rows, pieces [T + 1, B]."""
    tokens, target = pieces[:-1], pieces[-1]
    cell = model.stack.cells[0]
    state = model.stack.first_state(tokens.shape[1]).layers[0]
    hidden: list[Tensor] = []
    for x in model.embedding(tokens):
        state = cell.step(x, state)  # type: ignore[operator]
        state[0].retain_grad()
        hidden.append(state[0])
    # Each row's loss depends on its own states alone, so the sum gives every row its own gradient.
    nn.functional.cross_entropy(model.head(hidden[-1]), target, reduction="sum").backward()  # type: ignore[no-untyped-call]
    norms = [float(h.grad.norm(dim=1).mean()) if h.grad is not None else 0.0 for h in reversed(hidden)]
    return [norm / max(norms[0], 1e-30) for norm in norms]


def main(text: Path, out: Path, *, quick: bool = False) -> dict[str, float]:
    """Measure, draw, write; the nats of each activation."""
    data = Text.read(text, 200_000)
    updates, lags = (10, 20) if quick else (600, LAGS)
    drawn, (ranges, gradients, losses) = figure(11, 3.4, 3)
    rows: list[tuple[object, ...]] = []
    found: dict[str, float] = {}
    for colour, (name, cell) in zip(COLOURS, CELLS.items(), strict=False):
        torch.manual_seed(1)
        model = CharacterModel(cell, len(data.characters), HIDDEN)
        seen: list[tuple[float, float, float]] = []
        curve: list[float] = []

        def watch(
            step: int,
            loss: float,
            hidden: Tensor,
            *,
            seen: list[tuple[float, float, float]] = seen,
            curve: list[float] = curve,
        ) -> None:
            seen.append((float(hidden.min()), float(hidden.mean()), float(hidden.max())))
            curve.append(loss)

        learn(model, data.train, updates=updates, watch=watch)
        found[name] = nats(model, data.dev)
        lag = gradient_by_lag(model, rows_of(data.dev, 16)[-lags - 2 :])
        greatest = max(max(-low, high) for low, _, high in seen)
        gone = next((k for k, norm in enumerate(lag) if norm < 1e-3), None)
        ranges.fill_between(range(len(seen)), [s[0] for s in seen], [s[2] for s in seen], color=colour, alpha=0.25)
        ranges.plot([s[1] for s in seen], color=colour, label=name)
        gradients.semilogy([max(norm, 1e-12) for norm in lag], color=colour, label=name)
        width = max(1, updates // 40)
        losses.plot(
            [i + width / 2 for i in range(0, updates - width + 1, width)],
            [sum(curve[i : i + width]) / width for i in range(0, updates - width + 1, width)],
            color=colour,
            label=name,
        )
        rows.append(
            (
                name,
                f"{found[name]:.3f}",
                f"{greatest:.1f}",
                f"{seen[-1][1]:+.2f}",
                gone if gone is not None else f"over {lags}",
            )
        )
    ranges.set(title="state: least, mean, greatest", xlabel="update", yscale="symlog")
    gradients.set(title="gradient, relative", xlabel="characters back", ylim=(1e-12, None))
    losses.set(title="training loss, nats a character", xlabel="update", ylim=(1.5, 4.5))
    losses.legend(frameon=False)
    heads = ("f", "nats on held-out text", "greatest \\|h\\| seen", "mean h at the end", "gradient below 1/1000 after")
    page = PAGE.format(
        hidden=HIDDEN, characters=f"{len(data.train):,}", updates=updates, table=table(heads, rows), lags=lags
    )
    write(out, "tanh", page, drawn)
    return found


if __name__ == "__main__":
    given = options(__doc__ or "")
    main(given.text, given.out, quick=given.quick)
