"""Batches out of a stream of pairs, window by window, without end.

A window of pairs is read, encoded, and cut into batches as a whole corpus is (`TokenBatchSampler`): buckets of like
length, updates that hold the same pairs however many processes and accumulation steps share them, every pair once. The
stream is read again from its start when it ends. Window k of an epoch holds the pairs from k * `streaming_window` on,
and the last one up to half a window more or less, so that a training goes on exactly where it was from (epoch, window,
update) and the pairs carried over, whatever had been read ahead. What was read in the epoch before is read again then,
without encoding it, and compared by a hash.

Every process reads and encodes the whole stream and takes its own batches: their cut depends on the length in tokens
of every pair of the window.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, IterableDataset

from hf_nmt.batching.collator import TranslationCollator
from hf_nmt.batching.encoding import hash_tables
from hf_nmt.batching.pair_encoder import LANGUAGE_COLUMNS, PairEncoder
from hf_nmt.batching.rows import SubwordSampler, sample_pair
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.config import fingerprint
from hf_nmt.errors import ConfigError, DataError, NmtError

_PAIRS_AT_A_TIME = 1000


class Reading(Protocol):
    """Rows of one epoch, see `data.streams.Reading`."""

    @property
    def dropped(self) -> Counter[str]: ...

    @property
    def start(self) -> Any: ...

    @property
    def end(self) -> Any: ...

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...


class Source(Protocol):
    """Rows that can be read again and again, such as `data.streams.PairStream`."""

    def tables(self, start: Any = None) -> Reading: ...


@dataclasses.dataclass(frozen=True)
class Totals:
    """Pairs of all epochs so far: given to the encoder, left out, and cut, by reason."""

    pairs: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    changed: dict[str, int] = dataclasses.field(default_factory=dict)

    def plus(self, pairs: int, dropped: Mapping[str, int], changed: Mapping[str, int]) -> Totals:
        return Totals(
            self.pairs + pairs,
            dict(+(Counter(self.dropped) + Counter(dropped))),
            dict(+(Counter(self.changed) + Counter(changed))),
        )


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a training stands in its stream; the same on all processes. All of it goes into JSON.

    Attributes:
        epoch: readings of the stream that were finished.
        source: where the stream began this epoch, in its own terms; None at first.
        window: of this epoch, from 0.
        update: how many updates of the window were given.
        digest: hash of the texts of this epoch before the window, and of the window once an update of it was given.
        carried: ids of the pairs that windows before left over, each [input_ids, labels].
        epoch_pairs: pairs of a whole reading; None during the first.
        before: totals at the start of the window.
        totals: with this window, and with what was dropped by the reader so far.
        epochs: readings so far, with the share of this one where `epoch_pairs` is known.
    """

    epoch: int = 0
    source: Any = None
    window: int = 0
    update: int = 0
    digest: str = ""
    carried: list[list[list[int]]] = dataclasses.field(default_factory=list)
    epoch_pairs: int | None = None
    before: Totals = Totals()
    totals: Totals = Totals()
    epochs: float = 0.0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Position:
        """What `dataclasses.asdict` made of one."""
        return cls(**values | {name: Totals(**values[name]) for name in ("before", "totals")})


def check_division(settings: BatchingSettings, world_size: int, accumulation: int) -> None:
    """Whether every window can be dealt to the batches of updates, whatever its pairs are.

    A window of n pairs goes into ceil(n / P) updates, P being the most pairs of one, and each update needs a pair for
    each of its batches. With P at least twice the number of batches that is so from n = that number on.

    Raises:
        ConfigError: it cannot, and the training would stop where it first happens.
    """
    parts = world_size * accumulation
    findings = []
    longest = max(settings.max_source_length, settings.max_target_length)
    if parts > 1 and settings.batch_tokens < 2 * longest:
        findings.append(
            f"batching.batch_tokens: given {settings.batch_tokens}, but a stream in updates of {parts} batches needs "
            f"twice the longest pair, {2 * longest}, or some window could not be dealt to them. Raise it, or lower "
            "max_source_length and max_target_length."
        )
    if parts > 1 and settings.max_sentences == 1:
        findings.append(
            f"batching.max_sentences: given 1, but a stream in updates of {parts} batches needs at least 2, or some "
            "window could not be dealt to them."
        )
    if settings.streaming_window < 2 * parts:
        findings.append(
            f"batching.streaming_window: given {settings.streaming_window}, but an update has {parts} batches "
            f"({world_size} processes x {accumulation} accumulation steps); allowed: {2 * parts} and more."
        )
    if findings:
        raise ConfigError(findings)


def _text_columns(table: pa.Table) -> list[str]:
    return [name for name in ("source", "target", *LANGUAGE_COLUMNS) if name in table.column_names]


