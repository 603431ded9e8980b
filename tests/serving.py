"""The service in a thread of the test, on a free port."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Serving:
    """A service that runs. `call` sends one request and returns status, headers and body."""

    def __init__(self, port: int, app: Any, server: Any = None) -> None:
        self.port, self.app, self.server = port, app, server

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, picture: bytes | Path, *, name: str = "image", **fields: Any) -> tuple[int, Any]:
        """A form with a picture, or another file; the status and the JSON that came back."""
        kind, body = form(picture.read_bytes() if isinstance(picture, Path) else picture, name=name, **fields)
        status, _, answer = self.call("POST", path, body, {"content-type": kind})
        return status, json.loads(answer)


def form(picture: bytes, *, name: str = "image", **fields: Any) -> tuple[str, bytes]:
    """multipart/form-data: its content type and its bytes."""
    border = uuid.uuid4().hex
    parts = [f'--{border}\r\ncontent-disposition: form-data; name="{name}"; filename="a"\r\n\r\n'.encode() + picture]
    for key, value in fields.items():
        parts.append(f'--{border}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}'.encode())
    return f"multipart/form-data; boundary={border}", b"\r\n".join([*parts, f"--{border}--\r\n".encode()])


@contextmanager
def serving(predictors: dict[str, Any], **options: Any) -> Iterator[Serving]:
    """Run the application for `predictors`; `options` as `make_app` takes them."""
    from recur.serve.app import make_app
    from recur.serve.run import Server, listen

    app = make_app(predictors, **options)
    up = threading.Event()
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, up.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert up.wait(60)
        try:
            yield Serving(listener.getsockname()[1], app, server)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
