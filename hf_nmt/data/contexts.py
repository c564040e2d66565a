"""Sentences with those before them in their article, for models that read more than one sentence.

As in the 2+1 systems of Tiedemann and Scherrer (2017) the sources are joined, with a separator between them, and the
target stays the translation of the last one alone, so that a translation is a line again and is scored as any other.
A window never crosses an article: the sentences before are those of the same article, origin and pair of languages
with a lower `position`. A sentence that is not in the corpus leaves no gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.artifacts import atomic_folder, file_lock, is_complete, mark_complete
from hf_nmt.config import fingerprint
from hf_nmt.data.sources import cache_folder
from hf_nmt.data.text_bytes import whole
from hf_nmt.errors import DataError
from hf_nmt.protocols import CONTEXT_SEPARATOR

# Part of every cache key: raise it when the same rows would be joined differently.
_VERSION = 1
_NEEDED = ("article", "position")
_SEQUENCE = ("article", "origin", "source_language", "target_language")
_ROWS_AT_A_TIME = 10_000


def check_articles(rows: datasets.Dataset | None, place: str) -> None:
    """
    Args:
        rows: that are to get context.
        place: what messages call them.

    Raises:
        DataError: they do not tell their articles, or no two of them are of the same one.
    """
    if rows is None:
        return
    if missing := [name for name in _NEEDED if name not in rows.column_names]:
        raise DataError(
            f"{place}: the rows have no column {' and no column '.join(missing)}, and sentences before a sentence are "
            "those of its article with a lower position. Give such columns, or leave data.context_sentences out."
        )
    if not (previous_in_article(rows) >= 0).any():
        raise DataError(
            f"{place}: no two rows are of the same article, or they have no position, so that none has a sentence "
            "before it. Leave data.context_sentences out."
        )


def previous_in_article(rows: datasets.Dataset) -> np.ndarray:
    """For each row the one before it in its article, -1 where there is none: (N,). Rows without an article or a
    position have none; of equal positions the row that comes first is the first."""
    previous = np.full(len(rows), -1, np.int64)
    if any(name not in rows.column_names for name in _NEEDED):
        return previous
    names = [name for name in _SEQUENCE if name in rows.column_names]
    table = rows.select_columns([*names, "position"]).with_format("arrow")[:]
    placed = np.flatnonzero(pc.and_(pc.is_valid(table["article"]), pc.is_valid(table["position"])).to_numpy())
    codes = [_codes(table[name].combine_chunks())[placed] for name in names]
    position = pc.fill_null(table["position"], 0).cast(pa.int64()).to_numpy()[placed]
    order = np.lexsort((placed, position, *codes))
    same = np.ones(max(len(order) - 1, 0), bool)
    for code in codes:
        same &= code[order[1:]] == code[order[:-1]]
    previous[placed[order[1:][same]]] = placed[order[:-1][same]]
    return previous


def _codes(texts: pa.Array) -> np.ndarray:
    return pc.fill_null(texts.dictionary_encode().indices.cast(pa.int64()), -1).to_numpy()


def places_before(rows: np.ndarray, previous: np.ndarray, sentences: int) -> list[np.ndarray]:
    """Up to so many rows before each of `rows`, the nearest first; -1 where there are fewer.

    Args:
        rows: (M,).
        previous: as `previous_in_article`.
        sentences: how many.
    """
    found, at = [], rows
    for _ in range(sentences):
        at = np.where(at >= 0, previous[at], -1)
        found.append(at)
    return found


def joined(sources: Sequence[str], previous: np.ndarray, sentences: int) -> list[str]:
    """Each source after up to so many before it, with CONTEXT_SEPARATOR between them."""
    before = places_before(np.arange(len(sources)), previous, sentences)
    return [
        f" {CONTEXT_SEPARATOR} ".join([*(sources[at] for at in reversed(places) if at >= 0), source])
        for source, *places in zip(sources, *(one.tolist() for one in before), strict=True)
    ]


def with_context(rows: datasets.Dataset, sentences: int, *, cache_dir: Path | str | None = None) -> datasets.Dataset:
    """The rows with sources that have up to so many sentences of their article before them, memory-mapped.

    Args:
        rows: with `article` and `position`.
        sentences: how many; 0 gives the rows as they are.
        cache_dir: as for `data.sources.load_pairs`.
    """
    if not sentences:
        return rows
    previous = previous_in_article(rows)
    files = [(file["filename"], Path(file["filename"]).stat().st_mtime_ns) for file in rows.cache_files]
    key = fingerprint(_VERSION, sentences, rows._fingerprint, files, len(rows))
    folder = cache_folder(cache_dir) / f"context-{key}"
    schema = pa.schema([("source", pa.string())])
    with file_lock(folder, timeout_seconds=-1):
        if not is_complete(folder):
            with atomic_folder(folder, replace=True) as partial:
                with pa.OSFile(str(partial / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
                    for start in range(0, len(rows), _ROWS_AT_A_TIME):
                        part = np.arange(start, min(start + _ROWS_AT_A_TIME, len(rows)))
                        writer.write_table(pa.table([_sources(rows, part, previous, sentences)], schema=schema))
                mark_complete(partial)
    texts = datasets.Dataset.from_file(str(folder / "data.arrow"))
    return datasets.concatenate_datasets([rows.remove_columns("source"), texts], axis=1)


def _sources(rows: datasets.Dataset, part: np.ndarray, previous: np.ndarray, sentences: int) -> pa.Array:
    places = [*reversed(places_before(part, previous, sentences)), part]
    needed, at = np.unique(np.concatenate(places), return_inverse=True)
    has_none = len(needed) > 0 and needed[0] < 0
    found: Any = rows.select_columns("source").with_format("arrow")[needed[int(has_none) :].tolist()]
    texts = whole(found["source"])
    numbers = at.reshape(len(places), len(part)) - int(has_none)
    columns = [texts.take(pa.array(row, pa.int64(), mask=row < 0)) for row in numbers]
    return pc.binary_join_element_wise(*columns, f" {CONTEXT_SEPARATOR} ", null_handling="skip")
