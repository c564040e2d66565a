"""Runs of a recipe as processes of their own, watched from outside: what a trial of a search does."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import is_complete
from hf_nmt.config_yaml import Plain, core_scalar, parse_yaml
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.runs import is_locked, list_checkpoints, load, read_metrics, read_validations, step_of

# Between two looks at what a run has written, and until a run that was told to stop is killed.
_LOOK_SECONDS, _STOP_SECONDS = 0.5, 120.0

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Validation:
    """One validation of a run.

    Attributes:
        step: updates before it.
        metrics: by name, such as loss and bleu.
    """

    step: int
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        folder: of its run; None where it came to none.
        pruned: whether it was ended early.
        error: why it failed; None where it did not.
        updates: of the weights, as far as the run recorded them, without those before it went on.
        cpu_seconds: processor time of its process.
        validations: those that count, with those before it went on.
    """

    folder: Path | None
    pruned: bool = False
    error: str | None = None
    updates: int = 0
    cpu_seconds: float = 0.0
    validations: tuple[Validation, ...] = ()


def command_of(script: Path, base: str | None, overrides: list[str]) -> list[str]:
    """What starts a recipe with settings."""
    return [sys.executable, str(script), *(["--config", base] if base is not None else []), *overrides]


def resolve(command: list[str]) -> dict[str, Any]:
    """The settings that a recipe would run with, all checks of its own passed.

    Raises:
        ConfigError: it refuses them, in its own words.
    """
    done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
    if done.returncode in (130, 143):
        raise KeyboardInterrupt
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode} and no word."]
        start = next((n for n, line in enumerate(lines) if line.endswith("settings cannot be used:")), None)
        told = [line.strip() for line in lines[start + 1 :]] if start is not None else [lines[-1].strip()]
        raise ConfigError([line.removeprefix("Error: ") for line in told])
    for line in done.stderr.splitlines():
        _pass_on(line)
    return _plain(parse_yaml(done.stdout, "--dry-run", []))


@functools.cache
def _pass_on(line: str) -> None:
    """A doubt of the recipe, once."""
    logger.warning("%s", line)


def _plain(value: Any) -> Any:
    """With the types that scalars have by themselves."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return core_scalar(value) if isinstance(value, Plain) else value


def run_trial(
    command: list[str],
    folder: Path,
    name: str,
    on_validation: Callable[[Validation], bool],
    *,
    resume: tuple[Path, int] | None = None,
) -> Outcome:
    """Run a recipe to its end.

    Args:
        command: of `command_of`; of a run that goes on its first two words.
        folder: gets the run folder and `<name>.log`, all that the process writes.
        name: opens the name of the run folder; no other run of the folder may have it.
        on_validation: told each validation of the run; where it says False, the run is ended.
        resume: run folder that goes on, and the step of its last checkpoint; None for a new one.

    Raises:
        KeyboardInterrupt: once the run has been told, too, and has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = children_seconds()
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        # A group of its own, so that Ctrl-C comes to it once: from here.
        process = subprocess.Popen(
            [*command, f"output_dir={folder}", f"name={name}"] if resume is None else
            [*command[:2], f"resume={resume[0]}"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip
    last, pruned = -1, False
    try:
        while not pruned:
            try:
                process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            ended = process.returncode is not None
            run = run_folder(folder, name) if resume is None else resume[0]
            for validation in _validations(run):
                if validation.step <= last:
                    continue
                last = validation.step
                if not on_validation(validation) and not ended:
                    pruned = True
                    break
            if ended:
                break
    finally:
        _stop(process)
    error = None
    if not pruned and process.returncode:
        error = _why(process.returncode, run, log)
    updates, _ = cost_of(run, 0 if resume is None else resume[1])
    return Outcome(run, pruned, error, updates, round(children_seconds() - before, 2), tuple(_validations(run)))


def outcome_of(run: Path) -> Outcome | None:
    """Of a run that came to its end, without a cost of its own; None where it did not."""
    try:
        if load(run).record.get("status") != "finished":
            return None
    except ConfigError:
        return None
    return Outcome(run, validations=tuple(_validations(run)))


def goes_on_at(run: Path) -> int | None:
    """The step of the checkpoint at which a run that was stopped goes on; None where it has to begin anew."""
    try:
        record = load(run)
    except ConfigError:
        return None
    if record.record["status"] == "finished" or is_locked(run):
        return None
    return max((step_of(one) for one in list_checkpoints(record.checkpoints) if is_complete(one)), default=None)


def cost_of(run: Path | None, since: int = 0) -> tuple[int, float]:
    """Updates of a run after the step `since`, and the processor seconds in them, as far as it recorded them."""
    entries = [] if run is None else read_metrics(run)
    seconds = [(entry["step"], entry.get("cpu_seconds", 0.0)) for entry in entries]
    steps = [step for step, _ in seconds] + [validation.step for validation in _validations(run)]
    before = max((value for step, value in seconds if step <= since), default=0.0)
    spent = max((value for _, value in seconds), default=0.0) - before
    return max([*steps, since]) - since, round(spent, 2)


def run_folder(folder: Path, name: str) -> Path | None:
    """The run folder of this name in a folder."""
    return next((path.parent for path in sorted(folder.glob(f"{name}-*/run.json"))), None)


def children_seconds() -> float:
    """Processor time of the processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _validations(run: Path | None) -> list[Validation]:
    """Those of a run that count."""
    return [] if run is None else [Validation(entry["step"], entry["metrics"]) for entry in read_validations(run)]


# Found before a process is started: between fork and exec nothing may be loaded.
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Have the kernel end this process tidily where its parent is killed, which could not tell it."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _why(status: int, run: Path | None, log: Path) -> str:
    """Why a run failed, in a line."""
    try:
        if run is not None and (error := load(run).record.get("error")):
            return str(error).splitlines()[0]
    except NmtError:
        pass
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    ended = f"it was ended by signal {-status}" if status < 0 else f"it left with status {status}"
    return f"{ended}: {lines[-1].removeprefix('Error: ')}" if lines else f"{ended}."
