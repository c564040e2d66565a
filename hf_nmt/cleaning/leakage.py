"""The gate between training text and every set that a model is judged by: what of these is in the training text.

Of each pair of an evaluation set three things are looked for among the training pairs: the pair itself, as it stands
(`exact`) or folded (`normalised`); one of its sides, folded, beside another text (`source`, `target`); and pairs that
are almost it (`near`, found as in `near_duplicates`). Each has a bar for each set: the largest share of the set's
pairs of which there may be such a training pair. Languages are not looked at, and each of several references counts.

Held in memory are the evaluation sets, about 2 kB a pair, and one table of the training text.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.artifacts import write_text
from hf_nmt.cleaning.corpus import first_rows, open_text
from hf_nmt.cleaning.duplicates import Fold, folded, keys_of
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.pipeline import (
    ROWS_OF_A_TABLE,
    Cleaned,
    kept_file,
    read_table,
    rejected_file,
    with_reasons,
    write_table,
)
from hf_nmt.cleaning.shingles import FOLD, Shingles, Similarity, band_keys, distinct, foldings, jaccard, shingles_of
from hf_nmt.cleaning.step import SIDES
from hf_nmt.config import Settings, fingerprint
from hf_nmt.data.canonical import hash_of_tables
from hf_nmt.data.manifest import SplitContent
from hf_nmt.data.manifest import Step as RecordedStep
from hf_nmt.data.records import SCHEMA, tables_of
from hf_nmt.data.sources import CorpusFiles, keys_told
from hf_nmt.errors import DataError, GateError

logger = logging.getLogger(__name__)

REPORT, PAIRS = "leakage.json", "leakage.tsv"
# The kinds of overlap that each bar is for.
KINDS = {"pairs": ("exact", "normalised"), "one_sided": ("source", "target"), "near": ("near",)}
_SHOWN = 3
_PAIRS_AT_A_TIME = 2**14


class Bars(Settings):
    """How much of an evaluation set the training text may hold."""

    max_pairs: float | None = Field(
        0.0, ge=0, le=1, description="largest share of pairs that are in the training text too; null only lists them"
    )
    max_one_sided: float | None = Field(
        None,
        ge=0,
        le=1,
        description="likewise of pairs with a side that is there beside another text; null only lists",
    )
    max_near: float | None = Field(
        None, ge=0, le=1, description="likewise of pairs that are almost a training pair; null only lists them"
    )


class EvaluationSet(CorpusFiles, Bars):
    """Text that models are judged by."""


class LeakageSettings(Settings):
    """What must not be in the training text."""

    sets: dict[str, EvaluationSet] = Field(
        {}, description="evaluation sets by names of your own; needed where no splits are made"
    )
    splits: Bars = Field(Bars(), description="How much train may hold of the other splits of this corpus.")
    on_leak: Literal["fail", "drop"] = Field(
        "fail",
        description="where a bar is passed: fail writes no version and ends with exit status 1; drop takes all "
        "training pairs of this kind out, with the reason leaked",
    )
    fold: list[Fold] = Field([*FOLD], description="differences that do not count between equal pairs and sides")
    similarity: Similarity = Field(Similarity(), description="which pairs are near")


@dataclass(frozen=True)
class Leakage:
    """What of the evaluation sets is in the training text.

    Attributes:
        sets: how many pairs each holds, and which.
        found: a row for each training and evaluation pair and kind: `set`, `row` (of the set, from 1), `kind`,
            `similarity`, `evaluation_source`, `evaluation_target`, `id`, `source`, `target` (of the training pair),
            `table`, `place` (where it lies); sorted by all of these.
        bars: of each set.
        seconds: processor time that the training text took, summed over the workers.
    """

    sets: Mapping[str, SplitContent]
    found: pa.Table
    bars: Mapping[str, Bars]
    seconds: float

    def shares(self, name: str) -> dict[str, float]:
        """For each bar the share of a set's pairs."""
        of_set = self.found.filter(pc.equal(self.found["set"], name))
        size = self.sets[name].rows or 1
        return {bar: round(len(pc.unique(_of(of_set, kinds)["row"])) / size, 6) for bar, kinds in KINDS.items()}

    def passed(self) -> dict[str, list[str]]:
        """The bars that are passed, by set; sets without any are left out."""
        result = {}
        for name, bars in self.bars.items():
            limits = {bar: getattr(bars, f"max_{bar}") for bar in KINDS}
            shares = self.shares(name)
            if over := [bar for bar, limit in limits.items() if limit is not None and shares[bar] > limit]:
                result[name] = over
        return result

    def told(self) -> list[str]:
        """The bars that are passed, a sentence each."""
        return [
            f"{self._place(name)}.max_{bar}: {self.shares(name)[bar]:.2%} of {self.sets[name].rows:,} pairs, "
            f"{getattr(self.bars[name], f'max_{bar}'):.2%} are allowed."
            for name, bars in self.passed().items()
            for bar in bars
        ]

    def _place(self, name: str) -> str:
        is_file = isinstance(self.bars[name], EvaluationSet)
        return f"leakage.sets.{name}" if is_file else f"leakage.splits ({name})"

    def report(self) -> dict[str, Any]:
        """`leakage.json`."""
        passed, sets = self.passed(), {}
        for name, content in self.sets.items():
            of_set = self.found.filter(pc.equal(self.found["set"], name))
            kinds = [kind for kinds in KINDS.values() for kind in kinds]
            counts = {kind: _of(of_set, [kind]) for kind in kinds}
            sets[name] = {
                "pairs": content.rows,
                "content_hash": content.content_hash,
                "shares": self.shares(name),
                "bars": {bar: getattr(self.bars[name], f"max_{bar}") for bar in KINDS},
                "passed": passed.get(name, []),
                "evaluation_pairs": {kind: len(pc.unique(rows["row"])) for kind, rows in counts.items()},
                "training_pairs": {kind: len(pc.unique(rows["id"])) for kind, rows in counts.items()},
            }
        return {"schema_version": 1, "sets": sets}

    def table(self) -> str:
        """`leakage.tsv`: of every evaluation pair and kind some training pairs, with all texts."""
        names = [name for name in self.found.column_names if name not in ("table", "place")]
        lines, shown = io.StringIO(), 0
        lines.write("\t".join(names) + "\n")
        last: tuple[Any, ...] = ()
        for batch in self.found.select(names).to_batches(ROWS_OF_A_TABLE):
            for row in batch.to_pylist():
                at = row["set"], row["row"], row["kind"]
                shown = shown + 1 if at == last else 1
                last = at
                if shown <= _SHOWN:
                    lines.write("\t".join(_cell(row[name]) for name in names) + "\n")
        return lines.getvalue()

    def leaked(self) -> pa.Table:
        """Rows of `found` whose training pairs must go for all bars to hold."""
        parts = [
            _of(self.found.filter(pc.equal(self.found["set"], name)), KINDS[bar])
            for name, bars in self.passed().items()
            for bar in bars
        ]
        return pa.concat_tables(parts) if parts else self.found.slice(0, 0)


