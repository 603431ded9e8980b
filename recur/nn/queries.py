"""Detectors of `transformers` (DETR, RT-DETR, D-FINE and their kind) as something to stand on.

Each of their queries has a state and a box. The states of the surest ones are the regions that a captioner attends to
(bottom-up attention, Anderson et al. 2018); a new linear layer on all of them makes a detector of other classes.

B pictures, Q queries, D numbers of a state, R regions, N classes; boxes are (x0, y0, x1, y1) in shares of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

MOST_REGIONS = 36  # of a picture; Anderson et al. 2018 have 36 or 10 to 100


class HuggingFaceRegions(nn.Module):
    """Pixels [B, 3, Y, X] in 0..255 to the states of the R surest queries, [B, D, R, 1]."""

    def __init__(self, model: nn.Module, *, scale: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States [B, Q, D], boxes [B, Q, 4], and how sure each is that something is there, [B, Q]."""
        mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
        found: Any = self.model(pixel_values=(pixels * self.scale - mean) / std)
        config: Any = self.model.config
        if found.logits.shape[-1] == config.num_labels + 1:  # DETR: the last class is "nothing"
            sure = found.logits.softmax(-1)[..., :-1].amax(-1)
        else:
            sure = found.logits.sigmoid().amax(-1)
        x, y, w, h = found.pred_boxes.unbind(-1)
        boxes = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
        return found.last_hidden_state, boxes, sure

    def regions(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The states [B, D, R, 1] and boxes [B, R, 4] of the R surest queries."""
        states, boxes, sure = self.look(pixels)
        best = sure.topk(min(MOST_REGIONS, sure.shape[1]), 1).indices[..., None]
        chosen = states.gather(1, best.expand(-1, -1, states.shape[2]))
        return chosen.transpose(1, 2)[..., None], boxes.gather(1, best.expand(-1, -1, 4))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.regions(pixels)[0]

    def both(self) -> nn.Module:
        """A module that gives features and regions."""
        return _Both(self)


class _Both(nn.Module):
    def __init__(self, eye: HuggingFaceRegions) -> None:
        super().__init__()
        self.eye = eye

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.eye.regions(pixels)


class QueryDetector(nn.Module):
    """Pixels [B, 3, Y, X] in 0..255 to scores [B, Q, N], after the sigmoid, and boxes [B, Q, 4]."""

    def __init__(self, eye: HuggingFaceRegions, head: nn.Linear) -> None:
        super().__init__()
        self.eye, self.head = eye, head

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        states, boxes, _ = self.eye.look(pixels)
        return self.head(states).sigmoid(), boxes
