"""Token ids of sentence pairs, computed once and kept on disk."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from hf_nmt.artifacts import atomic_folder, file_lock, is_complete, mark_complete, write_json
from hf_nmt.batching.pair_encoder import PairEncoder
from hf_nmt.config import fingerprint
from hf_nmt.errors import DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS

logger = logging.getLogger(__name__)

# Part of every cache key: raise it when the same pairs would be encoded differently.
ENCODING_VERSION = 2
# The lengths once more, as plain int32 that can be mapped: batches are made out of them.
_LENGTH_FILES = ("source_length.int32", "target_length.int32")
_PAIRS_AT_A_TIME = 10_000
_SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.list_(pa.int32()),
        "source_length": pa.int32(),
        "target_length": pa.int32(),
    }
)


def encode_pairs(
    dataset: datasets.Dataset,
    encoder: PairEncoder,
    *,
    cache_dir: Path | str | None = None,
    keep_text: bool = False,
    keep: Sequence[str] = (),
) -> datasets.Dataset:
    """Encode `source` and `target`; the result is kept, and found again for the same texts, tokenizer and limits.

    How many pairs were kept, dropped and cut is logged and lies beside the result (`manifest.recorded_steps`).

    Args:
        dataset: rows with `source` and `target`, and `LANGUAGE_COLUMNS` where there are several languages.
        encoder: makes the ids.
        cache_dir: where Arrow files are kept; the Hugging Face datasets cache by default.
        keep_text: keep `source` and `target`, for `SampledPairs`.
        keep: further columns of text to keep.

    Returns:
        Memory-mapped dataset with int32 `input_ids`, `labels`, `source_length` and `target_length`, and the language
        columns that were there.

    Raises:
        DataError: a pair is too long and `too_long` is `error`, or no pair is left.
        ConfigError: the model does not have the language of a row.
    """
    limits = encoder.limits()
    kept = [name for name in (*LANGUAGE_COLUMNS, *keep) if name in dataset.column_names]
    key = fingerprint(ENCODING_VERSION, _hash_texts(dataset, kept), encoder.fingerprint(), limits, keep_text)
    root = Path(cache_dir) if cache_dir is not None else Path(datasets.config.HF_DATASETS_CACHE) / "hf_nmt"
    folder = root / f"encoded-{key}"
    kept += ["source", "target"] if keep_text else []
    with file_lock(folder, timeout_seconds=-1):
        if not is_complete(folder):
            with atomic_folder(folder, replace=True) as partial:
                counts = _write(partial / "data.arrow", dataset, encoder, kept)
                write_json(partial / "steps.json", [{"name": "encode", "settings": limits, **counts}])
                mark_complete(partial)
    _tell(json.loads((folder / "steps.json").read_text(encoding="utf-8")))
    return datasets.Dataset.from_file(str(folder / "data.arrow"))


def _tell(steps: list[dict[str, Any]]) -> None:
    """Log what was dropped and cut; of pairs found in the cache too, as every run trains without them."""
    for step in steps:
        given = step["kept"] + sum(step["dropped"].values())
        for what in ("dropped", "changed"):
            for reason, count in step[what].items():
                logger.warning("encoding: %s of %s pairs %s: %s", f"{count:,}", f"{given:,}", what, reason)


def length_columns(encoded: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """`source_length` and `target_length` as int32 arrays of shape (N,): memory-mapped for what `encode_pairs`
    returned, read into memory for a selection of it."""
    files = [Path(file["filename"]) for file in encoded.cache_files]
    if encoded._indices is None and len(files) == 1:
        paths = [files[0].with_name(name) for name in _LENGTH_FILES]
        if all(path.is_file() and path.stat().st_size == 4 * len(encoded) for path in paths):
            source, target = (np.memmap(path, dtype=np.int32, mode="r") for path in paths)
            return source, target
    table = encoded.select_columns(["source_length", "target_length"]).with_format("arrow")[:]
    return table["source_length"].to_numpy(), table["target_length"].to_numpy()


def _batches(dataset: datasets.Dataset, columns: list[str]) -> Iterator[pa.Table]:
    tables = dataset.select_columns(columns).with_format("arrow")
    for start in range(0, len(dataset), _PAIRS_AT_A_TIME):
        yield tables[start : start + _PAIRS_AT_A_TIME]


class _HashSink(io.RawIOBase):
    """A file that only keeps the hash of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)


def _hash_texts(dataset: datasets.Dataset, language_columns: list[str]) -> str:
    names = ["source", "target", *language_columns]
    return hash_tables(_batches(dataset, names), names)


def hash_tables(tables: Iterable[pa.Table], names: Sequence[str], before: str = "") -> str:
    """SHA-256 in hex of tables of text with these columns, and of the hash of what came before."""
    schema = pa.schema([(name, pa.string()) for name in names])
    sink = _HashSink()
    sink.digest.update(before.encode())
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(None).cast(schema).combine_chunks())
    return sink.digest.hexdigest()


def _write(path: Path, dataset: datasets.Dataset, encoder: PairEncoder, kept_columns: list[str]) -> dict[str, Any]:
    """Encode into an Arrow file; returns the counts of a step."""
    counts: dict[str, Counter[str]] = {"dropped": Counter(), "changed": Counter()}
    schema = pa.schema([*_SCHEMA, *(pa.field(name, pa.string()) for name in kept_columns)])
    columns = list(dict.fromkeys(["source", "target", *kept_columns]))
    columns += [name for name in LANGUAGE_COLUMNS if name in dataset.column_names and name not in columns]
    kept = 0
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
        path.with_name(_LENGTH_FILES[0]).open("wb") as source_lengths,
        path.with_name(_LENGTH_FILES[1]).open("wb") as target_lengths,
        _old_objects_left_alone(),
        tqdm(total=len(dataset), desc="Encoding", unit=" pairs", disable=None) as progress,
    ):
        for start, table in zip(range(0, len(dataset), _PAIRS_AT_A_TIME), _batches(dataset, columns), strict=True):
            encoded = encoder({name: table[name].to_pylist() for name in columns}, first=start)
            source, target = _list_array(encoded.input_ids), _list_array(encoded.labels)
            arrays = [source, target, source.value_lengths(), target.value_lengths()]
            arrays += [table[name].filter(pa.array(encoded.kept)) for name in kept_columns]
            writer.write_table(pa.table(arrays, schema=schema))
            source_lengths.write(arrays[2].to_numpy())
            target_lengths.write(arrays[3].to_numpy())
            counts["dropped"] += encoded.dropped
            counts["changed"] += encoded.changed
            kept += len(source)
            progress.update(len(table))
    if not kept:
        raise DataError(
            f"None of {len(dataset):,} pairs is within max_source_length={encoder.settings.max_source_length} and "
            f"max_target_length={encoder.settings.max_target_length} tokens. Raise the limits."
        )
    # `+` leaves out zeros: pairs too long on the target side that had all gone for their source.
    return {"kept": kept, **{what: dict(+reasons) for what, reasons in counts.items()}}


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Millions of lists of ids set off the garbage collector again and again; it need not search all modules then."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _list_array(rows: list[list[int]]) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
