"""Where the work on tables is done: in this process, or in several of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function over tasks. The results are those of the tasks in their order, whoever computed them."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]: ...


class LocalEngine:
    """This machine.

    Args:
        num_workers: processes; with 1 the work is done in this one.
    """

    def __init__(self, num_workers: int):
        self.num_workers = num_workers

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if self.num_workers == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        # Forked children of a process with threads, as Arrow's, may hang.
        context: Any = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.num_workers, len(tasks)), context) as pool:
            try:
                yield from pool.map(function, tasks)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
