"""Several processes train one network: two give the weights of one with twice the batch; stopped, another number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import standin  # noqa: E402
from training import write_shapes, write_teacher, write_trunk  # noqa: E402

from recur.bundle import read_bundle  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.train import caption, phases  # noqa: E402
from recur.train.checkpoint import step_generator  # noqa: E402
from recur.train.team import Team, gathered  # noqa: E402

# Few steps: sums in another order differ in the last place, and Adam carries that on from step to step.
COURSE: dict[str, Any] = {"hidden": 16, "epochs": 2, "cider": 1, "quantize": False, "min_count": 1, "seed": 3}
pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a trunk and a teacher."""
    folder = tmp_path_factory.mktemp("team")
    write_shapes(folder / "data", count=24)
    write_trunk(folder / "trunk.onnx")
    write_teacher(folder / "teacher.onnx")
    return folder


def train(place: Path, out: str, **options: Any) -> None:
    caption.train_caption(
        data=place / "data", out=place / out, encoder=str(place / "trunk.onnx"), **{**COURSE, **options}
    )


@pytest.fixture(scope="module")
def alone(place: Path, undrawn: object) -> dict[str, Any]:
    """The weights of one process; 18 pictures in steps of 8 leave 2 for the last."""
    train(place, "alone", batch=8)
    return weights(place, "alone")


PROGRAM = """
import sys
from pathlib import Path
from recur.train import plot
from recur.train.caption import train_caption
plot._png = lambda figure: b"not drawn"
train_caption(data=Path("data"), out=Path(sys.argv[1]), encoder=sys.argv[2], batch=4, **{course!r})
"""


def start(place: Path, out: str) -> subprocess.Popen[str]:
    """Two processes by PyTorch's launcher, each with half of the pictures of a step."""
    (place / "program.py").write_text(PROGRAM.format(course=COURSE))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*launcher, "program.py", out, str(place / "trunk.onnx")],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(place: Path, out: str) -> dict[str, Any]:
    """Those of the last checkpoint, float32 as they were trained."""
    saved = torch.load(place / f"{out}.work" / "checkpoint" / "last.pt", weights_only=True)
    return {f"{model}.{name}": value for model, state in saved["models"].items() for name, value in state.items()}


def assert_near(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert set(one) == set(other)
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=0, atol=1e-5), (name, (one[name] - other[name]).abs().max())


def test_two_processes_are_one_with_twice_the_batch(place: Path, alone: dict[str, Any]) -> None:
    process = start(place, "both")
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_near(weights(place, "both"), alone)
    assert [line.split("  ")[0] for line in shown.splitlines()] == ["decoder 1/2", "decoder 2/2", "cider 1/1"]
    assert read_bundle(place / "both").meta["training"]["batch"] == 8
    losses = [
        [entry["loss"] for entry in read_bundle(place / out).meta["training"]["log"]] for out in ("both", "alone")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)  # of all the pictures, whoever had them


def test_stopped_and_resumed_by_another_number_of_processes(place: Path, alone: dict[str, Any]) -> None:
    process = start(place, "changed")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("decoder 1/2")
    process.send_signal(signal.SIGTERM)  # the launcher tells both of them, and they agree on a step
    process.communicate()
    assert not (place / "changed").exists()
    with pytest.raises(RecurError, match="batch was 8, now 4"):
        train(place, "changed", batch=4, resume=True)
    train(place, "changed", batch=8, resume=True)
    assert_near(weights(place, "changed"), alone)


class Caught(Exception):
    """A run that is not to begin."""


