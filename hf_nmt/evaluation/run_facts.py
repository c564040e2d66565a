"""What is compared of a training run: its cost, its curves, its scores; and what of it cannot be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nmt import runs
from hf_nmt.artifacts import hash_model
from hf_nmt.config import fingerprint
from hf_nmt.evaluation.folders import WrittenEvaluation
from hf_nmt.metrics import Score
from hf_nmt.run_records import Records, count_weights, is_falling, is_one_of, model_folder

# What tells how translations look and not how good they are; the best is what is nearest to 1.
RATIOS = ("length_ratio",)


@dataclasses.dataclass(frozen=True)
class Point:
    """A measured value, and what had been spent until then.

    Attributes:
        step: updates.
        tokens: source and target tokens trained on.
        seconds: wall seconds of training, with its validations.
        cpu_seconds: processor seconds in updates; None in runs that did not record them.
        value: what was measured.
    """

    step: int
    tokens: int
    seconds: float
    cpu_seconds: float | None
    value: float


@dataclasses.dataclass(frozen=True)
class ScoreOnTest:
    """A score of a run's model on a test set, from recipes/validate.py.

    Attributes:
        text: what was translated, by the name of its file.
        score: the record.
        folder: the evaluation.
    """

    text: str
    score: Score
    folder: Path


@dataclasses.dataclass
class RunFacts:
    """A run, as it is compared. What a run does not tell is None or empty, and named in `missing`.

    Attributes:
        name: in tables and pictures.
        records: of the run.
        parameters, parameters_without_embeddings: of the model; see `run_records.count_weights`.
        updates, epochs, tokens, seconds, cpu_seconds, tokens_per_second: what was trained, and what it cost.
        curves: name of a metric, as in metrics.jsonl -> its values.
        best, last: validation metric -> its best and its last value.
        final: scores of the chosen model on the validation texts.
        tests: scores of the chosen model on test sets.
        missing: what is not known, one sentence each.
    """

    name: str
    records: Records
    parameters: int | None = None
    parameters_without_embeddings: int | None = None
    updates: int | None = None
    epochs: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    tokens_per_second: float | None = None
    curves: dict[str, list[Point]] = dataclasses.field(default_factory=dict)
    best: dict[str, Point] = dataclasses.field(default_factory=dict)
    last: dict[str, Point] = dataclasses.field(default_factory=dict)
    final: list[Score] = dataclasses.field(default_factory=list)
    tests: list[ScoreOnTest] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)


def read_facts(name: str, records: Records, evaluations: Sequence[WrittenEvaluation] = ()) -> RunFacts:
    """Gather what a run tells of itself.

    Args:
        name: in tables and pictures.
        records: of the run, which may be torn, unfinished or of an older version.
        evaluations: of any models; those of this run's model are picked by its hash.
    """
    facts = RunFacts(name, records, missing=list(records.problems))
    if not records.run and not records.problems:
        facts.missing.append("There is no run.json.")
    version = records.run.get("schema_version")
    if records.run and version != runs.SCHEMA_VERSION:
        facts.missing.append(f"run.json is of version {version}, not {runs.SCHEMA_VERSION}: more may be missing.")
    _read_curves(facts)
    _read_cost(facts)
    _read_sizes(facts)
    _read_scores(facts)
    _find_tests(facts, evaluations)
    return facts


def _read_curves(facts: RunFacts) -> None:
    entries = runs.read_metrics(facts.records.folder)
    for entry in entries:
        try:
            point = Point(
                int(entry["step"]), int(entry["tokens"]), float(entry["seconds"]), entry.get("cpu_seconds"),
                float(entry["value"]),
            )  # fmt: skip
            facts.curves.setdefault(entry["name"], []).append(point)
        except (KeyError, TypeError, ValueError, AttributeError):
            note = "metrics.jsonl holds lines of another form, which are left out."
            facts.missing += [] if note in facts.missing else [note]
    if not facts.curves:
        facts.missing.append("There are no metrics: it ended before its first log.")
    elif not any(point.cpu_seconds is not None for points in facts.curves.values() for point in points):
        facts.missing.append("CPU seconds were not recorded along the way.")
    facts.epochs = entries[-1].get("epoch") if entries and isinstance(entries[-1], dict) else None


def _read_cost(facts: RunFacts) -> None:
    """From the summary; of a run without one from its last log, which may be some updates before its end."""
    summary = facts.records.summary
    points = [point for curve in facts.curves.values() for point in curve]
    if summary:
        facts.updates, facts.epochs = summary.get("steps"), summary.get("epochs")
        facts.tokens, facts.seconds = summary.get("tokens"), summary.get("seconds")
        facts.cpu_seconds, facts.tokens_per_second = summary.get("cpu_seconds"), summary.get("tokens_per_second")
        return
    facts.missing.append("There is no summary, as it did not come to its end: what it cost is of its last log.")
    if points:
        last = max(points, key=lambda point: (point.step, point.seconds))
        facts.updates, facts.tokens, facts.seconds = last.step, last.tokens, last.seconds
        facts.cpu_seconds = last.cpu_seconds
    facts.tokens_per_second = _speed(facts.curves.get("tokens_per_second", []))


def _speed(points: Sequence[Point]) -> float | None:
    """Tokens per second of training alone: each logged speed is tokens since the log before over that time."""
    before, seconds = 0, 0.0
    for point in points:
        if point.value > 0:
            seconds += (point.tokens - before) / point.value
        before = point.tokens
    return points[-1].tokens / seconds if seconds else None


def _read_sizes(facts: RunFacts) -> None:
    folder = model_folder(facts.records)
    counts = None
    if folder is not None:
        try:
            counts = count_weights(folder)
        except (OSError, ValueError, KeyError) as error:
            facts.missing.append(f"The weights in {folder.name} cannot be read: {error}.")
    total = facts.records.summary.get("parameters")
    if counts is not None:
        # What is saved beside the weights, such as position tables of some families, is no parameter.
        facts.parameters, facts.parameters_without_embeddings = total or counts[0], counts[1]
    else:
        facts.parameters = total
        facts.missing.append(
            "The size without embeddings is not known: "
            + ("no weights were saved." if folder is None else f"{folder.name} holds no whole model.")
        )


def _read_scores(facts: RunFacts) -> None:
    for entry in facts.records.validations:
        for name, value in (entry.get("metrics") or {}).items():
            if name == "seconds" or not isinstance(value, int | float):
                continue
            spent = entry.get("tokens", 0), entry.get("seconds", 0.0), entry.get("cpu_seconds")
            point = Point(entry.get("step", 0), *spent, float(value))
            facts.last[name] = point
            if name not in facts.best or is_better(name, point.value, facts.best[name].value):
                facts.best[name] = point
    if not facts.records.validations:
        facts.missing.append("There were no validations.")
    for score in facts.records.summary.get("scores") or []:
        try:
            facts.final.append(Score.model_validate(score))
        except ValueError:
            facts.missing.append("summary.json holds scores of another form.")


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether a value of a metric is better than another."""
    if is_one_of(metric, RATIOS):
        return abs(value - 1) < abs(other - 1)
    return value < other if is_falling(metric) else value > other


