"""`step`: one token after another through layers of LSTM, as fast as PyTorch's fastest way and as memory allows.

A language model of 2 layers with an embedding as wide as the layers: H hidden units, V words. Greedy choice, or one
drawn from the whole distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np

from recur.bench.measure import Row, compare, fastest_reader, load, require, together
from recur.engine.native import Decoder, Precision
from recur.engine.reference import Array
from recur.engine.vision import processors

LAYERS = 2
SIZES = ((128, 65), (128, 10_000), (512, 65), (512, 10_000))
NEEDS: dict[tuple[int, Precision], float] = {
    (128, "int8"): 25, (128, "float32"): 8, (512, "int8"): 25, (512, "float32"): 4,
}  # fmt: skip
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
CHECKED_TOKENS = 64
TOLERANCE = 1e-3  # nats, of a token's log-probability in float32
PERPLEXITY = 0.005  # by which 8-bit weights and half precision may change it
LIMIT = "memory's limit, 1 threads"  # how long it takes to read that many bytes, over and over
NEED_SHARE = 0.7  # of that limit, for int8 at 512


def weights_of(hidden: int, vocabulary: int, seed: int = 0) -> dict[str, Array]:
    """Random weights that make some words much likelier than others, as trained ones do."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, gain: float = 1.0) -> Array:
        values: Array = (gain * random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        return values

    weights = {"embedding.weight": normal(vocabulary, hidden, gain=np.sqrt(hidden))}
    for layer in range(LAYERS):
        weights[f"rnn.weight_ih_l{layer}"] = normal(4 * hidden, hidden)
        weights[f"rnn.weight_hh_l{layer}"] = normal(4 * hidden, hidden)
        weights[f"rnn.bias_ih_l{layer}"] = normal(4 * hidden)
        weights[f"rnn.bias_hh_l{layer}"] = normal(4 * hidden)
    return {**weights, "head.weight": normal(vocabulary, hidden, gain=5.0), "head.bias": normal(vocabulary)}


def run(*, quick: bool = False) -> Iterator[Row]:
    """A row for each size, choice and precision. Errors: Unequal when PyTorch computes something else."""
    torch = load("torch")
    for hidden, vocabulary in SIZES[:1] if quick else SIZES:
        weights = weights_of(hidden, vocabulary)
        ours = {name: Decoder(weights, cell="lstm", layers=LAYERS, precision=name) for name in PRECISIONS}
        checked = _check(ours, weights, hidden, torch)
        for sampled in (False, True):
            yield from _timed(ours, weights, hidden, vocabulary, checked, sampled, quick, torch)


def _timed(
    ours: dict[Precision, Decoder],
    weights: dict[str, Array],
    hidden: int,
    vocabulary: int,
    checked: dict[Precision, str],
    sampled: bool,
    quick: bool,
    torch: Any,
) -> Iterator[Row]:
    steps = max(100, 100_000 // hidden)  # of ours in one round; PyTorch takes fewer, being slower
    few = max(20, steps // 20)
    prompt = np.zeros((1, 1), np.int64)
    heat = 1.0 if sampled else 0.0

    def generate(decoder: Decoder, threads: int) -> Callable[[], object]:
        def run() -> object:
            decoder.threads = threads
            return decoder.generate(prompt, length=steps, temperature=heat)

        return run

    counts = sorted({1, processors()})
    contestants: dict[str, Callable[[], object]] = {
        f"{name}, {count} threads": generate(decoder, count) for name, decoder in ours.items() for count in counts
    }
    others = {}
    for threads in (1, 2):
        for kind in ("LSTM", "LSTMCell") if quick else ("LSTM", "LSTMCell", "compile"):
            step, state = torch_step(torch, weights, hidden, kind, sampled)
            others[f"PyTorch {kind}, {threads} threads"] = torch_loop(torch, step, state, few, threads)
    size = streamed_bytes(ours["int8"], vocabulary)
    limit = fastest_reader(size)
    contestants[LIMIT] = lambda: [limit() for _ in range(steps)]
    before = torch.get_num_threads()
    try:
        times = together({**contestants, **others}, rounds=3 if quick else 5)
    finally:
        torch.set_num_threads(before)
    each = {name: [t / (steps if name in contestants else few) for t in rounds] for name, rounds in times.items()}
    choice = "sampled" if sampled else "greedy"
    for precision in ours:
        mine = [f"{precision}, {count} threads" for count in counts]
        shown = [*mine, *others]
        more = {}
        if precision == "int8":
            shown.append(LIMIT)
            shares = [least / alone for least, alone in zip(each[LIMIT], each[mine[0]], strict=True)]
            more = {"weight_bytes": size, "share_of_limit": median(shares)}
            if hidden == 512:
                more["need_share_of_limit"] = NEED_SHARE
        yield compare(
            "step",
            f"{choice}, {LAYERS} x {hidden}, vocabulary {vocabulary}, {precision}",
            {name: each[name] for name in shown},
            ours=min(mine, key=lambda name: median(each[name])),
            against=list(others),
            unit="µs a step",
            scale=1e6,
            need=NEEDS.get((hidden, precision)),
            checked=checked[precision],
            more=more,
        )


def streamed_bytes(decoder: Decoder, vocabulary: int) -> int:
    """Bytes of weights that one step must read: recurrent matrices, the input matrices above the first layer, the head.

    The first layer's input is a row of a table. One scale a row belongs to int8.
    """
    width = {"float32": 4, "bfloat16": 2, "int8": 1}[decoder.precision]
    rows = [4 * decoder.hidden] * (2 * LAYERS - 1) + [vocabulary]
    return sum(count * (decoder.hidden * width + (4 if width == 1 else 0)) for count in rows)


def torch_step(
    torch: Any, weights: dict[str, Array], hidden: int, kind: str, sampled: bool
) -> tuple[Callable[..., Any], Any]:
    """(token [1], state) -> (token [1], state) in PyTorch, and the state to begin with."""
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    embedding, head, bias = tensors["embedding.weight"], tensors["head.weight"], tensors["head.bias"]
    functional = torch.nn.functional

    def choose(h: Any) -> Any:
        logits = functional.linear(h, head, bias)
        if sampled:
            return torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]
        return logits.argmax(-1)

    zeros = torch.zeros(1, hidden)
    if kind == "LSTM":
        lstm = torch.nn.LSTM(hidden, hidden, LAYERS)
        lstm.load_state_dict({n.removeprefix("rnn."): v for n, v in tensors.items() if n.startswith("rnn.")})

        def whole(token: Any, state: Any) -> Any:
            out, state = lstm(embedding[token][None], state)
            return choose(out[0]), state

        start = torch.zeros(LAYERS, 1, hidden)
        return whole, (start, start)
    cells = []
    for layer in range(LAYERS):
        cell = torch.nn.LSTMCell(hidden, hidden)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell.load_state_dict({name: tensors[f"rnn.{name}_l{layer}"] for name in names})
        cells.append(cell)

    def by_cells(token: Any, state: Any) -> Any:
        x, after = embedding[token], []
        for cell, before in zip(cells, state, strict=True):
            x, c = cell(x, before)
            after.append((x, c))
        return choose(x), after

    begin = [(zeros, zeros) for _ in cells]
    return (torch.compile(by_cells, dynamic=False) if kind == "compile" else by_cells), begin


def torch_loop(torch: Any, step: Callable[..., Any], state: Any, steps: int, threads: int) -> Callable[[], list[int]]:
    """`steps` tokens, one after the other; returns them."""

    def loop() -> list[int]:
        torch.set_num_threads(threads)
        token, now = torch.zeros(1, dtype=torch.long), state
        tokens = []
        with torch.inference_mode():
            for _ in range(steps):
                token, now = step(token, now)
                tokens.append(token)
        return [int(each) for each in tokens]

    return loop


def _check(ours: dict[Precision, Decoder], weights: dict[str, Array], hidden: int, torch: Any) -> dict[Precision, str]:
    """What was found equal, for each precision. Errors: Unequal."""
    what = f"step {LAYERS} x {hidden}, vocabulary {len(weights['head.weight'])}"
    prompt = np.zeros((1, 1), np.int64)
    exact = ours["float32"]
    greedy = exact.generate(prompt, length=CHECKED_TOKENS)
    step, state = torch_step(torch, weights, hidden, "LSTM", False)
    theirs = torch_loop(torch, step, state, CHECKED_TOKENS, 1)()
    same = greedy.tokens[0].tolist() == theirs
    drawn = exact.generate(prompt, length=CHECKED_TOKENS, temperature=1.0, seed=1)
    fed = np.concatenate([prompt, drawn.tokens[:, :-1]], axis=1)
    told = _torch_log_probs(torch, weights, hidden, fed, drawn.tokens)
    apart = float(np.abs(told - drawn.log_probs).max())
    found = f"greedy tokens the same: {same}; log-probabilities of drawn tokens within {apart:.1e} of PyTorch's"
    checked: dict[Precision, str] = {"float32": require(same and apart <= TOLERANCE, what, found)}
    for name in ("bfloat16", "int8"):
        logits = ours[name].read(fed).logits[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        mine = np.take_along_axis(logits, drawn.tokens[0][:, None], -1)[:, 0] - np.log(np.exp(logits).sum(-1))
        change = float(np.exp(told.mean() - mine.mean()) - 1)
        found = f"perplexity of {CHECKED_TOKENS} drawn tokens changed by {100 * change:+.2f} %"
        checked[name] = require(abs(change) <= PERPLEXITY, f"{what}, {name}", found)
    return checked


def _torch_log_probs(torch: Any, weights: dict[str, Array], hidden: int, fed: Any, tokens: Any) -> Array:
    """Log-probability of each of tokens [1, T] after fed [1, T], from one call of `torch.nn.LSTM` on all of them."""
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    lstm = torch.nn.LSTM(hidden, hidden, LAYERS, batch_first=True)
    lstm.load_state_dict({n.removeprefix("rnn."): v for n, v in tensors.items() if n.startswith("rnn.")})
    with torch.inference_mode():
        out, _ = lstm(tensors["embedding.weight"][torch.from_numpy(fed)])
        logits = torch.nn.functional.linear(out[0], tensors["head.weight"], tensors["head.bias"])
        told: Array = logits.log_softmax(-1).gather(1, torch.from_numpy(tokens).T)[:, 0].numpy()
    return told
