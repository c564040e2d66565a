"""What text a run used: hashes of contents that do not depend on file format, order of lines, path or date.

The `content_hash` of a split is that of the canonical lines of its records (`canonical`). The `content_hash` of a
manifest is that of its only split, or, of several, the same function over `{"content_hash", "rows", "split"}` of each.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pydantic

from hf_nmt.artifacts import hash_file, hash_folder, write_json
from hf_nmt.config import fingerprint
from hf_nmt.data.canonical import canonical_line, hash_of_lines, hash_of_tables
from hf_nmt.data.sources import BUILT_IN, CorpusFiles, CorpusSettings, format_of
from hf_nmt.data.streams import Stream
from hf_nmt.data.version_reading import Version

SCHEMA_VERSION = 1
_ROWS_AT_A_TIME = 10_000


class Step(pydantic.BaseModel):
    """One thing done to a corpus: how many records came out, how many did not for which reason, and how many of them
    it made, by kind."""

    name: str
    settings: dict[str, Any] = {}
    kept: int
    dropped: dict[str, int] = {}
    changed: dict[str, int] = {}
    added: dict[str, int] = {}
    split: str | None = None


class SplitContent(pydantic.BaseModel):
    """What a split holds. Of a stream, which is not read beforehand, the rows are not known, and the hash is that of
    the files and of how they are read."""

    rows: int | None
    content_hash: str


class InputFile(pydantic.BaseModel):
    path: str
    bytes: int
    sha256: str


class Manifest(pydantic.BaseModel):
    """`manifest.json`. Everything but `created` and the paths is the same for the same data and settings."""

    schema_version: int = SCHEMA_VERSION
    content_hash: str
    recipe_hash: str
    rows: int | None
    languages: list[str]
    splits: dict[str, SplitContent]
    files: list[InputFile]
    inputs: dict[str, dict[str, Any]]
    steps: list[Step]
    parent: str | None = None
    created: str

    @classmethod
    def read(cls, path: Path | str) -> Manifest:
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def write(self, path: Path | str) -> None:
        write_json(path, self)

    def with_steps(self, encoded: Mapping[str, datasets.Dataset]) -> Manifest:
        """This manifest with the steps that were recorded beside what `encode_pairs` made of its splits.

        A step that it has already is not listed twice.
        """
        steps = []
        for split in self.splits:
            steps += (own := [step for step in self.steps if step.split == split])
            for step in recorded_steps(encoded[split]) if split in encoded else []:
                if (found := step.model_copy(update={"split": split})) not in own:
                    steps.append(found)
        return self.model_copy(update={"steps": steps, "recipe_hash": hash_of_steps(steps)})


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


def hash_of_steps(steps: list[Step]) -> str:
    return fingerprint([step.model_dump(include={"name", "settings", "split"}) for step in steps])


def recorded_steps(dataset: datasets.Dataset) -> list[Step]:
    """The steps that `load_pairs` or `encode_pairs` wrote beside a dataset, or beside the parts of a mixture; empty
    for one that was made otherwise."""
    paths = dict.fromkeys(Path(file["filename"]).with_name("steps.json") for file in dataset.cache_files)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    return [Step.model_validate(step) for steps in found for step in steps]


def files_of(settings: CorpusFiles) -> Iterator[InputFile]:
    """The files that are read for a corpus, none for one of the Hub or the built-in one."""
    if settings.path is not None and settings.path.startswith(BUILT_IN):
        return
    if format_of(settings) == "version":
        version = Version.read(str(settings.path))
        for path in version.files(version.split(settings.split)):
            digest = version.sha256[path.relative_to(version.folder).as_posix()]
            yield InputFile(path=str(path), bytes=path.stat().st_size, sha256=digest)
    elif format_of(settings) == "arrow":
        for name, digest in hash_folder(str(settings.path)).items():
            path = Path(str(settings.path), name)
            yield InputFile(path=str(path), bytes=path.stat().st_size, sha256=digest)
    elif format_of(settings) != "hub":
        names = [settings.path] if settings.path is not None else [settings.source, *settings.targets]
        for name in map(str, names):
            yield InputFile(path=name, bytes=Path(name).stat().st_size, sha256=hash_file(name))


def content_hash(records: datasets.Dataset | Iterable[Mapping[str, Any]]) -> str:
    """Of records in any order: `canonical.hash_of_lines`."""
    if isinstance(records, datasets.Dataset):
        return hash_of_tables(_tables(records))
    return hash_of_lines(map(canonical_line, records))


def _tables(dataset: datasets.Dataset) -> Iterator[pa.Table]:
    tables = dataset.with_format("arrow")
    for start in range(0, len(dataset), _ROWS_AT_A_TIME):
        yield tables[start : start + _ROWS_AT_A_TIME]


def hash_of_splits(splits: Mapping[str, SplitContent]) -> str:
    if len(splits) == 1:
        return next(iter(splits.values())).content_hash
    return content_hash({"split": name, **split.model_dump()} for name, split in splits.items())
