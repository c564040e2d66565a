"""Trainings side by side: what was set, what they cost, how good they became."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hf_nmt.artifacts import atomic_folder, write_json, write_text
from hf_nmt.config_keys import shown
from hf_nmt.evaluation.folders import read_evaluations
from hf_nmt.evaluation.pages import Section, Table, as_html, as_markdown
from hf_nmt.evaluation.run_facts import Point, RunFacts, read_facts, spent, text_hashes
from hf_nmt.reporting import Curve, Panel, draw_curves
from hf_nmt.run_records import is_one_of, leaves, read_records, short_names

SCHEMA_VERSION = 1
_WHERE = ("name", "output_dir", "resume", "report.baseline")
_PATHS = ("source", "target", "path")
_AXES = {"step": "updates", "tokens": "source and target tokens", "cpu_seconds": "CPU seconds in updates"}
_UNITS = {
    "loss": "nats per target token", "perplexity": "perplexity", "bleu": "BLEU", "chrf": "chrF", "ter": "TER",
    "off_target": "% of translations", "repetition": "share of sequences of four words",
    "length_ratio": "characters over those of the references",
}  # fmt: skip
# Metrics that are drawn, and are no columns of the table of scores.
_DIAGNOSTICS = ("repetition", "length_ratio")
_NOTHING = "-"
_TITLE = "Comparison of trainings"


def gather(folders: Sequence[Path], evaluations: Iterable[Path | str] = ()) -> list[RunFacts]:
    """Read run folders.

    Args:
        folders: from `run_records.find_runs`.
        evaluations: folders with what recipes/validate.py wrote.
    """
    written = read_evaluations(evaluations)
    names = short_names(folders)
    return [read_facts(name, read_records(folder), written) for name, folder in zip(names, folders, strict=True)]


def differing_settings(all_facts: Sequence[RunFacts]) -> tuple[dict[str, list[str]], list[str]]:
    """Dotted path of every setting in which runs differ -> its value in each, as text; and what some did not record.

    A setting that a run does not have, as it was started by another version, counts as no difference; a section that
    is null in one run counts as one row. Paths of texts count where the texts differ, by their hashes.
    """
    flat = [leaves(facts.records.run.get("settings") or {}) for facts in all_facts]
    same_texts = len({json.dumps(text_hashes(facts), sort_keys=True) for facts in all_facts}) == 1
    differing, unrecorded = {}, set()
    keys = dict.fromkeys(key for values in flat for key in values)
    nulls = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    for key in keys:
        if key in _WHERE or (same_texts and key.startswith("data.") and key.rpartition(".")[2] in _PATHS):
            continue
        told = [_value(values, key, is_section=key in nulls) for values in flat]
        if key.startswith("data.") and key.rpartition(".")[2] in _PATHS:
            files = [one if one is None else one.rpartition("/")[2] for one in told]
            told = files if len(set(files)) > 1 else told
        if len({one for one in told if one is not None}) > 1:
            differing[key] = [_NOTHING if one is None else one for one in told]
        elif None in told and not any(key.startswith(f"{section}.") for section in nulls):
            unrecorded.add(key)
    return differing, sorted(unrecorded)


def _in_sections(keys: Sequence[str], all_facts: Sequence[RunFacts]) -> list[str]:
    """Keys that some runs lack, with one name for a section that one of them lacks as a whole."""
    trees = [facts.records.run.get("settings") or {} for facts in all_facts]
    whole = {section for tree in trees for section in {key.partition(".")[0] for key in keys} if section not in tree}
    names = (key.partition(".")[0] if key.partition(".")[0] in whole else key for key in keys)
    return list(dict.fromkeys(names))


def _value(values: dict[str, Any], key: str, *, is_section: bool) -> str | None:
    if is_section and key not in values:
        return "set" if any(other.startswith(f"{key}.") for other in values) else None
    if key not in values:
        return None
    value = values[key]
    return f"{value:.10g}" if isinstance(value, float) else shown(value).strip("'")


def differing_surroundings(all_facts: Sequence[RunFacts]) -> dict[str, list[str]]:
    """As `differing_settings`, of what was not set: texts, machine, versions, what was chosen."""
    flat = []
    for facts in all_facts:
        run = facts.records.run
        environment = {key: value for key, value in (run.get("environment") or {}).items() if key != "command"}
        if environment.get("commit"):
            environment["commit"] = re.sub(r"([0-9a-f]{12})[0-9a-f]*", r"\1", environment["commit"])
        texts = {split: digest[:16] for split, digest in text_hashes(facts).items() if isinstance(digest, str)}
        found = {"texts": texts, "device": run.get("device"), "chosen": run.get("choices"), **environment}
        flat.append(leaves({key: value for key, value in found.items() if value is not None}))
    rows = {key: [values.get(key) for values in flat] for key in dict.fromkeys(key for one in flat for key in one)}
    return {
        key: [_NOTHING if value is None else str(value) for value in values]
        for key, values in rows.items()
        if len(set(map(str, values))) > 1
    }


def metrics_of(all_facts: Sequence[RunFacts]) -> list[str]:
    """Validation metrics that any run has, the loss first."""
    names = dict.fromkeys(name for facts in all_facts for name in facts.best if name != "perplexity")
    return sorted(names, key=lambda name: (name != "loss", "_" in name.removeprefix("off_target")))


def sections_of(all_facts: Sequence[RunFacts], pictures: Sequence[tuple[Path, str]] = ()) -> list[Section]:
    """The report."""
    names = [facts.name for facts in all_facts]
    differing, unrecorded = differing_settings(all_facts)
    surroundings = differing_surroundings(all_facts)
    several = len(all_facts) > 1
    texts = {text_hashes(facts).get("validation") for facts in all_facts} - {None}
    unlike = ["The validation texts differ, so these figures cannot be compared across all runs."]
    return [
        Section("Cost", table=_cost_table(all_facts)),
        Section(
            "Scores on validation",
            "Best value of the validations while training, at which update, and the last one; then the chosen model "
            "with all beams. Loss in nats per target token.",
            _validation_table(all_facts),
            unlike if len(texts) > 1 else [],
        ),
        *_test_sections(all_facts),
        Section(
            "Settings that differ",
            "" if differing else "None." if several else "There is one run.",
            Table(["setting", *names], [[key, *row] for key, row in differing.items()]) if differing else None,
            [f"Not recorded by every run: {', '.join(_in_sections(unrecorded, all_facts))}."] if unrecorded else [],
        ),
        *(
            [
                Section(
                    "Texts, machines and versions that differ",
                    table=Table(["", *names], [[key, *row] for key, row in surroundings.items()]),
                )
            ]
            if surroundings
            else []
        ),
        *([Section("Curves", pictures=pictures)] if pictures else []),
        Section(
            "What is missing",
            "" if any(facts.missing for facts in all_facts) else "Nothing.",
            notes=[f"{facts.name}: {' '.join(facts.missing)}" for facts in all_facts if facts.missing],
        ),
    ]


def _figure(value: float | None, form: str = ",.0f") -> str:
    return _NOTHING if value is None else format(value, form)


def _cost_table(all_facts: Sequence[RunFacts]) -> Table:
    headings = [
        "run", "status", "parameters", "without embeddings", "updates", "epochs", "tokens", "wall s", "CPU s",
        "tokens/s",
    ]  # fmt: skip
    rows = [
        [
            facts.name,
            facts.records.status,
            _figure(facts.parameters),
            _figure(facts.parameters_without_embeddings),
            _figure(facts.updates),
            _figure(facts.epochs, ".2f"),
            _figure(facts.tokens),
            _figure(facts.seconds, ",.1f"),
            _figure(facts.cpu_seconds, ",.1f"),
            _figure(facts.tokens_per_second),
        ]
        for facts in all_facts
    ]
    return Table(headings, rows, left=2)


def _validation_table(all_facts: Sequence[RunFacts]) -> Table:
    metrics = [name for name in metrics_of(all_facts) if not name.startswith(_DIAGNOSTICS)]
    final = list(dict.fromkeys(_heading(score) for facts in all_facts for score in facts.final))
    headings = ["run", *(f"{which} {name}" for name in metrics for which in ("best", "last")), "chosen"]
    rows = []
    for facts in all_facts:
        row = [facts.name]
        for name in metrics:
            best, last = facts.best.get(name), facts.last.get(name)
            row.append(f"{metric_text(name, best.value)} at {best.step:,}" if best else _NOTHING)
            row.append(metric_text(name, last.value) if last else _NOTHING)
        row.append((facts.records.summary.get("best") or {}).get("kind", _NOTHING))
        texts = {_heading(score): score.text for score in facts.final}
        rows.append([*row, *(texts.get(heading, _NOTHING) for heading in final)])
    return Table([*headings, *(f"its {heading}" for heading in final)], rows)


def _heading(score: Any) -> str:
    return f"{score.name} {score.data.domain}" if score.data.domain else score.name


def _test_sections(all_facts: Sequence[RunFacts]) -> list[Section]:
    columns = list(dict.fromkeys((one.text, one.score.name) for facts in all_facts for one in facts.tests))
    if not columns:
        return []
    rows = []
    for facts in all_facts:
        cells: dict[tuple[str, str], list[str]] = {}
        for one in facts.tests:  # several where it was searched for in several ways
            cells.setdefault((one.text, one.score.name), []).append(one.score.text)
        rows.append([facts.name, *(" / ".join(cells.get(column, [_NOTHING])) for column in columns)])
    scores = [one.score for facts in all_facts for one in facts.tests]
    signatures = dict.fromkeys(f"{score.name}: {score.signature}" for score in scores)
    table = Table(["run", *(f"{text} {name}" for text, name in columns)], rows)
    return [Section("Scores on test sets", "As recipes/validate.py measured them.", table, list(signatures))]


def draw_comparison(all_facts: Sequence[RunFacts], folder: Path) -> list[tuple[Path, str]]:
    """A picture for the loss and for each validation metric, over updates, tokens and CPU seconds, into a folder."""
    axes = dict(_AXES)
    points = [point for facts in all_facts for curve in facts.curves.values() for point in curve]
    if not any(point.cpu_seconds is not None for point in points):
        del axes["cpu_seconds"]
        axes["seconds"] = "seconds of training"
    drawn = {"loss": "Training loss"}
    drawn |= {f"eval_{name}": f"{metric_title(name)} on validation" for name in metrics_of(all_facts)}
    pictures = []
    for metric, title in drawn.items():
        panels = []
        for by, label in axes.items():
            lines = ((facts.name, spent(facts.curves.get(metric, []), by)) for facts in all_facts)
            panels.append(Panel(label, [Curve(name, *line) for name, line in lines]))
        if any(curve.x for panel in panels for curve in panel.curves):
            name = metric.removeprefix("eval_")
            path = folder / f"{'training_' if metric == 'loss' else 'validation_'}{name}.png"
            draw_curves(path, title, _unit(name), panels)
            pictures.append((path, title))
    return pictures


def metric_text(metric: str, value: float) -> str:
    """A value of a validation with the digits that tell something."""
    if is_one_of(metric, ("repetition",)):
        return f"{value:.1%}"
    return f"{value:,.{4 if is_one_of(metric, ('loss',)) else 1 if metric == 'seconds' else 2}f}"


def _unit(metric: str) -> str:
    return next((unit for name, unit in _UNITS.items() if is_one_of(metric, (name,))), metric)


def metric_title(metric: str) -> str:
    """`bleu_de-en` -> "BLEU de-en"; `length_ratio` -> "Length ratio"."""
    name, _, pair = metric.partition("_")
    known = {"loss": "Loss", "bleu": "BLEU", "chrf": "chrF", "ter": "TER"}.get(name)
    return f"{known} {pair}".strip() if known else metric.replace("_", " ").capitalize()


def as_record(all_facts: Sequence[RunFacts]) -> dict[str, Any]:
    """The comparison as plain values, with the curves behind the pictures."""
    differing, unrecorded = differing_settings(all_facts)
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": [run_record(facts) for facts in all_facts],
        "settings_that_differ": differing,
        "settings_not_recorded_by_all": unrecorded,
        "surroundings_that_differ": differing_surroundings(all_facts),
    }


def run_record(facts: RunFacts) -> dict[str, Any]:
    """One run of a comparison as plain values."""
    run, summary = facts.records.run, facts.records.summary
    plain = ("parameters", "parameters_without_embeddings", "updates", "epochs", "tokens", "seconds", "cpu_seconds")
    return {
        "name": facts.name,
        "folder": str(facts.records.folder),
        "status": facts.records.status,
        "fingerprint": run.get("fingerprint"),
        "texts": text_hashes(facts),
        **{name: getattr(facts, name) for name in (*plain, "tokens_per_second")},
        "best": {name: vars(point) for name, point in facts.best.items()},
        "last": {name: vars(point) for name, point in facts.last.items()},
        "chosen": summary.get("best"),
        "scores": [score.model_dump(mode="json") for score in facts.final],
        "tests": [
            {"text": one.text, "folder": str(one.folder), "score": one.score.model_dump(mode="json")}
            for one in facts.tests
        ],
        "missing": facts.missing,
        "curves": {
            name: {
                field.name: [getattr(point, field.name) for point in points] for field in dataclasses.fields(Point)
            }
            for name, points in facts.curves.items()
        },
    }  # fmt: skip


def write_comparison(all_facts: Sequence[RunFacts], folder: Path, *, replace: bool) -> list[Section]:
    """Write comparison.html, comparison.md, comparison.json and the pictures into a folder, whole or not at all.

    Returns:
        The report, without pictures.
    """
    with atomic_folder(folder, replace=replace) as partial:
        sections = sections_of(all_facts, draw_comparison(all_facts, partial))
        write_text(partial / "comparison.html", as_html(_TITLE, sections))
        write_text(partial / "comparison.md", as_markdown(_TITLE, sections, partial))
        write_json(partial / "comparison.json", as_record(all_facts))
    return [section for section in sections if not section.pictures]
