"""Language pairs drawn by temperature: shares as published, rows used evenly, batches the same however divided."""

from __future__ import annotations

import math
from collections import Counter

import datasets
import numpy as np
import pytest
from divided_batches import check_division
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nmt.batching import BatchingSettings, PairGroups, TokenBatchSampler, drawn_rows, language_pairs
from hf_nmt.batching.rows import training_batches
from hf_nmt.errors import ConfigError, DataError

# Shares


@given(counts=st.lists(st.integers(1, 10**6), min_size=1, max_size=12), temperature=st.floats(1, 1e6))
@settings(deadline=None)
def test_shares_are_those_of_the_closed_form(counts, temperature):
    drawn = drawn_rows(counts, temperature)
    total = sum(counts)
    assert sum(drawn) == total and min(drawn) >= 1
    powers = [math.exp(math.log(count / total) / temperature) for count in counts]
    tiny = sum(1 for power in powers if total * power / sum(powers) < 1)
    for got, power in zip(drawn, powers, strict=True):
        assert got == 1 or abs(got - total * power / sum(powers)) <= 1 + tiny


def test_temperatures_that_are_known():
    # Worked by hand: 900 and 100 rows; T = 2 gives sqrt(9) : 1.
    assert drawn_rows([900, 100], 1) == [900, 100]
    assert drawn_rows([900, 100], 2) == [750, 250]
    assert drawn_rows([900, 100], math.inf) == [500, 500]
    assert drawn_rows([10**6, 1, 1], 1) == [10**6, 1, 1]


# Which row is of which pair


def rows(**columns):
    return datasets.Dataset.from_dict(columns)


def test_pairs_are_counted_in_the_order_of_their_rows():
    both = rows(source_language=["de", "fr", None, "de", ""], target_language=["en", "en", "cs", "en", "en"])
    assert language_pairs(both, ("xx", "yy")) == {
        ("de", "en"): 2, ("fr", "en"): 1, ("xx", "cs"): 1, ("xx", "en"): 1,
    }  # fmt: skip
    assert language_pairs(rows(source=["a", "b"]), ("de", "en")) == {("de", "en"): 2}
    assert language_pairs(rows(target_language=["b", "a", "b"]), ("x", None)) == {("x", "b"): 2, ("x", "a"): 1}


def test_windows_do_not_show(monkeypatch):
    generator = np.random.default_rng(0)
    table = rows(target_language=[f"l{number}" for number in generator.integers(0, 9, 100)])
    whole, numbers = language_pairs(table, ("x", None)), PairGroups.of(table, 5, usual=("x", None)).of_row
    assert sum(whole.values()) == 100 and numbers.dtype == np.uint8
    monkeypatch.setattr("hf_nmt.batching.groups._ROWS_AT_A_TIME", 7)
    assert language_pairs(table, ("x", None)) == whole
    again = PairGroups.of(table, 5, usual=("x", None))
    assert again.of_row.tolist() == numbers.tolist()
    assert [again.names[number] for number in again.of_row] == [f"x-{code}" for code in table["target_language"]]


def test_a_temperature_for_one_pair_is_refused():
    with pytest.raises(DataError, match="sampling_temperature=5 would change nothing: all pairs are de to en"):
        PairGroups.of(rows(source=["a", "b"]), 5, usual=("de", "en"))


# Batches


def case(counts=(4000, 700, 60), temperature=5.0, seed=0, longest=40):
    """Lengths and groups of shuffled rows."""
    draw = np.random.default_rng(seed)
    of_row = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    draw.shuffle(of_row)
    # The last group's texts are longer, so that buckets hold uneven shares of the groups.
    lengths = np.clip(draw.lognormal(2 + 0.4 * of_row, 0.5, (2, len(of_row))), 1, longest).astype(np.int32)
    names = [f"g{number}-en" for number in range(len(counts))]
    return lengths, PairGroups(names, of_row, list(counts), drawn_rows(counts, temperature))


def budget(batch_tokens=400, **others):
    return BatchingSettings(batch_tokens=batch_tokens, max_source_length=40, max_target_length=40, **others)


