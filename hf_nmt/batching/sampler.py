"""Batches of bounded size out of pairs of similar length, the same number in every epoch.

Pairs lie in length buckets: rectangles of the (source length, target length) plane, found once from the counts of
lengths. A bucket's pairs are shuffled in each epoch and dealt evenly to its updates; an update is sorted by length and
cut into one batch for each process and accumulation step. Hence

- an epoch has the same number of updates each time, known beforehand, and none of them is a tiny rest;
- every pair is used exactly once in an epoch, whatever the number of processes;
- an update holds the same pairs however it is divided: 2 processes x 1 step are 1 process x 2 steps, and 4 steps of
  1024 tokens are 1 step of 4096. Vaswani et al. (2017), 5.1, trained on such updates too: pairs of about one length,
  shared out to the devices;
- the processes of an update work on batches of nearly the same length.

Memory beside the lengths is 4 bytes a pair, and as much again while an epoch runs.

Pairs of several languages can be drawn unevenly (`PairGroups`). An epoch still has as many pairs as the data, but of
group g, with n rows, it has a in place of n. Each bucket has its share of them: a group's rows there, k of them, are
walked through permutation by permutation, and epoch e goes from place floor(e k a / n) to floor((e + 1) k a / n). So
after e epochs every row of the group was used floor(e a / n) or ceil(e a / n) times, all epochs have the same number
of updates, and the batches of an epoch depend on nothing that came before it. This takes 1 byte a pair more, and 4
while an epoch runs.

A mixture may change from stage to stage. Each stage has its own shares of the buckets, and all have the same number of
updates an epoch, those that need fewer taking smaller ones. A stage that ends inside an epoch gives it its first
updates, drawn at random among those of a whole epoch, and the next stage the rest in the same way; in this epoch alone
rows of a group may differ by more than one in how often they are used.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hf_nmt.batching.groups import PairGroups
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# Numbers of pairs in an update are rounded down to a multiple of this (the default of fairseq), which also makes one
# update of 4096 tokens hold exactly what four steps of 1024 do.
ROWS_MULTIPLE = 8
_ROWS_AT_A_TIME = 2**19


@dataclass(frozen=True)
class _Cells:
    """Pairs of an epoch counted by length: cell i holds `counts[s, i]` of `source[i]` and `target[i]` tokens in stage
    s, or so many in the mean over epochs. Shapes (C,) and (S, C)."""

    source: np.ndarray
    target: np.ndarray
    counts: np.ndarray

    def __getitem__(self, index: np.ndarray) -> _Cells:
        return _Cells(self.source[index], self.target[index], self.counts[:, index])


@dataclass(frozen=True)
class _Budget:
    """How many pairs fit in an update of `parts` batches.

    The number of pairs in a bucket may differ by up to `slack` between the epochs and their mean.
    """

    batch_tokens: int
    max_sentences: int | None
    parts: int
    slack: int = 0

    def pairs(self, longest: np.ndarray | int) -> np.ndarray:
        """Most pairs of an update whose longer sides have at most `longest` tokens; a multiple of `parts`."""
        multiple = math.lcm(ROWS_MULTIPLE, self.parts)
        rounded = self.parts * self.batch_tokens // longest // multiple * multiple
        most = np.where(rounded > 0, rounded, self.batch_tokens // longest * self.parts)
        return most if self.max_sentences is None else np.minimum(most, self.max_sentences * self.parts)

    def updates(self, pairs: np.ndarray | float, longest: np.ndarray | int) -> np.ndarray:
        """Updates that hold the pairs of a bucket."""
        return -(-pairs // self.pairs(longest))

    def cost(self, pairs: np.ndarray, source: np.ndarray | int, target: np.ndarray | int) -> np.ndarray:
        """Padded tokens, plus the budget of each update: half-empty updates are as bad as padding. Infinite where an
        update would have fewer pairs than parts. Summed over the stages, the first axis of `pairs`."""
        updates = self.updates(pairs + self.slack, np.maximum(source, target))
        cost = pairs * (source + target) + updates * self.parts * self.batch_tokens
        cost = np.where(pairs - self.slack >= updates * self.parts, cost, np.inf)
        return np.where(pairs == 0, 0, cost).sum(axis=0)


def _split(cells: _Cells, budget: _Budget, least_updates: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The cut of a bucket, between two lengths of one side, that saves the most; None where none saves anything."""
    best = float(budget.cost(cells.counts.sum(axis=1), cells.source.max(), cells.target.max()))
    found = None
    for along, across in ((cells.target, cells.source), (cells.source, cells.target)):
        order = np.argsort(along, kind="stable")
        cuts = np.flatnonzero(np.diff(along[order]))  # the last index of the lower half
        if not len(cuts):
            continue
        pairs = np.cumsum(cells.counts[:, order], axis=1)
        below = pairs[:, cuts], along[order][cuts], np.maximum.accumulate(across[order])[cuts]
        above = (
            pairs[:, -1:] - pairs[:, cuts],
            np.full(len(cuts), along.max()),
            np.maximum.accumulate(across[order][::-1])[::-1][cuts + 1],
        )
        costs = budget.cost(*below) + budget.cost(*above)
        for half in (below, above):
            costs[budget.updates(half[0], np.maximum(half[1], half[2])).max(axis=0) < least_updates] = np.inf
        if costs.min() < best:
            best, cut = float(costs.min()), cuts[costs.argmin()]
            found = order[: cut + 1], order[cut + 1 :]
    return found


