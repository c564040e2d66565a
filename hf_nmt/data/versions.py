"""Versions of a corpus on disk: `<output_dir>/v<date>-<hash>/`, Parquet files with a manifest and what was dropped.

The hash is the start of the manifest's `content_hash`, so that the same records make the same version on any day, on
any machine and for any number of workers. `datasets.load_dataset(folder)` opens the splits; `verify` tells whether
they are still those that were written.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from hf_nmt.artifacts import COMPLETE, atomic_folder, hash_folder, is_complete, mark_complete, write_text
from hf_nmt.artifacts import hash_file as hash_of
from hf_nmt.data.canonical import hash_of_tables
from hf_nmt.data.manifest import InputFile, Manifest, SplitContent, Step, hash_of_splits, hash_of_steps
from hf_nmt.data.records import SCHEMA
from hf_nmt.errors import DataError

logger = logging.getLogger(__name__)

MANIFEST, REJECTS = "manifest.json", "rejects.parquet"
# What recipes/check_data.py writes beside the files of a version.
CHECK_RESULTS = ("check.json", "check.html")
HASH_DIGITS = 6
ROWS_OF_A_FILE = 500_000
_ROWS_AT_A_TIME = 10_000
# Columns with another value in every record: a dictionary of them would be made in vain.
_OWN = ("id", "source", "target", "references", "position", "parent", "detail")


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
    raw: Mapping[str, str] | None = None,
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
        raw: where the file of each path is kept as it came (`raw.keep_raw`).

    Returns:
        The folder.

    Raises:
        NmtError: it cannot be written.
    """
    contents = {
        name: SplitContent(rows=sum(map(len, tables)), content_hash=hash_of_tables(tables))
        for name, tables in splits.items()
    }
    for name in (name for name, content in contents.items() if not content.rows):
        logger.warning("The split %s holds no record. %s tells what was dropped, and why.", name, REJECTS)
    digest = hash_of_splits(contents)
    for found in sorted(output_dir.glob(f"v*-{digest[:HASH_DIGITS]}")):
        if is_complete(found) and Manifest.read(found / MANIFEST).content_hash == digest:
            logger.info("%s holds these records already", found)
            earlier = Manifest.read(found / MANIFEST)
            of_others = {file["sha256"] for file in earlier.inputs["files"].values()} != {
                file.sha256 for file in files
            }
            if of_others or earlier.recipe_hash != hash_of_steps(list(steps)):
                logger.warning(
                    "%s stays as it is: its manifest, its reports and %s tell of the run that wrote it, which read "
                    "other files or had other steps. What this run dropped is not in there; remove the folder, or "
                    "give another output_dir, and run again to have it.",
                    found,
                    REJECTS,
                )
            if raw and not any("raw" in file for file in earlier.inputs["files"].values()):
                logger.warning(
                    "The manifest of %s, which was written before, does not name the raw files. Remove it and run "
                    "again to have them named.",
                    found,
                )
            return found
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    folder = output_dir / f"v{today}-{digest[:HASH_DIGITS]}"
    with atomic_folder(folder) as partial:
        (partial / "data").mkdir()
        for name, tables in splits.items():
            _write_split(partial / "data", name, tables)
        _write(partial / REJECTS, rejected)
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
            | {"files": {file.path: _lineage(file, raw or {}) for file in files}},
            steps=list(steps),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        manifest.write(partial / MANIFEST)
        mark_complete(partial)
    return folder


