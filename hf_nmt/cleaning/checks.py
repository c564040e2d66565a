"""Checks of a version of a corpus: what is measured of its splits, and which bars are passed.

Nothing is decided here by rules of its own: files by `data.versions.verify`, languages, ratios and duplicates by the
steps of the pipeline, what splits have in common by the leakage gate.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_nmt.cleaning.check_settings import CHECKS, Check, CheckSettings
from hf_nmt.cleaning.duplicates import ExactDuplicates
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.leakage import LeakageSettings, find_leaks
from hf_nmt.cleaning.measures import RATIO_BINS, Measures, histograms, measure, quantiles
from hf_nmt.cleaning.near_duplicates import NearDuplicates
from hf_nmt.cleaning.pipeline import ROWS_OF_A_TABLE, NamedStep, clean, read_table, write_table
from hf_nmt.cleaning.step import SIDES
from hf_nmt.data.manifest import Manifest
from hf_nmt.data.records import SCHEMA
from hf_nmt.data.versions import REJECTS, files_of_split, manifest_of, tables_of_file, verify
from hf_nmt.errors import DataError, GateError


@dataclasses.dataclass(frozen=True)
class Gate:
    """A bar, and what was measured.

    Attributes:
        check: that it belongs to.
        key: dotted key of the bar, "" where it cannot be moved.
        what: it is about.
        split: "" for the version as a whole.
        count: how many were found.
        of: how many there are.
        bar: the largest share of them.
    """

    check: Check
    key: str
    what: str
    split: str
    count: int
    of: int
    bar: float

    @property
    def share(self) -> float:
        return round(self.count / self.of, 6) if self.of else 0.0

    @property
    def passed(self) -> bool:
        """Whether the check passed, not the bar."""
        return self.share <= self.bar

    def told(self) -> str:
        where = f" of {self.split}" if self.split else ""
        if not self.key:
            return f"{self.check}{where}: {self.what}: {self.count:,}."
        of = f"{self.count:,} of {self.of:,} ({self.share:.3%})"
        return f"{self.check}{where}: {self.what}: {of}; {self.key} allows {self.bar:.3%}."


def check_version(folder: Path, settings: CheckSettings, engine: Engine, work: Path) -> dict[str, Any]:
    """Check a version.

    Args:
        folder: `v<date>-<hash>`.
        settings: which checks, and their bars.
        engine: where the records are measured.
        work: empty folder for the records as tables; may be removed afterwards.

    Returns:
        What goes into check.json: `passed`, `gates`, and all that was measured.

    Raises:
        DataError: there is no version here, or its files cannot be read.
        GateError: its manifest is broken, and the check `files` was asked for.
    """
    problems = verify(folder) if "files" in settings.only else []
    try:
        manifest = manifest_of(folder)
    except DataError as error:
        if problems and (folder / "manifest.json").exists():
            raise GateError("\n".join(problems)) from error
        raise
    gates, checked = [], list(settings.only)
    if "files" in checked:
        files = len(manifest.files) + 1
        gates.append(Gate("files", "", "differences to what was written", "", len(problems), files, 0.0))
    strange = [] if problems else _strange_columns(folder, manifest)
    if "schema" in checked and not problems:
        gates.append(
            Gate("schema", "", "columns that are not those of records", "", len(strange), len(manifest.files), 0.0)
        )
    elif strange:
        raise DataError(f"{strange[0]} The check schema tells of all files.")
    problems += strange
    report: dict[str, Any] = {
        "schema_version": 1,
        "version": folder.resolve().name,
        "content_hash": manifest.content_hash,
        "created": manifest.created,
        "languages": manifest.languages,
        "checks": checked if not problems else [check for check in checked if check in {gate.check for gate in gates}],
        "not_checked": [check for check in checked if problems and check not in {gate.check for gate in gates}],
        "problems": problems,
        "notes": [],
        "settings": settings.model_dump(mode="json", include={*CheckSettings.model_fields}),
        "splits": {},
        "usual_lengths": {},
        "inputs": manifest.inputs.get("files", {}),
        "steps": [step.model_dump(mode="json", exclude={"settings"}) for step in manifest.steps],
        "rejected": [],
    }
    if not problems:
        tables = {name: _store(folder, name, work) for name in manifest.splits}
        usual = _usual_lengths(tables, settings, work)
        report["usual_lengths"] = {
            f"{source}-{target}": round(length, 4)
            for source, target, length in settings.alignment.usual_lengths(usual)
        }
        for name, paths in tables.items():
            found = Measures(settings.samples)
            for part in engine.map(functools.partial(measure, settings, usual), paths):
                found.join(part)
            report["splits"][name] = _told(found, settings)
            gates += _gates(name, found, settings)
            if not found.rows and "schema" in settings.only:
                gates.append(Gate("schema", "", "splits that hold no record", name, 1, 1, 0.0))
        if "alignment" in settings.only and (words := settings.alignment.words) is not None:
            report["notes"], enough = _too_few(report["splits"], words.min_pairs)
            if enough:
                gates += _misaligned(report["splits"], tables, settings, NamedStep("alignment", words), engine, work)
        if "duplicates" in settings.only:
            gates += _duplicates(report["splits"], tables, settings, engine, work)
        report["rejected"] = _rejected(folder, settings.samples)
    gates.sort(key=lambda gate: CHECKS.index(gate.check))
    report["gates"] = [
        {**dataclasses.asdict(gate), "share": gate.share, "passed": gate.passed, "told": gate.told()} for gate in gates
    ]
    report["passed"] = all(gate.passed for gate in gates)
    return report


def _usual_lengths(tables: Mapping[str, Sequence[Path]], settings: CheckSettings, work: Path) -> Path:
    """How long a target usually is for its source, over all splits: the folder with what the step `ratio` decided."""
    state = work / "usual"
    state.mkdir()
    measured = []
    for number, path in enumerate(path for paths in tables.values() for path in paths):
        measured.append(work / f"usual-{number}.arrow")
        write_table(measured[-1], settings.alignment.measure(read_table(path)))
    settings.alignment.decide(measured, state)
    return state


def _strange_columns(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    for name in manifest.splits:
        for path in files_of_split(folder, name):
            try:
                schema = pq.read_schema(path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
            problems += [f"{path}: {problem}" for problem in _problems_of(schema)]
        if not files_of_split(folder, name):
            problems.append(f"{folder}: there is no file of the split {name}.")
    return problems


def _problems_of(schema: pa.Schema) -> list[str]:
    """What is wrong with columns. One that may be null may be missing: versions of before have fewer."""
    types = dict(zip(schema.names, schema.types, strict=True))
    missing = [field.name for field in SCHEMA if not field.nullable and field.name not in types]
    others = [field for field in SCHEMA if types.get(field.name, field.type) != field.type]
    more = [name for name in types if name not in SCHEMA.names]
    return [
        *([f"lacks the columns {', '.join(missing)}."] if missing else []),
        *(f"the column {field.name} is {types[field.name]} in place of {field.type}." for field in others),
        *([f"has columns that no record has: {', '.join(more)}."] if more else []),
    ]


def _whole_records(table: pa.Table) -> pa.Table:
    columns = {
        field.name: table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in SCHEMA
    }
    return pa.table(columns).combine_chunks()


def _store(folder: Path, split: str, work: Path) -> list[Path]:
    """The records of a split as tables that can be mapped into memory."""
    paths: list[Path] = []
    for file in files_of_split(folder, split):
        for table in tables_of_file(file, ROWS_OF_A_TABLE):
            paths.append(work / split / f"{len(paths):06d}.arrow")
            write_table(paths[-1], _whole_records(table))
    return paths


def _told(found: Measures, settings: CheckSettings) -> dict[str, Any]:
    """What check.json says of a split."""
    counts, sizes = found.counts, ["characters", "words"]
    if "tokens" in settings.only and settings.tokens.tokenizer is not None:
        sizes.append("tokens")
    told: dict[str, Any] = {"rows": found.rows}
    told["languages"] = _pairs_counted(counts, "languages", ("source", "target"))
    told["domains"] = {str(name): count for name, count in counts.get("domains", Counter()).most_common() if name}
    told["lengths"] = {
        name: {side: quantiles(counts.get(f"{name}.{side}", Counter())) for side in SIDES} for name in sizes
    }
    told["histograms"] = {
        name: histograms({side: counts.get(f"{name}.{side}", Counter()) for side in SIDES}) for name in sizes
    }
    ratios = counts.get("ratio", Counter())
    told["ratio"] = {"bins_of_an_octave": RATIO_BINS, "counts": {str(int(at)): ratios[at] for at in sorted(ratios)}}
    if "schema" in settings.only:
        told["invalid"] = dict(sorted(counts.get("invalid", Counter()).items()))
    if "language" in settings.only:
        told["wrong_language"] = {
            side: _pairs_counted(counts, f"wrong.{side}", ("language", "found")) for side in SIDES
        }
    if "alignment" in settings.only:
        told["outliers"] = dict(sorted(counts.get("alignment", Counter()).items()))
    if "tokens" in settings.only:
        told["distinct"] = [
            {
                "side": side,
                "n": n,
                "estimate": sketch.estimate,
                "exact": sketch.is_exact,
                "epsilon": settings.tokens.epsilon,
                "delta": settings.tokens.delta,
            }
            for (side, n), sketch in sorted(found.sketches.items())
        ]
        told["unknown"] = {side: found.total(f"unknown.{side}") for side in SIDES}
    told["samples"] = {name: [row for _, row in rows] for name, rows in sorted(found.samples.items())}
    return told


def _pairs_counted(counts: Mapping[str, Counter[Any]], name: str, keys: tuple[str, str]) -> list[dict[str, Any]]:
    found = counts.get(name, Counter())
    ordered = sorted(found.items(), key=lambda one: (-one[1], str(one[0])))
    return [{**dict(zip(keys, values, strict=True)), "count": count} for values, count in ordered]


def _gates(split: str, found: Measures, settings: CheckSettings) -> list[Gate]:
    rows, gates = found.rows, []
    if "schema" in settings.only:
        bar = settings.records.max_invalid
        gates.append(
            Gate("schema", "records.max_invalid", "invalid records", split, found.total("invalid"), rows, bar)
        )
    if "language" in settings.only:
        for side in SIDES:
            bar, what = settings.language.max_wrong, f"{side}s in another language"
            wrong = found.total(f"wrong.{side}")
            gates.append(Gate("language", "language.max_wrong", what, split, wrong, rows, bar))
    if "alignment" in settings.only:
        bar, what = settings.alignment.max_outliers, "sides too long for the other"
        gates.append(Gate("alignment", "alignment.max_outliers", what, split, found.total("alignment"), rows, bar))
    if "tokens" in settings.only:
        bars = settings.tokens
        for side in SIDES:
            lengths = found.counts.get(f"tokens.{side}", Counter())
            long = sum(count for length, count in lengths.items() if length > bars.max_length)
            what = f"{side}s of more than {bars.max_length} tokens"
            gates.append(Gate("tokens", "tokens.max_long", what, split, long, rows, bars.max_long))
            if bars.tokenizer is not None:
                tokens = sum(length * count for length, count in lengths.items())
                unknown = found.total(f"unknown.{side}")
                what = f"unknown tokens of the {side}s"
                gates.append(Gate("tokens", "tokens.max_unknown", what, split, unknown, tokens, bars.max_unknown))
    return gates


def _too_few(told: Mapping[str, Any], least: int) -> tuple[list[str], bool]:
    """Of which languages there are too few pairs to learn a lexicon from, a sentence each; whether any has enough."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for split in told.values():
        for one in split["languages"]:
            counts[one["source"], one["target"]] += one["count"]
    few = [
        f"alignment: {count:,} pairs of {source}-{target} are too few to learn which words go together "
        f"(alignment.words.min_pairs is {least:,}), so this was not measured of them."
        for (source, target), count in sorted(counts.items(), key=str)
        if count < least
    ]
    return few, len(few) < len(counts)