def _hash_texts(table: pa.Table, before: str) -> str:
    """Hash of the texts of a table and of a hash of what came before."""
    names = _text_columns(table)
    return hash_tables([table.select(names)], names, before)


class _Rows:
    """Encoded pairs of a window in a few arrays: lists of lists would take ten times the memory."""

    def __init__(self) -> None:
        self._parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._lengths: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def add(self, input_ids: list[list[int]], labels: list[list[int]]) -> None:
        for side, rows in enumerate((input_ids, labels)):
            lengths = np.array([len(row) for row in rows], dtype=np.int32)
            self._lengths[side].append(lengths)
            flat = (token for row in rows for token in row)
            self._parts[side].append(np.fromiter(flat, dtype=np.int32, count=int(lengths.sum())))

    def close(self) -> None:
        empty = [np.zeros(0, dtype=np.int32)]
        self.lengths = [np.concatenate(lengths or empty) for lengths in self._lengths]
        self._ids = [np.concatenate(parts or empty) for parts in self._parts]
        self._starts = [np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) for lengths in self.lengths]
        self._parts = self._lengths = ([], [])

    def __len__(self) -> int:
        return len(self.lengths[0])

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        source, target = (
            ids[starts[row] : starts[row + 1]].tolist() for ids, starts in zip(self._ids, self._starts, strict=True)
        )
        return {"input_ids": source, "labels": target}


Item = tuple[dict[str, torch.Tensor], Position]


