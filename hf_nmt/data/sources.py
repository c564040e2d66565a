"""Parallel text from any of the usual files, as a memory-mapped dataset.

`load_pairs` is the one entrance: what it returns has the columns `source` and `target`, `references` where the corpus
has several, and whatever further columns the corpus carries. It is written once to a cache keyed by the contents of
the input, so that the second call opens it at once, and memory does not grow with the corpus.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from hf_nmt.artifacts import (
    atomic_folder,
    file_lock,
    hash_file,
    hash_folder,
    is_complete,
    mark_complete,
    may_be_hub_id,
    write_json,
)
from hf_nmt.config import Settings, fingerprint
from hf_nmt.config_keys import nearest
from hf_nmt.data import readers
from hf_nmt.data.readers import ROWS_AT_A_TIME, Corpus, Pair, Wanted
from hf_nmt.data.text_lines import existing_file
from hf_nmt.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# Part of every cache key: raise it when the same input would be read differently.
READER_VERSION = 1
BUILT_IN = "controlled/"

_SUFFIXES = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".tmx": "tmx",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

# What says nothing to a corpus of this kind; whoever sets it expects something that does not happen.
_COLUMNS = ("source_column", "target_column")
_IDLE = {
    "lines": ("format", "subset", "split", *_COLUMNS),
    "built-in corpus": ("format", "subset", *_COLUMNS, "empty"),
    "tsv": ("subset", "split"),
    "csv": ("subset", "split"),
    "jsonl": ("subset", "split"),
    "parquet": ("subset", "split"),
    "tmx": ("subset", "split", *_COLUMNS),
    "arrow": ("subset",),
    "hub": (),
}

# The ending of a file, such as in `data/pairs.txt`, but not in the Hub's `wmt/v1.0`.
_ENDING = re.compile(r"\.[A-Za-z]\w*$")


class CorpusSettings(Settings):
    """Where parallel text comes from: two aligned files (`source`, `target`), or one `path` that holds both sides."""

    places: ClassVar[tuple[str, ...]] = ("source", "target", "path")

    source: str | None = Field(None, description="text file of source sentences, one a line, UTF-8, plain or .gz")
    target: str | list[str] | None = Field(
        None,
        description="text file whose line n translates line n of source; a list of files gives several references",
    )
    path: str | None = Field(
        None,
        description="one file or folder with both sides: .tsv, .csv, .tmx, .jsonl (each also .gz), .parquet, a folder "
        "of Dataset.save_to_disk, a dataset of the Hub as owner/name, or the built-in controlled/tiny and "
        "controlled/full",
    )
    format: Literal["auto", "tsv", "csv", "tmx", "jsonl", "parquet", "arrow", "hub"] = Field(
        "auto",
        description="format of path; auto goes by the ending of its name, and asks the Hub for owner/name where no "
        "folder owner is here; hub asks it for any name",
    )
    subset: str | None = Field(None, description="configuration of a Hub dataset, such as de-en")
    split: str | None = Field(None, description="split of a Hub dataset, a saved DatasetDict or the built-in corpus")
    source_column: str | None = Field(
        None,
        description="column of the source: a name, or in TSV and CSV without a header a number from 1; null looks for "
        "'source', the language code, and the code inside 'translation'",
    )
    target_column: str | None = Field(None, description="column of the target, as source_column")
    empty: Literal["error", "drop"] = Field(
        "error",
        description="pairs with an empty side are refused, as they may mean misaligned files, or dropped and counted",
    )
    max_rows: int | None = Field(None, gt=0, description="read only the first pairs of the corpus; null reads all")

    @pydantic.model_validator(mode="after")
    def _one_input(self) -> CorpusSettings:
        two_files = [name for name in ("source", "target") if getattr(self, name) not in (None, [])]
        if self.path is not None and two_files:
            raise ValueError(f"path and {' and '.join(two_files)} are both given; set one of them to null")
        if self.path is None and not two_files:
            raise ValueError("nothing to read: give source and target (two aligned files), or path")
        if self.path is None and len(two_files) == 1:
            raise ValueError(f"{two_files[0]} is given alone; source and target are two aligned files")
        if self.path is None and (names := self.idle("lines")):
            raise ValueError(f"{names} would change nothing: it is for path, not for source and target")
        return self

    def idle(self, kind: str) -> str:
        """Names of the settings that are given and change nothing for this kind of corpus."""
        fields = type(self).model_fields
        return " and ".join(name for name in _IDLE[kind] if getattr(self, name) != fields[name].default)

    @property
    def targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else list(self.target or [])


def load_pairs(
    settings: CorpusSettings,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    cache_dir: Path | str | None = None,
) -> datasets.Dataset:
    """Read a corpus.

    Args:
        settings: where it is.
        source_language: code such as `de` or `pt-BR`; finds the column or the TMX segment where none is named.
        target_language: likewise.
        cache_dir: where Arrow files are kept; the Hugging Face datasets cache by default.

    Returns:
        Memory-mapped dataset with `source` and `target` (and `references`, and further columns).

    Raises:
        DataError: the input cannot be used; the message names file and line.
        ConfigError: the settings do not fit the corpus.
    """
    if settings.path is not None and settings.path.startswith(BUILT_IN):
        return _built_in(settings, source_language, target_language)
    wanted = Wanted((settings.source_column, settings.target_column), (source_language, target_language))
    format_name = format_of(settings)
    corpus, contents = _open(settings, format_name, wanted)
    key = fingerprint(READER_VERSION, format_name, contents, wanted, settings.split, settings.empty, settings.max_rows)
    folder = cache_folder(cache_dir) / f"pairs-{key}"
    with file_lock(folder, timeout_seconds=-1):
        if is_complete(folder):
            logger.info("%s: read before, taken from %s", corpus.name, folder)
        else:
            with atomic_folder(folder, replace=True) as partial:
                step = {
                    "name": "load",
                    "settings": {"format": format_name, "empty": settings.empty, "max_rows": settings.max_rows},
                    **_write(partial / "data.arrow", corpus, settings),
                }
                write_json(partial / "steps.json", [step])
                mark_complete(partial)
    return datasets.Dataset.from_file(str(folder / "data.arrow"))


def count_several_references(dataset: datasets.Dataset) -> int:
    """How many pairs have more than one reference."""
    if "references" not in dataset.column_names:
        return 0
    tables = dataset.select_columns("references").with_format("arrow")
    starts = range(0, len(dataset), ROWS_AT_A_TIME)
    lengths = (pc.list_value_length(tables[start : start + ROWS_AT_A_TIME]["references"]) for start in starts)
    return sum(pc.sum(pc.greater(length, 1)).as_py() or 0 for length in lengths)


def cache_folder(cache_dir: Path | str | None) -> Path:
    return Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "hf_nmt"


def format_of(settings: CorpusSettings) -> str:
    """The format that `path` will be read as; `lines` for two aligned files.

    Raises:
        DataError: nothing is there, with the nearest name, or the name does not tell it.
    """
    if settings.path is None:
        return "lines"
    if settings.format != "auto":
        return settings.format
    path = Path(settings.path)
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if path.is_dir():
        return "arrow"
    if suffixes and suffixes[-1].lower() in _SUFFIXES:
        return _SUFFIXES[suffixes[-1].lower()]
    if path.exists():
        raise DataError(
            f"{path}: the ending of the name does not tell the format. Set format to tsv, csv, tmx, jsonl or parquet; "
            "two aligned text files are given as source and target."
        )
    if may_be_hub_id(settings.path) and not _ENDING.search(settings.path):
        return "hub"
    try:
        existing_file(path)
    except DataError as error:
        raise DataError(f"{error} A dataset of the Hub is given as owner/name, or with format=hub.") from None
    raise AssertionError(path)


def _open(settings: CorpusSettings, format_name: str, wanted: Wanted) -> tuple[Corpus, Any]:
    """The corpus and what identifies its contents."""
    if format_name == "lines":
        assert settings.source is not None
        files = [existing_file(name) for name in (settings.source, *settings.targets)]
        return readers.read_aligned(settings.source, settings.targets), [hash_file(file) for file in files]
    assert settings.path is not None
    path = Path(settings.path)
    if names := settings.idle(format_name):
        kind = "a saved dataset" if format_name == "arrow" else f"a single {format_name} file"
        raise ConfigError(f"{names} would change nothing: {path} is {kind}. Take it out.")
    if format_name in ("arrow", "hub"):
        return _open_dataset(settings, format_name, wanted)
    contents = hash_file(existing_file(path))
    openers = {
        "tsv": lambda: readers.read_delimited(path, wanted, delimiter="\t"),
        "csv": lambda: readers.read_delimited(path, wanted, delimiter=","),
        "tmx": lambda: readers.read_tmx(path, wanted),
        "jsonl": lambda: readers.read_jsonl(path, wanted),
        "parquet": lambda: readers.read_parquet(path, wanted),
    }
    return openers[format_name](), contents


def _open_dataset(settings: CorpusSettings, format_name: str, wanted: Wanted) -> tuple[Corpus, Any]:
    assert settings.path is not None
    name = settings.path
    try:
        if format_name == "hub":
            if settings.split is None:
                raise ConfigError(f"split is needed for the Hub dataset {name!r}, such as train: set it beside path.")
            loaded = datasets.load_dataset(name, settings.subset, split=settings.split)
        else:
            loaded = datasets.load_from_disk(name)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        what = (
            "folder was not written by Dataset.save_to_disk"
            if format_name == "arrow"
            else (
                "path is neither a file or folder here nor a dataset that could be loaded from the Hub (is it spelt "
                "right, is the network there, does it need a subset?)"
            )
        )
        raise DataError(f"{name}: this {what}. {type(error).__name__}: {error}") from error
    if isinstance(loaded, datasets.DatasetDict):
        names = list(loaded)
        if settings.split is None and len(names) > 1:
            raise ConfigError(f"split is needed: {name} holds {', '.join(names)}.")
        split = settings.split or names[0]
        if split not in loaded:
            near = nearest(split, names)
            hint = f" Did you mean {near!r}?" if near else ""
            raise ConfigError(f"split: {name} holds no split {split!r}, only {', '.join(names)}.{hint}")
        loaded = loaded[split]
    elif format_name == "arrow" and settings.split is not None:
        raise ConfigError(f"split would change nothing: {name} holds a single dataset. Take it out.")
    contents = hash_folder(name) if format_name == "arrow" else [name, settings.subset, loaded._fingerprint]
    tables = loaded.with_format("arrow")
    corpus = readers.read_tables(
        name if settings.split is None else f"{name} ({settings.split})",
        loaded.features.arrow_schema,
        (tables[start : start + ROWS_AT_A_TIME] for start in range(0, len(loaded), ROWS_AT_A_TIME)),
        wanted,
    )
    return corpus, contents


def _built_in(settings: CorpusSettings, source_language: str | None, target_language: str | None) -> datasets.Dataset:
    assert settings.path is not None
    size, splits = settings.path.removeprefix(BUILT_IN), ("train", "validation", "test")
    findings = []
    if size not in ("tiny", "full"):
        findings.append(f"path: the built-in corpora are {BUILT_IN}tiny and {BUILT_IN}full, not {settings.path!r}.")
    if settings.split not in splits:
        findings.append(f"split: the built-in corpus has {', '.join(splits)}; given was {settings.split!r}.")
    if (source_language or "ko", target_language or "en") != ("ko", "en"):
        findings.append(
            f"path: the built-in corpus is Korean to English (source_language=ko, target_language=en), not "
            f"{source_language} to {target_language}."
        )
    if names := settings.idle("built-in corpus"):
        findings.append(f"{names} would change nothing: {settings.path} is the built-in corpus. Take it out.")
    if findings:
        raise ConfigError(findings)
    from hf_nmt.data import controlled  # its word lists are read on import

    dataset = controlled.build(size, str(settings.split))
    return dataset if settings.max_rows is None else dataset.select(range(min(settings.max_rows, len(dataset))))


# Writing


def _write(path: Path, corpus: Corpus, settings: CorpusSettings) -> dict[str, Any]:
    """Stream a corpus into an Arrow file; returns how many pairs were kept and dropped for which reason."""
    dropped: Counter[str] = Counter()
    empty_at: list[int] = []
    kept = 0
    kept_pairs = _checked(corpus, settings, dropped, empty_at)
    with pa.OSFile(str(path), "wb") as file:
        writer: pa.RecordBatchStreamWriter | None = None
        batch: list[Pair] = []
        for pair in kept_pairs:
            if writer is None:
                schema = _schema(corpus, pair)
                writer = pa.ipc.new_stream(file, schema)
            batch.append(pair)
            kept += 1
            if len(batch) == ROWS_AT_A_TIME:
                writer.write_batch(_record_batch(corpus, schema, batch))
                batch = []
            if kept == settings.max_rows:
                break
        if batch:
            assert writer is not None
            writer.write_batch(_record_batch(corpus, schema, batch))
        if writer is not None:
            writer.close()
    if empty_at and settings.empty == "error":
        listed = ", ".join(map(str, empty_at[:10])) + (", ..." if len(empty_at) > 10 else "")
        raise DataError(
            f"{corpus.name}: {len(empty_at):,} pairs have an empty side ({corpus.unit} {listed}). If the corpus is "
            "aligned, set empty=drop to leave such pairs out."
        )
    if not kept:
        raise DataError(f"{corpus.name}: there is not a single pair with text on both sides.")
    if dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        logger.warning("%s: %s pairs kept, dropped: %s", corpus.name, f"{kept:,}", reasons)
    else:
        logger.info("%s: %s pairs", corpus.name, f"{kept:,}")
    return {"kept": kept, "dropped": dict(dropped)}


def _checked(corpus: Corpus, settings: CorpusSettings, dropped: Counter[str], empty_at: list[int]) -> Iterator[Pair]:
    for pair in corpus.pairs:
        if pair.source is None or pair.target is None:
            dropped["language_missing"] += 1
            continue
        texts = (pair.source, pair.target) if pair.references is None else (pair.source, *pair.references)
        if not all(texts) or not all(map(str.strip, texts)):
            if settings.empty == "error":
                empty_at.append(pair.number)
            dropped["empty"] += 1
            continue
        if any("\0" in text for text in texts):
            raise DataError(f"{corpus.at(pair.number)}: there is a NUL character in the text.")
        yield pair


def _schema(corpus: Corpus, first: Pair) -> pa.Schema:
    text = pa.string()
    fields = {"source": text, "target": text}
    if first.references is not None:
        fields["references"] = pa.list_(text)
    for name, value in first.other.items():
        known = (corpus.other or {}).get(name)
        inferred = pa.array([value]).type
        fields[name] = known or (text if pa.types.is_null(inferred) else inferred)
    return pa.schema(list(fields.items()))


def _record_batch(corpus: Corpus, schema: pa.Schema, pairs: list[Pair]) -> pa.RecordBatch:
    rows = []
    for pair in pairs:
        row = dict(pair.other, source=pair.source, target=pair.target)
        if pair.references is not None:
            row["references"] = pair.references
        if not row.keys() <= set(schema.names):
            name = (row.keys() - set(schema.names)).pop()
            raise DataError(
                f"{corpus.at(pair.number)}: the column {name!r} is not in the first record. Give every record the "
                "same columns; null stands for no value."
            )
        rows.append(row)
    try:
        return pa.RecordBatch.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _unfit(corpus, schema, pairs, rows) or error from error


def _unfit(corpus: Corpus, schema: pa.Schema, pairs: list[Pair], rows: list[dict[str, Any]]) -> DataError | None:
    """What to say about the first value that does not fit its column."""
    for pair, row in zip(pairs, rows, strict=True):
        for column in schema:
            try:
                pa.array([row.get(column.name)], type=column.type)
            except UnicodeEncodeError:
                return DataError(
                    f"{corpus.at(pair.number)}: the {column.name} holds half a surrogate pair, which is no character."
                )
            except (pa.ArrowException, TypeError, ValueError):
                return DataError(
                    f"{corpus.at(pair.number)}: {row[column.name]!r} in the column {column.name!r} is not of type "
                    f"{column.type} as in the first record."
                )
    return None
