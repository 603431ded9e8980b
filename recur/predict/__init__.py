"""From a bundle to results: one file a task. Nothing here imports torch."""

from __future__ import annotations

from recur.predict.caption import Captioner

PREDICTORS = {"caption": Captioner}  # task -> what predicts it
