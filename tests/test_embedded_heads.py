"""The heads that come with recur stand on the trunk of the captioner that comes with it."""

from __future__ import annotations

import numpy as np
import pytest

import recur
from recur.hub import models

HEADS = [model for model in models() if model.task in ("detect", "classify")]


@pytest.mark.parametrize("model", HEADS, ids=lambda model: model.name)
def test_heads_fit_the_captioner_here(model: recur.hub.Model) -> None:
    loaded = recur.load(model.name, threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    if model.task == "detect":
        captioner = recur.load("captioner", threads=1)
        assert captioner._pair(loaded) is not None, "two passes where one would do"
        (caption,) = captioner(picture, detector=loaded, min_score=0.0)
        assert caption.objects == loaded(picture, min_score=0.0)[0].objects
    else:
        assert len(loaded(picture, top=3)[0].labels) == 3
    assert "Flickr" in loaded.bundle.card
    command = str(loaded.bundle.meta["training"]["command"])
    assert "/" not in command.replace("data/flickr8k", "").replace("zh=recipes/", "zh=")
