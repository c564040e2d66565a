"""Corpora of several language pairs as one: each row names its languages, and everything stays on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow as pa

from hf_nmt import language
from hf_nmt.artifacts import atomic_folder, file_lock, is_complete, mark_complete
from hf_nmt.config import Settings, fingerprint
from hf_nmt.data.sources import CorpusSettings, cache_folder, keys_told, load_pairs
from hf_nmt.errors import DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS, languages_named

# What mixtures keep; other columns of their parts need not agree.
_COLUMNS = ("source", "target", "references", *LANGUAGE_COLUMNS)
_ROWS_AT_A_TIME = 100_000


def languages_of_pair(
    name: str, source_language: str | None, target_language: str | None
) -> tuple[str | None, str | None]:
    """The languages of a pair that a user has named: as given, else by a name like `de-en`, else None."""
    told = languages_named(name)
    return source_language or told[0], target_language or told[1]


def given_beside_pairs(settings: Settings, *keys: str) -> list[str]:
    """A finding for each of the keys that is given although `pairs` is."""
    return [
        f"{name}: given together with data.pairs, where each pair has its own. Leave one of them out."
        for name in keys
        if getattr(settings, name) is not None
    ]


def unnamed_languages(name: str, languages: tuple[str | None, str | None]) -> list[str]:
    """A finding for each language of an entry of `pairs` that nothing tells."""
    return [
        f"pairs.{name}.{side}: not given, and the name {name!r} does not tell it as one like de-en would. Write the "
        "code of the language."
        for side, code in zip(LANGUAGE_COLUMNS, languages, strict=True)
        if code is None
    ]


def problems_of_codes(settings: Settings, pairs: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """A finding for each code of a language, of the settings or of their pairs, that is none."""
    given = {name: getattr(settings, name) for name in LANGUAGE_COLUMNS}
    for name, languages in pairs.items():
        given |= {f"pairs.{name}.{side}": code for side, code in zip(LANGUAGE_COLUMNS, languages, strict=True)}
    return [f"{name}: {told}" for name, code in given.items() if code and (told := language.problem_of(code))]


def join_pairs(
    corpora: Mapping[str, tuple[str | None, str | None, CorpusSettings]],
    split: str,
    *,
    keep: Sequence[str] = (),
    names_in: str | None = None,
) -> datasets.Dataset:
    """Read the corpora of several language pairs and join their rows, each with its languages.

    Args:
        corpora: name of the pair -> source and target language, and where the rows are.
        split: the key of these corpora in `data.pairs.<name>`, for messages.
        keep: further columns to keep, null in the rows of a corpus without them.
        names_in: a column for the name of the pair.

    Raises:
        DataError, ConfigError: as `load_pairs`; the rows of a corpus name languages of their own.
    """
    parts = []
    for name, (source, target, settings) in corpora.items():
        assert source is not None and target is not None
        with keys_told(f"data.pairs.{name}.{split}"):
            rows = load_pairs(settings, source_language=source, target_language=target)
        with told_of(name, split):
            part = with_languages(rows, source, target)
        parts.append(part if names_in is None else with_texts(part, {names_in: name}))
    return joined(parts, keep=[*keep, *([] if names_in is None else [names_in])])


@contextmanager
def told_of(name: str, split: str) -> Iterator[None]:
    """Say in errors which of the pairs they are about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"data.pairs.{name}.{split}: {error}") from error


def refuse_own_languages(columns: Sequence[str]) -> None:
    """
    Raises:
        DataError: rows with these columns name languages of their own, where those of a pair are meant.
    """
    if named := [name for name in LANGUAGE_COLUMNS if name in columns]:
        raise DataError(
            f"The corpus has a column {named[0]}: its rows name their languages themselves. Give it by itself in "
            "place of pairs, or take the column out of it."
        )


def with_languages(
    rows: datasets.Dataset, source_language: str, target_language: str, *, cache_dir: Path | str | None = None
) -> datasets.Dataset:
    """The rows with `LANGUAGE_COLUMNS` that say the same in each, memory-mapped as the rows are.

    Args:
        rows: from `load_pairs`.
        cache_dir: as for `load_pairs`.

    Raises:
        DataError: the rows name languages of their own.
    """
    refuse_own_languages(rows.column_names)
    values = dict(zip(LANGUAGE_COLUMNS, (source_language, target_language), strict=True))
    return with_texts(rows, values, cache_dir=cache_dir)


def with_texts(
    rows: datasets.Dataset, values: Mapping[str, str], *, cache_dir: Path | str | None = None
) -> datasets.Dataset:
    """The rows with columns that say the same in each, memory-mapped as the rows are; one of such a name goes."""
    rows = rows.remove_columns([name for name in values if name in rows.column_names])
    schema = pa.schema([(name, pa.string()) for name in values])
    folder = cache_folder(cache_dir) / f"constants-{fingerprint(dict(values), len(rows))}"
    with file_lock(folder, timeout_seconds=-1):
        if not is_complete(folder):
            with atomic_folder(folder, replace=True) as partial:
                with pa.OSFile(str(partial / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
                    for start in range(0, len(rows), _ROWS_AT_A_TIME):
                        count = min(_ROWS_AT_A_TIME, len(rows) - start)
                        columns = [pa.array([text] * count) for text in values.values()]
                        writer.write_table(pa.table(columns, schema=schema))
                mark_complete(partial)
    texts = datasets.Dataset.from_file(str(folder / "data.arrow"))
    return datasets.concatenate_datasets([rows, texts], axis=1)


def joined(parts: Sequence[datasets.Dataset], *, keep: Sequence[str] = ()) -> datasets.Dataset:
    """Rows of several corpora one after another; `references`, and what else is to be kept, is null in those of a part
    without them."""
    wanted = (*_COLUMNS, *keep)
    chosen = [part.select_columns([name for name in wanted if name in part.column_names]) for part in parts]
    return datasets.concatenate_datasets(chosen)
