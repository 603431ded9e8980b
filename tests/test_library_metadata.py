"""Words in files: another program reads them; pixels, everything else and people's words stay; all can be undone."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library import captioner, encoded, make, picture, scan
from PIL import Image, ImageSequence

from recur.cli import main
from recur.errors import InputError
from recur.library import metadata, writing
from recur.library.patch import apply_patch, make_patch

pytest.importorskip("pyexiv2")
needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="exiftool is not there (Debian: libimage-exiftool-perl)"
)
FORMS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}
DESCRIPTION, ALT_TEXT = "XMP-dc:Description", "XMP-iptcCore:AltTextAccessibility"


def exiftool(*paths: Path, options: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """What exiftool says of each file, by path."""
    call = ["exiftool", "-j", "-G1", "-a", "-n", *options, *map(str, paths)]
    done = subprocess.run(call, capture_output=True, check=True)
    return {each["SourceFile"]: each for each in json.loads(done.stdout)}


def image_data(content: bytes) -> bytes:
    """The bytes that are picture, of a JPEG, PNG or WebP file: all but metadata, taken apart by hand."""
    kept = []
    if content[:2] == b"\xff\xd8":
        at = 2
        while content[at + 1] != 0xDA:  # from the start of scan on, all is picture
            size = int.from_bytes(content[at + 2 : at + 4], "big") + 2
            if not 0xE0 <= content[at + 1] <= 0xEF and content[at + 1] != 0xFE:
                kept.append(content[at : at + size])
            at += size
        return b"".join([*kept, content[at:]])
    if content[:4] == b"RIFF":
        at, order, extra, before, after = 12, "little", (b"VP8X", b"XMP ", b"EXIF"), 8, 0
    else:
        at, order, extra, before, after = 8, "big", (b"iTXt", b"tEXt", b"zTXt", b"eXIf"), 8, 4
    while at < len(content):
        kind = content[at : at + 4] if order == "little" else content[at + 4 : at + 8]
        length = content[at + 4 : at + 8] if order == "little" else content[at : at + 4]
        size = int.from_bytes(length, order) + before + after  # type: ignore[arg-type]
        size += size % 2 if order == "little" else 0
        if kind not in extra:
            kept.append(content[at : at + size])
        at += size
    return b"".join(kept)


def collection(folder: Path) -> dict[Path, bytes]:
    """Made pictures in every format, with and without metadata, and a real photograph in several sizes and formats."""
    folder.mkdir()
    number = 0
    for ending, form in FORMS.items():
        for taken in (None, "2024:02:03 04:05:06"):
            (folder / f"made {number}.{ending}").write_bytes(encoded(number, form, taken=taken, size=(90 + number, 70)))
            number += 1
    sample = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    shutil.copyfile(sample, folder / "photo.jpg")
    with Image.open(sample) as photo:
        for ending, form in FORMS.items():
            turned = photo.resize((200, 240)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            turned.crop((20, 40, 180, 200)).save(folder / f"photo {ending}.{ending}", form)
    (folder / "trailing.jpg").write_bytes(encoded(50) + b"what a phone keeps behind a picture" * 9)
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECUR_INDEX", str(tmp_path / "x.sqlite"))
    return tmp_path / "x.sqlite"


def texts_in(index: Path) -> dict[str, dict[str, str]]:
    from recur.library.index import Index
    from recur.library.query import Wanted, entries

    with Index(index) as library:
        return {e.place.path: {w.language: w.caption for w in e.words} for e in entries(library, Wanted())}


@needs_exiftool
@pytest.mark.parametrize("way", ["embed", "sidecar"])
def test_another_program_reads_the_words_and_nothing_else_changed(
    way: str, index: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_round_trip(way, collection(tmp_path / "p"), index, tiny_bundle, tmp_path / "p", capsys)


@needs_exiftool
@pytest.mark.data
@pytest.mark.skipif("RECUR_DATA" not in os.environ, reason="RECUR_DATA names no data")
def test_two_hundred_photographs(
    index: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = sorted((Path(os.environ["RECUR_DATA"]) / "photos").rglob("*.jpg"))
    (tmp_path / "p").mkdir()
    for number, path in enumerate(found[:: max(1, len(found) // 200)][:200]):
        shutil.copyfile(path, tmp_path / "p" / f"{number:03d}.jpg")
    files = {path: path.read_bytes() for path in sorted((tmp_path / "p").iterdir())}
    assert files
    check_round_trip("embed", files, index, tiny_bundle, tmp_path / "p", capsys)


def check_round_trip(
    way: str, files: dict[Path, bytes], index: Path, bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words there and back: as exiftool reads them, with every byte of the picture and all other metadata in place."""
    scan(index, captioner(bundle), folder, languages=("en", "zh"))
    told = exiftool(*files)
    assert main(["library", "write", f"--{way}"]) == 0
    assert f"{len(files)} written" in capsys.readouterr().out
    targets = {path: path if way == "embed" else Path(f"{path}.xmp") for path in files}
    read = exiftool(*targets.values())
    expected = texts_in(index)
    for path, content in files.items():
        words = read[str(targets[path])]
        for field in (DESCRIPTION, ALT_TEXT):
            assert words[field] == words[f"{field}-en"] == expected[str(path)]["en"]
            assert words[f"{field}-zh"] == expected[str(path)]["zh"]
        assert words["XMP-photoshop:CaptionWriter"] == f"recur {metadata.__version__} (tiny)"
        now = path.read_bytes()
        if way == "sidecar":
            assert now == content
            continue
        assert now != content
        if path.suffix != ".tif":
            assert image_data(now) == image_data(content)
        with Image.open(io.BytesIO(now)) as one, Image.open(io.BytesIO(content)) as other:
            assert (one.mode, one.size, one.tobytes()) == (other.mode, other.size, other.tobytes())
        ours = ("XMP-", "System:", "ExifTool:")
        layout = ("Offset", "Offsets", "StripByteCounts", "RowsPerStrip", "WebP_Flags", "ByteOrder", "File:FileType")
        for key, value in told[str(path)].items():
            if not key.startswith(ours) and not key.endswith(layout):
                assert words[key] == value, f"{path.name} {key}"
    assert main(["library", "write", f"--{way}"]) == 0
    assert f"0 written, {len(files)} have these words" in capsys.readouterr().out
    assert scan(index, captioner(bundle), folder).counts["unchanged"] == len(files)
    assert main(["library", "undo"]) == 0
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == files
    assert scan(index, captioner(bundle), folder).counts["unchanged"] == len(files)
    assert main(["library", "undo"]) == 0
    assert "nothing to take back" in capsys.readouterr().out


