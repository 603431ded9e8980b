"""The lessons run, in a short form, and write what their pages promise; their parts are what they say they are."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "lessons"
PAGES = ROOT / "docs" / "lessons"
NAMES = ("what", "tanh", "memory", "shapes")


@pytest.fixture(autouse=True)
def lessons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in (*NAMES, "lesson"):
        sys.modules.pop(name, None)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "a dog"], 1500)
    path.write_text(" ".join(words) + ".\n", encoding="utf-8")
    return path


def lesson(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_writes_its_page(name: str, text: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = (text, tmp_path) if name in ("what", "tanh") else (tmp_path,)
    found = lesson(name).main(*given, quick=True)
    page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "{" not in page.split("```")[0]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    for row in found:
        assert f"| {row}" in page


@pytest.mark.parametrize("name", NAMES)
def test_the_page_in_the_documentation_is_of_this_script(name: str) -> None:
    """Its figures are of a run; its words and headings are the script's."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    script = lesson(name).PAGE
    pieces = [piece.strip() for piece in re.split(r"\{[^{}]*\}", script)]
    at = 0
    for piece in pieces:
        at = page.index(piece, at)
    assert f"examples/lessons/{name}.py" in page


def test_pictures_of_the_lessons_are_small() -> None:
    assert sum(path.stat().st_size for path in PAGES.iterdir()) < 400_000


def test_the_hidden_markov_model_learns_as_theory_says(text: Path) -> None:
    what, ids = lesson("what"), lesson("lesson").Text.read(text, 4000)
    rows = lesson("lesson").rows_of(ids.train, 20).numpy()
    model = what.Hmm(5, len(ids.characters))
    costs = []
    for _ in range(6):
        costs.append(model.nats(rows))
        model.learn(rows, 1)
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(costs))
    assert costs[-1] < costs[0] - 0.1
    for chances in (model.first, model.next, model.says):
        np.testing.assert_allclose(chances.sum(-1), 1)


def test_the_hidden_markov_model_sums_over_all_paths() -> None:
    model = lesson("what").Hmm(3, 4)
    text = np.array([[1], [3], [0]])
    total = 0.0
    for path in itertools.product(range(3), repeat=3):
        chance = model.first[path[0]] * model.says[path[0], 1]
        for t in (1, 2):
            chance *= model.next[path[t - 1], path[t]] * model.says[path[t], text[t, 0]]
        total += chance
    _, scale = model.forward(text)
    assert float(np.prod(scale)) == pytest.approx(total)


def test_n_gram_probabilities_sum_to_one() -> None:
    gram = lesson("what").NGram([0, 1, 2, 0, 1, 1, 0, 2], 3, 4)
    for context in ((), (0,), (0, 1), (3, 3), (1, 0, 1)):
        assert sum(gram.probability(context, each) for each in range(4)) == pytest.approx(1)
    assert gram.probability((2, 0), 1) > gram.probability((1, 1), 1)


def test_gradients_by_lag_are_those_of_the_recurrence() -> None:
    """With the identity for f, the gradient k steps back is exactly that of U multiplied k times."""
    tanh, shared = lesson("tanh"), lesson("lesson")
    torch.manual_seed(0)
    model = shared.CharacterModel("rnn_identity", 6, 5)
    pieces = torch.randint(6, (9, 1))
    found = tanh.gradient_by_lag(model, pieces)
    scores, hidden, _ = model(pieces[:-1])
    (last,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores[-1], pieces[-1]), hidden)
    step, norms = last[-1, 0].detach(), []
    for _ in range(8):
        norms.append(float(step.norm()))
        step = step @ model.stack.cells[0].weight_hh.detach()
    np.testing.assert_allclose(found, np.array(norms) / norms[0], rtol=1e-4)


def test_toys_of_the_shapes_are_what_they_claim() -> None:
    shapes = lesson("shapes")
    torch.manual_seed(0)
    (bits,), odd = shapes.parity(20)
    assert torch.equal(odd, bits.argmax(-1).cumsum(0) % 2)
    (source, before), wanted = shapes.turn(20)
    assert torch.equal(source.flip(0), wanted)
    assert torch.equal(before[1:], wanted[:-1])
    (brackets, lengths), balanced = shapes.balance(200)
    for row in range(200):
        depth, good = 0, True
        for opens, closes in brackets[: int(lengths[row]), row].tolist():
            depth += int(opens) - int(closes)
            good &= depth >= 0
        assert bool(balanced[row]) == (good and depth == 0)
        assert not brackets[int(lengths[row]) :, row].any()
    assert 0.3 < float(balanced.float().mean()) < 0.7
