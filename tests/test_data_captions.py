"""Caption data in every format that is recognised, whole and broken."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recur.data.captions import CaptionData, hold_out, read_captions
from recur.errors import RecurError


def touch(folder: Path, *names: str) -> None:
    """Pictures are only looked for here, not opened, so empty files will do."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def lines(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    path.write_text(text, "utf-8")
    return path


def seen(data: CaptionData, root: Path) -> dict[str, tuple[str, dict[str, tuple[str, ...]]]]:
    return {os.path.relpath(p.path, root): (p.split, p.captions) for p in data.pictures}


def test_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/乙 b\n.jpg", "originals/a.jpg", "Flickr8k.token.txt")
    lines(
        tmp_path / "annotations.jsonl",
        {"file_name": "a.jpg", "split": "train", "captions": ["A  dog\n.", "A dog ."], "captions_zh": ["一只狗。"]},
        {"file_name": "乙 b\n.jpg", "split": "extra", "captions": ["Two cats"], "objects": [1]},
    )
    for path in (tmp_path, tmp_path / "annotations.jsonl", str(tmp_path)):
        data = read_captions(path)
        assert seen(data, tmp_path) == {
            "images/a.jpg": ("train", {"en": ("A dog .", "A dog ."), "zh": ("一只狗。",)}),
            "images/乙 b\n.jpg": ("none", {"en": ("Two cats",)}),
        }
        assert (data.format, data.languages, data.problems) == ("annotations", ("en", "zh"), ())
    assert read_captions(tmp_path, language="de").languages == ("de", "zh")


def test_other_folder_of_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "here/a.jpg", "data/images/a.jpg")
    lines(tmp_path / "data/annotations.jsonl", {"file_name": "a.jpg", "captions": ["A dog"]})
    assert read_captions(tmp_path / "data").pictures[0].path == tmp_path / "data/images/a.jpg"
    assert read_captions(tmp_path / "data", images=tmp_path / "here").pictures[0].path == tmp_path / "here/a.jpg"
    with pytest.raises(RecurError, match="gone: no such folder"):
        read_captions(tmp_path / "data", images=tmp_path / "gone")