@needs_exiftool
@pytest.mark.parametrize(
    ("way", "tag", "stays"),
    [
        ("sidecar", "-XMP-dc:Description=Grandmother", {DESCRIPTION: "Grandmother"}),
        ("embed", "-XMP-dc:Description=Grandmother at the lake", {DESCRIPTION: "Grandmother at the lake"}),
        ("embed", "-XMP-iptcCore:AltTextAccessibility=An old woman", {ALT_TEXT: "An old woman"}),
        ("embed", "-IPTC:Caption-Abstract=Grandmother", {"IPTC:Caption-Abstract": "Grandmother"}),
        ("embed", "-EXIF:ImageDescription=Grandmother", {"IFD0:ImageDescription": "Grandmother"}),
        ("embed", "-EXIF:ImageDescription=OLYMPUS DIGITAL CAMERA", {}),
    ],
)
def test_words_of_people_stay(
    way: str, tag: str, stays: dict[str, str], index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    (path,) = make(tmp_path / "p", 1)
    others = ["-XMP-xmp:Rating=4", "-XMP-dc:Subject=lake", "-XMP-dc:Title=Summer", "-IPTC:Keywords=lake"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", tag, *others, str(path)], check=True)
    content = path.read_bytes()
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    caption = texts_in(index)[str(path)]["en"]
    target = path if way == "embed" else Path(f"{path}.xmp")
    assert main(["library", "write", f"--{way}"]) == 0
    read = exiftool(target)[str(target)]
    about = {DESCRIPTION, ALT_TEXT} - ({ALT_TEXT} if ALT_TEXT in stays else {DESCRIPTION} if stays else set())
    for field in (DESCRIPTION, ALT_TEXT):
        if field in about:
            assert read[field] == caption
        elif way == "embed" and field in stays:
            assert read[field] == stays[field]
        else:
            assert field not in read
    if way == "embed":
        assert stays.items() <= read.items()
    assert main(["library", "write", f"--{way}", "--overwrite"]) == 0
    read = exiftool(target)[str(target)]
    assert read[DESCRIPTION] == read[ALT_TEXT] == caption
    if way == "embed":
        kept = ("XMP-xmp:Rating", "XMP-dc:Subject", "XMP-dc:Title", "IPTC:Keywords")
        assert [read[key] for key in kept] == [4, "lake", "Summer", "lake"]
    assert main(["library", "undo"]) == main(["library", "undo"]) == 0
    assert path.read_bytes() == content
    assert not Path(f"{path}.xmp").exists()


@needs_exiftool
def test_a_person_who_mends_our_words_is_a_person(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    (path,) = make(tmp_path / "p", 1)
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    assert main(["library", "write"]) == 0
    sidecar = Path(f"{path}.xmp")
    for tag in ("Description", "AltTextAccessibility"):
        subprocess.run(["exiftool", "-q", "-overwrite_original", f"-{tag}=Two cats", str(sidecar)], check=True)
    mended = sidecar.read_bytes()
    capsys.readouterr()
    assert main(["library", "write"]) == 0
    assert "1 left with the words of a person" in capsys.readouterr().out
    assert main(["library", "undo"]) == 1
    assert capsys.readouterr().err == (f"{sidecar}: was changed after the words were written; take them out by hand\n")
    assert sidecar.read_bytes() == mended


def test_new_words_replace_our_old_ones(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    (path,) = make(tmp_path / "p", 1)
    scan(index, captioner(tiny_bundle), tmp_path / "p", languages=("en", "zh"))
    assert main(["library", "write", "--embed", "--lang", "zh"]) == 0
    assert main(["library", "write", "--embed", "--lang", "en"]) == 0
    words = metadata.read_words(path.read_bytes())
    assert words is not None
    assert set(words.description.texts) == {"x-default", "en"}
    assert not words.description.person
    assert scan(index, captioner(tiny_bundle), tmp_path / "p").counts["unchanged"] == 1


def test_what_cannot_be_written_is_a_line_each(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    import tarfile

    folder = tmp_path / "p"
    paths = make(folder, 2)
    picture(8).save(folder / "x.bmp")
    with tarfile.open(folder / "a.tar", "w") as archive:
        info = tarfile.TarInfo("in.jpg")
        info.size = len(encoded(9))
        archive.addfile(info, io.BytesIO(encoded(9)))
    scan(index, captioner(tiny_bundle), folder)
    paths[0].write_bytes(encoded(77))
    paths[1].unlink()
    capsys.readouterr()
    assert main(["library", "write", "--embed"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"{paths[0]}: was changed after it was described; scan again",
        f"{paths[1]}: no such file; scan again",
        f"{folder / 'a.tar'}/in.jpg: lies in an archive, which is not changed; unpack the archive and scan the folder",
        f"{folder / 'x.bmp'}: no words can be put into files of this format; use --sidecar",
    ]
    assert printed.out.startswith("0 written")


def test_a_read_only_folder_and_a_full_disk(
    index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = make(tmp_path / "p", 2)
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    capsys.readouterr()

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    content = path.read_bytes()
    for refused in (["replace"], ["open", "unlink"]):  # the disk is full at the end; there is no file to remove
        with monkeypatch.context() as patch:
            for name in refused:
                if name == "open":
                    patch.setattr(writing, name, refuse, raising=False)
                else:
                    patch.setattr(writing.os, name, refuse)
            assert main(["library", "write"]) == 1
            assert capsys.readouterr().err == "".join(
                f"{each}.xmp: cannot be written (Read-only file system); check permissions and free space\n"
                for each in (path, other)
            )
        for part in path.parent.glob(".*.recur-part"):
            part.unlink()
    assert sorted(path.parent.iterdir()) == [path, other]
    assert path.read_bytes() == content
    assert main(["library", "write"]) == 0


def test_links_permissions_and_dry_runs(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    (path,) = make(tmp_path / "real", 1)
    path.chmod(0o640)
    (tmp_path / "p").mkdir()
    link = tmp_path / "p" / "link.jpg"
    link.symlink_to(path)
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    content = path.read_bytes()
    assert main(["library", "write", "--embed", "--dry-run"]) == 0
    assert f"{path}\t" in capsys.readouterr().out
    assert path.read_bytes() == content
    assert main(["library", "write", "--embed"]) == 0
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes() != content
    assert scan(index, captioner(tiny_bundle), tmp_path / "p").counts["unchanged"] == 1


def test_all_pictures_of_a_file_stay(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "p").mkdir()
    pages = {"phone.jpg": "MPO", "scan.tif": "TIFF", "moving.webp": "WEBP", "moving.png": "PNG"}
    frames: dict[str, list[bytes]] = {}
    for name, form in pages.items():
        picture(1).save(tmp_path / "p" / name, form, save_all=True, append_images=[picture(2)])
        frames[name] = all_frames(tmp_path / "p" / name)
        assert len(frames[name]) == 2
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    assert main(["library", "write", "--embed"]) == 0
    assert "4 written" in capsys.readouterr().out
    assert {name: all_frames(tmp_path / "p" / name) for name in pages} == frames


def all_frames(path: Path) -> list[bytes]:
    with Image.open(path) as opened:
        return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(opened)]


def test_the_least_confidence(index: Path, tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    make(tmp_path / "p", 3)
    scan(index, captioner(tiny_bundle), tmp_path / "p")
    assert main(["library", "write", "--min-confidence", "1", "--dry-run"]) == 0
    assert "0 would be written" in capsys.readouterr().out


def test_without_the_package(index: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_loaded", [])
    monkeypatch.setitem(sys.modules, "pyexiv2", None)
    assert main(["library", "write"]) == 2
    assert capsys.readouterr().err == ('recur: writing words into files needs pyexiv2; pip install "recur[library]"\n')


def test_pixels_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = iter([b"one", b"other"])
    monkeypatch.setattr(metadata, "_pixels", lambda content: next(pixels))
    with pytest.raises(InputError, match="its pixels cannot be shown to stay as they are; use --sidecar"):
        metadata.with_words("x.jpg", encoded(1), {"x-default": "a"}, [metadata.ALT_TEXT], "m")


@given(st.binary(max_size=400), st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 400), st.integers(0, 80))
def test_a_patch_leads_back(old: bytes, put_in: bytes, behind: bytes, at: int, taken: int) -> None:
    new = old[:at] + put_in + old[at + taken :] + behind
    assert apply_patch(new, make_patch(old, new)) == old
    assert apply_patch(old, make_patch(new, old)) == new


def test_a_patch_is_small() -> None:
    old = os.urandom(200_000)
    for new in (old[:20] + b"x" * 3000 + old[20:], b"R" + old[1:] + b"y" * 3000, b"z" * 30 + old[4:] + b"y" * 3000):
        assert len(make_patch(old, new)) < 200


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=3))
def test_the_digest_knows_every_letter(texts: dict[str, str]) -> None:
    assert metadata.digest(texts) == metadata.digest(dict(reversed(texts.items())))
    for tag in texts:
        assert metadata.digest(texts) != metadata.digest({**texts, tag: texts[tag] + "x"})
