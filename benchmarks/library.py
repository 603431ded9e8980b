"""How a library grows: seconds, memory and bytes for each portion of generated pictures, and how long a search takes.

    python benchmarks/library.py FOLDER --pictures 100000 --portion 20000

Pictures are made first, then scanned a portion at a time, each in a process of its own; what is measured is added to
FOLDER/measured.jsonl and drawn in FOLDER/library.png. Called again it goes on where it was. The model is one with
random weights that takes next to no time (tests/helpers.py makes it, which needs the package `onnx`): what is measured
is the library, not the captioner. --model names another one.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
QUERIES = ("dog", "dog on the grass", '"two men"', "runs", "狗", "草地", "3 men", "zebra")


def make_pictures(folder: Path, first: int, last: int) -> None:
    """Pictures `first` to `last`, a thousand a folder: smooth blobs of colour, no two alike, as small JPEG files."""
    import numpy as np
    from PIL import Image

    for number in range(first, last):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((96, 72), Image.Resampling.BILINEAR).save(path, quality=80)


def scan_portion(work: Path, model: str, first: int, last: int) -> dict[str, Any]:
    """Scan the folders of one portion in this process; what it took."""
    import recur
    from recur.library.index import Index
    from recur.library.scan import Scan

    captioner = recur.load(model)
    folders = [str(work / "pictures" / f"{number:04d}") for number in range(first // 1000, -(-last // 1000))]
    with Index(work / "library.sqlite", create=True) as index, index.held("scan"):
        begun, cpu = time.perf_counter(), time.process_time()
        outcome = Scan(index, captioner, languages=captioner.languages).run(folders)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        index.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {
        "first": first,
        "last": last,
        "new": outcome.counts["new"],
        "alike": outcome.counts["alike"],
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "index_bytes": (work / "library.sqlite").stat().st_size,
    }


def measure_all(work: Path, model: str, pictures: int) -> dict[str, Any]:
    """A scan of everything again, and searches, with all pictures in the index: by the clock and by the processor."""
    import recur
    from recur.library.index import Index
    from recur.library.query import Wanted, entries
    from recur.library.scan import Scan

    captioner = recur.load(model)
    with Index(work / "library.sqlite") as index, index.held("scan"):
        cpu = time.process_time()
        again = Scan(index, captioner, languages=captioner.languages).run([str(work / "pictures")])
        cpu = time.process_time() - cpu
    times: dict[str, float] = {}
    used: dict[str, float] = {}
    with Index(work / "library.sqlite") as index:
        for query in QUERIES:
            taken = []
            for _ in range(5):
                begun = time.perf_counter(), time.process_time()
                for _, _entry in zip(range(20), entries(index, Wanted(text=query)), strict=False):
                    pass
                taken.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
            times[query], used[query] = (round(1000 * statistics.median(each), 2) for each in zip(*taken, strict=True))
    return {
        "pictures": pictures,
        "rescan_seconds": round(again.seconds, 3),
        "rescan_cpu_seconds": round(cpu, 3),
        "rescan_unchanged": again.counts["unchanged"],
        "search_milliseconds": times,
        "search_cpu_milliseconds": used,
        "index_bytes_per_picture": round((work / "library.sqlite").stat().st_size / pictures, 1),
    }


def straightness(portions: list[dict[str, Any]]) -> dict[str, float]:
    """How far the time until each portion was done lies from the straight line through zero that fits best, at most."""
    import numpy as np

    done = np.array([each["last"] for each in portions], float)
    found = {}
    for name in ("seconds", "cpu_seconds"):
        total = np.cumsum([each[name] for each in portions])
        line = done * (done @ total) / (done @ done)
        found[f"farthest_{name}_from_a_line"] = round(float(np.abs(total / line - 1).max()), 3)
    return found


def measure_growth(work: Path, model: str, pictures: int, *, extra: int = 2000, repeats: int = 12) -> dict[str, Any]:
    """What a picture costs in a full index and in an empty one, in turns: a busy machine is unfair to both alike.

    Constant cost is what makes the time of scanning linear in the number of pictures.
    """
    import recur
    from recur.library.index import Index
    from recur.library.scan import Scan

    captioner = recur.load(model)
    make_pictures(work / "extra", pictures, pictures + extra)
    cost: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(repeats):
        for kind, taken in cost.items():
            place = work / f"{kind}.sqlite"
            for beside in ("", "-wal", "-shm"):
                Path(f"{place}{beside}").unlink(missing_ok=True)
            if kind == "full":
                shutil.copyfile(work / "library.sqlite", place)
            with Index(place, create=True) as index, index.held("scan"):
                begun = time.process_time()
                counts = Scan(index, captioner, languages=captioner.languages).run([str(work / "extra")]).counts
                taken.append(1000 * (time.process_time() - begun) / extra)
            assert counts["new"] == extra
    empty, full = (min(cost[kind]) for kind in ("empty", "full"))  # what disturbs only ever adds
    return {
        "milliseconds_a_picture_in_an_empty_index": round(empty, 3),
        "milliseconds_a_picture_in_a_full_index": round(full, 3),
        "ratio_of_the_quickest": round(full / empty, 3),
        "median_ratio": round(statistics.median(two / one for one, two in zip(*cost.values(), strict=True)), 3),
    }


def draw(work: Path, portions: list[dict[str, Any]]) -> None:
    """Time, memory and size against the number of pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    time_, memory, size = figure.subplots(1, 3)
    done = [each["last"] for each in portions]
    total = [sum(each["cpu_seconds"] for each in portions[: place + 1]) for place in range(len(portions))]
    wall = [sum(each["seconds"] for each in portions[: place + 1]) for place in range(len(portions))]
    for axes, values, title, unit in (
        (time_, total, "time of scanning", "seconds"),
        (memory, [each["peak_megabytes"] for each in portions], "peak memory of a scan", "MB"),
        (size, [each["index_bytes"] / 1e6 for each in portions], "size of the index", "MB"),
    ):
        axes.plot(done, values, "o-", color="#4477aa", label="processor" if axes is time_ else None)
        axes.set(title=title, xlabel="pictures", ylabel=unit, xlim=(0, None), ylim=(0, 1.15 * max(values)))
        axes.grid(alpha=0.3)
    time_.plot(done, wall, "s--", color="#ee6677", label="clock")
    time_.set_ylim(0, 1.1 * max(*wall, *total))
    time_.legend()
    figure.savefig(work / "library.png", dpi=120)


