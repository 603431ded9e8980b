"""Text files of every kind become characters, and characters become numbers and come back."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recur.data.characters import (
    REPLACEMENT,
    UNKNOWN,
    Characters,
    decode_pieces,
    dev_begins,
    read_text,
)
from recur.errors import InputError, RecurError

MIXED = "To be, or not to be — 生存还是毁灭 — ser o no ser — שאלה — 👩‍👩‍👧 🇨🇳 e\u0301\n"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 7))
def test_text_cut_anywhere_is_the_same_text(text: str, size: int) -> None:
    data = text.encode("utf-8")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    expected = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(decode_pieces(pieces)) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), st.sampled_from([1, 2]))
def test_characters_come_back_or_are_unknown(text: str, least: int) -> None:
    if not any(text.count(character) >= least for character in text):
        return
    vocabulary = Characters.build(text, least)
    ids = vocabulary.encode(text)
    for character, number in zip(text, ids.tolist(), strict=True):
        assert (number == UNKNOWN) == (text.count(character) < least)
        if number != UNKNOWN:
            assert vocabulary.decode([number]) == character
    assert Characters.from_bytes(vocabulary.to_bytes()) == vocabulary


def test_mixed_scripts_and_emoji_are_code_points() -> None:
    vocabulary = Characters.build(MIXED)
    assert vocabulary.decode(vocabulary.encode(MIXED)) == MIXED
    assert len(vocabulary.encode("👩‍👩‍👧")) == 5  # three people and two joiners
    assert vocabulary.encode("Ж生").tolist() == [UNKNOWN, vocabulary.encode("生")[0]]
    assert vocabulary.decode([UNKNOWN]) == REPLACEMENT
    assert "生" in vocabulary
    assert "Ж" not in vocabulary


def test_lone_surrogates_of_file_names_are_unknown() -> None:
    assert Characters("ab").encode("a\udc80b").tolist() == [1, UNKNOWN, 2]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz"])
def test_files_packed_or_not(tmp_path: Path, name: str) -> None:
    data = "\ufeffone\r\ntwo\rthree\n".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else lzma.compress(data) if name[-2:] == "xz" else data)
    assert read_text(path) == ("one\ntwo\nthree\n", 0)


def test_utf_16_with_its_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        path = tmp_path / encoding
        path.write_bytes(("\ufeff" + MIXED).encode(encoding))
        assert read_text(path)[0] == MIXED


def test_what_is_no_text_is_kept_as_replacement_characters_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"The caf\xe9 is open, and all the rest of this line is plain text.")
    text, broken = read_text(path)
    assert broken == 1
    assert text.startswith(f"The caf{REPLACEMENT} is open")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", bytes(range(128, 256)) * 8, b"\0" * 100])
def test_empty_and_binary_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x: no text .*; expected"):
        read_text(path)


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / "none.txt")
    whole = lzma.compress(np.random.default_rng(0).bytes(1000).hex().encode())
    broken = {"cut.xz": whole[:-30], "cut.gz": b"\x1f\x8b\x08", "no.gz": b"plain", "no.xz": b"plain"}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_text(tmp_path / name)


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_bytes(b"abcde" * (2 << 20))
    text, broken = read_text(path)
    assert (len(text), broken) == (10 << 20, 0)
    assert Characters.build(text).encode(text)[-5:].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"[1]", b"{}", b'{"kind":"characters"}', b'{"kind":"characters","characters":"ba","version":1}',
     b'{"kind":"characters","characters":"","version":1}', b'{"kind":"characters","characters":"ab","version":2}'],
)  # fmt: skip
def test_odd_vocabularies_are_refused(content: bytes) -> None:
    with pytest.raises(RecurError, match=r"tokenizer\.json"):
        Characters.from_bytes(content)


def test_ids_that_there_are_not() -> None:
    for number in (-1, 3):
        with pytest.raises(RecurError, match=r"outside 0\.\.2"):
            Characters("ab").decode([1, number])


def test_the_last_tenth_is_kept_apart() -> None:
    assert dev_begins(1_115_394) == 1_003_854
