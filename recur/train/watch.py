"""What a training does to its network, epoch by epoch, and the page that shows it.

How far the loss is felt back in time: the gradient norm by steps shows it vanish or explode (Bengio et al. 1994;
Pascanu et al. 2013). How large a step is: the norm of an update against that of the weights, about a thousandth where
a rate is right. Both cost less than a step an epoch, and nothing is drawn at random: a training is not changed by it.

T characters, B rows.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.data.characters import UNKNOWN
from recur.explain.page import whole_page
from recur.nn.language import LanguageNetwork
from recur.train.plot import plot_gradients, plot_losses, plot_ratios

STEPS = 100  # how far back the gradient is followed
ROWS = 8  # texts over which it is followed


def gradients_back(network: LanguageNetwork, piece: Tensor) -> list[float]:
    """The norm of the gradient of the loss of the last of piece [T + 1, B], with regard to the states that the steps
    before it handed on: the first number one step back, the last T - 1 steps back. Dropout is off.
    """
    trained = network.training
    network.eval()
    state = network.first_state(piece.shape[1])
    states: list[Tensor] = []
    sizes = []
    for at in range(len(piece) - 2):
        _, state = network(piece[at : at + 1], state)
        parts = [part for layer in state.layers for part in layer]
        states += parts
        sizes.append(len(parts))
    scores, _ = network(piece[-2:-1], state)
    loss = functional.cross_entropy(scores[0], piece[-1], ignore_index=UNKNOWN, reduction="sum")
    found = torch.autograd.grad(loss, states, allow_unused=True) if states else ()
    network.train(trained)
    norms = []
    at = 0
    for size in sizes:
        squares = [float((each**2).sum()) for each in found[at : at + size] if each is not None]
        norms.append(sum(squares) ** 0.5 / piece.shape[1])
        at += size
    return norms[::-1]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights, to be compared after a step."""
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def update_ratios(before: Mapping[str, Tensor], network: nn.Module) -> dict[str, float]:
    """Of each matrix the norm of what a step changed against that of what it was; those of zeros are left out."""
    ratios = {}
    for name, value in network.named_parameters():
        norm = float(before[name].norm())
        if value.ndim > 1 and norm > 0:
            ratios[name] = float((value.detach() - before[name]).norm()) / norm
    return ratios


def render_training(name: str, log: Sequence[Mapping[str, Any]], watched: Sequence[Mapping[str, Any]]) -> str:
    """The training page, complete in itself: the loss, the gradient by steps back, and how large the steps were."""
    figures = [("Loss by epoch", plot_losses(log), _table(log))]
    if watched and watched[-1]["gradients"]:
        rows = [{"epoch": each["epoch"], **_some(each["gradients"])} for each in watched]
        title = "Gradient of one character's loss, by how many steps it has come back"
        figures.append((title, plot_gradients(watched), _table(rows)))
    if watched and watched[-1]["ratios"]:
        rows = [{"epoch": each["epoch"], **each["ratios"]} for each in watched]
        figures.append(("Size of an update against the weights", plot_ratios(watched), _table(rows)))
    articles = "\n".join(
        f'<article class="words"><h2>{html.escape(title)}</h2>'
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{html.escape(title)}">'
        f'<details><summary>Table</summary><div class="scroll">{rows}</div></details></article>'
        for title, png, rows in figures
    )
    return whole_page("en", f"{name} · training", f"How {name} was trained", articles, "Written by recur", "")


def _some(norms: Sequence[float]) -> dict[str, float]:
    return {f"{back} back": norms[back - 1] for back in (1, 2, 5, 10, 20, 50, 99) if back <= len(norms)}


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    every = list(rows)
    names = list(dict.fromkeys(name for row in every for name in row))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{row[name]:.4g}</td>" if name in row else "<td></td>" for name in names) + "</tr>"
        for row in every
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
