"""`language`: learning a text from nothing, beside a small GPT trained by nanoGPT's recipe for a CPU.

The recipe is run whole and timed. Then a recurrent network learns the same text, once in a sixth of that time and once
in all of it, from nothing each time; its rates follow the clock. All use the threads that PyTorch takes. What
counts is the mean surprise on the last tenth of the text, which none of them has seen; measuring it is not timed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recur.bench import small_gpt
from recur.bench.measure import Row, load
from recur.data.characters import Characters, dev_begins, read_text
from recur.errors import RecurError

HIDDEN, BATCH, LENGTH = 320, 32, 64
PARTS = (6, 1)  # the recurrent network gets a sixth of the recipe's time, then the whole
AIMS = {6: 1.88, 1: 1.52}  # nats a character on Tiny Shakespeare
RATES = {6: 0.01, 1: 0.006}  # a short course bears larger steps


def run(*, text: Path | None, quick: bool = False) -> Iterator[Row]:
    """A row for each share of the time. `quick`: a twentieth of the recipe, which says little."""
    if text is None:
        raise RecurError("no text to learn; expected one, such as Tiny Shakespeare; name it with --text FILE")
    torch = load("torch")
    training = load("recur.train.language")
    whole, _ = read_text(text)
    cut = dev_begins(len(whole))
    characters = Characters.build(whole)
    ids = torch.from_numpy(characters.encode(whole))
    if min(cut, len(ids) - cut) <= small_gpt.BLOCK:
        raise RecurError(f"{text}: {len(ids)} characters; expected some thousands to learn from; give a longer text")
    torch.manual_seed(1)
    gpt = small_gpt.make(torch, len(characters))
    begun = time.perf_counter()
    small_gpt.train(torch, gpt, ids[:cut], steps=small_gpt.STEPS // 20 if quick else small_gpt.STEPS)
    seconds = time.perf_counter() - begun
    theirs = small_gpt.nats(torch, gpt, ids[cut:])
    for part in PARTS:
        network, took, read = learn(torch, training, ids[:cut], len(characters), seconds / part, RATES[part])
        ours = training.dev_loss(network, ids[cut:])
        yield Row(
            "language",
            f"{text.name} in {'all' if part == 1 else f'a {part}th'} of the time",
            "s",
            {"LSTM": took, "GPT": seconds},
            "LSTM",
            seconds / took if ours <= theirs else None,
            float(part),
            f"{ours:.4f} nats a character on the last tenth (aim: {AIMS[part]}), the GPT's {theirs:.4f}",
            {
                "lstm_nats": ours,
                "gpt_nats": theirs,
                "aim_nats": AIMS[part],
                "lstm_parameters": float(sum(p.numel() for p in network.parameters())),
                "gpt_parameters": float(sum(p.numel() for p in gpt.parameters())),
                "passes": read / cut,
                "threads": float(torch.get_num_threads()),
            },
            "GPT",
        )


def learn(torch: Any, training: Any, text: Any, vocabulary: int, seconds: float, rate: float) -> tuple[Any, float, int]:
    """A network that has learned text [T] for so many seconds, how many it took, and the characters it read."""
    torch.manual_seed(1)
    network = training.LanguageNetwork(vocabulary=vocabulary, hidden=HIDDEN, layers=1, dropout=0.0)
    optimizers = training.make_optimizers(network, rate)
    rows = max(1, min(BATCH, len(text) // (LENGTH + 1)))
    random = np.random.default_rng(1)
    step = read = 0
    begun = time.perf_counter()
    while True:
        pieces = training.rows_of(text, rows, int(random.integers(len(text))))
        state = network.first_state(rows)
        for at in range(0, len(pieces) - 1, LENGTH):
            share = (time.perf_counter() - begun) / seconds
            if share >= 1:
                return network, time.perf_counter() - begun, read
            course = max(step + 1, round(step / share)) if step else 1000
            training.set_rates(optimizers, rate, step, course)
            piece = pieces[at : at + LENGTH + 1]
            state = training.update(network, optimizers, piece, state)[1]
            step, read = step + 1, read + rows * (len(piece) - 1)