def _buckets(cells: _Cells, budget: _Budget, least_updates: int) -> list[np.ndarray]:
    """Indices of the cells of each bucket: the plane is cut in two again and again while that saves something."""
    waiting, done = [np.arange(len(cells.source))], []
    while waiting:
        bucket = waiting.pop()
        halves = _split(cells[bucket], budget, least_updates)
        if halves is None:
            done.append(bucket)
        else:
            waiting += [bucket[half] for half in halves]
    return done


def _with_more(updates: list[int], fewest: list[int], total: int, parts: int) -> list[int]:
    """Updates by bucket that are `total` in all: more of them where updates are largest, and none has fewer pairs
    than parts."""
    updates = list(updates)
    largest = [
        (-pairs / number, bucket) for bucket, (pairs, number) in enumerate(zip(fewest, updates, strict=True)) if number
    ]
    heapq.heapify(largest)
    missing = total - sum(updates)
    while missing and largest:
        _, bucket = heapq.heappop(largest)
        if fewest[bucket] < (updates[bucket] + 1) * parts:
            continue
        updates[bucket] += 1
        missing -= 1
        heapq.heappush(largest, (-fewest[bucket] / updates[bucket], bucket))
    if missing:
        raise ConfigError(
            "data.mixing: a stage draws rows that are too few or too short to make as many updates of them as another "
            "stage needs. Use fewer accumulation steps or processes, or more even weights."
        )
    return updates


