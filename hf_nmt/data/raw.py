"""Raw text as it came in: copies by date with a manifest, each content once.

    <raw_dir>/<date>/<input>/<file>
    <raw_dir>/<date>/manifest.json    for every file hash, bytes, where it came from, licence

A copy and no link, so that it stays what it was when the original is edited in place; it shares the blocks of the
original where the file system can. It may only be read.
"""

from __future__ import annotations

import datetime
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pydantic

from hf_nmt.artifacts import atomic_file, file_lock, hash_file, write_json
from hf_nmt.data.manifest import InputFile
from hf_nmt.errors import DataError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_READ_ONLY = 0o444


class RawFile(pydantic.BaseModel):
    """A file that was kept.

    Attributes:
        path: below the folder of the date.
        origin: where it came from, as it was given.
        input: name of the input.
        licence: its terms of use, where they were given.
    """

    path: str
    bytes: int
    sha256: str
    origin: str
    input: str
    licence: str | None = None


class RawManifest(pydantic.BaseModel):
    """`manifest.json` of a date."""

    schema_version: int = 1
    files: list[RawFile] = []


def problems_of_names(inputs: Iterable[str]) -> list[str]:
    """Findings on names of inputs, each of which is that of a folder here."""
    return [
        f"inputs: {name!r} cannot be the name of a folder in raw_dir. Take letters, digits, - and _."
        for name in inputs
        if name in ("", ".", "..") or {"/", "\0"} & {*name}
    ]


def keep_raw(
    raw_dir: Path, files: Mapping[str, Sequence[InputFile]], licences: Mapping[str, str | None]
) -> dict[str, str]:
    """Copy files to the folder of this day, unless their contents are kept already.

    Args:
        raw_dir: folder of the dates.
        files: of each input by its name (`manifest.files_of`).
        licences: by input.

    Returns:
        For the path of each file that of its copy.

    Raises:
        DataError: a file changed while it was copied, or a manifest cannot be read.
        NmtError: a copy cannot be written.
    """
    kept: dict[str, str] = {}
    with file_lock(raw_dir, timeout_seconds=-1):
        known = {entry.sha256: (day, entry) for day, entry in _entries(raw_dir)}
        today = raw_dir / datetime.datetime.now(datetime.UTC).date().isoformat()
        for name, own in files.items():
            if not own:
                logger.warning("inputs.%s comes from no file, so nothing of it is kept in %s.", name, raw_dir)
            for file in own:
                if file.sha256 in known and (found := _whole(*known[file.sha256])) is not None:
                    kept[file.path] = found.as_posix()
                    continue
                copy = _copied(file, today, name)
                entry = RawFile(
                    path=copy.relative_to(today).as_posix(),
                    bytes=file.bytes,
                    sha256=file.sha256,
                    origin=file.path,
                    input=name,
                    licence=licences.get(name),
                )
                path = today / MANIFEST
                manifest = _read(path) if path.is_file() else RawManifest()
                others = [one for one in manifest.files if one.path != entry.path]
                write_json(path, RawManifest(files=[*others, entry]).model_dump(exclude_none=True))
                known[file.sha256] = today, entry
                kept[file.path] = copy.as_posix()
    return kept


def _entries(raw_dir: Path) -> Iterator[tuple[Path, RawFile]]:
    """All that is kept, the newest first, so that of one content the oldest counts."""
    for path in sorted(raw_dir.glob(f"*/{MANIFEST}"), reverse=True):
        for entry in _read(path).files:
            yield path.parent, entry


def _read(path: Path) -> RawManifest:
    try:
        return RawManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: this is no manifest of raw files. Mend it, or give another raw_dir.") from error


def _whole(day: Path, entry: RawFile) -> Path | None:
    """The copy, where it is still what it was."""
    path = day / entry.path
    if path.is_file() and path.stat().st_size == entry.bytes and hash_file(path) == entry.sha256:
        return path
    logger.warning("%s was changed or removed since it was kept; it is copied anew.", path)
    return None


def _copied(file: InputFile, today: Path, name: str) -> Path:
    original = Path(file.path)
    to = today / name / original.name
    if to.exists() and hash_file(to) != file.sha256:
        to = to.with_name(f"{file.sha256[:8]}-{to.name}")
    with atomic_file(to) as partial:
        _copy(original, partial)
        if hash_file(partial) != file.sha256:
            raise DataError(f"{file.path} changed while it was copied to {to}. Run again when it is whole.")
        partial.chmod(_READ_ONLY)
    return to


def _copy(original: Path, to: Path) -> None:
    with open(original, "rb") as source, open(to, "wb") as target:
        try:
            # Shares the blocks with the original where the file system can.
            while os.copy_file_range(source.fileno(), target.fileno(), 2**30):
                pass
        except (OSError, AttributeError):
            source.seek(0)
            target.seek(0)
            target.truncate()
            shutil.copyfileobj(source, target)
