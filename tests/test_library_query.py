"""What comes out of the index: words in two languages, dates, doubt, copies; as lines, tables and a page."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import captioner, encoded, make, picture, scan
from PIL import Image

from recur.cli import main
from recur.errors import RecurError
from recur.library import export
from recur.library.index import Index
from recur.library.query import checked_date
from recur.library.records import put_caption
from recur.library.words import TOKENIZER, question, spaced

WORDS = {
    0: ("a brown dog runs along the beach", "一只棕色的狗在海滩上奔跑", 0.9),
    1: ("two dogs are playing in the snow", "两只狗在雪地里玩耍", 0.2),
    2: ("a man sits on a bench", "一个男人坐在长椅上", 0.6),
    3: ("a café by the sea", "海边的咖啡馆", 0.4),
}


@pytest.fixture
def library(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures with words that are known, and dates; the folder."""
    monkeypatch.setenv("RECUR_INDEX", str(tmp_path / "x.sqlite"))
    folder = tmp_path / "p"
    folder.mkdir()
    for number in WORDS:
        dated = f"202{number}:06:15 12:00:00" if number < 3 else None
        (folder / f"{number}.jpg").write_bytes(encoded(number, taken=dated))
    os.utime(folder / "3.jpg", (1_700_000_000, 1_700_000_000))
    scan(tmp_path / "x.sqlite", captioner(tiny_bundle), folder, languages=("en", "zh"))
    with Index(tmp_path / "x.sqlite") as index, index.transaction():
        for number, (english, chinese, confidence) in WORDS.items():
            path = os.fsencode(folder / f"{number}.jpg")
            one = index.one("SELECT picture FROM files WHERE path = ?", path)
            put_caption(index.db, one, "en", english, confidence, -1.0, 1)
            put_caption(index.db, one, "zh", chinese, confidence, -1.0, 1)
    return folder


def found(capsys: pytest.CaptureFixture[str], *call: str) -> list[str]:
    capsys.readouterr()
    assert main(["library", "search", "--json", *call]) == 0
    return [Path(json.loads(line)["path"]).stem for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (["dog on a beach"], ["0"]),
        (["dog"], ["0", "1"]),
        (["dogs", "running"], ["0"]),
        (["cafe"], ["3"]),
        (["CAFÉ"], ["3"]),
        (["on a"], ["2"]),
        (['"brown dog"'], ["0"]),
        (['"dog brown"'], []),
        (["狗"], ["0", "1"]),
        (["海滩"], ["0"]),
        (["海"], ["0", "3"]),
        (["滩海"], []),
        (["狗 雪地"], ["1"]),
        (["dog", "--lang", "zh"], []),
        (['dog" OR *', "AND (NEAR"], []),
        (["--not-sure"], ["1", "3"]),
        (["--not-sure", "0.3"], ["1"]),
        (["dog", "--not-sure"], ["1"]),
        (["--since", "2021"], ["1", "2", "3"]),
        (["--since", "2020-06-15", "--until", "2021-06"], ["0", "1"]),
        (["--until", "2020-06-15"], ["0"]),
        (["--until", "2020-06-14"], []),
        (["--since", "2023-11-14", "--until", "2023-11-15"], ["3"]),
        (["--limit", "2"], ["0", "1"]),
    ],
)
def test_search(call: list[str], expected: list[str], library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(found(capsys, *call)) == expected


def test_search_for_people_and_nonsense(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "search", "beach"]) == 0
    assert capsys.readouterr().out == (
        f"{library}/0.jpg\ten\ta brown dog runs along the beach\t0.90\n"
        f"{library}/0.jpg\tzh\t一只棕色的狗在海滩上奔跑\t0.90\n"
    )
    assert main(["library", "search", "beach", "--lang", "en"]) == 0
    assert capsys.readouterr().out == f"{library}/0.jpg\ta brown dog runs along the beach\t0.90\n"
    for call in (["?!"], ["--since", "2024-13"], ["--since", "24"], ["--since", "2024-1-1"]):
        assert main(["library", "search", *call]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["library", "search", "x", "--index", str(library / "none")]) == 2
    assert "no such index" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (["zebra"], "try fewer words or conditions"),
        (["dog", "--lang", "fr"], "there are no captions in 'fr' (found: en, zh); scan with --lang"),
        (["dog", "--object", "dog"], "nobody has looked for objects; scan with --objects"),
    ],
)
def test_why_nothing_is_found(call: list[str], reason: str, library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "search", *call]) == 0
    assert capsys.readouterr() == ("", f"note: no picture found; {reason}\n")


