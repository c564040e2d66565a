"""Near-duplicates: pairs of sentences that are almost another one, found by MinHash and locality-sensitive hashing
(Broder 1997; Indyk and Motwani 1998).

A record goes when one with a smaller id is at least as like it as the threshold, whatever becomes of that one. Where A
is like B and B like C, but A not like C, with ids in this order, B and C go. So the order of the records decides
nothing, no two records that meet are left, and of each chain the one with the smallest id stays; but the last of a
long chain may be rather unlike what stays of it.

Records with equal texts are one for the search. What meets in a band is compared shingle by shingle, so that only
pairs are dropped that are as alike as they are said to be; about one in a hundred pairs at the threshold never meets.
In a band where more than `MOST_COMPARED` texts meet each is compared with as many, those of the smallest ids.

`measure` keeps 8 bytes a band and the folded texts on disk, about 320 bytes a record of 12 words. `decide` holds about
80 bytes a record in memory, whatever the number of bands, which are sorted one after the other. Beyond one machine
(`decide_by`) the bands of all records are shuffled, MEETING_BYTES each; whoever compares reads the folded texts of the
candidates alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.cleaning.duplicates import (
    EQUAL,
    ID_COLUMNS,
    KEY_COLUMNS,
    MEETING_BYTES,
    DuplicateStep,
    InOrderOfIds,
    Measured,
    equal_keys,
    equal_met,
    first_of_equal,
    ids_of,
    meetings,
    pair_keys,
    verdicts,
)
from hf_nmt.cleaning.engine import KEY
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.shingles import (
    Shingles,
    Similarity,
    band_keys,
    bands_of,
    distinct,
    foldings,
    jaccard,
    shingles_of,
)
from hf_nmt.cleaning.step import SIDES, Outcome

MOST_COMPARED = 64
_PAIRS_AT_A_TIME = 2**14
_TEXTS = tuple(f"{side}{part}" for side in SIDES for part in ("", "_tag"))


class NearDuplicates(Similarity, DuplicateStep):
    """Drops records that are almost another one with a smaller id; the detail names it and how alike they are."""

    reason: ClassVar[str] = "near_duplicate"
    tells_similarity: ClassVar[bool] = True

    def measure(self, pairs: pa.Table) -> pa.Table:
        texts = foldings(pairs)
        keys = pair_keys(Outcome.changing(pairs, {side: texts[side] for side in SIDES}).pairs, SIDES, ())
        bands = band_keys(shingles_of(texts, self), self.threshold)
        columns = dict(zip((*ID_COLUMNS, *KEY_COLUMNS), (*ids_of(pairs).T, *keys.T), strict=True))
        for number, band in enumerate(bands):
            columns[f"band_{number}"] = band
        for name in _TEXTS:
            columns[name] = texts[name]
        return pa.table(columns)

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        records = InOrderOfIds(Measured.of(measured))
        of = first_of_equal(*(records.column(name) for name in KEY_COLUMNS))
        similarity = np.ones(len(of), np.float32)
        for later, earlier, alike in near_pairs(records, np.flatnonzero(of < 0), of, self):
            found, of[found], similarity[found] = _smallest_earlier(later, earlier, alike)
        goes = np.flatnonzero((of >= 0) & ~records.repeats)
        records.write(state, goes, of[goes], similarity[goes])

    @property
    def bytes_of_meetings(self) -> int:
        return MEETING_BYTES * (1 + bands_of(self.threshold)[0])

    def meetings_of(self, measured: Measured, task: tuple[int, Path]) -> pa.Table:
        equal = meetings(measured, *task)
        table, parts = read_table(task[1]), [equal]
        for number in range(bands_of(self.threshold)[0]):
            by = pa.array(np.full(len(equal), number, np.int16))
            parts.append(equal.set_column(0, KEY, table[f"band_{number}"]).set_column(1, "by", by))
        return pa.concat_tables(parts)

    def met(self, measured: Measured, rows: pa.Table) -> pa.Table:
        found = [equal_met(measured, rows.filter(pc.equal(rows["by"], EQUAL)))]
        for number in range(bands_of(self.threshold)[0]):
            of_band = rows.filter(pc.equal(rows["by"], number))
            members, _ = equal_keys(of_band[KEY].to_numpy())
            records = InOrderOfIds(measured, of_band.take(members))
            of = first_of_equal(*(records.column(name) for name in KEY_COLUMNS))
            places = np.flatnonzero(of < 0)
            for later, earlier, alike in _near_in_band(records, records.column(KEY), places, of, self):
                goes, repeated, similarity = _smallest_earlier(later, earlier, alike)
                found.append(verdicts(records, goes, repeated, number, similarity))
        return pa.concat_tables(found)


def _smallest_earlier(later: np.ndarray, earlier: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the pairs of each later record that with the smallest earlier one; those of one come by rising id."""
    found, first = np.unique(later, return_index=True)
    return found, earlier[first], alike[first]


