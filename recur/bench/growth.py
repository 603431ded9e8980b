"""`growth`: how time and memory grow with the number of pictures, with time steps, words and beam width.

The pictures are tiny (64 x 64 pixels, generated), so that ten thousand of them take a minute: what is asked is whether
the time of one depends on how many there are, not how long one takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from recur.bench.beam import noise, settings
from recur.bench.measure import Row, peak_memory, require, together
from recur.bench.step import LAYERS, weights_of
from recur.data.text import END
from recur.engine import reference
from recur.engine.native import Decoder, Stack
from recur.predict.caption import Captioner

PICTURES, TIMES = (100, 1_000, 10_000), (64, 128, 256, 512, 1024)
WORDS, BEAMS = (100, 1_000, 10_000, 50_000), (1, 2, 5, 10)
SIDE, HIDDEN = 64, 128
MEMORY = 1.25  # so many times as much for 100 times as many pictures still counts as flat
TOLERANCE = 1e-4


def run(*, model: Captioner, name: str = "captioner", quick: bool = False) -> Iterator[Row]:
    """A row for each kind of growth; `times` are by size. Errors: Unequal when results are incomplete or wrong."""
    yield _pictures(name, (10, 40) if quick else PICTURES)
    yield _steps(TIMES[:2] if quick else TIMES)
    yield _words(WORDS[:2] if quick else WORDS)
    yield _beams(model, BEAMS[:2] if quick else BEAMS)


def _pictures(name: str, counts: tuple[int, ...]) -> Row:
    times, memory, exact = {}, {}, True
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="recur-bench-") as made:
        for count in counts:
            folder = Path(made) / str(count)
            folder.mkdir()
            for number in range(count):
                pixels = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
                Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{number:06d}.jpg")
            seconds, peak, output = peak_memory(["caption", str(folder), "--model", name, "--json"])
            times[str(count)], memory[f"peak_memory_mb_{count}"] = seconds, peak / 1e6
            exact = exact and output.count(b"\n") == count
    checked = require(exact, "growth in pictures", f"{' + '.join(times)} pictures, as many captions")
    peaks = list(memory.values())
    more = {**memory, "memory_growth": peaks[-1] / peaks[0] if peaks[0] else 0.0, "need_memory_growth_below": MEMORY}
    what = f"pictures of {SIDE} x {SIDE} pixels, a process for each number"
    return Row("growth", what, "s", times, str(counts[-1]), None, None, checked, more | _slope(times))


def _steps(lengths: tuple[int, ...]) -> Row:
    random = np.random.default_rng(0)
    weights = {n.removeprefix("rnn."): w for n, w in weights_of(HIDDEN, 8).items() if n.startswith("rnn.")}
    stack = Stack(weights, cell="lstm", layers=LAYERS, threads=1)
    x = random.standard_normal((1, max(lengths), HIDDEN)).astype(np.float32)
    expected, _ = reference.scan("lstm", x, weights, layers=LAYERS)
    apart = float(np.abs(stack.scan(x).outputs - expected).max())
    checked = require(apart <= TOLERANCE, "growth in T", f"outputs within {apart:.1e} of the reference")
    runs = {str(length): _bind(stack.scan, np.ascontiguousarray(x[:, :length])) for length in lengths}
    return _row("time steps of a scan, 2 x 128", runs, 1e3, "ms", checked)


def _words(sizes: tuple[int, ...]) -> Row:
    prompt = np.zeros((1, 1), np.int64)
    runs: dict[str, Callable[[], object]] = {}
    apart = 0.0
    for size in sizes:
        weights = weights_of(HIDDEN, size)
        decoder = Decoder(weights, cell="lstm", layers=LAYERS, precision="float32", threads=1)
        slow = Decoder(weights, cell="lstm", layers=LAYERS, isa="reference")
        fed = np.arange(4)[None]
        apart = max(apart, float(np.abs(decoder.read(fed).logits - slow.read(fed).logits).max()))
        runs[str(size)] = _bind(decoder.generate, prompt, length=100)
    checked = require(apart <= 1e-2, "growth in V", f"scores within {apart:.1e} of the reference")
    return _row("words of a vocabulary, 2 x 128, float32", runs, 1e6 / 100, "µs a step", checked)


def _beams(model: Captioner, widths: tuple[int, ...]) -> Row:
    bundle, lang = model.bundle, model.languages[0]
    features = model.encoder(noise(4, model.size))
    vocabulary = bundle.vocabulary()
    options: dict[str, Any] = {"cell": bundle.meta["cell"], "layers": int(bundle.meta["layers"])}
    words = np.flatnonzero(vocabulary.allowed(lang))
    fast = Decoder(bundle.weights, **options, words=words, threads=1)
    slow = Decoder(bundle.weights, **options, words=words, isa="reference")
    call: dict[str, Any] = {"prompt": np.full((4, 1), vocabulary.language_id(lang)), "end": END}
    call |= settings(bundle, lang)
    widest = [decoder.beam_search(features, beam=max(widths), **call) for decoder in (fast, slow)]
    same = sum(a[0].tokens.tolist() == b[0].tokens.tolist() for a, b in zip(*widest, strict=True))
    checked = require(same >= 3, "growth in K", f"{same} of 4 captions those of the reference")
    runs = {str(width): _bind(fast.beam_search, features, beam=width, **call) for width in widths}
    return _row("hypotheses of a beam, 4 pictures, float32", runs, 1e3 / 4, "ms a picture", checked)


def _bind(function: Callable[..., object], *arguments: Any, **options: Any) -> Callable[[], object]:
    return lambda: function(*arguments, **options)


def _row(what: str, runs: dict[str, Callable[[], object]], scale: float, unit: str, checked: str) -> Row:
    times = {size: scale * median(each) for size, each in together(runs, rounds=9, seconds=10).items()}
    return Row("growth", what, unit, times, list(times)[-1], None, None, checked, _slope(times))


def _slope(times: dict[str, float]) -> dict[str, float]:
    """Time ~ size ** exponent between the two largest sizes: 1 is linear growth."""
    (small, before), (large, after) = list(times.items())[-2:]
    return {"exponent": float(np.log(after / before) / np.log(int(large) / int(small)))}