def _lineage(file: InputFile, raw: Mapping[str, str]) -> dict[str, Any]:
    kept = {"raw": raw[file.path]} if file.path in raw else {}
    return {"bytes": file.bytes, "sha256": file.sha256, **kept}


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a version.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        return Manifest.read(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Give the folder of a version, v<date>-<hash>, as "
            "recipes/prepare_data.py writes it."
        ) from error
    except (pydantic.ValidationError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: this is no manifest of a version, or it was changed.") from error


def files_of_split(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split, in their order."""
    return sorted((folder / "data").glob(f"{split}-[0-9]*-of-[0-9]*.parquet"))


def tables_of_file(path: Path, rows: int = _ROWS_AT_A_TIME) -> Iterator[pa.Table]:
    """What a Parquet file of a version holds, so many records at a time.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def verify(folder: Path) -> list[str]:
    """What differs between a version and what was written once, one sentence each; empty where all is well.

    Every file must be there with the contents that COMPLETE and the manifest tell of, no other file but the results
    of checks, and the records must have the content hash of the manifest, which the name of the folder begins.
    """
    found = hash_folder(folder)
    problems = _against_mark(folder, found)
    try:
        manifest = manifest_of(folder)
    except DataError as error:
        return [*problems, str(error)]
    told = {file.path: file.sha256 for file in manifest.files}
    for name in sorted(told.keys() | {name for name in found if name.startswith("data/")}):
        if name not in told:
            problems.append(f"{folder / name}: the manifest does not name this file.")
        elif name in found and found[name] != told[name]:
            problems.append(f"{folder / name}: the contents are not those of the manifest (SHA-256 differs).")
        elif name not in found:
            problems.append(f"{folder / name}: the file is missing.")
    return list(dict.fromkeys(problems + _against_records(folder, manifest)))


def _against_mark(folder: Path, found: Mapping[str, str]) -> list[str]:
    path = folder / COMPLETE
    try:
        text = path.read_text(encoding="utf-8")
        mark = json.loads(text)
        files = {name: (facts["bytes"], facts["sha256"]) for name, facts in mark["files"].items()}
        written = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return [f"{path}: the file is missing or not as it was written, so that the folder may not be whole."]
    problems = []
    for name, (size, digest) in files.items():
        if name not in found:
            problems.append(f"{folder / name}: the file is missing.")
        elif (now := (folder / name).stat().st_size) != size:
            problems.append(f"{folder / name}: has {now:,} bytes in place of {size:,}.")
        elif found[name] != digest:
            problems.append(f"{folder / name}: the contents changed since it was written (SHA-256 differs).")
    problems += [
        f"{folder / name}: this file was not written with the version. Move it elsewhere."
        for name in found
        if name not in files and name not in CHECK_RESULTS
    ]
    if text != json.dumps({"schema_version": 1, "files": written}, ensure_ascii=False, indent=2) + "\n":
        problems.append(f"{path}: is not as it was written.")
    return problems


def _against_records(folder: Path, manifest: Manifest) -> list[str]:
    problems, splits = [], {}
    for name, content in manifest.splits.items():
        files = files_of_split(folder, name)
        if not files:
            problems.append(f"{folder / 'data'}: there is no file of the split {name}.")
            continue
        try:
            rows = sum(pq.read_metadata(path).num_rows for path in files)
            tables = (table for path in files for table in tables_of_file(path))
            splits[name] = SplitContent(rows=rows, content_hash=hash_of_tables(tables))
        except (DataError, OSError, pa.ArrowException) as error:
            problems.append(f"the split {name}: {str(error).splitlines()[0]}")
            continue
        if splits[name].rows != content.rows:
            problems.append(f"the split {name}: {rows:,} records in place of {content.rows or 0:,}.")
        if splits[name].content_hash != content.content_hash:
            problems.append(f"the split {name}: the records are not those of the manifest (content hash differs).")
    if len(splits) == len(manifest.splits) and hash_of_splits(splits) != manifest.content_hash:
        problems.append(f"{folder / MANIFEST}: content_hash is not that of the records.")
    if manifest.rows != sum(content.rows or 0 for content in manifest.splits.values()):
        problems.append(f"{folder / MANIFEST}: rows is not the sum over the splits.")
    if manifest.recipe_hash != hash_of_steps(manifest.steps):
        problems.append(f"{folder / MANIFEST}: recipe_hash is not that of the steps.")
    if not folder.resolve().name.endswith(f"-{manifest.content_hash[:HASH_DIGITS]}"):
        problems.append(
            f"{folder}: the name of the folder does not end in the start of the content hash, "
            f"{manifest.content_hash[:HASH_DIGITS]}."
        )
    return problems


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
                often_the_same = [name for name in table.schema.names if name not in _OWN]
                writer = pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=often_the_same)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
