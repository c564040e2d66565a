"""Where the work on tables is done: in this process, in several of this machine, or on others (`ray_engine`)."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from hf_nmt.errors import NmtError

Task = TypeVar("Task")
Result = TypeVar("Result")


# Column of rows that are shuffled, of unsigned 64-bit hashes.
KEY = "key"


class Shuffle(Protocol):
    """Brings rows with the same key to one place, wherever they were made."""

    def __call__(
        self,
        make: Callable[[Task], pa.Table],
        tasks: Sequence[Task],
        stages: Sequence[Callable[[pa.Table], pa.Table]],
        *,
        bytes_of_rows: int,
        folder: Path,
    ) -> list[Path]:
        """Make rows and bring them together, once for each stage.

        Args:
            make: makes the rows of a task, with the column KEY.
            tasks: any number.
            stages: what is made of rows that came together: of all rows with a key, and of those with any number of
                other keys, in any order. What comes out has the column KEY again, and is what the next stage sees.
            bytes_of_rows: of what `make` gives for all tasks, which tells how much may come together.
            folder: where to write what the last stage gives.

        Returns:
            Arrow IPC files. The keys of the rows that a stage saw for one are smaller than those for the next.
        """


class Engine(Protocol):
    """Runs a function over tasks. The results are those of the tasks in their order, whoever computed them."""

    @property
    def shuffle(self) -> Shuffle | None:
        """How rows of all tasks are brought together where they need not fit on one machine; None: in memory."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]: ...


class LocalEngine:
    """This machine.

    Args:
        num_workers: processes; with 1 the work is done in this one.
    """

    shuffle: Shuffle | None = None

    def __init__(self, num_workers: int):
        self.num_workers = num_workers

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if self.num_workers == 1 or len(tasks) < 2:
            yield from map(function, tasks)
            return
        # Forked children of a process with threads, as Arrow's, may hang.
        context: Any = multiprocessing.get_context("spawn")
        others = multiprocessing.active_children()
        with ProcessPoolExecutor(min(self.num_workers, len(tasks)), context, spare_pandas) as pool:
            try:
                with _interrupts_held():
                    results = pool.map(function, tasks)
                yield from results
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    if process not in others:  # what it writes is whole or not there
                        process.terminate()
                if isinstance(error, BrokenProcessPool):
                    raise NmtError(
                        "A worker process was ended from outside, as the system does where memory runs out. The same "
                        "command goes on where this stopped; with a smaller num_workers it takes less memory."
                    ) from error
                raise


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes that are started inside never hear Ctrl-C, which a terminal sends to all: this one ends them."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


class _NotFound:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def spare_pandas() -> None:
    """Spare this process the third of a second in which Arrow imports pandas, if that is installed, to see whether
    the first array that it makes is one of those. A conversion to pandas imports it still."""
    if "pandas" in sys.modules:
        return
    finder = _NotFound()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([""])
    finally:
        sys.meta_path.remove(finder)
