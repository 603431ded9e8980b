"""An answer that is sent while it is computed: events go from the worker's thread to the connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from recur.errors import RecurError
from recur.serve.worker import Job, Worker

Event = tuple[str, Any]


class Flow:
    """The events of one request, computed by a worker and taken by the connection. To be made in the event loop."""

    def __init__(self, events: Callable[[], Iterator[Event]]) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Event | None] = asyncio.Queue()  # None: there are no more
        self._gone = threading.Event()
        self._first: Event | None = None
        self._done: Future[Any] = Future()

    async def begin(self, worker: Worker, seconds: float) -> None:
        """Put the work into the queue and wait for the first event, so that what cannot be done is an error of its own.

        Errors: Full; TimeoutError after `seconds`; what the work raises.
        """
        self._done = worker.submit(Job(self, self._run, None))
        try:
            async with asyncio.timeout(seconds):
                self._first = await self._told.get()
        except BaseException:
            self._end()
            raise
        if self._first is None:
            await asyncio.wrap_future(self._done)

    async def events(self) -> AsyncIterator[Event]:
        """The events in their order. A problem on the way is the last one, `error`; without a reader the work ends."""
        try:
            event = self._first
            while event is not None:
                yield event
                event = await self._told.get()
            try:
                await asyncio.wrap_future(self._done)
            except RecurError as error:
                yield "error", {"error": str(error)}
        finally:
            self._end()

    def _end(self) -> None:
        self._gone.set()
        self._done.cancel()

    def _run(self, items: Sequence[Any]) -> Sequence[Any]:
        """In the worker's thread."""
        try:
            for event in self._events():
                if self._gone.is_set():
                    break
                self._loop.call_soon_threadsafe(self._told.put_nowait, event)
        finally:
            self._loop.call_soon_threadsafe(self._told.put_nowait, None)
        return [None] * len(items)
