"""Boxes in four formats, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxes import write_boxed
from PIL import Image

from recur.data.boxes import BoxData, read_boxes
from recur.errors import RecurError


def picture(path: Path, width: int = 40, height: int = 30, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (width, height)).save(path, exif=exif)
    return path


def coco(folder: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    picture(folder / "images" / "a.jpg")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [{"id": number, "image_id": 1, **each} for number, each in enumerate(annotations)],
        **changes,
    }
    (folder / "instances_val.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "instances_val.json"


def boxes_of(data: BoxData) -> list[tuple[str, list[float]]]:
    return [
        (data.classes[label], box.tolist())
        for each in data.pictures
        for label, box in zip(each.labels, each.boxes, strict=True)
    ]


def test_annotations_jsonl(tmp_path: Path) -> None:
    data = read_boxes(write_boxed(tmp_path / "d"))
    assert data.classes == ("red", "green", "blue")
    assert len(data.split("train")) == 12
    assert len(data.split("dev")) == 4
    assert data.problems == ()
    assert all(each.path.is_file() for each in data.pictures)
    rows = [json.loads(line) for line in (tmp_path / "d" / "annotations.jsonl").read_text().splitlines()]
    expected = [(o["label"], [float(v) for v in o["box"]]) for row in rows for o in row["objects"] if o["label"]]
    assert boxes_of(data) == expected
    share = data.pictures[0].shares()[0]
    assert share.tolist() == (data.pictures[0].boxes[0] / [96, 64, 96, 64]).tolist()


def test_coco(tmp_path: Path) -> None:
    file = coco(
        tmp_path,
        [{"category_id": 9, "bbox": [2, 3, 10, 5]}, {"category_id": 7, "bbox": [0, 0, 40, 30], "iscrowd": 1}],
    )
    data = read_boxes(file)
    assert data.classes == ("dog", "cat")
    assert boxes_of(data) == [("cat", [2, 3, 12, 8]), ("dog", [0, 0, 40, 30])]
    assert data.pictures[0].ignored.tolist() == [False, True]
    assert data.pictures[0].split == "dev"  # the name of the file says so
    assert data.pictures[0].path == tmp_path / "images" / "a.jpg"
    assert boxes_of(read_boxes(tmp_path)) == boxes_of(data)


VOC = """<annotation><filename>{name}.jpg</filename><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>{difficult}</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def test_pascal_voc(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name, difficult in (("a", 0), ("b", 1)):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(VOC.format(name=name, difficult=difficult))
    (tmp_path / "Annotations" / "c.xml").write_text("<annotation><object>")
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    data = read_boxes(tmp_path)
    assert boxes_of(data) == [("dog", [0, 0, 20, 30])] * 2  # pixels count from 1 there, and the last one belongs to it
    assert [each.split for each in data.pictures] == ["train", "dev"]
    assert [each.ignored.tolist() for each in data.pictures] == [[False], [True]]
    assert data.pictures[0].path.is_file()
    assert len(data.problems) == 1
    assert "broken XML" in data.problems[0]


@pytest.mark.parametrize(
    "names", ["names: [dog, 'cat']\n", "nc: 2\nnames:\n  0: dog\n  1: cat\n", "names:\n- dog\n- cat\ntrain: x\n"]
)
def test_yolo(tmp_path: Path, names: str) -> None:
    (tmp_path / "data.yaml").write_text(names)
    picture(tmp_path / "images" / "train" / "a.jpg")
    picture(tmp_path / "images" / "val" / "b.jpg", orientation=6)  # 40 x 30 in the file, 30 x 40 for a person
    picture(tmp_path / "images" / "val" / "c.jpg")
    for split in ("train", "val"):
        (tmp_path / "labels" / split).mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.5 1.0\n")
    (tmp_path / "labels" / "val" / "b.txt").write_text("0 0.5 0.5 1 0.5\n5 0.5 0.5 1 1\nnonsense\n")
    data = read_boxes(tmp_path)
    assert data.classes == ("dog", "cat")
    assert boxes_of(data) == [("cat", [10, 0, 30, 30]), ("dog", [0, 10, 30, 30])]
    assert [each.split for each in data.pictures] == ["train", "dev", "dev"]
    assert len(data.pictures[2].boxes) == 0  # no text file: a picture without objects
    assert len(data.problems) == 2
    assert any("unknown class" in line for line in data.problems)


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"category_id": 7, "bbox": [50, 3, 10, 5]}, "outside its picture"),
    ({"category_id": 7, "bbox": [-30, -30, 10, 5]}, "outside its picture"),
    ({"category_id": 7, "bbox": [20, 3, -10, 5]}, "expected x0 < x1"),
    ({"category_id": 7, "bbox": [20, 3, 0, 5]}, "expected x0 < x1"),
    ({"category_id": 7, "bbox": [20, 3, float("nan"), 5]}, "expected x0 < x1"),
    ({"category_id": 7, "bbox": [20, 3, 5]}, "expected four numbers"),
    ({"category_id": 7, "bbox": None}, "expected four numbers"),
    ({"category_id": 8, "bbox": [20, 3, 5, 5]}, "unknown class 'id 8'"),
    ({"category_id": None, "bbox": [20, 3, 5, 5]}, "unknown class"),
    ({"category_id": 7, "bbox": [20, 3, 5, 5], "image_id": 2}, "image 2 is not in the file"),
    ({"category_id": 7, "bbox": [20, 3, 5, 5], "id": 0}, "its id is there twice"),
    ({"category_id": 7, "bbox": [1, 1, 5, 5]}, None),  # the same box once more: it counts once, and nothing is said
]


