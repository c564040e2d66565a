"""Small corpora as tables on disk, and steps run over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.pipeline import Cleaned, NamedStep, clean, read_table, write_table
from hf_nmt.cleaning.step import Step
from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.data.records import tables_of


def tables(folder: Path, rows: Sequence[dict[str, Any]], of: int = 4) -> list[Path]:
    """Tables of records with the fields of each of `rows`, `of` in each."""
    pairs = (
        Pair(n, row["source"], row["target"], None, {k: v for k, v in row.items() if k not in ("source", "target")})
        for n, row in enumerate(rows)
    )
    paths = []
    folder.mkdir(parents=True)
    for number, table in enumerate(tables_of(Corpus("rows", "line", pairs), {}, rows=of)):
        write_table(path := folder / f"{number:06d}.arrow", table)
        paths.append(path)
    return paths


def run(step: Step, rows: Sequence[dict[str, Any]], folder: Path, of: int = 4) -> Cleaned:
    """A step over rows, in tables of `of`."""
    paths = tables(folder / "in", rows, of)
    return clean(paths, [NamedStep("step", step)], folder / "work", identity=0, engine=LocalEngine(1))


def rows_of(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [row for path in paths for row in read_table(path).to_pylist()]
