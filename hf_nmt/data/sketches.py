"""How many distinct things a text holds, such as words or n-grams, in bounded memory and with a stated error.

The estimate is that of Chakraborty, Vinodchandran and Meel (2022), "Distinct Elements in Streams: An Algorithm for the
(Text) Book" (CVM): a buffer holds each distinct element with probability p, which is halved whenever the buffer is
full; then size / p is the number of distinct elements, within a factor of 1 +- epsilon with probability 1 - delta
(theorem 1), for the size of buffer that `buffer_size` tells.

The paper draws a coin at every occurrence of an element. Here its coins are the leading bits of a keyed hash of the
element, the same at each occurrence: at any p the distinct elements are in the buffer with probability p and
independently of each other, which is all that the proof makes use of. So the estimate depends on the set of elements
and the seed alone, not on their order, and sketches of parts of a text can be joined. Where the buffer is still full
after p is halved, which the paper gives up on, it is halved again.

Until the buffer is full for the first time p is 1, and the count is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import xxhash

# No corpus has more elements: 2^40 are a trillion.
MOST_ELEMENTS = 2**40
_BASE = np.uint64(0x9E3779B97F4A7C15)


def buffer_size(epsilon: float, delta: float, elements: int = MOST_ELEMENTS) -> int:
    """How many elements the buffer must have room for (CVM, algorithm 1, line 1).

    Args:
        epsilon: largest relative error.
        delta: largest probability of a larger error.
        elements: length of the stream, or more.
    """
    return math.ceil(12 / epsilon**2 * math.log2(8 * elements / delta))


class DistinctSketch:
    """Estimates how many distinct elements were added.

    Args:
        size: room for so many elements, 8 bytes each (`buffer_size`).

    Attributes:
        halvings: p is 2^-halvings; at 0 the count is exact.
    """

    def __init__(self, size: int):
        if size < 1:
            raise ValueError(f"a buffer needs room for one element at least, not {size}")
        self.size = size
        self.halvings = 0
        self._kept = np.empty(0, np.uint64)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0

    def add(self, hashes: np.ndarray) -> None:
        """Add elements by their keyed hashes (`hashes_of`, `ngrams`), each as often as it likes."""
        found = np.unique(self._chosen(hashes))
        self._waiting.append(found)
        self._num_waiting += len(found)
        if self._num_waiting >= self.size:
            self._settle()

    def join(self, other: DistinctSketch) -> None:
        """Add all that was added to another sketch, with hashes of the same key."""
        if other.size != self.size:
            raise ValueError(f"sketches of {self.size} and of {other.size} elements cannot be joined")
        self.halvings = max(self.halvings, other.halvings)
        self.add(other._settle())
        self._settle()

    @property
    def estimate(self) -> int:
        """Distinct elements so far."""
        return len(self._settle()) << self.halvings

    @property
    def is_exact(self) -> bool:
        """Whether the estimate is the number itself, but for elements of one hash."""
        self._settle()
        return not self.halvings

    def _chosen(self, hashes: np.ndarray) -> np.ndarray:
        """Those whose first `halvings` coins came up heads."""
        return hashes[hashes >> np.uint64(64 - self.halvings) == 0] if self.halvings else hashes

    def _settle(self) -> np.ndarray:
        if self._waiting:
            self._kept = np.unique(self._chosen(np.concatenate([self._kept, *self._waiting])))
            self._waiting, self._num_waiting = [], 0
        while len(self._kept) >= self.size:
            self.halvings += 1
            self._kept = self._chosen(self._kept)
        return self._kept


def hashes_of(tokens: pa.Array, seed: int = 0) -> np.ndarray:
    """Keyed 64-bit hashes (XXH3) of strings, none of them null."""
    codes = tokens.dictionary_encode()
    known = [xxhash.xxh3_64_intdigest(token.encode(), seed=seed) for token in codes.dictionary.to_pylist()]
    return np.array(known, np.uint64)[codes.indices.to_numpy()]


def ngrams(hashes: np.ndarray, lengths: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Hashes of all n-grams of texts; none reaches from one text into the next.

    Args:
        hashes: of the tokens of all texts, one after the other.
        lengths: tokens of each text.
        size: tokens of an n-gram; 1 gives the tokens as they are.
    """
    if size == 1:
        return hashes
    counts = np.asarray(lengths)
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(hashes))  # tokens from here to the end of the text
    starts = np.flatnonzero(left >= size)
    found = np.zeros(len(starts), np.uint64)
    for offset in range(size):
        found = mixed(found * _BASE + hashes[starts + offset])
    return found


def mixed(values: np.ndarray) -> np.ndarray:
    """A permutation of the 64-bit numbers after which all bits depend on all (SplitMix64, Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def joined(sketches: Iterable[DistinctSketch]) -> DistinctSketch:
    """One sketch of all that was added to several, at least one."""
    first, *others = sketches
    whole = DistinctSketch(first.size)
    for one in (first, *others):
        whole.join(one)
    return whole
