"""The work on tables done by Ray Data, on this machine or on a cluster.

Tables, and what is measured of them, are files, which all nodes see under the same path; through Ray go the names of
the files, what a task returns, and the rows that are shuffled.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import re
import secrets
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_nmt.cleaning.engine import KEY, Result, Task
from hf_nmt.cleaning.pipeline import write_table
from hf_nmt.errors import ConfigError, DataError, NmtError, need

# Rows that come together are about as many bytes, so that some of them fit into the memory of a worker.
_BYTES_TOGETHER = 2**26
# Places where rows come together, for each processor, where there are few.
_PLACES = 2
_MOST_BLOCKS = 20_000
# How often a task is done again whose worker died; Ray Data's own default is for ever. The named parameters that it
# asks for in place of these options have none for it yet (2.60).
_AGAIN = {"max_retries": 2}
_PLACE = "place_of_key"
# The longest path of a socket is 107 bytes, most of which Ray's own folders take.
_LONGEST_FOLDER = 40
_SECONDS_TO_ANSWER = 10


@contextlib.contextmanager
def ray_engine(num_workers: int, address: str | None) -> Iterator[RayEngine]:
    """A Ray to work with: that at an address, or one that is started on this machine and stopped at the end.

    Args:
        num_workers: processes of the Ray that is started here.
        address: `host:port` of a cluster, or `auto` for the one that this machine is part of; None starts one.

    Raises:
        NmtError: Ray is not installed.
        ConfigError: no Ray answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Nobody else on this machine may reach it. Without this Ray keeps a token in the home folder, and says so.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray, data = need("ray", "ray"), need("ray.data", "ray")
    folder = None if address else Path(tempfile.mkdtemp(prefix="ray-", dir=_short_folder()))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        try:
            _knock(address)
            ray.init(**_options(num_workers, address, folder))
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"ray_address: {address or 'a Ray on this machine'} cannot be reached "
                f"({str(error).splitlines()[0]}). Start one with `ray start --head`, or leave it out to have one "
                "started here."
            ) from error
        finally:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTERM, handler)
        if folder is not None:
            # The default starts workers for each of its stages, which takes longer than a shuffle on one machine.
            strategy = data.context.ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
            data.DataContext.get_current().shuffle_strategy = strategy
        yield RayEngine(ray, data)
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _knock(address: str | None) -> None:
    """
    Raises:
        OSError: nobody listens at `host:port`, which Ray would wait for minutes for.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _options(num_workers: int, address: str | None, folder: Path | None) -> dict[str, Any]:
    common = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address is not None:
        return {"address": address, **common}
    return {
        "address": "local",
        "num_cpus": num_workers,
        "include_dashboard": False,
        "_temp_dir": str(folder),
        # A worker takes seconds to start, so none is ended as long as the run goes on.
        "_system_config": {
            "num_workers_soft_limit": 8 * num_workers,
            "idle_worker_killing_time_threshold_ms": 3600_000,
        },
        **common,
    }


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= _LONGEST_FOLDER else "/tmp"


class RayEngine:
    """An engine whose workers are Ray's.

    Args:
        ray: the package, which is connected.
        data: `ray.data`.
    """

    def __init__(self, ray: Any, data: Any):
        self._ray, self._data = ray, data
        self._folder = Path.cwd()
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # It writes stack traces of what is raised here anyway.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        if not len(tasks):
            return
        with self._errors_told():
            with _options_allowed():
                rows = self._items(tasks).map(functools.partial(_called, function, self._folder), **_AGAIN)
            for row in rows.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, _Raised):
                    raise result.error
                yield result

    def shuffle(
        self,
        make: Callable[[Task], pa.Table],
        tasks: Sequence[Task],
        stages: Sequence[Callable[[pa.Table], pa.Table]],
        *,
        bytes_of_rows: int,
        folder: Path,
    ) -> list[Path]:
        if not len(tasks):
            return []
        processors = int(self._ray.cluster_resources().get("CPU", 1))
        places = max(_PLACES * processors, -(-bytes_of_rows // _BYTES_TOGETHER))
        with self._errors_told(), _options_allowed():
            return self._shuffled(make, tasks, stages, places, folder)

    def _shuffled(
        self,
        make: Callable[[Task], pa.Table],
        tasks: Sequence[Task],
        stages: Sequence[Callable[[pa.Table], pa.Table]],
        places: int,
        folder: Path,
    ) -> list[Path]:
        rows = self._items(tasks).map_batches(
            functools.partial(_made, make, self._folder, places), batch_size=1, batch_format="pyarrow", **_AGAIN
        )
        for stage in stages[:-1]:
            rows = rows.groupby(_PLACE, num_partitions=places).map_groups(
                functools.partial(_gone_on, stage, self._folder, places), batch_format="pyarrow", **_AGAIN
            )
        rows = rows.groupby(_PLACE, num_partitions=places).map_groups(
            functools.partial(_written, stages[-1], self._folder, folder), batch_format="pyarrow", **_AGAIN
        )
        return [_file(folder, number) for number in sorted(row[_PLACE] for row in rows.iter_rows())]

    def _items(self, tasks: Sequence[Any]) -> Any:
        items = [{"task": pickle.dumps(task)} for task in tasks]
        return self._data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS))

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Ray's errors as ours: what a worker raised, or what became of it."""
        try:
            yield
        except self._ray.exceptions.RayError as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, NmtError):
                    raise cause from error
                cause = getattr(cause, "cause", None) or cause.__cause__
            if isinstance(error, self._ray.exceptions.WorkerCrashedError | self._ray.exceptions.OutOfMemoryError):
                raise NmtError(
                    "Ray could not go on: the worker of a task died, again and again, as where memory is short. Free "
                    "some, or take fewer workers. What is done is kept: run again to go on."
                ) from error
            # Of what is raised in a shuffle Ray keeps the text alone.
            ours = re.search(r"^hf_nmt\.errors\.\w+: (.+)", str(error), re.MULTILINE)
            if ours:
                raise NmtError(ours[1]) from error
            raise NmtError(f"Ray could not go on: {str(error).strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def _options_allowed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        yield


class _Raised:
    """What a worker raised."""

    def __init__(self, error: Exception):
        self.error = error


def _called(function: Callable[[Any], Any], folder: Path, row: dict[str, Any]) -> dict[str, bytes]:
    try:
        with _at_work(folder):
            return {"result": pickle.dumps(function(pickle.loads(row["task"])))}
    except Exception as error:
        return {"result": pickle.dumps(_Raised(error))}


def _made(make: Callable[[Any], pa.Table], folder: Path, places: int, rows: pa.Table) -> pa.Table:
    with _at_work(folder):
        return _placed(make(pickle.loads(rows["task"][0].as_py())), places)


def _gone_on(stage: Callable[[pa.Table], pa.Table], folder: Path, places: int, rows: pa.Table) -> pa.Table:
    with _at_work(folder):
        return _placed(stage(rows.drop_columns([_PLACE])), places)


def _written(stage: Callable[[pa.Table], pa.Table], folder: Path, to: Path, rows: pa.Table) -> pa.Table:
    number = rows[_PLACE][0].as_py()
    with _at_work(folder):
        write_table(_file(to, number), stage(rows.drop_columns([_PLACE])))
    return pa.table({_PLACE: [number]})


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.arrow"


def _placed(rows: pa.Table, places: int) -> pa.Table:
    """Rows with the place where they come together: keys are cut into as many ranges, which hashes fill alike."""
    high = rows[KEY].to_numpy() >> np.uint64(32)
    return rows.append_column(_PLACE, pa.array((high * np.uint64(places)) >> np.uint64(32)).cast(pa.int64()))


@contextlib.contextmanager
def _at_work(folder: Path) -> Iterator[None]:
    """In the folder that the recipe was called from, as paths are relative to it."""
    try:
        os.chdir(folder)
        yield
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or folder}: is not there for a worker of Ray ({socket.gethostname()}). All nodes must "
            "see the inputs, work_dir and the folder that the recipe is called from under the same paths."
        ) from error
