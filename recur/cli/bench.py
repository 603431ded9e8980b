"""`recur bench`: recur beside other programs, on this machine, in one run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.cli.options import Commands, add_model
from recur.cli.terminal import json_line
from recur.errors import RecurError

if TYPE_CHECKING:
    from recur.bench.measure import Row

BENCHMARKS = {
    "step": "one token after another, beside PyTorch's fastest way and the memory's limit",
    "beam": "captions from ready features, beside a batched beam search in PyTorch",
    "caption": "photographs on disk to captions, beside BLIP-base and ViT-GPT2 of transformers",
    "scan": "whole sequences, beside torch.nn.LSTM and GRU",
    "language": "learning a text from nothing, beside a small GPT by nanoGPT's recipe",
    "growth": "time and memory as pictures, steps, words and beam grow",
}
DESCRIPTION = """\
Time recur and other programs side by side on this machine: contestants take turns, medians are shown, and no time is
shown before the same run has found equal results. Needs `pip install "recur[train]"`. Each takes some minutes;
--quick gives a first look.

NAME is one of:
""" + "\n".join(f"  {name:8} {what}" for name, what in BENCHMARKS.items())


def add(commands: Commands) -> None:
    """Add `bench`."""
    import argparse

    parser = commands.add_parser(
        "bench",
        help="how fast it is here, beside other programs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=bench)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(BENCHMARKS)}")
    parser.add_argument("--where", action="store_true", help="say which instruction sets and runtimes are used here")
    add_model(parser)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photographs of your own for `caption`")
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text that `language` learns")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--save", type=Path, metavar="FILE.png", help="also draw the results")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the machine first")


def bench(
    *,
    names: list[str],
    where: bool = False,
    model: str = "captioner",
    photos: Path | None = None,
    text: Path | None = None,
    quick: bool = False,
    save: Path | None = None,
    json: bool = False,
) -> int:
    """Measure what `names` says and print it; returns the exit status."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not (names or where):
        what = f"no benchmark {unknown[0]!r}" if unknown else "nothing to measure"
        raise RecurError(f"{what}; expected some of {', '.join(BENCHMARKS)}, or --where; name one")
    from recur.bench import measure

    machine = measure.where()
    print(json_line({"machine": machine}) if json else "\n".join(_told(machine)), flush=True)
    rows: list[Row] = []
    for name in names:
        for row in _rows(name, model, photos, text, quick):
            rows.append(row)
            print(json_line(row.to_json()) if json else readable(row), flush=True)
    if save is not None and rows:
        from recur.bench.plot import plot
        from recur.files import write_atomically

        write_atomically(save, plot(rows, title=f"{machine['processor']}, {machine['processors']} processors"))
        sys.stderr.write(f"wrote {save}\n")
    return 0


def _rows(name: str, model: str, photos: Path | None, text: Path | None, quick: bool) -> Iterator[Row]:
    run: Callable[..., Iterator[Row]] = importlib.import_module(f"recur.bench.{name}").run
    options: dict[str, Any] = {"quick": quick}
    if name in ("beam", "caption", "growth"):
        from recur import load

        options["model"] = load(model)
    if name in ("caption", "growth"):
        options["name"] = model
    if name == "caption":
        options["photos"] = photos
    if name == "language":
        options["text"] = text
    return run(**options)


def readable(row: Row) -> str:
    """A row for people: the times, the ratio and what it should be, and what was checked."""
    lines = [f"{row.benchmark}: {row.what}"]
    lines += [f"    {value:12.4g} {row.unit}  {name}" for name, value in row.times.items()]
    if row.ratio is not None:
        aim = "" if row.need is None else f" (aim: {row.need:g})"
        lines.append(f"    {row.ratio:12.4g} times as fast as {row.against}{aim}")
    lines += [f"    {value:12.4g} {name.replace('_', ' ')}" for name, value in row.more.items()]
    return "\n".join([*lines, f"    equal: {row.checked}"])


def _told(machine: dict[str, Any]) -> Iterator[str]:
    core = (
        f"{machine['core_instructions']} (here: {', '.join(machine['core_available'])}; {machine['core_compiler']})"
        if machine["core"]
        else f"none, NumPy runs instead: {machine['core_reason']}"
    )
    yield f"machine: {machine['processor']}, {machine['processors']} processors, {machine['system']}"
    yield f"compiled core: {core}"
    yield f"picture encoder: {machine['encoder_runtime']}"
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
