"""What the service can do: one row a task. A task is added by one file and one line in `TASKS`.

A row says what a request carries (a picture, or fields alone), which options it may have, what is done in the
request's own thread (`prepare`: decoding, which may fail for this request alone), and what the worker does with all the
requests that wait together (`run`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """The options of a request: what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Row:
    """One address of the service. `path` comes after `/v1/`; `task` is that of the models it needs.

    `prepare(predictor, picture, options, max_pixels)` gives the item, `key(options)` tells which ones go together,
    `run(predictor, items, options)` gives one plain object, or an exception, for each of them. `events` turns a result
    into (name, object) pairs, where the answer can be streamed; `live(predictor, item, options)` gives such pairs while
    they are computed, one request at a time. `tab`: the module in `web/` that is the task's part of the page; a task
    without one has none, and captions are the page itself. `file`: what a request that takes a
    picture calls it, image or video.
    """

    path: str
    task: str
    summary: str
    takes_picture: bool
    options: type[Options]
    prepare: Callable[[Any, bytes, Any, int], Any]
    key: Callable[[Any], Hashable]
    run: Callable[[Any, Sequence[Any], Any], Sequence[Any]]
    example: dict[str, Any]
    events: Callable[[dict[str, Any]], Sequence[tuple[str, Any]]] | None = None
    live: Callable[[Any, Any, Any], Iterator[tuple[str, Any]]] | None = None
    tab: str | None = None
    file: str = "image"


# Modules with `ROWS`, a sequence of rows, in the order in which the page shows them.
TASKS = (
    "recur.serve.task_caption",
    "recur.serve.task_detect",
    "recur.serve.task_classify",
    "recur.serve.task_sentiment",
    "recur.serve.task_translate",
    "recur.serve.task_answer",
    "recur.serve.task_language",
    "recur.serve.task_frames",
)


def rows() -> tuple[Row, ...]:
    """All rows of all tasks."""
    return tuple(row for name in TASKS for row in importlib.import_module(name).ROWS)