def read_sets(sets: Mapping[str, CorpusFiles], languages: tuple[str, str]) -> dict[str, pa.Table]:
    """The records of evaluation sets, by name.

    Raises:
        DataError: a set cannot be read, or has no pair with text on both sides.
        ConfigError: the settings do not fit it.
    """
    tables = {}
    for name, settings in sets.items():
        with keys_told(f"leakage.sets.{name}"):
            corpus, *_ = open_text(settings, languages, "is no file. Give a set of your own.")
            records = first_rows(tables_of(corpus, {}, rows=ROWS_OF_A_TABLE), settings.max_rows)
            tables[name] = pa.concat_tables([SCHEMA.empty_table(), *records])
            sides = [pc.not_equal(pc.utf8_trim_whitespace(tables[name][side]), "") for side in SIDES]
            if not pc.any(pc.and_(*sides)).as_py():
                raise DataError(f"{corpus.name}: there is not a single pair with text on both sides to compare with.")
    return tables


def find_leaks(
    train: Sequence[Path],
    sets: Mapping[str, pa.Table],
    bars: Mapping[str, Bars],
    settings: LeakageSettings,
    engine: Engine,
) -> Leakage:
    """Compare training text with evaluation sets.

    Args:
        train: files of `pipeline.write_table`.
        sets: records of SCHEMA by name of the set: of files, or splits of the corpus itself.
        bars: of each.
        settings: what counts as equal and near.
        engine: where the work is done.
    """
    evaluation = _Evaluation.of(sets, settings)
    results = list(engine.map(functools.partial(_overlaps, evaluation), list(enumerate(train))))
    found = pa.concat_tables([_overlaps_table(), *(part for part, _ in results)])
    keys = ("set", "row", "kind", "similarity", "id", "table", "place")
    order = [(key, "descending" if key == "similarity" else "ascending") for key in keys]
    contents = {
        name: SplitContent(rows=len(table), content_hash=hash_of_tables([table])) for name, table in sets.items()
    }
    return Leakage(contents, found.sort_by(order), bars, sum(seconds for _, seconds in results))


