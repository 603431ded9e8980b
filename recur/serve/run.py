"""Running the application: the socket, slow clients, and an end that finishes what was taken."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from recur.errors import RecurError

HEADER_SECONDS = 15.0  # to send the head of a request, and the longest that a connection may be idle
CONNECTIONS = 2048


class Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's protocol, which closes a connection on which no request begins: it would wait for ever."""

    def connection_made(self, transport: Any) -> None:
        # asyncio sets this only where the listening socket was made for TCP by number, which create_server does not do.
        # Without it the body of an answer waits 40 ms for the client to acknowledge the head (Nagle, delayed ACK).
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._seen: Any = None
        self._watch = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        cycle = self.cycle
        if (cycle is None or cycle.response_complete) and cycle is self._seen:
            self.transport.close()
            return
        self._seen = cycle
        self._watch = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._look)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Errors: RecurError, where the port is taken or the address is not this machine's."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise RecurError(f"{host}:{port}: cannot be listened on ({error}); choose another --port or --host") from None


class Server(uvicorn.Server):
    """The application behind a socket; `ready` is called when it answers."""

    def __init__(self, app: FastAPI, ready: Callable[[], object] = lambda: None) -> None:
        self._ready = ready
        super().__init__(
            uvicorn.Config(
                app,
                http=Patient,
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=60,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def run(app: FastAPI, listener: socket.socket, *, ready: Callable[[], object] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; then take nothing more, and answer what was taken. KeyboardInterrupt on SIGINT."""
    # Uvicorn sends itself, at its end, the signal that ended it: being told to stop is a good end.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        Server(app, ready).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
