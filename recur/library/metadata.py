"""Words in the metadata of files: what is there, whose it is, and how it becomes what it should be.

Written are the fields of the IPTC Photo Metadata Standard 2023.2 that are for this: the description (dc:description)
and the alternative text (Iptc4xmpCore:AltTextAccessibility), each with an alternative a language, and its "description
writer" (photoshop:CaptionWriter). Beside each field stands the SHA-256 of what recur wrote there. A field is recur's
own while that is true of it, and a person's as soon as anybody has changed a letter.

Through exiv2, whose Python package `pyexiv2` the extra `library` brings; here alone it is imported.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from PIL import Image

from recur import __version__
from recur.errors import InputError, RecurError

EMBEDDABLE: Final = ("image/jpeg", "image/png", "image/webp", "image/tiff")
DESCRIPTION: Final = "Xmp.dc.description"
ALT_TEXT: Final = "Xmp.iptc.AltTextAccessibility"
_WRITER: Final = "Xmp.photoshop.CaptionWriter"
_MARKS: Final = {DESCRIPTION: "Xmp.recur.DescriptionSha256", ALT_TEXT: "Xmp.recur.AltTextSha256"}
_NAMESPACE: Final = "urn:x-recur:library:1/"
# Where else people's descriptions are: IPTC-IIM of older programs, and EXIF.
_OTHER_DESCRIPTIONS: Final = ("Iptc.Application2.Caption", "Exif.Image.ImageDescription")
# What cameras write there by themselves, in lower case.
_CAMERAS: Final = (
    "olympus digital camera", "minolta digital camera", "konica minolta digital camera", "sony dsc", "samsung",
    "kodak digital still camera", "digital camera", "default", "dcim", "untitled",
)  # fmt: skip
EMPTY_SIDECAR: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>\n</x:xmpmeta>\n<?xpacket end="w"?>\n'
).encode()
_lock = threading.Lock()
_loaded: list[ModuleType] = []


@dataclass(frozen=True, slots=True)
class Field:
    """The texts of one field by language tag, and whether they are a person's."""

    texts: Mapping[str, str]
    person: bool


@dataclass(frozen=True, slots=True)
class Words:
    """What a file says about its picture."""

    description: Field
    alt_text: Field


def exiv2() -> ModuleType:
    """The package `pyexiv2`, made ready. Raises RecurError when it is not installed."""
    with _lock:  # exiv2's table of namespaces is one for the whole process
        if not _loaded:
            try:
                import pyexiv2
            except ModuleNotFoundError:
                raise RecurError('writing words into files needs pyexiv2; pip install "recur[library]"') from None
            pyexiv2.set_log_level(4)  # mute: what matters comes as an exception
            pyexiv2.registerNs(_NAMESPACE, "recur")
            _loaded.append(pyexiv2)
    return _loaded[0]


def read_words(content: bytes) -> Words | None:
    """The words in the bytes of a picture or a sidecar; None when exiv2 does not know the format, or it is broken."""
    try:
        with exiv2().ImageData(content) as data:
            xmp: dict[str, Any] = data.read_xmp()
            others = data.read_iptc() | data.read_exif()
    except (RuntimeError, UnicodeDecodeError):
        return None
    fields = {}
    for name, mark in _MARKS.items():
        texts = _texts(xmp.get(name))
        fields[name] = Field(texts, bool(texts) and xmp.get(mark) != digest(texts))
    if not fields[DESCRIPTION].texts:
        old = [text for name in _OTHER_DESCRIPTIONS for text in _texts(others.get(name)).values()]
        said = [text for text in old if text.strip(" \0").lower() not in ("", *_CAMERAS)]
        fields[DESCRIPTION] = Field({"x-default": said[0]} if said else {}, bool(said))
    return Words(fields[DESCRIPTION], fields[ALT_TEXT])


def _texts(value: object) -> dict[str, str]:
    """A field as exiv2 gives it: {'lang="en"': text, ...}, or plain text, or a list."""
    if isinstance(value, dict):
        found = {str(key).removeprefix('lang="').removesuffix('"'): str(text) for key, text in value.items()}
        return {tag: text for tag, text in found.items() if text.strip()}
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value or "")
    return {"x-default": text} if text.strip() else {}


def digest(texts: Mapping[str, str]) -> str:
    """SHA-256 of the texts of a field, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(texts.items()), ensure_ascii=False).encode("utf-8", "replace")).hexdigest()


def texts_of(captions: Sequence[tuple[str, str]]) -> dict[str, str]:
    """(language, caption) as the alternatives of a field: the first is the default as well."""
    clean = [(language, "".join(c for c in text if c.isprintable())) for language, text in captions]
    return {"x-default": clean[0][1], **dict(clean)}


def free_fields(present: Sequence[Words | None], overwrite: bool) -> tuple[str, ...]:
    """The fields in which no person has written, in the file and beside it; with `overwrite` all of them."""
    known = [words for words in present if words is not None]
    people = {
        DESCRIPTION: any(words.description.person for words in known),
        ALT_TEXT: any(words.alt_text.person for words in known),
    }
    return tuple(name for name, person in people.items() if overwrite or not person)


def with_words(name: str, content: bytes, texts: Mapping[str, str], fields: Sequence[str], model: str) -> bytes:
    """`content` (a picture, or a sidecar) with the texts in these fields; all else as it was. `name` is for messages.

    Raises InputError when exiv2 cannot do it, or when the picture would not be the same.
    """
    changes: dict[str, Any] = {}
    for field in fields:
        changes[field] = {f'lang="{tag}"': text for tag, text in texts.items()}
        changes[_MARKS[field]] = digest(texts)
    if DESCRIPTION in fields:
        changes[_WRITER] = f"recur {__version__} ({model})"
    try:
        with exiv2().ImageData(content) as data:
            sidecar = data.get_mime_type() == "application/rdf+xml"
            if not sidecar and data.get_mime_type() not in EMBEDDABLE:
                raise InputError(name, "no words can be put into files of this format", "use --sidecar")
            old = data.read_xmp()
            data.modify_xmp(dict.fromkeys((key for key in changes if key in old), None))  # or languages would be merged
            data.modify_xmp(changes)
            changed: bytes = data.get_bytes()
    except (RuntimeError, UnicodeDecodeError) as error:
        raise InputError(name, f"its metadata cannot be written ({error})", "use --sidecar, or leave it out") from None
    if not sidecar:
        before = _pixels(content)
        if before is None or before != _pixels(changed):
            raise InputError(name, "its pixels cannot be shown to stay as they are", "use --sidecar")
    return changed


def _pixels(content: bytes) -> str | None:
    """A hash of all pixels of all pages or frames; None when they cannot be decoded."""
    seen = hashlib.sha256()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                seen.update(f"{picture.mode} {picture.size} ".encode() + picture.tobytes())
        return seen.hexdigest()
    except Exception:  # on a broken file Pillow's plugins raise almost anything
        return None
