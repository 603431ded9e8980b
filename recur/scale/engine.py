"""Who does the work: this process, or the actors of a Ray cluster.

Work is made once in each process (a model is loaded then) and called with one item after the other. What a worker
had in hand when it was killed is given to another; the work of an item may therefore be done twice, and whoever
commits its result does so once.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from recur.errors import RecurError

Item = TypeVar("Item")
Made = TypeVar("Made")
LIVES: Final = 3  # workers that an item may cost: what kills every one of them is not tried for ever


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


class Actor(Generic[Item, Made]):
    """What runs in a process of the cluster."""

    def __init__(self, make: Callable[[], Callable[[Item], Made]]) -> None:
        self.work = make()

    def do(self, item: Item) -> Made:
        """The result of one item."""
        return self.work(item)


@dataclass(slots=True)
class _Task(Generic[Item, Made]):
    item: Item
    deaths: int = 0
    result: Made | Lost | None = None
    done: bool = False


class Ray:
    """Actors on a Ray cluster, one a processor, replaced when they die.

    `address` as Ray has it (`auto`, `ray://HOST:10001`, `HOST:6379`); None starts one on this machine. `workers`: as
    many as the cluster has processors when None. recur is installed on its machines, and a model is named by a path
    that they have too. Errors: RecurError without the package, or when no cluster answers.
    """

    threads: int | None = 1  # of a model: there is a worker a processor

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise RecurError('--engine ray needs ray, which is not installed; pip install "recur[ray]"') from None
        self.ray = ray
        options: dict[str, Any] = {} if address is not None else {"include_dashboard": False, "num_cpus": workers}
        try:
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

    def map(
        self, make: Callable[[], Callable[[Item], Made]], items: Iterable[Item], *, ordered: bool
    ) -> Iterator[tuple[Item, Made | Lost]]:
        """As `Engine.map`. Two items a worker are taken ahead at most, so memory does not grow with their number."""
        actor_class = self.ray.remote(Actor).options(num_cpus=1, max_restarts=0)
        source = iter(items)
        idle: list[Any] = [actor_class.remote(make) for _ in range(self.workers)]
        running: dict[Any, tuple[Any, _Task[Item, Made]]] = {}
        again: deque[_Task[Item, Made]] = deque()  # whose workers died
        line: deque[_Task[Item, Made]] = deque()  # handed out, in order, results not yet given
        over = False
        try:
            while True:
                while idle:
                    if again:
                        task = again.popleft()
                    elif over or len(line) >= 2 * self.workers:
                        break
                    else:
                        try:
                            task = _Task(next(source))
                        except StopIteration:
                            over = True
                            break
                        line.append(task)
                    actor = idle.pop()
                    running[actor.do.remote(task.item)] = (actor, task)
                if not running:
                    break
                ready, _ = self.ray.wait(list(running), num_returns=1)
                for reference in ready:
                    actor, task = running.pop(reference)
                    if self._settle(reference, task):
                        idle.append(actor)
                    else:
                        idle.append(actor_class.remote(make))
                        if not task.done:
                            again.append(task)
                for task in [task for task in line if task.done] if not ordered else _head(line):
                    line.remove(task)
                    assert task.result is not None
                    yield task.item, task.result
        finally:
            for actor in [*idle, *(actor for actor, _ in running.values())]:
                self.ray.kill(actor)

    def _settle(self, reference: Any, task: _Task[Item, Made]) -> bool:
        """Take the result; whether the worker is still alive."""
        errors = self.ray.exceptions
        try:
            task.result = self.ray.get(reference)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            if getattr(error, "actor_init_failed", False):
                raise RecurError(f"a worker cannot begin: {_cause(error)}") from None
            task.deaths += 1
            if task.deaths >= LIVES:
                task.result, task.done = Lost(f"{LIVES} workers died of it"), True
            return False
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(getattr(error, "cause", None), Exception) else error
            raise cause from None
        task.done = True
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray.shutdown()


def _head(line: deque[_Task[Item, Made]]) -> list[_Task[Item, Made]]:
    """Those at the front that are done."""
    found = []
    for task in line:
        if not task.done:
            break
        found.append(task)
    return found


def _cause(error: Exception) -> str:
    """The last line of what Ray tells about an error in another process: the error itself, with its type before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition("Error: ")[2] or lines[-1] if lines else type(error).__name__


def open_engine(name: str, address: str | None = None, workers: int | None = None) -> Local | Ray:
    """The engine `local` or `ray`, to be used in a `with` block."""
    return Ray(address, workers) if name == "ray" else Local()
