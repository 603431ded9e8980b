"""What a request carries: the picture or video and the options, out of a form, out of JSON, or out of a bare file.

Nothing here follows a name: a picture is the bytes that were sent, and a URL or a path in their place is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from recur.serve.tasks import Options

# What a file is called in a request, what it is to a person, and the types of a bare body that is one.
KINDS = {
    "image": ("a picture", ("image/", "application/octet-stream")),
    "video": (
        "a video",
        ("video/", "application/octet-stream", "application/zip", "application/x-tar", "application/gzip"),
    ),
}
LATER = {"retry-after": "1"}  # seconds after which a client that was refused for want of room may try again


class Refused(Exception):
    """A request that is wrong: the status and one line that says what, what was expected, and what to do."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Budget:
    """The bytes of all bodies that are held at one time, at most `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], bool]]:
        """A function that takes bytes off the budget, if they are there; at the end all of them go back."""
        taken = 0

        def take(count: int) -> bool:
            nonlocal taken
            if self.held + count > self.most:
                return False
            taken += count
            self.held += count
            return True

        try:
            yield take
        finally:
            self.held -= taken


async def read_body(request: Request, *, most: int, seconds: float, take: Callable[[int], bool]) -> bytes:
    """The body, of at most `most` bytes, if it comes within `seconds` and `take` grants its bytes. Errors: Refused."""
    close = {"connection": "close"}  # what else the client is sending is not read
    too_large = Refused(413, f"the body is too large; expected at most {most:,} bytes; send a smaller picture", **close)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body is compressed; expected it as it is; leave out Content-Encoding", **close)
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise too_large
    parts = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                if len(parts) + len(part) > most:
                    raise too_large
                if not take(len(part)):
                    raise Refused(503, "too many bytes are held already; try again later", **close, **LATER)
                parts += part
    except TimeoutError:
        raise Refused(408, f"the body took longer than {seconds:g} seconds; send it again", **close) from None
    except ClientDisconnect:
        raise Refused(400, "the body was cut off; send it again", **close) from None
    return bytes(parts)


async def understand(request: Request, body: bytes, kind: type[Options], *, file: str | None) -> tuple[bytes, Options]:
    """What was sent as `file`, a key of KINDS (empty where none is taken), and the options. Errors: Refused.

    A video may come under the name image too, which was its name before it had one of its own.
    """
    if not body:
        raise Refused(400, f"the body is empty; expected a form, JSON or {KINDS[file or 'image'][0]}; send one")
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    fields: dict[str, Any] = dict(request.query_params)
    sent: bytes | None = None
    if media == "application/json":
        found = _json(body)
        if file is not None:
            name = next((each for each in (file, "image") if each in found), file)
            sent = _base64(found.pop(name, None), file)
        fields |= found
    elif media == "multipart/form-data":
        sent, found = await _form(request, body, file or "image")
        fields |= found
    elif file is not None and media.startswith(KINDS[file][1]):
        sent = body
    else:
        bare = f" or {file}/*" if file is not None else ""
        raise Refused(415, f"content type {media!r}; expected multipart/form-data, application/json{bare}; use one")
    if file is not None and not sent:
        raise Refused(422, f"{file}: missing or empty; expected {KINDS[file][0]}; send one as the field {file}")
    try:
        return sent or b"", kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        known = ", ".join(kind.model_fields)
        raise Refused(422, f"{where[:100]}: {first['msg']}; options are {known}; correct it") from None


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON; expected an object, files in base64; correct it") from None
    if not isinstance(found, dict):
        raise Refused(400, f"the JSON is a {type(found).__name__}; expected an object; correct it")
    return found


def _base64(text: object, file: str) -> bytes:
    what = KINDS[file][0]
    if not isinstance(text, str):
        raise Refused(422, f"{file}: missing or not text; expected {what} in base64; send one")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(
            422, f"{file}: not base64; expected the bytes of {what} in base64; send those, not an address or a path"
        ) from None


async def _form(request: Request, body: bytes, file: str) -> tuple[bytes | None, dict[str, Any]]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    _, told = parse_options_header(request.headers.get("content-type", ""))
    border = told.get(b"boundary", b"")
    # The parser takes a form that stops in the middle for a whole one.
    if not border or not body.rstrip().endswith(b"--" + border + b"--"):
        raise Refused(400, "the form is cut off, or names no boundary; expected a whole one; send it again")
    sent: bytes | None = None
    fields: dict[str, Any] = {}
    try:
        # What is in memory already need not go to a file: the parser's own limit for that is small.
        parser = MultiPartParser(request.headers, once(), max_files=1, max_fields=32)
        parser.spool_max_size = len(body) + 1
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        what = str(getattr(error, "message", error))[:200]
        raise Refused(400, f"the form cannot be read ({what}); expected multipart/form-data; correct it") from None
    try:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                fields[name] = value
            elif name in (file, "image"):
                sent = await value.read()
            else:
                raise Refused(422, f"{name[:100]}: a file; expected one named {file}; rename it")
    finally:
        await form.close()
    return sent, fields
