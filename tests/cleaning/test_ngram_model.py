"""Kneser-Ney against a second implementation, by hand, and as a distribution."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from hf_nmt.cleaning import ngram_model
from hf_nmt.cleaning.ibm_model_1 import Sentences
from hf_nmt.cleaning.ngram_model import FIRST, NgramModel, vocabulary


def drawn(seed: int, count: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [chance.choices(range(100, 108), [9, 7, 5, 3, 2, 1, 1, 1], k=chance.randint(0, 6)) for _ in range(count)]


def trained(sentences: list[list[int]], order: int) -> NgramModel:
    given = hashed(sentences)
    return NgramModel.trained(given, vocabulary(given), order)


def hashed(sentences: list[list[int]]) -> Sentences:
    found = Sentences.of(sentences)
    return Sentences(found.words.astype(np.uint64), found.starts)


class Naive:
    """The formula of the module, with dictionaries of tuples."""

    def __init__(self, sentences, order):
        seen = Counter(word for sentence in sentences for word in sentence)
        self.known = {word for word, count in seen.items() if count > 1}
        self.order = order
        raw = Counter()
        for sentence in sentences:
            line = ["<s>"] * (order - 1) + [self.word(word) for word in sentence] + ["</s>"]
            for end in range(order - 1, len(line)):
                for length in range(1, order + 1):
                    raw[tuple(line[end - length + 1 : end + 1])] += 1
        before = defaultdict(set)
        for gram in raw:
            before[gram[1:]].add(gram[0])
        self.counts = {
            gram: count if len(gram) == order or gram[0] == "<s>" else len(before[gram]) for gram, count in raw.items()
        }
        self.discounts = {}
        for length in range(1, order + 1):
            of = Counter(count for gram, count in self.counts.items() if len(gram) == length)
            self.discounts[length] = of[1] / (of[1] + 2 * of[2]) if of[1] else 0.5

    def word(self, word):
        return word if word in self.known else "?"

    def probability(self, word, history):
        if history is None:
            return 1 / (len(self.known) + 2)
        lower = self.probability(word, history[1:] if history else None)
        after = {gram: n for gram, n in self.counts.items() if len(gram) == len(history) + 1 and gram[:-1] == history}
        if not after:
            return lower
        discount, total = self.discounts[len(history) + 1], sum(after.values())
        own = max(self.counts.get((*history, word), 0) - discount, 0)
        return (own + discount * len(after) * lower) / total

    def cross_entropy(self, sentence):
        line = ["<s>"] * (self.order - 1) + [self.word(word) for word in sentence] + ["</s>"]
        places = range(self.order - 1, len(line))
        found = [math.log(self.probability(line[n], tuple(line[n - self.order + 1 : n]))) for n in places]
        return -sum(found) / len(found)


@pytest.mark.parametrize("at_a_time", [5, 2**20])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_second_implementation_finds_the_same(monkeypatch, order, at_a_time):
    monkeypatch.setattr(ngram_model, "_WORDS_AT_A_TIME", at_a_time)
    sentences = drawn(1, 60)
    others = [*drawn(2, 30), [100, 999, 101], []]
    naive = Naive(sentences, order)
    found = trained(sentences, order).cross_entropies(hashed(others))
    assert found == pytest.approx([naive.cross_entropy(sentence) for sentence in others])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("history", [[], [FIRST], [FIRST + 1, FIRST], [0, FIRST + 2], [FIRST + 5] * 3])
def test_probabilities_of_all_words_sum_to_one(order, history):
    model = trained(drawn(1, 60), order)
    assert model.probabilities(history).sum() == pytest.approx(1)
    assert (model.probabilities(history) > 0).all()


def test_unigrams_by_hand():
    # "a a b b c", the end: c stands once and is unknown. One word counts once, the end, and the unknown; two twice.
    model = trained([[7, 7, 8, 8, 9]], 1)
    discount = 2 / (2 + 2 * 2)
    left = discount * 4 / 6 / 4
    assert model.probabilities([]) == pytest.approx([(1 - discount) / 6 + left] * 2 + [(2 - discount) / 6 + left] * 2)


def test_without_text_all_words_are_equally_likely():
    model = trained([], 3)
    assert model.cross_entropies(hashed([[5, 6], []])) == pytest.approx([math.log(2)] * 2)
    assert not len(model.cross_entropies(hashed([])))


def test_the_vocabulary_is_what_stands_twice_the_most_frequent_first():
    given = hashed([[5, 5, 5, 6, 6, 7, 8, 8]])
    assert vocabulary(given).tolist() == [5, 6, 8] and vocabulary(given, 2).tolist() == [5, 6]