def pass_gate(
    cleaned: Cleaned,
    sets: Mapping[str, pa.Table],
    settings: LeakageSettings,
    engine: Engine,
    work: Path,
    output: Path,
    splits: Mapping[str, Sequence[Path]] | None = None,
) -> tuple[Cleaned, dict[str, str]]:
    """Compare what was cleaned with the evaluation sets (`read_sets`).

    Args:
        cleaned: training text.
        sets: by name.
        settings: theirs.
        engine: where the work is done.
        work: folder for the tables that are left where pairs are taken out.
        output: folder for the report where a bar is passed and nothing may be taken out.
        splits: files of the records of each split but train, which are compared as sets are.

    Returns:
        What is left, and files that go beside it, by name.

    Raises:
        GateError: a bar is passed and nothing may be taken out.
    """
    own = {name: pa.concat_tables(map(read_table, paths)) for name, paths in (splits or {}).items()}
    bars = {**settings.sets, **dict.fromkeys(own, settings.splits)}
    leakage = find_leaks(cleaned.kept, {**sets, **own}, bars, settings, engine)
    files = {REPORT: json.dumps(leakage.report(), ensure_ascii=False, indent=2) + "\n", PAIRS: leakage.table()}
    told = leakage.told()
    if told and settings.on_leak == "fail":
        for name, text in files.items():
            write_text(output / name, text)
        raise GateError(
            "The training text holds more of the evaluation sets than is allowed, so no version was written.\n"
            + "\n".join(told)
            + f"\nThe pairs are in {output / PAIRS}, the counts in {output / REPORT}. Leave them out of the "
            "training text with leakage.on_leak=drop, or raise the bar."
        )
    for name in files:  # of an earlier run that did not pass
        (output / name).unlink(missing_ok=True)
    for sentence in told:
        logger.warning("%s Such training pairs are left out.", sentence)
    tables = [path.parent.name for path in cleaned.kept]
    folder = work / f"leakage-{fingerprint(tables, leakage.leaked()['id'].to_pylist())}"
    kept, rejected, step = drop_leaked(cleaned.kept, leakage, folder, settings)
    seconds = {**cleaned.seconds, step.name: leakage.seconds}
    return Cleaned(kept, cleaned.rejected + rejected, [*cleaned.steps, step], seconds), files


