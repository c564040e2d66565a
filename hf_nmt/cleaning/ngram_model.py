"""An n-gram language model with interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1998, 2.7).

With one discount D for each order, n1 / (n1 + 2 n2) of the n-grams counted once and twice (Ney et al. 1994), the
probability of a word w after a history h is

    (max(c(hw) - D, 0) + D N(h) P(w | h without its first word)) / c(h),

N(h) being the number of different words after h. Below the highest order c(hw) is the number of different words before
hw, unless it begins a sentence; below the first order all words are equally likely. Words that the vocabulary does not
have are one word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hf_nmt.cleaning.ibm_model_1 import Sentences

MAX_ORDER = 4
_BITS = 16
# Numbers of words from the vocabulary on; below are unknown words, and the begin and the end of a sentence.
UNKNOWN, BEGIN, END, FIRST = range(4)
MOST_WORDS = 2**_BITS - FIRST
_WORDS_AT_A_TIME = 2**20


@dataclass(frozen=True)
class _Order:
    """N-grams of one length.

    Attributes:
        keys: sorted numbers of n-grams, 16 bits a word.
        shares: of each max(c - D, 0) / c(h).
        histories: sorted numbers of what stands before the last word.
        left: of each D N(h) / c(h).
    """

    keys: np.ndarray
    shares: np.ndarray
    histories: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class NgramModel:
    """A trained model.

    Attributes:
        words: the vocabulary, sorted hashes.
        orders: from the first on.
    """

    words: np.ndarray
    orders: list[_Order]

    @classmethod
    def trained(cls, sentences: Sentences, words: np.ndarray, order: int) -> NgramModel:
        """
        Args:
            sentences: of hashes of words.
            words: sorted hashes of the vocabulary, at most MOST_WORDS.
            order: length of the longest n-grams, to MAX_ORDER.
        """
        assert 1 <= order <= MAX_ORDER and len(words) <= MOST_WORDS
        nothing = np.empty(0, np.uint64), np.empty(0, np.int64)
        counted = dict.fromkeys(range(1, order + 1), nothing)
        for part in _parts(sentences):
            grams = _grams(_numbered(part, words), order)
            for length in range(1, order + 1):
                keys, counts = np.unique(_last(grams, length), return_counts=True)
                counted[length] = _added(counted[length], (keys, counts))
        orders = []
        for length in range(1, order + 1):
            keys, counts = counted[length]
            if length < order:
                before = np.unique(_last(counted[length + 1][0], length), return_counts=True)
                begins = keys >> np.uint64(_BITS * (length - 1)) == BEGIN
                counts = np.where(begins & (length > 1), counts, before[1])
            orders.append(_smoothed(keys, counts))
        return cls(words, orders)

    @property
    def num_words(self) -> int:
        """What may come next: words, unknown ones, the end of the sentence."""
        return len(self.words) + 2

    def cross_entropies(self, sentences: Sentences) -> np.ndarray:
        """Mean over words and the end of minus the natural logarithm of their probability, of each sentence."""
        found = []
        for part in _parts(sentences):
            logarithms = np.log(self._probabilities(_grams(_numbered(part, self.words), len(self.orders))))
            starts = part.starts[:-1] + np.arange(len(part))
            found.append(-np.add.reduceat(logarithms, starts) / (part.lengths + 1))
        return np.concatenate([np.empty(0), *found])

    def _probabilities(self, grams: np.ndarray) -> np.ndarray:
        probabilities = np.full(len(grams), 1 / self.num_words)
        for length, order in enumerate(self.orders, 1):
            keys = _last(grams, length)
            shares = _looked_up(order.keys, order.shares, keys, 0.0)
            left = _looked_up(order.histories, order.left, keys >> np.uint64(_BITS), 1.0)
            probabilities = shares + left * probabilities
        return probabilities

    def probabilities(self, history: list[int]) -> np.ndarray:
        """Of every word that may come after some words: unknown ones, the end, the vocabulary."""
        before = ([BEGIN] * MAX_ORDER + history)[-(MAX_ORDER - 1) :]
        words = [UNKNOWN, END, *range(FIRST, FIRST + len(self.words))]
        grams = [
            sum(number << (_BITS * place) for place, number in enumerate([word, *before[::-1]])) for word in words
        ]
        return self._probabilities(np.array(grams, np.uint64))


def vocabulary(sentences: Sentences, most: int = MOST_WORDS) -> np.ndarray:
    """Sorted hashes of the words that stand at least twice, the most frequent ones."""
    hashes, counts = np.unique(sentences.words, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(hashes[order[counts[order] > 1]])


def _parts(sentences: Sentences) -> Iterator[Sentences]:
    """Sentences some at a time."""
    group = (sentences.starts[1:] + np.arange(len(sentences))) // _WORDS_AT_A_TIME
    cuts = [0, *np.flatnonzero(np.diff(group)) + 1, len(sentences)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        if start < end:
            yield sentences.take(np.arange(start, end))


def _numbered(sentences: Sentences, words: np.ndarray) -> Sentences:
    if not len(words):
        return Sentences(np.full(len(sentences.words), UNKNOWN, np.uint64), sentences.starts)
    at = np.minimum(np.searchsorted(words, sentences.words), len(words) - 1)
    numbers = np.where(words[at] == sentences.words, at + FIRST, UNKNOWN)
    return Sentences(numbers.astype(np.uint64), sentences.starts)


def _grams(sentences: Sentences, order: int) -> np.ndarray:
    """For each word, and the end of each sentence, the n-gram that ends there."""
    line = np.insert(sentences.words, sentences.starts[1:], END)
    starts = np.repeat(sentences.starts[:-1] + np.arange(len(sentences)), sentences.lengths + 1)
    places = np.arange(len(line))
    grams = line.copy()
    for back in range(1, order):
        earlier = places - back
        words = np.where(earlier >= starts, line[np.maximum(earlier, 0)], np.uint64(BEGIN))
        grams |= words << np.uint64(_BITS * back)
    return grams


def _last(grams: np.ndarray, length: int) -> np.ndarray:
    return grams & np.uint64(2 ** (_BITS * length) - 1)


def _added(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    keys, at = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    return keys, np.bincount(at, np.concatenate([one[1], other[1]])).astype(np.int64)


def _smoothed(keys: np.ndarray, counts: np.ndarray) -> _Order:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    # With none that is counted once the estimate is 0, which would leave nothing for what was never seen.
    discount = once / (once + 2 * twice) if once else 0.5
    histories, starts = np.unique(keys >> np.uint64(_BITS), return_index=True)
    totals = np.add.reduceat(counts, starts) if len(keys) else np.empty(0)
    followers = np.diff(np.append(starts, len(keys)))
    shares = np.maximum(counts - discount, 0) / np.repeat(totals, followers)
    return _Order(keys, shares, histories, discount * followers / totals)


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, other: float) -> np.ndarray:
    if not len(keys):
        return np.full(len(wanted), other)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], other)
