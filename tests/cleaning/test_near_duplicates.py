"""Near-duplicates against all pairs compared one by one, and MinHash against datasketch."""

from __future__ import annotations

import itertools
import random
import string

import numpy as np
import pyarrow as pa
import pytest
from corpora_of_rows import rows_of, run

from hf_nmt.cleaning import near_duplicates
from hf_nmt.cleaning.near_duplicates import NearDuplicates
from hf_nmt.cleaning.shingles import (
    RECALL,
    Shingles,
    Similarity,
    band_keys,
    bands_of,
    distinct,
    foldings,
    jaccard,
    shingles_of,
    signatures,
)
from hf_nmt.data.records import SCHEMA

CHARACTERS, WORDS = Similarity(), Similarity(shingles="words", size=2)


def sentence(draw: random.Random, words: int) -> str:
    return " ".join("".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 8))) for _ in range(words))


def corpus(count: int, seed: int) -> list[dict]:
    """Sentences, and beside many of them some that differ in a word or two."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        row = {"source": sentence(draw, 9), "target": sentence(draw, 9)}
        rows.append(row)
        for _ in range(draw.choice((0, 0, 1, 3))):
            other = dict(row)
            for side in draw.choices(("source", "target"), k=draw.randint(1, 3)):
                words = other[side].split()
                words[draw.randrange(len(words))] = sentence(draw, 1)
                other[side] = " ".join(words)
            rows.append(other)
    return draw.sample(rows, len(rows))


def runs_of(text: str, settings: Similarity) -> set:
    units = list(text) if settings.shingles == "characters" else text.split()
    return {tuple(units[at : at + settings.size]) for at in range(max(len(units) - settings.size, 0) + 1)}


def plainly(one: dict, other: dict, settings: Similarity) -> float:
    a, b = (
        {(side, run) for side in ("source", "target") for run in runs_of(row[side], settings)} for row in (one, other)
    )
    return round(len(a & b) / len(a | b), 4)


def shingles(rows: list[dict], settings: Similarity) -> Shingles:
    table = pa.Table.from_pylist([{"id": "0" * 32, **row} for row in rows], schema=SCHEMA)
    return shingles_of(foldings(table), settings)


@pytest.mark.parametrize("given", [CHARACTERS, WORDS, Similarity(size=1), Similarity(shingles="words", size=12)])
def test_jaccard_is_that_of_sets(given):
    rows = corpus(20, seed=1) + [
        {"source": "", "target": "a"},
        {"source": "a", "target": ""},
        {"source": "aaaa aaaa aaaa", "target": "\N{GRINNING FACE} 한국어 문장"},
    ]
    pairs = np.array(list(itertools.product(range(len(rows)), repeat=2)))
    sets = distinct(shingles(rows, given))
    found = jaccard(sets, pairs[:, 0], sets, pairs[:, 1])
    assert found.tolist() == [plainly(rows[i], rows[j], given) for i, j in pairs]
    assert 0.3 < max(value for value in found if value < 1)


def test_minhash_estimates_as_datasketch_does():
    """Both are off by sqrt(J (1 - J) / hashes) on average, and neither to one side."""
    datasketch = pytest.importorskip("datasketch")
    hashes, rows = 256, corpus(150, seed=2)
    sets = shingles(rows, CHARACTERS)
    least = signatures(sets, hashes)
    theirs = []
    for start, end in itertools.pairwise(sets.starts):
        sketch = datasketch.MinHash(num_perm=hashes)
        sketch.update_batch([value.tobytes() for value in sets.hashes[start:end]])
        theirs.append(sketch)
    errors = {"ours": [], "theirs": []}
    for i, j in itertools.combinations(range(len(rows)), 2):
        true = plainly(rows[i], rows[j], CHARACTERS)
        if 0.2 < true < 0.98:
            scale = (true * (1 - true) / hashes) ** 0.5
            errors["ours"].append(((least[:, i] == least[:, j]).mean() - true) / scale)
            errors["theirs"].append((theirs[i].jaccard(theirs[j]) - true) / scale)
    assert len(errors["ours"]) > 100
    for values in map(np.array, errors.values()):
        assert abs(values.mean()) < 0.3 and 0.8 < values.std() < 1.25 and np.abs(values).max() < 4.5


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_pairs_meet_as_often_as_bands_promise(threshold):
    bands, rows = bands_of(threshold)
    assert 1 - (1 - threshold**rows) ** bands >= RECALL
    sets = shingles(corpus(40, seed=3), Similarity(threshold=threshold))
    least = signatures(sets, bands * rows).reshape(bands, rows, -1)
    keys = band_keys(sets, threshold)
    for i, j in itertools.combinations(range(len(sets)), 2):
        assert np.array_equal(keys[:, i] == keys[:, j], (least[:, :, i] == least[:, :, j]).all(axis=1))


@pytest.mark.parametrize("given", [CHARACTERS, Similarity(threshold=0.6), Similarity(shingles="words", threshold=0.5)])
def test_who_goes_is_who_is_like_a_smaller_id(tmp_path, given):
    rows = corpus(150, seed=4)
    cleaned = run(NearDuplicates(**given.model_dump()), rows, tmp_path, of=70)
    kept, gone = rows_of(cleaned.kept), rows_of(cleaned.rejected)
    records = sorted(kept + gone, key=lambda row: row["id"])
    by_id = {row["id"]: row for row in records}
    expected = {
        row["id"]
        for place, row in enumerate(records)
        if any(plainly(row, other, given) >= given.threshold for other in records[:place])
    }
    found = {row["id"] for row in gone}
    assert found <= expected and len(found) >= 0.97 * len(expected) > 20
    for row in gone:
        of, alike = row["detail"].split()
        assert row["reason"] == "near_duplicate" and of < row["id"]
        assert float(alike) == pytest.approx(plainly(row, by_id[of], given), abs=6e-4)


def test_order_and_tables_change_nothing(tmp_path):
    rows = corpus(60, seed=5)
    rows += rows[:30]
    results = []
    for number, of in enumerate((7, 1000)):
        cleaned = run(NearDuplicates(), random.Random(number).sample(rows, len(rows)), tmp_path / str(number), of)
        results.append(
            [sorted((row["id"], row.get("detail")) for row in rows_of(p)) for p in (cleaned.kept, cleaned.rejected)]
        )
    assert results[0] == results[1] and all(results[0])
    kept = [one for one, _ in results[0][0]]
    assert len(kept) == len(set(kept))


def test_nothing_more_goes_the_second_time(tmp_path):
    once = rows_of(run(NearDuplicates(), corpus(60, seed=6), tmp_path / "one").kept)
    again = run(NearDuplicates(), [{k: row[k] for k in ("source", "target")} for row in once], tmp_path / "two")
    assert {row["id"] for row in rows_of(again.kept)} == {row["id"] for row in once}


def test_of_a_chain_the_smallest_stays(tmp_path):
    words = sentence(random.Random(7), 24).split()
    rows = [{"source": " ".join(words[at : at + 18]), "target": "x"} for at in range(6)]
    settings = Similarity(threshold=0.85)
    assert plainly(rows[0], rows[1], settings) >= 0.85 > plainly(rows[0], rows[5], settings)
    cleaned = run(NearDuplicates(threshold=0.85), rows, tmp_path)
    ids = sorted(row["id"] for row in rows_of(cleaned.kept) + rows_of(cleaned.rejected))
    assert ids[0] in {row["id"] for row in rows_of(cleaned.kept)}
    by_id = {row["id"]: row for row in rows_of(cleaned.kept) + rows_of(cleaned.rejected)}
    left = [one for n, one in enumerate(ids) if all(plainly(by_id[one], by_id[o], settings) < 0.85 for o in ids[:n])]
    assert sorted(row["id"] for row in rows_of(cleaned.kept)) == left


def test_where_many_meet_each_is_compared_with_some(tmp_path, monkeypatch):
    base = sentence(random.Random(8), 30)
    rows = [{"source": f"{base} {number}", "target": base} for number in range(40)]
    assert len(rows_of(run(NearDuplicates(), rows, tmp_path / "all").kept)) == 1
    monkeypatch.setattr(near_duplicates, "MOST_COMPARED", 2)
    monkeypatch.setattr(near_duplicates, "_PAIRS_AT_A_TIME", 5)
    assert len(rows_of(run(NearDuplicates(), rows, tmp_path / "few").kept)) == 1


def test_numbers_and_directions_are_told_apart(tmp_path):
    rows = [
        {"source": "Kapitel 12", "target": "Chapter 12"},
        {"source": "Kapitel 13", "target": "Chapter 13"},
        {"source": "Ein ganz anderer Satz.", "target": "Quite another one.", "source_language": "de"},
        {"source": "Quite another one.", "target": "Ein ganz anderer Satz.", "source_language": "en"},
        {"source": "Ein ganz anderer Satz!", "target": "quite another one", "source_language": "de"},
    ]
    gone = rows_of(run(NearDuplicates(), rows, tmp_path).rejected)
    assert [row["source_language"] for row in gone] == ["de"] and gone[0]["detail"].endswith(" 1.000")
