"""The canonical line of a record, by which it is known, and the hash of many.

The line of a record is its JSON without null columns, keys sorted, no spaces, in UTF-8. A single reference says
nothing that `target` does not, so it is left out. The id of a line is its SHA-256, and the hash of many the SHA-256
over all of them, each closed by a line feed, sorted by id.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.data.text_bytes import binaries_of, bytes_of, rows_with, whole

# Lines are shared out to this many temporary files by the first bits of their id and sorted file by file, so memory
# holds one part of the corpus at a time, and of the others so many bytes each.
_PARTS = 64
_BYTES_IN_MEMORY = 2**19
_ROWS_AT_A_TIME = 10_000
_DIGEST_BYTES = 32
_TEXT = pa.large_string()


def canonical_line(record: Mapping[str, Any]) -> bytes:
    """A record as the line that is hashed, without the line feed."""
    values = {name: value for name, value in record.items() if value is not None}
    if values.get("references") == [values.get("target")]:
        del values["references"]
    return _json(values).encode()


def canonical_lines(table: pa.Table) -> pa.Array:
    """`canonical_line` of every record of a table, as large binaries; column by column, which takes a tenth of the
    time."""
    return _lines(table, "").cast(pa.large_binary())


def _lines(table: pa.Table, close: str) -> pa.Array:
    fields = [one for one in (_field(table, name) for name in sorted(table.column_names)) if one is not None]
    if not fields:
        return pa.repeat(pa.scalar("{}" + close, _TEXT), len(table))
    if any(isinstance(part, pa.Array) and part.null_count for parts in fields for part in parts):
        columns = [_joined(*parts) for parts in fields]
        line = pc.binary_join_element_wise(*columns, pa.scalar(",", _TEXT), null_handling="skip")
        return _joined("{", line, "}" + close)
    parts = [part for field in fields for part in (",", *field)]
    line = _joined("{", *parts[1:], "}" + close)  # in one go
    return pa.repeat(line, len(table)) if isinstance(line, pa.Scalar) else line


def _joined(*parts: str | pa.Array) -> pa.Array:
    """Texts and columns side by side; null where one of them is."""
    columns: list[pa.Scalar | pa.Array] = []
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            columns += [pa.scalar(text, _TEXT), part] if text else [part]
            text = ""
    return pc.binary_join_element_wise(*columns, pa.scalar(text, _TEXT), pa.scalar("", _TEXT))


def _field(table: pa.Table, name: str) -> list[str | pa.Array] | None:
    """Name and values of a column in JSON, in parts to be joined, null where a value is null; None where all are."""
    column, key = whole(table[name]), _json(name) + ":"
    if column.null_count == len(column):
        return None
    if pa.types.is_integer(column.type):
        return [key, column.cast(_TEXT)]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        if not column.null_count and len(set(column.slice(0, 2).to_pylist())) == 1 and _all_the_same(column):
            return [key + _json(column[0].as_py())]
        return [key + '"', _escaped(column.cast(_TEXT)), '"']
    values = column.to_pylist()
    if name == "references" and "target" in table.column_names:
        targets = table["target"].to_pylist()
        values = [None if one == [target] else one for one, target in zip(values, targets, strict=True)]
    texts = pa.array([None if value is None else _json(value) for value in values], _TEXT)
    return None if texts.null_count == len(texts) else [key, texts]


def _all_the_same(column: pa.Array) -> bool:
    return bool(pc.all(pc.equal(column, column[0])).as_py())


def _escaped(texts: pa.Array) -> pa.Array:
    line, starts = bytes_of(texts)
    rows = rows_with((line < ord(" ")) | (line == ord('"')) | (line == ord("\\")), starts)
    if not rows.any():
        return texts
    few = texts.filter(pa.array(rows)).to_pylist()
    return pc.replace_with_mask(texts, pa.array(rows), pa.array([encode_basestring(one)[1:-1] for one in few], _TEXT))


def digests_of(lines: pa.Array) -> np.ndarray:
    """SHA-256 of binaries: (N, 32) bytes."""
    line, starts = bytes_of(lines)
    return _digests(line, starts[:-1], starts[1:])


def _digests(line: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    view, places = line.data, zip(starts.tolist(), ends.tolist(), strict=True)
    found = b"".join([hashlib.sha256(view[start:end]).digest() for start, end in places])
    return np.frombuffer(found, np.uint8).reshape(-1, _DIGEST_BYTES)


def hash_of_lines(lines: Iterable[bytes]) -> str:
    """The hash of canonical lines in hex, in bounded memory."""
    rest = iter(lines)
    batches = iter(lambda: list(itertools.islice(rest, _ROWS_AT_A_TIME)), [])
    return _hash_of(pa.array([line + b"\n" for line in batch], pa.large_binary()) for batch in batches)


def hash_of_tables(tables: Iterable[pa.Table]) -> str:
    return _hash_of(
        _lines(table.slice(start, _ROWS_AT_A_TIME), "\n")
        for table in tables
        for start in range(0, len(table), _ROWS_AT_A_TIME)
    )


def _hash_of(batches: Iterable[pa.Array]) -> str:
    """The hash of lines that are closed."""
    with contextlib.ExitStack() as stack:
        spooled = functools.partial(tempfile.SpooledTemporaryFile, _BYTES_IN_MEMORY)
        files = [[stack.enter_context(spooled()) for _ in range(2)] for _ in range(_PARTS)]
        for lines in batches:
            line, starts = bytes_of(lines)
            digests = _digests(line, starts[:-1], starts[1:] - 1)
            parts = digests[:, 0].astype(np.int64) * _PARTS // 256
            order = np.argsort(parts, kind="stable")
            line, starts = bytes_of(lines.take(pa.array(order)))
            cuts = np.searchsorted(parts[order], np.arange(_PARTS + 1))
            for (texts, ids), start, end in zip(files, cuts, cuts[1:], strict=False):
                texts.write(line[starts[start] : starts[end]].data)
                ids.write(digests[order[start:end]].data)
        digest = hashlib.sha256()
        for texts, ids in files:
            digest.update(_in_order(_read(texts), _read(ids)).data)
    return digest.hexdigest()


def _read(file: IO[bytes]) -> np.ndarray:
    file.seek(0)
    return np.frombuffer(file.read(), np.uint8)


def _in_order(line: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Closed lines, one after the other, by their digests."""
    keys = digests.view(">u8").astype(np.uint64).reshape(-1, _DIGEST_BYTES // 8)
    order = np.argsort(keys[:, 0])
    if (keys[order[1:], 0] == keys[order[:-1], 0]).any():
        order = np.lexsort(keys.T[::-1])
    starts = np.concatenate([[0], np.flatnonzero(line == ord("\n")) + 1])
    return bytes_of(binaries_of(line, starts).take(pa.array(order)))[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
