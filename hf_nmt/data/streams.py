"""Parallel text read as it is needed, again and again, for corpora too large to be kept a second time.

`stream_pairs` opens what `load_pairs` opens, and gives the same rows in the same order. Nothing is written, and memory
holds some thousand rows at a time.
"""

from __future__ import annotations

import abc
import functools
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow as pa
import pyarrow.parquet

from hf_nmt.config import fingerprint
from hf_nmt.data import readers
from hf_nmt.data.readers import ROWS_AT_A_TIME, Corpus, Wanted
from hf_nmt.data.sources import (
    BUILT_IN,
    NO_HUB_DATASET,
    READER_VERSION,
    CorpusSettings,
    built_in,
    cache_folder,
    check_settings,
    contents_of,
    format_of,
    loading,
    open_corpus,
    saved,
    store,
    title_of,
)
from hf_nmt.data.tables import CorpusTables, LanguageProblem
from hf_nmt.data.text_lines import aligned_lines, open_bytes
from hf_nmt.data.version_reading import Version

logger = logging.getLogger(__name__)

_BYTES_AT_A_TIME = 2**20
_ROWS_AT_A_TIME = 1000
_UNIT = re.compile(rb"<tu[\s>]")


class Reading(Protocol):
    """Rows of an epoch, read once.

    Attributes:
        dropped: how many were left out so far, by reason.
    """

    @property
    def dropped(self) -> Counter[str]: ...

    @property
    def start(self) -> Any:
        """Where it began, for `Stream.tables`; can be written as JSON."""

    @property
    def end(self) -> Any:
        """Where the next epoch begins, once all is read."""

    def __iter__(self) -> Iterator[pa.RecordBatch]: ...