def tiny_model(work: Path) -> str:
    """The path of a model with random weights."""
    path = work / "tiny"
    if not path.exists():
        sys.path.insert(0, str(ROOT / "tests"))
        from helpers import write_tiny_bundle

        write_tiny_bundle(path)
    return str(path)


def main() -> None:
    """Make, scan, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--portion", type=int, default=20_000)
    parser.add_argument("--model")
    parser.add_argument("--only", choices=["make", "portion"], help="make the pictures, or scan one portion, and stop")
    parser.add_argument("--inside", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    work: Path = options.folder
    work.mkdir(parents=True, exist_ok=True)
    model = options.model or tiny_model(work)
    log = work / "measured.jsonl"
    if options.inside:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(scan_portion(work, model, *options.inside)) + "\n")
        return
    make_pictures(work / "pictures", 0, options.pictures)
    if options.only == "make":
        return
    while True:
        portions = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
        first = portions[-1]["last"] if portions else 0
        if first >= options.pictures:
            break
        last = min(first + options.portion, options.pictures)
        call = [sys.executable, __file__, str(work), "--model", model, "--inside", str(first), str(last)]
        subprocess.run(call, check=True)
        print(log.read_text(encoding="utf-8").splitlines()[-1], flush=True)
        if options.only == "portion":
            return
    print(json.dumps(straightness(portions)), flush=True)
    print(json.dumps(measure_all(work, model, options.pictures), ensure_ascii=False), flush=True)
    print(json.dumps(measure_growth(work, model, options.pictures)), flush=True)
    draw(work, portions)


if __name__ == "__main__":
    main()
