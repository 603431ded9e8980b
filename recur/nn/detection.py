"""The detection head: where on the trunk's maps is which object. One stage, no anchor boxes.

The maps of stride 8, 16 and 32 are brought together from the coarse to the fine (feature pyramid, Lin et al. 2017);
at every cell of each, one score a class and the distances to the four sides of a box are read (FCOS, Tian et al. 2019).
Which cells answer for which object is decided anew at every step by how well they already do, score and overlap
together (task-aligned assignment: TOOD, Feng et al. 2021); boxes learn by generalised IoU (Rezatofighi et al. 2019).

B pictures, M objects of a picture, N classes, A = sum of gy * gx cells of the three levels; boxes are (x0, y0, x1, y1),
as shares of the picture's width and height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from recur.nn.vision import Trunk

STRIDES = (8, 16, 32)
PRIOR = 0.01  # score of every class before training: nearly all cells are background (Lin et al. 2017, focal loss)
CANDIDATES = 9  # cells that may answer for one object
SCORE_POWER, OVERLAP_POWER = 0.5, 4.0  # of the alignment; TOOD has 1 and 6, for scores that start higher
BOX_WEIGHT = 2.0
TINY = 1e-7


def stage_maps(trunk: Trunk, pixels: Tensor) -> tuple[Tensor, ...]:
    """The maps of stride 8, 16 and 32 [B, C, gy, gx] of pixels [B, 3, Y, X]; the last are the trunk's features."""
    seen: dict[int, Tensor] = {}
    ends = stage_ends(trunk)
    x = trunk.start(pixels)
    for place, layer in enumerate(trunk.layers):
        x = layer(x)
        if place in ends:
            seen[place] = x
    return tuple(seen[place] for place in ends)


def stage_ends(trunk: Trunk) -> tuple[int, ...]:
    """The places in `trunk.layers` after which the maps of `STRIDES` are there."""
    ends: list[int] = []
    place = -1
    for stage, depth in enumerate(trunk.depths):
        place += depth + (stage > 0)
        ends.append(place)
    return tuple(ends[-len(STRIDES) :])


def squareplus(x: Tensor) -> Tensor:
    """A smooth positive number without exponentials (Barron 2021)."""
    return (x + (x.square() + 1).sqrt()) / 2