class Stream(abc.ABC):
    """Rows that can be read any number of times.

    Iterating gives dicts with `source` and `target`, and whatever columns the rows have beside.
    """

    @abc.abstractmethod
    def tables(self, start: Any = None) -> Reading:
        """Arrow batches of the rows of an epoch, opened anew.

        Args:
            start: where it begins: `Reading.start` or `Reading.end` of another; None from the first row on.

        Raises:
            DataError: when it is met, with file and line: whatever `load_pairs` refuses, and rows whose languages
                `check_languages` refuses; what comes before `start` has changed.
        """

    @abc.abstractmethod
    def head(self, count: int, *, cache_dir: Path | str | None = None) -> datasets.Dataset:
        """The first rows, kept in the cache as those of `load_pairs` are."""

    @abc.abstractmethod
    def check_languages(self, problem_of: LanguageProblem) -> None:
        """From now on refuse, with its place, the first row whose languages have a problem."""

    @property
    @abc.abstractmethod
    def content_hash(self) -> str:
        """Of all files, and of how they are read; reads every byte."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.tables():
            yield from batch.to_pylist()


class _WholeReading(CorpusTables):
    """A corpus from its first row on: all its epochs begin there."""

    start: Any = None
    end: Any = None


class PairStream(Stream):
    """The rows of a corpus, in its order: `source` and `target`, `references` where there are several, and further
    columns.

    Args:
        settings: where the corpus is.
        format_name: of its files.
        wanted: which columns or languages.
        dataset: what takes the place of files, opened.
        identity: of the contents of that dataset.
    """

    def __init__(
        self,
        settings: CorpusSettings,
        format_name: str,
        wanted: Wanted,
        *,
        dataset: datasets.Dataset | datasets.IterableDataset | None = None,
        identity: Any = None,
    ):
        self.settings = settings
        self._format_name, self._wanted = format_name, wanted
        self._dataset, self._identity = dataset, identity
        self._problem_of: LanguageProblem | None = None

    def _open(self) -> Corpus:
        if self._dataset is None:
            return open_corpus(self.settings, self._format_name, self._wanted)
        return _corpus_of(self._dataset, self.settings, self._wanted)

    def tables(self, start: Any = None) -> _WholeReading:
        assert start is None
        settings = self.settings
        return _WholeReading(
            self._open(),
            empty=settings.empty,
            max_rows=settings.max_rows,
            at_once=True,
            rows_at_a_time=_ROWS_AT_A_TIME,
            problem_of=self._problem_of,
        )

    def check_languages(self, problem_of: LanguageProblem) -> None:
        self._problem_of = problem_of

    def count(self) -> int | None:
        """About how many rows there are, without looking into each: lines, units, or what the corpus says of itself.
        Rows that are left out count. None where it cannot be told."""
        settings, name = self.settings, str(self.settings.path)
        rows: int | None
        if isinstance(self._dataset, datasets.IterableDataset):
            splits = self._dataset.info.splits or {}
            rows = splits[settings.split].num_examples if settings.split in splits else None
        elif self._dataset is not None:
            rows = len(self._dataset)
        elif self._format_name == "arrow":
            rows = len(saved(settings))
        elif self._format_name == "version":
            version = Version.read(name)
            rows = version.rows[version.split(settings.split)]
        elif self._format_name == "parquet":
            rows = pyarrow.parquet.read_metadata(name).num_rows
        elif self._format_name == "tmx":
            rows = _count_units(Path(name))
        elif self._format_name == "lines":
            rows = _count_lines(Path(str(settings.source)))
        else:
            has_header = self._format_name in ("tsv", "csv") and not str(self._wanted.columns[0]).isdecimal()
            rows = _count_lines(Path(name)) - has_header
        if settings.max_rows is not None:
            rows = settings.max_rows if rows is None else min(rows, settings.max_rows)
        return rows

    @functools.cached_property
    def content_hash(self) -> str:
        settings = self.settings
        contents = self._identity if self._dataset is not None else contents_of(settings, self._format_name)
        read_as = self._format_name, self._wanted, settings.split, settings.empty, settings.max_rows
        return fingerprint(READER_VERSION, contents, read_as)

    def head(self, count: int, *, cache_dir: Path | str | None = None) -> datasets.Dataset:
        settings = self.settings
        count = count if settings.max_rows is None else min(count, settings.max_rows)
        tables = CorpusTables(self._open(), empty=settings.empty, max_rows=count, at_once=True)
        folder = cache_folder(cache_dir) / f"head-{fingerprint(self.content_hash, count)}"
        return store(tables, folder, {"empty": settings.empty, "max_rows": count})


def stream_pairs(
    settings: CorpusSettings, *, source_language: str | None = None, target_language: str | None = None
) -> PairStream:
    """Open a corpus for reading it again and again.

    Args:
        settings: where it is.
        source_language, target_language: as for `load_pairs`.

    Raises:
        DataError: the input cannot be used, as far as that can be told before reading it; of aligned files, that they
            differ in their number of lines.
        ConfigError: the settings do not fit the corpus.
    """
    wanted = Wanted((settings.source_column, settings.target_column), (source_language, target_language))
    if settings.path is not None and settings.path.startswith(BUILT_IN):
        rows = built_in(settings, source_language, target_language)
        return PairStream(settings, "built-in", wanted, dataset=rows, identity=settings.path)
    format_name = format_of(settings)
    check_settings(settings, format_name)
    if format_name == "hub":
        return _hub_stream(settings, wanted)
    if format_name == "lines" and settings.max_rows is None:
        _check_line_counts([str(settings.source), *settings.targets])
    return PairStream(settings, format_name, wanted)


def _check_line_counts(paths: list[str]) -> None:
    """Files that do not match must be told before hours are spent on them, not where the shorter one ends."""
    if len({_count_lines(Path(path)) for path in paths}) > 1:
        for _ in aligned_lines(paths):  # raises, with the place where they stop matching
            pass


def _count_lines(path: Path) -> int:
    count, last = 0, b""
    with open_bytes(path) as file:
        while block := file.read(_BYTES_AT_A_TIME):
            count += block.count(b"\n")
            last = block
    return count + (bool(last) and not last.endswith(b"\n"))


def _count_units(path: Path) -> int:
    """Translation units of a TMX file."""
    count, rest = 0, b""
    with open_bytes(path) as file:
        while block := file.read(_BYTES_AT_A_TIME):
            text = rest + block
            count += len(_UNIT.findall(text))
            rest = text[-3:]  # shorter than what is looked for
    return count


def _hub_stream(settings: CorpusSettings, wanted: Wanted) -> PairStream:
    """A dataset of the Hub that is not downloaded, but read over the network each time."""
    name = str(settings.path)
    with loading(name, NO_HUB_DATASET):
        builder = datasets.load_dataset_builder(name, settings.subset)
        rows = builder.as_streaming_dataset(split=settings.split)
    # The hash of the builder holds the revision of the repository, or the times of the files of a folder.
    return PairStream(settings, "hub", wanted, dataset=rows, identity=[name, settings.subset, builder.hash])


def _corpus_of(rows: datasets.Dataset | datasets.IterableDataset, settings: CorpusSettings, wanted: Wanted) -> Corpus:
    features = rows.features
    if features is None:
        rows = rows._resolve_features()
        features = rows.features

    def tables() -> Iterator[pa.Table]:
        with loading(title_of(settings), "dataset could not be read to its end"):
            yield from rows.with_format("arrow").iter(batch_size=ROWS_AT_A_TIME)

    return readers.read_tables(title_of(settings), features.arrow_schema, tables(), wanted)
