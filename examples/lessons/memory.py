"""What the LSTM adds: how far gradients reach, and what can be remembered for how long."""

from __future__ import annotations

from pathlib import Path

import torch
from lesson import COLOURS, figure, options, table, write
from torch import Tensor, nn

from recur.nn.cells import LstmCell
from recur.nn.stack import Stack

HIDDEN, SYMBOLS, LAGS = 64, 8, 100
PAGE = """\
# What the LSTM adds

The plain network replaces its whole state at every step: h' = tanh(W x + U h + b). A gradient that goes back k steps
is multiplied k times by U and by tanh' ≤ 1, and it vanishes or explodes (Bengio et al. 1994). The LSTM keeps a second
state by a **sum**:

    c' = f · c + i · g        ∂c'/∂c = f, a number between 0 and 1 for each unit, chosen at every step
    h' = o · tanh(c')

Where the forget gate f is near 1, c is carried on as it is, and so is its gradient. This is measured below, in networks
of {hidden} units that nobody has trained (left), and in the same networks at work (right): they see one of {symbols}
symbols, then noise for some steps, and have to say which one it was. {updates} updates of Adam each, batches of 64.

![gradients and memory of four networks](memory.png)

{table}

* **Gradient at the start.** The left picture shows the length of the gradient of the last state for the state k steps
  before (for the LSTM: of c), relative to k = 0. In the plain network it is gone first. The GRU's
  h' = (1 - z) n + z h is also a sum, but its z starts near 1/2, and an LSTM whose forget gates start near 1/2 (bias 0)
  is no better. With a bias of {bias} they start near {gate:.2f}: the gradient is still there after {lags} steps, and
  what comes through h on top makes it grow. This is why recur starts its LSTMs open (Jozefowicz et al. 2015).
* **Remembering.** What cannot be reached by a gradient is not learned: the right picture shows the share of symbols
  that were named after so many steps of noise (by guessing, 1 of {symbols}). Each dot is a network of its own. A gate
  alone is no memory: half open, it forgets as fast as the plain network, or faster. Open, it remembers.
* **What it costs.** Four products where the plain network has one; for the same number of weights its state is half as
  wide.
"""
OPEN = 4.0
NETWORKS: dict[str, tuple[str, float]] = {
    "plain, tanh": ("rnn", 0.0),
    "GRU": ("gru", 0.0),
    "LSTM, forget bias 0": ("lstm", 0.0),
    f"LSTM, forget bias {OPEN:g}": ("lstm", OPEN),
}


class Namer(nn.Module):
    """One-hot symbols in, at the end the name of the first one."""

    def __init__(self, cell: str, forget: float) -> None:
        super().__init__()
        self.stack = Stack(cell, SYMBOLS, HIDDEN)
        self.head = nn.Linear(HIDDEN, SYMBOLS)
        for each in self.stack.cells:
            if isinstance(each, LstmCell):
                with torch.no_grad():
                    each.bias_ih.zero_()
                    each.bias_hh.zero_()
                    each.bias_hh[HIDDEN : 2 * HIDDEN] = forget

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, S] -> scores [B, S]."""
        out, _ = self.stack.scan(x)
        scores: Tensor = self.head(out[-1])
        return scores


def gradient_by_lag(network: Namer, lags: int) -> list[float]:
    """‖∂ s_T / ∂ s_{T-k}‖ for k = 0, 1, …, relative to k = 0: s is c for the LSTM, else h; along random directions."""
    cell = network.stack.cells[0]
    state = network.stack.first_state(16).layers[0]
    kept: list[Tensor] = []
    for _ in range(lags + 1):
        x = nn.functional.one_hot(torch.randint(SYMBOLS, (16,)), SYMBOLS).float()
        state = cell.step(x, state)  # type: ignore[operator]
        state[-1].retain_grad()
        kept.append(state[-1])
    (kept[-1] * torch.randn_like(kept[-1])).sum().backward()  # type: ignore[no-untyped-call]
    norms = [0.0 if each.grad is None else float(each.grad.norm(dim=1).mean()) for each in reversed(kept)]
    return [norm / max(norms[0], 1e-30) for norm in norms]


def noise(steps: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x [T + 1, B, S]: a symbol, then T steps of small noise; and which symbol it was."""
    names = torch.randint(SYMBOLS, (rows,), generator=generator)
    x = 0.3 * torch.randn(steps + 1, rows, SYMBOLS, generator=generator)
    x[0] = nn.functional.one_hot(names, SYMBOLS).float()
    return x, names


def remembers(cell: str, forget: float, steps: int, updates: int) -> float:
    """The share of symbols that a network, taught for `updates`, names after so many steps."""
    torch.manual_seed(2)
    generator = torch.Generator().manual_seed(3)
    network = Namer(cell, forget)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(updates):
        x, names = noise(steps, 64, generator)
        loss = nn.functional.cross_entropy(network(x), names)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        x, names = noise(steps, 1000, generator)
        return float((network(x).argmax(-1) == names).float().mean())


def main(out: Path, *, quick: bool = False) -> dict[str, list[float]]:
    """Measure, draw, write; how much each network remembers after the steps of the picture."""
    lags, updates, steps = (20, 5, (2, 5)) if quick else (LAGS, 300, (5, 10, 20, 40, 80))
    drawn, (gradients, memory) = figure(9, 3.6, 2)
    rows: list[tuple[object, ...]] = []
    found: dict[str, list[float]] = {}
    for colour, (name, (cell, forget)) in zip(COLOURS, NETWORKS.items(), strict=False):
        torch.manual_seed(1)
        lag = gradient_by_lag(Namer(cell, forget), lags)
        found[name] = [remembers(cell, forget, count, updates) for count in steps]
        gradients.semilogy([max(norm, 1e-12) for norm in lag], color=colour, label=name)
        memory.plot(steps, found[name], marker="o", color=colour, label=name)
        rows.append((name, f"{lag[-1]:.1e}", *(f"{share:.2f}" for share in found[name])))
    gradients.set(title="gradient before training, relative", xlabel="steps back", ylim=(1e-12, 10))
    memory.axhline(1 / SYMBOLS, color="#bbbbbb", linewidth=1)
    memory.set(title="first symbol named", xlabel="steps in between", ylim=(0, 1.05), xscale="log")
    memory.set_xticks(steps, [str(count) for count in steps])
    memory.minorticks_off()
    gradients.legend(frameon=False, fontsize=8)
    heads = ("network", f"gradient {lags} steps back", *(f"named after {count}" for count in steps))
    gate = float(torch.sigmoid(torch.tensor(OPEN)))
    page = PAGE.format(
        hidden=HIDDEN,
        symbols=SYMBOLS,
        updates=updates,
        table=table(heads, rows),
        bias=f"{OPEN:g}",
        gate=gate,
        lags=lags,
    )
    write(out, "memory", page, drawn)
    return found


if __name__ == "__main__":
    given = options(__doc__ or "", text=False)
    main(given.out, quick=given.quick)
