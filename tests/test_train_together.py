"""All trainings on several processes: two give the weights of one, and one goes on where two were stopped."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("matplotlib")

import standin  # noqa: E402
from boxes import write_boxed, write_seeing_captioner  # noqa: E402
from test_answer import write_tasks  # noqa: E402
from test_sentiment import write_texts  # noqa: E402
from test_span import ask, write_squad  # noqa: E402
from test_translation import write_pairs  # noqa: E402
from together import TRAININGS, Training  # noqa: E402
from training import write_shapes, write_teacher  # noqa: E402

from recur.train import detect  # noqa: E402
from recur.train.checkpoint import load_checkpoint  # noqa: E402
from recur.train.finish import calibrate_bundle  # noqa: E402
from recur.train.quantize import quantize_bundle  # noqa: E402
from recur.train.team import Team  # noqa: E402

NAMES = sorted(TRAININGS)


def write_data(place: Path) -> None:
    """What the trainings read."""
    (place / "text.txt").write_text("the cat sat on the mat. 猫坐在垫子上。q\n" * 30, encoding="utf-8")
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
    random = np.random.default_rng(0)
    arrays = {}
    for number in range(8):
        labels = np.repeat(random.permutation(3), 6 + number)
        arrays[f"split{number % 4}/v{number}/scores"] = np.eye(3)[labels] + random.standard_normal((len(labels), 3))
        arrays[f"split{number % 4}/v{number}/labels"] = labels
    np.savez(place / "frames.npz", **arrays)
    write_boxed(place / "boxes")
    write_seeing_captioner(place / "captioner")
    write_shapes(place / "shapes", count=24)
    write_teacher(place / "teacher.onnx")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and what two processes made of it; `shown0`, `errors1` and so on are what they said."""
    place = tmp_path_factory.mktemp("together")
    write_data(place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # As the launcher would (test_train_team.py has that one itself), which is a third process that imports PyTorch.
    processes = []
    for rank in ("0", "1"):
        with (place / f"shown{rank}").open("w") as shown, (place / f"errors{rank}").open("w") as errors:
            command = [sys.executable, str(Path(__file__).with_name("together.py"))]
            own = {**environment, "RANK": rank}
            processes.append(subprocess.Popen(command, cwd=place, env=own, stdout=shown, stderr=errors))
    while any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):  # the other one would wait for it
            for process in processes:
                process.kill()
        time.sleep(0.05)
    assert not any(process.returncode for process in processes), (place / "errors0").read_text("utf-8")
    return place


def checkpoint(place: Path, name: str) -> Any:
    """The last one of a training."""
    folder = place / f"{name}.work" / "checkpoint"
    return load_checkpoint(folder if folder.exists() else place / f"{name}.checkpoint")


def weights(place: Path, name: str) -> dict[str, Any]:
    """All that it holds, float32 as it was trained; those of the graph that was written, where there is none."""
    if name.startswith("classify"):
        graph = onnx.load(place / name / "encoder.onnx").graph
        return {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
    models = checkpoint(place, name).models
    return {f"{model}.{key}": value for model, state in models.items() for key, value in state.items()}


def assert_near(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    for name in one:
        apart = np.abs(one[name].numpy() - other[name].numpy()).max()
        assert apart <= 1e-5 * max(1, np.abs(one[name].numpy()).max()), (name, apart)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_are_one_and_one_goes_on_for_two(name: str, place: Path) -> None:
    training = TRAININGS[name]
    training(f"{name}-alone", place)
    assert_near(weights(place, f"{name}-both"), weights(place, f"{name}-alone"))
    assert not (place / f"{name}-changed{training.out}").exists()
    if name != "classify":  # which begins to learn again
        before = checkpoint(place, f"{name}-changed")
        assert before.counters != checkpoint(place, f"{name}-both").counters
    training(f"{name}-changed", place, resume=True)
    assert_near(weights(place, f"{name}-changed"), weights(place, f"{name}-alone"))
    if training.batch is not None and not training.out:
        bundle = place / f"{name}-both" / "bundle.json"
        assert json.loads(bundle.read_text("utf-8"))["training"]["batch"] == training.batch


class Over(Exception):
    """The first epoch is."""


def first_epoch(training: Training, place: Path) -> dict[str, Any]:
    """What has learned by then, wherever it is."""
    learning: list[Any] = []
    settle, adams = Team.settle, {name: getattr(torch.optim, name) for name in ("Adam", "AdamW")}

    def settled(team: Team, network: Any) -> None:
        settle(team, network)
        learning.append(network)

    with ExitStack() as stack:
        for name, kind in adams.items():  # unfused: a kernel that the stand-in does not have
            unfused = lambda *given, kind=kind, **how: kind(*given, **{**how, "fused": False})  # noqa: E731
            stack.enter_context(patch.object(torch.optim, name, unfused))
        module = training.function.split(".")[0]
        after = training.after or f"{module}.save_checkpoint"
        stack.enter_context(patch(f"recur.train.{after}", side_effect=Over))
        stack.enter_context(patch.object(Team, "settle", settled))
        with pytest.raises(Over):
            training("device", place)
    return {name: value.detach().cpu() for name, value in learning[0].state_dict().items()}


# Not `span`: PyTorch's packed sequences, which it is trained with, ask for lengths on the processor, and the stand-in
# has no such operation.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "span"])
def test_on_a_device_of_its_own(name: str, place: Path) -> None:
    """Nothing is left in memory that a GPU would need, and the weights come out the same."""
    here = first_epoch(TRAININGS[name], place)
    shutil.rmtree(place / "device.work", ignore_errors=True)
    with standin.trained_there():
        there = first_epoch(TRAININGS[name], place)
    assert set(here) == set(there)
    for key, value in here.items():
        apart = np.abs(there[key].numpy() - value.numpy())
        assert apart.max() <= 1e-5 * max(1, np.abs(value.numpy()).max()), (key, apart.max())


def test_what_is_not_shared_out_is_done_by_the_first(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one reads nothing and writes nothing."""
    monkeypatch.setenv("RANK", "1")
    for again in (quantize_bundle, calibrate_bundle):
        again(model=tmp_path / "none", data=tmp_path / "none", out=tmp_path / "out")
    monkeypatch.setattr(detect, "gathered", lambda: nullcontext(Team(1, 2)))
    monkeypatch.setattr(detect, "trunk_of", lambda name: (None, None))  # as of a detector of `transformers`
    detect.train_detect(data=place / "boxes", encoder="theirs", out=tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_only_the_first_process_speaks(place: Path) -> None:
    assert (place / "shown1").read_text("utf-8") == (place / "errors1").read_text("utf-8") == ""
    shown, errors = (place / "shown0").read_text("utf-8"), (place / "errors0").read_text("utf-8")
    assert shown.count("dev BLEU") == 2 + 1  # epochs to the end, and until it was stopped
    assert errors.count("stopped (another process was)") == sum(name != "trunk" for name in NAMES)
    assert shown.count("stopped after step 1 of 2 (another process was)") == 1
