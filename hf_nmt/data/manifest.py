"""What text a run used: hashes of contents that do not depend on file format, order of lines, path or date.

The `content_hash` of a split is that of the canonical lines of its records (`canonical`). The `content_hash` of a
manifest is that of its only split, or, of several, the same function over `{"content_hash", "rows", "split"}` of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from hf_nmt.artifacts import hash_file, hash_folder, write_json
from hf_nmt.config import fingerprint
from hf_nmt.data.canonical import canonical_line, hash_of_lines
from hf_nmt.data.sources import BUILT_IN, CorpusFiles, format_of
from hf_nmt.data.version_reading import Version

if TYPE_CHECKING:
    import datasets

SCHEMA_VERSION = 1


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


def hash_of_splits(splits: Mapping[str, SplitContent]) -> str:
    if len(splits) == 1:
        return next(iter(splits.values())).content_hash
    return hash_of_lines(canonical_line({"split": name, **split.model_dump()}) for name, split in splits.items())
