"""The five shapes: one recurrent stack, five ways to put an encoder before it and a head after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lesson import options, table, write
from torch import Tensor, nn

from recur.nn.stack import Stack

HIDDEN = 48
PAGE = """\
# The five shapes

A recurrent network is one function applied at every step with the same weights. What differs from task to task is only
where inputs go in and where outputs come out. Each class below is a whole network of one shape on the same `Stack`;
each is taught for some seconds and measured on examples that it has not seen.

{table}

{code}

The tasks are toys, so that each runs in seconds; the shapes are those of the real ones: photographs to labels (one to
one), photographs to sentences (one to many, `recur caption`), reviews to their tone (many to one), sentences to
sentences in another language (many to many, encoder and decoder), frames of a film to labels, or characters to the
characters that follow them (many to many, at every step; `recur generate`).
"""


# one to one: no sequence at all; a recurrent network of a single step is an ordinary one
class OneToOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack, self.head = Stack("rnn", 9, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, picture: Tensor) -> Tensor:  # [B, 9] -> [B, 2]
        hidden, _ = self.stack.scan(picture[None])
        scores: Tensor = self.head(hidden[0])
        return scores


# one to many: the input starts the state; then every output is the next input
class OneToMany(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.letters = nn.Linear(10, HIDDEN), nn.Embedding(27, HIDDEN)
        self.stack, self.head = Stack("gru", HIDDEN, HIDDEN), nn.Linear(HIDDEN, 27)

    def forward(self, digit: Tensor, before: Tensor) -> Tensor:  # [B, 10], letters so far [T, B] -> [1 + T, B, 27]
        hidden, _ = self.stack.scan(torch.cat([self.start(digit)[None], self.letters(before)]))
        scores: Tensor = self.head(hidden)
        return scores


# many to one: only the last state is asked
class ManyToOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack, self.head = Stack("lstm", 2, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, brackets: Tensor, lengths: Tensor) -> Tensor:  # [T, B, 2], [B] -> [B, 2]
        _, state = self.stack.scan(brackets, lengths=lengths)
        scores: Tensor = self.head(state.layers[-1][0])
        return scores


# many to many, encoder and decoder: the state in which one sequence ends is the one in which the other begins
class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters, self.head = nn.Embedding(9, HIDDEN), nn.Linear(HIDDEN, 9)
        self.encoder, self.decoder = Stack("gru", HIDDEN, HIDDEN), Stack("gru", HIDDEN, HIDDEN)

    def forward(self, source: Tensor, before: Tensor) -> Tensor:  # [S, B], [T, B] -> [T, B, 9]
        _, state = self.encoder.scan(self.letters(source))
        hidden, _ = self.decoder.scan(self.letters(before), state)
        scores: Tensor = self.head(hidden)
        return scores


# many to many, at every step: an output for every input
class EveryStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack, self.head = Stack("lstm", 2, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, bits: Tensor) -> Tensor:  # [T, B, 2] -> [T, B, 2]
        hidden, _ = self.stack.scan(bits)
        scores: Tensor = self.head(hidden)
        return scores


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Batch = tuple[tuple[Tensor, ...], Tensor]  # what the network is given, and what it should say (-1: nothing)


def lit(rows: int) -> Batch:
    """3 x 3 pixels; is there a lit row?"""
    pixels = (torch.rand(rows, 3, 3) < 0.55).float()
    return (pixels.flatten(1),), (pixels.sum(2) == 3).any(1).long()


def spell(rows: int) -> Batch:
    """A digit, drawn with some noise; its English name, and 0 for the end."""
    digits = torch.randint(10, (rows,))
    letters = torch.full((6, rows), -1)
    for row, digit in enumerate(digits.tolist()):
        name = [ord(letter) - 96 for letter in NUMBERS[digit]] + [0]
        letters[: len(name), row] = torch.tensor(name)
    seen = nn.functional.one_hot(digits, 10) + 0.2 * torch.randn(rows, 10)
    return (seen, letters[:-1].clamp_min(0)), letters


def balance(rows: int) -> Batch:
    """Brackets of up to 20 steps; do they close in order? Half of those that do are spoiled by turning one round."""
    lengths = 2 * torch.randint(1, 11, (rows,))
    signs = torch.zeros(20, rows)
    for row, length in enumerate(lengths.tolist()):
        depth = 0
        for t in range(length):
            opens = depth == 0 or (depth < length - t and bool(torch.rand(()) < 0.5))
            depth += 1 if opens else -1
            signs[t, row] = 1 if opens else -1
        if torch.rand(()) < 0.5:
            signs[int(torch.randint(length, ())), row] *= -1
    total, lowest = signs.sum(0), signs.cumsum(0).min(0).values
    return (torch.stack([signs == 1, signs == -1], -1).float(), lengths), ((total == 0) & (lowest >= 0)).long()


def turn(rows: int) -> Batch:
    """Six letters of eight; the same backwards (0 begins)."""
    letters = torch.randint(1, 9, (6, rows))
    wanted = letters.flip(0)
    return (letters, torch.cat([torch.zeros(1, rows, dtype=torch.long), wanted[:-1]])), wanted


def parity(rows: int) -> Batch:
    """24 bits; at each, is the number of ones so far odd?"""
    bits = torch.randint(2, (24, rows))
    return (nn.functional.one_hot(bits, 2).float(),), bits.cumsum(0) % 2


SHAPES: dict[str, tuple[str, type[nn.Module], Callable[[int], Batch]]] = {
    "one to one": ("3 x 3 pixels: is a row lit?", OneToOne, lit),
    "one to many": ("a digit: its name, letter by letter", OneToMany, spell),
    "many to one": ("brackets: are they balanced?", ManyToOne, balance),
    "many to many, encoder and decoder": ("six letters: the same backwards", EncoderDecoder, turn),
    "many to many, every step": ("bits: is the count of ones odd?", EveryStep, parity),
}


def teach(kind: type[nn.Module], make: Callable[[int], Batch], updates: int) -> float:
    """Teach a network, and the share of right outputs on new examples."""
    torch.manual_seed(1)
    network = kind()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(updates):
        given, wanted = make(64)
        loss = nn.functional.cross_entropy(network(*given).flatten(0, -2), wanted.flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        given, wanted = make(500)
        right = network(*given).argmax(-1)[wanted >= 0] == wanted[wanted >= 0]
    return float(right.float().mean())


def classes() -> str:
    """The five classes of this file, as they stand here."""
    source = Path(__file__).read_text(encoding="utf-8")
    start, stop = source.index("# one to one:"), source.index("NUMBERS = ")
    return f"```python\n{source[start:stop].rstrip()}\n```"


def main(out: Path, *, quick: bool = False) -> dict[str, float]:
    """Teach all five, write the page; the share of right outputs of each."""
    found: dict[str, float] = {}
    rows: list[tuple[object, ...]] = []
    for name, (task, kind, make) in SHAPES.items():
        updates = 5 if quick else 2000 if kind is OneToOne else 400
        found[name] = teach(kind, make, updates)
        rows.append((name, task, updates, f"{100 * found[name]:.1f} %"))
    page = PAGE.format(table=table(("shape", "toy task", "updates", "right"), rows), code=classes())
    write(out, "shapes", page)
    return found


if __name__ == "__main__":
    given = options(__doc__ or "", text=False)
    main(given.out, quick=given.quick)
