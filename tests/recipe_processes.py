"""Runs `recipes/train.py` in processes of its own that can be killed, without importing everything anew each time."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import datasets
from free_ports import free_port

RECIPE = Path(__file__).parents[1] / "recipes" / "train.py"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["hf_nmt.training.finish", "hf_nmt.training.preparation", "recipe_processes"])


def run_recipe(argv: list[str], output: Path, **changes) -> int:
    """Run the recipe to its end, or to where it is killed; returns the exit status, negative for a signal.

    Args:
        argv: its arguments.
        output: stdout goes to `<output>.out`, stderr to `<output>.err`.
        changes: see `_child`.
    """
    process = start_recipe(argv, output, **changes)
    process.join(300)
    assert process.exitcode is not None, "the recipe did not end"
    return process.exitcode


def start_recipe(argv: list[str], output: Path, **changes) -> multiprocessing.process.BaseProcess:
    """As `run_recipe`, but while it runs."""
    process = _context.Process(target=_child, args=(argv, output), kwargs=changes)
    process.start()
    return process


def run_distributed(argv: list[str], output: Path, count: int, **changes) -> list[int]:
    """Run the recipe in `count` processes that know of each other, as a launcher starts them; see `run_recipe`."""
    port = free_port()
    processes = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(count)}
        process = _context.Process(
            target=_child, args=(argv, output.with_name(f"{output.name}-{rank}")), kwargs={"variables": own} | changes
        )
        process.start()
        processes.append(process)
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def _child(argv, output, signal_at=None, number=signal.SIGKILL, file_limit=None, variables=None) -> None:
    """
    Args:
        signal_at: step after whose update the process sends itself the signal `number`.
        file_limit: largest file that it may write from then on, in bytes: a full disk.
        variables: environment variables.
    """
    os.environ.update(variables or {})
    datasets.config.HF_DATASETS_CACHE = Path(output).parent / "cache"  # read from the environment on import only
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if signal_at is not None:
        from hf_nmt.training.callbacks import ProgressBar

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == signal_at:
                os.kill(os.getpid(), number)

        ProgressBar.on_step_end = on_step_end
    out, err = (open(f"{output}.{name}", "w", encoding="utf-8", buffering=1) for name in ("out", "err"))
    with redirect_stdout(out), redirect_stderr(err):
        sys.argv = [str(RECIPE), *argv]
        runpy.run_path(str(RECIPE), run_name="__main__")
