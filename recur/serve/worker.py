"""The threads that predict. What waits for them while they compute is computed together next.

Requests do not wait for a batch to fill up: the queue grows by itself while a batch is computed, and so do the batches.
There are two threads, so that one batch is searched, sorted and written while the next goes through the encoder, and so
that a long job (a thousand characters, a film) does not hold up all the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class Full(Exception):
    """The queue has no more room."""


@dataclass(eq=False)
class Job:
    """Work for one request. Jobs with equal `key` may be run together: `run(items)` gives a result for each."""

    key: Hashable
    run: Callable[[Sequence[Any]], Sequence[Any]]
    item: Any
    result: Future[Any] = field(default_factory=Future)


class Worker:
    """Runs jobs in `threads` threads, at most `batch` together; at most `room` wait."""

    def __init__(
        self, *, batch: int = 16, room: int = 256, threads: int = 2, seen: Callable[[int], object] = lambda count: None
    ) -> None:
        """`seen` is told how many jobs each batch has."""
        self.batch, self.room, self._seen = batch, room, seen
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"recur-worker-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> Future[Any]:
        """Put a job into the queue. Errors: Full."""
        with self._change:
            if self._closing or len(self._waiting) >= self.room:
                raise Full
            self._waiting.append(job)
            self._change.notify()
        return job.result

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Finish what was taken, take no more, and end the threads."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[Job]:
        """The oldest job and those that may be run with it; empty when there is nothing more to come."""
        with self._change:
            while not self._waiting:
                if self._closing:
                    return []
                self._change.wait()
            first = self._waiting.popleft()
            taken, left = [first], deque[Job]()
            for job in self._waiting:
                (taken if job.key == first.key and len(taken) < self.batch else left).append(job)
            self._waiting = left
            return taken

    def _work(self) -> None:
        while taken := self._take():
            # A request that has given up is not computed; from here on it cannot give up any more.
            jobs = [job for job in taken if job.result.set_running_or_notify_cancel()]
            if not jobs:
                continue
            self._seen(len(jobs))
            try:
                results = jobs[0].run([job.item for job in jobs])
                for job, result in zip(jobs, results, strict=True):
                    if isinstance(result, Exception):
                        job.result.set_exception(result)
                    else:
                        job.result.set_result(result)
            except Exception as error:  # whatever it is, the next batch has nothing to do with it
                for job in jobs:
                    if not job.result.done():
                        job.result.set_exception(error)
