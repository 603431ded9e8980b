"""Who does the work: this process, or the workers of a Ray cluster, by Ray Data.

Work is made once in each process (a model is loaded then) and called with one item after the other. What a worker
had in hand when it was killed is begun again; the work of an item may therefore be done twice, and whoever commits its
result does so once.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from recur.errors import RecurError

Item = TypeVar("Item")
Made = TypeVar("Made")
LIVES: Final = 3  # workers that an item may cost: what kills every one of them is not tried for ever
# Items of one data set of Ray's, or so many a worker where that is more: at its end, workers wait for the last ones.
WINDOW, EACH = 1000, 16
WINDOW_BYTES: Final = 1 << 29  # and what they are as bytes: some have pictures in them


@dataclass(frozen=True, slots=True)
class Lost:
    """Instead of a result: every worker that had the item died."""

    reason: str


class Engine(Protocol):
    """Has items worked on by `make()`, which is called once in each worker."""

    def map(
        self, make: Callable[[], Callable[[Item], Made]], items: Iterable[Item], *, ordered: bool
    ) -> Iterator[tuple[Item, Made | Lost]]:
        """(item, result), lazily: in the order of the items, or as they are ready. Errors of `make` and of the work
        are raised here.
        """
        ...


class Local:
    """This process, one item at a time. Models have threads of their own."""

    threads: int | None = None  # of a model: all processors

    def map(
        self, make: Callable[[], Callable[[Item], Made]], items: Iterable[Item], *, ordered: bool
    ) -> Iterator[tuple[Item, Made | Lost]]:
        """As `Engine.map`; both orders are the same."""
        work = make()
        for item in items:
            yield item, work(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Worker(Generic[Item, Made]):
    """What runs in a process of the cluster: tables of one row, an item in, its result or error out, both pickled."""

    def __init__(self, make: Callable[[], Callable[[Item], Made]]) -> None:
        self.make = make
        self.work: Callable[[Item], Made] | None = None

    def __call__(self, table: Any) -> Any:
        """The results of the rows. An error is a result, since Ray Data would put a text of its own in its place."""
        pa = importlib.import_module("pyarrow")
        made = [self._made(pickle.loads(item)) for item in table["item"].to_pylist()]
        return pa.table({"number": table["number"], "made": pa.array(made, pa.binary())})

    def _made(self, item: Item) -> bytes:
        try:
            if self.work is None:
                self.work = self.make()
            return pickle.dumps((self.work(item), None))
        except Exception as error:
            try:
                return pickle.dumps((None, error))
            except Exception:  # not every error can be pickled
                return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


class Ray:
    """Ray Data on a cluster: a pool of workers, one a processor, each replaced when it dies.

    `address` as Ray has it (`auto`, `ray://HOST:10001`, `HOST:6379`); None starts one on this machine. `workers`: as
    many as the cluster has processors when None. recur is installed on its machines, and a model is named by a path
    that they have too. Errors: RecurError without the package, or when no cluster answers.
    """

    threads: int | None = 1  # of a model: there is a worker a processor

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        # Ray's C++ side writes errors of level E for what is none, such as that a worker may be begun again.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            ray: Any = importlib.import_module("ray")
            data: Any = importlib.import_module("ray.data")
        except ImportError:
            raise RecurError('--engine ray needs Ray Data, which is not installed; pip install "recur[ray]"') from None
        self.ray, self.data = ray, data
        options: dict[str, Any] = {} if address is not None else {"include_dashboard": False, "num_cpus": workers}
        try:
            with _quiet():
                ray.init(
                    address=address or "local",
                    logging_level="ERROR",
                    log_to_driver=False,
                    configure_logging=False,
                    **options,
                )
        except Exception as error:  # Ray raises plain ones, too, when its processes do not come up in time
            ray.shutdown()
            where = "on this machine" if address is None else f"at {address}"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RecurError(f"no Ray cluster {where} ({reason}); check --address, or start one: ray start") from None
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_errored_blocks = -1  # what died with its worker is missing among the results, and is tried again
        context.execution_options.preserve_order = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it would tell of every worker that died

    def map(
        self, make: Callable[[], Callable[[Item], Made]], items: Iterable[Item], *, ordered: bool
    ) -> Iterator[tuple[Item, Made | Lost]]:
        """As `Engine.map`. One data set follows the other, so that memory does not grow with the number of items."""
        for window in _windows(items, max(WINDOW, EACH * self.workers)):
            early: dict[int, Made | Lost] = {}  # what is ready before its turn
            turn = 0
            for number, result in self._window(make, [packed for _, packed in window]):
                if not ordered:
                    yield window[number][0], result
                    continue
                early[number] = result
                while turn in early:
                    yield window[turn][0], early.pop(turn)
                    turn += 1

    def _window(
        self, make: Callable[[], Callable[[Item], Made]], packed: list[bytes]
    ) -> Iterator[tuple[int, Made | Lost]]:
        """(number, result) of every item, as they are ready; what is missing at the end is begun again."""
        missing = dict(enumerate(packed))
        for _ in range(LIVES):
            for number, made in self._pass(make, missing.copy()):
                del missing[number]
                yield number, made
            if not missing:
                return
        for number in missing:
            yield number, Lost(f"{LIVES} workers died of it")

    def _pass(
        self, make: Callable[[], Callable[[Item], Made]], packed: Mapping[int, bytes]
    ) -> Iterator[tuple[int, Made]]:
        """(number, result) of the items whose worker lived. Each is a block of its own: none suffers from another."""
        rows = [{"number": number, "item": item} for number, item in packed.items()]
        pool = self.data.ActorPoolStrategy(size=min(self.workers, len(rows)), max_tasks_in_flight_per_actor=1)
        try:
            with warnings.catch_warnings():  # of Ray, of what later versions of it will no longer have
                warnings.simplefilter("ignore", DeprecationWarning)
                results = self.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                    Worker,
                    fn_constructor_args=(make,),
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=pool,
                    num_cpus=1,
                    max_restarts=-1,
                    max_task_retries=0,  # what killed one worker is not given to the next at once, and so for ever
                )
            # Without looking ahead: a result that is there is given at once, or a killed driver would cost more.
            for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for number, made in zip(table["number"].to_pylist(), table["made"].to_pylist(), strict=True):
                    result, error = pickle.loads(made)
                    if error is not None:
                        raise error
                    yield number, result
        except self.ray.exceptions.RayError:
            return  # a machine went with results on it: they are missing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stderr, from C++ either: Ray greets there, and what goes wrong it raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _windows(items: Iterable[Item], most: int) -> Iterator[list[tuple[Item, bytes]]]:
    """The items with what goes to a worker, `most` at a time: what goes into one data set."""
    window: list[tuple[Item, bytes]] = []
    size = 0
    for item in items:
        window.append((item, pickle.dumps(item)))
        size += len(window[-1][1])
        if len(window) >= most or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def open_engine(name: str, address: str | None = None, workers: int | None = None) -> Local | Ray:
    """The engine `local` or `ray`, to be used in a `with` block."""
    return Ray(address, workers) if name == "ray" else Local()
