"""The run folder: everything one training leaves behind, in the layout that other rooms read.

    run.json                 what was run: settings, fingerprint, seeds, environment, device, choices, status
    metrics.jsonl            one measured value a line: step, epoch, tokens, seconds, cpu_seconds, name, value
    validation_history.json  every validation with its scores and sample translations, every decision of the watch;
                             validations that were gone back from are marked given_up
    log.txt                  the log, in files of at most 5 MB
    validation_segments.jsonl  what the chosen model made of the validation texts, beside sources and references
    training_report.json  training_report.html
    tokenizer/  checkpoints/step-<n>/  best/  adapter/  plots/  summary.json

A run is `running` until it ends, `finished`, `interrupted` or `failed` after that. One that was killed stays
`running`: no process holds its lock any more. `resume` continues all but a finished one.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hf_nmt import config
from hf_nmt.artifacts import append_jsonl, file_lock, is_complete, is_held, write_json, write_text
from hf_nmt.environment import environment
from hf_nmt.errors import ConfigError, NmtError

SCHEMA_VERSION = 1
HISTORY = "validation_history.json"
LOG_BYTES = 5_000_000
# How weights were divided among the processes -> the file of recipes/launch that does it, and options beside it.
_LAUNCH_FILES = {
    "fsdp": ("fsdp.yaml",),
    "zero1": ("deepspeed_zero2.yaml", "--zero_stage", "1"),
    "zero2": ("deepspeed_zero2.yaml",),
    "zero3": ("deepspeed_zero3.yaml",),
}
_GIVEN_UP = "given_up"  # of a validation: the training went back to weights before it
_HELD = "run"  # in the run folder, by the process that writes it
_CHECKPOINT = re.compile(r"step-(\d+)")

logger = logging.getLogger(__name__)


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step}"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the name of a checkpoint."""
    return _CHECKPOINT.fullmatch(folder.name) is not None


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint folder."""
    found = _CHECKPOINT.fullmatch(checkpoint.name)
    assert found is not None, checkpoint
    return int(found[1])


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """The checkpoint folders, oldest first, whole or not."""
    folders = [path for path in checkpoints.glob("step-*") if is_checkpoint(path) and path.is_dir()]
    return sorted(folders, key=step_of)


class Run:
    """One run folder. Only the writer changes it; the other processes of a distributed run hold it read-only.

    As a context manager it holds the folder's lock and its log, and records how the run ended.

    Attributes:
        folder: the run folder.
        record: the content of run.json.
    """

    def __init__(self, folder: Path, record: dict[str, Any], *, writer: bool = True):
        self.folder = folder
        self.record = record
        self.writer = writer
        self._exit = ExitStack()
        self._log: logging.Handler = logging.NullHandler()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def best(self) -> Path:
        return self.folder / "best"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer"

    @property
    def plots(self) -> Path:
        return self.folder / "plots"

    def __enter__(self) -> Self:
        if self.writer:
            with ExitStack() as stack:
                stack.enter_context(file_lock(self.folder / _HELD))
                self._log = stack.enter_context(_log_to_file(self.folder / "log.txt"))
                if self.record["status"] != "running":
                    self.record = {key: value for key, value in self.record.items() if key not in ("ended", "error")}
                    self.update(status="running")
                self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.update(status="finished", ended=_now())
            elif issubclass(kind, KeyboardInterrupt | SystemExit):
                if self.writer:
                    logger.warning("Stopped. To go on: %s", self.resume_hint())
                self.update(status="interrupted", ended=_now())
            else:
                # Into the file only: whoever catches the error shows it.
                told = None if error is None or isinstance(error, NmtError) else (kind, error, trace)
                self._log.handle(
                    logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "The run failed: %s", (error,), told)
                )
                if self.writer and any(map(is_complete, list_checkpoints(self.checkpoints))):
                    logger.warning("Once what failed is mended, to go on: %s", self.resume_hint())
                self.update(status="failed", ended=_now(), error=f"{kind.__name__}: {error}")
        except NmtError:
            # The disk may be full; what ended the run is the better message.
            if error is None:
                raise
        finally:
            self._exit.close()

    def resume_hint(self) -> str:
        """The command that continues the run, and where it goes on."""
        script = f"recipes/{self.record['recipe']}.py"
        if Path(sys.argv[0]).name == Path(script).name:
            script = sys.argv[0]
        device = self.record["device"]
        processes = device.get("processes", 1)
        how = "--multi_gpu"
        if (sharding := device.get("sharding")) is not None:
            name, *options = _LAUNCH_FILES[sharding]
            how = shlex.join(["--config_file", str(Path(script).parent / "launch" / name), *options])
        launcher = f"accelerate launch {how} --num_processes {processes}" if processes > 1 else "python"
        steps = [step_of(folder) for folder in list_checkpoints(self.checkpoints) if is_complete(folder)]
        where = f"goes on at step {max(steps)}" if steps else "begins anew: there is no checkpoint yet"
        return f"{launcher} {shlex.quote(script)} resume={shlex.quote(str(self.folder))}   ({where})"

    def update(self, **values: Any) -> None:
        """Change run.json."""
        self.record.update(values)
        if self.writer:
            write_json(self.folder / "run.json", self.record)

    def choose(self, **choices: Any) -> None:
        """Record what was chosen on this machine; a resumed run takes the same."""
        self.update(choices={**self.record["choices"], **choices})

    def add_metrics(
        self,
        step: int,
        values: Mapping[str, float],
        *,
        epoch: float,
        tokens: int,
        seconds: float,
        cpu_seconds: float | None = None,
    ) -> None:
        """Append measured values to metrics.jsonl.

        Args:
            step: updates of the weights so far.
            values: name -> value.
            epoch: passes over the training text so far.
            tokens: real source and target tokens trained on so far.
            seconds: time spent in training so far, all sessions together.
            cpu_seconds: processor seconds of this process in updates so far; None where nobody counts them.
        """
        if not self.writer or not values:
            return
        shared = {"step": step, "epoch": round(epoch, 6), "tokens": tokens, "seconds": round(seconds, 3)}
        if cpu_seconds is not None:
            shared["cpu_seconds"] = round(cpu_seconds, 3)
        for name, value in values.items():
            append_jsonl(self.folder / "metrics.jsonl", {**shared, "name": name, "value": value})

    def add_validation(self, entry: Mapping[str, Any]) -> None:
        """Append one validation to validation_history.json; `entry` holds at least `step`."""
        if self.writer:
            write_json(self.folder / HISTORY, [*_read_history(self.folder), dict(entry)])

    def add_decision(self, entry: Mapping[str, Any]) -> None:
        """Append one decision of the watch to validation_history.json; `entry` holds `step` and `watch`."""
        self.add_validation(entry)

    def give_up_after(self, step: int) -> None:
        """Mark the validations later than a checkpoint that was gone back to: their weights are no more, and nothing
        is the best by them."""
        if not self.writer:
            return
        history = _read_history(self.folder)
        for entry in history:
            if "watch" not in entry and entry["step"] > step:
                entry[_GIVEN_UP] = True
        write_json(self.folder / HISTORY, history)

    def forget_after(self, step: int | None, *, validates: bool = False) -> None:
        """Drop metrics, validations and decisions later than a checkpoint, which a resumed run will measure again.

        Args:
            step: step of the checkpoint; None where the run begins anew.
            validates: the validation at that step, which may be there and was not saved, is still to come.
        """
        if not self.writer:
            return
        last = -1 if step is None else step
        kept = [entry for entry in read_metrics(self.folder) if entry["step"] <= last]
        history = [entry for entry in _read_history(self.folder) if entry["step"] <= last]
        if validates:
            kept = [entry for entry in kept if entry["step"] < last or not entry["name"].startswith("eval_")]
            before = itertools.takewhile(lambda entry: "watch" in entry or entry["step"] < last, history)
            history = [*before]  # what was decided about the validation follows it
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))
        write_json(self.folder / HISTORY, history)


def start(
    recipe: str,
    settings: Mapping[str, Any],
    output_dir: Path | str,
    name: str,
    *,
    data: Mapping[str, Any],
    seeds: Mapping[str, int],
    device: Mapping[str, Any],
) -> Run:
    """Make the folder of a new run, `<output_dir>/<name>-<YYYYmmdd-HHMMSS>`.

    Args:
        recipe: name of the recipe, such as "train".
        settings: resolved settings, as plain values.
        data: what identifies the data, such as content hashes.
        seeds: all seeds in use.
        device: the device and how it is used.

    Raises:
        NmtError: the folder or its record cannot be written; nothing stays.
    """
    identity = fingerprint(settings, data)
    for other in unfinished(output_dir, identity):
        logger.warning(
            "An unfinished run has the same settings and data: %s. To continue it instead: resume=%s", other, other
        )
    folder = _new_folder(Path(output_dir), name)
    run = Run(folder, {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "recipe": recipe,
        "name": name,
        "started": _now(),
        "settings": dict(settings),
        "fingerprint": identity,
        "data": dict(data),
        "seeds": dict(seeds),
        "environment": environment(),
        "device": dict(device),
        "choices": {},
    })  # fmt: skip
    try:
        run.update()
    except NmtError:
        folder.rmdir()  # a run without its record is none
        raise
    return run


def load(folder: Path | str, *, writer: bool = False) -> Run:
    """Open an existing run folder.

    Raises:
        ConfigError: there is no run, or one of another schema version.
    """
    path = Path(folder)
    try:
        record = _read_record(path)
    except (OSError, ValueError) as error:
        why = "no readable run.json in it" if path.exists() else "it does not exist"
        others = sorted(unfinished(path.parent), key=lambda other: (other / "run.json").stat().st_mtime, reverse=True)
        listed = ", ".join(map(str, others[:5])) + (" and more" if len(others) > 5 else "")
        hint = f" Not finished in {path.parent}, the newest first: {listed}." if others else ""
        raise ConfigError(f"resume: {path} is not a run folder: {why}.{hint}") from error
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"resume: {path} has a run.json of version {record.get('schema_version')}; this hf_nmt reads "
            f"{SCHEMA_VERSION}."
        )
    return Run(path, record, writer=writer)


def _read_record(folder: Path) -> dict[str, Any]:
    """Raises OSError or ValueError where there is none."""
    if isinstance(record := json.loads((folder / "run.json").read_text(encoding="utf-8")), dict):
        return record
    raise ValueError("run.json is no object")


def resume(folder: Path | str, recipe: str) -> Run:
    """Open a run to continue it.

    Raises:
        ConfigError: not a run folder, a run of another recipe, or one that is finished.
    """
    run = load(folder, writer=True)
    if run.record["recipe"] != recipe:
        raise ConfigError(f"resume: {run.folder} is a run of recipes/{run.record['recipe']}.py; resume it there.")
    if run.record["status"] == "finished":
        raise ConfigError(
            f"resume: {run.folder} is finished: {run.best}. It cannot be trained longer: leave resume out for a "
            "new run, with more training.num_train_epochs, say."
        )
    return run


def fingerprint(settings: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Identity of a run: its settings, without where it is written and what its report compares, and its data."""
    told = {key: value for key, value in settings.items() if key not in ("name", "output_dir", "resume", "report")}
    return config.fingerprint(told, dict(data))


