"""`scan`: whole sequences through one layer, beside `torch.nn.LSTM` and `torch.nn.GRU`.

B sequences of T steps, H hidden units and as many input features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from recur.bench.measure import Row, compare, load, require, together
from recur.engine.native import Precision, Stack
from recur.engine.reference import GATES, Array, Cell

BATCHES, TIMES, HIDDEN = (1, 16, 64), (64, 256), (128, 512)
NEEDS: dict[Cell, float] = {"lstm": 1.0, "gru": 2.0}
# Of outputs, which lie between -1 and 1: largest difference in float32; in bfloat16, whose numbers have 8 bits, both
# programs round, and each is held against float32.
TOLERANCE, ROUGH = 1e-4, 5e-2


def run(*, quick: bool = False) -> Iterator[Row]:
    """A row for each cell, size and precision. Errors: Unequal when PyTorch computes something else."""
    torch = load("torch")
    before = torch.get_num_threads()
    cells: tuple[Cell, ...] = ("lstm", "gru")
    sizes = list(product(cells, HIDDEN, BATCHES, TIMES))
    try:
        for cell, hidden, batch, time in sizes[:2] if quick else sizes:
            yield from _one(torch, cell, hidden, batch, time, quick)
    finally:
        torch.set_num_threads(before)


def _one(torch: Any, cell: Cell, hidden: int, batch: int, time: int, quick: bool) -> Iterator[Row]:
    random = np.random.default_rng(0)
    bound = 1 / np.sqrt(hidden)
    shapes = {"weight_ih_l0": (hidden,), "weight_hh_l0": (hidden,), "bias_ih_l0": (), "bias_hh_l0": ()}
    weights: dict[str, Array] = {
        name: random.uniform(-bound, bound, (GATES[cell] * hidden, *rest)).astype(np.float32)
        for name, rest in shapes.items()
    }
    x = random.standard_normal((batch, time, hidden)).astype(np.float32)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    contestants: dict[str, Callable[[], Any]] = {}
    for precision in precisions:
        stack = Stack(weights, cell=cell, precision=precision)
        contestants[precision] = _our_run(stack, x)
        kind = getattr(torch, precision)
        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](hidden, hidden, batch_first=True)
        layer.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        layer, given = layer.to(kind), torch.from_numpy(x).to(kind)
        for threads in (1, 2):
            contestants[f"PyTorch {precision}, {threads} threads"] = _torch_run(torch, layer, given, threads)
    what = f"{cell}, B {batch}, T {time}, H {hidden}"
    results = {name: np.asarray(run()) for name, run in contestants.items()}
    exact = results["PyTorch float32, 1 threads"]
    apart = {name: float(np.abs(result - exact).max()) for name, result in results.items()}
    checked = {
        precision: require(
            apart[precision] <= (TOLERANCE if precision == "float32" else max(ROUGH, 2 * rough)),
            f"scan, {what}, {precision}",
            f"outputs within {apart[precision]:.1e} of PyTorch's float32 (PyTorch's own: {rough:.1e})",
        )
        for precision in precisions
        for rough in [apart[f"PyTorch {precision}, 1 threads"]]
    }
    times = together(contestants, rounds=3 if quick else 7, seconds=6, rested=True)
    for precision in precisions:
        others = [name for name in times if name.startswith(f"PyTorch {precision}")]
        yield compare(
            "scan",
            f"{what}, {precision}",
            {name: rounds for name, rounds in times.items() if name == precision or name in others},
            ours=precision,
            against=others,
            unit="ms",
            scale=1e3,
            need=NEEDS[cell],
            checked=checked[precision],
        )


def _our_run(stack: Stack, x: Array) -> Callable[[], Any]:
    return lambda: stack.scan(x).outputs


def _torch_run(torch: Any, layer: Any, given: Any, threads: int) -> Callable[[], Any]:
    def run() -> Any:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return layer(given)[0].float().numpy()

    return run