class Joint(nn.Module):
    """Two 3x3 convolutions with a residual connection, as in the trunk; biases, because it is small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.conv2(functional.relu(self.conv1(x))))


class Level(nn.Module):
    """One map of the pyramid: what comes from the trunk, what comes from the coarser level, and the answers."""

    def __init__(self, channels: int, width: int, above: int | None, classes: int) -> None:
        super().__init__()
        self.inside = nn.Conv2d(channels, width, 1)
        self.above = None if above is None else nn.Conv2d(above, width, 1)
        self.joint = Joint(width)
        self.look = nn.Conv2d(width, width, 3, 1, 1)
        self.score = nn.Conv2d(width, classes, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        assert self.score.bias is not None
        assert self.sides.bias is not None
        nn.init.constant_(self.score.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.normal_(self.sides.weight, std=0.01)
        nn.init.constant_(self.sides.bias, 1.5)

    def merge(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """The level's own map [B, W, gy, gx]."""
        x = self.inside(x)
        if self.above is not None and coarser is not None:
            x = x + functional.interpolate(self.above(coarser), scale_factor=2.0, mode="nearest")
        out: Tensor = self.joint(functional.relu(x))
        return out

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid [B, N, gy * gx] and distances to the sides in cells [B, 4, gy * gx]."""
        x = functional.relu(self.look(x))
        return self.score(x).flatten(2), squareplus(self.sides(x)).flatten(2)


class DetectionHead(nn.Module):
    """Maps of stride 8, 16 and 32 to the scores [B, A, N] (before the sigmoid) and boxes [B, A, 4] of all cells."""

    def __init__(self, channels: Sequence[int], classes: int, widths: Sequence[int] = (48, 96, 128)) -> None:
        super().__init__()
        self.channels, self.classes, self.widths = tuple(channels), classes, tuple(widths)
        coarser = (*self.widths[1:], None)
        self.levels = nn.ModuleList(
            Level(inside, width, above, classes)
            for inside, width, above in zip(self.channels, self.widths, coarser, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        merged: list[Tensor] = []
        coarser = None
        for level, x in zip(reversed(self.levels), reversed(maps), strict=True):
            assert isinstance(level, Level)
            coarser = level.merge(x, coarser)
            merged.insert(0, coarser)
        answers = [level.answer(x) for level, x in zip(self.levels, merged, strict=True)]  # type: ignore[operator]
        scores = torch.cat([score for score, _ in answers], 2).transpose(1, 2)
        sides = torch.cat([side for _, side in answers], 2).transpose(1, 2)
        centres, cells = grid_of([(int(x.shape[2]), int(x.shape[3])) for x in maps])
        return scores, to_boxes(centres.to(sides.device), cells.to(sides.device), sides)


class Evidence(nn.Module):
    """What the whole picture says of each class, as a factor of the scores of its boxes.

    A score tells the boxes of one picture apart better than those of different pictures; whether a class is in the
    picture at all, the mean of the coarsest map tells better. The factor is (p / usual) ** power: p the probability
    that the class is there, from a linear map of that mean over its `spread` [C]; `usual` [N] the mean of p where the
    class is there; `power` [N] how much it counts, 0 for a class that it says nothing of.
    """

    spread: Tensor
    usual: Tensor
    power: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)
        self.register_buffer("spread", torch.ones(channels))
        self.register_buffer("usual", torch.ones(classes))
        self.register_buffer("power", torch.zeros(classes))

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        """The scores [B, A, N], after the sigmoid, with the factor; at most 1. `features` [B, C, gy, gx]."""
        there = self.linear(features.mean((2, 3)) / self.spread).sigmoid()
        out: Tensor = (scores * (there / self.usual).pow(self.power)[:, None]).clamp_max(1)
        return out


def grid_of(shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The centres (x, y) [A, 2] of all cells of all levels, and the sides (width, height) [A, 2] of each."""
    centres, cells = [], []
    for rows, columns in shapes:
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()], 1))
        cells.append(torch.tensor([[1 / columns, 1 / rows]]).expand(rows * columns, 2))
    return torch.cat(centres), torch.cat(cells)


def to_boxes(centres: Tensor, cells: Tensor, sides: Tensor) -> Tensor:
    """Boxes [B, A, 4] from distances to the left, upper, right and lower side [B, A, 4], in cells."""
    scaled = sides * cells.repeat(1, 2)
    return torch.cat([centres - scaled[..., :2], centres + scaled[..., 2:]], -1)


# ------------------------------------------------------------------------------------------------ matching and loss


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes [..., 4], broadcast against each other."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    iou = inner / (union + TINY)
    return iou, iou - (hull - union) / (hull + TINY)


