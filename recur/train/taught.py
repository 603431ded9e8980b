"""Features of an encoder that learns from people's sentences and from a teacher at once.

Captions alone teach a small CNN little about what is not in them, and a few thousand pictures are soon learned by
heart. While the encoder is fine-tuned it therefore goes on answering the teacher's questions about the same views
(knowledge distillation, Hinton et al. 2015): one forward pass, two losses. Early steps see smaller pictures, where most
can be learned at half the price.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.errors import RecurError
from recur.nn.vision import DistillationHead, Trunk
from recur.train.caption_data import ALL, Split, keep
from recur.train.checkpoint import StopRequest
from recur.train.teacher import TeacherCache, build_teacher_cache
from recur.train.team import device_of
from recur.train.trunk import distillation_loss, jitter_colours, make_batch, map_scale, total_loss

VIEWS = 4
LEAST_AREA = 0.65  # of a view: what the captions speak of has to be in it
TAUGHT_CAPTIONS = 2  # of a picture and language in one step
WHOLE_SHARE = 0.4  # how often the whole picture is shown rather than a crop
SMALL_SIDE, SMALL_SHARE = 160, 0.55  # side in pixels of the pictures of the first steps, and how many these are


class TaughtEncoder(nn.Module):
    """A trunk, and the head that guesses what the teacher sees. Pixels [B, 3, Y, X] to the trunk's map."""

    def __init__(self, trunk: Trunk, answers: TeacherCache) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = DistillationHead(trunk.channels, answers.maps.shape[2], answers.probabilities.shape[2])

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.trunk(pixels)
        return features


class TaughtFeatures:
    """Features [P, R, F] of views that the teacher was asked about; `lesson` is the loss of the last ones asked for.

    `progress`, 0 to 1, says how much of the course is over: the first steps see smaller pictures.
    """

    def __init__(self, answers: TeacherCache, encoder: TaughtEncoder) -> None:
        self.encoder = encoder
        self.answers = answers
        self.rows = np.flatnonzero(answers.readable)
        self.progress = 0.0
        self.lesson: Tensor | None = None
        self.scale = map_scale(answers, self.rows[:512])

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pictures as they are, [N, Y, X, 3]."""
        return self.answers.pixels[self.rows]

    def features(self, rows: NDArray[np.int64], rng: np.random.Generator | None, part: slice = ALL) -> Tensor:
        """[P, R, F] of `part` of pictures `rows`; `rng` draws view and colours, None means the picture as it is."""
        count = len(rows)
        chosen = np.zeros(count, np.int64)
        full = self.answers.pixels.shape[1]
        side = full
        if rng is not None:
            whole = rng.random(count) < WHOLE_SHARE
            chosen = np.where(whole, rng.integers(0, 2, count), rng.integers(2, self.answers.views.shape[1], count))
            side = min(SMALL_SIDE, full) if self.progress < SMALL_SHARE else full
        pixels, maps, probabilities = make_batch(self.answers, self.rows[rows[part]], chosen[part], side)
        colours = pixels.float() if rng is None else jitter_colours(pixels.float(), rng, count, part)
        device = device_of(self.encoder)
        with torch.set_grad_enabled(rng is not None and torch.is_grad_enabled()):
            grid = self.encoder(colours.to(device))
            self.lesson = None
            if rng is not None:
                guess, logits = self.encoder.head(grid)
                wanted = (wish.to(device) for wish in (maps, probabilities, self.scale))
                parts = distillation_loss(guess.float(), logits.float(), *wanted)
                self.lesson = total_loss(parts)
        cells: Tensor = grid.flatten(2).transpose(1, 2)
        return cells


def taught_features(
    split: Split, trunk: nn.Module, teacher: Path, cache: Path, *, stop: StopRequest
) -> tuple[Split, TaughtFeatures] | None:
    """The split without the pictures that cannot be read, and where its features come from; None when stopped before
    the teacher was asked about all of them.

    Errors: RecurError for an encoder that is not our own trunk, a file that is no teacher, a cache of other pictures.
    """
    if not isinstance(trunk, Trunk):
        raise RecurError(
            f"--teacher: the encoder is a {type(trunk).__name__}; expected a trunk trained by recur; leave it out"
        )
    answers = build_teacher_cache(split.paths, teacher, cache, views=VIEWS, least_area=LEAST_AREA, stop=stop)
    if not answers.complete:
        return None
    source = TaughtFeatures(answers, TaughtEncoder(trunk, answers))
    return keep(split, source.rows.tolist()), source