def unfinished(output_dir: Path | str, identity: str | None = None) -> list[Path]:
    """Run folders with this fingerprint that did not finish and that no process is writing; None takes any."""
    found = []
    for path in sorted(Path(output_dir).glob("*/run.json")):
        try:
            record = _read_record(path.parent)
        except (OSError, ValueError):
            continue
        same = identity in (None, record.get("fingerprint")) and record.get("status") != "finished"
        if same and not is_locked(path.parent):
            found.append(path.parent)
    return found


def read_metrics(folder: Path | str) -> list[dict[str, Any]]:
    """The entries of metrics.jsonl; a line torn by a kill is left out."""
    path = Path(folder) / "metrics.jsonl"
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # torn by a kill
            continue
    return entries


def series(entries: Iterable[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    points = [(entry["step"], entry["value"]) for entry in entries if entry["name"] == name]
    return [step for step, _ in points], [value for _, value in points]


def read_validations(folder: Path | str, *, given_up: bool = False) -> list[dict[str, Any]]:
    """The validations in validation_history.json that count.

    Args:
        given_up: with those of weights that were gone back from, in their places.
    """
    return [entry for entry in _read_history(folder) if "watch" not in entry and (given_up or counts(entry))]


def counts(validation: Mapping[str, Any]) -> bool:
    """Whether a validation is one of the training as it went on, and not of weights that were gone back from."""
    return not validation.get(_GIVEN_UP, False)


def read_decisions(folder: Path | str) -> list[dict[str, Any]]:
    """The decisions of the watch in validation_history.json: step, epoch, and under `watch` check, action, value,
    limit, count, to_step and told."""
    return [entry for entry in _read_history(folder) if "watch" in entry]


def _read_history(folder: Path | str) -> list[dict[str, Any]]:
    path = Path(folder) / HISTORY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _new_folder(output_dir: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(100):
        folder = output_dir / (f"{name}-{stamp}" + (f"-{number + 1}" if number else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise NmtError(f"output_dir: {folder} cannot be made: {error.strerror}.") from error
        return folder
    raise NmtError(f"output_dir: {output_dir} holds a hundred runs that began in this second.")


def is_locked(folder: Path) -> bool:
    """Whether a process is writing the run."""
    return is_held(folder / _HELD)


@contextmanager
def _log_to_file(path: Path) -> Iterator[logging.Handler]:
    """Send the logs of hf_nmt and of Transformers to a file."""
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=3, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("hf_nmt")
    sources = (ours, logging.getLogger("transformers"))
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
    for source in sources:
        source.addHandler(handler)

    try:
        yield handler
    finally:
        for source in sources:
            source.removeHandler(handler)
        handler.close()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
