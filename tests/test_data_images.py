"""Reading pictures: every kind of file that people have, and every way one can be broken."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recur.data import images
from recur.data.images import SUFFIXES, Picture, Square, find_pictures, iterate_pictures, read_picture, to_square
from recur.errors import InputError


def quarters(width: int = 80, height: int = 60) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray[Any, Any]) -> list[str]:
    """Nearest named colour in the middle of each quarter, row by row."""
    names = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "w": (255, 255, 255), "k": (0, 0, 0)}
    rows, columns = pixels.shape[:2]
    found = []
    for y in (rows // 4, rows * 3 // 4):
        for x in (columns // 4, columns * 3 // 4):
            colour = pixels[y, x].astype(int)
            found.append(min(names, key=lambda name: int(np.abs(colour - names[name]).sum())))
    return found


def as_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refused(source: Any, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read_picture(source, **options)
    assert caught.value.what
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_common_formats(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"四 photo\n.{kind.lower()}"
    path.write_bytes(as_bytes(quarters(), kind))
    picture = read_picture(path)
    assert (picture.width, picture.height, picture.notes) == (80, 60, ())
    assert picture.pixels.shape == (60, 80, 3)
    assert picture.pixels.dtype == np.uint8
    assert corners(picture.pixels) == ["r", "g", "b", "w"]


def test_every_kind_of_source(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(as_bytes(quarters()))
    expected = np.asarray(quarters())
    for source in (path, str(path), path.read_bytes(), quarters(), expected):
        assert np.array_equal(read_picture(source).pixels, expected)


# Colour.


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "I;16", "F", "RGBa"])
def test_modes_become_rgb(mode: str) -> None:
    picture = read_picture(quarters().convert("L").convert(mode) if mode == "I;16" else convert(mode))
    assert picture.pixels.shape == (60, 80, 3)
    assert picture.pixels.dtype == np.uint8


def convert(mode: str) -> Image.Image:
    if mode == "PA":
        return quarters().convert("P").convert("PA")
    if mode in ("LA", "F"):
        return quarters().convert("L").convert(mode)
    return quarters().convert("RGBA").convert(mode) if mode == "RGBa" else quarters().convert(mode)


def test_cmyk_jpeg() -> None:
    picture = read_picture(as_bytes(quarters().convert("CMYK"), "JPEG", quality=95))
    assert corners(picture.pixels) == ["r", "g", "b", "w"]


def test_sixteen_bit_grey_png_is_scaled_not_clipped() -> None:
    ramp = np.array([[0, 256, 32768, 65535]], np.uint16)
    for source in (Image.fromarray(ramp), as_bytes(Image.fromarray(ramp))):
        assert read_picture(source).pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_grey_png_with_a_see_through_value() -> None:
    data = as_bytes(Image.fromarray(np.array([[0, 512, 65535]], np.uint16)))
    chunk = b"tRNS" + struct.pack(">H", 512)
    cut = data.index(b"IDAT") - 4
    data = data[:cut] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[cut:]
    assert read_picture(data).pixels[0, :, 1].tolist() == [0, 255, 255]


def test_wide_grey_is_stretched_and_says_so() -> None:
    picture = read_picture(Image.fromarray(np.array([[-100, 0, 100]], np.int32)))
    assert picture.pixels[0, :, 0].tolist() == [0, 128, 255]
    assert picture.notes == ("values -100 to 100 stretched to black and white",)
    unit = read_picture(Image.fromarray(np.array([[0, 0.5, 1, np.nan]], np.float32)))
    assert unit.pixels[0, :, 0].tolist() == [0, 128, 255, 0]
    assert unit.notes == ()
    flat = read_picture(Image.fromarray(np.full((1, 2), 7, np.int32)))
    assert flat.pixels.max() == 0


def test_transparency_is_white() -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = (0, 128, 255)
    for source in (as_bytes(Image.fromarray(pixels)), as_bytes(Image.fromarray(pixels), "WEBP", lossless=True), pixels):
        assert read_picture(source).pixels[0, :, 0].tolist() == [255, 127, 0]
    grey = np.zeros((1, 2, 2), np.uint8)
    grey[0, 1, 1] = 255
    assert read_picture(as_bytes(Image.fromarray(grey))).pixels[0, :, 2].tolist() == [255, 0]


def test_transparent_palette_and_transparent_colour() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    assert read_picture(as_bytes(palette, transparency=0)).pixels[0].tolist() == [[255, 255, 255], [255, 0, 0]]
    assert read_picture(as_bytes(palette, transparency=b"\xff\x00")).pixels[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert read_picture(as_bytes(quarters(), transparency=(255, 0, 0))).pixels[0, 0].tolist() == [255, 255, 255]
    assert read_picture(as_bytes(quarters().convert("L"), transparency=76)).pixels[0, 0].tolist() == [255, 255, 255]


# Size and orientation.


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(kind: str, orientation: int) -> None:
    lay_down = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters() if orientation == 1 else quarters().transpose(lay_down[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(as_bytes(stored, kind, exif=exif))
    assert (picture.width, picture.height) == (80, 60)
    assert picture.pixels.shape == (60, 80, 3)
    assert corners(picture.pixels) == ["r", "g", "b", "w"]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_broken_exif_does_not_matter(exif: bytes) -> None:
    assert corners(read_picture(as_bytes(quarters(), "JPEG", exif=exif)).pixels) == ["r", "g", "b", "w"]


def test_big_jpeg_is_reduced_while_decoding() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = as_bytes(quarters(1000, 600).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    picture = read_picture(data, target=100)
    assert (picture.width, picture.height) == (1000, 600)
    assert picture.pixels.shape[0] >= 100
    assert picture.pixels.shape[1] >= 100
    assert picture.pixels.size < 1000 * 600
    assert corners(picture.pixels) == ["r", "g", "b", "w"]
    assert read_picture(data, target=600).pixels.shape == (600, 1000, 3)
    assert read_picture(as_bytes(quarters(1000, 600)), target=100).pixels.shape == (200, 334, 3)


def test_one_pixel() -> None:
    picture = read_picture(as_bytes(Image.new("RGB", (1, 1), (9, 8, 7))))
    assert to_square(picture, 4).reshape(-1, 3).tolist() == [[9, 8, 7]] * 16


def test_square_is_the_whole_picture_smoothly() -> None:
    square = to_square(read_picture(quarters(501, 370)), 64)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    assert corners(square) == ["r", "g", "b", "w"]
    stripes = np.zeros((64, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(to_square(stripes, 32).astype(int) - 127).max() < 8, "fine stripes must become grey, not patterns"
    same = np.asarray(quarters(8, 8))
    assert to_square(same, 8) is same


# Animations.


@pytest.mark.parametrize(
    ("kind", "note"), [("GIF", "animated"), ("WEBP", "animated"), ("PNG", "animated"), ("TIFF", "several pages")]
)
def test_first_frame_of_an_animation(kind: str, note: str) -> None:
    frames = [quarters().convert("P") if kind == "GIF" else quarters(), Image.new("RGB", (80, 60), (0, 0, 0))]
    picture = read_picture(as_bytes(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert corners(picture.pixels) == ["r", "g", "b", "w"]
    assert len(picture.notes) == 1
    assert picture.notes[0].startswith(note)
    assert "first" in picture.notes[0]


# What is refused.


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    assert refused(tmp_path / "no such.jpg").what == "no such file"
    assert refused(tmp_path).what == "no picture in this folder"
    (tmp_path / "empty.jpg").touch()
    assert refused(tmp_path / "empty.jpg").what == "empty file"
    assert refused(b"").what == "empty file"
    assert "expected one picture" in refused(tmp_path).what
    assert refused(tmp_path / "empty.jpg" / "x.jpg").what == "no such file"
    assert "cannot be opened" in refused("a\0b").what
    assert str(refused(tmp_path / "no.jpg")) == f"{tmp_path / 'no.jpg'}: no such file; check the path"


def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refused(tmp_path / "pipe.jpg").what == "not an ordinary file"


def test_truncated_jpeg() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = as_bytes(noise, "JPEG")
    assert "cut off" in refused(data[: len(data) // 2]).what
    refused(data[:20])


def test_truncated_png_and_damaged_png() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = as_bytes(noise)
    refused(data[: len(data) // 2])
    middle = len(data) // 2
    refused(data[:middle] + b"\0" * 200 + data[middle + 200 :])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Dear reader, 你好\n".encode() * 40, "text"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"%PDF-1.7 ...", "PDF"),
        (bytes(range(256)) * 4, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
    ],
)
def test_not_a_picture(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert message in refused(path).what


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(as_bytes(quarters()))

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # chmod would not stop root
    assert refused(path).what == "no permission to read it"


def huge_png(width: int, height: int) -> bytes:
    """Only the header of a picture of that size: decoding it would fail, so a refusal must come before."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def test_too_many_pixels_is_refused_from_the_header() -> None:
    error = refused(huge_png(20_000, 20_000))
    assert "20000x20000 pixels" in error.what
    assert "100,000,000" in error.what
    assert "max_pixels" in error.fix
    limit = Image.MAX_IMAGE_PIXELS
    assert "pixels" not in refused(huge_png(20_000, 20_000), max_pixels=10**9).what, "the limit can be raised"
    assert limit == Image.MAX_IMAGE_PIXELS, "Pillow's own limit is left as it was"
    assert "80x60" in refused(quarters(), max_pixels=4_799).what
    assert read_picture(quarters(), max_pixels=4_800).width == 80


