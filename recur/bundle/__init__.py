"""The bundle: one folder, or one `.zip` of it, that holds a trained model and nothing that can be executed.

`bundle.json` (what it is, and the SHA-256 of every file), `weights.safetensors`, `tokenizer.json`, `CARD.md`, and
`encoder.onnx` when the model sees. `read_bundle` believes nothing: every name, size, hash, number and shape is checked
before it is used, and what is odd is refused with the reason.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from recur import __version__
from recur.bundle.checks import CARD, CHECKS, ENCODER, META, TOKENIZER, WEIGHTS
from recur.data.text import Vocabulary
from recur.engine.weights import FloatArray, Stored, dequantize, quantized, read_safetensors, write_safetensors
from recur.errors import RecurError
from recur.files import replace_folder, stepped_aside, write_atomically

FORMAT: Final = 1
MAX_META: Final = 16 << 20  # bytes
MAX_FILE: Final = 2 << 30
MAX_FILES: Final = 64
MAX_RATIO: Final = 1000  # deflate cannot do better than 1032 to 1, and a real bundle hardly shrinks


class BundleError(RecurError):
    """A bundle that is refused. The message begins with its path."""


@dataclass(frozen=True)
class Bundle:
    """A model in memory: `meta` is bundle.json, `weights` are float32, `encoder` is an ONNX graph (or None).

    `stored` says how the matrices were stored.
    """

    meta: Mapping[str, Any]
    weights: Mapping[str, FloatArray]
    tokenizer: bytes
    encoder: bytes | None
    card: str
    path: Path
    stored: Stored = "float32"

    @property
    def name(self) -> str:
        """The name that it was given when it was written."""
        return str(self.meta["name"])

    @property
    def task(self) -> str:
        """What it does, such as "caption"."""
        return str(self.meta["task"])

    def vocabulary(self) -> Vocabulary:
        """The words of `tokenizer.json`."""
        return Vocabulary.from_bytes(self.tokenizer, source=f"{self.path}: {TOKENIZER}")


# ------------------------------------------------------------------------------------------------------------ reading


def read_meta(path: str | Path) -> dict[str, Any]:
    """Only the bundle.json of a bundle, checked in itself. Errors: BundleError."""
    source = _open(Path(path))
    return _meta(source)


def read_bundle(path: str | Path, *, task: str | None = None) -> Bundle:
    """Read and check a bundle, folder or .zip. `task`: refuse one of another task.

    Errors: BundleError, with the reason and what to do.
    """
    source = _open(Path(path))
    meta = _meta(source)
    if task is not None and meta["task"] != task:
        raise source.refusal(f"a model for {meta['task']!r}; expected one for {task!r}", "choose another model")
    files: dict[str, str] = meta["files"]
    extra = sorted(set(source.sizes) - set(files) - {META})
    if extra:
        raise source.refusal(
            f"has {extra[0]!r}, which its {META} does not list", "take it out, or get the bundle again"
        )
    contents: dict[str, bytes] = {}
    for name, expected in files.items():
        contents[name] = data = source.read(name, MAX_FILE)
        if hashlib.sha256(data).hexdigest() != expected:
            raise source.refusal(f"{name} is not what was written (its SHA-256 differs)", "get the bundle again")
    try:
        tensors = read_safetensors(contents[WEIGHTS])
        weights = dequantize(tensors)
    except RecurError as error:
        raise source.refusal(f"{WEIGHTS}: {error}", "get the bundle again") from error
    check = CHECKS.get(meta["task"])
    if check is not None:
        try:
            check(meta, weights, contents)
        except RecurError as error:
            raise BundleError(f"{source.path}: {error}") from error
    return Bundle(
        meta=meta,
        weights=weights,
        tokenizer=contents[TOKENIZER],
        encoder=contents.get(ENCODER),
        card=contents.get(CARD, b"").decode("utf-8", "replace"),
        path=Path(path),
        stored=_stored(tensors),
    )


def _stored(tensors: Mapping[str, npt.NDArray[Any]]) -> Stored:
    types = {str(values.dtype) for values in tensors.values()}
    return "int8" if "int8" in types else "float16" if "float16" in types else "float32"


class _Source:
    """The files of a bundle by plain name, wherever they lie. Sizes are known before anything is read."""

    def __init__(self, path: Path, sizes: dict[str, int], read: Callable[[str], bytes]) -> None:
        self.path, self.sizes, self._read = path, sizes, read

    def refusal(self, what: str, fix: str) -> BundleError:
        return BundleError(f"{self.path}: {what}; {fix}")

    def read(self, name: str, limit: int) -> bytes:
        if name not in self.sizes:
            raise self.refusal(f"{name} is missing", "get the bundle again")
        if self.sizes[name] > limit:
            raise self.refusal(f"{name} has {self.sizes[name]:,} bytes; at most {limit:,} are read", "do not trust it")
        try:
            data = self._read(name)
        except (OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
            raise self.refusal(f"{name} cannot be read ({error})", "get the bundle again") from error
        except Exception as error:  # zlib.error and its kind, of whatever compression the zip names
            raise self.refusal(f"{name} cannot be unpacked ({error})", "get the bundle again") from error
        if len(data) != self.sizes[name]:
            raise self.refusal(f"{name} has {len(data):,} bytes; expected {self.sizes[name]:,}", "get the bundle again")
        return data


def _open(path: Path) -> _Source:
    aside = stepped_aside(path)
    if aside is not None and not os.path.lexists(path):
        return _open_folder(aside)
    try:
        if path.is_dir():
            return _open_folder(path)
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); expected a bundle, a folder or a .zip"
        ) from error
    if start[:2] != b"PK":
        raise BundleError(f"{path}: not a bundle; expected a folder with a {META}, or a .zip of one")
    return _open_zip(path)


def _open_folder(path: Path) -> _Source:
    root = path.resolve()
    sizes: dict[str, int] = {}
    with os.scandir(path) as entries:
        found = list(entries)
    for entry in found:
        if entry.name.startswith("."):  # what file managers leave behind; never read
            continue
        _plain_name(entry.name, path)
        if not Path(entry.path).resolve().is_relative_to(root):
            raise BundleError(f"{path}: {entry.name} leads out of the bundle; expected plain files; do not trust it")
        try:
            status = entry.stat()
        except OSError as error:
            raise BundleError(
                f"{path}: {entry.name} cannot be read ({error.strerror}); get the bundle again"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path}: {entry.name} is no plain file; expected only plain files; take it out")
        sizes[entry.name] = status.st_size
    return _Source(path, sizes, lambda name: (path / name).read_bytes())


def _open_zip(path: Path) -> _Source:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleError(f"{path}: a broken .zip ({error}), perhaps cut short; get the bundle again") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MAX_FILES:
        raise BundleError(f"{path}: {len(entries)} files; expected at most {MAX_FILES}; do not trust it")
    # Zipping a folder by its name puts that name before every file; that one level is taken away.
    tops = {entry.filename.split("/")[0] for entry in entries}
    prefix = f"{tops.pop()}/" if len(tops) == 1 and all("/" in entry.filename for entry in entries) else ""
    if prefix in ("../", "./", "/"):
        raise BundleError(f"{path}: has {prefix!r} before its files, which leads out of the bundle; do not trust it")
    names: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removeprefix(prefix)
        if name.startswith(".") and ".." not in name and "/" not in name:
            continue
        _plain_name(name, path)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{path}: {name} is a link; expected only plain files; do not trust it")
        if name in names:
            raise BundleError(f"{path}: {name} is in it twice; expected it once; get the bundle again")
        if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise BundleError(
                f"{path}: {name} unpacks to {entry.file_size:,} bytes from {entry.compress_size:,}; do not trust it"
            )
        names[name] = entry

    def read(name: str) -> bytes:
        with zipfile.ZipFile(path) as again, again.open(names[name]) as file:
            return file.read(names[name].file_size + 1)  # never more than it promised

    return _Source(path, {name: entry.file_size for name, entry in names.items()}, read)


def _plain_name(name: str, path: Path) -> None:
    """Refuse what is not simply the name of a file: a path could climb out of the folder."""
    if not name or name in (".", "..") or any(char in name for char in "/\\:\0") or not name.isprintable():
        raise BundleError(f"{path}: a file named {name!r}, which leads out of the bundle; expected plain names; "
                          "do not trust it")  # fmt: skip


def _meta(source: _Source) -> dict[str, Any]:
    again = "get the bundle again"
    if META not in source.sizes:
        raise source.refusal(f"not a bundle: {META} is missing", f"expected a folder with a {META}, or a .zip of one")
    try:
        text = source.read(META, MAX_META).decode("utf-8")
        meta = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise source.refusal(f"{META} is broken JSON ({error})", again) from error
    if not isinstance(meta, dict):
        raise source.refusal(f"{META} is no JSON object", again)
    version = meta.get("format")
    if type(version) is not int or version < 1:
        raise source.refusal(f"{META} has format {version!r}; expected {FORMAT}", again)
    if version > FORMAT:
        raise source.refusal(f"its format {version} is newer than {FORMAT}, which this recur reads", "upgrade recur")
    for key, kind in _KEYS:
        if not isinstance(meta.get(key), kind) or isinstance(meta.get(key), bool):
            found = "no" if key not in meta else f"{type(meta[key]).__name__} as"
            raise source.refusal(f"{META} has {found} {key!r}; expected {_kind_name(kind)}", again)
    files = meta["files"]
    for name, digest in files.items():
        _plain_name(name, source.path)
        if not isinstance(digest, str) or name == META:
            raise source.refusal(f"{META} lists {name!r} without a SHA-256 of its own", again)
    for name in (WEIGHTS, TOKENIZER):
        if name not in files:
            raise source.refusal(f"{META} does not list {name}", again)
    if _own_hash(meta) != meta["sha256"]:
        raise source.refusal(
            f"{META} is not what was written (its own 'sha256' differs)",
            "get the bundle again, or change it with recur",
        )
    return meta


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too great a number")
    return number


_KEYS: Final[tuple[tuple[str, type], ...]] = (
    ("task", str),
    ("name", str),
    ("version", str),
    ("files", dict),
    ("sha256", str),
)


def _kind_name(kind: type) -> str:
    return {str: "a text", int: "a whole number", dict: "an object", list: "a list"}[kind]


def _own_hash(meta: Mapping[str, Any]) -> str:
    """SHA-256 of everything in bundle.json but the hash itself, as compact JSON with sorted keys."""
    rest = {key: value for key, value in meta.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ writing


def write_bundle(
    path: str | Path,
    meta: Mapping[str, Any],
    weights: Mapping[str, npt.NDArray[Any]],
    *,
    tokenizer: Vocabulary | bytes,
    encoder: bytes | None,
    card: str,
    quantize: bool | Stored = True,
) -> Path:
    """Write a bundle: a folder, or one file when `path` ends in .zip. Nobody ever sees half of one.

    `meta` needs at least `task` and `name`; format, version, created, hashes and vocabulary size are filled in here.
    `quantize`: True is "int8", False "float32"; what is then read back is what was stored. The finished bundle is read
    and checked before it takes its place.

    Errors: BundleError when the parts do not fit each other, or `path` is a folder of something else.
    """
    target = Path(path)
    stored: Stored = quantize if isinstance(quantize, str) else "int8" if quantize else "float32"
    words = tokenizer if isinstance(tokenizer, bytes) else tokenizer.to_bytes()
    try:
        packed = write_safetensors(quantized(weights, stored))
    except RecurError as error:
        raise BundleError(f"{target}: {error}") from error
    contents = {WEIGHTS: packed, TOKENIZER: words, CARD: card.encode("utf-8")}
    if encoder is not None:
        contents[ENCODER] = encoder
    whole = {
        **meta,
        "format": FORMAT,
        "version": __version__,
        "created": meta.get("created") or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "vocabulary_sha256": hashlib.sha256(words).hexdigest(),
    }
    if isinstance(tokenizer, Vocabulary):
        whole["vocabulary_size"] = len(tokenizer)
    return _put(target, whole, contents)


def update_bundle(
    path: str | Path,
    changes: Mapping[str, Any],
    *,
    card: str | None = None,
    encoder: bytes | None = None,
    out: str | Path | None = None,
) -> Path:
    """Change keys of bundle.json and, if given, card and encoder; the rest stays. `out`: leave the old bundle alone.

    Errors: BundleError, as for reading and writing.
    """
    source = _open(Path(path))
    meta = _meta(source)
    contents = {name: source.read(name, MAX_FILE) for name in meta["files"]}
    if card is not None:
        contents[CARD] = card.encode("utf-8")
    if encoder is not None:
        contents[ENCODER] = encoder
    return _put(Path(path if out is None else out), {**meta, **changes}, contents)


def _put(target: Path, meta: dict[str, Any], contents: dict[str, bytes]) -> Path:
    meta["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    try:
        meta = json.loads(json.dumps(meta, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BundleError(f"{target}: {META} cannot be written ({error}); expected plain, finite values") from error
    meta["sha256"] = _own_hash(meta)
    contents = {META: (json.dumps(meta, ensure_ascii=False, indent=1) + "\n").encode("utf-8"), **contents}
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() == ".zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
            trial = Path(draft) / target.name
            trial.write_bytes(packed.getvalue())
            _refusals_of(trial, target)
        write_atomically(target, packed.getvalue())
        return target
    check_target(target)
    draft = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        for name, data in contents.items():
            write_atomically(Path(draft) / name, data)
        os.chmod(draft, 0o755)
        _refusals_of(Path(draft), target)
        replace_folder(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _refusals_of(draft: Path, target: Path) -> None:
    try:
        read_bundle(draft)
    except BundleError as error:
        raise BundleError(str(error).replace(str(draft), str(target), 1)) from error


def check_target(path: str | Path) -> None:
    """Whether a bundle may be written there, so that nobody learns it only after hours of work.

    Errors: BundleError when something else is there, or the folder cannot be written to.
    """
    target = Path(path)
    folder = target
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if folder != target and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise BundleError(f"{target}: cannot be written ({folder} is no folder one can write to); choose another name")
    if target.suffix.lower() == ".zip":
        if target.is_dir():
            raise BundleError(f"{target}: exists and is a folder; expected a new name or an old .zip; choose another")
    elif target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / META).exists())):
        raise BundleError(
            f"{target}: exists and is no bundle; expected a new name or an old bundle; choose another name"
        )
