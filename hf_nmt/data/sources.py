"""Parallel text from any of the usual files, as a memory-mapped dataset.

`load_pairs` is the one entrance: what it returns has the columns `source` and `target`, `references` where the corpus
has several, and whatever further columns the corpus carries. It is written once to a cache keyed by the contents of
the input, so that the second call opens it at once, and memory does not grow with the corpus.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

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
from hf_nmt.data.readers import ROWS_AT_A_TIME, Corpus, Wanted
from hf_nmt.data.tables import CorpusTables
from hf_nmt.data.text_lines import existing_file
from hf_nmt.data.version_reading import contents_of_split, is_version, open_split
from hf_nmt.errors import ConfigError, DataError

if TYPE_CHECKING:  # its import takes a second; cleaning needs it for few formats
    import datasets

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
    "version": ("subset", *_COLUMNS),
    "hub": (),
}

# The ending of a file, such as in `data/pairs.txt`, but not in the Hub's `wmt/v1.0`.
_ENDING = re.compile(r"\.[A-Za-z]\w*$")


class CorpusFiles(Settings):
    """Where parallel text lies: two aligned files (`source`, `target`), or one `path` that holds both sides."""

    places: ClassVar[tuple[str, ...]] = ("source", "target", "path")

    source: str | None = Field(None, description="text file of source sentences, one a line, UTF-8, plain or .gz")
    target: str | list[str] | None = Field(
        None,
        description="text file whose line n translates line n of source; a list of files gives several references",
    )
    path: str | None = Field(
        None,
        description="one file or folder with both sides: .tsv, .csv, .tmx, .jsonl (each also .gz), .parquet, a folder "
        "of Dataset.save_to_disk, a version of a corpus (processed_data/v<date>-<hash>), a dataset of the Hub as "
        "owner/name, or the built-in controlled/tiny and controlled/full",
    )
    format: Literal["auto", "tsv", "csv", "tmx", "jsonl", "parquet", "arrow", "hub"] = Field(
        "auto",
        description="format of path; auto goes by the ending of its name, and asks the Hub for owner/name where no "
        "folder owner is here; hub asks it for any name",
    )
    subset: str | None = Field(None, description="configuration of a Hub dataset, such as de-en")
    split: str | None = Field(
        None, description="split of a Hub dataset, a saved DatasetDict, a version of a corpus or the built-in corpus"
    )
    source_column: str | None = Field(
        None,
        description="column of the source: a name, or in TSV and CSV without a header a number from 1; null looks for "
        "'source', the language code, and the code inside 'translation'",
    )
    target_column: str | None = Field(None, description="column of the target, as source_column")
    max_rows: int | None = Field(None, gt=0, description="read only the first pairs of the corpus; null reads all")

    @pydantic.model_validator(mode="after")
    def _one_input(self) -> Self:
        two_files = [name for name in ("source", "target") if getattr(self, name) not in (None, [])]
        if self.path is not None and two_files:
            raise ConfigError(
                f"path: given together with {' and '.join(two_files)}, which are another corpus. Leave one of them "
                "out; null takes back what a settings file gives."
            )
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
        return " and ".join(
            name for name in _IDLE[kind] if name in fields and getattr(self, name) != fields[name].default
        )

    @property
    def targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else list(self.target or [])


class CorpusSettings(CorpusFiles):
    """Parallel text to train on or to score, and what is done about pairs that are none."""

    empty: Literal["error", "drop"] = Field(
        "error",
        description="pairs with an empty side are refused, as they may mean misaligned files, or dropped and counted",
    )


Files = TypeVar("Files", bound=CorpusFiles)

_KEYS = re.compile(rf"(?<![\w.=-])({'|'.join(CorpusSettings.model_fields)})(?==\w)")


@contextlib.contextmanager
def keys_told(place: str) -> Iterator[None]:
    """Write the keys of a corpus in errors as they are typed, such as `data.train.empty=drop`.

    Args:
        place: key of the corpus.
    """
    try:
        yield
    except DataError as error:
        raise DataError(_KEYS.sub(rf"{place}.\1", str(error))) from error
    except ConfigError as error:
        told = [_KEYS.sub(rf"{place}.\1", finding) for finding in error.findings]
        keys = tuple(f"{name}:" for name in CorpusSettings.model_fields)
        raise ConfigError(
            [f"{place}.{finding}" if finding.startswith(keys) else f"{place}: {finding}" for finding in told]
        ) from error


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
        return built_in(settings, source_language, target_language)
    wanted = Wanted((settings.source_column, settings.target_column), (source_language, target_language))
    format_name = format_of(settings)
    corpus, contents = opened(settings, format_name, wanted)
    tables = CorpusTables(corpus, empty=settings.empty, max_rows=settings.max_rows)
    key = fingerprint(READER_VERSION, format_name, contents, wanted, settings.split, settings.empty, settings.max_rows)
    step = {"format": format_name, "empty": settings.empty, "max_rows": settings.max_rows}
    return store(tables, cache_folder(cache_dir) / f"pairs-{key}", step)


def store(tables: CorpusTables, folder: Path, settings: dict[str, Any]) -> datasets.Dataset:
    """Keep rows in a folder and map them from there; what lies there already is taken as it is.

    Args:
        tables: read only where nothing is there.
        folder: named by what determines the rows.
        settings: of the step that is recorded (`manifest.recorded_steps`).
    """
    name = tables.corpus.name
    with file_lock(folder, timeout_seconds=-1):
        if is_complete(folder):
            logger.info("%s: read before, taken from %s", name, folder)
        else:
            with atomic_folder(folder, replace=True) as partial:
                with pa.OSFile(str(partial / "data.arrow"), "wb") as file, contextlib.ExitStack() as stack:
                    writer: pa.RecordBatchStreamWriter | None = None
                    for batch in tables:
                        if writer is None:
                            writer = stack.enter_context(pa.ipc.new_stream(file, batch.schema))
                        writer.write_batch(batch)
                counts = {"kept": tables.kept, "dropped": dict(tables.dropped)}
                write_json(partial / "steps.json", [{"name": "load", "settings": settings, **counts}])
                mark_complete(partial)
            if tables.dropped:
                reasons = ", ".join(f"{count:,} {reason}" for reason, count in tables.dropped.items())
                logger.warning("%s: %s pairs kept, dropped: %s", name, f"{tables.kept:,}", reasons)
            else:
                logger.info("%s: %s pairs", name, f"{tables.kept:,}")
    import datasets

    return datasets.Dataset.from_file(str(folder / "data.arrow"))


def count_several_references(dataset: datasets.Dataset) -> int:
    """How many pairs have more than one reference."""
    if "references" not in dataset.column_names:
        return 0
    tables = dataset.select_columns("references").with_format("arrow")
    starts = range(0, len(dataset), ROWS_AT_A_TIME)
    lengths = (pc.list_value_length(tables[start : start + ROWS_AT_A_TIME]["references"]) for start in starts)
    return sum(pc.sum(pc.greater(length, 1)).as_py() or 0 for length in lengths)


def count_copies(dataset: datasets.Dataset) -> int:
    """How many pairs have the same text on both sides."""
    tables = dataset.select_columns(["source", "target"]).with_format("arrow")
    chunks = (tables[start : start + ROWS_AT_A_TIME] for start in range(0, len(dataset), ROWS_AT_A_TIME))
    return sum(pc.sum(pc.equal(chunk["source"], chunk["target"])).as_py() or 0 for chunk in chunks)


def cache_folder(cache_dir: Path | str | None) -> Path:
    import datasets

    return Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "hf_nmt"


def format_of(settings: CorpusFiles) -> str:
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
        return "version" if is_version(path) else "arrow"
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


def in_split(settings: Files, name: str) -> Files:
    """The same corpus; of a version of a corpus without a split the one of this name."""
    if settings.path is None or settings.split is not None or not is_version(settings.path):
        return settings
    return settings.model_copy(update={"split": name})


def check_settings(settings: CorpusFiles, format_name: str) -> None:
    """Refuse settings that change nothing for a corpus of this format, and names of files that are not there."""
    if format_name == "lines":
        for name in (settings.source, *settings.targets):
            existing_file(str(name))
        return
    if names := settings.idle(format_name):
        kinds = {"arrow": "a saved dataset", "version": "a version of a corpus"}
        kind = kinds.get(format_name, f"a single {format_name} file")
        raise ConfigError(f"{names} would change nothing: {Path(str(settings.path))} is {kind}. Take it out.")
    if format_name == "hub" and settings.split is None:
        raise ConfigError(f"split is needed for the Hub dataset {settings.path!r}, such as train: set it beside path.")
    if format_name not in ("arrow", "version", "hub"):
        existing_file(str(settings.path))


def contents_of(settings: CorpusFiles, format_name: str) -> Any:
    """What identifies the contents of files, wherever they lie: hashes of all their bytes.

    Raises:
        DataError: one cannot be read.
    """
    try:
        if format_name == "lines":
            return [hash_file(str(name)) for name in (settings.source, *settings.targets)]
        if format_name == "version":
            return contents_of_split(str(settings.path), settings.split)
        return (hash_folder if format_name == "arrow" else hash_file)(str(settings.path))
    except OSError as error:
        name = error.filename or settings.path or " or ".join([str(settings.source), *settings.targets])
        raise DataError(f"{name}: the file cannot be read: {error.strerror or error}.") from error


def open_corpus(settings: CorpusFiles, format_name: str, wanted: Wanted) -> Corpus:
    """A corpus of files, to be read once."""
    if format_name == "lines":
        assert settings.source is not None
        return readers.read_aligned(settings.source, settings.targets)
    path = Path(str(settings.path))
    openers = {
        "tsv": lambda: readers.read_delimited(path, wanted, delimiter="\t"),
        "csv": lambda: readers.read_delimited(path, wanted, delimiter=","),
        "tmx": lambda: readers.read_tmx(path, wanted),
        "jsonl": lambda: readers.read_jsonl(path, wanted),
        "parquet": lambda: readers.read_parquet(path, wanted),
        "arrow": lambda: _rows_of(saved(settings), settings, wanted),
        "version": lambda: open_split(path, settings.split, wanted),
    }
    return openers[format_name]()


def opened(settings: CorpusFiles, format_name: str, wanted: Wanted) -> tuple[Corpus, Any]:
    """A corpus of files or of the Hub, checked and to be read once, and what identifies its contents."""
    check_settings(settings, format_name)
    if format_name == "hub":
        return _open_hub(settings, wanted)
    return open_corpus(settings, format_name, wanted), contents_of(settings, format_name)


@contextlib.contextmanager
def loading(name: str, what: str) -> Iterator[None]:
    """Tell what `datasets` raises as a fault of the data."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: this {what}. {type(error).__name__}: {error}") from error