def test_a_slow_header_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's settings are those of the process: two threads share the change, and the last one takes it back."""
    identify = images._identify
    both = threading.Barrier(2)

    def slow(stream: Any) -> Image.Image:
        both.wait(10)
        return identify(stream)

    monkeypatch.setattr(images, "_identify", slow)
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    results = list(iterate_pictures([as_bytes(quarters())] * 2, size=4, workers=2))
    assert all(isinstance(result, Square) for _, result in results)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == (limit, filters)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((3, 4, 4), np.uint8)[:, :, :2], "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_refused(array: np.ndarray[Any, Any], message: str) -> None:
    assert message in refused(array).what


def test_arrays() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (grey, grey[:, :, None], grey.T.copy().T):
        assert np.array_equal(read_picture(array).pixels[:, :, 1], grey)
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    picture = read_picture(colour[:, ::-1])
    assert np.array_equal(picture.pixels, colour[:, ::-1])
    assert (picture.width, picture.height) == (7, 5)


# Finding and streaming.


def test_find_pictures(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "note.txt", ".hidden.jpg", "c/d e.webp", "c/中文.jpeg", "empty/x.txt", "z.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path)

    def names(*arguments: object, **options: Any) -> list[str]:
        return [os.path.relpath(path, tmp_path) for path in find_pictures([str(a) for a in arguments], **options)]

    assert names(tmp_path) == ["a.png", "b.JPG", "c/d e.webp", "c/中文.jpeg", "z.heic"]
    assert names(tmp_path, recursive=False) == ["a.png", "b.JPG", "z.heic"]
    assert names(tmp_path / "note.txt", tmp_path / "gone.jpg") == ["note.txt", "gone.jpg"]
    assert names(tmp_path / "*.[jp]*") == ["a.png"]
    assert names(tmp_path / "c" / "*.jpeg", tmp_path / "no*") == ["c/中文.jpeg", "note.txt"]
    assert names(tmp_path / "q*") == ["q*"]
    assert names(tmp_path / "empty") == ["empty"], "reading it says that there is no picture"
    (tmp_path / "x[1].jpg").touch()
    assert names(tmp_path / "x[1].jpg") == ["x[1].jpg"]
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_a_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for name in ("loop", "loop.jpg"):
        (tmp_path / name).symlink_to(tmp_path / name)
    assert list(find_pictures([tmp_path])) == [str(tmp_path / "a.png"), str(tmp_path / "loop.jpg")]
    assert "cannot be opened" in refused(tmp_path / "loop.jpg").what


def test_find_pictures_is_lazy(tmp_path: Path) -> None:
    def arguments() -> Iterator[Path]:
        yield tmp_path / "a.jpg"
        raise AssertionError("asked for too much")

    assert next(find_pictures(arguments())) == str(tmp_path / "a.jpg")


def test_paths_are_spelled_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    given = ["./in/a.jpg", "in//a.jpg", "in/../in/a.jpg", "./in", "in/", "./in/*.jpg", "", "./none.jpg"]
    assert list(find_pictures(given)) == [*given[:3], "./in/a.jpg", "in/a.jpg", "./in/a.jpg", "", "./none.jpg"]


def test_iterate_keeps_order_and_goes_on_after_errors(tmp_path: Path) -> None:
    paths = []
    for index in range(20):
        path = tmp_path / f"{index}.png"
        if index % 5 != 3:
            path.write_bytes(as_bytes(Image.new("RGB", (20 + 30 * (index % 3), 10), (index, 0, 0))))
        paths.append(path)
    results = list(iterate_pictures(paths, size=8, workers=3, ahead=4))
    assert [path for path, _ in results] == paths
    for index, (path, result) in enumerate(results):
        if index % 5 == 3:
            assert isinstance(result, InputError)
            assert result.path == str(path)
        else:
            assert isinstance(result, Square)
            assert result.pixels.shape == (8, 8, 3)
            assert result.pixels[4, 4].tolist() == [index, 0, 0]
            assert result.width == 20 + 30 * (index % 3)


def test_iterate_reads_only_so_far_ahead_and_closes() -> None:
    taken = 0

    def sources() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield np.zeros((4, 4, 3), np.uint8)

    stream = iterate_pictures(sources(), size=4, workers=2, ahead=3)
    for _ in range(10):
        next(stream)
    assert taken <= 10 + 3
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recur-pictures")]


def test_iterate_turns_any_exception_into_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("recur.data.images._squash", broken)
    ((_, result),) = iterate_pictures([np.zeros((4, 4), np.uint8)], size=4)
    assert isinstance(result, InputError)
    assert "ZeroDivisionError: odd" in result.what


def test_squares_are_read_as_pictures_are(tmp_path: Path) -> None:
    for number, picture in enumerate(
        (quarters(501, 370), quarters(40, 90), quarters(64, 64), quarters().convert("LA"))
    ):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        for source in (path, picture, np.asarray(picture.convert("RGB"))):
            ((_, found),) = iterate_pictures([source], size=64)
            assert isinstance(found, Square)
            np.testing.assert_array_equal(found.pixels, to_square(read_picture(source, target=64), 64))


def test_iterate_nothing() -> None:
    assert list(iterate_pictures([], size=4)) == []
    assert Picture(np.zeros((1, 1, 3), np.uint8), 1, 1).notes == ()
