"""Work that kills its process, in a file of its own because Ray's workers import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recur.errors import RecurError


class Dies:
    """Does what `make()` does, but its process is killed when it has its item of this number in hand; once in all."""

    def __init__(self, make: Callable[[], Any], mark: Path, at: int) -> None:
        self.work, self.mark, self.at, self.count = make(), mark, at, 0

    def __call__(self, item: Any) -> Any:
        self.count += 1
        if self.count == self.at and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.work(item)


class Squares:
    """Slow for 0, deadly for 13."""

    def __call__(self, item: int) -> int:
        if item == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1 if item == 0 else 0)
        return item * item


def never() -> Callable[[int], int]:
    """Work that cannot begin."""
    raise RecurError("the model: is damaged; expected a whole one")
