"""Where pictures are found: paths as ranges, links and loops, hidden names; and hashes, against plain comparison."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library import encoded, make, picture

from recur.library import hashes
from recur.library.exif import taken
from recur.library.index import SCHEMA, within
from recur.library.scan import Bits
from recur.library.sources import Archive, Place, contains, roots, walk

NAME = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=4)
PATH = st.lists(NAME, max_size=4).map(lambda names: "/" + "/".join(names))
HASH = st.binary(min_size=16, max_size=16)


@given(PATH, PATH)
def test_the_range_of_a_folder_holds_what_is_in_it_and_nothing_else(folder: str, path: str) -> None:
    low, high = within(os.fsencode(folder))
    inside = path.startswith(folder.rstrip("/") + "/") and path.rstrip("/") != folder.rstrip("/")
    if path != "/":
        assert (low <= os.fsencode(path) < high) is inside
    below = os.fsencode(folder.rstrip("/") + "/x")
    assert low <= below < high


@given(st.lists(PATH, max_size=6))
def test_roots_cover_everything_once(paths: list[str]) -> None:
    kept = roots(paths)
    for path in map(os.path.abspath, paths):
        assert sum(contains(root, path) for root in kept) == 1
    assert not [one for one in kept for other in kept if one != other and contains(one, other)]


def walked(*places: Path) -> list[str]:
    return [item.path for item in walk(roots(map(str, places))) if isinstance(item, Place)]


def test_hidden_names_order_and_what_is_named_outright(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", ".c.jpg", ".d/e.jpg", "f/g.HEIC", "f/notes.txt", "b.JPEG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert walked(tmp_path) == [str(tmp_path / name) for name in ("a.png", "b.JPEG", "b.jpg", "f/g.HEIC")]
    assert walked(tmp_path / ".c.jpg", tmp_path / ".d") == [str(tmp_path / ".c.jpg"), str(tmp_path / ".d" / "e.jpg")]


def test_links(tmp_path: Path) -> None:
    make(tmp_path / "in", 1)
    make(tmp_path / "out" / "deep", 1, first=50)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "up").symlink_to(tmp_path)  # leads out, to what holds the folder itself
    (tmp_path / "in" / "again").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "out" / "deep")
    (tmp_path / "in" / "file.jpg").symlink_to(tmp_path / "in" / "000" / "00000.jpg")
    (tmp_path / "in" / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "in" / "itself.jpg").symlink_to(tmp_path / "in" / "itself.jpg")
    assert walked(tmp_path / "in") == [
        str(tmp_path / "in" / name) for name in ("000/00000.jpg", "again/deep/005/00050.jpg", "file.jpg")
    ]
    failures = [item for item in walk([str(tmp_path / "in")]) if not isinstance(item, Place | Archive)]
    assert [Path(failure.path).name for failure in failures] == ["itself.jpg", "nowhere.jpg"]


def test_folders_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1020):
            os.mkdir("d")
            os.chdir("d")
        Path("x.jpg").write_bytes(b"x")
    finally:
        os.chdir(here)
    try:
        found = walked(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own way to tidy up nests calls, too
    assert len(found) == 1
    assert found[0].endswith("/d/x.jpg")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe \n\t.jpg"
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert [os.fsencode(path) for path in walked(tmp_path)] == [name]


@given(st.sets(st.integers(0, 100_000), max_size=50), st.integers(0, 100_000))
def test_bits_are_a_set(numbers: set[int], other: int) -> None:
    bits = Bits()
    for number in numbers:
        bits.add(number)
    assert all(number in bits for number in numbers)
    assert (other in bits) is (other in numbers)


# ------------------------------------------------------------------------------------------------------------- hashes


@given(st.lists(HASH, min_size=1, max_size=12), HASH, st.lists(st.integers(0, 127), max_size=12), st.integers(1, 13))
def test_nearest_is_what_comparing_all_of_them_finds(
    stored: list[bytes], other: bytes, flips: list[int], together: int
) -> None:
    value = int.from_bytes(stored[0], "big")
    for bit in flips:
        value ^= 1 << bit
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    likeness = hashes.Likeness(db)
    for number, each in enumerate(stored, start=1):
        db.execute("INSERT INTO pictures (id, width, height, hash) VALUES (?, 1, 1, ?)", (number, each))
        likeness.remember(number, each)
        likeness.settle(least=together)
    for asked in (value.to_bytes(16, "big"), other):
        gaps = [hashes.distance(each, asked) for each in stored]
        expected = gaps.index(min(gaps)) + 1 if min(gaps) <= hashes.BOUND else None
        assert likeness.nearest(asked) == expected
        # One that begins here, as after a kill, knows what had been put into the table and what had not.
        assert hashes.Likeness(db).nearest(asked) == expected
    likeness.settle(least=1)
    hashes.forget(db, 1, stored[0])
    assert hashes.Likeness(db).nearest(stored[0]) != 1 or len(stored) == 1
    db.close()


@given(HASH, HASH)
def test_within_the_bound_a_band_is_equal(one: bytes, other: bytes) -> None:
    if hashes.distance(one, other) <= hashes.BOUND:
        assert set(hashes.bands(one)) & set(hashes.bands(other))
    assert len(set(hashes.bands(one))) == hashes.BANDS


@pytest.mark.parametrize("seed", range(12))
def test_the_look_stays_when_a_picture_is_resized_or_compressed(seed: int) -> None:
    large = picture(seed, (640, 480))
    look = hashes.looks(np.asarray(large))
    other = hashes.looks(np.asarray(picture(seed + 100, (640, 480))))
    assert look is not None
    assert other is not None
    assert hashes.distance(look, other) > 2 * hashes.BOUND
    for size in ((320, 240), (200, 150), (900, 700)):
        small = hashes.looks(np.asarray(large.resize(size)))
        assert small is not None
        assert hashes.distance(look, small) <= hashes.BOUND


# ---------------------------------------------------------------------------------------------------------------- exif


@given(st.binary(max_size=300))
def test_broken_exif_is_none(rubbish: bytes) -> None:
    for start in (b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0", b"xxeXIfMM\0*"):
        found = taken(start + rubbish)
        assert found is None or len(found) == 19


@pytest.mark.parametrize(
    ("written", "read"),
    [("2024:05:06 07:08:09", "2024-05-06T07:08:09"), ("0000:00:00 00:00:00", None), ("    :  :     :  :  ", None)],
)
def test_dates(written: str, read: str | None) -> None:
    assert taken(encoded(1, taken=written)) == read
    order = struct.pack(">4sIHHHII", b"MM\0*", 8, 1, 0x0132, 2, 20, 26) + bytes(4)
    assert taken(order[:22] + struct.pack(">I", 26) + written.encode() + b"\0") == read
