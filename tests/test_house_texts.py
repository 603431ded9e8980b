"""Commands in the texts work, in both languages; no file names a place on one machine; nothing is left undone."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import recur.hub
from recur.cli import build_parser, main
from recur.cli.reference import reference

ROOT = Path(__file__).parent.parent
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.sh"))
FOLDERS = ("recur", "tests", "examples", "docs", "recipes", "benchmarks", "scripts", ".ci")
FILES = ("README.md", "README.zh.md", "CHANGELOG.md", "Makefile", "pyproject.toml", ".gitignore")
TEXT = frozenset({".py", ".md", ".css", ".js", ".json", ".toml", ".sh", ""})
# Calls in the table of results leave out, with "…", what other lines show.
LEFT_OUT = {("train", "caption"): ("--data", "d", "--out", "o")}


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page, as (kind, content)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)


def commands(text: str, *kinds: str) -> list[list[str]]:
    """The `recur …` calls of all fenced blocks of these kinds, as argument lists; of a pipe the part that is ours."""
    found = []
    for kind, block in blocks(text):
        for line in block.replace("\\\n", "").splitlines() if kind in kinds else ():
            for part in line.removeprefix("$ ").split(" | "):
                if part.startswith("recur "):
                    words = shlex.split(part, comments=True)
                    found.append(words[1 : words.index(">") if ">" in words else None])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_call_in_the_texts_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    calls = commands(text, "sh", "console", "")
    # The last column of a table of results holds the call that gives them; the first one of a table of commands, calls.
    calls += [shlex.split(call) for call in re.findall(r"\| `(?:time )?recur ([^`…]*)…?`", text)]
    assert calls or page.parent.name == "docs"
    for call in calls:
        build_parser().parse_args([*call, *LEFT_OUT.get(tuple(call[:2]), ())])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_call_in_the_recipes_parses(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    calls = [shlex.split(line)[1:] for line in lines if line.startswith('"$recur" ')]
    assert calls
    for call in calls:
        build_parser().parse_args(call)


def test_both_languages_say_the_same() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    assert blocks(english) == blocks(chinese)
    for what in (r"^#+ ", r"^\|", r"^- ", r"!\["):
        assert len(re.findall(what, english, re.M)) == len(re.findall(what, chinese, re.M)), what
    in_tables = [re.findall(r"^\|.*?(`recur [^`]+`)", text, re.M) for text in (english, chinese)]
    assert in_tables[0] == in_tables[1]
    figures = [re.findall(r"^\|[^|]*\|([^|]*\d[^|]*)\|", text, re.M) for text in (english, chinese)]
    numbers = [[re.findall(r"[\d.,]*\d", cell) for cell in cells] for cells in figures]
    assert numbers[0] == numbers[1]


def test_the_page_of_the_command_line_is_current() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m recur.cli.reference > docs/cli.md"


@pytest.fixture
def at_home(tiny_bundle: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures that the README speaks of, and a tiny model in the place of the embedded one."""
    shutil.copytree(tiny_bundle, tmp_path / "models" / "captioner")
    monkeypatch.setattr(recur.hub, "EMBEDDED", tmp_path / "models")
    home = tmp_path / "home"
    (home / "holiday").mkdir(parents=True)
    for name in ("photo.jpg", "holiday/1.jpg", "holiday/2.jpg"):
        shutil.copyfile(photos[0], home / name)
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"photo.jpg\nholiday/1.jpg\n")))
    return home


@pytest.mark.parametrize("call", commands(READMES[0].read_text(encoding="utf-8"), "sh"), ids=" ".join)
def test_readme_commands_run(call: list[str], at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    if "--out" in call:
        assert (at_home / call[call.index("--out") + 1]).stat().st_size > 1000
    else:
        assert printed.out


def test_readme_python_runs(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    programs = [block for kind, block in blocks(READMES[0].read_text(encoding="utf-8")) if kind == "python"]
    assert programs
    for program in programs:
        exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def texts() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    outside = [ROOT / name for name in FILES if (ROOT / name).is_file()]
    return [path for path in inside + outside if path.suffix in TEXT and "__pycache__" not in path.parts]


def test_no_file_names_a_place_on_one_machine_or_is_left_undone() -> None:
    undone = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
    places = re.compile(r"(?<![\w.-])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/\w+)/")
    for path in texts():
        text = path.read_text(encoding="utf-8", errors="replace")
        for pattern in (undone, places):
            found = pattern.search(text)
            assert found is None, f"{path}: {found and found[0]!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.endswith(".png"):
            assert (page.parent / target).is_file(), target


def test_every_document_is_linked() -> None:
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    }
    assert {*PAGES} <= linked
