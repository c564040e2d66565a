"""Rows of several language pairs, domains or corpora: which row is of which, and how many an epoch draws from each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.batching.mixing import MixingSettings, MixingStage
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS

logger = logging.getLogger(__name__)

_ROWS_AT_A_TIME = 2**17
UNNAMED = "none"  # rows that name no group


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
    return weighted_rows(sum(counts), np.maximum(shares, np.finfo(np.float64).tiny).tolist())


def weighted_rows(total: int, weights: Sequence[float]) -> list[int]:
    """`total` rows shared out in proportion to weights, by largest remainders; at least one for a weight above 0."""
    given = np.asarray(weights, dtype=np.float64)
    wanted = total * given / given.sum()
    drawn = np.maximum(np.floor(wanted).astype(np.int64), given > 0)
    missing = total - int(drawn.sum())
    order = np.argsort(drawn - wanted, kind="stable")
    drawn[order[given[order] > 0][: max(missing, 0)]] += 1
    for _ in range(-missing):  # what the least ones were given is taken where it is missed least
        drawn[np.where(drawn > 1, drawn - wanted, -np.inf).argmax()] -= 1
    return drawn.tolist()


@dataclass(frozen=True)
class Stage:
    """Rows that an epoch draws from each group, until some place in the training.

    Attributes:
        drawn: of each group, in the mean over epochs.
        until_epoch, until_step: so many epochs or updates are done; None to the end.
    """

    drawn: list[int]
    until_epoch: int | None = None
    until_step: int | None = None


@dataclass(frozen=True)
class PairGroups:
    """Rows by language pair, domain or the like, and how often an epoch draws them.

    Attributes:
        names: of the groups, such as `de-en`.
        of_row: number of the group of each row, shape (N,), uint8 or uint16.
        counts: rows of each group, of which none is 0.
        drawn: rows that an epoch draws from each, in the mean over epochs.
        mixed: the stages of a mixture; empty where `drawn` holds throughout.
    """

    names: list[str]
    of_row: np.ndarray
    counts: list[int]
    drawn: list[int]
    mixed: tuple[Stage, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        return self.mixed or (Stage(self.drawn),)

    @classmethod
    def mixed_by(cls, dataset: datasets.Dataset, mixing: MixingSettings) -> PairGroups:
        """The groups of a dataset that has the column `mixing.by`.

        Raises:
            ConfigError: the weights of a stage do not name the groups that there are.
            DataError: there is just one group, or more than 65,536.
        """
        numbers: dict[str, int] = {}
        parts = [np.zeros(0, dtype=np.uint16)]
        column = dataset.select_columns([mixing.by]).with_format("arrow")
        for start in range(0, len(dataset), _ROWS_AT_A_TIME):
            values = column[start : start + _ROWS_AT_A_TIME][mixing.by].combine_chunks()
            encoded = pc.dictionary_encode(values, null_encoding="encode")
            encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
            of_value = [numbers.setdefault(name or UNNAMED, len(numbers)) for name in encoded.dictionary.to_pylist()]
            if len(numbers) > 2**16:
                raise DataError(f"data.mixing.by: there are more than 65,536 kinds of {mixing.by}.")
            parts.append(np.array(of_value, dtype=np.uint16)[encoded.indices.to_numpy()])
        of_row = np.concatenate(parts)
        names, counts = list(numbers), np.bincount(of_row, minlength=len(numbers)).tolist()
        if len(names) < 2:
            raise DataError(
                f"data.mixing.by={mixing.by}: all rows are of {names[0] if names else 'no group'}, so that there is "
                "nothing to mix. Leave data.mixing out."
            )
        stages = tuple(_stage(number, stage, names, counts) for number, stage in enumerate(mixing.stages))
        for number, (stage, given) in enumerate(zip(stages, mixing.stages, strict=True), 1):
            logger.info("stage %d of %d, %s:", number, len(stages), given.told)
            for name, count, drawn in zip(names, counts, stage.drawn, strict=True):
                logger.info(
                    "  %s: %s rows an epoch (%.3g%%) of %s, each %.3g times",
                    name, f"{drawn:,}", 100 * drawn / len(of_row), f"{count:,}", drawn / count,
                )  # fmt: skip
        return cls(names, of_row.astype(np.min_scalar_type(len(names) - 1)), counts, stages[0].drawn, stages)

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


def _stage(number: int, stage: MixingStage, names: Sequence[str], counts: Sequence[int]) -> Stage:
    ends = {"until_epoch": stage.until_epoch, "until_step": stage.until_step}
    if stage.weights is None:
        assert stage.temperature is not None
        return Stage(drawn_rows(counts, stage.temperature), **ends)
    known = ", ".join(f"{name} ({count:,} rows)" for name, count in zip(names, counts, strict=True))
    place = f"data.mixing.stages.{number}.weights"
    findings = [
        f"{place}.{name}: there are no such rows. There are: {known}." for name in stage.weights if name not in names
    ]
    findings += [
        f"{place}: {name} has no weight. Give one; {name}: 0 leaves it out."
        for name in names
        if name not in stage.weights
    ]
    if findings:
        raise ConfigError(findings)
    return Stage(weighted_rows(sum(counts), [stage.weights[name] for name in names]), **ends)


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
