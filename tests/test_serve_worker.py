"""The queue of the service: batches form by themselves, room is bounded, and what was taken is finished."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from recur.serve.worker import Full, Job, Worker


class Slow:
    """Doubles numbers, when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.began.set()
        assert self.go.wait(30)
        return [ValueError("three") if item == 3 else 2 * item for item in items]


def test_what_waits_is_computed_together_and_apart_by_key() -> None:
    slow, sizes = Slow(), []
    worker = Worker(batch=3, room=100, threads=1, seen=sizes.append)
    first = worker.submit(Job("a", slow, 0))
    assert slow.began.wait(30)
    rest = [worker.submit(Job("b" if item == 5 else "a", slow, item)) for item in range(1, 8)]
    assert worker.waiting == 7
    slow.go.set()
    assert first.result(30) == 0
    assert [future.result(30) for future in rest if rest.index(future) != 2] == [2, 4, 8, 10, 12, 14]
    with pytest.raises(ValueError, match="three"):  # alone fails, those beside it do not
        rest[2].result(30)
    worker.close()
    assert slow.batches == [[0], [1, 2, 3], [4, 6, 7], [5]]
    assert sizes == [1, 3, 3, 1]


def test_room_is_bounded_and_closing_finishes_what_was_taken() -> None:
    slow = Slow()
    worker = Worker(batch=4, room=2, threads=1)
    futures = [worker.submit(Job("a", slow, 1))]
    assert slow.began.wait(30)
    futures += [worker.submit(Job("a", slow, item)) for item in (2, 4)]
    with pytest.raises(Full):
        worker.submit(Job("a", slow, 5))
    closing = threading.Thread(target=worker.close)
    closing.start()
    slow.go.set()
    closing.join(30)
    assert [future.result(0) for future in futures] == [2, 4, 8]
    with pytest.raises(Full):
        worker.submit(Job("a", slow, 5))


def test_a_batch_that_fails_does_not_end_the_worker_and_what_gave_up_is_not_computed() -> None:
    slow = Slow()
    worker = Worker(threads=1)

    def broken(items: Sequence[Any]) -> list[Any]:
        raise RuntimeError("broken")

    first = worker.submit(Job("a", slow, 1))
    assert slow.began.wait(30)
    failing, gone, good = (worker.submit(Job(key, run, 7)) for key, run in (("x", broken), ("y", slow), ("z", slow)))
    assert gone.cancel()
    slow.go.set()
    with pytest.raises(RuntimeError, match="broken"):
        failing.result(30)
    assert (first.result(30), good.result(30)) == (2, 14)
    worker.close()
    assert slow.batches == [[1], [7]]


def test_a_long_job_does_not_hold_up_the_others() -> None:
    slow, worker = Slow(), Worker(threads=2)
    long = worker.submit(Job("a", slow, 1))
    assert slow.began.wait(30)
    short = [worker.submit(Job("b", list, number)) for number in range(5)]
    assert [future.result(30) for future in short] == [0, 1, 2, 3, 4]
    assert not long.done()
    slow.go.set()
    worker.close()
    assert long.result(0) == 2
