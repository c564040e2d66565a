"""Steps over a corpus: table by table, in parallel, taken up where a broken-off run stopped.

Between one step that needs the whole corpus and the next all steps run in one pass over the tables. A pass keeps for
every table what stays, what goes with its reason, and what the next such step measures of it, in a folder named by all
that determines it; a table whose figures are there is not done again. Tables hold the same records whatever the number
of workers, and so does all that comes of them.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from hf_nmt.artifacts import (
    atomic_file,
    atomic_folder,
    failed_writes_told,
    file_lock,
    hash_file,
    hash_folder,
    remove_leftovers,
    write_json,
)
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.step import SIDES, CorpusStep, Step
from hf_nmt.config import fingerprint
from hf_nmt.data.manifest import Step as RecordedStep
from hf_nmt.errors import DataError

logger = logging.getLogger(__name__)

ROWS_OF_A_TABLE = 10_000
_DONE, _MEASURED = "{:06d}.json", "{:06d}.measured.arrow"
# The last line of the story of a record that no step drops.
KEPT = "kept to the end"
# Key of the schema's metadata under which a step finds `table_number`.
_NUMBER = b"table"


@dataclass(frozen=True)
class NamedStep:
    """A step and what it is called in counts, rejects and messages."""

    name: str
    step: Step

    @property
    def identity(self) -> tuple[Any, ...]:
        for path in self.step.files():
            if not path.exists():
                raise DataError(f"{path}: there is no such file or folder; the step {self.name} needs it.")
        files = [hash_folder(path) if path.is_dir() else hash_file(path) for path in self.step.files()]
        return type(self.step).__name__, self.step.version, self.step.model_dump(mode="json"), files

    @property
    def measured(self) -> tuple[Any, ...]:
        """The part of `identity` that what a CorpusStep measures depends on."""
        assert isinstance(self.step, CorpusStep)
        kind, version, _, files = self.identity
        return kind, version, self.step.model_dump(mode="json", exclude={*self.step.decided_by}), files


@dataclass(frozen=True)
class Pass:
    """Steps that run in one pass over the tables.

    Attributes:
        steps: in their order; of them only the first may be a CorpusStep, whose state is known by now.
        state: of that.
        measured_for: the CorpusStep that comes after, None at the end.
        folder: where the results go.
    """

    steps: tuple[NamedStep, ...]
    state: Path | None
    measured_for: CorpusStep | None
    folder: Path


@dataclass(frozen=True)
class Cleaned:
    """What cleaning came to.

    Attributes:
        kept: files of the tables that are left, in their order.
        rejected: files of the records that went: SCHEMA with the texts as the step found them, and `step`, `reason`,
            `detail`.
        steps: counts of every step.
        seconds: processor time of every step, summed over the workers; of a CorpusStep with what it measured and
            decided.
    """

    kept: list[Path]
    rejected: list[Path]
    steps: list[RecordedStep]
    seconds: dict[str, float]

    def tell(self, first: int = 0) -> None:
        """Log what each step came to, from this one on."""
        for step in self.steps[first:]:
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in step.dropped.items()) or "nothing"
            changed = f"; changed: {sum(step.changed.values()):,}" if step.changed else ""
            seconds = self.seconds[step.name]
            logger.info("%s: %s kept; dropped: %s%s (%.1f CPU s)", step.name, step.kept, dropped, changed, seconds)


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file whole or not at all."""
    with (
        atomic_file(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, table.schema.remove_metadata()) as to,
    ):
        to.write_table(table.replace_schema_metadata(None))


def read_table(path: Path) -> pa.Table:
    """An Arrow IPC file, mapped into memory.

    Raises:
        DataError: it is gone or damaged.
    """
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}, which lay there between two steps, is gone or damaged. Remove its folder, {path.parent}, and "
            "run again: what is missing is made anew."
        ) from error


def kept_file(folder: Path, number: int) -> Path:
    """Where the records of a table lie that stay."""
    return folder / f"{number:06d}.kept.arrow"


def rejected_file(folder: Path, number: int) -> Path:
    """Where the records of a table lie that went (`with_reasons`)."""
    return folder / f"{number:06d}.rejected.arrow"


