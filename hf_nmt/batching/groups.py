"""Rows of several language pairs: which row is of which pair, and how many an epoch draws from each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.errors import DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS

logger = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 2**17


def language_pairs(
    dataset: datasets.Dataset, usual: tuple[str | None, str | None] = (None, None)
) -> dict[tuple[str | None, str | None], int]:
    """The language pairs of a dataset, in the order of their first rows, and how many rows each has.

    Args:
        dataset: with `LANGUAGE_COLUMNS`, or with one or none of them.
        usual: languages of rows that name none.
    """
    numbered, counts = _Numbered(usual), np.zeros(0, dtype=np.int64)
    for numbers in numbered.windows(dataset):
        found = np.bincount(numbers)
        counts = np.pad(counts, (0, max(0, len(found) - len(counts))))
        counts[: len(found)] += found
    return dict(zip(numbered.pairs, counts.tolist(), strict=True))


def drawn_rows(counts: Sequence[int], temperature: float) -> list[int]:
    """Rows that an epoch draws from each group, in all as many as there are rows.

    The probability of group i, with n_i of the N rows, is proportional to (n_i / N)^(1/T) (Arivazhagan et al. 2019,
    section 4.2): T = 1 draws the data as they are, infinity equally many of each group. N times that is rounded to
    whole rows by largest remainders, but every group gets one at least.
    """
    shares = (np.asarray(counts, dtype=np.float64) / max(counts)) ** (1 / temperature)
    wanted = sum(counts) * shares / shares.sum()
    drawn = np.maximum(np.floor(wanted).astype(np.int64), 1)
    missing = sum(counts) - int(drawn.sum())
    # Fewer than nothing is missing where tiny groups got their one row: it comes off the largest.
    drawn[np.argsort(drawn - wanted, kind="stable")[: max(missing, 0)]] += 1
    drawn[drawn.argmax()] += min(missing, 0)
    return drawn.tolist()


@dataclass(frozen=True)
class PairGroups:
    """Rows by language pair, and how often an epoch draws them.

    Attributes:
        names: of the pairs, such as `de-en`.
        of_row: number of the pair of each row, shape (N,), uint8 or uint16.
        counts: rows of each pair, of which none is 0.
        drawn: rows that an epoch draws from each, in the mean over epochs.
    """

    names: list[str]
    of_row: np.ndarray
    counts: list[int]
    drawn: list[int]

    @classmethod
    def of(
        cls,
        dataset: datasets.Dataset,
        temperature: float,
        *,
        usual: tuple[str | None, str | None] = (None, None),
    ) -> PairGroups:
        """The pairs of a dataset, drawn as `drawn_rows` tells for this temperature.

        Raises:
            DataError: there is just one pair, or there are more than 65,536.
        """
        numbered = _Numbered(usual)
        of_row = np.concatenate([*numbered.windows(dataset), np.zeros(0, dtype=np.uint16)])
        counts = np.bincount(of_row, minlength=len(numbered.pairs)).tolist()
        if len(counts) < 2:
            raise DataError(
                f"sampling_temperature={temperature} would change nothing: all pairs are "
                f"{' to '.join(map(str, numbered.pairs[0]))}. Leave it out."
            )
        names = [f"{source}-{target}" for source, target in numbered.pairs]
        groups = cls(names, of_row.astype(np.min_scalar_type(len(names) - 1)), counts, drawn_rows(counts, temperature))
        for name, count, drawn in zip(groups.names, groups.counts, groups.drawn, strict=True):
            logger.info(
                "%s: %s of %s pairs an epoch, each %.3g times", name, f"{drawn:,}", f"{count:,}", drawn / count
            )
        return groups


class _Numbered:
    """Language pairs, numbered as they are met."""

    def __init__(self, usual: tuple[str | None, str | None]):
        self.pairs: list[tuple[str | None, str | None]] = []
        self._usual = usual
        self._numbers: dict[int, int] = {}
        self._codes: dict[str | None, int] = {}

    def windows(self, dataset: datasets.Dataset) -> Iterator[np.ndarray]:
        """The number of the pair of each row, window by window."""
        named = [name for name in LANGUAGE_COLUMNS if name in dataset.column_names]
        tables = dataset.select_columns(named).with_format("arrow") if named else None
        for start in range(0, len(dataset), _ROWS_AT_A_TIME):
            rows = min(_ROWS_AT_A_TIME, len(dataset) - start)
            table = tables[start : start + rows] if tables is not None else None
            source, target = (
                self._side(table[name] if table is not None and name in named else None, usual, rows)
                for name, usual in zip(LANGUAGE_COLUMNS, self._usual, strict=True)
            )
            unique, first, inverse = np.unique(source * 2**16 + target, return_index=True, return_inverse=True)
            spellings = list(self._codes)
            for place in np.argsort(first):
                if (key := int(unique[place])) not in self._numbers:
                    self._numbers[key] = len(self.pairs)
                    self.pairs.append((spellings[key // 2**16], spellings[key % 2**16]))
            if len(self.pairs) > 2**16:
                raise DataError("There are more than 65,536 pairs of languages; are the language columns languages?")
            yield np.array([self._numbers[int(key)] for key in unique], dtype=np.uint16)[inverse]

    def _side(self, column: pa.ChunkedArray | None, usual: str | None, rows: int) -> np.ndarray:
        """Numbers of the languages of one side, shape (rows,)."""
        if column is None:
            return np.full(rows, self._number(usual), dtype=np.int64)
        array = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        numbers = [self._number(code or usual) for code in array.dictionary.to_pylist()]
        return np.array(numbers, dtype=np.int64)[array.indices.to_numpy()]

    def _number(self, code: str | None) -> int:
        return self._codes.setdefault(code, len(self._codes))