def drop_leaked(
    train: Sequence[Path], leakage: Leakage, folder: Path, settings: LeakageSettings
) -> tuple[list[Path], list[Path], RecordedStep]:
    """Take out the training pairs for which bars are passed.

    Returns:
        Files of what is left, in their order; files of what went, as those of `pipeline.Cleaned`; the counts.
    """
    leaked = leakage.leaked()
    kept, rejected = list(train), []
    for number in pc.unique(leaked["table"]).to_pylist():
        rows = leaked.filter(pc.equal(leaked["table"], number))
        places, first = np.unique(rows["place"].to_numpy(), return_index=True)
        pairs = read_table(train[number])
        goes = np.zeros(len(pairs), bool)
        goes[places] = True
        details = [f"{row['set']} {row['row']}: {row['kind']}" for row in rows.take(first).to_pylist()]
        kept[number], out = kept_file(folder, number), rejected_file(folder, number)
        folder.mkdir(parents=True, exist_ok=True)
        write_table(kept[number], pairs.filter(pa.array(~goes)))
        write_table(out, with_reasons(pairs.filter(pa.array(goes)), "leakage", "leaked", details))
        rejected.append(out)
    count = sum(len(read_table(path)) for path in rejected)
    step = RecordedStep(
        name="leakage",
        settings=settings.model_dump(mode="json"),
        kept=sum(len(read_table(path)) for path in kept),
        dropped={"leaked": count} if count else {},
    )
    return kept, rejected, step


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _of(rows: pa.Table, kinds: Sequence[str]) -> pa.Table:
    return rows.filter(pc.is_in(rows["kind"], pa.array(kinds, pa.string())))


@dataclass(frozen=True)
class _Evaluation:
    """Pairs of evaluation sets with text on both sides, one for each reference, ready to be met.

    Attributes:
        pairs: `set`, `row`, `source`, `target`.
        keys: by kind of equality the keys, sorted, and the pairs that they are of.
        bands: of each band likewise.
        shingles: of each pair.
    """

    settings: LeakageSettings
    pairs: pa.Table
    keys: dict[str, tuple[np.ndarray, np.ndarray]]
    bands: list[tuple[np.ndarray, np.ndarray]]
    shingles: Shingles

    @classmethod
    def of(cls, sets: Mapping[str, pa.Table], settings: LeakageSettings) -> _Evaluation:
        rows = [
            {"set": name, "row": number, "source": record["source"], "target": target}
            for name, table in sets.items()
            for number, record in enumerate(table.select(["source", "target", "references"]).to_pylist(), 1)
            for target in dict.fromkeys(record["references"] or [record["target"]])
            if record["source"].strip() and target.strip()
        ]
        schema = pa.schema([("set", pa.string()), ("row", pa.int64()), *((side, pa.string()) for side in SIDES)])
        pairs = pa.Table.from_pylist(rows, schema=schema)
        shingles = shingles_of(_compared(pairs), settings.similarity)
        bands = band_keys(shingles, settings.similarity.threshold)
        keys = {kind: _sorted(values) for kind, values in _keys(pairs, settings.fold).items()}
        return cls(settings, pairs, keys, [_sorted(band) for band in bands], distinct(shingles))


def _keys(pairs: pa.Table, fold: Sequence[Fold]) -> dict[str, np.ndarray]:
    """What must be equal for each kind of equality, as byte strings."""
    texts = [pairs[side].combine_chunks() for side in SIDES]
    plain = [folded(text, fold) for text in texts]
    found = {"exact": _joined(texts), "normalised": _joined(plain), "source": plain[0], "target": plain[1]}
    return {
        kind: np.frombuffer(keys_of(text).astype(">u8").tobytes(), "S16") if len(text) else np.empty(0, "S16")
        for kind, text in found.items()
    }


def _joined(texts: Sequence[pa.Array]) -> pa.Array:
    # The length keeps apart what the blank between the sides does not.
    return pc.binary_join_element_wise(pc.utf8_length(texts[0]).cast(pa.string()), *texts, " ")


def _sorted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return keys[order], order


def _compared(pairs: pa.Table) -> pa.Table:
    """`foldings` of records without their languages."""
    columns = {side: pairs[side] for side in SIDES}
    nothing = pa.chunked_array([pa.nulls(len(pairs), pa.string())])
    return foldings(pa.table({**columns, **{f"{side}_language": nothing for side in SIDES}}))