class TokenBatchSampler:
    """A `batch_sampler` for `DataLoader`: yields lists of row numbers, in an order that (seed, epoch) determines.

    Batch i of an epoch belongs to process i mod `world_size`, as accelerate's `BatchSamplerShard` deals them, and
    `accumulation` batches in a row of one process make an update. So a resumed epoch that skips k batches goes on
    exactly where it was.

    Args:
        source_lengths: tokens of each source, shape (N,), any integer array; a memory-mapped one stays so.
        target_lengths: tokens of each target, shape (N,).
        settings: the budget.
        seed: of the order.
        world_size: number of processes.
        accumulation: batches of a process in one update.
        epoch_in_index: yield use * N + row instead of row, for `SampledPairs`: this is the use-th time, from 0, that
            the row is used; the epoch, where each row is used once in each.
        groups: the language pairs, domains or corpora of the rows, where they are drawn unevenly.
        is_told: log the number of updates.

    Raises:
        ConfigError: a pair is longer than the budget, or pairs cannot be dealt so that no batch is empty.
        DataError: there are fewer pairs than batches in an update.
    """

    # accelerate asks a batch sampler for these two; None: batches differ in size.
    batch_size = None
    drop_last = False

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        settings: BatchingSettings,
        *,
        seed: int,
        world_size: int = 1,
        accumulation: int = 1,
        epoch_in_index: bool = False,
        groups: PairGroups | None = None,
        is_told: bool = True,
    ):
        self._source, self._target = np.asarray(source_lengths), np.asarray(target_lengths)
        assert self._source.shape == self._target.shape
        self.seed = seed
        self.epoch = 0
        self._parts = world_size * accumulation
        self._epoch_in_index = epoch_in_index
        if len(self._source) < self._parts:
            raise DataError(
                f"{len(self._source)} pairs cannot fill the {self._parts} batches of an update ({world_size} "
                f"processes x {accumulation} accumulation steps). Use fewer of them, or more data."
            )
        longest = int(max(self._source.max(), self._target.max()))
        if longest > settings.batch_tokens:
            raise ConfigError(
                f"batch_tokens: {settings.batch_tokens} tokens cannot hold the longest pair, of {longest} tokens. "
                "Raise it, or lower max_source_length and max_target_length."
            )
        self._groups = groups
        if groups is not None and all(stage.drawn == groups.counts for stage in groups.stages):
            self._groups = None
        slack = 0 if self._groups is None else len(self._groups.names)
        budget = _Budget(settings.batch_tokens, settings.max_sentences, self._parts, slack)
        keys, cells = self._count_cells()
        buckets = _buckets(cells, budget, settings.updates_per_bucket)
        bucket_of_cell = np.empty(len(keys), dtype=np.int32)
        longest_of_bucket = []
        for number, bucket in enumerate(buckets):
            bucket_of_cell[bucket] = number
            longest_of_bucket.append(int(max(cells[bucket].source.max(), cells[bucket].target.max())))
        self._order, self._counts = self._sort(keys, bucket_of_cell, len(buckets))
        needed, stages = [], self._pairs_of_epochs()
        for _, most in stages:
            needed.append([int(budget.updates(*bucket)) for bucket in zip(most, longest_of_bucket, strict=True)])
        # Updates of each stage in an epoch, by bucket: in all the same number.
        self._updates = [
            _with_more(updates, fewest, max(map(sum, needed)), self._parts)
            for updates, (fewest, _) in zip(needed, stages, strict=True)
        ]
        self._ends = self._stage_ends()
        for pairs, updates in (
            bucket
            for of_stage, (fewest, _) in zip(self._updates, stages, strict=True)
            for bucket in zip(fewest, of_stage, strict=True)
        ):
            if pairs < updates * self._parts:
                raise ConfigError(
                    f"batch_tokens: batches of {settings.batch_tokens} tokens"
                    + (f" and {settings.max_sentences} sentences" if settings.max_sentences else "")
                    + f" hold a single long pair, and {pairs} such pairs cannot be dealt to updates of {self._parts} "
                    "batches so that none is empty. Raise the limit, or use fewer accumulation steps."
                )
        if is_told:
            self._log()

    def _keys(self) -> Iterator[tuple[int, np.ndarray]]:
        """First row and one number for each (target, source) length, window by window."""
        base = int(self._source.max()) + 1
        for start in range(0, len(self._source), _ROWS_AT_A_TIME):
            window = slice(start, start + _ROWS_AT_A_TIME)
            yield start, self._target[window].astype(np.int64) * base + self._source[window]

    def _count_cells(self) -> tuple[np.ndarray, _Cells]:
        keys = np.unique(np.concatenate([np.unique(window) for _, window in self._keys()]))
        stages = 1 if self._groups is None else len(self._groups.stages)
        counts = np.zeros((stages, len(keys)), dtype=np.int64 if self._groups is None else np.float64)
        for first_row, window in self._keys():
            cells = np.searchsorted(keys, window)
            for stage in range(stages):
                rates = None
                if self._groups is not None:
                    rates = self._rates(stage)[self._groups.of_row[first_row : first_row + len(window)]]
                counts[stage] += np.bincount(cells, weights=rates, minlength=len(keys))
        target, source = np.divmod(keys, int(self._source.max()) + 1)
        return keys, _Cells(source, target, counts)

    def _rates(self, stage: int) -> np.ndarray:
        """How often an epoch draws a row of each group, in the mean. Shape (G,)."""
        assert self._groups is not None
        return np.array(self._groups.stages[stage].drawn) / np.array(self._groups.counts)

    def _sort(self, keys: np.ndarray, bucket_of_cell: np.ndarray, num_buckets: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers by bucket and group, ascending inside each, by a counting sort in windows of rows; and how many
        rows of each group the buckets hold, shape (buckets, G)."""
        num_groups = 1 if self._groups is None else len(self._groups.names)

        def places() -> Iterator[tuple[int, np.ndarray]]:
            for first_row, window in self._keys():
                buckets = bucket_of_cell[np.searchsorted(keys, window)].astype(np.int64)
                if self._groups is not None:
                    buckets = buckets * num_groups + self._groups.of_row[first_row : first_row + len(window)]
                yield first_row, buckets

        counts = np.zeros(num_buckets * num_groups, dtype=np.int64)
        for _, found in places():
            counts += np.bincount(found, minlength=len(counts))
        free = np.cumsum(counts) - counts
        order = np.empty(len(self._source), dtype=np.int32)
        for first_row, found in places():
            here = np.bincount(found, minlength=len(free))
            local = np.argsort(found, kind="stable")
            order[np.repeat(free - (np.cumsum(here) - here), here) + np.arange(len(local))] = first_row + local
            free += here
        return order, counts.reshape(num_buckets, num_groups)

    def _walked(self, steps: int, stage: int | None = None) -> np.ndarray:
        """How many rows of each bucket and group the updates before step `steps` drew, with those of a whole epoch of
        `stage` after them; shape (buckets, G)."""
        epoch = sum(self._updates[0])
        if self._groups is None:
            return (steps // epoch + (stage is not None)) * self._counts
        drawn, start = np.zeros(len(self._groups.names), dtype=object), 0
        for number, (one, end) in enumerate(zip(self._groups.stages, self._ends, strict=True)):
            done = max(0, min(steps, steps if end is None else end) - start) + epoch * (number == stage)
            drawn += done * np.array(one.drawn, dtype=object)
            start = steps if end is None else end
        counts = np.array(self._groups.counts, dtype=object)
        return (drawn * self._counts // (counts * epoch)).astype(np.int64)  # as integers of Python, which are exact

    def _pairs_of_epochs(self) -> list[tuple[list[int], list[int]]]:
        """For each stage the least and most pairs that an epoch can have in each bucket."""
        if self._groups is None:
            pairs = self._counts[:, 0].tolist()
            return [(pairs, pairs)]
        counts, found = np.array(self._groups.counts, dtype=object), []
        for stage in self._groups.stages:
            drawn = np.array(stage.drawn, dtype=object)
            least, most = drawn * self._counts // counts, -(-drawn * self._counts // counts)
            found.append((least.sum(axis=1).tolist(), most.sum(axis=1).tolist()))
        return found

    def _stage_ends(self) -> list[int | None]:
        """The step at which each stage ends; None for the last."""
        ends: list[int | None] = []
        for stage in () if self._groups is None else self._groups.stages:
            end = stage.until_step if stage.until_epoch is None else stage.until_epoch * sum(self._updates[0])
            if end is not None and ends and end <= (ends[-1] or 0):
                raise ConfigError(
                    f"data.mixing.stages.{len(ends)}: it would end at step {end:,}, and the stage before ends at step "
                    f"{ends[-1]:,}; an epoch has {sum(self._updates[0]):,} steps. Let it end later."
                )
            ends.append(end)
        return ends or [None]

    def check_length(self, steps: int) -> None:
        """
        Raises:
            ConfigError: a stage would not begin in a training of so many updates.
        """
        for number, end in enumerate(self._ends):
            if end is not None and end >= steps:
                raise ConfigError(
                    f"data.mixing.stages.{number + 1}: it would begin at step {end:,}, and training ends at step "
                    f"{steps:,}. Leave it out, let the stage before end sooner, or train longer."
                )

    def stages_of(self, epoch: int) -> list[tuple[int, int, int]]:
        """The stages of an epoch, from 0, each with the first of its updates and the one after the last."""
        size, found, begin = sum(self._updates[0]), [], 0
        for stage, end in enumerate(self._ends):
            first, last = max(begin, epoch * size), (epoch + 1) * size if end is None else min(end, (epoch + 1) * size)
            if first < last:
                found.append((stage, first - epoch * size, last - epoch * size))
            begin = last if end is None else end
        return found

    def drawn_in(self, epoch: int, updates: int) -> dict[str, int]:
        """How many rows of each group the first updates of an epoch have."""
        assert self._groups is not None
        counts = np.zeros(len(self._groups.names), dtype=np.int64)
        for batch in itertools.islice(self._batches(epoch), updates * self._parts):
            rows = np.array(batch) % len(self._source)
            counts += np.bincount(self._groups.of_row[rows], minlength=len(counts))
        return dict(zip(self._groups.names, counts.tolist(), strict=True))

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return sum(self._updates[0])

    @property
    def mixture(self) -> PairGroups | None:
        """The groups of a mixture; None where there is none."""
        return self._groups if self._groups is not None and self._groups.mixed else None

    def _log(self) -> None:
        updates = sum(self._updates[0])
        rates = 1 if self._groups is None else self._rates(0)[self._groups.of_row]
        logger.info(
            "%s pairs in %s length buckets: %s updates an epoch, on average of %.0f pairs and %.0f target tokens",
            f"{len(self._order):,}",
            f"{len(self._updates[0]):,}",
            f"{updates:,}",
            len(self._order) / updates,
            (self._target * rates).sum(dtype=np.float64) / updates,
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what determines the batches of every epoch: lengths, budget, seed, division, groups."""
        digest = hashlib.sha256(repr((self.seed, self._parts)).encode())
        ends = np.cumsum(self._counts.sum(axis=1))
        bounds = [0]
        pairs_of_buckets = self._counts.sum(axis=1).tolist()
        for pairs, end, updates in zip(pairs_of_buckets, ends.tolist(), self._updates[0], strict=True):
            bounds += [end - pairs + pairs * update // updates for update in range(1, updates + 1)]
        for array in (bounds, [0, *ends.tolist()]):
            digest.update(np.asarray(array, dtype=np.int64).tobytes())
        for _, window in self._keys():
            digest.update(window.tobytes())
        if self._groups is not None:
            digest.update(repr((self._groups.counts, self._groups.drawn)).encode())
            if self._groups.mixed:
                digest.update(repr((self._groups.names, self._groups.mixed)).encode())
            digest.update(np.ascontiguousarray(self._groups.of_row).tobytes())
        return digest.hexdigest()[:16]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of an epoch over all processes: updates * world_size * accumulation, the same for every epoch."""
        return sum(self._updates[0]) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(self.epoch)

    def _batches(self, epoch: int) -> Iterator[list[int]]:
        for stage, first, last in self.stages_of(epoch):
            yield from self._updates_of(epoch, stage, first, last - first)

    def _updates_of(self, epoch: int, stage: int, first: int, count: int) -> Iterator[list[int]]:
        """Batches of `count` updates of a whole epoch of a stage, the first of them update `first` of this epoch."""
        generator = np.random.default_rng((self.seed, epoch, first) if first else (self.seed, epoch))
        order, sizes = self._drawn(epoch, stage, first)
        bounds = [0]
        for pairs, updates in zip(sizes, self._updates[stage], strict=True):
            start = bounds[-1]
            generator.shuffle(order[start : start + pairs])
            bounds += [start + pairs * update // updates for update in range(1, updates + 1)]
        offset = epoch * len(self._source) if self._epoch_in_index and self._groups is None else 0
        for update in generator.permutation(len(bounds) - 1)[:count]:
            indices = order[bounds[update] : bounds[update + 1]]
            rows = indices % len(self._source)
            indices = indices[np.lexsort((self._source[rows], self._target[rows]))]
            for part in np.array_split(indices, self._parts):
                yield (part + offset if offset else part).tolist()

    def _drawn(self, epoch: int, stage: int, update: int) -> tuple[np.ndarray, list[int]]:
        """Rows of an epoch of a stage that begins at an update of this epoch, by bucket, and how many each bucket has.
        Where groups are drawn unevenly and `epoch_in_index` is set, they are indices that hold the use of each row
        already."""
        if self._groups is None:
            return self._order.copy(), self._counts[:, 0].tolist()
        steps = epoch * sum(self._updates[0]) + update
        before, after = self._walked(steps), self._walked(steps, stage)
        sizes = (after - before).sum(axis=1).tolist()
        order = np.empty(sum(sizes), dtype=np.int64 if self._epoch_in_index else np.int32)
        first = filled = 0  # of a group in a bucket; of the epoch
        for (bucket, group), count in np.ndenumerate(self._counts):
            place, end = int(before[bucket, group]), int(after[bucket, group])
            while place < end:
                cycle, start = divmod(place, int(count))
                taken = min(int(count) - start, end - place)
                rows = self._order[first : first + count].copy()
                np.random.default_rng((self.seed, bucket, group, cycle)).shuffle(rows)
                order[filled : filled + taken] = rows[start : start + taken]
                if self._epoch_in_index:
                    order[filled : filled + taken] += cycle * len(self._source)
                place, filled = place + taken, filled + taken
            first += count
        return order, sizes
