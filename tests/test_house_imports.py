"""The rooms of the house: imports go down only, and the running half never needs PyTorch."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "recur"
# From the ground up; rooms on one floor do not import each other. docs/design.md draws the same picture.
FLOORS = (
    ("errors",),
    ("files", "progress"),
    ("data",),
    ("engine",),
    ("bundle", "metrics"),
    ("hub",),
    ("nn",),
    ("predict",),
    ("explain",),
    ("train", "library"),
    ("bench", "scale", "serve"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TRAINING = frozenset({"nn", "train"})
TRAINING_PACKAGES = frozenset({"torch", "torchvision", "transformers", "onnx", "matplotlib"})
# Those that ask for matplotlib, when a plot is asked for, and do without.
DRAWS = (
    PACKAGE / "library" / "plot.py",
    *(PACKAGE / "explain" / f"{name}.py" for name in ("figure", "explanation", "film", "texts")),
)
FRONT_DOOR = "__init__"  # recur/__init__.py opens every room, lazily; what others take from it is the version alone


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line, full module name and imported names of every import statement, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield node.lineno, node.module or "", tuple(alias.name for alias in node.names)


def targets(module: str, names: tuple[str, ...]) -> set[str]:
    """The rooms that an import of `module` (a part of recur) opens."""
    parts = module.split(".")
    if len(parts) > 1:
        return {parts[1]}
    return {name for name in names if name in FLOOR}


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in modules()} - {FRONT_DOOR} <= set(FLOOR)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    for line, module, names in imports_of(path):
        if module.split(".")[0] != "recur" or room == FRONT_DOOR:
            continue
        if module == "recur" and room not in ("cli", "serve"):
            assert set(names) <= {"__version__"} | set(FLOOR), f"{path}:{line}: takes {names} from the front door"
        for target in targets(module, names) - {room}:
            assert FLOOR[target] < FLOOR[room], f"{path}:{line}: {room} imports {target}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_training_half_names_training_packages(path: Path) -> None:
    if room_of(path) in TRAINING:
        return
    for line, module, _ in imports_of(path):
        allowed = {"matplotlib"} if path in DRAWS else set()
        assert module.split(".")[0] not in TRAINING_PACKAGES - allowed, (
            f"{path}:{line}: the running half imports {module}"
        )
        assert ".".join(module.split(".")[:2]) not in {f"recur.{room}" for room in TRAINING}, f"{path}:{line}: {module}"


def test_the_rule_can_fail(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("def f():\n    from recur.cli import main\n    import torch.nn\n")
    found = {(module, *targets(module, names)) for _, module, names in imports_of(source) if module != "torch.nn"}
    assert found == {("recur.cli", "cli")}
    assert [module for _, module, _ in imports_of(source)] == ["recur.cli", "torch.nn"]


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
from recur.cli import main
status = main(["caption", "--model", {bundle!r}, "--lang", "en,zh", "--json", "--html", {page!r}, {photo!r}])
assert main(["train", "caption", "--data", "x", "--out", "y"]) == 2
assert not {packages!r} & {{name.partition(".")[0] for name in sys.modules}}
raise SystemExit(status)
"""


def test_runs_with_training_packages_blocked(tiny_bundle: Path, photos: list[Path], tmp_path: Path) -> None:
    names = []
    without = {*TRAINING} if find_spec("fastapi") else {*TRAINING, "serve"}
    for path in modules():
        if room_of(path) not in without and path.name != "__main__.py":
            names.append(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"))
    code = BLOCKED.format(
        packages=set(TRAINING_PACKAGES),
        modules=names,
        bundle=str(tiny_bundle),
        page=str(tmp_path / "page.html"),
        photo=str(photos[0]),
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert 'pip install "recur[train]"' in done.stderr
    assert (tmp_path / "page.html").is_file()
