"""Steps run over a few pairs by the pipeline."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.pipeline import NamedStep, apply_step, clean, read_table, write_table
from hf_nmt.cleaning.settings import StepChoice
from hf_nmt.cleaning.step import CorpusStep, Step
from hf_nmt.data.records import SCHEMA


def table_of(pairs: Sequence[tuple[str, str]], languages: tuple[str | None, str | None] = ("de", "en")) -> pa.Table:
    """Records with their number as id."""
    rows = [
        {"id": f"{number:032x}", "source": source, "target": target}
        | dict(zip(("source_language", "target_language"), languages, strict=True))
        for number, (source, target) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def step_of(kind: str, **settings: Any) -> Step:
    return StepChoice.model_validate({kind: settings}).step


def run(step: Step, tables: Sequence[pa.Table]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records that stay, and those that go with their reasons, of all tables in their order."""
    if not isinstance(step, CorpusStep):  # needs no files
        results = [apply_step(NamedStep("step", step), table, None) for table in tables]
        kept, gone = ([row for result in results for row in result[place].to_pylist()] for place in (0, 1))
        return kept, gone
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.arrow") for number in range(len(tables))]
        for path, table in zip(paths, tables, strict=True):
            write_table(path, table)
        named = [NamedStep("step", step)]
        cleaned = clean(paths, named, Path(folder, "work"), identity=0, engine=LocalEngine(1))
        kept, gone = (
            [row for path in found for row in read_table(path).to_pylist()]
            for found in (cleaned.kept, cleaned.rejected)
        )
    return kept, gone


def fates(step: Step, pairs: Sequence[tuple[str, str]], **options: Any) -> list[str | None]:
    """For each pair the reason why it goes, None where it stays."""
    _, gone = run(step, [table_of(pairs, **options)])
    reasons = {int(row["id"], 16): row["reason"] for row in gone}
    return [reasons.get(number) for number in range(len(pairs))]


def texts(step: Step, pairs: Sequence[tuple[str, str]], **options: Any) -> list[tuple[str, str]]:
    """The pairs that stay, with the texts that the step leaves."""
    kept, _ = run(step, [table_of(pairs, **options)])
    return [(row["source"], row["target"]) for row in kept]
