"""The models that come with the package, by name. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recur.bundle import Bundle, BundleError, read_bundle, read_meta
from recur.bundle.checks import META
from recur.errors import RecurError
from recur.files import stepped_aside

EMBEDDED = Path(__file__).parent / "bundles"
EMBEDDED_TRUNK = "captioner"  # the model whose trunk heads without one of their own stand on


@dataclass(frozen=True)
class Model:
    """An embedded model: `size` in bytes of all its files, `meta` its bundle.json."""

    name: str
    path: Path
    task: str
    languages: tuple[str, ...]
    size: int
    meta: dict[str, Any]


def models() -> tuple[Model, ...]:
    """The embedded models, by name. One that is damaged is an error: the installation is, too."""
    found = []
    for name in _names():
        path = EMBEDDED / name
        meta = read_meta(path)
        found.append(
            Model(
                name=name,
                path=path,
                task=str(meta["task"]),
                languages=tuple(meta.get("languages", ())),
                size=sum(file.stat().st_size for file in path.iterdir() if file.is_file()),
                meta=meta,
            )
        )
    return tuple(found)


def resolve(name_or_path: str | Path) -> Path:
    """The bundle that is meant: the embedded one of that name, or else that path.

    A name wins over a file of the same name; write `./NAME` for the file. Errors: RecurError, naming the models.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in _names():
        return EMBEDDED / name_or_path
    if path.exists() or stepped_aside(path) is not None:
        return path
    there = ", ".join(_names()) or "none"
    if path.name != str(name_or_path) or path.suffix:
        raise BundleError(f"{path}: no such bundle; expected a folder or .zip, or the name of a model ({there})")
    raise RecurError(f"no model named {str(name_or_path)!r}; embedded models: {there}; choose one, or give a path")


def whole_encoder(bundle: Bundle) -> bytes:
    """The complete graph of a bundle that sees: a head that shares another model's trunk is put on it.

    Errors: BundleError when there is no encoder, or the trunk that is here is not the one that the head was made for.
    """
    if bundle.encoder is None:
        raise BundleError(f"{bundle.path}: this bundle has no encoder; name one that looks at pictures")
    trunk = bundle.meta.get("encoder", {}).get("trunk")
    if trunk is None:
        return bundle.encoder
    model = str(trunk["model"])
    below = read_bundle(EMBEDDED / model).encoder if model in _names() else None
    if below is None or hashlib.sha256(below).hexdigest() != trunk["sha256"]:
        raise BundleError(
            f"{bundle.path}: a head for another trunk than that of the model {model!r} here; get both from one release "
            "of recur, or train it again"
        )
    return below + bundle.encoder


def shared_trunk(bundle: Bundle) -> bytes:
    """The graph of the embedded trunk, for a bundle that reads its features and has no graph of its own.

    Errors: BundleError when the trunk that is here is not the one that the bundle was made for.
    """
    trunk = bundle.meta["encoder"]["trunk"]
    model = str(trunk["model"])
    found = read_bundle(EMBEDDED / model).encoder if model in _names() else None
    if found is None or hashlib.sha256(found).hexdigest() != trunk["sha256"]:
        raise BundleError(
            f"{bundle.path}: made for another trunk than that of the model {model!r} here; get both from one release "
            "of recur, or train it again"
        )
    return found


def _names() -> list[str]:
    if not EMBEDDED.is_dir():
        return []
    return sorted(folder.name for folder in EMBEDDED.iterdir() if (folder / META).is_file())
