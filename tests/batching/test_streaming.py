"""Batches of a stream: every pair once an epoch, however it is divided, and on from any position."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import Counter

import pyarrow as pa
import pytest
import torch
from toy_training import make_tokenizer

from hf_nmt.batching import BatchingSettings, PairEncoder, StreamedBatches, StreamLoader, TranslationCollator
from hf_nmt.batching.streaming import Position
from hf_nmt.errors import ConfigError, DataError


class Rows:
    """Pairs in memory, read anew each time; counts how many rows were read."""

    def __init__(self, pairs, at_a_time=7, broken_at=None, columns=None):
        self.pairs, self.at_a_time, self.broken_at, self.columns = pairs, at_a_time, broken_at, columns or {}

    def tables(self, start=None):
        assert start is None
        return _Reading(self)


class _Reading:
    start = end = None

    def __init__(self, rows):
        self.rows, self.dropped = rows, Counter()

    def __iter__(self):
        pairs = self.rows.pairs
        for first in range(0, len(pairs), self.rows.at_a_time):
            part = pairs[first : first + self.rows.at_a_time]
            if self.rows.broken_at is not None and first + len(part) > self.rows.broken_at:
                raise DataError(f"line {self.rows.broken_at} is broken")
            columns = {name: values[first : first + len(part)] for name, values in self.rows.columns.items()}
            yield pa.RecordBatch.from_pydict(
                {"source": [p[0] for p in part], "target": [p[1] for p in part], **columns}
            )
        self.dropped["empty"] += 3


def make_texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of which no two are equal: each begins with its number in words."""
    draw = random.Random(seed)
    pairs = []
    for number in range(count):
        words = [f"w{number // 30}", f"w{number % 30}", *(f"w{draw.randrange(36)}" for _ in range(draw.randint(0, 9)))]
        pairs.append((" ".join(words), " ".join(reversed(words))))
    return pairs


TEXTS = make_texts(203)


def make_batches(source=None, *, seed=1, world_size=1, rank=0, accumulation=1, subword_sampler=None, **settings):
    usual = {"batch_tokens": 64, "max_source_length": 24, "max_target_length": 24, "streaming_window": 50}
    limits = BatchingSettings(**(usual | settings))
    return StreamedBatches(
        source if source is not None else Rows(TEXTS),
        PairEncoder(make_tokenizer(), limits),
        TranslationCollator(1, 2),
        limits,
        seed=seed,
        world_size=world_size,
        rank=rank,
        accumulation=accumulation,
        subword_sampler=subword_sampler,
    )


def rows_of(batch) -> list[tuple[int, ...]]:
    return [
        tuple(row[mask.bool()].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def epoch_of(batches: StreamedBatches, epoch: int = 0) -> list[tuple[list, Position]]:
    """Rows of each batch of an epoch, and the position behind it."""
    items = []
    for batch, behind in batches:
        if (behind.epoch, behind.window, behind.update) > (epoch + 1, 0, 0):
            return items
        if (behind.epoch, behind.window, behind.update) > (epoch, 0, 0):
            items.append((rows_of(batch), behind))
    raise AssertionError


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


EXPECTED = Counter(tuple(row) for row in make_tokenizer()([source for source, _ in TEXTS])["input_ids"])


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 2), (3, 2), (2, 5)])
@pytest.mark.parametrize("window", [20, 50, 140, 1000])
def test_every_row_comes_exactly_once_an_epoch_over_all_ranks_and_windows(world_size, accumulation, window):
    epochs = [
        epoch_of(make_batches(world_size=world_size, rank=rank, accumulation=accumulation, streaming_window=window))
        for rank in range(world_size)
    ]
    found = Counter(row for items in epochs for rows, _ in items for row in rows)
    assert found == EXPECTED and max(found.values()) == 1
    assert len({len(items) for items in epochs}) == 1 and len(epochs[0]) % accumulation == 0
    # What is saved is the same on all processes.
    assert all(len({repr(position) for _, position in step}) == 1 for step in zip(*epochs, strict=True))
    last = epochs[0][-1][1]
    assert (last.epochs, last.epoch_pairs) == (1, 203)
    assert (last.totals.pairs, last.totals.dropped) == (203, {"empty": 3})


def test_windows_hold_neighbours_and_the_last_is_never_small():
    numbers = {tuple(make_tokenizer()(source)["input_ids"]): n for n, (source, _) in enumerate(TEXTS)}
    windows = {}
    position = Position()
    for rows, behind in epoch_of(make_batches()):
        windows.setdefault(position.window, []).extend(numbers[row] for row in rows)
        position = behind
    assert {window: sorted(rows) for window, rows in windows.items()} == {
        0: list(range(50)),
        1: list(range(50, 100)),
        2: list(range(100, 150)),
        3: list(range(150, 203)),
    }
    assert windows[0] != sorted(windows[0])


