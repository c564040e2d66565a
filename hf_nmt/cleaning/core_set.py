"""A core set: so many records that stand for the whole corpus, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from hf_nmt.cleaning.duplicates import ID_COLUMNS, DuplicateStep, InOrderOfIds, Measured, ids_of
from hf_nmt.cleaning.step import SIDES, Outcome


class CoreSet(DuplicateStep):
    """Keeps so many records and drops the others, with the same shares of domains and of short and long pairs as in
    all. Which of a stratum stay is drawn by a keyed hash of their ids; records that are equal in every field count
    once."""

    reason: ClassVar[str] = "not_chosen"

    size: int = Field(
        10_000, ge=1, description="records to keep; all where there are no more. Ten thousand train in minutes"
    )
    by: list[Literal["domain", "length"]] = Field(
        ["domain", "length"], description="what has the same shares as in the whole corpus; [] draws from all alike"
    )
    length_bins: int = Field(
        5, ge=1, le=100, description="bins of length, source and target in characters, as equal in size as may be"
    )
    seed: int = Field(0, ge=0, description="another number draws other records")

    def measure(self, pairs: pa.Table) -> pa.Table:
        ids = ids_of(pairs)
        draws = [xxhash.xxh3_64_intdigest(one.tobytes(), seed=self.seed) for one in ids.astype(">u8")]
        lengths = pc.add(*(pc.utf8_length(pairs[side]) for side in SIDES)).to_numpy()
        domains = pc.fill_null(pairs["domain"].combine_chunks(), "").dictionary_encode()
        # By its own key, as the places in the dictionaries of two tables are not the same.
        keys = [xxhash.xxh3_64_intdigest(name.encode()) for name in domains.dictionary.to_pylist()]
        columns = dict(zip(ID_COLUMNS, ids.T, strict=True))
        return pa.table(
            {
                **columns,
                "draw": np.array(draws, np.uint64),
                "length": lengths.astype(np.uint64),
                "domain": np.array(keys, np.uint64)[domains.indices.to_numpy()],
            }
        )

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        records = InOrderOfIds(Measured.of(measured))
        places = np.flatnonzero(~records.repeats)
        strata = self._strata(records, places)
        # Within a stratum by the draw; the places rise with the ids, which settles ties.
        order = np.lexsort((places, records.column("draw")[places], strata))
        counts = np.bincount(strata)
        starts = np.cumsum(counts) - counts
        rank = np.empty(len(places), np.int64)
        rank[order] = np.arange(len(places)) - np.repeat(starts, counts)
        chosen = rank < shares(counts, self.size)[strata]
        goes = places[~chosen]
        records.write(state, goes, goes)

    def _strata(self, records: InOrderOfIds, places: np.ndarray) -> np.ndarray:
        """The number of each record's stratum: domains in the order of their keys, in each the shorter first."""
        parts = [np.zeros(len(places), np.int64)]
        if "domain" in self.by:
            parts.append(np.unique(records.column("domain")[places], return_inverse=True)[1])
        if "length" in self.by:
            lengths = records.column("length")[places]
            parts.append(np.searchsorted(borders(lengths, self.length_bins), lengths, side="right"))
        return np.unique(np.stack(parts), axis=1, return_inverse=True)[1].reshape(-1)

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        outcome = super().apply(pairs, state)
        return Outcome(outcome.pairs, outcome.reasons, pa.nulls(len(pairs), pa.string()))


def borders(lengths: np.ndarray, bins: int) -> np.ndarray:
    """Lengths at which the second and further bins start: the quantiles 1/bins, 2/bins, ... of all, each once."""
    ordered = np.sort(lengths)
    return np.unique(ordered[np.arange(1, bins) * len(ordered) // bins]) if len(ordered) else ordered


def shares(counts: np.ndarray, total: int) -> np.ndarray:
    """How many of each stratum, in all `total`: its share, rounded by largest remainders, of equal ones the first.

    Args:
        counts: size of each stratum.
        total: to be chosen; all where there are no more.
    """
    whole = int(counts.sum())
    if total >= whole:
        return counts
    exact = counts.astype(np.int64) * total
    found = exact // whole
    order = np.argsort(-(exact % whole), kind="stable")
    found[order[: total - int(found.sum())]] += 1
    return found
