"""Subword models that can lose pieces and gain them: byte-pair encoding and the unigram language model.

Pieces are strings, and there is no file format here. What is trimmed away never changes how a text is segmented that
does not use it:

- BPE joins two neighbours at a time, the pair of the best rank first. Every pair that is joined inside a piece is
  joined in the same order when the piece stands alone, as no pair across its border ever was; so it is enough to keep
  the pairs that lead to the kept pieces, and what they join.
- The likeliest segmentation under a unigram model stays the likeliest where others disappear. The least likely piece
  stays too, because the cost of an unknown character is counted from it.
"""

from __future__ import annotations

import abc
import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hf_nmt.subwords import (
    MAX_BPE_CHARACTERS,
    MAX_BPE_WORDS,
    MAX_UNIGRAM_CHARACTERS,
    MAX_UNIGRAM_WORDS,
    most_frequent,
    repeated,
    train_unigram,
)

CHARACTER_COVERAGE = 0.9999  # of the corpus; rarer characters get no piece of their own, as where we train tokenizers
MIN_PAIR_COUNT = 2  # as where we train tokenizers
_FIRST_SYMBOL = 0x10000  # code points that stand for pieces while a trainer that knows characters only joins them
_AT_A_TIME = 1000


class SubwordModel(abc.ABC):
    """A set of pieces, and how a word is written with them."""

    @property
    @abc.abstractmethod
    def pieces(self) -> frozenset[str]: ...

    @abc.abstractmethod
    def segment(self, word: str) -> list[str]:
        """The pieces of a word; a character that has none stands as it is."""

    @abc.abstractmethod
    def trimmed(self, kept: Iterable[str]) -> SubwordModel:
        """The model with these pieces, and those without which it could not reach them."""

    @abc.abstractmethod
    def grown(self, words: Mapping[str, int], number: int) -> SubwordModel:
        """The model with up to `number` further pieces, learnt from words with their counts."""

    @abc.abstractmethod
    def retrained(self, words: Mapping[str, int], number: int) -> SubwordModel:
        """A model of this kind with up to `number` pieces, all learnt from the words."""


