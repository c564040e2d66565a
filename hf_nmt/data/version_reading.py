"""Versions of a corpus (`versions`) as text to read: their splits, their languages, and that nobody changed them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hf_nmt.artifacts import hash_file, is_complete
from hf_nmt.config_keys import nearest
from hf_nmt.data.readers import ROWS_AT_A_TIME, Corpus, Wanted, read_tables
from hf_nmt.errors import ConfigError, DataError

_MANIFEST, _DATA = "manifest.json", "data"


def is_version(path: Path | str) -> bool:
    """Whether a folder is a version, whole or not."""
    return Path(path, _MANIFEST).is_file() and Path(path, _DATA).is_dir()


@dataclass(frozen=True)
class Version:
    """What the manifest of a version says.

    Attributes:
        folder: where it lies.
        content_hash: of all records.
        languages: codes, those of the sources first.
        rows: how many records each split holds.
        sha256: of each data file by its path in the folder.
    """

    folder: Path
    content_hash: str
    languages: list[str]
    rows: dict[str, int]
    sha256: dict[str, str]

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """
        Raises:
            DataError: it is no version, or not whole.
        """
        folder = Path(folder)
        try:
            told = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            version = cls(
                folder,
                str(told["content_hash"]),
                [str(code) for code in told["languages"]],
                {str(name): int(split["rows"]) for name, split in told["splits"].items()},
                {str(file["path"]): str(file["sha256"]) for file in told["files"]},
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder}: this is no version of a corpus as recipes/prepare_data.py writes them "
                f"({_MANIFEST} cannot be read)."
            ) from error
        if not is_complete(folder):
            raise DataError(
                f"{folder} is not whole: files are missing, or have another size than when it was written. Copy it "
                "again, or make it again with recipes/prepare_data.py."
            )
        return version

    def has(self, split: str) -> bool:
        return split in self.rows

    def split(self, name: str | None) -> str:
        """The name of a split; of the only one where none is given.

        Raises:
            ConfigError: there is none of this name, or several and none is given.
        """
        names = list(self.rows)
        if name is None and len(names) != 1:
            raise ConfigError(f"split is needed: {self.folder} holds {', '.join(names)}.")
        found = names[0] if name is None else name
        if found not in self.rows:
            near = nearest(found, names)
            hint = f" Did you mean {near!r}?" if near else ""
            raise ConfigError(
                f"split: {self.folder} holds no split {found!r}, only {', '.join(names)}.{hint} Splits are made by "
                "recipes/prepare_data.py with splits.sets."
            )
        return found

    def files(self, split: str) -> list[Path]:
        """The data files of a split, in their order, compared with what was written.

        Raises:
            DataError: a file changed since.
        """
        names = sorted(name for name in self.sha256 if Path(name).name.rsplit("-", 3)[0] == split)
        changed = [name for name in names if hash_file(self.folder / name) != self.sha256[name]]
        if changed or not names:
            raise DataError(
                f"{self.folder}: {' and '.join(changed) or 'the data'} changed since the version was written, whose "
                "name no longer tells what it holds. Copy it again, or make a version of its own with "
                "recipes/prepare_data.py."
            )
        return [self.folder / name for name in names]


def open_split(folder: Path | str, split: str | None, wanted: Wanted) -> Corpus:
    """The records of a split, to be read once."""
    version = Version.read(folder)
    name = version.split(split)
    paths = version.files(name)

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(ROWS_AT_A_TIME)

    return read_tables(f"{folder} ({name})", pq.read_schema(paths[0]), batches(), wanted)


def contents_of_split(folder: Path | str, split: str | None) -> Any:
    """What identifies the records of a split, wherever it lies."""
    version = Version.read(folder)
    return [
        version.sha256[path.relative_to(version.folder).as_posix()] for path in version.files(version.split(split))
    ]