@pytest.mark.parametrize("temperature", [1.5, 5.0, math.inf])
def test_every_row_of_a_pair_is_used_as_often_as_the_others(temperature):
    lengths, groups = case(temperature=temperature)
    sampler = TokenBatchSampler(*lengths, budget(), seed=3, groups=groups)
    used = np.zeros(len(groups.of_row), dtype=int)
    sizes = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        sizes.add(len(batches))
        for batch in batches:
            assert len(batch) * lengths[:, batch].max() <= 400
        used += np.bincount(np.concatenate(batches), minlength=len(used))
        for group, (count, drawn) in enumerate(zip(groups.counts, groups.drawn, strict=True)):
            # Exactly floor or ceil of how often a row of the pair should have been used by now.
            wanted = (epoch + 1) * drawn
            assert set(used[groups.of_row == group]) <= {wanted // count, -(-wanted // count)}
    assert sizes == {len(sampler)}, "every epoch has the same number of batches"
    per_group = np.bincount(groups.of_row, weights=used) / 12
    assert np.allclose(per_group, groups.drawn, rtol=0.02, atol=3)


@given(
    counts=st.lists(st.integers(30, 600), min_size=2, max_size=5),
    temperature=st.sampled_from([1.2, 5.0, math.inf]),
    seed=st.integers(0, 99),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
@settings(max_examples=40, deadline=None)
def test_division_and_resume_do_not_show(counts, temperature, seed, parts):
    lengths, groups = case(tuple(counts), temperature, seed)
    world_size, accumulation = parts
    make = {"seed": seed, "groups": groups}
    whole = TokenBatchSampler(*lengths, budget(), **make, world_size=world_size, accumulation=accumulation)
    alone = TokenBatchSampler(*lengths, budget(), **make, accumulation=world_size * accumulation)
    check_division(whole, alone, world_size, epochs=(0, 5))


def test_an_epoch_depends_on_nothing_before_it():
    lengths, groups = case()
    run_through, jumped = (TokenBatchSampler(*lengths, budget(), seed=1, groups=groups) for _ in range(2))
    for epoch in range(4):
        run_through.set_epoch(epoch)
        last = list(run_through)
    jumped.set_epoch(3)
    assert list(jumped) == last


def test_groups_drawn_as_they_are_change_no_batch():
    lengths, groups = case(temperature=1.0)
    plain = TokenBatchSampler(*lengths, budget(), seed=2)
    grouped = TokenBatchSampler(*lengths, budget(), seed=2, groups=groups)
    assert list(plain) == list(grouped) and plain.fingerprint == grouped.fingerprint
    uneven = TokenBatchSampler(*lengths, budget(), seed=2, groups=case(temperature=5.0)[1])
    assert uneven.fingerprint != plain.fingerprint


def test_batches_mix_the_pairs():
    lengths, groups = case((3000, 1000), temperature=math.inf)
    sampler = TokenBatchSampler(*lengths, budget(), seed=2, groups=groups)
    mixed = [len(set(groups.of_row[batch])) == 2 for batch in sampler if len(batch) > 8]
    assert np.mean(mixed) > 0.9


def test_each_use_of_a_row_has_an_index_of_its_own():
    """So that BPE-dropout segments a row that comes several times an epoch differently each time."""
    lengths, groups = case((900, 30))
    plain, numbered = (
        TokenBatchSampler(*lengths, budget(), seed=0, epoch_in_index=numbered, groups=groups)
        for numbered in (False, True)
    )
    seen: Counter[int] = Counter()
    for epoch in range(3):
        plain.set_epoch(epoch)
        numbered.set_epoch(epoch)
        batches = list(numbered)
        assert [[index % 930 for index in batch] for batch in batches] == list(plain)
        seen.update(index for batch in batches for index in batch)
    assert set(seen.values()) == {1}
    # The uses of a row are numbered from 0 without a gap.
    uses = Counter(index % 930 for index in seen)
    assert all(max(index // 930 for index in seen if index % 930 == row) == uses[row] - 1 for row in range(0, 930, 50))


def test_what_cannot_be_dealt_is_refused():
    lengths, groups = case((40, 2), math.inf)
    with pytest.raises(ConfigError, match="cannot be dealt to updates of 4 batches so that none is empty"):
        TokenBatchSampler(*lengths, budget(max_sentences=1), seed=0, accumulation=4, groups=groups)


def test_encoded_rows_are_drawn_by_their_languages():
    generator = np.random.default_rng(0)
    ids = [list(range(length)) for length in generator.integers(2, 20, 500)]
    encoded = rows(
        input_ids=ids,
        labels=ids,
        source_length=[len(one) for one in ids],
        target_length=[len(one) for one in ids],
        target_language=["aa"] * 450 + ["bb"] * 50,
    ).cast_column("source_length", datasets.Value("int32"))
    _, sampler = training_batches(encoded, budget(), seed=0, sampling_temperature=math.inf, languages=("xx", None))
    drawn = np.concatenate([*sampler])
    assert abs(int((drawn >= 450).sum()) - 250) < 10 and abs(len(drawn) - 500) < 10
    _, plain = training_batches(encoded, budget(), seed=0)
    assert sorted(np.concatenate([*plain])) == list(range(500))
