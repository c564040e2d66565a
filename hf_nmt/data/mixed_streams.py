"""Streams of several language pairs as one: each row names its languages, and the pairs are mixed all the way."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_nmt.config import fingerprint
from hf_nmt.data.mixtures import joined, refuse_own_languages, told_of, with_languages
from hf_nmt.data.streams import PairStream, Stream
from hf_nmt.data.tables import LanguageProblem
from hf_nmt.errors import DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS

logger = logging.getLogger(__name__)

_TEXTS = ("source", "target")
_ROWS_AT_A_TIME = 1000


class MixedStream(Stream):
    """Rows of several streams, spread evenly over an epoch: row j of the n that it takes from one stands at
    (j + 1/2) / n of it. So every part of an epoch has all streams in their shares, and nothing is random.

    Args:
        parts: name -> source and target language, and the rows.
        counts: of the rows of each, about.
        drawn: rows that an epoch takes from each, going on where the last one stopped and beginning anew where a
            stream ends; None takes every row once an epoch, whatever `counts` are.
    """

    def __init__(
        self,
        parts: Mapping[str, tuple[str, str, PairStream]],
        counts: Sequence[int],
        drawn: Sequence[int] | None = None,
    ):
        self._parts = dict(parts)
        self._counts, self._drawn = list(counts), None if drawn is None else list(drawn)
        # The streams as an epoch left them, and where that was: what follows need not read them up to there again.
        self._left: tuple[Any, list[_Part]] | None = None
        self._is_told = False  # that the shares are not those of the counts

    def tables(self, start: Any = None) -> _MixedReading:
        shares = {"drawn": self._drawn, "counts": self._counts}
        if start is None:
            start = shares | {"places": [[0, ""] for _ in self._parts]}
        elif shares != {name: start[name] for name in shares} and not self._is_told:
            self._is_told = True
            logger.warning(
                "The corpora have other numbers of rows now; the run goes on with the shares it began with."
            )
        return _MixedReading(self, start)

    def check_languages(self, problem_of: LanguageProblem) -> None:
        """Nothing to do: the rows are in the languages of their part, and name none of their own."""

    @property
    def content_hash(self) -> str:
        return fingerprint({name: [*languages, part.content_hash] for name, (*languages, part) in self._parts.items()})

    def head(self, count: int, *, cache_dir: Path | str | None = None) -> datasets.Dataset:
        """Of each part a share as large as its own, and one row at least; one part after another."""
        heads = []
        for (name, (source, target, part)), rows in zip(self._parts.items(), self._counts, strict=True):
            share = max(1, count * rows // sum(self._counts))
            with told_of(name, "train"):
                heads.append(
                    with_languages(part.head(share, cache_dir=cache_dir), source, target, cache_dir=cache_dir)
                )
        return joined(heads)

    def opened(self, start: Any) -> list[_Part]:
        """The streams at the start of an epoch."""
        left, self._left = self._left, None
        if left is not None and left[0] == start:
            return left[1]
        is_endless = start["drawn"] is not None
        return [
            _Part(name, *part, row=row, digest=digest, is_endless=is_endless)
            for (name, part), (row, digest) in zip(self._parts.items(), start["places"], strict=True)
        ]

    def leave(self, end: Any, parts: list[_Part]) -> None:
        self._left = end, parts


class _Part:
    """One of the streams, read on.

    Attributes:
        row: of the reading that it is in, the next one.
    """

    row: int
    _read: int  # rows of the batches so far
    _batch: pa.Table  # the last of them
    _held: pa.Table  # what is left of it
    _before: str  # hash of those before it

    def __init__(
        self, name: str, source: str, target: str, stream: PairStream, *, row: int, digest: str, is_endless: bool
    ):
        self._name, self._stream, self._is_endless = name, stream, is_endless
        self._languages = source, target
        self._dropped_before = Counter[str]()  # in the readings before this one
        self._open()
        while self._read < row and self._pull():
            pass
        self.row = row
        if self._read < row or self.digest != digest:
            raise DataError(
                f"The text to train on is not the one that the training began with: the first {row:,} rows of "
                f"data.pairs.{name}.train have changed. Bring the old text back; what comes later may change."
            )
        self._held = self._held[len(self._held) - (self._read - row) :]

    def _open(self) -> None:
        self._reading = self._stream.tables()
        self._batches = iter(self._reading)
        self._read, self.row, self._before = 0, 0, ""
        self._batch = self._held = pa.table({name: pa.array([], pa.string()) for name in _TEXTS})

    def _pull(self) -> bool:
        """Read the next batch; False at the end."""
        with told_of(self._name, "train"):
            if (batch := next(self._batches, None)) is None:
                return False
            refuse_own_languages(batch.schema.names)
        self._before = _hash_rows(self._batch, self._before)
        self._batch = self._held = pa.Table.from_batches([batch]).select(_TEXTS).replace_schema_metadata(None)
        self._read += len(batch)
        return True

    @property
    def digest(self) -> str:
        """Hash of the rows before `row` of the reading that it is in; what follows them may change."""
        return _hash_rows(self._batch[: len(self._batch) - (self._read - self.row)], self._before)

    @property
    def dropped(self) -> Counter[str]:
        """Rows that were left out so far, by reason."""
        return self._dropped_before + self._reading.dropped

    def take(self, count: int) -> pa.Table:
        """The next rows with their languages: so many, or fewer at the end."""
        tables = [self._held[:0]]
        while count:
            if not len(self._held) and not self._pull():
                if not self._is_endless:
                    break
                self._dropped_before += self._reading.dropped
                self._open()
                continue
            tables.append(self._held[:count])
            self._held = self._held[count:]
            self.row += len(tables[-1])
            count -= len(tables[-1])
        rows = pa.concat_tables(tables)
        for name, code in zip(LANGUAGE_COLUMNS, self._languages, strict=True):
            rows = rows.append_column(name, pa.array([code] * len(rows), pa.string()))
        return rows


class _MixedReading:
    """An epoch of a `MixedStream`; see `streams.Reading`."""

    def __init__(self, stream: MixedStream, start: Any):
        self._stream, self.start = stream, start
        self.end: Any = None
        self._parts: list[_Part] = []
        self._before: list[Counter[str]] = []

    @property
    def dropped(self) -> Counter[str]:
        total = Counter[str]()
        for part, before in zip(self._parts, self._before, strict=True):
            total += part.dropped - before
        return total

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self._parts = parts = self._stream.opened(self.start)
        self._before = [part.dropped for part in parts]
        drawn = self.start["drawn"]
        wanted = np.array(self.start["counts"] if drawn is None else drawn)
        taken = np.zeros_like(wanted)
        blocks = -(-int(wanted.sum()) // _ROWS_AT_A_TIME)
        for block in range(1, blocks + 1):
            # Rows j with (j + 1/2) / wanted < block / blocks.
            upto = np.maximum(-((blocks - 2 * wanted * block) // (2 * blocks)), 0)
            yield from _mixed(
                [part.take(int(end - start)) for part, start, end in zip(parts, taken, upto, strict=True)]
            )
            taken = upto
        if drawn is None:
            while rest := [*_mixed([part.take(_ROWS_AT_A_TIME) for part in parts])]:  # more than were counted
                yield from rest
            self.end = self.start
        else:
            self.end = self.start | {"places": [[part.row, part.digest] for part in parts]}
            self._stream.leave(self.end, parts)


def _hash_rows(table: pa.Table, before: str) -> str:
    """Hash of some rows, and of a hash of what came before them."""
    if not len(table):
        return before
    digest = hashlib.sha256(before.encode())
    for name in table.column_names:
        texts = pa.array(table[name].to_pylist(), pa.string())  # a part of a batch has the bytes of all of it
        digest.update(pa.record_batch([texts], [name]).serialize())
    return digest.hexdigest()


def _mixed(tables: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    """One batch of all rows, each table spread evenly over it."""
    places = np.concatenate([(np.arange(len(table)) + 0.5) / max(len(table), 1) for table in tables])
    if len(places):
        rows = pa.concat_tables(tables).take(pa.array(np.argsort(places, kind="stable")))
        yield from rows.combine_chunks().to_batches()
