"""Counters in Prometheus' text format (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0)


class Histogram:
    """Observations in buckets with upper bounds `bounds`."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def see(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, label: str = "") -> list[str]:
        out, below = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            out.append(f'{name}_bucket{{{label}{"," if label else ""}le="{bound}"}} {below}')
        braces = f"{{{label}}}" if label else ""
        return [*out, f"{name}_sum{braces} {self.total:.6f}", f"{name}_count{braces} {below}"]


class Metrics:
    """What the service counts. May be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._seconds: dict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self._batches = Histogram(SIZES)

    def request(self, path: str, status: int, seconds: float) -> None:
        """One answered request; `path` is one of the service's own, never what a client made up."""
        with self._lock:
            self._requests[path, status] += 1
            self._seconds[path].see(seconds)

    def batch(self, count: int) -> None:
        """One batch of `count` requests."""
        with self._lock:
            self._batches.see(count)

    def text(self, waiting: int) -> str:
        """Everything; `waiting` requests are in the queue."""
        with self._lock:
            out = ["# HELP recur_requests_total Requests answered.", "# TYPE recur_requests_total counter"]
            for (path, status), count in sorted(self._requests.items()):
                out.append(f'recur_requests_total{{path="{path}",status="{status}"}} {count}')
            out += [
                "# HELP recur_request_seconds From the first byte to the answer.",
                "# TYPE recur_request_seconds histogram",
            ]
            for path, histogram in sorted(self._seconds.items()):
                out += histogram.lines("recur_request_seconds", f'path="{path}"')
            out += ["# HELP recur_batch_size Requests computed together.", "# TYPE recur_batch_size histogram"]
            out += self._batches.lines("recur_batch_size")
            out += [
                "# HELP recur_waiting Requests in the queue.",
                "# TYPE recur_waiting gauge",
                f"recur_waiting {waiting}",
            ]
        return "\n".join(out) + "\n"