def test_two_processes_get_the_updates_of_one_that_accumulates():
    alone = epoch_of(make_batches(accumulation=2))
    first, second = (epoch_of(make_batches(world_size=2, rank=rank)) for rank in range(2))
    assert [rows for rows, _ in alone] == [rows for pair in zip(first, second, strict=True) for rows, _ in pair]


def test_batches_keep_the_budget_and_pad_little():
    tokens = padded = 0
    for batch, behind in make_batches(Rows(make_texts(900)), batch_tokens=128, streaming_window=600):
        longest = max(batch["input_ids"].shape[1], batch["labels"].shape[1])
        assert len(batch["input_ids"]) * longest <= 128
        tokens += int(batch["attention_mask"].sum())
        padded += batch["attention_mask"].numel()
        if behind.epoch:
            break
    assert tokens / padded > 0.9


def test_the_order_differs_between_epochs_windows_and_seeds_and_is_the_same_each_time():
    def order(epoch=0, **changes):
        return [tuple(rows) for rows, _ in epoch_of(make_batches(**changes), epoch)]

    first = order()
    assert first == order()
    assert len({tuple(order(epoch)) for epoch in range(3)} | {tuple(order(seed=2))}) == 4
    # Windows of the same texts are cut alike, but not shuffled alike.
    twice = Rows(TEXTS[:50] * 2)
    items = epoch_of(make_batches(twice, streaming_window=50))
    half = len(items) // 2
    assert [rows for rows, _ in items[:half]] != [rows for rows, _ in items[half:]]


@pytest.mark.parametrize("division", [{}, {"world_size": 2, "rank": 1}, {"accumulation": 3}])
def test_it_goes_on_exactly_from_any_position_behind_an_update(division):
    accumulation = division.get("accumulation", 1)
    count = 90 // accumulation * accumulation
    items = list(itertools.islice(make_batches(**division), count))
    assert items[-1][1].epoch >= 1
    for stop in range(accumulation, count, 4 * accumulation):
        # A second stop soon after the first: what was restored is saved and restored again.
        restored = make_batches(**division)
        restored.position = Position.from_json(json.loads(json.dumps(dataclasses.asdict(items[stop - 1][1]))))
        (_, position), *_ = itertools.islice(restored, accumulation - 1, accumulation)
        again = make_batches(**division)
        again.position = Position.from_json(json.loads(json.dumps(dataclasses.asdict(position))))
        for expected, found in zip(items[stop + accumulation : stop + accumulation + 6], again, strict=False):
            assert same(expected[0], found[0])
            assert expected[1] == found[1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_moves_the_position_with_what_is_taken(num_workers):
    items = list(itertools.islice(make_batches(), 70))
    batches = make_batches()
    options = {"prefetch_factor": 3} if num_workers else {}
    state = torch.get_rng_state()
    loader = iter(StreamLoader(batches, device=torch.device("cpu"), num_workers=num_workers, **options))
    for batch, position in items[:60]:
        assert same(next(loader), batch) and batches.position == position
    assert torch.equal(torch.get_rng_state(), state)
    del loader
    on = iter(StreamLoader(batches, device=torch.device("cpu"), num_workers=num_workers, **options))
    assert all(same(next(on), batch) for batch, _ in items[60:])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_line_is_told_as_it_is(num_workers):
    loader = StreamLoader(
        make_batches(Rows(TEXTS, broken_at=150)), device=torch.device("cpu"), num_workers=num_workers
    )
    taken = 0
    with pytest.raises(DataError, match=r"^line 150 is broken$"):
        for batch in loader:
            taken += len(batch["input_ids"])
    assert taken == 100  # a window is given when half of the next is read


def test_long_pairs_are_dropped_and_counted_over_epochs_and_windows():
    items = epoch_of(make_batches(max_source_length=6, max_target_length=24), epoch=1)
    kept = [row for row in EXPECTED if len(row) <= 6]
    assert sorted(row for rows, _ in items for row in rows) == sorted(kept) and len(kept) < 150
    totals = items[-1][1].totals
    assert totals.pairs == 406
    assert totals.dropped == {"source_too_long": 2 * (203 - len(kept)), "empty": 6}


def test_pairs_too_few_for_an_update_are_carried_over():
    long = "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11"
    short = [pair for pair in TEXTS if len(pair[0].split()) < 8]
    # Three windows of twelve: one and then two rows that are short enough in the first two, all in the third.
    texts = [short[0], *[(long, long)] * 11, *short[1:3], *[(long, long)] * 10, *short[3:15]]
    division = {"accumulation": 4, "streaming_window": 12, "max_source_length": 9, "max_target_length": 9}
    items = epoch_of(make_batches(Rows(texts), **division))
    wanted = Counter(tuple(row) for row in make_tokenizer()([s for s, _ in short[:15]])["input_ids"])
    assert Counter(row for rows, _ in items for row in rows) == wanted
    # Two are left over at the end of the epoch: they go into the first window of the next.
    texts = [*short[:12], *[(long, long)] * 22, *short[12:14]]
    first = epoch_of(make_batches(Rows(texts), **division))
    second = epoch_of(make_batches(Rows(texts), **division), epoch=1)
    num_rows = [sum(len(rows) for rows, _ in items) for items in (first, second)]
    assert num_rows == [12, 14]
    assert second[-1][1].totals.dropped["source_too_long"] == 22


def test_bpe_dropout_goes_by_epoch_and_number_of_the_pair_alone():
    class Sampler:
        """Draws one number a side and writes it behind the text."""

        def sample_source_ids(self, text, generator, usual=None):
            return [*make_tokenizer()(text)["input_ids"], int(generator.integers(4, 40))]

        sample_target_ids = sample_source_ids

    def drawn(epoch, **changes):
        items = epoch_of(make_batches(subword_sampler=Sampler(), **changes), epoch)
        return {row[:-1]: row[-1] for rows, _ in items for row in rows}

    first = drawn(0)
    assert set(first) == set(EXPECTED) and len(set(first.values())) > 20
    assert drawn(0, accumulation=2, streaming_window=80) == first
    assert drawn(1) != first and drawn(0, seed=5) != first
    both = drawn(0, world_size=2, rank=0) | drawn(0, world_size=2, rank=1)
    assert both == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"accumulation": 2, "batch_tokens": 47},
            r"batching\.batch_tokens: given 47, but a stream in updates of 2 batches needs twice the longest pair, 48",
        ),
        ({"world_size": 2, "max_sentences": 1}, r"batching\.max_sentences: given 1, .* needs at least 2"),
        (
            {"world_size": 2, "accumulation": 13},
            r"streaming_window: given 50, but an update has 26 batches \(2 processes x 13 accumulation steps\); "
            r"allowed: 52",
        ),
    ],
)
def test_a_division_that_some_window_could_not_fill_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_batches(**changes)