def assign(scores: Tensor, boxes: Tensor, centres: Tensor, truth: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which object each cell answers for [A], -1 for none, and how strongly it should say so, in 0..1 [A].

    One picture: scores after the sigmoid [A, N], boxes [A, 4], centres [A, 2], objects [M, 4], their labels [M, N] as
    0 and 1: one box may have several. Only cells inside an object answer for it; for one so small that none is, the
    nearest does. A cell that several objects want answers for the one it overlaps most.
    """
    cells, objects = len(boxes), len(truth)
    owner = torch.full((cells,), -1, device=boxes.device)
    strength = torch.zeros(cells, device=boxes.device)
    if not objects:
        return owner, strength
    offset = torch.cat([centres[None] - truth[:, None, :2], truth[:, None, 2:] - centres[None]], -1)  # [M, A, 4]
    inside = offset.amin(-1) > 0
    lost = ~inside.any(1)
    if lost.any():
        middle = (truth[lost, :2] + truth[lost, 2:]) / 2
        nearest = (middle[:, None] - centres[None]).square().sum(-1).argmin(1)
        inside[lost.nonzero()[:, 0], nearest] = True
    iou = overlaps(boxes[None], truth[:, None])[0]
    alignment = _best_scores(scores, labels).pow(SCORE_POWER) * iou.pow(OVERLAP_POWER) * inside
    # Before the boxes have learned anything, all alignments are about 0: then cells near the middle answer.
    alignment = alignment + inside * TINY * (
        2 - (centres[None] - (truth[:, None, :2] + truth[:, None, 2:]) / 2).abs().sum(-1)
    )
    chosen = torch.zeros_like(inside)
    top = alignment.topk(min(CANDIDATES, cells), 1).indices
    chosen.scatter_(1, top, True)
    chosen &= inside
    wanted = torch.where(chosen, iou + TINY, iou.new_zeros(()))
    most, who = wanted.max(0)
    taken = most > 0
    owner[taken] = who[taken]
    # Each object's best cell is asked for the overlap that it has, the others for less in proportion.
    mine = torch.zeros_like(chosen)
    mine[who[taken], taken.nonzero()[:, 0]] = True
    alignment = alignment * mine
    scale = (iou * mine).amax(1) / (alignment.amax(1) + TINY * TINY)
    strength[taken] = (alignment * scale[:, None]).amax(0)[taken]
    return owner, strength


def _best_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """The greatest score [M, A] among each object's labels; label by label, because [M, A, N] would be large."""
    best = scores.new_zeros(len(labels), len(scores))
    for label in labels.any(0).nonzero()[:, 0].tolist():
        rows = labels[:, label] > 0
        best[rows] = torch.maximum(best[rows], scores[:, label][None])
    return best


def detection_loss(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor,
    truth: Sequence[tuple[Tensor, Tensor]],
    together: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The loss of a batch: `scores` [B, A, N] before the sigmoid, `boxes` [B, A, 4], `truth` (boxes [M, 4], labels
    [M, N]) of each picture.

    `classes`: cross-entropy with targets between 0 and 1 (how well the cell's box fits), summed over cells and divided
    by the sum of the targets; `boxes`: generalised IoU, weighted with the same targets. Where these are a part of the
    pictures of a step, `together` makes of their sum that of all.
    """
    targets = torch.zeros_like(scores)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    weight: list[Tensor] = []
    with torch.no_grad():
        sigmoid = scores.sigmoid()
        answers = [
            assign(sigmoid[row], boxes[row].detach(), centres, where, labels)
            for row, (where, labels) in enumerate(truth)
        ]
    for row, (owner, strength) in enumerate(answers):
        taken = owner >= 0
        where, labels = truth[row]
        targets[row, taken] = labels[owner[taken]] * strength[taken, None]
        found.append(boxes[row][taken])
        wanted.append(where[owner[taken]])
        weight.append(strength[taken])
    total = torch.cat(weight).sum()
    total = (total if together is None else together(total)).clamp_min(1.0)
    # A cell's error weighs as much as its score is wrong (quality focal loss, Li et al. 2020): most are background.
    bent = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    wrong = (targets - sigmoid).abs_()
    classes = (bent * wrong.mul_(wrong.sqrt()) * 2.0).sum() / total  # the square root is faster than a power of 1.5
    _, giou = overlaps(torch.cat(found), torch.cat(wanted))
    return {"classes": classes, "boxes": ((1 - giou) * torch.cat(weight)).sum() / total}


def total_loss(parts: dict[str, Tensor]) -> Tensor:
    """What `detection_loss` says, weighted and summed."""
    return parts["classes"] + BOX_WEIGHT * parts["boxes"]
