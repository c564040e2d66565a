"""Distinct elements: within the stated error over many seeds, whatever the order and the parts."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from hf_nmt.data.sketches import DistinctSketch, buffer_size, hashes_of, joined, mixed, ngrams

SEEDS = range(200)


def of_the_paper(stream: list[int], size: int, chance: random.Random) -> float:
    """Algorithm 1 as it is printed: a coin at each occurrence, element by element."""
    p, kept = 1.0, set()
    for element in stream:
        kept.discard(element)
        if chance.random() < p:
            kept.add(element)
        if len(kept) == size:
            kept = {one for one in sorted(kept) if chance.random() < 0.5}
            p /= 2
            assert len(kept) < size
    return len(kept) / p


def errors(count: int, size: int) -> np.ndarray:
    """Relative errors with one key after another."""
    found = []
    for seed in SEEDS:
        sketch = DistinctSketch(size)
        sketch.add(mixed(np.arange(count, dtype=np.uint64) + mixed(np.array([seed + 1], np.uint64))))
        found.append(sketch.estimate / count - 1)
    return np.array(found)


def test_the_buffer_of_the_theorem():
    # Counted by hand: 12 / 0.01 * log2(8 * 1024 / 0.25) = 1200 * 15.
    assert buffer_size(0.1, 0.25, 1024) == 18_000
    assert buffer_size(0.05, 0.25, 1024) == 4 * 18_000


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.3), (0.3, 0.1)])
def test_the_error_is_as_small_as_it_is_said_to_be(epsilon, delta):
    count = 12_000
    size = buffer_size(epsilon, delta, count)
    assert size < count / 4  # or nothing is estimated
    assert (abs(errors(count, size)) <= epsilon).mean() >= 1 - delta


def test_a_buffer_that_is_too_small_for_an_error_does_not_reach_it():
    # What the test above could not tell from a count that is always right.
    assert (abs(errors(12_000, 64)) > 0.1).mean() > 0.25


def test_the_error_is_that_of_a_sample():
    count, size = 12_000, 1024
    found = errors(count, size)
    # Between size/2 and size elements are kept, each with probability p: the deviation is sqrt((1 - p) / (p n)).
    low, high = np.sqrt(1 / size), np.sqrt(2 / size)
    assert low * 0.85 < found.std() < high * 1.15
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))


def test_it_errs_as_the_algorithm_of_the_paper():
    chance = random.Random(5)
    stream = [chance.randrange(3000) for _ in range(6000)]
    count = len({*stream})
    paper = np.array([of_the_paper(stream, 256, random.Random(seed)) / count - 1 for seed in range(60)])
    ours = errors(count, 256)
    assert 0.6 < ours.std() / paper.std() < 1.6 and abs(paper.mean() - ours.mean()) < 4 * paper.std() / np.sqrt(60)


def test_words_and_ngrams_of_text_are_counted_exactly_until_the_buffer_is_full():
    chance = random.Random(1)
    texts = [[chance.choice("abcdefgh") for _ in range(chance.randrange(6))] for _ in range(300)]
    hashes = hashes_of(pa.array([word for text in texts for word in text], pa.string()), seed=3)
    for size in (1, 2, 3, 4):
        sketch = DistinctSketch(10_000)
        sketch.add(ngrams(hashes, [len(text) for text in texts], size))
        expected = {tuple(text[at : at + size]) for text in texts for at in range(len(text) - size + 1)}
        assert sketch.estimate == len(expected) > 0 and sketch.is_exact


def test_ngrams_of_ngrams_in_another_order_are_others():
    hashes = hashes_of(pa.array(["a", "b", "b", "a"]))
    assert len({*ngrams(hashes, [2, 2], 2).tolist()}) == 2
    assert not len(ngrams(hashes, [1, 1, 1, 1], 2)) and not len(ngrams(hashes[:0], [0, 0], 3))


def test_neither_order_nor_parts_change_the_estimate():
    words = [f"word {number % 5000}" for number in range(20_000)]
    hashes = hashes_of(pa.array(words), seed=7)
    whole = DistinctSketch(700)
    whole.add(hashes)
    order = np.random.default_rng(1).permutation(len(hashes))
    parts = []
    for part in np.array_split(hashes[order], 13):
        parts.append(DistinctSketch(700))
        for few in np.array_split(part, 3):
            parts[-1].add(few)
    assert joined(parts).estimate == whole.estimate and joined(parts).halvings == whole.halvings > 0
    assert not whole.is_exact and abs(whole.estimate / 5000 - 1) < 0.2
    again = DistinctSketch(700)
    again.add(hashes_of(pa.array(words), seed=8))
    assert again.estimate != whole.estimate


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match="sketches of 5 and of 6 elements cannot be joined"):
        DistinctSketch(5).join(DistinctSketch(6))
    with pytest.raises(ValueError, match="room for one element"):
        DistinctSketch(0)
