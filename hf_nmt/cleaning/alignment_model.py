"""How well the words of two sentences go together: lexicons in both directions, for each third of a corpus learnt from
the other two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from hf_nmt.cleaning.ibm_model_1 import Lexicon, Sentences, train
from hf_nmt.cleaning.pipeline import read_table, write_table
from hf_nmt.cleaning.step import SIDES
from hf_nmt.data.text_bytes import whole

_FOLDS = 3
_SEED = 20221201
_LONGEST = 150
# Words are cut to their first letters, which takes most endings off.
_LETTERS, _SYLLABLES = 5, 2
_APART = r"([\p{P}\p{S}\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
# Words more that a sentence is taken to have, of which nothing is known: little is known of a short one.
_MORE_WORDS = 5
_PRIOR = 2.0
# Expected counts below this are left out of what is kept.
_LEAST_COUNT = 0.01


def words_of(texts: pa.ChunkedArray | pa.Array, *, endings: bool = False) -> pa.Array:
    """Words of texts as lists of 64-bit hashes: folded, signs by themselves; characters in scripts that part no words.
    Of each text the first 150.

    Args:
        texts: strings.
        endings: False cuts words to their first letters.
    """
    text = pc.utf8_lower(pc.utf8_normalize(whole(texts), "NFKC"))
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, _APART, r" \1 "))
    lists = pc.list_slice(pc.utf8_split_whitespace(text), 0, _LONGEST)
    words = pc.list_flatten(lists).dictionary_encode()
    entries = words.dictionary
    if not endings:
        entries = pc.if_else(
            pc.match_substring_regex(entries, r"^\p{Hangul}"),
            pc.utf8_slice_codeunits(entries, 0, _SYLLABLES),
            pc.utf8_slice_codeunits(entries, 0, _LETTERS),
        )
    hashes = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in entries.to_pylist()], np.uint64)
    lengths = pc.if_else(pc.equal(text, ""), 0, pc.list_value_length(lists)).to_numpy()
    numbers = words.indices.to_numpy()
    if len(text):
        numbers = numbers[np.repeat(lengths > 0, pc.list_value_length(lists).to_numpy())]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(hashes[numbers], pa.uint64()))


def priorities_of(pairs: pa.Table) -> np.ndarray:
    """64-bit hashes of the texts of pairs: the order in which they are drawn, and their third."""
    texts = zip(*(pairs[side].to_pylist() for side in SIDES), strict=True)
    return np.array(
        [xxhash.xxh3_64_intdigest(f"{len(one)} {one} {other}".encode(), seed=_SEED) for one, other in texts], np.uint64
    )


@dataclass(frozen=True)
class Sample:
    """Pairs in the order of their priorities: words as hashes."""

    priorities: np.ndarray
    sides: tuple[Sentences, Sentences]

    def __len__(self) -> int:
        return len(self.priorities)


def sentences_of(lists: pa.ChunkedArray | pa.Array) -> Sentences:
    lists = whole(lists)
    lengths = pc.list_value_length(lists).to_numpy()
    return Sentences(pc.list_flatten(lists).to_numpy(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


@dataclass(frozen=True)
class AlignmentModel:
    """Lexicons of both directions for each third, and what words they know.

    Attributes:
        words: by side the hashes of known words, sorted; their numbers are their places from 1, 0 are all others.
        unigrams: by side the probability of each number.
        lexicons: of each third: source to target, target to source.
    """

    words: dict[str, np.ndarray]
    unigrams: dict[str, np.ndarray]
    lexicons: list[tuple[Lexicon, Lexicon]]

    @classmethod
    def learnt(cls, sample: Sample, vocabulary: int, iterations: int) -> AlignmentModel:
        words, unigrams = {}, {}
        for side, sentences in zip(SIDES, sample.sides, strict=True):
            hashes, counts = np.unique(sentences.words, return_counts=True)
            order = np.argsort(-counts, kind="stable")[:vocabulary]
            words[side] = np.sort(hashes[order[counts[order] > 1]])
            known = np.bincount(_numbers(words[side], sentences.words), minlength=len(words[side]) + 1) + 1.0
            unigrams[side] = known / known.sum()
        model = cls(words, unigrams, [])
        source, target = (
            Sentences(_numbers(words[side], sentences.words), sentences.starts)
            for side, sentences in zip(SIDES, sample.sides, strict=True)
        )
        sizes = len(unigrams["source"]), len(unigrams["target"])
        for fold in range(_FOLDS):
            rows = np.flatnonzero(sample.priorities % _FOLDS != fold)
            own = source.take(rows), target.take(rows)
            model.lexicons.append(
                (
                    _pruned(train(*own, sizes, iterations)),
                    _pruned(train(*own[::-1], sizes[::-1], iterations)),
                )
            )
        return model

    def numbers(self, side: str, words: pa.Array) -> Sentences:
        sentences = sentences_of(words)
        return Sentences(_numbers(self.words[side], sentences.words), sentences.starts)

    def scores(self, sources: Sentences, targets: Sentences, priorities: np.ndarray) -> np.ndarray:
        """The score of each pair, rounded; not a number where a side has no words."""
        found = np.full(len(sources), np.nan)
        for fold in range(_FOLDS):
            mine = (priorities % _FOLDS == fold) & (sources.lengths > 0) & (targets.lengths > 0)
            rows = np.flatnonzero(mine)
            if len(rows):
                sides = sources.take(rows), targets.take(rows)
                forward = self._fit(self.lexicons[fold][0], *sides, self.unigrams["target"])
                found[rows] = forward + self._fit(self.lexicons[fold][1], *sides[::-1], self.unigrams["source"])
        return np.round(found, 4)

    @staticmethod
    def _fit(lexicon: Lexicon, given: Sentences, written: Sentences, unigrams: np.ndarray) -> np.ndarray:
        with_empty = given.with_word(len(lexicon.totals) - 1)
        probabilities = lexicon.word_probabilities(with_empty, written, unigrams, _PRIOR)
        gains = np.log(probabilities / unigrams[written.words])
        return np.add.reduceat(gains, written.starts[:-1]) / (written.lengths + _MORE_WORDS)

    def scores_of(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the pairs of the sample, and of its sources with targets of others of the same third."""
        source, target = (
            Sentences(_numbers(self.words[side], sentences.words), sentences.starts)
            for side, sentences in zip(SIDES, sample.sides, strict=True)
        )
        others = np.arange(len(sample))
        for fold in range(_FOLDS):
            rows = np.flatnonzero(sample.priorities % _FOLDS == fold)
            others[rows] = np.roll(rows, len(rows) // 2)
        own = self.scores(source, target, sample.priorities)
        return own, self.scores(source, target.take(others), sample.priorities)

    def save(self, folder: Path) -> None:
        for side in SIDES:
            hashes = np.concatenate([np.zeros(1, np.uint64), self.words[side]])
            write_table(folder / f"{side}.arrow", pa.table({"word": hashes, "probability": self.unigrams[side]}))
        for name, lexicon in self._named():
            columns = {"key": lexicon.keys, "count": lexicon.counts.astype(np.float32)}
            write_table(folder / f"{name}.arrow", pa.table(columns))
            write_table(folder / f"{name}-totals.arrow", pa.table({"total": lexicon.totals}))

    def _named(self) -> Iterator[tuple[str, Lexicon]]:
        for fold, both in enumerate(self.lexicons):
            for direction, lexicon in zip(SIDES, both, strict=True):
                yield f"{fold}-from-{direction}", lexicon

    @classmethod
    def load(cls, folder: Path) -> AlignmentModel:
        tables = {side: read_table(folder / f"{side}.arrow") for side in SIDES}
        words = {side: table["word"].to_numpy()[1:] for side, table in tables.items()}
        unigrams = {side: table["probability"].to_numpy() for side, table in tables.items()}

        def lexicon(name: str, num_targets: int) -> Lexicon:
            table = read_table(folder / f"{name}.arrow")
            totals = read_table(folder / f"{name}-totals.arrow")["total"].to_numpy()
            return Lexicon(num_targets, table["key"].to_numpy(), table["count"].to_numpy(), totals)

        sizes = {side: len(unigrams[other]) for side, other in zip(SIDES, reversed(SIDES), strict=True)}
        lexicons = [
            (lexicon(f"{fold}-from-source", sizes["source"]), lexicon(f"{fold}-from-target", sizes["target"]))
            for fold in range(_FOLDS)
        ]
        return cls(words, unigrams, lexicons)


def _numbers(known: np.ndarray, words: np.ndarray) -> np.ndarray:
    if not len(known):
        return np.zeros(len(words), np.int64)
    at = np.minimum(np.searchsorted(known, words), len(known) - 1)
    return np.where(known[at] == words, at + 1, 0)


def _pruned(lexicon: Lexicon) -> Lexicon:
    kept = lexicon.counts >= _LEAST_COUNT
    # As they will be read again.
    counts = lexicon.counts[kept].astype(np.float32)
    return Lexicon(lexicon.num_targets, lexicon.keys[kept], counts, lexicon.totals)
