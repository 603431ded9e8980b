"""`beam`: captions from ready features, beam 5, beside a batched beam search in PyTorch with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.bench.measure import Row, compare, load, require, together
from recur.bench.torch_beam import TorchCaptioner
from recur.bundle import Bundle
from recur.data.text import END
from recur.engine.hypotheses import Hypothesis
from recur.engine.native import Decoder, Precision
from recur.predict.caption import Captioner

BEAM, BATCHES, NEED = 5, (1, 16), 10.0
PICTURES = 32  # on which results are compared
SAME = 0.95  # of the captions in float32: the rest are choices between two that are equally good to the last bit
TOLERANCE = 1e-3  # nats a caption, in float32
NEAR = 0.1  # nats a caption, in 8 bits and half precision, on average


def noise(count: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Pictures [B, size, size, 3] with large and small patches of colour: no two have the same caption for sure."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 7, 7, 3)).repeat(-(-size // 7), 1).repeat(-(-size // 7), 2)
    fine = random.integers(-32, 33, (count, size, size, 3))
    return (coarse[:, :size, :size] + fine).clip(0, 255).astype(np.uint8)


def settings(bundle: Bundle, lang: str) -> dict[str, Any]:
    """How the bundle searches in one language, in both programs' words."""
    decode = bundle.meta["decode"]

    def of(name: str, default: float) -> Any:
        value = decode.get(name, default)
        return value.get(lang, default) if isinstance(value, dict) else value

    return {
        "max_length": int(of("max_length", 24)),
        "min_length": int(of("min_length", 1)),
        "length_penalty": float(of("length_penalty", 0.0)),
    }


def run(*, model: Captioner, quick: bool = False) -> Iterator[Row]:
    """A row for each batch and precision. Errors: Unequal when PyTorch finds other captions."""
    torch = load("torch")
    bundle, lang = model.bundle, model.languages[0]
    features = np.concatenate([model.encoder(noise(8, model.size, seed)) for seed in range(PICTURES // 8)])
    vocabulary = bundle.vocabulary()
    words = np.flatnonzero(vocabulary.allowed(lang))
    sizes: dict[str, Any] = {"cell": bundle.meta["cell"], "layers": int(bundle.meta["layers"])}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
    ours = {name: Decoder(bundle.weights, **sizes, precision=name, words=words) for name in precisions}
    theirs = TorchCaptioner(torch, bundle.weights, **sizes, words=words, language=vocabulary.language_id(lang), end=END)
    limits = settings(bundle, lang)
    prompt = np.array([[vocabulary.language_id(lang)]])

    def search(decoder: Decoder, batch: npt.NDArray[np.float32]) -> list[tuple[Hypothesis, ...]]:
        prompts = np.repeat(prompt, len(batch), 0)
        return decoder.beam_search(batch, prompt=prompts, end=END, beam=BEAM, n_best=1, **limits)

    expected = theirs.beam_search(features, beam=BEAM, **limits)
    checked = {name: _check(name, search(decoder, features), expected) for name, decoder in ours.items()}
    before = torch.get_num_threads()
    for batch in BATCHES:
        part = np.ascontiguousarray(features[:batch])
        contestants: dict[str, Callable[[], object]] = {
            name: partial(search, decoder, part) for name, decoder in ours.items()
        }
        for threads in (1, 2):
            contestants[f"PyTorch, {threads} threads"] = _with_threads(torch, threads, theirs, part, limits)
        try:
            times = together(contestants, rounds=3 if quick else 9, seconds=12, rested=True)
        finally:
            torch.set_num_threads(before)
        others = [name for name in times if name not in ours]
        for name in ours:
            yield compare(
                "beam",
                f"beam {BEAM}, batch {batch}, {name}",
                {key: rounds for key, rounds in times.items() if key == name or key in others},
                ours=name,
                against=others,
                unit="ms a picture",
                scale=1e3 / batch,
                need=NEED,
                checked=checked[name],
            )


def _with_threads(
    torch: Any, threads: int, captioner: TorchCaptioner, part: npt.NDArray[np.float32], limits: dict[str, Any]
) -> Callable[[], object]:
    def run() -> object:
        torch.set_num_threads(threads)
        return captioner.beam_search(part, beam=BEAM, **limits)

    return run


def _check(name: str, found: list[tuple[Hypothesis, ...]], expected: list[tuple[list[int], float]]) -> str:
    mine = [each[0] for each in found]
    same = [each.tokens.tolist() == tokens for each, (tokens, _) in zip(mine, expected, strict=True)]
    apart = np.array([abs(each.log_prob - total) for each, (_, total) in zip(mine, expected, strict=True)])
    told = f"{sum(same)} of {len(same)} captions the same, log-probabilities {apart.mean():.1e} nats apart on average"
    equal = (
        float(np.mean(same)) >= SAME and float(apart[np.array(same)].max(initial=0)) <= TOLERANCE
        if name == "float32"
        else float(np.median(apart)) <= NEAR
    )
    return require(equal, f"beam, {name}", told)