def test_an_index_on_a_drive_that_cannot_be_written_to(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Path(os.environ["RECUR_INDEX"])
    Path(f"{index}-shm").symlink_to("nowhere/x")  # in the way of the file that readers make
    assert sorted(found(capsys, "dog")) == ["0", "1"]
    assert main(["library", "stats"]) == 0
    assert main(["library", "forget", str(library / "0.jpg")]) == 2
    assert f"{index}: cannot be written to" in capsys.readouterr().err
    Path(f"{index}-wal").write_bytes(b"what a scan left")
    assert main(["library", "search", "dog"]) == 2
    assert f"{index}: cannot be written to" in capsys.readouterr().err


def test_words_forgotten_or_replaced_are_not_found(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "forget", str(library / "0.jpg")]) == 0
    assert found(capsys, "dog") == ["1"]
    assert main(["library", "forget", str(library / "0.jpg"), str(library)]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"{library}/0.jpg: not in the index; check the path\n"
    assert printed.out == f"{library}\t3 files forgotten\n"
    with Index(os.environ["RECUR_INDEX"]) as index:
        for table in ("pictures", "contents", "captions", "bands", "files"):
            assert index.one(f"SELECT count(*) FROM {table}") == 0
        index.db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        assert index.one("SELECT count(*) FROM words WHERE words MATCH 'dog'") == 0


@given(st.text(max_size=30), st.text(max_size=20))
def test_any_question_is_safe_and_every_text_finds_itself(text: str, asked: str) -> None:
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, content='', tokenize='{TOKENIZER}')")
    clean = text.encode("utf-8", "ignore").decode().replace("\0", " ").replace('"', " ")
    db.execute("INSERT INTO words (rowid, text) VALUES (1, ?)", (spaced(clean),))
    for each in (asked.encode("utf-8", "ignore").decode(), clean):
        try:
            query = question(each)
        except RecurError:
            continue
        hits = db.execute("SELECT rowid FROM words WHERE words MATCH ?", (query,)).fetchall()
        if each == clean and clean.isascii():
            assert hits == [(1,)]
    db.close()


