"""IBM Model 1 (Brown et al. 1993, section 4.1): which words of one language go with which of another.

Each target word is written by one word of the source, or by an empty one, all of them equally likely. The probability
t(f | e) that the word e writes the word f is found by expectation-maximisation over sentence pairs. All sums are made
in one order, in double precision, so that the same sentences in the same order give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Cells (a source word beside a target word) that are worked on at a time, 8 to 40 bytes each.
_CELLS_AT_A_TIME = 2**21


@dataclass(frozen=True)
class Sentences:
    """Sentences as numbers of words, one after the other.

    Attributes:
        words: numbers from 0.
        starts: where those of each sentence start, and at last their end: (N + 1,).
    """

    words: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, sentences: Sequence[Sequence[int]]) -> Sentences:
        lengths = [len(sentence) for sentence in sentences]
        words = [word for sentence in sentences for word in sentence]
        return cls(np.array(words, np.int64), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def take(self, places: np.ndarray) -> Sentences:
        lengths = self.lengths[places]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(starts[-1]) + np.repeat(self.starts[places] - starts[:-1], lengths)
        return Sentences(self.words[at], starts)

    def with_word(self, word: int) -> Sentences:
        """Each sentence with a word more, at its end."""
        return Sentences(np.insert(self.words, self.starts[1:], word), self.starts + np.arange(len(self.starts)))


@dataclass(frozen=True)
class Lexicon:
    """What expectation-maximisation found.

    Attributes:
        num_targets: size of the target vocabulary.
        keys: sorted: source word * num_targets + target word, of all that stood in one pair. The empty word comes
            after all words of the source.
        counts: how often the source word is expected to have written the target word.
        totals: how often each source word is expected to have written any: (source words + 1,).
    """

    num_targets: int
    keys: np.ndarray
    counts: np.ndarray
    totals: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """t(f | e) of each key."""
        return self.counts / self.totals[self.keys // self.num_targets]

    def word_probabilities(
        self, sources: Sentences, targets: Sentences, unigrams: np.ndarray, prior: float
    ) -> np.ndarray:
        """The probability of each target word given its source sentence.

        Args:
            sources: sentences, each with the empty word.
            targets: of the same pairs.
            unigrams: probability of each target word by itself.
            prior: how many words each source word is taken to have written after these, so that what was seen but a
                few times says little (Moore 2004, section 3.2, with a uniform distribution).
        """
        found = np.empty(len(targets.words))
        for cells in _cells(sources, targets):
            source, target = sources.words[cells.sources], targets.words[cells.targets]
            keys = source * self.num_targets + target
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            counts = np.where(self.keys[at] == keys, self.counts[at], 0.0)
            each = (counts + prior * unigrams[target]) / (self.totals[source] + prior)
            first = cells.targets[cells.starts]
            found[first] = np.add.reduceat(each, cells.starts) / cells.widths
        return found


def train(sources: Sentences, targets: Sentences, vocabularies: tuple[int, int], iterations: int) -> Lexicon:
    """Expectation-maximisation, all words equally likely at first.

    Args:
        sources, targets: sentence pairs, at least one word on both sides.
        vocabularies: sizes of the source and the target vocabulary.
        iterations: at least 1.
    """
    num_sources, num_targets = vocabularies
    sources = sources.with_word(num_sources)
    keys = np.empty(0, np.int64)
    for cells in _cells(sources, targets):
        keys = np.union1d(keys, sources.words[cells.sources] * num_targets + targets.words[cells.targets])
    assert len(keys) < 2**32
    parts = []
    for cells in _cells(sources, targets):
        at = np.searchsorted(keys, sources.words[cells.sources] * num_targets + targets.words[cells.targets])
        parts.append((at.astype(np.uint32), cells.starts, cells.widths))
    of = keys // num_targets
    probabilities = np.ones(len(keys))
    for _ in range(iterations):
        counts = np.zeros(len(keys))
        for at, starts, widths in parts:
            each = probabilities[at]
            each /= np.repeat(np.add.reduceat(each, starts), widths)
            counts += np.bincount(at, each, len(keys))
        totals = np.bincount(of, counts, num_sources + 1)
        probabilities = counts / totals[of]
    return Lexicon(num_targets, keys, counts, totals)


@dataclass(frozen=True)
class _Cells:
    """Each target word of some pairs beside each word of its source.

    Attributes:
        sources, targets: places of the words, those of one target word one after the other.
        starts: where those of each target word start.
        widths: how many each has.
    """

    sources: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    widths: np.ndarray


def _cells(sources: Sentences, targets: Sentences) -> Iterator[_Cells]:
    sizes = sources.lengths * targets.lengths
    group = np.cumsum(sizes) // _CELLS_AT_A_TIME
    for start, end in zip(*_runs(group), strict=True):
        first, last = targets.starts[start], targets.starts[end]
        rows = np.repeat(np.arange(start, end), targets.lengths[start:end])
        widths = sources.lengths[rows]
        starts = np.cumsum(widths) - widths
        at = np.arange(int(widths.sum())) + np.repeat(sources.starts[rows] - starts, widths)
        yield _Cells(at, np.repeat(np.arange(first, last), widths), starts, widths)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of runs of equal numbers."""
    changes = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], changes]) if len(values) else changes
    return starts, np.append(changes, len(values)) if len(values) else changes
