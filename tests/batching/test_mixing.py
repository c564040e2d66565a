"""Mixtures of domains and corpora: shares as asked, stage after stage, the same however divided and resumed."""

from __future__ import annotations

import math
from collections import Counter

import datasets
import numpy as np
import pytest
from divided_batches import check_division
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_nmt.batching import BatchingSettings, PairGroups, TokenBatchSampler
from hf_nmt.batching.groups import weighted_rows
from hf_nmt.batching.mixing import MixingSettings
from hf_nmt.errors import ConfigError, DataError

NAMES = ("news", "talk", "law")


def mixture(counts=(3000, 800, 300), seed=0, **mixing):
    """Lengths and groups of shuffled rows; those of later groups are longer."""
    draw = np.random.default_rng(seed)
    of_row = np.repeat(np.arange(len(counts)), counts)
    draw.shuffle(of_row)
    lengths = np.clip(draw.lognormal(2 + 0.4 * of_row, 0.5, (2, len(of_row))), 1, 40).astype(np.int32)
    rows = datasets.Dataset.from_dict({"domain": [NAMES[number] for number in of_row]})
    return lengths, PairGroups.mixed_by(rows, MixingSettings(by="domain", **mixing)), of_row


def sampler_of(lengths, groups, **options):
    budget = BatchingSettings(batch_tokens=400, max_source_length=40, max_target_length=40)
    return TokenBatchSampler(*lengths, budget, **{"seed": 1, "groups": groups, **options})


def stages(*stages):
    """Weights of news, talk, law, and where each ends."""
    return [{"weights": dict(zip(NAMES, weights, strict=True)), **end} for weights, end in stages]


TWO = stages(((6, 3, 1), {"until_epoch": 2}), ((0, 1, 3), {}))


def drawn(sampler, of_row, epochs):
    """Rows of each group in each epoch."""
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) and all(batches)
        found.append(np.bincount(of_row[np.concatenate(batches)], minlength=3))
    return np.array(found)


@given(total=st.integers(1, 10**6), weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any))
@example(total=1, weights=[1.0, 759.0, 993.0, 1.0, 1.0, 1.0])
@settings(deadline=None)
def test_rows_are_shared_out_by_weights(total, weights):
    total += len(weights)
    rows = weighted_rows(total, weights)
    assert sum(rows) == total
    tiny = sum(1 for weight in weights if weight > 0 and total * weight / sum(weights) < 1)
    for got, weight in zip(rows, weights, strict=True):
        assert (got == 0) == (weight == 0)
        assert got <= 1 or abs(got - total * weight / sum(weights)) <= 1 + tiny


def test_stages_change_at_the_epoch_and_shares_are_as_asked():
    lengths, groups, of_row = mixture(stages=TWO)
    sampler = sampler_of(lengths, groups)
    rows = drawn(sampler, of_row, range(5))
    shares = rows / rows.sum(axis=1, keepdims=True)
    assert shares[:2] == pytest.approx(np.tile([0.6, 0.3, 0.1], (2, 1)), abs=0.01)
    assert shares[2:] == pytest.approx(np.tile([0, 0.25, 0.75], (3, 1)), abs=0.01)
    assert abs(rows.sum(axis=1) - len(of_row)).max() < 0.02 * len(of_row)  # of each bucket and group a whole number
    assert sampler.stages_of(1) == [(0, 0, sampler.updates)] and sampler.stages_of(2) == [(1, 0, sampler.updates)]


def test_no_batch_is_over_the_budget_in_any_stage():
    lengths, groups, _ = mixture(stages=TWO)
    sampler = sampler_of(lengths, groups)
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        assert all(len(batch) * lengths[:, batch].max() <= 400 for batch in sampler)


def test_rows_of_a_group_are_used_evenly_across_stages():
    lengths, groups, of_row = mixture(stages=TWO)
    sampler, used = sampler_of(lengths, groups), np.zeros(len(of_row), dtype=int)
    for epoch in range(6):
        sampler.set_epoch(epoch)
        used += np.bincount(np.concatenate(list(sampler)), minlength=len(used))
        for group in range(3):
            assert np.ptp(used[of_row == group]) <= 1


def test_a_stage_that_ends_inside_an_epoch_takes_its_first_updates():
    ends = 30
    lengths, groups, of_row = mixture(stages=stages(((1, 0, 0), {"until_step": ends}), ((0, 0, 1), {})))
    sampler = sampler_of(lengths, groups)
    assert ends < sampler.updates
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert {of_row[row] for batch in batches[:ends] for row in batch} == {0}
    assert {of_row[row] for batch in batches[ends:] for row in batch} == {2}
    assert sampler.stages_of(0) == [(0, 0, ends), (1, ends, sampler.updates)]
    assert sampler.drawn_in(0, ends)["law"] == 0 < sampler.drawn_in(0, sampler.updates)["law"]
    counted = Counter(groups.names[number] for batch in batches for number in groups.of_row[batch])
    assert sampler.drawn_in(0, sampler.updates) == {name: counted[name] for name in groups.names}


