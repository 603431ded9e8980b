"""All trainings on several processes: two give the weights of one, and one goes on where two were stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

from test_answer import write_tasks  # noqa: E402
from test_sentiment import write_texts  # noqa: E402
from test_span import ask, write_squad  # noqa: E402
from test_translation import write_pairs  # noqa: E402
from together import TRAININGS  # noqa: E402

from recur.train.checkpoint import load_checkpoint  # noqa: E402

NAMES = sorted(TRAININGS)


def write_data(place: Path) -> None:
    """What the trainings read."""
    (place / "text.txt").write_text("the cat sat on the mat. 猫坐在垫子上。q\n" * 60, encoding="utf-8")
    (place / "pairs").mkdir()
    write_pairs(place / "pairs")
    write_texts(place)
    write_tasks(place / "tasks")
    paragraphs = []
    for number in range(60):
        words = f"alpha beta code{number} gamma delta epsilon" + " zeta" * (number % 5)
        at = words.index("code")
        paragraphs.append((words, [ask(f"What code has {number}?", words[at:].split()[0], at)]))
    write_squad(place / "squad.json", paragraphs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and what two processes made of it; `shown` and `errors` are what they said."""
    place = tmp_path_factory.mktemp("together")
    write_data(place)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [*launcher, str(Path(__file__).with_name("together.py"))],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    (place / "shown").write_text(process.stdout, encoding="utf-8")
    (place / "errors").write_text(process.stderr, encoding="utf-8")
    return place


def checkpoint(place: Path, name: str) -> Any:
    """The last one of a training."""
    folder = place / f"{name}.work" / "checkpoint"
    return load_checkpoint(folder if folder.exists() else place / f"{name}.checkpoint")


def weights(place: Path, name: str) -> dict[str, Any]:
    """All that it holds, float32 as it was trained."""
    models = checkpoint(place, name).models
    return {f"{model}.{key}": value for model, state in models.items() for key, value in state.items()}


def assert_near(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    for name in one:
        apart = np.abs(one[name].numpy() - other[name].numpy())
        assert apart.max() <= 1e-5, (name, apart.max())


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one_and_one_goes_on_for_two(name: str, place: Path) -> None:
    training = TRAININGS[name]
    training(f"{name}-alone", place)
    assert_near(weights(place, f"{name}-both"), weights(place, f"{name}-alone"))
    assert not (place / f"{name}-changed{training.out}").exists()
    before = checkpoint(place, f"{name}-changed")
    assert before.counters != checkpoint(place, f"{name}-both").counters
    training(f"{name}-changed", place, resume=True)
    assert_near(weights(place, f"{name}-changed"), weights(place, f"{name}-alone"))
    if training.batch is not None:
        bundle = place / f"{name}-both" / "bundle.json"
        assert json.loads(bundle.read_text("utf-8"))["training"]["batch"] == training.batch