def _met(keys: np.ndarray, known: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All places where keys are equal to known ones: in these, and in those that `known` was sorted from."""
    start, end = (np.searchsorted(known[0], keys, side=side) for side in ("left", "right"))
    counts = end - start
    first = np.repeat(start - (np.cumsum(counts) - counts), counts)
    return np.repeat(np.arange(len(keys)), counts), known[1][first + np.arange(len(first))]


def _overlaps(evaluation: _Evaluation, task: tuple[int, Path]) -> tuple[pa.Table, float]:
    """What a table of training pairs has in common with the evaluation sets, and the processor time it took."""
    number, path = task
    start = time.process_time()
    found = _overlaps_of(evaluation, read_table(path), number)
    return found, time.process_time() - start


def _overlaps_of(evaluation: _Evaluation, pairs: pa.Table, number: int) -> pa.Table:
    """Rows of `Leakage.found` of a table."""
    if not len(pairs) or not len(evaluation.pairs):
        return _overlaps_table()
    keys = _keys(pairs, evaluation.settings.fold)
    met = {kind: _met(keys[kind], known) for kind, known in evaluation.keys.items()}
    width = len(evaluation.pairs)
    codes = {kind: places * width + others for kind, (places, others) in met.items()}
    equal = np.union1d(codes["exact"], codes["normalised"])
    codes["normalised"] = np.setdiff1d(codes["normalised"], codes["exact"])
    for side in SIDES:
        codes[side] = np.setdiff1d(codes[side], equal)
    codes["near"], similarity = _near(evaluation, pairs, equal)
    parts = []
    for kind, found in codes.items():
        alike = similarity if kind == "near" else np.full(len(found), np.nan)
        others = evaluation.pairs.take(found % width).rename_columns(
            ["set", "row", "evaluation_source", "evaluation_target"]
        )
        own = pairs.select(["id", *SIDES]).take(found // width)
        columns = {
            **{name: others[name] for name in ("set", "row")},
            "kind": pa.array([kind] * len(found), pa.string()),
            "similarity": pa.array(alike, from_pandas=True, type=pa.float64()),
            **{name: others[name] for name in ("evaluation_source", "evaluation_target")},
            **{name: own[name] for name in own.column_names},
            "table": np.full(len(found), number),
            "place": found // width,
        }
        parts.append(pa.table(columns).cast(_overlaps_table().schema))
    return pa.concat_tables(parts)


def _near(evaluation: _Evaluation, pairs: pa.Table, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of training and evaluation pairs that are near and not equal, and how alike they are."""
    settings, width = evaluation.settings.similarity, len(evaluation.pairs)
    texts = _compared(pairs)
    shingles = shingles_of(texts, settings)
    bands = zip(band_keys(shingles, settings.threshold), evaluation.bands, strict=True)
    met = [_met(band, known) for band, known in bands]
    codes = np.unique(np.concatenate([places * width + others for places, others in met]))
    codes = np.setdiff1d(codes, equal)
    alike = np.empty(len(codes))
    for start in range(0, len(codes), _PAIRS_AT_A_TIME):
        part = codes[start : start + _PAIRS_AT_A_TIME]
        rows, at = np.unique(part // width, return_inverse=True)
        own = distinct(shingles_of(texts.take(rows), settings))
        alike[start : start + len(part)] = jaccard(own, at, evaluation.shingles, part % width)
    near = alike >= settings.threshold
    return codes[near], alike[near]


def _overlaps_table() -> pa.Table:
    texts = ("evaluation_source", "evaluation_target", "id", "source", "target")
    fields = [("set", pa.string()), ("row", pa.int64()), ("kind", pa.string()), ("similarity", pa.float64())]
    fields += [*((name, pa.string()) for name in texts), ("table", pa.int64()), ("place", pa.int64())]
    return pa.schema(fields).empty_table()