def _misaligned(
    told: dict[str, Any],
    tables: Mapping[str, list[Path]],
    settings: CheckSettings,
    step: NamedStep,
    engine: Engine,
    work: Path,
) -> list[Gate]:
    """By a lexicon learnt from all splits, as small ones have too few pairs to learn from."""
    gates = []
    every = [(name, path) for name, paths in tables.items() for path in paths]
    cleaned = clean([path for _, path in every], [step], work / "alignment.work", identity=0, engine=engine)
    found = {name: Measures(settings.samples) for name in tables}
    for (name, _), path in zip(every, cleaned.rejected, strict=True):
        gone = read_table(path)
        found[name].rows += len(gone)
        found[name].show("misaligned", gone, detail=gone["detail"].to_pylist())
    for name, one in found.items():
        told[name]["misaligned"] = one.rows
        told[name]["samples"] |= {key: [row for _, row in rows] for key, rows in one.samples.items()}
        bar, what = settings.alignment.max_misaligned, "pairs whose words do not go together"
        gates.append(Gate("alignment", "alignment.max_misaligned", what, name, one.rows, told[name]["rows"], bar))
    return gates


def _duplicates(
    told: dict[str, Any], tables: Mapping[str, list[Path]], settings: CheckSettings, engine: Engine, work: Path
) -> list[Gate]:
    """Within each split by the steps of the pipeline; across splits by the leakage gate, the larger as the training
    text."""
    bars, gates = settings.duplicates, []
    near = NearDuplicates(**bars.similarity.model_dump())
    steps = [NamedStep("exact", ExactDuplicates(fold=bars.fold)), NamedStep("near", near)]
    for name, paths in tables.items():
        cleaned = clean(paths, steps, work / f"{name}.work", identity=name, engine=engine)
        found = Measures(settings.samples)
        for path in cleaned.rejected:
            gone = read_table(path)
            found.count("by", gone["step"].to_pylist())
            for step in steps:
                of_step = gone.filter(pc.equal(gone["step"], step.name))
                found.show(f"{step.name}_duplicates", of_step, detail=of_step["detail"].to_pylist())
        by = found.counts.get("by", Counter())
        told[name]["duplicates"] = {"exact": by["exact"], "near": by["near"], "across": {}}
        told[name]["samples"] |= {key: [row for _, row in rows] for key, rows in found.samples.items()}
        rows = told[name]["rows"]
        for kind, what in (("exact", "records that repeat another"), ("near", "records almost the same as another")):
            key = f"max_{kind}"
            gates.append(Gate("duplicates", f"duplicates.{key}", what, name, by[kind], rows, getattr(bars, key)))
    by_size = sorted(tables, key=lambda name: (-told[name]["rows"], name))
    for place, larger in enumerate(by_size[:-1]):
        gates += _across(told, larger, by_size[place + 1 :], tables, settings, engine)
    return gates


