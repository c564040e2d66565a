"""IBM Model 1 against a second implementation in plain Python and against what can be worked out by hand."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from hf_nmt.cleaning import ibm_model_1
from hf_nmt.cleaning.ibm_model_1 import Sentences, train

# The example of Knight (1999): "b c" goes with "x y", and "b" with "y".
SOURCES, TARGETS = [[0, 1], [0]], [[0, 1], [1]]


def naive(sources, targets, num_sources, num_targets, iterations):
    """t(f | e) and the expected counts, word by word; the empty word is `num_sources`."""
    t = defaultdict(lambda: 1 / num_targets)
    for _ in range(iterations):
        counts = defaultdict(float)
        for source, target in zip(sources, targets, strict=True):
            given = [*source, num_sources]
            for f in target:
                total = sum(t[f, e] for e in given)
                for e in given:
                    counts[f, e] += t[f, e] / total
        totals = defaultdict(float)
        for (_, e), count in counts.items():
            totals[e] += count
        t = {(f, e): count / totals[e] for (f, e), count in counts.items()}
    return t, counts


def drawn(seed: int, sentences: int, words: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [chance.choices(range(words), k=chance.randint(1, 7)) for _ in range(sentences)]


def test_first_iteration_shares_each_word_equally():
    lexicon = train(Sentences.of(SOURCES), Sentences.of(TARGETS), (2, 2), 1)
    # Of "x" each of two words and the empty one gets a third; of the second "y" one and the empty one a half.
    expected = {(0, 0): 1 / 3, (0, 1): 1 / 3 + 1 / 2, (1, 0): 1 / 3, (1, 1): 1 / 3, (2, 0): 1 / 3, (2, 1): 5 / 6}
    found = dict(zip(zip(*divmod(lexicon.keys, 2), strict=True), lexicon.counts, strict=True))
    assert found == pytest.approx(expected)
    assert lexicon.totals == pytest.approx([7 / 6, 2 / 3, 7 / 6])


@pytest.mark.parametrize("cells", [1, 50, 2**21])
@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_a_second_implementation_finds_the_same(monkeypatch, cells, iterations):
    monkeypatch.setattr(ibm_model_1, "_CELLS_AT_A_TIME", cells)
    sources, targets = drawn(1, 40, 9), drawn(2, 40, 11)
    lexicon = train(Sentences.of(sources), Sentences.of(targets), (9, 11), iterations)
    t, counts = naive(sources, targets, 9, 11, iterations)
    pairs = [(int(key % 11), int(key // 11)) for key in lexicon.keys]
    assert len(pairs) == len(t)
    assert lexicon.probabilities == pytest.approx([t[pair] for pair in pairs])
    assert lexicon.counts == pytest.approx([counts[pair] for pair in pairs])
    assert np.bincount(lexicon.keys // 11, lexicon.probabilities) == pytest.approx(np.ones(10))


def test_words_that_go_together_find_each_other():
    lexicon = train(Sentences.of(SOURCES), Sentences.of(TARGETS), (2, 2), 60)
    t = dict(zip(zip(*divmod(lexicon.keys, 2), strict=True), lexicon.probabilities, strict=True))
    assert t[1, 0] > 0.9 and t[0, 1] > 0.9


@pytest.mark.parametrize("cells", [1, 2**21])
def test_probability_of_words_given_a_sentence(monkeypatch, cells):
    sources, targets = drawn(1, 40, 9), drawn(2, 40, 11)
    lexicon = train(Sentences.of(sources), Sentences.of(targets), (9, 11), 3)
    _, counts = naive(sources, targets, 9, 11, 3)
    unigrams = np.arange(1, 12) / 66
    monkeypatch.setattr(ibm_model_1, "_CELLS_AT_A_TIME", cells)
    others = drawn(3, 40, 11)
    found = lexicon.word_probabilities(Sentences.of(sources).with_word(9), Sentences.of(others), unigrams, 2.0)
    expected = []
    for source, target in zip(sources, others, strict=True):
        for f in target:
            each = [
                (counts.get((f, e), 0) + 2 * unigrams[f]) / (sum(counts.get((g, e), 0) for g in range(11)) + 2)
                for e in [*source, 9]
            ]
            expected.append(sum(each) / len(each))
    assert found == pytest.approx(expected)


def test_sentences_are_taken_and_lengthened():
    sentences = Sentences.of([[1, 2], [], [3]])
    taken = sentences.take(np.array([2, 0, 1]))
    assert taken.words.tolist() == [3, 1, 2] and taken.starts.tolist() == [0, 1, 3, 3]
    longer = sentences.with_word(9)
    assert longer.words.tolist() == [1, 2, 9, 9, 3, 9] and longer.lengths.tolist() == [3, 1, 2]
