"""What the commands print: any name and any script, one record a line."""

from __future__ import annotations

import io
import json
import sys
from typing import Any


def prepare_streams(*, json_lines: bool = False) -> None:
    """Let any file name and any script be printed: what the encoding of a stream cannot carry is written as an escape.

    JSON is UTF-8 whatever the locale says.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            utf8 = json_lines and stream is sys.stdout
            stream.reconfigure(encoding="utf-8" if utf8 else None, errors="backslashreplace")


def visible(text: str) -> str:
    """`text` on one line: tabs, newlines and other control characters become escapes such as `\\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def json_line(value: dict[str, Any]) -> str:
    """One JSON object on one line, readable in every script; lone surrogates of file names stay valid JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
