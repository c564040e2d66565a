"""How alike two pairs of sentences are: sets of shingles, their Jaccard similarity, MinHash and bands.

A shingle is a run of some characters or words of one side, here a 64-bit hash that knows its side and language. Of two
sets A and B the similarity is |A & B| / |A | B| (Broder 1997). A hash function puts the shingles in a random order;
that two sets have the same first one has just this probability, so that the least hashes of several functions, the
signature, make pairs meet that are alike. They meet where all hashes of a band of `rows` agree: with `bands` of them
a pair of similarity s does with probability 1 - (1 - s^rows)^bands (Leskovec et al., Mining of Massive Datasets, 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from hf_nmt.cleaning.duplicates import Fold, folded
from hf_nmt.cleaning.step import SIDES
from hf_nmt.config import Settings
from hf_nmt.data.sketches import mixed

# Numbers count, as they are often all that tells two sentences apart.
FOLD: tuple[Fold, ...] = ("case", "white_space", "punctuation")
# Of pairs as alike as the threshold so many meet in a band, more of those that are more alike.
RECALL = 0.99
MAX_HASHES = 96
_SEED = 20221122
# Windows of so many shingles fit the processor's cache.
_SHINGLES_AT_A_TIME = 2**15
_BITS_COMPARED = 44
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Similarity(Settings):
    """When two pairs are alike."""

    shingles: Literal["characters", "words"] = Field(
        "characters", description="what is compared: runs of characters, which fit every script, or of words"
    )
    size: int = Field(5, ge=1, le=50, description="length of a run, in characters or words")
    threshold: float = Field(
        0.8,
        ge=0.3,
        le=1,
        description="least Jaccard similarity of the runs of both sides together. From 0.8 up pairs mostly say the "
        "same in other words or endings; below, more and more differ in a noun, a verb or a number",
    )


@dataclass(frozen=True)
class Shingles:
    """Shingles of some records, one after the other, each record with at least one.

    Attributes:
        hashes: 64-bit numbers, those that a record has several times as often.
        starts: where those of each record start, and at last their end: (N + 1,).
    """

    hashes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


def foldings(pairs: pa.Table) -> pa.Table:
    """What of records is compared: `source`, `target`, folded, and a number `source_tag`, `target_tag` of the
    language of each."""
    columns: dict[str, pa.Array | np.ndarray] = {side: folded(pairs[side], FOLD) for side in SIDES}
    for number, side in enumerate(SIDES):
        codes = pc.fill_null(pairs[f"{side}_language"].combine_chunks(), "").dictionary_encode()
        tags = [xxhash.xxh3_64_intdigest(code.encode(), seed=number) for code in codes.dictionary.to_pylist()]
        columns[f"{side}_tag"] = np.array(tags, np.uint64)[codes.indices.to_numpy()]
    return pa.table(columns)


def shingles_of(texts: pa.Table, settings: Similarity) -> Shingles:
    """Shingles of both sides of records (`foldings`). A text shorter than a shingle is one."""
    count = len(texts)
    order = np.arange(2 * count).reshape(2, count).T.ravel()  # source and target of a record side by side
    sides = pa.concat_arrays([texts[side].combine_chunks() for side in SIDES]).take(pa.array(order))
    tags = np.stack([texts[f"{side}_tag"].to_numpy() for side in SIDES], axis=1).ravel()
    units, lengths = (_characters if settings.shingles == "characters" else _words)(sides)
    size = settings.size
    padded = np.maximum(lengths, size)
    ends = np.cumsum(padded)
    shifts = np.repeat(ends - padded - (np.cumsum(lengths) - lengths), lengths)
    line = np.zeros(int(ends[-1]) if count else 0, np.uint64)
    line[np.arange(len(units)) + shifts] = units
    windows = padded - size + 1
    window_ends = np.cumsum(windows)
    at = np.arange(int(window_ends[-1]) if count else 0) + np.repeat(ends - padded - (window_ends - windows), windows)
    hashes = np.repeat(tags, windows)
    rolled = np.zeros(max(len(line) - size + 1, 0), np.uint64)
    for offset in range(size):
        rolled *= _BASE
        rolled += line[offset : offset + len(rolled)]
    hashes ^= mixed(rolled)[at]
    return Shingles(mixed(hashes), np.concatenate([[0], window_ends[1::2]]))


def _characters(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    line = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    return line.astype(np.uint64), pc.utf8_length(texts).to_numpy().astype(np.int64)


def _words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    words = pc.utf8_split_whitespace(texts)
    codes = words.flatten().dictionary_encode()
    hashes = [xxhash.xxh3_64_intdigest(word.encode()) for word in codes.dictionary.to_pylist()]
    return np.array(hashes, np.uint64)[codes.indices.to_numpy()], pc.list_value_length(words).to_numpy()


def signatures(shingles: Shingles, hashes: int) -> np.ndarray:
    """MinHash: (hashes, N), the least of each record under each of so many functions.

    The functions are (a x + b mod 2^64) >> 32 with a odd (multiply-shift, Dietzfelbinger et al. 1997) of hashes that
    are mixed already; a and b are always the same.
    """
    draw = np.random.Generator(np.random.PCG64(_SEED))
    factors, terms = draw.integers(0, 2**64, (2, hashes), np.uint64)
    factors |= np.uint64(1)
    least = np.empty((hashes, len(shingles)), np.uint32)
    start = 0
    while start < len(shingles):
        end = int(np.searchsorted(shingles.starts, shingles.starts[start] + _SHINGLES_AT_A_TIME, side="right")) - 1
        end = max(end, start + 1)
        part = shingles.hashes[shingles.starts[start] : shingles.starts[end]]
        starts = shingles.starts[start:end] - shingles.starts[start]
        line = np.empty_like(part)
        for number, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            np.multiply(part, factor, out=line)
            line += term
            least[number, start:end] = np.minimum.reduceat(line, starts) >> np.uint64(32)
        start = end
    return least


def bands_of(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows: as many rows as `MAX_HASHES` allows with a recall of `RECALL`."""
    found = (1, 1)
    for rows in range(1, MAX_HASHES + 1):
        missed = 1 - threshold**rows
        bands = 1 if missed <= 0 else math.ceil(math.log(1 - RECALL) / math.log(missed)) if missed < 1 else math.inf
        if bands * rows > MAX_HASHES:
            break
        found = (int(bands), rows)
    return found


