"""Exact duplicates against dictionaries: who stays, who goes, in any order and any tables."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora_of_rows import rows_of, run, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nmt.cleaning.duplicates import ExactDuplicates, folded, sorted_places
from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.pipeline import NamedStep, clean, explain

WORDS = ["Haus", "haus", "Haus.", " Haus ", "Baum", "Baum 12", "Baum 7", "...", "?!", "ＨＡＵＳ"]
ROWS = [
    {"source": source, "target": target, "origin": origin}
    for source in WORDS
    for target in ("house", "House!", "tree")
    for origin in ("one", "two")
]
FOLD = ("case", "white_space", "punctuation")
SETTINGS = [
    {"by": by, "fold": fold}
    for by in ("pair", "source", "target")
    for fold in (
        [],
        ["case"],
        ["case", "white_space", "punctuation"],
        ["case", "white_space", "punctuation", "digits"],
    )
]


def plainly(text: str, fold: list[str]) -> str:
    """The same folding, character by character."""
    result = unicodedata.normalize("NFKC", text) if fold else text
    if "case" in fold:
        result = result.lower()
    if "digits" in fold:
        result = re.sub(r"\d+", "0", result)
    if "punctuation" in fold:
        result = "".join(" " if unicodedata.category(one).startswith("P") else one for one in result)
    if "white_space" in fold:
        result = " ".join(result.split())
    return result or text


def expected(rows: list[dict], by: str, fold: list[str]) -> dict[str, str | None]:
    """By id the id of the record that it repeats, None for those that stay."""
    groups: dict[tuple, list[str]] = {}
    for row in rows:
        sides = ("source", "target") if by == "pair" else (by,)
        groups.setdefault(tuple(plainly(row[side], fold) for side in sides), []).append(row["id"])
    return {one: min(ids) if one != min(ids) else None for ids in groups.values() for one in ids}


def told(paths: list[Path]) -> Counter:
    return Counter((row["id"], row.get("detail")) for row in rows_of(paths))


@pytest.mark.parametrize("given", SETTINGS, ids=lambda given: f"{given['by']}-{len(given['fold'])}")
def test_the_smallest_id_of_equal_records_stays(tmp_path, given):
    cleaned = run(ExactDuplicates(**given), ROWS, tmp_path)
    kept, gone = rows_of(cleaned.kept), rows_of(cleaned.rejected)
    wanted = expected(kept + gone, **given)
    assert {row["id"]: row["detail"] for row in gone} == {one: of for one, of in wanted.items() if of}
    assert {row["id"] for row in kept} == {one for one, of in wanted.items() if of is None}
    assert gone and {row["reason"] for row in gone} == {"duplicate"}


@settings(max_examples=20, deadline=None)
@given(draw=st.lists(st.sampled_from(ROWS[:14]), max_size=20), of=st.integers(1, 7), seed=st.integers(0, 9))
def test_order_tables_and_records_that_are_there_twice(tmp_path_factory, draw, of, seed):
    """Of records with one id exactly one stays, unless a smaller one is there."""
    step = ExactDuplicates()
    one = run(step, draw, tmp_path_factory.mktemp("one"), of)
    shuffled = random.Random(seed).sample(draw, len(draw))
    two = run(step, shuffled, tmp_path_factory.mktemp("two"), 3)
    assert told(one.kept) == told(two.kept) and told(one.rejected) == told(two.rejected)
    kept = [row["id"] for row in rows_of(one.kept)]
    assert len(kept) == len(set(kept))
    wanted = expected(rows_of(one.kept) + rows_of(one.rejected), step.by, step.fold)
    assert set(kept) == {one for one, of in wanted.items() if of is None}


def test_equal_tables(tmp_path):
    """A corpus that holds the same lines twice, so that its tables are the same."""
    rows = ROWS[:8:2] * 3
    cleaned = run(ExactDuplicates(fold=[]), rows, tmp_path, of=4)
    assert [len(rows_of([path])) for path in cleaned.kept] == [4, 0, 0]
    assert all(row["detail"] == row["id"] for row in rows_of(cleaned.rejected))


def test_languages_count(tmp_path):
    rows = [{"source": "OK", "target": "O.K.", "source_language": code} for code in ("de", "fr", "de")]
    assert len(rows_of(run(ExactDuplicates(fold=[]), rows, tmp_path).kept)) == 2


def test_texts_of_marks_alone_keep_their_differences():
    marks = pa.array(["...", "?!", " . ", "", "a.b", "A b"])
    assert folded(marks, ["case", "white_space", "punctuation"]).to_pylist() == ["...", "?!", " . ", "", "a b", "a b"]
    assert folded(marks, ["punctuation"]).to_pylist() == ["...", "?!", "  ", "", "ab", "A b"]
    assert folded(pa.chunked_array([["Ａ 12"]]), ["digits"]).to_pylist() == ["A 0"]


def test_the_story_of_a_duplicate_names_the_record_that_stayed(tmp_path):
    paths = tables(tmp_path / "in", ROWS)
    steps = [NamedStep("exact_duplicates", ExactDuplicates())]
    cleaned = clean(paths, steps, tmp_path / "work", identity=0, engine=LocalEngine(1))
    gone, kept = rows_of(cleaned.rejected)[0], rows_of(cleaned.kept)[0]
    story = list(explain(gone["id"], paths, steps, tmp_path / "work", identity=0))
    assert story[-1] == f"exact_duplicates: dropped, duplicate ({gone['detail']})"
    assert gone["detail"] in {row["id"] for row in rows_of(cleaned.kept)}
    assert list(explain(kept["id"], paths, steps, tmp_path / "work", identity=0))[-1] == "kept to the end"


@given(keys=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_places_are_sorted_by_key_and_place(keys):
    high, low = (np.array([key[half] for key in keys], np.uint64) for half in range(2))
    assert sorted_places(high, low).tolist() == sorted(range(len(keys)), key=lambda place: (keys[place], place))
    assert sorted_places(high).tolist() == sorted(range(len(keys)), key=lambda place: (keys[place][0], place))
