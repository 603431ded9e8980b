"""A progress bar on a terminal; in a log file or a pipe only the lines that belong there."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

DRAW_SECONDS = 0.1  # between two drawings of the bar
WIDTH = 24  # characters of the bar


class Progress:
    """A bar on `stream` (stderr unless given) while work is done; silent unless that is a terminal.

    `total` is a number, None when there is none, or a function that finds it and may take long (a walk over folders):
    it runs in a thread, and until it is back the bar shows the number done. `label` stands before the bar; `unit` is
    what is counted, and shows the rate; `start` is how much was done before, by the run that this one goes on with.
    A single piece of work gets no bar. Lines lift the bar away first: `line` for the log, `result` for stdout.

    >>> with Progress(100, label="epoch 1", start=40) as progress:  # doctest: +SKIP
    ...     progress.update(41, "loss 2.31")
    ...     progress.line("epoch 1: loss 2.31, dev CIDEr-D 0.412")
    """

    def __init__(
        self,
        total: int | Callable[[], int | None] | None,
        *,
        label: str = "",
        unit: str = "",
        start: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self.total = None if callable(total) else total
        self.label, self.unit, self.start, self.done = label, unit, start, start
        self.stream = stream if stream is not None else sys.stderr
        self.live = self.stream.isatty()
        self._drawn, self._shown = 0.0, False
        self._begun = time.monotonic()
        self._counting: threading.Thread | None = None
        if callable(total) and self.live:
            self._counting = threading.Thread(target=self._find_total, args=(total,), daemon=True)
            self._counting.start()

    def _find_total(self, count: Callable[[], int | None]) -> None:
        # A listing that cannot be read is reported where its pictures are read; the bar does without a total.
        try:
            self.total = count()
        except Exception:
            self.total = None

    def wait(self) -> None:
        """Until the total is known."""
        if self._counting is not None:
            self._counting.join()

    def advance(self, number: int = 1, text: str = "") -> None:
        """Count `number` more done."""
        self.update(self.done + number, text)

    def update(self, done: int, text: str = "") -> None:
        """`done` in all are done; `text` stands after the bar, which is drawn at most every `DRAW_SECONDS`."""
        self.done = done
        now = time.monotonic()
        if not self.live or self.total == 1 or now - self._drawn < DRAW_SECONDS:
            return
        self._drawn, self._shown = now, True
        self.stream.write("\r\x1b[K" + self._bar(now, text)[: max(shutil.get_terminal_size().columns - 1, 20)])
        self.stream.flush()

    def _bar(self, now: float, text: str) -> str:
        rate = (self.done - self.start) / max(now - self._begun, 1e-9)
        parts = [f"{self.done} {self.unit}".rstrip()]
        if self.total:
            full = round(WIDTH * min(self.done / self.total, 1.0))
            parts[0] = f"[{'#' * full}{'.' * (WIDTH - full)}] {self.done}/{self.total} {self.unit}".rstrip()
        if self.unit:
            parts.append(f"{rate:.0f} a second" if rate >= 10 else f"{rate:.1f} a second")
        if self.total and rate > 0:
            parts.append(f"{clock(max(self.total - self.done, 0) / rate)} left")
        return f"{self.label} {', '.join(parts)}  {text}".strip()

    def line(self, text: str) -> None:
        """One line of the log, on the stream of the bar."""
        self._lift()
        self.stream.write(text + "\n")
        self.stream.flush()

    def result(self, text: str) -> None:
        """One line on stdout."""
        self._lift()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _lift(self) -> None:
        if self._shown:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lift()


def clock(seconds: float) -> str:
    """90 gives 1:30, and 4000 gives 1:06:40."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