def test_whatever_the_lengths_every_window_can_be_dealt():
    """The claim of `check_division`, at its bounds."""
    draw = random.Random(3)
    for _ in range(60):
        parts, longest = draw.randint(2, 9), draw.randint(3, 12)
        texts = [("w1 " * draw.choice([longest - 1, 1]), "w2") for _ in range(draw.randint(2 * parts, 6 * parts))]
        limits = {"batch_tokens": 2 * longest, "max_source_length": longest, "max_target_length": longest}
        most = draw.choice([None, 2, 3])
        batches = make_batches(
            Rows(texts), accumulation=parts, streaming_window=2 * parts, max_sentences=most, **limits
        )
        assert sum(len(rows) for rows, _ in epoch_of(batches)) == len(texts)


def test_a_stream_that_fills_no_update_is_refused_and_not_read_for_ever():
    with pytest.raises(DataError, match=r"3 pairs were dropped, and the 3 that are left .* cannot fill the 4 batches"):
        list(make_batches(Rows(TEXTS[:3]), accumulation=4))
    with pytest.raises(DataError, match=r"206 pairs were dropped, and the 0 that are left .* max_source_length=2"):
        list(make_batches(max_source_length=2))


@pytest.mark.parametrize("window", [0, 2])
def test_text_that_changed_before_the_place_is_told_and_later_text_may_change(window):
    items = list(itertools.islice(make_batches(), 60))
    stop = [(behind.window, behind.update) for _, behind in items].index((window, 3)) + 1
    expected, position = items[stop], items[stop - 1][1]
    read = 50 * (position.window + 1)

    def restored(texts):
        batches = make_batches(Rows(texts))
        batches.position = position
        return next(iter(batches))

    assert same(restored([*TEXTS[:read], *reversed(TEXTS[read:])])[0], expected[0])
    for texts in ([TEXTS[1], TEXTS[0], *TEXTS[2:]], [*TEXTS[: read - 1], *TEXTS[read:]], TEXTS[: read - 40]):
        with pytest.raises(DataError, match=r"what comes before the place where it stood has changed\. Bring the old"):
            restored(texts)


def test_the_fingerprint_tells_what_determines_the_batches():
    changes = [{}, {"seed": 2}, {"world_size": 2}, {"streaming_window": 60}, {"batch_tokens": 80}]
    assert len({make_batches(**change).fingerprint for change in changes}) == 5
    assert make_batches(world_size=2, rank=1).fingerprint == make_batches(accumulation=2).fingerprint