class StreamedBatches(IterableDataset):
    """Batches of one process, epoch after epoch without end, each with the position behind it.

    Args:
        source: the pairs.
        encoder: makes the ids.
        collator: makes the tensors.
        settings: budget, limits and the size of a window.
        seed: of order and segmentations.
        world_size, rank: number of processes, and which of them this is.
        accumulation: batches of a process in one update.
        subword_sampler: segments the text anew in each epoch, by (seed, epoch, number of the pair); None takes the
            tokenizer's own segmentation.

    Attributes:
        position: where it begins; a `StreamLoader` moves it on with every batch that is taken.

    Raises:
        ConfigError: see `check_division`.
    """

    def __init__(
        self,
        source: Source,
        encoder: PairEncoder,
        collator: TranslationCollator,
        settings: BatchingSettings,
        *,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        accumulation: int = 1,
        subword_sampler: SubwordSampler | None = None,
    ):
        check_division(settings, world_size, accumulation)
        self._source, self._encoder, self._collator, self._settings = source, encoder, collator, settings
        self._seed, self._world_size, self._rank, self._accumulation = seed, world_size, rank, accumulation
        self._subword_sampler = subword_sampler
        self.position = Position()

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what determines the batches, the texts aside."""
        parts = self._world_size * self._accumulation
        settings = self._settings.model_dump(mode="json")
        dropout = None if self._subword_sampler is None else type(self._subword_sampler).__name__
        return fingerprint(settings, self._seed, parts, self._encoder.fingerprint(), dropout)

    def __iter__(self) -> Iterator[Item]:
        """
        Raises:
            DataError: the stream cannot be read on, or a whole reading of it does not fill a single update.
        """
        position = self.position
        while True:
            position = yield from self._epoch(position)

    def _epoch(self, position: Position) -> Generator[Item, None, Position]:
        """Batches from a position to the end of its epoch; returns where the next epoch begins."""
        parts, start = self._world_size * self._accumulation, position
        is_whole, is_given = position.window == position.update == 0, False
        reader = self._source.tables(position.source)
        position = dataclasses.replace(position, source=reader.start)
        digest = ""
        number = -1
        for number, (table, is_last) in enumerate(self._windows(reader)):
            if number == position.window and position.update == 0:
                self._compare(position, digest)
            digest = _hash_texts(table, digest)
            if number < position.window:
                continue
            if position.update > 0:
                self._compare(position, digest)
            rows, dropped, changed = self._encode(table, position)
            before = position.before.plus(len(table), dropped, changed)
            totals = before.plus(0, reader.dropped, {})
            first = position.window * self._settings.streaming_window
            epoch_pairs = first + len(table) if is_last else position.epoch_pairs
            following = Position(
                epoch=position.epoch + is_last,
                source=reader.end if is_last else reader.start,
                window=0 if is_last else position.window + 1,
                digest="" if is_last else digest,
                carried=[] if len(rows) >= parts else [list(rows[row].values()) for row in range(len(rows))],
                epoch_pairs=epoch_pairs,
                before=totals if is_last else before,
                totals=totals,
                epochs=position.epoch + ((first + len(table)) / epoch_pairs if epoch_pairs else 0),
            )
            if len(rows) >= parts:
                is_given = True
                batches = self._cut(rows, position)
                updates = len(batches) // parts
                for update in range(position.update, updates):
                    done = first + len(table) * (update + 1) / updates
                    behind = dataclasses.replace(
                        position,
                        update=update + 1,
                        digest=digest,
                        totals=totals,
                        epochs=position.epoch + (done / epoch_pairs if epoch_pairs else 0),
                    )
                    for step in range(self._accumulation):
                        batch = batches[update * parts + step * self._world_size + self._rank]
                        tensors = self._collator([rows[row] for row in batch])
                        yield tensors, behind if update + 1 < updates else following
            position = following
        if number < start.window:
            self._compare(start, digest)
        if is_whole and not is_given:
            limits = self._encoder.settings
            raise DataError(
                f"{sum(position.totals.dropped.values()):,} pairs were dropped, and the "
                f"{len(position.carried):,} that are left in the whole stream cannot fill the {parts} batches of an "
                f"update. Give more data, or raise max_source_length={limits.max_source_length} and "
                f"max_target_length={limits.max_target_length}."
            )
        return position

    @staticmethod
    def _compare(position: Position, digest: str) -> None:
        if digest != position.digest:
            raise DataError(
                "The text to train on is not the one that the training began with: what comes before the place where "
                "it stood has changed. Bring the old text back; what comes later may change."
            )

    def _windows(self, reader: Reading) -> Iterator[tuple[pa.Table, bool]]:
        """Tables of `streaming_window` pairs, and whether it is the last; that one has half a window up to one and a
        half, as a small rest would make poor batches."""
        size = self._settings.streaming_window
        held: list[pa.RecordBatch] = []
        count = 0
        for batch in reader:
            held.append(batch)
            count += len(batch)
            while count >= size + size // 2:
                table = pa.Table.from_batches(held)
                yield table[:size], False
                held = table[size:].to_batches()
                count -= size
        yield pa.Table.from_batches(held), True

    def _encode(self, table: pa.Table, position: Position) -> tuple[_Rows, Counter[str], Counter[str]]:
        rows, dropped, changed = _Rows(), Counter[str](), Counter[str]()
        rows.add([pair[0] for pair in position.carried], [pair[1] for pair in position.carried])
        names = _text_columns(table)
        first = position.window * self._settings.streaming_window
        limits = self._settings.max_source_length, self._settings.max_target_length
        for start in range(0, len(table), _PAIRS_AT_A_TIME):
            texts = table[start : start + _PAIRS_AT_A_TIME].select(names).to_pydict()
            encoded = self._encoder(texts, first=first + start)
            if self._subword_sampler is not None:
                for place, row in enumerate(np.flatnonzero(encoded.kept)):
                    generator = np.random.default_rng((self._seed, position.epoch, first + start + int(row)))
                    encoded.input_ids[place], encoded.labels[place] = sample_pair(
                        self._subword_sampler,
                        (texts["source"][row], texts["target"][row]),
                        (encoded.input_ids[place], encoded.labels[place]),
                        limits,
                        generator,
                    )
            rows.add(encoded.input_ids, encoded.labels)
            dropped += encoded.dropped
            changed += encoded.changed
        rows.close()
        return rows, dropped, changed

    def _cut(self, rows: _Rows, position: Position) -> list[list[int]]:
        """The batches of all processes, in the order of `TokenBatchSampler`."""
        seed = np.random.SeedSequence((self._seed, position.window)).generate_state(1, np.uint64)
        sampler = TokenBatchSampler(
            rows.lengths[0],
            rows.lengths[1],
            self._settings,
            seed=int(seed[0]),
            world_size=self._world_size,
            accumulation=self._accumulation,
            is_told=False,
        )
        sampler.set_epoch(position.epoch)
        return list(sampler)


class _Guarded(IterableDataset):
    """Hands errors of ours over as items: a worker process would wrap them into its own traceback."""

    def __init__(self, batches: StreamedBatches):
        self._batches = batches

    def __iter__(self) -> Iterator[Item | NmtError]:
        try:
            yield from self._batches
        except NmtError as error:
            yield error


def _as_it_is(item: Any) -> Any:
    return item


class StreamLoader:
    """What a training loop iterates over: batches on their device. Has no length.

    Args:
        batches: of this process.
        device: where the tensors go.
        num_workers: 0, or 1 for a process that encodes ahead of the training.
        options: of `DataLoader`.
    """

    def __init__(self, batches: StreamedBatches, *, device: torch.device, num_workers: int = 0, **options: Any):
        self._batches, self._device = batches, device
        # A generator of its own: the loader would draw from that of the training, once more in a resumed one.
        self._loader = DataLoader(
            _Guarded(batches),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),
            **options,
        )

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for item in self._loader:
            if isinstance(item, NmtError):
                raise item
            tensors, position = item
            # Moved on with what is taken, not with what a worker has made ahead.
            self._batches.position = position
            yield send_to_device(tensors, self._device, non_blocking=self._loader.pin_memory)
