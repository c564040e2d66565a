"""The canonical line of a record, by which it is known, and the hash of many.

The line of a record is its JSON without null columns, keys sorted, no spaces, in UTF-8. A single reference says
nothing that `target` does not, so it is left out. The id of a line is its SHA-256, and the hash of many the SHA-256
over all of them, each closed by a line feed, sorted by id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any

import pyarrow as pa

# Lines are shared out to this many temporary files by the first bits of their id and sorted file by file, so memory
# holds one part of the corpus at a time.
_PARTS = 64


def canonical_line(record: Mapping[str, Any]) -> bytes:
    """A record as the line that is hashed, without the line feed."""
    values = {name: value for name, value in record.items() if value is not None}
    if values.get("references") == [values.get("target")]:
        del values["references"]
    return _json(values).encode()


def canonical_lines(table: pa.Table) -> list[bytes]:
    """`canonical_line` of every record of a table, column by column, which takes a fifth of the time."""
    columns = []
    for name in sorted(table.column_names):
        column = table[name]
        if column.null_count == len(column):
            continue
        key, values = _json(name) + ":", column.to_pylist()
        if name == "references" and "target" in table.column_names:
            targets = table["target"].to_pylist()
            values = [None if one == [target] else one for one, target in zip(values, targets, strict=True)]
        encode = encode_basestring if pa.types.is_string(column.type) else _json
        columns.append([None if value is None else key + encode(value) for value in values])
    if not columns:
        return [b"{}"] * len(table)
    return [f"{{{','.join([one for one in row if one is not None])}}}".encode() for row in zip(*columns, strict=True)]


def hash_of_lines(lines: Iterable[bytes]) -> str:
    """The hash of canonical lines in hex, in bounded memory."""
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(tempfile.SpooledTemporaryFile(max_size=2**18)) for _ in range(_PARTS)]
        for line in lines:
            parts[hashlib.sha256(line).digest()[0] * _PARTS // 256].write(line + b"\n")
        digest = hashlib.sha256()
        for part in parts:
            part.seek(0)
            for line in sorted(part, key=lambda line: hashlib.sha256(line[:-1]).digest()):
                digest.update(line)
    return digest.hexdigest()


def hash_of_tables(tables: Iterable[pa.Table]) -> str:
    return hash_of_lines(line for table in tables for line in canonical_lines(table))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
