"""What a training does to its network, epoch by epoch, and the page that shows it.

How far the loss is felt back in time: the gradient norm by steps shows it vanish or explode (Bengio et al. 1994;
Pascanu et al. 2013). How large a step is: the norm of an update against that of the weights, about a thousandth where
a rate is right. Both cost less than a step an epoch, and nothing is drawn at random: a training is not changed by it.

T characters, B rows.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.data.characters import UNKNOWN
from recur.explain.page import whole_page
from recur.nn.language import LanguageNetwork
from recur.train.plot import plot_gradients, plot_losses, plot_ratios

Plot = Callable[[Sequence[Mapping[str, Any]]], bytes]

STEPS = 100  # how far back the gradient is followed
ROWS = 8  # texts over which it is followed
LARGEST = 4  # matrices of an encoder that is trained along


def gradients_back(network: LanguageNetwork, piece: Tensor) -> list[float]:
    """The norm of the gradient of the loss of the last of piece [T + 1, B], with regard to the states that the steps
    before it handed on: the first number one step back, the last T - 1 steps back. Dropout is off.
    """
    trained = network.training
    network.eval()
    state = network.first_state(piece.shape[1])
    handed: list[list[Tensor]] = []
    for at in range(len(piece) - 2):
        _, state = network(piece[at : at + 1], state)
        handed.append([part for layer in state.layers for part in layer])
    scores, _ = network(piece[-2:-1], state)
    loss = functional.cross_entropy(scores[0], piece[-1], ignore_index=UNKNOWN, reduction="sum")
    network.train(trained)
    return norms_back(loss, handed, piece.shape[1])


def norms_back(loss: Tensor, handed: Sequence[Sequence[Tensor]], rows: int) -> list[float]:
    """The norm of the gradient of `loss`, summed over `rows`, with regard to what each step handed on: a row's share,
    the last step first. The gradients of the weights are left as they are.
    """
    if not handed:
        return []
    found = iter(torch.autograd.grad(loss, [part for parts in handed for part in parts], allow_unused=True))
    norms = []
    for parts in handed:
        squares = [float((each**2).sum()) for each in (next(found) for _ in parts) if each is not None]
        norms.append(sum(squares) ** 0.5 / rows)
    return norms[::-1]


def weights_of(network: nn.Module, encoder: nn.Module | None = None) -> dict[str, Tensor]:
    """A copy of the matrices, to be compared after a step; of the encoder, if it learns, of the `LARGEST`."""
    return {name: value.clone() for name, value in _matrices(network, encoder).items()}


def update_ratios(
    before: Mapping[str, Tensor], network: nn.Module, encoder: nn.Module | None = None
) -> dict[str, float]:
    """Of each matrix the norm of what a step changed against that of what it was; those of zeros are left out."""
    ratios = {}
    for name, value in _matrices(network, encoder).items():
        norm = float(before[name].norm())
        if norm > 0:
            ratios[name] = float((value - before[name]).norm()) / norm
    return ratios


def _matrices(network: nn.Module, encoder: nn.Module | None) -> dict[str, Tensor]:
    found = {name: value.detach() for name, value in network.named_parameters() if value.ndim > 1}
    if encoder is not None:
        eye = [(f"encoder.{name}", value.detach()) for name, value in encoder.named_parameters() if value.ndim > 1]
        found |= dict(sorted(eye, key=lambda each: -each[1].numel())[:LARGEST])
    return found


def render_training(
    name: str,
    log: Sequence[Mapping[str, Any]],
    watched: Sequence[Mapping[str, Any]],
    *,
    title: str = "Loss by epoch",
    plot: Plot = plot_losses,
    rows: Sequence[Mapping[str, Any]] | None = None,
    of: str = "one character's loss",
) -> str:
    """The training page, complete in itself: the loss, the gradient by steps back, and how large the steps were.

    `title` and `plot` are of the figure of the log, `rows` its table (the log itself when left out); `of` says of what
    the gradient is.
    """
    figures = [(title, plot(log), _table(log if rows is None else rows))]
    if watched and watched[-1]["gradients"]:
        back = [{**_when(each), **_some(each["gradients"])} for each in watched]
        figures.append((f"Gradient of {of}, by how many steps it has come back", plot_gradients(watched), _table(back)))
    if watched and watched[-1]["ratios"]:
        sizes = [{**_when(each), **each["ratios"]} for each in watched]
        figures.append(("Size of an update against the weights", plot_ratios(watched), _table(sizes)))
    articles = "\n".join(
        f'<article class="words"><h2>{html.escape(heading)}</h2>'
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{html.escape(heading)}">'
        f'<details><summary>Table</summary><div class="scroll">{table}</div></details></article>'
        for heading, png, table in figures
    )
    return whole_page("en", f"{name} · training", f"How {name} was trained", articles, "Written by recur", "")


def _when(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("epoch", "phase") if name in row}


def _some(norms: Sequence[float]) -> dict[str, float]:
    some = sorted({each for each in (1, 2, 5, 10, 20, 50, 99) if each < len(norms)} | {len(norms)})
    return {f"{back} back": norms[back - 1] for back in some}


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    every = list(rows)
    names = list(dict.fromkeys(name for row in every for name in row))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(name, ''))}</td>" for name in names) + "</tr>" for row in every
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: float | str) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:.4g}"