NO_HUB_DATASET = (
    "path is neither a file or folder here nor a dataset that could be loaded from the Hub (is it spelt right, is the "
    "network there, does it need a subset?)"
)


def _open_hub(settings: CorpusFiles, wanted: Wanted) -> tuple[Corpus, Any]:
    """A dataset of the Hub, downloaded, and what identifies it."""
    import datasets

    assert settings.path is not None
    with loading(settings.path, NO_HUB_DATASET):
        loaded = datasets.load_dataset(settings.path, settings.subset, split=settings.split)
    return _rows_of(loaded, settings, wanted), [settings.path, settings.subset, loaded._fingerprint]


def saved(settings: CorpusFiles) -> datasets.Dataset:
    """What `Dataset.save_to_disk` wrote, or the split of it that is asked for."""
    import datasets

    assert settings.path is not None
    name = settings.path
    with loading(name, "folder was not written by Dataset.save_to_disk"):
        loaded = datasets.load_from_disk(name)
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
    elif settings.split is not None:
        raise ConfigError(f"split would change nothing: {name} holds a single dataset. Take it out.")
    return loaded


def _rows_of(loaded: datasets.Dataset, settings: CorpusFiles, wanted: Wanted) -> Corpus:
    tables = loaded.with_format("arrow")
    return readers.read_tables(
        title_of(settings),
        loaded.features.arrow_schema,
        (tables[start : start + ROWS_AT_A_TIME] for start in range(0, len(loaded), ROWS_AT_A_TIME)),
        wanted,
    )


def title_of(settings: CorpusFiles) -> str:
    """What messages call a dataset."""
    return str(settings.path) if settings.split is None else f"{settings.path} ({settings.split})"


def built_in(settings: CorpusSettings, source_language: str | None, target_language: str | None) -> datasets.Dataset:
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
