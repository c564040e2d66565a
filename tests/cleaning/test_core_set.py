"""Core sets: the records that a plain implementation chooses, with the shares of the whole corpus."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import xxhash
from corpora_of_rows import rows_of, run

from hf_nmt.cleaning.core_set import CoreSet, shares


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    domains = ["news", "daily", None]
    return [
        {
            "source": f"{number} " + "wort " * chance.choice((1, 2, 3, 8, 20)),
            "target": "word " * chance.choice((1, 2, 3, 9)),
            "domain": chance.choices(domains, (5, 3, 1))[0],
        }
        for number in range(count)
    ]


def chosen_plainly(records: list[dict[str, Any]], step: CoreSet) -> set[str]:
    """Ids, in dictionaries and fractions."""
    distinct = {row["id"]: row for row in records}
    length = {name: len(row["source"]) + len(row["target"]) for name, row in distinct.items()}
    ordered = sorted(length.values())
    edges = sorted({ordered[number * len(ordered) // step.length_bins] for number in range(1, step.length_bins)})
    strata: dict[Any, list[str]] = {}
    for name, row in distinct.items():
        domain = xxhash.xxh3_64_intdigest((row["domain"] or "").encode()) if "domain" in step.by else 0
        bin_of = sum(length[name] >= edge for edge in edges) if "length" in step.by else 0
        strata.setdefault((domain, bin_of), []).append(name)
    total = min(step.size, len(distinct))
    exact = {key: Fraction(len(names) * total, len(distinct)) for key, names in strata.items()}
    take = {key: int(share) for key, share in exact.items()}
    for key in sorted(strata, key=lambda key: (take[key] - exact[key], key))[: total - sum(take.values())]:
        take[key] += 1
    result = set()
    for key, names in strata.items():
        draws = {name: xxhash.xxh3_64_intdigest(bytes.fromhex(name), seed=step.seed) for name in names}
        result |= {*sorted(names, key=lambda name: (draws[name], name))[: take[key]]}
    return result


@pytest.mark.parametrize(
    "settings",
    [{}, {"by": []}, {"by": ["domain"]}, {"by": ["length"], "length_bins": 3}, {"seed": 4}, {"size": 7}, {"size": 1}],
)
def test_a_plain_implementation_chooses_the_same(tmp_path, settings):
    step = CoreSet(**{"size": 60, **settings})
    given = rows(300)
    cleaned = run(step, given + given[:20], tmp_path, of=50)
    kept, gone = rows_of(cleaned.kept), rows_of(cleaned.rejected)
    assert {row["id"] for row in kept} == chosen_plainly(kept + gone, step) and len(kept) == step.size
    assert {(row["step"], row["reason"], row["detail"]) for row in gone} == {("step", "not_chosen", None)}


def test_domains_and_lengths_keep_their_shares(tmp_path):
    given = rows(2000, seed=1)
    cleaned = run(CoreSet(size=200), given, tmp_path, of=500)
    kept = rows_of(cleaned.kept)
    whole = Counter(row["domain"] for row in given)
    found = Counter(row["domain"] for row in kept)
    # A tenth; each of the five bins of a domain may be off by one.
    assert all(abs(found[domain] - whole[domain] / 10) <= 5 for domain in whole) and len(whole) == 3
    mean = [np.mean([len(row["source"] + row["target"]) for row in some]) for some in (given, kept)]
    assert mean[1] == pytest.approx(mean[0], rel=0.04)


def test_the_smaller_set_of_one_stratum_is_part_of_the_larger(tmp_path):
    small, large = (
        {row["id"] for row in rows_of(run(CoreSet(size=size, by=[]), rows(200), tmp_path / str(size)).kept)}
        for size in (20, 90)
    )
    assert small < large and len(small) == 20


@pytest.mark.parametrize("size", [30, 1000])
def test_a_small_corpus_stays_whole_but_for_what_it_has_twice(tmp_path, size):
    given = rows(30)
    kept = rows_of(run(CoreSet(size=size), [*given, given[3], given[3]], tmp_path).kept)
    assert sorted(row["source"] for row in kept) == sorted(row["source"] for row in given)


def test_largest_remainders():
    # 100 seats of 53, 24, 23 out of 1,000 each give 0.53, 0.24 and 0.23 of a seat for every ten.
    assert shares(np.array([530, 240, 230]), 10).tolist() == [5, 3, 2]
    assert shares(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]
    assert shares(np.array([3, 4]), 9).tolist() == [3, 4]