def test_duplicates(library: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (library / "copy.jpg").write_bytes((library / "0.jpg").read_bytes())
    picture(0, (60, 45)).save(library / "small.png")
    scan(Path(os.environ["RECUR_INDEX"]), captioner(tiny_bundle), library, languages=("en", "zh"))
    assert main(["library", "duplicates"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[1], Path(line[3]).name) for line in lines] == [
        ("1", "first", "0.jpg"),
        ("1", "copy", "copy.jpg"),
        ("1", "alike", "small.png"),
    ]
    assert int(lines[2][2]) <= 5
    assert main(["library", "duplicates", "--json"]) == 0
    (group,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each["kind"] for each in group["files"]] == ["first", "copy", "alike"]
    assert sorted(found(capsys, "brown dog")) == ["0", "copy", "small"]
    capsys.readouterr()
    assert main(["library", "search", "--json", "brown", "--under", str(library / "small.png")]) == 0
    assert json.loads(capsys.readouterr().out)["alike"] == str(library / "0.jpg")


class Reader(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_exports(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, lines, page = tmp_path / "x.csv", tmp_path / "x.jsonl", tmp_path / "x.html"
    assert main(["library", "export", "--csv", str(table)]) == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert len(rows) == 8
    assert rows[1]["caption"] == WORDS[0][1]
    assert rows[0]["taken"] == "2020-06-15T12:00:00"
    assert main(["library", "export", "dog", "--jsonl", str(lines), "--lang", "en"]) == 0
    objects = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert sorted(each["captions"][0]["caption"] for each in objects) == sorted(WORDS[n][0] for n in (0, 1))
    assert main(["library", "export", "--html", str(page)]) == 0
    assert capsys.readouterr().err == ""
    reader = Reader(page.read_text(encoding="utf-8"))
    pictures = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [each["alt"] for each in pictures] == [WORDS[number][0] for number in WORDS]
    assert all((each["src"] or "").startswith("data:image/jpeg;base64,") for each in pictures)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in reader.tags}
    assert re.search(r"default-src 'none'; img-src data:; style-src 'sha256-", page.read_text(encoding="utf-8"))
    (library / "1.jpg").unlink()
    assert main(["library", "export", "--html", str(page), "--limit", "2"]) == 1
    assert capsys.readouterr().err == f"{library}/1.jpg: vanished before it was read; scan again if it is back\n"
    with pytest.raises(SystemExit):
        main(["library", "export"])
    assert main(["library", "export", "--csv", str(tmp_path)]) == 2


def test_a_gallery_is_bounded_and_escaped(
    library: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Image.effect_noise((900, 900), 120).convert("RGB")
    noise.save(library / "0.jpg")
    with Index(os.environ["RECUR_INDEX"]) as index:
        index.db.execute("UPDATE captions SET caption = '<b>\"&' WHERE caption = ?", (WORDS[0][0],))
    monkeypatch.setattr(export, "GALLERY_LIMIT", 3)
    page = tmp_path / "x.html"
    assert main(["library", "export", "--html", str(page)]) == 0
    assert "has the first 3 pictures only" in capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text
    pictures = [attributes for tag, attributes in Reader(text).tags if tag == "img"]
    assert pictures[0]["alt"] == '<b>"&'
    assert len(pictures) == 3
    assert all(len(each["src"] or "") < 4 / 3 * export.THUMBNAIL_BYTES + 100 for each in pictures)


def test_stats(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "stats", "--json", "--plot", str(tmp_path / "x.png")]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["files"], counts["pictures"], counts["missing"], counts["alike"]) == (4, 4, 0, 0)
    assert counts["years"] == {"": 1, "2020": 1, "2021": 1, "2022": 1}
    assert counts["confidence"] == [0, 0, 2, 0, 2, 0, 2, 0, 0, 2]
    assert {row["language"]: row["captions"] for row in counts["captions"]} == {"en": 4, "zh": 4}
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.width > 500
    assert main(["library", "stats"]) == 0
    assert "captions en, tiny\t4, mean confidence 0.53\n" in capsys.readouterr().out


def test_scan_from_the_command_line(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "x.sqlite"
    paths = make(tmp_path / "p", 3)
    (tmp_path / "p" / "bad\n.jpg").write_bytes(b"no")
    (tmp_path / "list").write_text("\n".join(map(str, paths[:2])))
    call = ["library", "scan", "--index", str(index), "--model", str(tiny_bundle)]
    assert main([*call, "--list", str(tmp_path / "list")]) == 0
    assert capsys.readouterr().out == f"2 new; index: {index}\n"
    assert main([*call, "--json", str(tmp_path / "p")]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"{tmp_path}/p/bad\\n.jpg: the file is text")
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert list(events[0]) == ["path", "what", "alike", "source", "captions", "objects"]
    assert (events[0]["path"], events[0]["what"]) == (str(paths[2]), "new")
    assert events[-1]["counts"] == {"new": 1, "unchanged": 2, "failed": 1}
    assert main(call) == 2
    assert main([*call, "--list", str(tmp_path / "nothing")]) == 2
    assert main([*call, "--lang", "xx", str(tmp_path / "p")]) == 2
    with Index(index) as library, library.held("write"):
        capsys.readouterr()
        assert main([*call, str(tmp_path / "p")]) == 2
        assert f"in use by `recur library write`, process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2024", "2024-02", "2024-02-29"])
def test_dates_that_are(text: str) -> None:
    assert checked_date(text) == text


@pytest.mark.parametrize("text", ["", "2023-02-29", "24", "2024-00", "2024-1", "2024-01-01T00", "2024-01-01-01", "x"])
def test_dates_that_are_not(text: str) -> None:
    with pytest.raises(RecurError, match="expected YYYY"):
        checked_date(text)
