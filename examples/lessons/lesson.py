"""What the lessons share: the text they learn from, a model on top of a `Stack`, pages and pictures.

Every lesson is a script that measures, draws and writes its page:

    python examples/lessons/tanh.py --text FILE --out docs/lessons
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from recur.data.characters import Characters, dev_begins, read_text
from recur.files import write_atomically
from recur.nn.stack import Stack
from recur.nn.state import State

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008


@dataclass(frozen=True)
class Text:
    """A text as ids, and its last tenth, which nobody learns from."""

    characters: Characters
    train: Tensor
    dev: Tensor

    @classmethod
    def read(cls, path: Path, most: int) -> Text:
        """The first `most` characters of a file."""
        whole = read_text(path)[0][:most]
        characters = Characters.build(whole)
        ids = torch.from_numpy(characters.encode(whole))
        cut = dev_begins(len(ids))
        return cls(characters, ids[:cut], ids[cut:])


class CharacterModel(nn.Module):
    """Embedding, stack, head: the whole of a recurrent language model."""

    def __init__(self, cell: str, vocabulary: int, hidden: int, embedding: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.stack = Stack(cell, embedding, hidden)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, Tensor, State]:
        """tokens [T, B] -> scores [T, B, V], hidden states [T, B, H], the last state."""
        hidden, after = self.stack.scan(self.embedding(tokens), state)
        return self.head(hidden), hidden, after


def rows_of(ids: Tensor, rows: int) -> Tensor:
    """[T, B]: a text in rows of equal length, which are read side by side."""
    each = len(ids) // rows
    return ids[: rows * each].view(rows, each).t().contiguous()


def learn(
    model: CharacterModel,
    text: Tensor,
    *,
    updates: int,
    rows: int = 32,
    length: int = 50,
    rate: float = 2e-3,
    clip: float = 1.0,
    watch: Callable[[int, float, Tensor], None] | None = None,
) -> None:
    """Truncated backpropagation through time with Adam; `watch` is told the step, its loss and its hidden states."""
    pieces = rows_of(text, max(1, min(rows, len(text) // (length + 1))))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    state: State | None = None
    at = 0
    for step in range(updates):
        if at + 1 >= len(pieces):
            at, state = 0, None
        piece = pieces[at : at + length + 1]
        scores, hidden, after = model(piece[:-1], state)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), piece[1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        state, at = after.detach(), at + length
        if watch is not None:
            watch(step, float(loss.detach()), hidden.detach())


@torch.no_grad()
def nats(model: CharacterModel, text: Tensor, rows: int = 10) -> float:
    """Mean surprise a character."""
    pieces = rows_of(text, rows)
    scores, _, _ = model(pieces[:-1])
    return float(nn.functional.cross_entropy(scores.flatten(0, 1), pieces[1:].flatten()))


def figure(width: float, height: float, columns: int) -> tuple[Figure, Any]:
    """A figure with so many plots side by side; inches."""
    made = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(made)
    plots = made.subplots(1, columns, squeeze=False)[0]
    for plot in plots:
        plot.grid(color="#eeeeee")
        plot.set_axisbelow(True)
        plot.spines[["top", "right"]].set_visible(False)
    return made, plots


def write(out: Path, name: str, page: str, drawn: Figure | None = None) -> None:
    """The page NAME.md and its picture NAME.png. The same numbers give the same bytes."""
    note = f"\nMeasured and written by `examples/lessons/{name}.py`; every figure on this page comes from that run.\n"
    write_atomically(out / f"{name}.md", page.rstrip() + "\n" + note)
    if drawn is not None:
        file = io.BytesIO()
        drawn.savefig(file, format="png", metadata={"Software": None})
        write_atomically(out / f"{name}.png", file.getvalue())


def table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def options(description: str, *, text: bool = True) -> argparse.Namespace:
    """The command line of a lesson."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    if text:
        parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a text of 200,000 characters")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the page is written")
    parser.add_argument("--quick", action="store_true", help="a few updates: to see that it runs")
    return parser.parse_args()
