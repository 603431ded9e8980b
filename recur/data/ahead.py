"""Work done ahead in threads, in order and bounded, while whoever needs the results is busy with something else."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")
IDLE_SECONDS = 0.1  # a group no longer waits to fill up when its source has given nothing for so long
PARTING_SECONDS = 0.2  # how long closing waits for a source that is slow to answer


class Ahead(Generic[Given, Made]):
    """Iterates over (given, function(given)) in the order of `given`, computed in `workers` threads.

    A thread of its own takes what is given, so that a slow source (a pipe) never holds back what is ready. At most
    `ahead` items beyond those handed out are taken, whether or not anybody asks. An exception of the source, or of
    `function`, is raised where its item would have come. Closing drops what has not begun and ends the threads; one
    that waits for the source ends with the source's next item, which it drops.
    """

    def __init__(
        self, function: Callable[[Given], Made], source: Iterable[Given], *, workers: int, ahead: int, name: str
    ) -> None:
        self._function, self._source, self._ahead = function, source, ahead
        self._line: deque[tuple[Given, Future[Made]]] = deque()
        self._changed = threading.Condition()
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._feeder = threading.Thread(target=self._feed, name=f"{name}-source", daemon=True)
        self._feeder.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Given, Made]:
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._over or self._closed)
            if not self._line:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopIteration
            given, future = self._line[0]
        try:
            # It stays in line until it is done, so that never more than `ahead` are under way.
            return given, future.result()
        except CancelledError:
            raise StopIteration from None
        finally:
            with self._changed:
                if self._line:
                    self._line.popleft()
                self._changed.notify_all()

    def idle(self, seconds: float) -> bool:
        """Whether nothing is ready or under way, because the source has given nothing for so many seconds from now."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._line or self._over or self._closed, seconds)

    def close(self) -> None:
        """End the threads. Items that are being computed are waited for."""
        with self._changed:
            self._closed = True
            for _, future in self._line:
                future.cancel()
            self._line.clear()
            self._changed.notify_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._feeder.join(PARTING_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self) -> None:
        # This thread may still wait for standard input when the program ends. Python would close that then, and abort
        # ("could not acquire lock ... at interpreter shutdown"), unless somebody holds on to it: this frame does.
        standard_input = sys.stdin
        try:
            source = iter(self._source)
            while self._wait_for_room():
                try:
                    given = next(source)
                except StopIteration:
                    break
                with self._changed:
                    if self._closed:
                        break
                    self._line.append((given, self._pool.submit(self._function, given)))
                    self._changed.notify_all()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()
        del standard_input

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._line) < self._ahead or self._closed)
            return not self._closed


def as_they_come(source: Iterable[Made], size: int, *, name: str) -> Iterator[list[Made]]:
    """Items to be computed together, at most `size`: the first groups are small, so that something is there soon, and
    nothing waits for a source, such as a pipe, that gives nothing. The source is iterated in a thread of its own.
    """
    group: list[Made] = []
    now = 1
    with Ahead(_itself, source, workers=1, ahead=2 * size, name=name) as items:
        try:
            for item, _ in items:
                group.append(item)
                if len(group) == min(now, size) or items.idle(IDLE_SECONDS):
                    yield group
                    group, now = [], 4 * now
        except Exception:  # the source failed: what it gave before comes first
            if group:
                yield group
            raise
    if group:
        yield group


def _itself(item: Made) -> Made:
    return item