class Bpe(SubwordModel):
    """Byte-pair encoding (Sennrich et al. 2016).

    Args:
        pieces: the vocabulary; single characters among it are what joining starts from.
        merges: pairs that are joined, the most urgent first.
    """

    def __init__(self, pieces: Iterable[str], merges: Iterable[tuple[str, str]]):
        self._pieces = frozenset(pieces)
        self.merges = list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}

    @property
    def pieces(self) -> frozenset[str]:
        return self._pieces

    def _rank(self, left: str, right: str) -> float:
        """The urgency of a pair, low first; infinite where it is never joined."""
        return self._ranks.get((left, right), math.inf)

    def _joins(self, word: str) -> Iterator[tuple[list[str], int]]:
        """The symbols before each join, and which of them is joined to its neighbour; at last with -1."""
        symbols = list(word)
        while True:
            ranked = [
                (rank, place)
                for place, pair in enumerate(itertools.pairwise(symbols))
                if (rank := self._rank(*pair)) < math.inf
            ]
            place = min(ranked)[1] if ranked else -1
            yield symbols, place
            if place < 0:
                return
            symbols = [*symbols[:place], symbols[place] + symbols[place + 1], *symbols[place + 2 :]]

    def segment(self, word: str) -> list[str]:
        *_, (symbols, _) = self._joins(word)
        return symbols

    def _paths(self, kept: Iterable[str]) -> tuple[set[str], set[tuple[str, str]]]:
        """The kept pieces with all on the way to them, and the pairs joined on the way."""
        pieces, pairs = set(kept) & self.pieces, set()
        for piece in list(pieces):
            for symbols, place in self._joins(piece):
                if place >= 0:
                    left, right = symbols[place], symbols[place + 1]
                    pairs.add((left, right))
                    pieces |= {left, right, left + right}
        return pieces, pairs

    def trimmed(self, kept: Iterable[str]) -> Bpe:
        pieces, pairs = self._paths(kept)
        return Bpe(pieces, (pair for pair in self.merges if pair in pairs))

    def grown(self, words: Mapping[str, int], number: int) -> Bpe:
        """Goes on joining where the old merges end, so that these come first in every word."""
        characters = _common_characters(words, self.pieces)[:number]
        known = self.pieces | {*characters}
        pieces, merges = set(known), list(self.merges)
        taken = {*merges}
        left = number - len(characters)
        # Some pairs join to a piece that is there already, and cost nothing.
        for pair in self._continued(words, known, left + left // 8) if left else ():
            joined = "".join(pair)
            if pair in taken or (joined not in pieces and len(pieces) - len(known) == left):
                continue
            merges.append(pair)
            taken.add(pair)
            pieces.add(joined)
        return self._extended(pieces, merges)

    def _continued(self, words: Mapping[str, int], known: frozenset[str], number: int) -> list[tuple[str, str]]:
        """The pairs that training joins next, in the segmentation that stands."""
        counts: Counter[tuple[str, ...]] = Counter()
        for word, count in most_frequent(Counter(words), MAX_BPE_WORDS, MAX_BPE_CHARACTERS).items():
            for has_piece, run in itertools.groupby(self.segment(word), known.__contains__):
                if has_piece:
                    counts[tuple(run)] += count
        pieces = sorted({piece for run in counts for piece in run})
        symbol = {piece: chr(_FIRST_SYMBOL + number) for number, piece in enumerate(pieces)}
        piece_of = dict(zip(symbol.values(), pieces, strict=True))
        lines = {"".join(symbol[piece] for piece in run): counts[run] for run in sorted(counts)}
        scratch = Tokenizer(models.BPE())
        scratch.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
        scratch.train_from_iterator(
            repeated(lines, _AT_A_TIME),
            trainers.BpeTrainer(
                vocab_size=len(pieces) + number, special_tokens=[], min_frequency=MIN_PAIR_COUNT, show_progress=False
            ),
        )
        merges = json.loads(scratch.to_str())["model"]["merges"]
        sides = [["".join(piece_of[symbol] for symbol in side) for side in pair] for pair in merges]
        return [(left, right) for left, right in sides]

    def _extended(self, pieces: set[str], merges: list[tuple[str, str]]) -> Bpe:
        return Bpe(pieces, merges)

    def retrained(self, words: Mapping[str, int], number: int) -> Bpe:
        return Bpe((), ()).grown(words, number)


class ScoredBpe(Bpe):
    """Byte-pair encoding as SentencePiece has it: any two neighbours whose union is a piece, the highest score first.

    Args:
        scores: of each piece.
    """

    def __init__(self, scores: Mapping[str, float]):
        super().__init__(scores, ())
        self.scores = dict(scores)

    def _rank(self, left: str, right: str) -> float:
        return -self.scores.get(left + right, -math.inf)

    def as_merges(self, known: Container[str]) -> list[tuple[str, str]]:
        """The pairs that are joined, the most urgent first; of pieces that are known only."""
        return [
            (piece[:place], piece[place:])
            for piece in sorted(self.scores, key=self.scores.__getitem__, reverse=True)
            for place in range(1, len(piece))
            if piece in known and piece[:place] in known and piece[place:] in known
        ]

    def trimmed(self, kept: Iterable[str]) -> ScoredBpe:
        pieces, _ = self._paths(kept)
        return ScoredBpe({piece: score for piece, score in self.scores.items() if piece in pieces})

    def _extended(self, pieces: set[str], merges: list[tuple[str, str]]) -> ScoredBpe:
        lowest = min(self.scores.values(), default=0.0)
        joined = ("".join(pair) for pair in merges)
        new = dict.fromkeys([*(piece for piece in sorted(pieces) if len(piece) == 1), *joined])
        later = (piece for piece in new if piece not in self.scores)
        return ScoredBpe(self.scores | {piece: lowest - 1 - place for place, piece in enumerate(later)})

    def retrained(self, words: Mapping[str, int], number: int) -> Bpe:
        return ScoredBpe({}).grown(words, number)


class Unigram(SubwordModel):
    """The unigram language model (Kudo 2018).

    Args:
        scores: log-probability of each piece (natural log).
    """

    def __init__(self, scores: Mapping[str, float]):
        self.scores = dict(scores)

    @property
    def pieces(self) -> frozenset[str]:
        return frozenset(self.scores)

    @functools.cached_property
    def _model(self) -> models.Unigram:
        return models.Unigram([("", min(self.scores.values(), default=0.0)), *self.scores.items()], 0, False)

    def segment(self, word: str) -> list[str]:
        # The characters that have no piece come as one token of several.
        return [
            part
            for token in self._model.tokenize(word)
            for part in ([token.value] if token.value in self.scores else token.value)
        ]

    def trimmed(self, kept: Iterable[str]) -> Unigram:
        wanted = {*kept, min(self.scores, key=self.scores.__getitem__, default="")}
        return Unigram({piece: score for piece, score in self.scores.items() if piece in wanted})

    def grown(self, words: Mapping[str, int], number: int) -> Unigram:
        """Takes those pieces of a model of the words that shorten them most.

        The scores of that model are moved by the mean difference of the pieces that both have, and kept between the
        old model's least likely piece and 0, so that nothing changes for unknown characters.
        """
        texts = _without_rare(words)
        texts = most_frequent(texts, MAX_UNIGRAM_WORDS, MAX_UNIGRAM_CHARACTERS)
        used = {piece for word in texts for piece in self.segment(word)}
        learnt = dict(train_unigram(texts, len(used) + number))
        new = [piece for piece in learnt if piece not in self.scores]
        shift = [self.scores[piece] - score for piece, score in learnt.items() if piece in self.scores]
        offset = math.fsum(shift) / len(shift) if shift else 0.0
        lowest = min(self.scores.values(), default=-math.inf)

        def saved(piece: str) -> float:
            """Pieces that a word of the corpus is shorter by, on average; a character without a piece comes first."""
            return math.inf if len(piece) == 1 else math.exp(learnt[piece]) * (len(self.segment(piece)) - 1)

        chosen = sorted(new, key=lambda piece: (-saved(piece), piece))[:number]
        moved = {piece: round(min(max(learnt[piece] + offset, lowest), -1e-4), 6) for piece in chosen}
        return Unigram(self.scores | moved)

    def retrained(self, words: Mapping[str, int], number: int) -> Unigram:
        texts = most_frequent(_without_rare(words), MAX_UNIGRAM_WORDS, MAX_UNIGRAM_CHARACTERS)
        return Unigram(dict(train_unigram(texts, max(number, len(set().union(*texts))))))


def _character_counts(words: Mapping[str, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    return counts


def _common_characters(words: Mapping[str, int], known: Iterable[str] = ()) -> list[str]:
    """The characters that make up the covered share of the text, the most frequent first, without those known."""
    counts = _character_counts(words)
    wanted, found = CHARACTER_COVERAGE * counts.total(), []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if wanted <= 0:
            break
        wanted -= count
        found.append(character)
    known = {*known}
    return [character for character in found if character not in known]


def _without_rare(words: Mapping[str, int]) -> Counter[str]:
    """The words, cut where a character is rare."""
    common = {*_common_characters(words)}
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for is_common, run in itertools.groupby(word, common.__contains__):
            if is_common:
                parts["".join(run)] += count
    return parts