def with_reasons(gone: pa.Table, step: str, reasons: Any, details: Any) -> pa.Table:
    """Records that go, with the columns `step`, `reason` and `detail`: values of each, or one for all."""
    for column, values in (("step", step), ("reason", reasons), ("detail", details)):
        if values is None or isinstance(values, str):
            values = [values] * len(gone)
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = pa.array(values, pa.string())
        gone = gone.append_column(column, values)
    return gone


def table_number(pairs: pa.Table) -> int | None:
    """Which table of the corpus this is, from 0, where it comes to a CorpusStep; None for a record by itself."""
    found = (pairs.schema.metadata or {}).get(_NUMBER)
    return None if found is None else int(found)


def store_tables(tables: Iterable[pa.Table], folder: Path) -> list[Path]:
    """Write tables to a folder, all or none; what is there already is taken as it is."""
    if not folder.is_dir():
        with atomic_folder(folder) as partial:
            for number, table in enumerate(tables):
                write_table(kept_file(partial, number), table)
    return sorted(folder.glob("*.kept.arrow"))


def clean(tables: Sequence[Path], steps: Sequence[NamedStep], work: Path, *, identity: Any, engine: Engine) -> Cleaned:
    """Run steps over a corpus.

    Args:
        tables: files of `write_table`, records of SCHEMA.
        steps: in their order.
        work: folder for what is between; a run with the same `identity` and steps goes on from there.
        identity: of what is in the tables.
        engine: where the work is done.

    Raises:
        NmtError: a file cannot be written.
    """
    cleaned = Cleaned(list(tables), [], [], {})
    passes = _passes(steps, work, identity)
    seconds_before = 0.0
    for number, one in enumerate(passes):
        reports = _run(one, cleaned.kept, engine)
        numbers = range(len(cleaned.kept))
        if one.steps:
            cleaned.kept[:] = [kept_file(one.folder, index) for index in numbers]
            cleaned.rejected.extend(rejected_file(one.folder, index) for index in numbers)
        _add(cleaned, one, reports)
        if number:
            cleaned.seconds[one.steps[0].name] += seconds_before
        if one.measured_for is not None:
            start = time.process_time()
            state = passes[number + 1].state
            assert state is not None
            measured = [one.folder / _MEASURED.format(index) for index in numbers]
            with file_lock(state, timeout_seconds=-1):
                if not state.is_dir():
                    with atomic_folder(state) as partial:
                        if engine.shuffle is None:
                            one.measured_for.decide(measured, partial)
                        else:
                            one.measured_for.decide_by(engine.shuffle, measured, partial)
            seconds_before = sum(report["measure"]["seconds"] for report in reports) + time.process_time() - start
    return cleaned


def _passes(steps: Sequence[NamedStep], work: Path, identity: Any) -> list[Pass]:
    starts = [0, *(index for index, one in enumerate(steps) if isinstance(one.step, CorpusStep)), len(steps)]
    passes = []
    for index, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        following = steps[end].step if end < len(steps) else None
        assert following is None or isinstance(following, CorpusStep)
        done = [one.identity for one in steps[:end]] + [one.measured for one in steps[end : end + 1]]
        key = fingerprint(identity, ROWS_OF_A_TABLE, done)
        before = fingerprint(identity, ROWS_OF_A_TABLE, [one.identity for one in steps[: start + 1]])
        state = work / f"{index:02d}-state-{before}" if index else None
        passes.append(Pass(tuple(steps[start:end]), state, following, work / f"{index:02d}-{key}"))
    return passes


def _run(one: Pass, tables: Sequence[Path], engine: Engine) -> list[dict[str, Any]]:
    with failed_writes_told(one.folder):
        one.folder.mkdir(parents=True, exist_ok=True)
    name = ", ".join(step.name for step in one.steps) or "measure"
    done = engine.map(functools.partial(_run_table, one), list(enumerate(tables)))
    try:
        return list(tqdm(done, name, len(tables), unit="table", leave=False, disable=None))
    except BaseException:
        remove_leftovers(one.folder)  # of worker processes that were ended
        raise


