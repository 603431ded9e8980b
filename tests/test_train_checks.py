"""The warnings: each comes when it should, and good data and good captions give none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from recur.data.captions import CaptionData, CaptionedPicture
from recur.data.text import Vocabulary
from recur.train import checks
from recur.train.checks import check_captions, check_data, difference_hash, near_pairs, small_greys

NOUNS = ("dog", "cat", "man", "boat", "horse")
PLACES = ("grass", "snow", "sand", "street", "water")


def data_of(
    rows: list[tuple[str, str, tuple[str, ...]]], folder: Path = Path("nowhere"), lang: str = "en"
) -> CaptionData:
    pictures = tuple(CaptionedPicture(folder / name, split, {lang: texts}) for name, split, texts in rows)  # type: ignore[arg-type]
    return CaptionData(pictures, "test", (lang,), ())


def good_rows() -> list[tuple[str, str, tuple[str, ...]]]:
    rows = []
    for i, noun in enumerate(NOUNS):
        for j, place in enumerate(PLACES):
            texts = (f"a {noun} on the {place}", f"one {noun} in {place}", f"the {place} and a {noun} number {i} {j}")
            rows.append((f"{noun}-{place}.jpg", ("train", "dev")[(i + j) % 2], texts))
    return rows


def test_good_data_gives_no_warning() -> None:
    assert check_data(data_of(good_rows()), pictures=False) == []


def test_single_references_of_held_out_pictures() -> None:
    rows = [("a.jpg", "train", ("a dog",)), ("b.jpg", "dev", ("a cat",)), ("c.jpg", "test", ("a man", "one man"))]
    (line,) = check_data(data_of(rows), pictures=False)
    assert line.startswith("en: 1 of 2 dev and test pictures have one caption only;")


def test_long_captions() -> None:
    long = " ".join(["very"] * 30) + " long"
    rows = [*good_rows(), ("long.jpg", "train", (long, "a dog"))]
    (line,) = check_data(data_of(rows), pictures=False)
    assert line.startswith("en: 1 of 77 captions have more than 24 words (the longest 31, of long.jpg)")
    rows = [*good_rows()] * 2 + [("long.jpg", "train", (long, "a dog"))]
    assert check_data(data_of(rows), pictures=False) == [], "one in 152 is no reason to speak up"


def test_captions_in_two_splits() -> None:
    rows = [
        *good_rows(),
        ("copy.jpg", "dev", ("A dog on the grass.", "one dog in grass", "the grass and a dog number 0 0")),
    ]
    (line,) = check_data(data_of(rows), pictures=False)
    assert "1 dev and test pictures have exactly the captions of a train picture" in line
    assert "copy.jpg (dev) and dog-grass.jpg (train)" in line
    rows = [(name, split, (texts[0], "the same words", "for all")) for name, split, texts in good_rows()]
    (line,) = check_data(data_of(rows), pictures=False)
    assert "24 of 36 dev and test captions are in train word for word" in line


def noise(seed: int, size: tuple[int, int] = (60, 80)) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def test_near_duplicate_pictures_across_splits(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        noise(i).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", ("train", "dev")[i % 2], (f"picture {i}", f"number {i}")))
    assert check_data(data_of(rows, tmp_path)) == []
    noise(0).resize((200, 160), Image.Resampling.BICUBIC).save(tmp_path / "again.jpg", quality=40)  # 0.png is in train
    noise(2).save(tmp_path / "same split.png")
    (tmp_path / "broken.png").write_bytes(b"?")
    for name, split in (("again.jpg", "dev"), ("same split.png", "train"), ("broken.png", "dev"), ("gone.png", "test")):
        rows.append((name, split, (name, name + "!")))
    for name, split in (("white.png", "train"), ("white too.png", "dev")):  # nothing to see: says nothing
        Image.new("RGB", (50, 50), "white").save(tmp_path / name)
        rows.append((name, split, (name, name + " 2")))
    (line,) = check_data(data_of(rows, tmp_path))
    assert line.startswith("1 dev pictures are nearly the same as one in train, for example again.jpg = 0.png;")


def test_near_pairs_against_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    base = random.uniform(0, 255, (40, 8, 9)).astype(np.float32)
    greys = base[random.integers(0, 40, 300)] + random.normal(0, 6, (300, 8, 9)).astype(np.float32)
    groups = np.array(["train", "dev", "test"])[random.integers(0, 3, 300)]
    bits = (np.diff(greys, axis=2) > 0).reshape(300, 64)
    slow = [
        (i, j)
        for i in range(300)
        for j in range(i + 1, 300)
        if groups[i] != groups[j] and (bits[i] != bits[j]).sum() <= 4 and np.abs(greys[i] - greys[j]).mean() <= 12
    ]
    assert 100 < len(slow) < 3000
    assert near_pairs(greys, groups=groups).tolist() == [list(pair) for pair in slow]
    monkeypatch.setattr(checks, "PAIRS_AT_ONCE", 7)  # many portions give the same
    assert near_pairs(greys, groups=groups).tolist() == [list(pair) for pair in slow]
    assert near_pairs(greys[:0], groups=groups[:0]).shape == (0, 2)


def test_hash_and_small_pictures(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(9, dtype=np.float32), (8, 1))[None]
    assert difference_hash(ramp).tolist() == [2**64 - 1]
    assert difference_hash(-ramp).tolist() == [0]
    left = np.zeros((72, 72, 3), np.uint8)
    left[:, :8] = 255  # exactly the first of nine columns
    Image.fromarray(left).save(tmp_path / "left.png")
    greys, kept = small_greys([tmp_path / "none.png", tmp_path / "left.png"])
    assert kept.tolist() == [1]
    assert greys.shape == (1, 8, 9)
    np.testing.assert_allclose(greys[0], np.tile([255.0] + [0.0] * 8, (8, 1)), atol=0.01)


# -------------------------------------------------------------------------------------------------- the captions


def references() -> list[list[str]]:
    return [[f"a {noun} on the {place}", f"one {noun} in {place}"] for noun in NOUNS for place in PLACES] * 2


def vocabulary() -> Vocabulary:
    return Vocabulary.build({"en": (text.split() for texts in references() for text in texts)}, 1)


def test_good_captions_give_no_warning() -> None:
    captions = [texts[i % 2] for i, texts in enumerate(references())]
    assert check_captions(captions, references(), vocabulary()) == []
    assert check_captions([], [], vocabulary()) == []


def test_the_same_caption_for_every_picture() -> None:
    lines = check_captions(["a dog on the grass"] * 50, references(), vocabulary())
    assert lines[0].startswith("all 50 pictures get the same caption, 'a dog on the grass';")
    assert "10 common words are never produced" in lines[1]
    assert "5 of the 15 words" in lines[1]
    captions = [texts[0] for texts in references()]
    captions[:20] = ["a dog on the grass"] * 20
    assert any(
        "the most common one ('a dog on the grass') for 21" in x
        for x in check_captions(captions, references(), vocabulary())
    )


def test_bad_endings_and_empty_captions() -> None:
    captions = [texts[0] for texts in references()]
    captions[:4] = ["a dog on the", "a man on a", "a boat on the", ""]
    lines = check_captions(captions, references(), vocabulary())
    assert lines[0].startswith("1 of 50 captions are empty;")
    assert lines[1].startswith("3 of 50 captions end on a word that no sentence ends on ('the' 2, 'a' 1);")
    chinese = [["一只狗在草地上", "狗在跑"]] * 30
    joined = [[" ".join(text) for text in texts] for texts in chinese]
    words = Vocabulary.build({"zh": (text.split() for texts in joined for text in texts)}, 1)
    cut = [joined[0][0] if i % 2 else "一 只 狗 在" for i in range(30)]
    assert any("end on a word" in line and "'在' 15" in line for line in check_captions(cut, joined, words))


def test_words_never_produced_are_those_the_model_knows() -> None:
    captions = [texts[0].replace("boat", "dog") for texts in references()]
    truth = [[*texts, "an unheard thing"] for texts in references()]
    lines = check_captions(captions, truth, vocabulary())
    assert len(lines) == 1
    assert "'one' (50 pictures)" in lines[0]
    assert "'boat' (10 pictures)" in lines[0]
    assert "unheard" not in lines[0]
