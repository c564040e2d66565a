"""The report of one training: training_report.json for programs, training_report.html for people.

Beside what the run itself tells, it says what became better or worse against a named run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hf_nmt.artifacts import write_json, write_text
from hf_nmt.config import Settings, fingerprint
from hf_nmt.config_keys import shown
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation import run_comparison as comparing
from hf_nmt.evaluation.pages import Section, Table, as_html
from hf_nmt.evaluation.paired_runs import compare_runs
from hf_nmt.evaluation.run_facts import RunFacts
from hf_nmt.metrics import Comparison
from hf_nmt.run_records import find_runs, leaves

SCHEMA_VERSION = 1
logger = logging.getLogger(__name__)
REPORT, PAGE = "training_report.json", "training_report.html"
_OWN_PLOTS = {
    "learning_rate.png": "Learning rate", "gradient_norm.png": "Gradient norm", "tokens_per_second.png": "Speed",
}  # fmt: skip


class ReportSettings(Settings):
    places: ClassVar[tuple[str, ...]] = ("baseline",)

    baseline: Path | None = Field(
        None,
        description="Run folder that training_report.json and training_report.html compare this run with: settings, "
        "cost, scores, and a paired significance test of the two models on the validation texts. null: none.",
    )

    def check_files(self) -> list[str]:
        if self.baseline is None:
            return []
        try:
            found = find_runs([self.baseline])
        except ConfigError as error:
            return [f"baseline: {finding}" for finding in error.findings]
        if len(found) > 1:
            return [f"baseline: {self.baseline} holds {len(found)} runs. Name one of them, such as {found[0]}."]
        return []


def write_training_report(
    folder: Path, baseline: Path | None = None, evaluations: Iterable[Path | str] = ()
) -> tuple[dict[str, Any], list[Section]]:
    """Write the report of a run into its folder, finished or not.

    Args:
        folder: the run folder.
        baseline: the run to compare with, or None.
        evaluations: folders with what recipes/validate.py wrote, for scores on test sets.

    Returns:
        What was written as JSON, and the page without its pictures.
    """
    others: list[Path] = []
    try:
        others = [] if baseline is None else find_runs([baseline])
    except ConfigError as error:  # it was there when the training began
        logger.warning("The report compares with no run: %s", error)
    run, *rest = comparing.gather([folder, *others], evaluations)
    compared, notes = compare_runs(run, rest[0]) if rest else ({}, [])
    report = _report(run, rest, compared, notes)
    plots = folder / "plots"
    pictures = [
        (path.rename(path.with_name(f"report_{path.name}")), title)
        for path, title in comparing.draw_comparison([run, *rest], _made(plots))
    ]
    pictures += [(plots / name, title) for name, title in _OWN_PLOTS.items() if (plots / name).is_file()]
    sections = _sections(run, rest, compared, notes, pictures)
    write_text(folder / PAGE, as_html(f"Training report: {run.records.folder.resolve().name}", sections))
    write_json(folder / REPORT, report)
    return report, [section for section in sections if not section.pictures]


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _report(
    run: RunFacts, rest: list[RunFacts], compared: Mapping[str, list[Comparison]], notes: list[str]
) -> dict[str, Any]:
    record, manifest = run.records.run, run.records.manifest
    settings = record.get("settings") or {}
    differing, unrecorded = comparing.differing_settings([run, *rest])
    report = {
        "schema_version": SCHEMA_VERSION,
        "recipe": record.get("recipe"),
        "started": record.get("started"),
        "ended": record.get("ended"),
        "ended_by": run.records.summary.get("ended_by") or record.get("error"),
        "run": comparing.run_record(run),
        "settings": settings,
        "settings_hash": fingerprint(settings),
        "seeds": record.get("seeds"),
        "texts": {"splits": manifest.get("splits"), "inputs": manifest.get("inputs"), "steps": manifest.get("steps")},
        "validations": [
            {key: value for key, value in entry.items() if key != "samples"} for entry in _every_validation(run)
        ],
        "decisions": run.records.decisions,
        "environment": record.get("environment"),
        "device": record.get("device"),
        "choices": record.get("choices"),
        "baseline": None,
    }
    if rest:
        report["baseline"] = {
            "run": comparing.run_record(rest[0]),
            "settings_that_differ": differing,
            "settings_not_recorded_by_both": unrecorded,
            "surroundings_that_differ": comparing.differing_surroundings([run, *rest]),
            "score_differences": _score_differences(run, rest[0]),
            "significance": {
                text: [comparison.model_dump(mode="json") for comparison in comparisons]
                for text, comparisons in compared.items()
            },
            "not_compared": notes,
        }
    return report


def _score_differences(run: RunFacts, baseline: RunFacts) -> list[dict[str, Any]]:
    """Scores of both chosen models on the same validation texts, computed alike: both values and their difference."""
    found = []
    for score in run.final:
        for other in baseline.final:
            same = (score.name, score.signature, score.data.hash, score.data.domain)
            if same == (other.name, other.signature, other.data.hash, other.data.domain):
                found.append(
                    {
                        "name": score.name,
                        "domain": score.data.domain,
                        "value": score.value,
                        "baseline": other.value,
                        "difference": None
                        if score.value is None or other.value is None
                        else score.value - other.value,
                    }
                )
    return found


def _sections(
    run: RunFacts,
    rest: list[RunFacts],
    compared: Mapping[str, list[Comparison]],
    notes: list[str],
    pictures: list[tuple[Path, str]],
) -> list[Section]:
    parts = {section.title: section for section in comparing.sections_of([run, *rest])}
    sections = [_summary(run), *_against(rest, compared, notes)]
    sections += [parts["Cost"], parts["Scores on validation"]]
    sections += [parts[title] for title in ("Scores on test sets",) if title in parts]
    sections += [_validations(run), *([Section("Curves", pictures=pictures)] if pictures else [])]
    if rest:
        sections += [parts["Settings that differ"]]
        title = "Texts, machines and versions that differ"
        sections += [parts[title]] if title in parts else []
    sections += [*_texts(run), _decisions(run), parts["What is missing"], *_samples(run), *_settings(run)]
    return [*sections, _surroundings(run)]


def _summary(run: RunFacts) -> Section:
    record, summary = run.records.run, run.records.summary
    data = (record.get("settings") or {}).get("data") or {}
    languages = " to ".join(filter(None, (data.get("source_language"), data.get("target_language"))))
    best = summary.get("best") or {}
    facts = [
        ("run", str(run.records.folder)),
        ("recipe", f"recipes/{record.get('recipe')}.py"),
        ("status", run.records.status + (f": {record['error']}" if record.get("error") else "")),
        ("languages", languages or ", ".join(data.get("pairs") or {})),
        ("started", record.get("started")),
        ("ended", record.get("ended")),
        ("ended by", summary.get("ended_by")),
        ("chosen model", f"{best['kind']} (step {', '.join(map(str, best.get('steps', [])))})" if best else None),
        ("settings", f"hash {fingerprint(record.get('settings') or {})}; with the texts {record.get('fingerprint')}"),
        ("seed", (record.get("seeds") or {}).get("seed")),
    ]
    rows = [[name, str(value)] for name, value in facts if value not in (None, "")]
    return Section("What was trained", table=Table(["", ""], rows, left=2))


def _against(rest: list[RunFacts], compared: Mapping[str, list[Comparison]], notes: list[str]) -> list[Section]:
    if not rest:
        return []
    rows = [
        [
            text,
            f"{one.name} {one.domain or ''}".strip(),
            f"{one.value:.2f}",
            f"{one.baseline_value:.2f}",
            f"{one.value - one.baseline_value:+.2f}",
            f"{one.p_value:.4f}",
        ]
        for text, comparisons in compared.items()
        for one in comparisons
    ]
    headings = ["text", "metric", "this run", "baseline", "difference", "p"]
    signatures = dict.fromkeys(f"{one.name}: {one.signature}" for many in compared.values() for one in many)
    return [
        Section(
            f"Against {rest[0].name}",
            "Paired significance test of the two chosen models on the same segments: p is the probability of a "
            "difference at least this large if they were equal."
            if rows
            else "The translations of the two could not be compared.",
            Table(headings, rows, left=2) if rows else None,
            [*signatures, *notes],
        )
    ]


def _validations(run: RunFacts) -> Section:
    entries = _every_validation(run)
    names = list(dict.fromkeys(name for entry in entries for name in entry.get("metrics") or {}))
    rows = []
    given_up = [f"{entry.get('step', 0):,}" for entry in run.records.given_up]
    for entry in entries:
        metrics = entry.get("metrics") or {}
        values = [comparing.metric_text(name, metrics[name]) if name in metrics else "-" for name in names]
        spent = [f"{entry.get('step', 0):,}", f"{entry.get('epoch') or 0:.2f}", f"{entry.get('tokens', 0):,}"]
        rows.append([*spent, f"{entry.get('seconds', 0):,.1f}", *values])
    titles = ["took s" if name == "seconds" else comparing.metric_title(name) for name in names]
    about = (
        "Loss in nats per target token. Repetition: sequences of four words that came before in the same translation, "
        "beyond those of the references. Length ratio: characters of the translations over those of the references."
    )
    notes = (
        [f"Given up by a roll back, and counted nowhere: those of {', '.join(given_up)} updates."] if given_up else []
    )
    table = Table(["step", "epoch", "tokens", "wall s", *titles], rows, left=0)
    return Section("Validations", about if rows else "There were none.", table if rows else None, notes)


def _every_validation(run: RunFacts) -> list[dict[str, Any]]:
    """Those that were given up too, in the order they were made in."""
    return sorted(run.records.validations + run.records.given_up, key=lambda entry: entry.get("step", 0))


def _texts(run: RunFacts) -> list[Section]:
    manifest = run.records.manifest
    rows = [
        [name, f"{content['rows']:,}" if content.get("rows") is not None else "streamed", content["content_hash"]]
        for name, content in (manifest.get("splits") or {}).items()
    ]
    notes = [
        f"{step.get('split') or 'all'}, {step['name']}, {what}: {count:,} {reason}"
        for step in manifest.get("steps") or []
        for what in ("dropped", "changed")
        for reason, count in (step.get(what) or {}).items()
        if count
    ]
    rows = [[name, digest, count] for name, count, digest in rows]
    return [Section("Texts", table=Table(["text", "SHA-256 of its content", "pairs"], rows, left=2), notes=notes)]


def _decisions(run: RunFacts) -> Section:
    """What was decided while training; an entry tells it in a section of its own, with a sentence `told`."""
    rows = []
    for entry in run.records.decisions:
        inner = next((value for value in entry.values() if isinstance(value, dict)), entry)
        told = inner.get("told") or json.dumps(inner, ensure_ascii=False)
        rows.append([f"{entry.get('step', '-')}", str(inner.get("check", "-")), str(inner.get("action", "-")), told])
    table = Table(["step", "check", "action", "why"], rows, left=4) if rows else None
    return Section("Decisions while training", "" if rows else "None.", table)


def _samples(run: RunFacts) -> list[Section]:
    samples = (run.records.validations[-1] if run.records.validations else {}).get("samples") or []
    names = ("source", "reference", "translation")
    rows = [[str(sample.get(name, "")) for name in names] for sample in samples]
    about = "Not chosen by hand; the weights that were chosen may be others."
    return [Section("Translations of the last validation", about, Table([*names], rows, left=3))] if rows else []


def _settings(run: RunFacts) -> list[Section]:
    flat = leaves(run.records.run.get("settings") or {})
    rows = [[key, shown(value)] for key, value in flat.items()]
    return [Section("Settings", table=Table(["key", "value"], rows, left=2))] if rows else []


def _surroundings(run: RunFacts) -> Section:
    record = run.records.run
    found = {name: record.get(name) for name in ("environment", "device", "choices", "seeds")}
    flat = leaves({name: value for name, value in found.items() if value})
    rows = [[key, " ".join(map(str, value)) if isinstance(value, list) else str(value)] for key, value in flat.items()]
    return Section("Machine and versions", table=Table(["", ""], rows, left=2))