def _find_tests(facts: RunFacts, evaluations: Iterable[WrittenEvaluation]) -> None:
    evaluations = list(evaluations)
    best = facts.records.folder / "best"
    if not evaluations or not best.is_dir():
        return
    ours = {score.system.hash for score in facts.final} - {None} or {fingerprint(hash_model(best))}
    for evaluation in sorted(evaluations, key=lambda one: one.folder.name):  # in order of their times
        if evaluation.system_hash in ours:
            # A newer one of the same takes the place of the older.
            scores = [ScoreOnTest(_name_of(score), score, evaluation.folder) for score in evaluation.scores]
            kept = {_identity(one.score): one for one in [*facts.tests, *scores]}
            facts.tests = list(kept.values())


def _name_of(score: Score) -> str:
    name = Path(score.data.id).name if score.data.id else score.data.split or "text"
    return f"{name} {score.data.domain}" if score.data.domain else name


def _identity(score: Score) -> tuple[Any, ...]:
    return (
        score.name, score.signature, score.data.hash, score.data.domain, fingerprint(score.system.decoding),
    )  # fmt: skip


def spent(points: Sequence[Point], by: str) -> tuple[list[float], list[float]]:
    """A curve over `step`, `tokens`, `seconds` or `cpu_seconds`; points that do not know it are left out."""
    known = [(getattr(point, by), point.value) for point in points if getattr(point, by) is not None]
    return [x for x, _ in known], [value for _, value in known]


def text_hashes(facts: RunFacts) -> Mapping[str, str]:
    """Split -> content hash of the texts of a run."""
    return facts.records.run.get("data") or {}
