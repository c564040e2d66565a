"""Versions of a corpus on disk: `<output_dir>/v<date>-<hash>/`, Parquet files with a manifest and what was dropped.

The hash is the start of the manifest's `content_hash`, so that the same records make the same version on any day, on
any machine and for any number of workers. `datasets.load_dataset(folder)` opens the splits.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_nmt.artifacts import atomic_folder, is_complete, mark_complete, write_text
from hf_nmt.artifacts import hash_file as hash_of
from hf_nmt.data.manifest import InputFile, Manifest, SplitContent, Step, content_hash, hash_of_splits, hash_of_steps
from hf_nmt.data.records import SCHEMA

logger = logging.getLogger(__name__)

HASH_DIGITS = 6
ROWS_OF_A_FILE = 500_000


def write_version(
    output_dir: Path,
    splits: Mapping[str, Sequence[pa.Table]],
    rejected: Iterable[pa.Table],
    *,
    steps: Sequence[Step],
    files: Sequence[InputFile],
    inputs: Mapping[str, Mapping[str, Any]],
    languages: Sequence[str],
    reports: Mapping[str, str] | None = None,
) -> Path:
    """Write a version; one that is there with the same contents is taken as it is.

    Args:
        output_dir: folder of the versions.
        splits: tables of SCHEMA by name of the split.
        rejected: tables of SCHEMA with `step`, `reason` and `detail`.
        steps: what was done.
        files: what was read.
        inputs: settings of each input by its name.
        languages: codes, those of the sources first.
        reports: further text files by name, which have no part in the hash.

    Returns:
        The folder.

    Raises:
        NmtError: it cannot be written.
    """
    contents = {
        name: SplitContent(rows=sum(map(len, tables)), content_hash=content_hash(_records(tables)))
        for name, tables in splits.items()
    }
    digest = hash_of_splits(contents)
    for found in sorted(output_dir.glob(f"v*-{digest[:HASH_DIGITS]}")):
        if is_complete(found) and Manifest.read(found / "manifest.json").content_hash == digest:
            logger.info("%s holds these records already", found)
            return found
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = output_dir / f"v{today}-{digest[:HASH_DIGITS]}"
    with atomic_folder(folder) as partial:
        (partial / "data").mkdir()
        for name, tables in splits.items():
            _write_split(partial / "data", name, tables)
        _write(partial / "rejects.parquet", rejected)
        for name, text in (reports or {}).items():
            write_text(partial / name, text)
        manifest = Manifest(
            content_hash=digest,
            recipe_hash=hash_of_steps(list(steps)),
            rows=sum(content.rows or 0 for content in contents.values()),
            languages=list(languages),
            splits=contents,
            files=[
                InputFile(path=path.relative_to(partial).as_posix(), bytes=path.stat().st_size, sha256=hash_of(path))
                for path in sorted((partial / "data").iterdir())
            ],
            inputs={name: dict(settings) for name, settings in inputs.items()}
            | {"files": {file.path: {"bytes": file.bytes, "sha256": file.sha256} for file in files}},
            steps=list(steps),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        manifest.write(partial / "manifest.json")
        mark_complete(partial)
    return folder


def _records(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()


def _write_split(folder: Path, name: str, tables: Sequence[pa.Table]) -> None:
    rows = sum(map(len, tables))
    count = max(1, -(-rows // ROWS_OF_A_FILE))
    whole = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    for number in range(count):
        part = whole.slice(number * ROWS_OF_A_FILE, ROWS_OF_A_FILE)
        _write(folder / f"{name}-{number:05d}-of-{count:05d}.parquet", [part])


def _write(path: Path, tables: Iterable[pa.Table]) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