def near_pairs(
    records: InOrderOfIds, places: np.ndarray, of: np.ndarray, settings: Similarity
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of records that are as alike as the threshold, some thousand at a time: the later and the earlier by id,
    and how alike they are; a pair may come more than once.

    Args:
        records: as `NearDuplicates.measure` saw them.
        places: those to be compared, in the order of ids.
        of: what each place repeats; only those that repeat nothing so far (-1) are the later of a pair. It may change
            between one part and the next.
        settings: what is compared.
    """
    for number in range(bands_of(settings.threshold)[0]):
        yield from _near_in_band(records, records.column(f"band_{number}"), places, of, settings)


def _near_in_band(
    records: InOrderOfIds, keys: np.ndarray, places: np.ndarray, of: np.ndarray, settings: Similarity
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`near_pairs` of those that meet in a band, by its keys of all records."""
    members, starts = equal_keys(keys[places])
    for later, earlier in _candidates(places[members], starts, of):
        alike = _similarity(records, later, earlier, settings)
        near = alike >= settings.threshold
        yield later[near], earlier[near], alike[near]


def _candidates(members: np.ndarray, starts: np.ndarray, of: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of records that meet in a band, some thousand at a time: the later and the earlier by id.

    Args:
        members: places of those that are not alone, group after group.
        starts: where in these the group of each starts.
        of: what each place repeats; only those that repeat nothing so far (-1) are the later of a pair.
    """
    counts = np.minimum(np.arange(len(members)) - starts, MOST_COMPARED)
    counts[of[members] >= 0] = 0
    members_at = np.flatnonzero(counts)
    ends = np.cumsum(counts[members_at])
    cuts = np.searchsorted(ends, np.arange(_PAIRS_AT_A_TIME, (ends[-1] if len(ends) else 0) + 1, _PAIRS_AT_A_TIME))
    for part in np.split(members_at, cuts):
        if len(part):
            number = counts[part]
            first = np.repeat(starts[part] - (np.cumsum(number) - number), number)
            yield np.repeat(members[part], number), members[first + np.arange(len(first))]


def _similarity(records: InOrderOfIds, later: np.ndarray, earlier: np.ndarray, settings: Similarity) -> np.ndarray:
    rows, at = np.unique(records.rows[np.concatenate([later, earlier])], return_inverse=True)
    shingles = _shingles_at(records, rows, settings)
    return jaccard(shingles, at[: len(later)], shingles, at[len(later) :])


def _shingles_at(records: InOrderOfIds, rows: np.ndarray, settings: Similarity) -> Shingles:
    """Shingles of records by their places among all, which rise."""
    parts = []
    measured = records.measured
    numbers, starts = np.unique(measured.tables_of(rows), return_index=True)
    for number, own in zip(numbers, np.split(rows, starts[1:]), strict=True):
        texts = read_table(measured.paths[number]).select(_TEXTS)
        parts.append(texts.take(own - measured.ends[number] + len(texts)))
    return distinct(shingles_of(pa.concat_tables(parts), settings))
