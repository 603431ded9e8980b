"""Options of the commands that can work on a cluster, and the run of a job in shards, whatever its task."""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recur.cli.options import whole
from recur.cli.terminal import json_line, visible
from recur.errors import RecurError
from recur.progress import Progress

if TYPE_CHECKING:
    from recur.scale.engine import Local, Ray
    from recur.scale.shards import Outcome, Told

SHARD = 1000  # loose pictures in a shard


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Who does the work."""
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this process, or a Ray cluster (default: local)"
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the Ray cluster: auto, HOST:6379 or ray://HOST:10001 (default: a new one here)",
    )
    parser.add_argument(
        "--workers", type=whole(1), metavar="N", help="processes of the Ray cluster to use (default: one a processor)"
    )


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Where the records of a job go, and who does the work."""
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="write records in shards into this folder or URL (s3://…), each exactly once; a second run does what is "
        "missing. Pictures may then also lie in .tar and .parquet files, and under URLs",
    )
    parser.add_argument(
        "--form", choices=("jsonl", "parquet"), default="jsonl", help="what the shards are (default: jsonl)"
    )
    parser.add_argument(
        "--shard-size",
        type=whole(1),
        default=SHARD,
        metavar="N",
        help=f"loose pictures in a shard (default: {SHARD}); an archive is one shard",
    )
    add_engine(parser)


def chosen_engine(engine: str, address: str | None, workers: int | None) -> Local | Ray:
    """The engine that these options name, to be used in a `with` block. Raises RecurError for what does not fit."""
    from recur.scale.engine import open_engine

    if engine != "ray" and (address is not None or workers is not None):
        raise RecurError("--address and --workers are about a Ray cluster; add --engine ray, or leave them out")
    return open_engine(engine, address, workers)


def check_here(engine: str, address: str | None, workers: int | None, *, words: bool = False) -> None:
    """Raise RecurError for options of a job in shards where there is none: its records need a folder."""
    if engine != "local" or address is not None or workers is not None or words:
        raise RecurError("--engine, --address, --workers and --words are about a job in shards; add --out FOLDER")


def model_for_workers(model: str) -> str:
    """A model as other processes find it: they are in another folder, perhaps on another machine. Names stay names."""
    from recur.hub import resolve

    return str(resolve(model).resolve()) if os.path.exists(model) else model


def run_shards(
    *,
    task: str,
    pictures: Sequence[str],
    list_file: str | None,
    model: str,
    options: Mapping[str, Any],
    out: str,
    form: str,
    shard_size: int,
    engine: str,
    address: str | None,
    workers: int | None,
    json: bool,
) -> int:
    """Do a job in shards; returns the exit status. `options` are those of the predictor's stream."""
    from recur.bundle import read_bundle
    from recur.cli.inputs import names_in
    from recur.hub import resolve
    from recur.library.sources import absolute, roots
    from recur.predict import predictor
    from recur.scale.folder import Folder
    from recur.scale.shards import FORMAT, Job
    from recur.scale.tasks import arrow, maker, task_of

    if not pictures and list_file is None:
        raise RecurError("no pictures given; name files, folders, archives or URLs, or a list of them with --list FILE")
    if form == "parquet":
        arrow()
    bundle = read_bundle(resolve(model), task=task)
    # Options that the model has no use for are an error before anything is planned.
    deque(task_of(task).results(predictor(task)(bundle, threads=1), (), options), maxlen=0)
    places = roots(pictures)
    if list_file is not None:
        places += map(absolute, names_in(list_file))
    folder = Folder(out)
    header = {
        "format": FORMAT,
        "task": task,
        "model": bundle.name,
        "sha256": bundle.meta["sha256"],
        "options": dict(options),
        "form": form,
    }
    with chosen_engine(engine, address, workers) as worked, folder.held(), Progress(None, unit="pictures") as bar:
        job = Job(folder, header, form)
        problems = job.plan(places, shard_size)
        for problem in problems:
            bar.line(visible(str(problem)))

        def tell(told: Told) -> None:
            if told.entry is None:
                bar.line(visible(f"{folder.path(told.shard)}: not done ({told.problem}); run the same command again"))
                return
            for error in told.errors:
                bar.line(visible(error))
            more = told.entry["failed"] - len(told.errors)
            if more > 0:
                records = folder.path(told.entry["file"])
                bar.line(visible(f"{records}: {more:,} more could not be read; see its records"))
            if json:
                bar.result(json_line(dict(told.entry)))
            bar.advance(told.entry["pictures"])

        outcome = job.run(worked, maker(model_for_workers(model), options, folder.place, form, worked.threads), tell)
        if not json:
            bar.result(_summary(outcome, folder.path("manifest.jsonl")))
    sys.stdout.flush()
    return 1 if problems or outcome.broken or outcome.failed else 0


def _summary(outcome: Outcome, manifest: str) -> str:
    parts = [f"{outcome.done:,} shards done"]
    if outcome.before:
        parts.append(f"{outcome.before:,} were done before")
    if outcome.broken:
        parts.append(f"{outcome.broken:,} are missing")
    parts.append(f"{outcome.pictures:,} pictures")
    if outcome.failed:
        parts.append(f"{outcome.failed:,} of them could not be read")
    return visible(f"{', '.join(parts)}; {manifest}")
