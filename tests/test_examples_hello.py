"""The first lesson: its gradients are right, it learns to spell, and the engine computes the same numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).parent.parent / "examples" / "hello.py"


@pytest.fixture
def lesson() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hello", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_gradient_is_right_before_and_after_training(lesson: ModuleType) -> None:
    weights = lesson.make_weights(seed=3)
    assert lesson.check_gradient(weights) < 1e-8
    lesson.train(weights, steps=200)
    assert lesson.check_gradient(weights) < 1e-8


def test_a_wrong_gradient_is_noticed(lesson: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = lesson.backward

    def without_memory(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**right(weights), "W_hh": np.zeros((lesson.HIDDEN, lesson.HIDDEN))}

    monkeypatch.setattr(lesson, "backward", without_memory)
    assert lesson.check_gradient(lesson.make_weights()) > 1e-4


def test_the_lesson_ends_with_hello_and_the_engine_agrees(
    lesson: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson.main()
    printed = capsys.readouterr().out
    assert "spells 'hello'" in printed
    weights = lesson.make_weights()
    lesson.train(weights)
    assert lesson.spell(weights) == "hello"
    hidden = np.stack(lesson.forward(weights)[1][1:])
    assert np.abs(lesson.engine_hidden(weights) - hidden).max() < 1e-12
