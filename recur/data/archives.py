"""Archives and tables of pictures: where the one ends, and which column of the other holds them."""

from __future__ import annotations

import tarfile
from typing import Any, Final

from recur.data import storage

_PICTURE_COLUMNS: Final = ("image", "img", "picture", "photo", "jpg", "bytes")


def picture_column(schema: Any) -> tuple[str | None, str | None]:
    """The column of pictures of an Arrow schema; with the field of their bytes when it is a struct, as Hugging Face
    datasets write it.
    """
    import pyarrow.types as kinds

    found: dict[str, str | None] = {}
    for field in schema:
        kind = field.type
        if kinds.is_binary(kind) or kinds.is_large_binary(kind):
            found[field.name] = None
        elif kinds.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            found[field.name] = "bytes"
    for name in (*_PICTURE_COLUMNS, *found):
        if name in found:
            return name, found[name]
    return None, None


def is_end(path: str, offset: int) -> bool:
    """Whether a block of zeros, the mark of its end, is at this place of an archive."""
    if storage.is_url(path):
        return storage.read(path, offset, offset + tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
