"""The command line is the keyword arguments of plain functions: no option without an argument, no missing option."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from recur.cli import build_parser, main
from recur.cli.reference import commands
from recur.data.images import MAX_PIXELS

PACKAGE = Path(__file__).parent.parent / "recur"


LEAVES = {leaf.prog: leaf for leaf in commands(build_parser())}


def names_of(leaf: argparse.ArgumentParser) -> set[str]:
    return {action.dest for action in leaf._actions if action.dest != "help"}


def keywords_of(module: str, function: str) -> dict[str, bool]:
    """Keyword arguments of a function, and whether each must be given; read from the source: torch may be missing."""
    tree = ast.parse((PACKAGE / "train" / f"{module}.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    assert not found.args.args
    return {
        arg.arg: default is None for arg, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
    }


def test_the_commands() -> None:
    assert list(LEAVES) == [
        "recur caption",
        "recur detect",
        "recur classify",
        "recur sentiment",
        "recur translate",
        "recur answer",
        "recur generate",
        "recur frames",
        "recur evaluate caption",
        "recur evaluate sentiment",
        "recur evaluate language",
        "recur evaluate detect",
        "recur evaluate grounding",
        "recur evaluate explanations",
        "recur evaluate translate",
        "recur evaluate frames",
        "recur evaluate answer",
        "recur evaluate span",
        "recur explain caption",
        "recur explain detect",
        "recur explain generate",
        "recur explain sentiment",
        "recur explain translate",
        "recur explain answer",
        "recur explain frames",
        "recur serve",
        "recur library scan",
        "recur library search",
        "recur library duplicates",
        "recur library export",
        "recur library stats",
        "recur library forget",
        "recur library write",
        "recur library undo",
        "recur train caption",
        "recur train trunk",
        "recur train quantize",
        "recur train calibrate",
        "recur train sentiment",
        "recur train language",
        "recur train detect",
        "recur train classify",
        "recur train translate",
        "recur train frames",
        "recur train answer",
        "recur train span",
        "recur bench",
        "recur models",
    ]


@pytest.mark.parametrize(
    "leaf", [leaf for name, leaf in LEAVES.items() if "train" not in name], ids=lambda leaf: leaf.prog
)
def test_options_are_the_arguments_of_the_function(leaf: argparse.ArgumentParser) -> None:
    parameters = inspect.signature(leaf.get_default("run")).parameters
    assert names_of(leaf) == set(parameters)
    for action in leaf._actions:
        default = parameters[action.dest].default if action.dest in parameters else None
        if action.dest != "help" and default is not inspect.Parameter.empty:
            assert action.default == default, f"{leaf.prog} --{action.dest}"


@pytest.mark.parametrize("task", ["caption", "trunk"])
def test_training_options_are_arguments_of_the_training_function(task: str) -> None:
    leaf = LEAVES[f"recur train {task}"]
    keywords = keywords_of(task, f"train_{task}")
    assert names_of(leaf) <= set(keywords)
    assert {action.dest for action in leaf._actions if action.required} == {
        name for name, must in keywords.items() if must
    }


def test_training_passes_on_only_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    target = "recur.cli.train_caption.run_training"
    monkeypatch.setattr(target, lambda module, name, options: seen.update({name: options}))
    network = ["--cell", "gru", "--no-attention", "--hidden", "64", "--init", "b.bundle"]
    assert main(["train", "caption", "--data", "d", "--out", "o", *network, "--cider", "--seconds", "9.5"]) == 0
    assert main(["train", "trunk", "--data", "a", "b", "--teacher", "t.onnx", "--out", "e.onnx", "--resume"]) == 0
    assert seen == {
        "train_caption": {
            "data": Path("d"),
            "out": Path("o"),
            "cell": "gru",
            "attention": False,
            "cider": 6,
            "hidden": 64,
            "seconds": 9.5,
            "init": "b.bundle",
        },
        "train_trunk": {
            "data": [Path("a"), Path("b")],
            "teacher": Path("t.onnx"),
            "out": Path("e.onnx"),
            "resume": True,
        },
    }


def test_missing_packages_of_training_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main(["train", "caption", "--data", "d", "--out", "o"]) == 2
    assert 'pip install "recur[train]"' in capsys.readouterr().err

    def broken(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'recur.nothing'", name="recur.nothing")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match=r"recur\.nothing"):
        main(["train", "caption", "--data", "d", "--out", "o"])


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=lambda leaf: leaf.prog)
def test_help_fits_and_explains_every_option(leaf: argparse.ArgumentParser) -> None:
    assert leaf.format_help()
    for action in leaf._actions:
        assert action.help, f"{leaf.prog} {action.dest}"


def test_the_limit_of_pixels_is_that_of_the_reader() -> None:
    # A service takes pictures of strangers: it has a limit of its own.
    readers = [leaf for name, leaf in LEAVES.items() if name != "recur serve"]
    shown = [action.help or "" for leaf in readers for action in leaf._actions if action.dest == "max_pixels"]
    assert len(shown) >= 3
    assert all(f"default: {MAX_PIXELS})" in text for text in shown)


def test_nothing_at_all_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([])
    assert leaving.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