def _across(
    told: dict[str, Any],
    larger: str,
    smaller: list[str],
    tables: Mapping[str, list[Path]],
    settings: CheckSettings,
    engine: Engine,
) -> list[Gate]:
    bars, gates = settings.duplicates, []
    sets = {name: pa.concat_tables(map(read_table, tables[name])) for name in smaller if tables[name]}
    if not sets:
        return []
    # Its own sets are files; here they are splits, which it is given as tables.
    gate = LeakageSettings.model_construct(sets={}, on_leak="fail", fold=bars.fold, similarity=bars.similarity)
    leakage = find_leaks(tables[larger], sets, {}, gate, engine)
    for name in sets:
        of_set = leakage.found.filter(pc.equal(leakage.found["set"], name))
        counts = {}
        for key, kinds in _ACROSS.items():
            rows = of_set.filter(pc.is_in(of_set["kind"], pa.array(kinds)))
            counts[key] = len(pc.unique(rows["row"]))
            rows = rows.sort_by([(column, "ascending") for column in _LEAKED])
            few = rows.slice(0, settings.samples).select([*_LEAKED]).rename_columns([*_LEAKED.values()]).to_pylist()
            if few:
                told[name]["samples"].setdefault(key, []).extend(row | {"split": larger} for row in few)
        told[name]["duplicates"]["across"][larger] = counts
        rows_of_set = told[name]["rows"]
        for key, what in (
            ("across", f"records also in {larger}"),
            ("near_across", f"records almost the same as in {larger}"),
        ):
            bar = getattr(bars, f"max_{key}")
            gates.append(Gate("duplicates", f"duplicates.max_{key}", what, name, counts[key], rows_of_set, bar))
    return gates


_ACROSS = {
    "across": ["exact", "normalised"],
    "near_across": ["near"],
    "same_source": ["source"],
    "same_target": ["target"],
}
_LEAKED = {
    "evaluation_source": "source",
    "evaluation_target": "target",
    "source": "other_source",
    "target": "other_target",
    "id": "other_id",
}


def _rejected(folder: Path, samples: int) -> list[dict[str, Any]]:
    """How many records each step dropped for each reason, and some of them."""
    found = Measures(samples)
    if (folder / REJECTS).is_file():
        for table in tables_of_file(folder / REJECTS, ROWS_OF_A_TABLE):
            keys = list(zip(table["step"].to_pylist(), table["reason"].to_pylist(), strict=True))
            found.count("all", keys)
            for step, reason in sorted(set(keys)):
                own = table.filter(pc.and_(pc.equal(table["step"], step), pc.equal(table["reason"], reason)))
                found.show(f"{step}\t{reason}", own, detail=own["detail"].to_pylist())
    shown = {key: [row for _, row in rows] for key, rows in found.samples.items()}
    return [
        {"step": step, "reason": reason, "count": count, "samples": shown.get(f"{step}\t{reason}", [])}
        for (step, reason), count in found.counts.get("all", Counter()).items()
    ]
