"""From a bundle to results: one file a task. Nothing here imports torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

# task -> (module, class) of what predicts it; imported when a model of that task is loaded
PREDICTORS = {
    "caption": ("recur.predict.caption", "Captioner"),
    "sentiment": ("recur.predict.sentiment", "SentimentClassifier"),
    "language": ("recur.predict.language", "LanguageModel"),
    "classify": ("recur.predict.classify", "Classifier"),
    "detect": ("recur.predict.detect", "Detector"),
    "translate": ("recur.predict.translation", "Translator"),
    "frames": ("recur.predict.frames", "FrameLabeller"),
    "answer": ("recur.predict.answer", "Reader"),
    "span": ("recur.predict.span", "SpanReader"),
}


def predictor(task: str) -> Callable[..., Any]:
    """The class that predicts `task`: called with a bundle and `threads`. Errors: KeyError for a task without one."""
    module, name = PREDICTORS[task]
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