def band_keys(shingles: Shingles, threshold: float) -> np.ndarray:
    """Keys (bands, N): records meet where one of their keys is the same."""
    bands, rows = bands_of(threshold)
    least = signatures(shingles, bands * rows).reshape(bands, rows, len(shingles))
    keys = np.zeros((bands, len(shingles)), np.uint64)
    for row in range(rows):
        keys = mixed(keys + _BASE + least[:, row])
    return keys


def jaccard(one: Shingles, first: np.ndarray, other: Shingles, second: np.ndarray) -> np.ndarray:
    """Jaccard similarity of records `first[k]` of one and `second[k]` of the other, rounded to four digits.

    Both are `distinct`. Hashes are compared by 44 of their bits.
    """
    count = len(first)
    assert count <= 2 ** (64 - _BITS_COMPARED)
    both = np.concatenate([_of_pairs(one, first), _of_pairs(other, second)])
    both.sort()
    common = both[1:][both[1:] == both[:-1]]
    shared = np.bincount((common >> np.uint64(_BITS_COMPARED)).astype(np.int64), minlength=count)
    sizes = np.diff(one.starts)[first] + np.diff(other.starts)[second]
    return np.round(shared / (sizes - shared), 4)


def distinct(shingles: Shingles) -> Shingles:
    """The same sets, each hash in each once."""
    records = np.repeat(np.arange(len(shingles)), np.diff(shingles.starts))
    order = np.lexsort((shingles.hashes, records))
    records, hashes = records[order], shingles.hashes[order]
    stays = np.ones(len(hashes), bool)
    stays[1:] = (hashes[1:] != hashes[:-1]) | (records[1:] != records[:-1])
    counts = np.bincount(records[stays], minlength=len(shingles))
    return Shingles(hashes[stays], np.concatenate([[0], np.cumsum(counts)]))


def _of_pairs(shingles: Shingles, records: np.ndarray) -> np.ndarray:
    """For each of some records its set, as numbers of its place and the shingle."""
    lengths = np.diff(shingles.starts)[records]
    ends = np.cumsum(lengths)
    at = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(shingles.starts[records] - (ends - lengths), lengths)
    places = np.repeat(np.arange(len(records), dtype=np.uint64), lengths)
    return (places << np.uint64(_BITS_COMPARED)) | (shingles.hashes[at] >> np.uint64(64 - _BITS_COMPARED))