@pytest.mark.parametrize("kind", ["decoder", "joint", "taught", "cider"])
def test_the_gradients_of_the_parts_add_up(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: dict[str, Any] = {}

    def catch(run: Any, _: Any, sources: Any, *, encoder: Any, **__: Any) -> bool:
        caught.update(run=run, source=sources["train"], encoder=encoder)
        raise Caught

    monkeypatch.setattr(caption, "train_phases", catch)
    options: dict[str, Any] = {"finetune_encoder": kind in ("joint", "taught")}
    if kind == "taught":
        options["teacher"] = place / "teacher.onnx"
    with pytest.raises(Caught):
        train(place, f"parts-{kind}", batch=8, **options)
    run, source, encoder = caught["run"], caught["source"], caught["encoder"]
    phase = phases.Phase("joint" if kind == "taught" else kind, 1, 0.0)
    run.network.train(kind != "cider")
    optimizer = phases.make_optimizer(run.network, encoder)
    for group in optimizer.param_groups:
        group.update(lr=0.0, weight_decay=0.0)
    found: list[tuple[list[Any], float]] = []

    def note(team: Team, parameters: list[Any], loss: float) -> float:
        found.append(([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters], loss))
        return loss

    monkeypatch.setattr(Team, "add_up", note)

    def step(team: Team, count: int) -> tuple[list[Any], float]:
        run.team = team
        torch.manual_seed(5)
        rows = np.arange(count)[::-1].copy()
        phases._step(run, phase, source, rows, step_generator(seed=1, epoch=0, step=0), optimizer)
        return found[-1]

    for count, size in ((8, 2), (8, 3), (1, 2)):  # the last leaves one process without a picture
        whole, loss = step(Team(), count)
        parts = [step(Team(rank, size), count) for rank in range(size)]
        assert sum(part[1] for part in parts) == pytest.approx(loss, rel=1e-5, abs=1e-6)
        largest = max(float(gradient.abs().max()) for gradient in whole)
        assert largest > 1e-3
        for number, gradient in enumerate(whole):
            total = torch.stack([part[0][number] for part in parts]).sum(0)
            assert torch.allclose(total, gradient, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_parts_are_the_whole(count: int) -> None:
    rows = np.arange(count)
    for size in (1, 2, 3, 5):
        parts = [rows[Team(rank, size).part(count)] for rank in range(size)]
        assert np.concatenate(parts).tolist() == rows.tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        if count:  # who has none reads the first row, and it counts nothing
            shares = [Team(rank, size).share(count) for rank in range(size)]
            assert all(len(rows[share.rows]) for share in shares)
            counted = [share.weight * rows[share.rows].sum() for share in shares]
            assert sum(counted) == rows.sum()
            assert [share.alone for share in shares] == [len(part) == count for part in parts]


def test_one_alone_and_a_launcher_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with gathered() as team:
        assert (team, team.leads, team.any(True), team.any(False)) == (Team(), True, True, False)
        assert team.told(lambda: 5) == 5
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RecurError, match="start them with torchrun"), gathered():
        pass


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two GPUs, as PyTorch would tell of them; what is asked of it, in order."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **_: asked.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: asked.append("over"))
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    return asked


def test_gpus_are_used_where_there_are_some(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with gathered() as team:
        assert team == Team(device=torch.device("cuda", 0))
    assert gpus == []  # one alone has nobody to talk to
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with gathered() as team:
        assert team == Team(3, 4, torch.device("cuda", 1))
    assert gpus == [torch.device("cuda", 1), "cpu:gloo,cuda:nccl", "over"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(RecurError, match=r"process 3 of this machine has no GPU of its own \(found 2\)"), gathered():
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpus.clear()
    with gathered() as team:
        assert team == Team(3, 4)
    assert gpus == ["gloo", "over"]


@pytest.mark.parametrize("kind", ["decoder", "joint", "taught", "cider"])
def test_on_a_device_of_its_own(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in memory that a GPU would need, and the weights come out the same."""
    options: dict[str, Any] = {"finetune_encoder": kind in ("joint", "taught"), "batch": 8, "cell": "gru"}
    if kind in ("decoder", "cider"):
        options["epochs"] = 1
    if kind == "cider":
        options["cell"] = "lstm"
    if kind == "taught":
        options["teacher"] = place / "teacher.onnx"
    if kind != "cider":
        options["cider"] = 0
    found: list[dict[str, Any]] = []
    course = phases.train_phases

    def only(run: Any, *call: Any, **how: Any) -> bool:
        assert course(run, *call, **how)
        encoder = how["encoder"]
        states = [run.network.state_dict(), {} if encoder is None else encoder.state_dict()]
        found.append({name: value.numpy() for state in states for name, value in state.items()})
        raise Caught  # what follows is the same for all

    monkeypatch.setattr(caption, "train_phases", only)
    with pytest.raises(Caught):
        train(place, f"here-{kind}", **options)
    used: list[str] = []
    plain = phases.make_optimizer

    def make_optimizer(network: Any, encoder: Any) -> Any:
        used.extend(str(parameter.device) for parameter in network.parameters())
        made = plain(network, encoder)
        for group in made.param_groups:
            group["fused"] = False  # a kernel that the stand-in does not have
        return made

    monkeypatch.setattr(phases, "make_optimizer", make_optimizer)
    with standin.trained_there(), pytest.raises(Caught):
        train(place, f"there-{kind}", **options)
    assert set(used) == {"meta"}
    here, there = found
    assert set(here) == set(there)
    for name, value in here.items():
        # Adam's steps do not know how small a gradient is: one that is rounding alone may go the other way.
        apart = np.abs(there[name] - value)
        assert (apart.mean() < 1e-6) & (apart.max() < 1e-3), name