def _run_table(one: Pass, task: tuple[int, Path]) -> dict[str, Any]:
    """One table through the steps of a pass. The figures are written last: where they are, the tables are."""
    number, path = task
    done = one.folder / _DONE.format(number)
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    pairs = read_table(path).replace_schema_metadata({_NUMBER: str(number)})
    rejected = []
    report: dict[str, Any] = {}
    for index, named in enumerate(one.steps):
        start = time.process_time()
        state = one.state if index == 0 else None
        pairs, gone, figures = apply_step(named, pairs, state)
        rejected.append(gone)
        report[named.name] = figures | {"seconds": time.process_time() - start}
    if rejected:
        write_table(kept_file(one.folder, number), pairs)
        write_table(rejected_file(one.folder, number), pa.concat_tables(rejected))
    if one.measured_for is not None:
        start = time.process_time()
        write_table(one.folder / _MEASURED.format(number), one.measured_for.measure(pairs))
        report["measure"] = {"seconds": time.process_time() - start}
    write_json(done, report)
    return report


def apply_step(named: NamedStep, pairs: pa.Table, state: Path | None) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """The records that stay, those that go with `step`, `reason` and `detail`, and the counts."""
    outcome = named.step.apply(pairs, state) if len(pairs) else None
    reasons = outcome.reasons if outcome else pa.nulls(0, pa.string())
    details = outcome.details if outcome else pa.nulls(0, pa.string())
    after = outcome.pairs if outcome else pairs
    stays = pc.is_null(reasons)
    goes = pc.invert(stays)
    gone = with_reasons(pairs.filter(goes), named.name, reasons.filter(goes), details.filter(goes))
    kept = after.filter(stays) if len(gone) else after
    changed = 0
    if after is not pairs:
        before = pairs.filter(stays)
        same = functools.reduce(pc.and_, (pc.equal(before[side], kept[side]) for side in SIDES))
        changed = len(kept) - (pc.sum(same).as_py() or 0)
    counts = pc.value_counts(gone["reason"]).to_pylist()
    return (
        kept,
        gone,
        {
            "kept": len(kept),
            "dropped": {one["values"]: one["counts"] for one in sorted(counts, key=lambda one: one["values"])},
            "changed": changed,
        },
    )


def _add(cleaned: Cleaned, one: Pass, reports: Sequence[dict[str, Any]]) -> None:
    for named in one.steps:
        figures = [report[named.name] for report in reports]
        dropped: Counter[str] = sum((Counter(part["dropped"]) for part in figures), Counter())
        changed = sum(part["changed"] for part in figures)
        cleaned.steps.append(
            RecordedStep(
                name=named.name,
                settings=named.step.model_dump(mode="json"),
                kept=sum(part["kept"] for part in figures),
                dropped=dict(sorted(dropped.items())),
                changed={"text": changed} if changed else {},
            )
        )
        cleaned.seconds[named.name] = sum(part["seconds"] for part in figures)


def explain(
    record_id: str, tables: Sequence[Path], steps: Sequence[NamedStep], work: Path, *, identity: Any
) -> Iterator[str]:
    """The story of one record: what every step made of it, a line each. The run is done, its work is still there.

    Raises:
        DataError: no record has this id.
    """
    equal = [table.filter(pc.equal(table["id"], record_id)) for table in map(read_table, tables)]
    if not (count := sum(map(len, equal))):
        raise DataError(
            f"explain: no record that was read has the id {record_id}. Ids have 32 digits; they stand in the "
            "column id of rejects.parquet and of the data, and in leakage.tsv. Copies that augment made are not read."
        )
    found = next(one for one in equal if len(one)).slice(0, 1)
    row = found.to_pylist()[0]
    if count > 1:
        yield f"read {count} times, as equal records have one id; this is the story of the one that stays"
    yield f"read from {row['origin']}: {row['source']} ||| {row['target']}"
    for one in _passes(steps, work, identity):
        for index, named in enumerate(one.steps):
            kept, gone, figures = apply_step(named, found, one.state if index == 0 else None)
            if len(gone):
                last = gone.to_pylist()[0]
                detail = f" ({last['detail']})" if last["detail"] else ""
                yield f"{named.name}: dropped, {last['reason']}{detail}"
                return
            if figures["changed"]:
                row = kept.to_pylist()[0]
                yield f"{named.name}: changed to {row['source']} ||| {row['target']}"
            else:
                yield f"{named.name}: kept"
            found = kept
    yield KEPT
