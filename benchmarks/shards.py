"""What the driver of a job in shards costs: planning, starting again, committing; by shard, without any model.

    python benchmarks/shards.py FOLDER [--files 100000] [--commits 2000] [--loose]

Prints one JSON object: processor time, bytes of memory and of files for each input: an archive, or with
--loose a picture, 1,000 of which make a shard. `FOLDER` is made, and must not exist.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recur.scale.folder import Folder
from recur.scale.shards import Job
from recur.scale.tasks import Draft, Shard

CONTENT = b"{}\n"


class Instant:
    """An engine whose workers take no time: what is left is the driver's own."""

    def __init__(self, folder: Folder, most: int) -> None:
        self.folder, self.most = folder, most

    def map(self, make: Any, items: Iterable[Shard], *, ordered: bool) -> Iterator[tuple[Shard, Any]]:
        for number, shard in enumerate(items):
            if number == self.most:
                return
            draft = self.folder.draft(shard.name)
            path = Path(self.folder.path(draft))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(CONTENT)
            yield shard, Draft(draft, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), 1, 1, 0, ())


def memory() -> int:
    """The most that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--loose", action="store_true")
    parser.add_argument("--commits", type=int, default=2_000)
    options = parser.parse_args()
    options.folder.mkdir()
    suffix = "jpg" if options.loose else "tar"
    for number in range(options.files):
        (options.folder / f"{number:08d}.{suffix}").touch()
    folder = Folder(str(options.folder / "out"))
    figures: dict[str, Any] = {"files": options.files}
    before, begun = memory(), time.process_time()
    job = Job(folder, {"format": 1}, "jsonl")
    assert job.plan([str(options.folder)], 1000) == []
    figures["plan_microseconds"] = round(1e6 * (time.process_time() - begun) / options.files, 1)
    figures["plan_bytes_of_memory"] = (memory() - before) // options.files
    figures["plan_bytes"] = Path(folder.path("plan.jsonl")).stat().st_size // options.files
    begun = time.process_time()
    job.run(Instant(folder, options.commits), lambda: lambda shard: shard)
    figures["commit_milliseconds"] = round(
        1000 * (time.process_time() - begun) / min(options.commits, len(job.shards)), 2
    )
    begun = time.process_time()
    again = Job(folder, {"format": 1}, "jsonl")
    again.plan([str(options.folder)], 1000)
    assert again.shards == job.shards
    figures["again_microseconds"] = round(1e6 * (time.process_time() - begun) / options.files, 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
