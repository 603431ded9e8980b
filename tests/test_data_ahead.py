"""Work done ahead: in order, bounded, going on while the consumer is busy, and closed without leftovers."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recur.data.ahead import Ahead


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.002)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("test-ahead")]


def ahead(function: Callable[[int], int], source: Iterator[int] | range, room: int = 4, workers: int = 3) -> Ahead:
    return Ahead(function, source, workers=workers, ahead=room, name="test-ahead")


def test_order_is_kept_whoever_is_ready_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.004 if number % 2 == 0 else 0)
        return number * number

    with ahead(slow_when_even, range(30)) as results:
        assert list(results) == [(number, number * number) for number in range(30)]
        assert list(results) == []
    assert threads() == []


def test_work_goes_on_while_the_consumer_is_busy_but_only_so_far() -> None:
    done: list[int] = []

    def note(number: int) -> int:
        done.append(number)
        return number

    with ahead(note, range(1000)) as results:
        for number in range(1, 20):
            next(results)
            # Nobody asks for anything now: exactly so many more are computed all the same.
            until(lambda number=number: len(done) == number + 4)
            assert sorted(done) == list(range(number + 4))


def test_what_is_ready_does_not_wait_for_a_slow_source() -> None:
    given: queue.Queue[int | None] = queue.Queue()
    with ahead(lambda number: -number, iter(given.get, None)) as results:
        for number in (1, 2, 3):
            assert results.idle(0.01)
            given.put(number)
            assert next(results) == (number, -number)  # although the source now waits for the next one
        given.put(None)
        assert list(results) == []
        assert not results.idle(0.01), "over is not idle"


def test_what_is_under_way_is_not_idle() -> None:
    gate = threading.Event()
    with ahead(lambda number: int(gate.wait(10)), range(1)) as results:
        until(lambda: not results.idle(0))
        gate.set()
        assert list(results) == [(0, 1)]


def test_exceptions_come_in_their_place() -> None:
    def source() -> Iterator[int]:
        yield from (1, 0, 2)
        raise LookupError("the list broke")

    with ahead(lambda number: 2 // number, source()) as results:
        assert next(results) == (1, 2)
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert next(results) == (2, 1)
        with pytest.raises(LookupError, match="the list broke"):
            next(results)
        assert list(results) == []
    assert threads() == []


def test_closing_ends_threads_in_every_state() -> None:
    asked = threading.Event()
    never: queue.Queue[int] = queue.Queue()

    def blocked() -> Iterator[int]:
        yield 1
        asked.set()
        yield never.get()
        raise AssertionError("it was closed")

    ahead(int, range(5)).close()
    full = ahead(int, range(50))
    next(full)
    full.close()
    full.close()
    assert list(full) == []
    assert threads() == []
    waiting = ahead(int, blocked())
    assert asked.wait(10)
    closer = threading.Timer(0.02, waiting.close)
    closer.start()
    assert list(waiting) in ([(1, 1)], [])  # a consumer that waits is let go
    closer.join()
    never.put(2)
    until(lambda: not threads())


ENDING = """
import sys, time
from recur.data.ahead import Ahead
results = Ahead(len, sys.stdin.buffer, workers=1, ahead=2, name="x")
assert next(results) == (b"one\\n", 4)
sys.exit(5)
"""


def test_a_program_may_end_while_standard_input_is_read() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDING], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.wait(30) == 5
        assert process.stderr is not None
        assert process.stderr.read() == b""
