"""Columns of text as their bytes, one after the other, for what numpy finds in all of them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """In one piece."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def bytes_of(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 of strings, not copied where they lie in one piece.

    Args:
        texts: strings or binaries, N of them; null counts as empty.

    Returns:
        All bytes (uint8), and where those of each text start, at last their end: (N + 1,) int64.
    """
    column = whole(texts)
    large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    _, offsets, values = column.buffers()
    if offsets is None or not len(column):
        return np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    ends = np.frombuffer(offsets, np.int64 if large else np.int32, column.offset + len(column) + 1)[column.offset :]
    ends = ends.astype(np.int64)
    line = np.empty(0, np.uint8) if values is None else np.frombuffer(values, np.uint8)[ends[0] : ends[-1]]
    return line, ends - ends[0]


def binaries_of(line: np.ndarray, starts: np.ndarray) -> pa.Array:
    """Binaries of some bytes, the other way round than `bytes_of`; not copied."""
    buffers = [None, pa.py_buffer(starts.astype(np.int64)), pa.py_buffer(line)]
    return pa.Array.from_buffers(pa.large_binary(), len(starts) - 1, buffers)


def rows_of(places: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Which texts some bytes belong to.

    Args:
        places: of the bytes among all.
        starts: as of `bytes_of`.
    """
    return np.searchsorted(starts, places, side="right") - 1


def rows_with(found: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each text whether one of its bytes is found: (N,) from a boolean of every byte."""
    rows = np.zeros(len(starts) - 1, bool)
    rows[rows_of(np.flatnonzero(found), starts)] = True
    return rows
