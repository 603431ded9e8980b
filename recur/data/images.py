"""Photographs from files, bytes, Pillow pictures and arrays: found, decoded, turned upright, squashed to a square.

Whatever is wrong with one picture becomes an `InputError` that says what and how to mend it. The number of pixels is
checked from the header, before anything is decoded. Big JPEGs are decoded at a fraction of their size.
"""

from __future__ import annotations

import glob
import io
import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from recur.data.ahead import Ahead
from recur.errors import InputError

Source: TypeAlias = str | Path | bytes | Image.Image | NDArray[Any]
AnySource = TypeVar("AnySource", bound=Source)

SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
    ".ppm", ".pgm", ".jp2",
)  # fmt: skip
MAX_PIXELS: Final = 100_000_000

_QUICK: Final = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # Pillow knows these without importing all its plugins
_OTHERS: Final = ("WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "MPO")  # no format that runs another program, as EPS does
_DIFFERENT_FILE: Final = "expected a picture (JPEG, PNG, WebP, ...); use another file"
_TURN: Final = {  # EXIF orientation -> how to make it upright (TIFF 6.0, tag 274)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC: Final = (
    (b"ftyphei", "HEIC, which needs: pip install pillow-heif, and importing it; or save the picture as JPEG"),
    (b"ftypavif", "AVIF, which this Pillow cannot read; save the picture as JPEG"),
    (b"<html", "a web page; download the picture itself"),
    (b"<!doctype", "a web page; download the picture itself"),
    (b"<svg", "SVG, a drawing; save it as PNG"),
    (b"%PDF", "PDF; save the page as PNG"),
)
_HEAD: Final = 1 << 16  # bytes of a file that are read at once, before its header is looked at


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """`pixels` uint8 RGB [Y, X, 3], upright; at most as large as the file's.

    `width` and `height` are the full size as a person sees the picture. `notes` say what was left out.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """What the encoder reads: `pixels` uint8 RGB [size, size, 3], the whole picture squashed; the rest as `Picture`."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    notes: tuple[str, ...] = ()


def read_picture(source: Source, *, target: int = 224, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode one picture: EXIF rotation applied, RGB, transparency on white, first frame of an animation.

    Large pictures come reduced, both sides still at least `target` (or as large as they are). `source` is a path, the
    bytes of a file, a Pillow picture, or a uint8 array [Y, X], [Y, X, 1], [Y, X, 3] or [Y, X, 4] (RGB, alpha last).
    16-bit grey is scaled to 8 bits; float and 32-bit pictures are stretched from their darkest to their brightest
    value, with a note. Raises `InputError` for anything that cannot be read or has more than `max_pixels` pixels.
    """
    found = _read(source, target, max_pixels)
    return Picture(np.asarray(found.image), found.width, found.height, found.notes)


@dataclass(frozen=True, slots=True, eq=False)
class _Upright:
    """A `Picture` whose pixels are still Pillow's: to resize them there saves copying them to an array and back."""

    image: Image.Image
    width: int
    height: int
    notes: tuple[str, ...]


def _read(source: Source, target: int, max_pixels: int) -> _Upright:
    name = _name(source)
    try:
        if isinstance(source, np.ndarray):
            picture = Image.fromarray(_checked_array(source, name))
            return _render(picture, name, target, max_pixels, own=False)
        if isinstance(source, Image.Image):
            return _render(source, name, target, max_pixels, own=False)
        if isinstance(source, bytes):
            return _decode(io.BytesIO(source), len(source), name, target, max_pixels)
        with _open_file(Path(source)) as stream:
            stream.peek(1)  # fills the buffer, so that Pillow mostly finds the header in memory
            return _decode(stream, os.fstat(stream.fileno()).st_size, name, target, max_pixels)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(name, "not enough memory to decode it", "make the picture smaller") from error
    except Exception as error:  # on a broken file Pillow's plugins raise almost anything
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise InputError(name, "the file is cut off before its end", "copy or download it again") from error
        what = f"cannot be decoded ({type(error).__name__}: {error})"
        raise InputError(name, what, "open it in another program and save it again") from error


def to_square(picture: Picture | NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The whole picture squashed to [size, size, 3]: nothing is cut off, the proportions change."""
    pixels = picture.pixels if isinstance(picture, Picture) else picture
    return pixels if pixels.shape == (size, size, 3) else _squash(Image.fromarray(pixels), size)


def _squash(image: Image.Image, size: int) -> NDArray[np.uint8]:
    if image.size == (size, size):
        return np.asarray(image)
    # Going down, Hamming is as smooth as bilinear, sharper, half the work of bicubic, and closest to how the pictures
    # of the training data had been squashed. Going up it would show blocks.
    filter_ = Image.Resampling.HAMMING if min(image.size) >= size else Image.Resampling.BICUBIC
    return np.asarray(image.resize((size, size), filter_, reducing_gap=3.0))


def find_pictures(arguments: Iterable[str | Path], *, recursive: bool = True) -> Iterator[str]:
    """Paths of pictures, lazily: files as they are, folders searched for known suffixes, patterns (`*.jpg`) filled in.

    A path is spelled as it was given, what is in a folder with the folder as it was given before it. Inside a folder
    the order is that of the names. Hidden files are left out. What cannot be found is handed on as it is, and so is a
    folder without a picture: reading it then says what is wrong, like for any other input.
    """
    for argument in (os.fspath(each) for each in arguments):
        if os.path.isdir(argument):  # Path.is_dir would raise where a folder above may not be read
            yield from _search(argument, recursive, ())
        elif glob.has_magic(argument) and not os.path.exists(argument):
            empty = True
            for match in sorted(glob.iglob(argument, recursive=recursive)):
                empty = False
                if not os.path.isdir(match):
                    yield match
                elif recursive:
                    yield from _search(match, recursive, ())
            if empty:
                yield argument
        else:
            yield argument


def iterate_pictures(
    paths: Iterable[AnySource],
    *,
    size: int = 224,
    workers: int | None = None,
    ahead: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[AnySource, Square | InputError]]:
    """Each source with its square or its error, in order, decoded in `workers` threads.

    Reading goes on while whoever iterates is busy, up to `ahead` pictures beyond the one handed out: memory stays flat
    however many there are. `paths` is iterated in a thread of its own. Closing the generator stops the threads.
    """
    with read_ahead(paths, size=size, workers=workers, ahead=ahead, max_pixels=max_pixels) as pictures:
        yield from pictures


def read_ahead(
    paths: Iterable[AnySource],
    *,
    size: int = 224,
    workers: int | None = None,
    ahead: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Ahead[AnySource, Square | InputError]:
    """As `iterate_pictures`, which closes what this leaves open; it can also tell when `paths` has nothing to give."""
    workers = workers or min(8, os.cpu_count() or 1)
    square = partial(read_square, size=size, max_pixels=max_pixels)
    return Ahead(square, paths, workers=workers, ahead=max(1, ahead or 4 * workers), name="recur-pictures")


def read_square(source: Source, *, size: int = 224, max_pixels: int = MAX_PIXELS) -> Square | InputError:
    """One picture as `iterate_pictures` gives it, read in this thread."""
    try:
        found = _read(source, size, max_pixels)
        return Square(_squash(found.image, size), found.width, found.height, found.notes)
    except InputError as error:
        return error
    except Exception as error:
        return InputError(_name(source), f"{type(error).__name__}: {error}", "please report this")


# Finding.


def _search(folder: str, recursive: bool, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Pictures below `folder`; the folder itself when it is a top one without any, or one that cannot be listed."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            listed = sorted(((entry.name, _is_folder(entry)) for entry in entries), key=lambda entry: entry[0])
    except OSError:
        yield folder
        return
    key = (status.st_dev, status.st_ino)
    if key in above:  # a link back to a folder that holds this one
        return
    found = False
    for name, is_folder in listed:
        if name.startswith("."):
            continue
        if is_folder:
            if recursive:
                for path in _search(os.path.join(folder, name), recursive, (*above, key)):
                    found = True
                    yield path
        elif name.lower().endswith(SUFFIXES):
            found = True
            yield os.path.join(folder, name)
    if not found and not above:
        yield folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; as a file, if it is named like a picture, reading it says what is wrong
        return False


def _name(source: Source) -> str:
    if isinstance(source, np.ndarray):
        return f"<array {list(source.shape)} {source.dtype}>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or f"<picture {source.width}x{source.height} {source.mode}>"
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)


# Opening.


def _open_file(path: Path) -> io.BufferedReader:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _folder_error(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device could block for ever
            raise InputError(path, "not an ordinary file", _DIFFERENT_FILE)
        return io.BufferedReader(path.open("rb", buffering=0), _HEAD)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(path, "no such file", "check the path") from error
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "change its permissions (chmod +r)") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(path, f"cannot be opened ({error})", "check the path") from error


def _folder_error(path: Path) -> InputError:
    if not os.access(path, os.R_OK | os.X_OK):
        return InputError(path, "no permission to read this folder", "change its permissions (chmod +rx)")
    if any(found != str(path) for found in _search(str(path), True, ())):
        return InputError(path, "a folder, expected one picture", "give the pictures in it")
    known = ", ".join(SUFFIXES[:6])
    return InputError(path, "no picture in this folder", f"expected files that end in {known}, ...; check the path")


def _decode(stream: IO[bytes], length: int, name: str, target: int, max_pixels: int) -> _Upright:
    if length == 0:
        raise InputError(name, "empty file", "copy or download it again")
    try:
        with _pillow.quiet():
            picture = _identify(stream)
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise _not_a_picture(name, stream.read(512)) from error
    with picture:
        return _render(picture, name, target, max_pixels, own=True)


class _PillowSettings:
    """No limit and no warnings of Pillow's own while somebody reads (it warns of broken EXIF, which does no harm here).

    Both are settings of the whole process. The first thread to come in changes them and the last one to go out puts
    them back, so that a program that uses recur keeps its own; no thread waits for another.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: int | None = None
        self._warnings = warnings.catch_warnings()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    Image.MAX_IMAGE_PIXELS = self._limit
                    self._warnings.__exit__(None, None, None)


_pillow = _PillowSettings()


def _identify(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream, formats=_QUICK)
    except UnidentifiedImageError:
        Image.init()
        stream.seek(0)
        return Image.open(stream, formats=[name for name in _OTHERS if name in Image.OPEN])


def _not_a_picture(name: str, head: bytes) -> InputError:
    for mark, kind in _MAGIC:
        if mark in head.lower() or mark in head:
            what, fix = kind.split("; ", 1) if "; " in kind else (kind, "")
            return InputError(name, f"the file is {what}", fix)
    try:
        head[:-3].decode("utf-8")  # the last character may be cut in two
        text = b"\0" not in head
    except UnicodeDecodeError:
        text = False
    if text:
        return InputError(name, "the file is text, whatever its name says", _DIFFERENT_FILE)
    return InputError(name, "not a picture that recur can read, or its beginning is broken", _DIFFERENT_FILE)


def _checked_array(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    shape = array.shape
    if array.dtype != np.uint8:
        fix = "convert it: (array * 255).round().astype(np.uint8) if it is 0..1"
        raise InputError(name, f"values are {array.dtype}, expected uint8 0..255", fix)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))) or array.size == 0:
        raise InputError(name, f"shape {list(shape)}, expected [Y, X] or [Y, X, 3]", "put the channels last")
    return np.ascontiguousarray(array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array)


# From a Pillow picture to RGB pixels.


def _render(picture: Image.Image, name: str, target: int, max_pixels: int, *, own: bool) -> _Upright:
    """`own`: opened here, so that it may be changed (reduced while decoding, moved to another frame)."""
    width, height = picture.size
    if width * height > max_pixels:
        what = f"{width}x{height} pixels, expected at most {max_pixels:,} in all"
        raise InputError(name, what, "make it smaller or raise max_pixels (--max-pixels)")
    if width * height == 0:
        raise InputError(name, f"{width}x{height} pixels", _DIFFERENT_FILE)
    form = picture.format
    if own and form in ("JPEG", "MPO"):
        picture.draft(picture.mode, (target, target))
    if own and form == "TIFF":
        with _pillow.quiet():  # its tags are read again after its pixels
            picture.load()
    picture.load()
    if form not in ("JPEG", "MPO"):
        width, height = picture.size  # Pillow turns TIFF upright by itself, while loading
    notes: list[str] = []
    image = _to_rgb(picture, notes)
    factor = min(image.width, image.height) // (2 * max(1, target))
    if factor >= 2:
        image = image.reduce(factor)
    turn = _orientation(picture.info.get("exif"))
    if turn in _TURN:
        image = image.transpose(_TURN[turn])
        if turn >= 5:
            width, height = height, width
    if form != "MPO" and _animated(picture):  # MPO: a JPEG of a phone with a depth map behind it
        paged = form == "TIFF"
        frame = "first" if own else "current"
        notes.append(f"several pages: {frame} one used" if paged else f"animated: {frame} frame used")
    return _Upright(image, width, height, tuple(notes))


def _animated(picture: Image.Image) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # a broken second frame; the first one is already decoded
        return True


def _to_rgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    if mode.startswith("I;16"):
        grey = np.asarray(picture).astype(np.uint32)
        scaled = ((grey + 128) // 257).astype(np.uint8)  # 65535 is white, so 257 and not 256
        see_through = picture.info.get("transparency")
        if isinstance(see_through, int):
            scaled[grey == see_through] = 255
        return Image.fromarray(scaled).convert("RGB")
    if mode in ("I", "F"):
        return _from_wide(picture, notes).convert("RGB")
    if picture.has_transparency_data:
        image = picture if mode == "RGBA" else picture.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return picture.convert("RGB")


def _from_wide(picture: Image.Image, notes: list[str]) -> Image.Image:
    """Grey of 32 bits. As 16-bit grey in a PNG (how Pillow before 11.3 opened it), else stretched."""
    values = np.nan_to_num(np.asarray(picture).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if picture.format == "PNG":
        low, high = 0.0, 65535.0
    elif picture.mode == "F" and values.min() >= 0 and values.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = float(values.min()), float(values.max())
        notes.append(f"values {low:g} to {high:g} stretched to black and white")
    scaled = (values - low) * 255.0 / (high - low if high > low else 1.0)
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _orientation(exif: object) -> int:
    """Orientation in EXIF bytes, 1 when there is none. Read by hand: Pillow's parser warns on broken EXIF."""
    if not isinstance(exif, bytes):
        return 1
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, at)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 1
    return 1