@given(
    seed=st.integers(0, 50),
    parts=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    step=st.integers(1, 60),
    weights=st.lists(st.sampled_from([0.2, 1, 3, 9]), min_size=3, max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_division_and_resume_do_not_show(seed, parts, step, weights):
    given = stages(((6, 3, 1), {"until_step": step}), (weights, {"until_step": 3 * step}), ((1, 1, 1), {}))
    lengths, groups, _ = mixture((900, 400, 200), seed, stages=given)
    world_size, accumulation = parts
    whole = sampler_of(lengths, groups, world_size=world_size, accumulation=accumulation)
    alone = sampler_of(lengths, groups, accumulation=world_size * accumulation)
    check_division(whole, alone, world_size, epochs=(1, 0))


def test_a_temperature_is_that_of_language_pairs_and_one_stage_is_enough():
    lengths, groups, of_row = mixture(stages=[{"temperature": math.inf}])
    rows = drawn(sampler_of(lengths, groups), of_row, range(2))
    assert rows / rows.sum(axis=1, keepdims=True) == pytest.approx(np.full((2, 3), 1 / 3), abs=0.01)


def test_a_mixture_changes_the_fingerprint():
    fingerprints = {
        sampler_of(*mixture(stages=given)[:2]).fingerprint
        for given in (TWO, TWO[1:], stages(((6, 3, 1), {"until_epoch": 3}), ((0, 1, 3), {})))
    }
    assert len(fingerprints) == 3


def test_rows_that_name_none_are_a_group():
    rows = datasets.Dataset.from_dict({"origin": ["a", None, "", "a", "b"]})
    mixing = MixingSettings(by="origin", stages=[{"weights": {"a": 1, "none": 1, "b": 0}}])
    groups = PairGroups.mixed_by(rows, mixing)
    assert groups.names == ["a", "none", "b"] and groups.counts == [2, 2, 1]
    assert groups.of_row.tolist() == [0, 1, 1, 0, 2] and groups.drawn[2] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"weights": {"a": 1}, "temperature": 2}], "give either weights or temperature"),
        ([{}], "give either weights or temperature"),
        ([{"weights": {"a": -1}}], r"weights.a: given -1.0, allowed: a number from 0"),
        ([{"weights": {"a": 0}}], "weights: all are 0, so that nothing would be drawn"),
        ([{"temperature": 1}], "a temperature of 1 draws the data as they are; leave data.mixing out"),
        ([{"temperature": 2, "until_epoch": 2}], "stages.0: the last stage goes on to the end"),
        ([{"temperature": 2}, {"temperature": 3}], "stages.0: give until_epoch or until_step, as"),
        (
            [{"temperature": 2, "until_epoch": 2}, {"temperature": 4, "until_epoch": 2}, {"temperature": 3}],
            "until_epoch must grow from stage to stage, and is 2, 2",
        ),
        ([{"temperature": 2, "until_epoch": 2, "until_step": 5}, {"temperature": 4}], "either until_epoch or"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        MixingSettings(by="domain", stages=given)


def test_groups_that_do_not_fit_are_refused():
    rows = datasets.Dataset.from_dict({"domain": ["news", "talk", "talk"]})

    def groups(**weights):
        return PairGroups.mixed_by(rows, MixingSettings(by="domain", stages=[{"weights": weights}]))

    with pytest.raises(ConfigError) as refusal:
        groups(nwes=1, talk=1)
    assert refusal.value.findings == [
        "data.mixing.stages.0.weights.nwes: there are no such rows. There are: news (1 rows), talk (2 rows).",
        "data.mixing.stages.0.weights: news has no weight. Give one; news: 0 leaves it out.",
    ]
    with pytest.raises(
        DataError, match="data.mixing.by=domain: all rows are of news, so that there is nothing to mix"
    ):
        mixing = MixingSettings(by="domain", stages=[{"weights": {"news": 1}}])
        PairGroups.mixed_by(rows.select([0]), mixing)


def test_stages_that_do_not_come_are_refused():
    sampler = sampler_of(*mixture(stages=TWO)[:2])
    sampler.check_length(2 * sampler.updates + 1)
    with pytest.raises(ConfigError, match=r"data.mixing.stages.1: it would begin at step .*, and training ends at"):
        sampler.check_length(2 * sampler.updates)
    crossed = stages(((1, 1, 2), {"until_epoch": 2}), ((1, 2, 1), {"until_step": 5}), ((2, 1, 1), {}))
    with pytest.raises(
        ConfigError, match=r"data.mixing.stages.1: it would end at step 5, and the stage before ends at"
    ):
        sampler_of(*mixture(stages=crossed)[:2])


def test_segmentations_have_an_index_of_their_own_in_each_use():
    lengths, groups, _ = mixture((300, 40, 20), stages=stages(((1, 1, 1), {"until_epoch": 1}), ((1, 5, 0), {})))
    sampler, seen = sampler_of(lengths, groups, epoch_in_index=True), Counter()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen.update(index for batch in sampler for index in batch)
    assert set(seen.values()) == {1}
