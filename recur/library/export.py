"""The library as one file for other programs, or as a gallery for people.

The gallery is complete in itself: thumbnails are JPEG data URIs, and a content security policy that names the hash of
the page's own style forbids everything else; there is no script. Its size is bounded: so many thumbnails of so many
bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Final

from PIL import Image

from recur.data.images import read_picture
from recur.errors import InputError
from recur.files import writing
from recur.library.query import Entry
from recur.library.reading import read_bytes

GALLERY_LIMIT: Final = 500  # pictures
THUMBNAIL: Final = 320  # pixels of its longer side
THUMBNAIL_BYTES: Final = 32_000
_COLUMNS: Final = (
    "path", "language", "caption", "confidence", "model", "alike", "taken", "width", "height", "bytes", "missing",
    "objects",
)  # fmt: skip

STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.45 system-ui, sans-serif; }
body { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.25rem; }
figure { margin: 0; }
img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8883; border-radius: .4rem; }
p { margin: .3rem 0; }
small { opacity: .75; overflow-wrap: anywhere; }
"""


def write_csv(path: Path, entries: Iterable[Entry]) -> None:
    """A table with a line a file and language, in UTF-8. Raises OSError."""
    with writing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        table = csv.writer(text)
        table.writerow(_COLUMNS)
        for entry in entries:
            for words in entry.words:
                table.writerow(
                    (
                        entry.place.path, words.language, words.caption, words.confidence, words.model, entry.alike,
                        entry.taken, entry.width, entry.height, entry.place.size, entry.missing,
                        "; ".join(dict.fromkeys(each.label for each in entry.objects)),
                    )
                )  # fmt: skip
        text.detach()


def write_jsonl(path: Path, entries: Iterable[Entry]) -> None:
    """One JSON object a file, in UTF-8. Raises OSError."""
    with writing(path) as file:
        for entry in entries:
            file.write(json.dumps(entry.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def write_gallery(path: Path, entries: Iterable[Entry]) -> Iterator[InputError]:
    """A page with a thumbnail of every picture; gives the error of each that cannot be read, which is left out.

    The page is there when the iterator has come to its end. Raises OSError.
    """
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    with writing(path) as file:

        def put(text: str) -> None:
            file.write(text.encode("utf-8", "backslashreplace"))

        put(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Pictures</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Pictures</h1>\n<main>\n"
        )
        models = dict[str, None]()
        for entry in entries:
            try:
                put(_figure(entry, thumbnail(entry)))
            except InputError as error:
                yield error
            models |= dict.fromkeys(words.model for words in entry.words)
        names = html.escape(", ".join(models) or "no model")
        put(
            f"</main>\n<footer><p><small>Described by recur with {names}. This page is complete: it loads nothing "
            "from a network.</small></p></footer>\n</body>\n</html>\n"
        )


def _figure(entry: Entry, picture: bytes) -> str:
    first, *others = entry.words
    lines = [f'<p lang="{html.escape(each.language)}">{html.escape(each.caption)}</p>' for each in others]
    notes = [PurePath(entry.place.path).name, entry.date[:10]]
    if first.confidence is not None:
        notes.append(f"confidence {first.confidence:.2f}")
    if entry.alike is not None:
        notes.append(f"words of {PurePath(entry.alike).name}, which looks alike")
    return (
        f'<figure>\n<img alt="{html.escape(first.caption)}" lang="{html.escape(first.language)}" loading="lazy" '
        f'src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">\n<figcaption>'
        f'<p lang="{html.escape(first.language)}">{html.escape(first.caption)}</p>{"".join(lines)}'
        f'<p><small title="{html.escape(entry.place.path)}">{html.escape(" · ".join(notes))}</small></p></figcaption>\n'
        "</figure>\n"
    )


def thumbnail(entry: Entry) -> bytes:
    """A JPEG of at most `THUMBNAIL` pixels and `THUMBNAIL_BYTES` bytes. Raises InputError."""
    content, _ = read_bytes(entry.place)
    try:
        picture = Image.fromarray(read_picture(content, target=THUMBNAIL).pixels)
    except InputError as error:
        raise InputError(entry.place.path, error.what, error.fix) from error
    side = THUMBNAIL
    while True:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in (80, 60, 40):
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=quality)
            if out.tell() <= THUMBNAIL_BYTES:
                return out.getvalue()
        side //= 2
