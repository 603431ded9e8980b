"""Scans: nothing is done twice, nothing is lost, and what goes wrong with one file is one line."""

from __future__ import annotations

import io
import os
import sqlite3
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import write_tiny_bundle
from library import captioner, counts, encoded, logical, make, picture, scan
from PIL import Image, features

from recur.errors import InputError, RecurError
from recur.library import reading
from recur.library import scan as scanning
from recur.library.chunk import Event
from recur.library.index import Index, LibraryError, default_index
from recur.library.scan import Scan
from recur.predict.caption import Captioner


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Captioner:
    return captioner(tiny_bundle)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "data" / "library.sqlite"


@pytest.fixture
def counted(model: Captioner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model was given, a number a call."""
    calls: list[int] = []
    real = model.stream_languages

    def stream(pictures: Any, languages: Sequence[str], **options: Any) -> Any:
        listed = list(pictures)
        calls.append(len(listed))
        return real(listed, languages, **options)

    monkeypatch.setattr(model, "stream_languages", stream)
    return calls


def rows(index: Path, statement: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(index)
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


def test_words_are_those_of_the_captioner(index: Path, model: Captioner, tmp_path: Path) -> None:
    paths = make(tmp_path / "p", 5)
    assert counts(scan(index, model, tmp_path / "p", languages=("en", "zh"))) == {"new": 5}
    for path in paths:
        for language in ("en", "zh"):
            expected = model(str(path), lang=language)[0]
            (row,) = rows(
                index,
                "SELECT c.caption, c.confidence, c.log_prob, p.width, p.height FROM captions c JOIN pictures p "
                f"ON p.id = c.picture JOIN files f ON f.picture = p.id WHERE f.path = x'{os.fsencode(path).hex()}' "
                f"AND language = '{language}'",
            )
            assert row[0] == expected.caption
            assert row[1] == (None if expected.confidence is None else pytest.approx(expected.confidence, abs=1e-4))
            assert row[2] == pytest.approx(expected.log_prob, abs=1e-3)
            assert row[3:] == (96, 72)


def test_a_second_scan_opens_nothing(
    index: Path, model: Captioner, counted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "p", 12)
    scan(index, model, tmp_path / "p")
    before = logical(index)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(scanning, "read_place", never)
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": 12}
    assert counted == [12]
    assert logical(index) == before


def test_new_changed_moved_copied_and_gone(index: Path, model: Captioner, counted: list[int], tmp_path: Path) -> None:
    paths = make(tmp_path / "p", 6)
    scan(index, model, tmp_path / "p")
    paths[0].write_bytes(encoded(100))
    paths[1].rename(tmp_path / "p" / "moved.jpg")
    (tmp_path / "p" / "copy.jpg").write_bytes(paths[2].read_bytes())
    paths[3].unlink()
    os.utime(paths[4], ns=(1, 1))
    (tmp_path / "p" / "new.jpg").write_bytes(encoded(101))
    events: list[Event] = []
    outcome = scan(index, model, tmp_path / "p", tell=events.append)
    assert counts(outcome) == {"changed": 1, "moved": 1, "copy": 1, "new": 1, "missing": 1, "unchanged": 3}
    assert counted == [6, 2]
    assert [event.source for event in events if event.what == "moved"] == [str(paths[1])]
    assert rows(index, "SELECT count(*) FROM files WHERE missing IS NULL") == [(7,)]
    assert rows(index, "SELECT count(*) FROM pictures") == [(7,)]
    again = scan(index, model, tmp_path / "p")
    assert counts(again) == {"unchanged": 7}
    assert counted == [6, 2]


def test_what_comes_back_has_its_words_still(index: Path, model: Captioner, counted: list[int], tmp_path: Path) -> None:
    (path,) = make(tmp_path / "p", 1)
    content, status = path.read_bytes(), path.stat()
    scan(index, model, tmp_path / "p")
    path.unlink()
    assert counts(scan(index, model, tmp_path / "p")) == {"missing": 1}
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counts(scan(index, model, tmp_path / "p")) == {"back": 1}
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": 1}
    assert counted == [1]


def test_an_unplugged_drive_loses_nothing(index: Path, model: Captioner, tmp_path: Path) -> None:
    make(tmp_path / "drive", 3)
    scan(index, model, tmp_path / "drive")
    before = logical(index)
    (tmp_path / "drive").rename(tmp_path / "elsewhere")
    events: list[Event] = []
    assert counts(scan(index, model, tmp_path / "drive", tell=events.append)) == {"failed": 1}
    assert str(events[0].error) == (
        f"{tmp_path / 'drive'}: no such file or folder; check the path, and that its drive is there"
    )
    assert logical(index) == before


def test_a_new_model_describes_again_only_when_asked(
    index: Path, model: Captioner, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = captioner(write_tiny_bundle(tmp_path_factory.mktemp("other") / "other", seed=5, name="other"))
    make(tmp_path / "p", 4)
    scan(index, model, tmp_path / "p")
    old = logical(index)["captions"]
    assert counts(scan(index, other, tmp_path / "p")) == {"unchanged": 4}
    assert logical(index)["captions"] == old
    assert counts(scan(index, other, tmp_path / "p", recaption=True)) == {"words": 4}
    new = logical(index)["captions"]
    assert {row[-1] for row in new} == {other.bundle.meta["sha256"]}
    assert len(new) == 4
    assert counts(scan(index, other, tmp_path / "p", recaption=True)) == {"unchanged": 4}
    with Index(index) as library:
        assert library.one("SELECT count(*) FROM words WHERE words MATCH 'a OR dog OR two OR men OR grass OR the'") > 0


def test_another_language_is_added(index: Path, model: Captioner, counted: list[int], tmp_path: Path) -> None:
    make(tmp_path / "p", 3)
    scan(index, model, tmp_path / "p")
    english = logical(index)["captions"]
    assert counts(scan(index, model, tmp_path / "p", languages=("en", "zh"))) == {"words": 3}
    assert [row for row in logical(index)["captions"] if row[1] == "en"] == english
    assert len(logical(index)["captions"]) == 6
    assert counted == [3, 3]
    with pytest.raises(RecurError, match="language 'xx' is not in model"):
        scan(index, model, tmp_path / "p", languages=("xx",))


def test_pictures_that_look_alike_share_words(
    index: Path, model: Captioner, counted: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    large = picture(7, (400, 300))
    large.save(folder / "a.png")
    large.resize((200, 150)).save(folder / "b.jpg", quality=70)
    picture(8).save(folder / "c.png")
    for name, grey in (("d.png", 10), ("e.png", 240)):  # too plain to be told apart: described one by one
        Image.new("RGB", (64, 64), (grey, grey, grey)).save(folder / name)
    events: list[Event] = []
    assert counts(scan(index, model, folder, tell=events.append)) == {"new": 5, "alike": 1}
    assert counted == [4]
    first, second, *_ = events
    assert second.alike == first.path == str(folder / "a.png")
    assert second.captions == first.captions != ()
    (folder / "a.png").unlink()  # the words live on with the one that shares them
    scan(index, model, folder)
    with Index(index) as library, library.transaction():
        library.db.execute("DELETE FROM files WHERE missing IS NOT NULL")
    assert counts(scan(index, model, folder)) == {"unchanged": 4}
    assert rows(index, "SELECT count(*) FROM captions") == [(4,)]


def test_every_format(index: Path, model: Captioner, tmp_path: Path) -> None:
    reading.add_readers()
    forms = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "tif": "TIFF", "bmp": "BMP"}
    forms |= {"avif": "AVIF"} if features.check("avif") else {}
    forms |= {"heic": "HEIF"} if "HEIF" in Image.SAVE else {}
    folder = tmp_path / "p"
    folder.mkdir()
    for number, (ending, form) in enumerate(forms.items()):
        dated = form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")
        content = encoded(number, form, taken="2023:04:05 06:07:08" if dated else None)
        (folder / f"{number}.{ending}").write_bytes(content)
    assert counts(scan(index, model, folder)) == {"new": len(forms)}
    found = dict(rows(index, "SELECT f.path, p.taken FROM files f JOIN pictures p ON p.id = f.picture"))
    for number, (ending, form) in enumerate(forms.items()):
        expected = None if form in ("GIF", "BMP") else "2023-04-05T06:07:08"
        assert found[os.fsencode(folder / f"{number}.{ending}")] == expected, form


def test_failures_are_lines_and_are_tried_again(index: Path, model: Captioner, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    make(folder, 2)
    broken = folder / "broken.jpg"
    broken.write_bytes(encoded(5)[:200])
    (folder / "empty.png").write_bytes(b"")
    events: list[Event] = []
    assert counts(scan(index, model, folder, tell=events.append)) == {"new": 2, "failed": 2}
    assert sorted(str(event.error) for event in events if event.error) == [
        f"{broken}: the file is cut off before its end; copy or download it again",
        f"{folder / 'empty.png'}: empty file; copy or download it again",
    ]
    broken.write_bytes(encoded(5))
    assert counts(scan(index, model, folder)) == {"new": 1, "failed": 1, "unchanged": 2}


def test_a_file_that_breaks_later_keeps_its_words(index: Path, model: Captioner, tmp_path: Path) -> None:
    (path,) = make(tmp_path / "p", 1)
    scan(index, model, tmp_path / "p")
    path.write_bytes(path.read_bytes()[:300])
    assert counts(scan(index, model, tmp_path / "p")) == {"failed": 1}
    assert rows(index, "SELECT count(*), sum(problem IS NOT NULL) FROM files JOIN captions USING (picture)") == [(1, 1)]


@pytest.mark.parametrize("steady_after", [1, 9])
def test_a_file_that_changes_while_it_is_read(
    steady_after: int, index: Path, model: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make(tmp_path / "p", 1)
    real, stats = os.fstat, [0]

    def fstat(handle: int) -> os.stat_result:
        stats[0] += 1
        if stats[0] <= 2 * steady_after and stats[0] % 2 == 0:
            os.utime(path, ns=(stats[0], stats[0]))
        return real(handle)

    monkeypatch.setattr(reading.os, "fstat", fstat)
    events: list[Event] = []
    scan(index, model, tmp_path / "p", tell=events.append)
    (event,) = events
    if steady_after == 1:
        assert event.what == "new"
    else:
        assert str(event.error) == f"{path}: changes while it is read; scan again when it is finished"


def test_a_file_that_vanishes(index: Path, model: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = make(tmp_path / "p", 2)
    real = scanning.read_place

    def read(place: Any, **options: Any) -> Any:
        path.unlink(missing_ok=True)
        return real(place, **options)

    monkeypatch.setattr(scanning, "read_place", read)
    events: list[Event] = []
    assert counts(scan(index, model, tmp_path / "p", tell=events.append)) == {"new": 1, "failed": 1}
    assert str(events[0].error) == f"{path}: vanished before it was read; scan again if it is back"


# ------------------------------------------------------------------------------------------------------- the index file


def test_out_of_disk_keeps_what_was_committed(
    index: Path, model: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "CHUNK", 10)
    make(tmp_path / "p", 120)
    with Index(index, create=True) as library:
        pages = library.one("PRAGMA page_count") + 2
    real = Index.connect

    def small(self: Index) -> sqlite3.Connection:
        db = real(self)
        db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to a full disk
        return db

    with monkeypatch.context() as patch:
        patch.setattr(Index, "connect", small)
        with pytest.raises(LibraryError, match="the disk is full; what was done until now is kept"):
            scan(index, model, tmp_path / "p")
    done = rows(index, "SELECT count(*) FROM files")[0][0]
    assert 0 < done < 120
    assert done % 10 == 0
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": done, "new": 120 - done}


def test_damaged_foreign_newer_and_missing_indexes(index: Path, model: Captioner, tmp_path: Path) -> None:
    make(tmp_path / "p", 30)
    with pytest.raises(LibraryError, match="no such index; make it with"):
        Index(index)
    scan(index, model, tmp_path / "p")
    whole = index.read_bytes()
    index.write_bytes(b"no database at all, and long enough to be read as one" * 100)
    with pytest.raises(LibraryError, match=r"library\.sqlite: is damaged .*; put back a copy of it, or move it away"):
        Index(index)
    index.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    with pytest.raises(LibraryError, match="is damaged"):
        scan(index, model, tmp_path / "p")
    index.unlink()
    db = sqlite3.connect(index)
    db.execute("CREATE TABLE other (x)")
    db.close()
    with pytest.raises(LibraryError, match="no index of recur"):
        scan(index, model, tmp_path / "p")
    index.write_bytes(whole)
    db = sqlite3.connect(index)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LibraryError, match="index format 99, expected 2; upgrade recur"):
        Index(index)


def test_a_place_that_cannot_hold_an_index(model: Captioner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="its folder cannot be made"):
        Index(tmp_path / "file" / "x.sqlite", create=True)
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(LibraryError, match=r"folder\.sqlite: cannot be written to"):
        Index(tmp_path / "folder.sqlite", create=True)


def test_an_index_that_another_program_locks(index: Path, model: Captioner, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("recur.library.index.WAIT_SECONDS", 0.1)
    make(tmp_path / "p", 1)
    scan(index, model, tmp_path / "p")
    other = sqlite3.connect(index, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LibraryError, match="another program has it locked"):
        scan(index, model, tmp_path / "p")
    other.close()


def test_one_scan_at_a_time(index: Path, tmp_path: Path) -> None:
    with Index(index, create=True) as first, first.held("scan"):
        with Index(index) as second, pytest.raises(LibraryError) as refused, second.held("forget"):
            pass
        assert f"in use by `recur library scan`, process {os.getpid()} on " in str(refused.value)
        assert "since 2" in str(refused.value)
    with Index(index) as second, second.held("forget"):
        pass


def test_where_the_index_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECUR_INDEX", str(tmp_path / "mine"))
    assert default_index() == tmp_path / "mine"
    monkeypatch.delenv("RECUR_INDEX")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_index() == tmp_path / "recur" / "library.sqlite"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_index() == tmp_path / ".local" / "share" / "recur" / "library.sqlite"


def test_archives(index: Path, model: Captioner, counted: list[int], tmp_path: Path) -> None:
    shard = tmp_path / "p" / "shard.tar"
    shard.parent.mkdir()

    def put(*members: tuple[str, bytes]) -> None:
        with tarfile.open(shard, "w") as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    members = [(f"./{number:04d}.jpg", encoded(number)) for number in range(4)]
    put(*members, ("0001.json", b"{}"), (".hidden.jpg", encoded(9)))
    assert counts(scan(index, model, tmp_path / "p")) == {"new": 4}
    assert rows(index, "SELECT path FROM files ORDER BY path")[0] == (os.fsencode(shard) + b"/0000.jpg",)
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": 4}
    put(*members[1:], ("0009.jpg", encoded(90)))
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": 3, "new": 1, "missing": 1}
    assert counted == [4, 1]
    shard.write_bytes(shard.read_bytes()[:3000])
    events: list[Event] = []
    outcome = scan(index, model, tmp_path / "p", tell=events.append)
    assert outcome.counts["missing"] == 0
    assert any("not a whole tar archive" in str(event.error) for event in events)


@pytest.mark.parametrize("struct", [True, False])
def test_tables(struct: bool, index: Path, model: Captioner, counted: list[int], tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    contents: list[bytes | None] = [encoded(number) for number in range(70)]
    contents[3] = None
    values = [content and {"bytes": content, "path": "x.jpg"} for content in contents] if struct else contents
    table = tmp_path / "p" / "train.parquet"
    table.parent.mkdir()
    parquet.write_table(pyarrow.table({"label": list(range(70)), "image": values}), table)
    parquet.write_table(pyarrow.table({"n": [1, 2]}), tmp_path / "p" / "numbers.parquet")
    events: list[Event] = []
    assert counts(scan(index, model, tmp_path / "p", tell=events.append)) == {"new": 69, "failed": 1}
    assert [str(e.error) for e in events if e.error] == [
        f"{table}/3: no bytes of a picture in this row; store the pictures in the table"
    ]
    assert events[0].path == f"{table}/0"
    assert counts(scan(index, model, tmp_path / "p")) == {"unchanged": 69, "failed": 1}
    assert counted == [69]
    (failure,) = [item for item in _walked(tmp_path / "p" / "numbers.parquet") if isinstance(item, InputError)]
    assert "no column of pictures among n" in str(failure)


def test_a_table_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    failure, archive = _walked(tmp_path / "x.parquet")
    assert str(failure) == (f'{tmp_path}/x.parquet: a Parquet table, which needs pyarrow; pip install "recur[library]"')
    assert not archive.whole


def _walked(path: Path) -> list[Any]:
    from recur.library.sources import walk

    return list(walk([str(path)]))


def test_a_stream_of_files(index: Path, model: Captioner, tmp_path: Path) -> None:
    paths = make(tmp_path / "p", 3)
    with Index(index, create=True) as library, library.held("scan"):
        outcome = Scan(library, model, languages=("en",)).run(str(path) for path in paths)
    assert counts(outcome) == {"new": 3}
