"""The manifest of what a run reads: datasets, streams, mixtures of these."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa

from hf_nmt.data.canonical import canonical_line, hash_of_lines, hash_of_tables
from hf_nmt.data.manifest import Manifest, SplitContent, files_of, hash_of_splits, hash_of_steps, recorded_steps
from hf_nmt.data.sources import BUILT_IN, CorpusSettings, format_of
from hf_nmt.data.streams import Stream
from hf_nmt.data.version_reading import Version

_ROWS_AT_A_TIME = 10_000


def describe(
    corpora: Mapping[str, tuple[CorpusSettings | Mapping[str, CorpusSettings], datasets.Dataset | Stream]],
    *,
    languages: Sequence[str],
) -> Manifest:
    """The manifest of what a run reads.

    Args:
        corpora: for each split, where it came from and what `load_pairs` or `stream_pairs` gave; of a mixture, where
            each of its named parts came from.
        languages: codes, those of the sources first.
    """
    splits = {name: _content_of(rows) for name, (_, rows) in corpora.items()}
    inputs = {name: _dumped(settings) for name, (settings, _) in corpora.items()}
    steps = [
        step.model_copy(update={"split": name})
        for name, (_, rows) in corpora.items()
        if isinstance(rows, datasets.Dataset)
        for step in recorded_steps(rows)
    ]
    counts = [split.rows for split in splits.values()]
    parts = [
        part
        for settings, _ in corpora.values()
        for part in ([settings] if isinstance(settings, CorpusSettings) else settings.values())
    ]
    files = {file.path: file for part in parts for file in files_of(part)}
    versions = {
        Version.read(part.path).content_hash
        for part in parts
        if part.path is not None and not part.path.startswith(BUILT_IN) and format_of(part) == "version"
    }
    return Manifest(
        content_hash=hash_of_splits(splits),
        recipe_hash=hash_of_steps(steps),
        rows=None if None in counts else sum(count or 0 for count in counts),
        languages=list(languages),
        splits=splits,
        files=list(files.values()),
        inputs=inputs,
        steps=steps,
        parent=versions.pop() if len(versions) == 1 else None,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _dumped(settings: CorpusSettings | Mapping[str, CorpusSettings]) -> dict[str, Any]:
    if isinstance(settings, CorpusSettings):
        return settings.model_dump(mode="json", exclude_none=True)
    return {name: _dumped(part) for name, part in settings.items()}


def _content_of(rows: datasets.Dataset | Stream) -> SplitContent:
    if isinstance(rows, Stream):
        return SplitContent(rows=None, content_hash=rows.content_hash)
    return SplitContent(rows=len(rows), content_hash=content_hash(rows))


def content_hash(records: datasets.Dataset | Iterable[Mapping[str, Any]]) -> str:
    """Of records in any order: `canonical.hash_of_lines`."""
    if isinstance(records, datasets.Dataset):
        return hash_of_tables(_tables(records))
    return hash_of_lines(map(canonical_line, records))


def _tables(dataset: datasets.Dataset) -> Iterator[pa.Table]:
    tables = dataset.with_format("arrow")
    for start in range(0, len(dataset), _ROWS_AT_A_TIME):
        yield tables[start : start + _ROWS_AT_A_TIME]
