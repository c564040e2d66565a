"""Duplicates decided in parts, as rows that are shuffled come together, against those decided in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from corpora_of_rows import rows_of, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nmt.cleaning.duplicates import ExactDuplicates
from hf_nmt.cleaning.engine import KEY, LocalEngine
from hf_nmt.cleaning.near_duplicates import NearDuplicates
from hf_nmt.cleaning.pipeline import Cleaned, NamedStep, clean, write_table

WORDS = ("Ein", "Hund", "läuft", "über", "die", "Wiese", ".", "dog", "runs", "ein", "the")


class InParts(LocalEngine):
    """Shares keys out to parts by chance, in ranges of keys for the last stage, and mixes the rows of each."""

    def __init__(self, parts: int, seed: int):
        super().__init__(1)
        self.parts, self.draw, self.seen = parts, random.Random(seed), 0

    def shuffle(self, make, tasks, stages, *, bytes_of_rows, folder):
        made = [make(task) for task in tasks]
        assert all(table.nbytes <= bytes_of_rows for table in made)
        rows = [row for table in made for row in table.to_pylist()]
        schema = made[0].schema if made else None
        for stage in stages:
            keys = sorted({row[KEY] for row in rows})
            cuts = sorted(self.draw.choices(range(len(keys) + 1), k=self.parts - 1))
            groups = [keys[a:b] for a, b in zip([0, *cuts], [*cuts, len(keys)], strict=True)]
            if stage is not stages[-1]:
                of = {key: self.draw.randrange(self.parts) for key in keys}
                groups = [[key for key in keys if of[key] == part] for part in range(self.parts)]
            results = []
            for group in filter(None, map(set, groups)):
                part = [row for row in rows if row[KEY] in group]
                self.draw.shuffle(part)
                self.seen += len(part)
                results.append(stage(pa.Table.from_pylist(part, schema)))
            if results:
                schema = results[0].schema
                rows = [row for table in results for row in table.to_pylist()]
        for number, table in enumerate(results):
            write_table(folder / f"{number}.arrow", table)
        return [folder / f"{number}.arrow" for number in range(len(results))]


def cleaned(paths: list[Path], step, engine, work: Path) -> Cleaned:
    return clean(paths, [NamedStep("step", step)], work, identity=0, engine=engine)


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join)
records = st.lists(st.builds(lambda one, other: {"source": one, "target": other}, texts, texts), max_size=24)
STEPS = [
    ExactDuplicates(),
    ExactDuplicates(by="source", fold=[]),
    NearDuplicates(threshold=0.5),
    NearDuplicates(threshold=0.4, shingles="words", size=1),
]


@pytest.mark.parametrize("step", STEPS, ids=["pair", "source", "near", "near words"])
@settings(max_examples=10, deadline=None)
@given(rows=records, again=st.integers(0, 8), parts=st.integers(1, 5), seed=st.integers(0, 99))
def test_parts_decide_as_one_does(tmp_path_factory, step, rows, again, parts, seed):
    """Records that are equal in every field, which have one id, come in several tables too."""
    folder = tmp_path_factory.mktemp("shuffles")
    paths = tables(folder / "in", rows + rows[:again], of=5)
    engine = InParts(parts, seed)
    one = cleaned(paths, step, LocalEngine(1), folder / "one")
    other = cleaned(paths, step, engine, folder / "parts")
    assert rows_of(other.kept) == rows_of(one.kept) and rows_of(other.rejected) == rows_of(one.rejected)
    assert other.steps == one.steps and bool(engine.seen) == bool(rows)
    assert not [path for path in (folder / "parts").iterdir() if ".parts" in path.name]


def test_parts_decide_as_one_does_where_more_meet_than_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_nmt.cleaning.near_duplicates.MOST_COMPARED", 3)
    draw = random.Random(1)
    words = [f"w{number}" for number in range(16)]
    rows = []
    for _ in range(120):
        source = list(words)
        for _ in range(draw.randrange(5)):
            source[draw.randrange(16)] = f"x{draw.randrange(40)}"
        rows.append({"source": " ".join(source), "target": "the same"})
    paths = tables(tmp_path / "in", rows, of=30)
    step = NearDuplicates(threshold=0.7)
    one = cleaned(paths, step, LocalEngine(1), tmp_path / "one")
    other = cleaned(paths, step, InParts(4, 2), tmp_path / "parts")
    assert rows_of(other.rejected) == rows_of(one.rejected)
    assert 20 < len(rows_of(one.rejected)) < 119