@pytest.mark.parametrize(("bad", "said"), BAD)
def test_a_bad_box_is_left_out_and_reported(tmp_path: Path, bad: dict[str, Any], said: str | None) -> None:
    data = read_boxes(coco(tmp_path, [{"category_id": 7, "bbox": [1, 1, 5, 5]}, bad]))
    assert boxes_of(data) == [("dog", [1, 1, 6, 6])]
    assert len(data.problems) == (said is not None)
    if said is not None:
        assert said in data.problems[0]


def test_a_box_that_sticks_out_is_cut(tmp_path: Path) -> None:
    data = read_boxes(coco(tmp_path, [{"category_id": 7, "bbox": [-5, -5, 100, 20]}]))
    assert boxes_of(data) == [("dog", [0, 0, 40, 15])]
    assert data.problems == ()


def test_a_picture_without_boxes_stays(tmp_path: Path) -> None:
    data = read_boxes(coco(tmp_path, []))
    assert len(data.pictures) == 1
    assert data.pictures[0].boxes.shape == (0, 4)
    assert data.unseen() == ("dog", "cat")


def test_five_thousand_boxes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    many = [{"category_id": 7, "bbox": [*random.uniform(0, 20, 2), *random.uniform(1, 10, 2)]} for _ in range(5000)]
    data = read_boxes(coco(tmp_path, many))
    assert len(data.pictures[0].boxes) == 5000


def test_many_problems_of_one_kind_become_one_line(tmp_path: Path) -> None:
    data = read_boxes(coco(tmp_path, [{"category_id": 7, "bbox": [5, 5, -1, -1]}] * 30))
    assert len(data.problems) == 6
    assert data.problems[-1].startswith("25 more of this kind")


def test_ids_of_images_and_categories_twice(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}] * 2
    categories = [{"id": 7, "name": "dog"}, {"id": 7, "name": "cat"}]
    data = read_boxes(coco(tmp_path, [{"category_id": 7, "bbox": [1, 1, 5, 5]}], images=images, categories=categories))
    assert data.classes == ("dog",)
    assert len(data.pictures) == 1
    assert len(data.problems) == 2
    assert all("twice" in line for line in data.problems)


@pytest.mark.parametrize("size", [{"width": 0}, {"height": None}, {"width": "wide"}, {"width": 1e12}, {"height": True}])
def test_a_picture_without_a_size_is_left_out(tmp_path: Path, size: dict[str, Any]) -> None:
    good = {"id": 2, "file_name": "b.jpg", "width": 4, "height": 4}
    images = [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30, **size}, good]
    data = read_boxes(coco(tmp_path, [], images=images))
    assert [each.path.name for each in data.pictures] == ["b.jpg"]
    assert "expected whole numbers" in data.problems[0]


def test_without_a_dev_split_a_tenth_is_held_out(tmp_path: Path) -> None:
    folder = write_boxed(tmp_path / "d", count=40)
    lines = (folder / "annotations.jsonl").read_text().replace('"split": "dev"', '"split": "train"')
    (folder / "annotations.jsonl").write_text(lines)
    first, second = read_boxes(folder), read_boxes(folder)
    names = [each.path.name for each in first.split("dev")]
    assert 1 <= len(names) <= 12
    assert names == [each.path.name for each in second.split("dev")]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "missing", "no such file"),
        (lambda folder: folder, "no boxes in this folder"),
        (lambda folder: _text(folder / "x.json", "[1, 2"), "broken JSON"),
        (lambda folder: _text(folder / "x.json", "[]"), "no COCO instances"),
        (lambda folder: _text(folder / "x.docx", ""), "not a file of boxes"),
        (lambda folder: _text(folder / "annotations.jsonl", "{}\n"), "no picture with boxes"),
        (lambda folder: _text(folder / "labels" / "a.txt", "").parent.parent, "no names of the classes"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(RecurError, match=said):
        read_boxes(make(tmp_path))


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
