"""Records of all inputs as tables on disk, where cleaning starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_nmt.artifacts import file_lock
from hf_nmt.cleaning.pipeline import ROWS_OF_A_TABLE, read_table, store_tables
from hf_nmt.cleaning.settings import InputSettings
from hf_nmt.config import fingerprint
from hf_nmt.data.readers import Corpus, Wanted
from hf_nmt.data.records import tables_of
from hf_nmt.data.sources import BUILT_IN, CorpusFiles, format_of, keys_told, opened
from hf_nmt.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

READER_VERSION = 2


def read_inputs(
    inputs: Mapping[str, InputSettings], languages: tuple[str | None, str | None], work: Path
) -> tuple[list[Path], str]:
    """Read corpora into tables; what was read before is taken as it is.

    Args:
        inputs: by name, which becomes the `origin` of records that have none.
        languages: codes of source and target where an input has none of its own.
        work: folder of what is between.

    Returns:
        Files of the tables (`pipeline.read_table`), and what identifies the contents of all of them.

    Raises:
        DataError: an input cannot be read, or a record does not fit, with file, line and field.
        ConfigError: the settings do not fit an input.
    """
    tables: list[Path] = []
    identities = []
    for name, settings in inputs.items():
        with keys_told(f"inputs.{name}"):
            own = (settings.source_language or languages[0], settings.target_language or languages[1])
            corpus, contents, wanted = open_text(settings, own, "is made clean. Give text of your own.")
            constants = {
                "source_language": own[0],
                "target_language": own[1],
                "domain": settings.domain,
                "licence": settings.licence,
                "synthetic": settings.synthetic,
                "origin": name,
            }
            given = {key: value for key, value in constants.items() if value is not None}
            identity = fingerprint(
                READER_VERSION, contents, format_of(settings), wanted, settings.split, settings.max_rows, given
            )
            folder = work / f"records-{identity}"
            with file_lock(folder, timeout_seconds=-1):
                if folder.is_dir():
                    logger.info("%s: read before", name)
                records = _some(corpus.name, tables_of(corpus, given, rows=ROWS_OF_A_TABLE))
                found = store_tables(first_rows(records, settings.max_rows), folder)
            logger.info("%s: %s records", name, f"{sum(len(read_table(path)) for path in found):,}")
        tables += found
        identities.append(identity)
    return tables, fingerprint(identities)


def open_text(
    settings: CorpusFiles, languages: tuple[str | None, str | None], built_in: str
) -> tuple[Corpus, Any, Wanted]:
    """A corpus, opened, what identifies its contents, and what is read of it.

    Args:
        settings: of its files.
        languages: codes of source and target.
        built_in: what to say of the built-in corpus, which is refused.

    Raises:
        DataError, ConfigError: as `read_inputs`.
    """
    if settings.path is not None and settings.path.startswith(BUILT_IN):
        raise ConfigError(f"path: {settings.path} {built_in}")
    wanted = Wanted((settings.source_column, settings.target_column), languages)
    return *opened(settings, format_of(settings), wanted), wanted


def _some(name: str, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; a corpus without a record is refused."""
    first = next(tables, None)
    if first is None:
        raise DataError(f"{name}: there is not a single pair in it. Give other text, or take it out.")
    yield first
    yield from tables


def first_rows(tables: Iterator[pa.Table], rows: int | None) -> Iterator[pa.Table]:
    """The first records of some tables, all where `rows` is None."""
    left = rows
    for table in tables:
        if left is None:
            yield table
            continue
        yield table.slice(0, left)
        left -= len(table)
        if left <= 0:
            return