def test_flickr(tmp_path: Path) -> None:
    touch(tmp_path, "Images/a.jpg", "Images/b.jpg", "Images/c.jpg")
    lines(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tA dog .\r\na.jpg#1\tA dog .\nb.jpg#0\tA cat\nc.jpg#0\tA #1 cow\n")
    lines(tmp_path / "Flickr8k.lemma.token.txt", "a.jpg#0\tdog\n")
    lines(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg\n")
    lines(tmp_path / "Flickr_8k.devImages.txt", "b.jpg\nd.jpg\n")
    data = read_captions(tmp_path)
    assert data.format == "flickr"
    assert seen(data, tmp_path) == {
        "Images/a.jpg": ("train", {"en": ("A dog .", "A dog .")}),
        "Images/b.jpg": ("dev", {"en": ("A cat",)}),
        "Images/c.jpg": ("none", {"en": ("A #1 cow",)}),
    }
    assert len(data.problems) == 2
    assert "'d.jpg' of the dev list has no caption" in data.problems[0]
    assert "1 of 3 pictures state no split, the others do ('c.jpg'); they are not used" in data.problems[1]


def coco(pictures: dict[int, str], captions: list[tuple[int, str]]) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": key, "file_name": name} for key, name in pictures.items()],
        "annotations": [{"id": n, "image_id": key, "caption": text} for n, (key, text) in enumerate(captions)],
    }


def test_coco_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train2017/1.jpg", "val2017/2.jpg", "train2014/COCO_1.jpg")
    train = coco({1: "1.jpg", 9: "gone.jpg"}, [(1, "A dog"), (1, "Dogs"), (9, "x"), (77, "y")])
    lines(tmp_path / "annotations/captions_train2017.json", train)
    lines(tmp_path / "annotations/captions_val2017.json", coco({2: "2.jpg"}, [(2, "A cat")]))
    lines(tmp_path / "annotations/captions_train2014.json", coco({1: "COCO_1.jpg"}, [(1, "A dog")]))
    lines(tmp_path / "annotations/instances_val2017.json", {"images": [], "annotations": []})
    data = read_captions(tmp_path)
    expected = {
        "train2017/1.jpg": ("train", {"en": ("A dog", "Dogs")}),
        "val2017/2.jpg": ("dev", {"en": ("A cat",)}),
    }
    assert data.format == "coco"
    assert seen(data, tmp_path) == expected
    assert ["2014" in data.problems[0], "77" in data.problems[1], "gone.jpg" in data.problems[2]] == [True] * 3
    assert seen(read_captions(tmp_path / "annotations"), tmp_path) == expected
    one = read_captions(tmp_path / "annotations/captions_train2014.json")
    assert seen(one, tmp_path) == {"train2014/COCO_1.jpg": ("train", {"en": ("A dog",)})}


def test_coco_file_beside_its_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    data = read_captions(lines(tmp_path / "my.json", coco({1: "1.jpg", 2: "2.jpg"}, [(1, "A dog"), (2, "A cat")])))
    assert data.format == "coco"
    assert sorted(picture.split for picture in data.pictures) == ["dev", "train"]


def test_karpathy(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "val2014/2.jpg", "images/3.jpg", "images/4.jpg")
    entries = [
        {"filename": "1.jpg", "split": "restval", "sentences": [{"raw": "A dog."}, {"tokens": ["a", "cat"]}]},
        {"filename": "2.jpg", "filepath": "val2014", "split": "val", "sentences": [{"raw": "A cow."}]},
        {"filename": "3.jpg", "split": "test", "sentences": [{"raw": "A pig."}]},
        {"filename": "4.jpg", "split": "held", "sentences": [{"raw": "A fox."}]},
        {"filename": "1.jpg", "split": "restval", "sentences": [{"raw": "A dog."}, {"raw": "New."}]},
        {"sentences": []},
    ]
    data = read_captions(lines(tmp_path / "dataset.json", {"images": entries, "dataset": "x"}))
    assert data.format == "karpathy"
    assert seen(data, tmp_path) == {
        "images/1.jpg": ("train", {"en": ("A dog.", "a cat", "New.")}),
        "val2014/2.jpg": ("dev", {"en": ("A cow.",)}),
        "images/3.jpg": ("test", {"en": ("A pig.",)}),
    }
    assert len(data.problems) == 2
    assert "unknown split 'held' of picture '4.jpg'; expected train, dev, test or none" in data.problems[1]
    assert read_captions(tmp_path).pictures == data.pictures


def test_metadata_csv(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b c.jpg", "sub/d.jpg")
    text = (
        "\ufefffile_name,text,split,language\r\n"
        'a.jpg,"A dog, running",train,en\r\n'
        "a.jpg,一只狗,train,zh\r\n"
        "b c.jpg,A cat,validation,\r\n"
        "a.jpg,A dog, unquoted,train,en\r\n"
        "\r\n"
        "sub/d.jpg,,test,en\r\n"
        "sub/d.jpg,A cow,test,en\r\n"
    )
    (tmp_path / "metadata.csv").write_bytes(text.encode())
    data = read_captions(tmp_path)
    assert data.format == "metadata"
    assert seen(data, tmp_path) == {
        "a.jpg": ("train", {"en": ("A dog, running",), "zh": ("一只狗",)}),
        "b c.jpg": ("dev", {"en": ("A cat",)}),
        "sub/d.jpg": ("test", {"en": ("A cow",)}),
    }
    assert len(data.problems) == 2
    assert "metadata.csv:5: 5 cells, the header has 4" in data.problems[0]
    assert "metadata.csv:7: caption of 'sub/d.jpg' is empty" in data.problems[1]


def test_other_tables(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg")
    assert len(read_captions(lines(tmp_path / "captions.txt", "image,caption\na.jpg,A dog\n")).pictures) == 1
    assert len(read_captions(tmp_path).pictures) == 1
    assert len(read_captions(lines(tmp_path / "x.tsv", "text\tfile_name\nA, dog\ta.jpg\n")).pictures) == 1
    assert len(read_captions(lines(tmp_path / "y.csv", "file_name;text\nimages\\a.jpg;A dog\n")).pictures) == 1


def test_metadata_in_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "validation/1.jpg")
    lines(
        tmp_path / "train/metadata.jsonl", {"file_name": "1.jpg", "text": "A dog"}, {"file_name": "2.jpg", "text": "x"}
    )
    lines(tmp_path / "validation/metadata.csv", "file_name,text\n1.jpg,A cat\n2.jpg,y\n")
    data = read_captions(tmp_path)
    assert seen(data, tmp_path) == {
        "train/1.jpg": ("train", {"en": ("A dog",)}),
        "validation/1.jpg": ("dev", {"en": ("A cat",)}),
    }
    assert len(data.problems) == 2, "each missing picture once in each folder"


def test_split_from_the_folder_in_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "test/2.jpg", "3.jpg")
    names = ("train/1.jpg", "test/2.jpg", "3.jpg")
    lines(tmp_path / "metadata.jsonl", *({"file_name": name, "text": ["A dog", "Dogs"]} for name in names))
    data = read_captions(tmp_path)
    assert [picture.split for picture in data.pictures] == ["train", "test", "none"]
    (problem,) = data.problems
    assert problem.startswith(f"{tmp_path}: 1 of 3 pictures state no split, the others do ('3.jpg'); ")


# What is wrong with some of it.


def test_problems_are_collected_one_line_each(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg")
    path = lines(
        tmp_path / "annotations.jsonl",
        {"file_name": "a.jpg", "split": "train", "captions": ["A dog", " ", "!!", None, 7]},
        '{"file_name": "b.jpg", "cap\n',
        {"file_name": "no\nsuch.jpg", "split": "train", "captions": ["x"]},
        {"file_name": "no\nsuch.jpg", "split": "train", "captions": ["x"]},
        {"file_name": "b.jpg", "split": "trian", "captions": ["x"]},
        "[1]\n",
        {"captions": ["x"]},
        {"file_name": "c.jpg", "split": "dev", "captions": []},
        {"file_name": "c.jpg", "split": ["dev"], "captions": []},
        "\n",
        {"file_name": "a\0.jpg", "captions": ["x"]},
    )
    path.write_bytes(path.read_bytes() + b'{"file_name": "\xff"}\n')
    data = read_captions(tmp_path)
    assert seen(data, tmp_path) == {"images/a.jpg": ("train", {"en": ("A dog",)})}
    parts = [
        (1, "caption of 'a.jpg' is empty (' ')"),
        (1, "caption of 'a.jpg' is empty ('!!')"),
        (1, "caption of 'a.jpg' is a NoneType"),
        (1, "caption of 'a.jpg' is a int"),
        (2, "broken JSON"),
        (3, r"picture 'no\nsuch.jpg' is not in"),
        (5, "unknown split 'trian'"),
        (6, "got a JSON list"),
        (7, "no file_name"),
        (9, "unknown split ['dev']"),
        (11, r"picture 'a\x00.jpg' is not in"),
        (12, "not UTF-8"),
    ]
    found = list(data.problems)
    assert all("\n" not in problem and problem.count(";") >= 1 for problem in found)
    for line, part in parts:
        assert any(f"annotations.jsonl:{line}: " in problem and part in problem for problem in found), part
    assert any("'c.jpg' has no caption" in problem for problem in found)
    assert len(found) == len(parts) + 1


def test_duplicates_are_merged(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    lines(
        tmp_path / "annotations.jsonl",
        {"file_name": "a.jpg", "split": "train", "captions": ["A dog", "A dog"]},
        {"file_name": "b.jpg", "captions": ["A cat"], "split": "train"},
        {"file_name": "a.jpg", "split": "dev", "captions": ["A dog", "Dogs"], "captions_zh": ["狗"]},
        {"file_name": "../images/a.jpg", "captions": ["Again"]},
    )
    data = read_captions(tmp_path)
    assert seen(data, tmp_path) == {
        "images/a.jpg": ("dev", {"en": ("A dog", "A dog", "Dogs", "Again"), "zh": ("狗",)}),
        "images/b.jpg": ("train", {"en": ("A cat",)}),
    }
    assert len(data.problems) == 1
    assert "'a.jpg' is in train and in dev; kept in dev" in data.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", '{"images": [\n1,\n}', r"x\.json:3: broken JSON"),
        ("x.json", '{"images": []}', "none usable"),
        ("x.json", "[]", "neither COCO"),
        ("x.json", "[" * 99_999, "broken JSON"),
        ("x.jsonl", "{\n", r"none usable.*first problem: .*x\.jsonl:1: broken JSON"),
        ("x.jsonl", '{"file_name": "gone.jpg", "text": "A dog"}\n', "none usable.*'gone.jpg' is not in"),
        ("x.csv", "name,words\na.jpg,A dog\n", r"x\.csv:1: columns are name, words; expected file_name and text"),
        ("x.csv", "", "columns are none"),
        ("x.csv", 'file_name,text\na.jpg,"A dog\n', r"x\.csv:2: broken CSV"),
        ("x.csv", b"file_name,text\na.jpg,caf\xe9\n", r"x\.csv:2: not UTF-8"),
        ("x.txt", "hello\n", "not a caption file"),
        ("x.doc", "hello\n", "not a caption file"),
    ],
)
def test_nothing_usable_is_an_error(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecurError, match=f"(?s){message}"):
        read_captions(tmp_path / name)


def test_no_caption_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(RecurError, match=r"no caption file in this folder; expected annotations\.jsonl"):
        read_captions(tmp_path)
    with pytest.raises(RecurError, match="no such file or folder"):
        read_captions(tmp_path / "gone")


# Splits and languages that the data does not state.


def unsplit(folder: Path, count: int) -> CaptionData:
    names = [f"{index}.jpg" for index in range(count)]
    touch(folder, *names)
    lines(folder / "metadata.jsonl", *({"file_name": name, "text": "A dog"} for name in names))
    return read_captions(folder)


def test_hash_split(tmp_path: Path) -> None:
    data = unsplit(tmp_path / "many", 400)
    dev = {picture.path.name for picture in data.pictures if picture.split == "dev"}
    assert Counter(picture.split for picture in data.pictures).keys() == {"train", "dev"}
    assert 8 <= len(dev) <= 35, "about 5 % of 400"
    fewer = unsplit(tmp_path / "fewer", 300)
    still = {picture.path.name for picture in fewer.pictures if picture.split == "dev"}
    assert still == {name for name in dev if int(name[:-4]) < 300}, "more pictures move none of the others"
    assert sorted(picture.split for picture in unsplit(tmp_path / "two", 2).pictures) == ["dev", "train"]
    assert [picture.split for picture in unsplit(tmp_path / "one", 1).pictures] == ["train"]


def test_hold_out(tmp_path: Path) -> None:
    names = [f"{index}.jpg" for index in range(30)]
    touch(tmp_path, *names)
    lines(tmp_path / "metadata.jsonl", *({"file_name": n, "text": "A dog", "split": "train"} for n in names))
    data = read_captions(tmp_path)
    assert {picture.split for picture in data.pictures} == {"train"}
    held = hold_out(data)
    assert [picture.split for picture in held.pictures].count("dev") >= 1
    assert hold_out(held) is held
    assert [picture.path for picture in held.pictures] == [picture.path for picture in data.pictures]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A dog", "en"),
        ("一只 T恤", "zh"),
        ("赤い犬が走る", "ja"),
        ("빨간 개", "ko"),
        ("собака", "ru"),
        ("หมา", "th"),
        ("1", "en"),
    ],
)
def test_language_is_guessed_from_the_script(text: str, language: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    lines(tmp_path / "metadata.jsonl", {"file_name": "a.jpg", "text": text})
    assert read_captions(tmp_path).languages == (language,)
    assert read_captions(tmp_path, language="xx").languages == ("xx",)


def test_names_composed_differently(tmp_path: Path) -> None:
    touch(tmp_path, "cafe\u0301.jpg")
    lines(tmp_path / "metadata.jsonl", {"file_name": "caf\u00e9.jpg", "text": "A cup"})
    assert len(read_captions(tmp_path).pictures) == 1


@pytest.mark.data
def test_flickr8k_reads_the_same_in_both_formats() -> None:
    folder = Path(os.environ.get("RECUR_DATA", "")) / "flickr8k"
    if not os.environ.get("RECUR_DATA") or not folder.is_dir():
        pytest.skip("RECUR_DATA is not set, or holds no flickr8k")
    ours, theirs = read_captions(folder), read_captions(folder / "Flickr8k.token.txt")
    assert (ours.format, theirs.format, ours.problems) == ("annotations", "flickr", ())
    assert ["91 of 7091 pictures state no split" in problem for problem in theirs.problems] == [True]
    assert Counter(picture.split for picture in ours.pictures) == {"train": 6000, "dev": 1000, "none": 91}
    assert {p.path: (p.split, p.captions["en"]) for p in ours.pictures} == {
        p.path: (p.split, p.captions["en"]) for p in theirs.pictures
    }
    assert ours.languages == ("en", "zh")
