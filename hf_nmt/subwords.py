"""Two subword algorithms with the same result on every run: Unigram training (Kudo 2018) and BPE-dropout.

**Unigram.** The trainer of the `tokenizers` package visits words in the order of a randomly seeded hash map, so that
its scores differ from run to run, and it leaves longer segmentations. This is the same method, ordered, on arrays:

- seeds: characters, and the substrings found twice or more that are not part of one longer substring each time;
- expectation-maximisation over all segmentations of each word; the maximisation is that of variational Bayes,
  log p(piece) = digamma(count) - digamma(sum of counts), as in SentencePiece;
- pruning: a quarter of the pieces goes each round, those that cost the least likelihood when the best segmentation of
  the piece into others takes their place. Unlike in SentencePiece, a piece without a use stays while pieces that are
  sure to go need it: as long as every word is a piece, no stem is used, and the stems must not be gone first.

**BPE-dropout** (Provilkov et al. 2020). The `tokenizers` package draws from a generator without a seed.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from hf_nmt.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hf_nmt.models.tokenization_nmt import NmtTokenizer

MAX_PIECE_LENGTH = 16  # characters; as in SentencePiece
MAX_WORD_LENGTH = 32  # characters; longer words (phrases of Thai, say, which has no spaces) are cut for training
# The most frequent words are learnt from, up to a number of words and of characters, so that time and memory of the
# training itself are bounded, whatever the text. Ordinary words reach the first limit, phrases without spaces the
# second. What training adds to memory, and its time on one core:
# - BPE: 0.3 GB and 12 s for 2.4 million characters of phrases;
# - unigram: 0.3 GB and 16 s for 100,000 ordinary words, 0.5 GB and 40 s for 1.2 million characters of phrases, 0.7 GB
#   and a minute where each phrase comes twice, 0.6 GB for random text over two letters.
MAX_BPE_WORDS, MAX_BPE_CHARACTERS = 200_000, 2_400_000
MAX_UNIGRAM_WORDS, MAX_UNIGRAM_CHARACTERS = 100_000, 1_200_000
MAX_SEED_EDGES = 6_000_000  # of the lattice of the seeds: 100,000 ordinary words have 4 million
SHRINKING_FACTOR = 0.75
EXPECTED_COUNT_FLOOR = 0.5  # no piece is scored as if it were expected less often


def count_words(texts: Iterable[str], words: Counter[str]) -> tuple[int, int]:
    """Add up words as they stand between spaces: the first of a text bare, each other with the space before it.

    Returns:
        How many texts there were, and how many of them not empty.
    """
    number = used = 0
    for text in texts:
        number += 1
        if text:
            words.update(text.replace(" ", "\n ").split("\n"))
            used += 1
    return number, used


def split_words(
    words: Counter[str], split: Callable[[str], Sequence[tuple[str, Any]]], rare: Sequence[str]
) -> Counter[str]:
    """Counts of what `split` makes of the words where rare characters are spaces; empties `words` to save memory."""
    gaps = str.maketrans(dict.fromkeys(rare, " "))
    parts: Counter[str] = Counter()
    while words:
        word, count = words.popitem()
        for part, _ in split(word.translate(gaps)):
            parts[part] += count
    return parts


def cut(word: str) -> Iterator[str]:
    """Parts of about one length, at most `MAX_WORD_LENGTH`, none of which begins with a combining mark.

    Only a run of marks that is longer than that is cut within.
    """
    start = 0
    while (rest := len(word) - start) > MAX_WORD_LENGTH:
        most = start + math.ceil(rest / math.ceil(rest / MAX_WORD_LENGTH))
        stop = most
        while stop > start and unicodedata.category(word[stop]) in ("Mn", "Mc", "Me", "Cf"):  # Cf: joiners
            stop -= 1
        stop = stop if stop > start else most
        yield word[start:stop]
        start = stop
    yield word[start:]


def most_frequent(words: Counter[str], max_words: int, max_characters: int) -> Counter[str]:
    """The most frequent words, cut by `cut`, and the characters that only others have, each as a word of its own.

    Among words of one count a hash chooses: where the script has no spaces most words occur once, and an alphabetical
    choice would take all of them from the same corner of the script.

    Args:
        words: words, each with its count.
        max_words, max_characters: that are left after cutting, the characters on their own aside. Characters are
            limited too because words of scripts without spaces are whole phrases.
    """
    chosen: Counter[str] = Counter()
    for part, count in _cut_in_order(words, max_words):
        if part not in chosen:
            max_characters -= len(part)
            if max_characters < 0 or len(chosen) == max_words:
                break
        chosen[part] += count
    known = set().union(*chosen)
    for word, count in words.items():
        for character in set(word) - known:
            chosen[character] += count * word.count(character)
    return chosen


def _cut_in_order(words: Counter[str], limit: int) -> Iterator[tuple[str, int]]:
    order = heapq.nsmallest(limit, words.items(), key=lambda item: (-item[1], crc32(item[0].encode()), item[0]))
    for word, count in order:
        for part in cut(word):
            yield part, count


def repeated(words: Mapping[str, int], at_a_time: int) -> Iterator[list[str]]:
    """Each word on as many lines as it was counted, for a trainer that takes texts and no counts."""
    batch: list[str] = []
    for word, count in words.items():
        whole, rest = divmod(count, at_a_time)
        yield from itertools.repeat(["\n".join([word] * at_a_time)], whole)
        batch.append("\n".join([word] * rest))
        if len(batch) == at_a_time:
            yield batch
            batch = []
    yield batch


def train_unigram(words: Mapping[str, int], num_pieces: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities (natural log), the likeliest first.

    Every character of `words` is a piece. There are fewer than `num_pieces` where the words give no more.

    Args:
        words: words, each with its count, as `most_frequent` leaves them.
        num_pieces: wanted number of pieces, at least that of the distinct characters.
    """
    counts = dict(sorted(words.items(), key=lambda item: (-item[1], item[0])))
    texts, weights = list(counts), np.array(list(counts.values()), dtype=np.float64)
    model = _Pieces(_bounded(_seed_pieces(counts), MAX_SEED_EDGES), texts)
    almost = int(num_pieces * 1.1)  # the last cut is by score alone
    while True:
        for _ in range(2):
            model.maximise(model.words.expected_counts(model.scores, weights))
        if len(model.pieces) <= max(almost, num_pieces):
            break
        model.prune(weights, max(almost, int(len(model.pieces) * SHRINKING_FACTOR)), num_pieces)
    return model.best(num_pieces)


def _seed_pieces(words: Mapping[str, int]) -> dict[str, int]:
    """Characters, and repeated substrings that are not always part of the same longer one, with their counts."""
    shorter: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            shorter[character] += count
    seeds = dict(shorter)
    for length in range(2, MAX_PIECE_LENGTH + 1):  # one after another: what is repeated has a repeated beginning
        longer: Counter[str] = Counter()
        for word, count in words.items():
            for start in range(len(word) - length + 1):
                if word[start : start + length - 1] in shorter:
                    longer[word[start : start + length]] += count
        longer = Counter({piece: count for piece, count in longer.items() if count > 1})
        for piece, count in longer.items():
            for part in (piece[:-1], piece[1:]):
                if length > 2 and shorter[part] == count:
                    seeds.pop(part, None)
        seeds.update(longer)
        shorter = longer
    return seeds


def _bounded(seeds: dict[str, int], max_edges: int) -> dict[str, int]:
    """All characters, and of the other seeds as many as their own lattice has room for.

    A seed of n characters has up to n (n + 1) / 2 edges. Where a text holds many passages twice nearly every position
    begins a seed of full length, and those lattices would be far larger than that of the words. So it is the frequent
    and the short that stay.
    """
    if sum(len(piece) * (len(piece) + 1) // 2 for piece in seeds) <= max_edges:
        return seeds
    kept = {piece: count for piece, count in seeds.items() if len(piece) == 1}
    max_edges -= len(kept)
    others = (piece for piece in seeds if len(piece) > 1)
    for piece in sorted(others, key=lambda piece: (-seeds[piece] / len(piece), crc32(piece.encode()), piece)):
        max_edges -= len(piece) * (len(piece) + 1) // 2
        if max_edges < 0:
            break
        kept[piece] = seeds[piece]
    return kept


class _Pieces:
    """The pieces of the moment and their scores; `words` and `itself` are the lattices that they span."""

    def __init__(self, seeds: Mapping[str, int], texts: Sequence[str]):
        self.pieces = sorted(seeds, key=lambda piece: (-seeds[piece] * len(piece), piece))
        size = np.array([seeds[piece] * len(piece) for piece in self.pieces], dtype=np.float64)
        self.scores = np.log(size) - np.log(size.sum())
        self.required = np.array([len(piece) == 1 for piece in self.pieces])
        index = {piece: number for number, piece in enumerate(self.pieces)}
        self.words = Lattice(texts, index)
        self.itself = Lattice(self.pieces, index, whole=False)
        self.rows = np.arange(len(self.pieces))  # of each piece in `itself`

    def maximise(self, counts: np.ndarray) -> None:
        counts = np.maximum(counts, EXPECTED_COUNT_FLOOR)
        self.scores = digamma(counts) - digamma(counts.sum(keepdims=True))

    def prune(self, weights: np.ndarray, wanted: int, final: int) -> None:
        """Keep the `wanted` pieces whose replacement by others would cost the most likelihood."""
        number = len(self.pieces)
        edges, used = self.words.best_paths(self.scores, weights)
        counts = np.bincount(self.words.piece[edges], weights=used, minlength=number)
        present = np.zeros(len(self.itself.texts))
        present[self.rows] = 1
        edges, _ = self.itself.best_paths(self.scores, present)
        owner_of_row = np.full(len(self.itself.texts), -1)
        owner_of_row[self.rows] = np.arange(number)
        owner, part = owner_of_row[self.itself.text_of(edges)], self.itself.piece[edges]
        loss = self._losses(counts, owner, part)
        # What will not be among the last is going to be written in parts, which may have no use as yet.
        doomed = np.ones(number, dtype=bool)
        doomed[np.argsort(-loss, kind="stable")[:final]] = False
        counts += np.bincount(part, weights=np.where(doomed, counts, 0)[owner], minlength=number)
        loss = self._losses(counts, owner, part)
        keep = np.zeros(number, dtype=bool)
        keep[np.argsort(-loss, kind="stable")[:wanted]] = True
        self._keep(keep)

    def _losses(self, counts: np.ndarray, owner: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Log-likelihood per piece of text that is lost where a piece hands its count to each of its parts.

        Args:
            counts: uses of each piece.
            owner, part: row by row, a piece and one of the pieces of its best segmentation.
        """
        number, total = len(counts), counts.sum()
        split_score = np.bincount(owner, weights=self.scores[part], minlength=number)
        num_parts = np.bincount(owner, minlength=number)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.bincount(owner, weights=np.log(counts[part] + counts[owner]), minlength=number)
            split = parts - num_parts * np.log(total + counts * (num_parts - 1))
            loss = counts / total * (np.log(counts) - np.log(total) - split)
        loss[(counts == 0) | (split_score >= self.scores)] = -np.inf  # not used, or likelier in parts
        loss[self.required] = np.inf
        return loss

    def best(self, number: int) -> list[tuple[str, float]]:
        order = sorted(range(len(self.pieces)), key=lambda i: (not self.required[i], -self.scores[i], self.pieces[i]))
        chosen = sorted(order[:number], key=lambda i: (-self.scores[i], self.pieces[i]))
        # Rounded, so that the last bits of another processor's logarithm make no other file.
        return [(self.pieces[i], round(float(self.scores[i]), 6)) for i in chosen]

    def _keep(self, keep: np.ndarray) -> None:
        if keep.all():
            return
        self.words.keep(keep)
        self.itself.keep(keep)
        self.pieces = [piece for piece, kept in zip(self.pieces, keep, strict=True) if kept]
        self.scores, self.required, self.rows = self.scores[keep], self.required[keep], self.rows[keep]


class Lattice:
    """All ways to write each text as a row of pieces.

    The nodes are the positions 0 to len(text) of every text; an edge is a piece between two of them. Edges are sorted
    by their end, so that each step takes all edges that end at position t, of all texts.

    Args:
        texts: what is to be written; each of its characters must be a piece.
        index: piece -> number.
        whole: False leaves out the edge that spans a whole text, of two or more characters.
    """

    def __init__(self, texts: Sequence[str], index: Mapping[str, int], whole: bool = True):
        self.texts = texts
        lengths = np.array([len(text) for text in texts])
        self.first = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])  # node 0 of each text
        self.last = self.first + lengths
        self.num_nodes = int(self.last[-1]) + 1
        begins, ends, numbers = array("i"), array("i"), array("i")
        for node, text in zip(self.first.tolist(), texts, strict=True):
            length = len(text)
            for start in range(length):
                for stop in range(start + 1, min(start + MAX_PIECE_LENGTH, length) + 1):
                    number = index.get(text[start:stop])
                    if number is not None and (whole or stop - start < length or length == 1):
                        begins.append(node + start)
                        ends.append(node + stop)
                        numbers.append(number)
        self._position = (np.arange(self.num_nodes) - np.repeat(self.first, lengths + 1)).astype(np.int32)
        begin, end, piece = (np.frombuffer(values, dtype=np.int32) for values in (begins, ends, numbers))
        order = np.lexsort((begin, end, self._position[end])).astype(np.int32)
        self.begin, self.end, self.piece = begin[order], end[order], piece[order]
        self._step()

    def text_of(self, edges: np.ndarray) -> np.ndarray:
        """Index of the text that each edge belongs to."""
        return np.searchsorted(self.first, self.begin[edges], side="right") - 1

    def keep(self, kept: np.ndarray) -> None:
        """Leave the edges of the pieces where `kept` is true, which are numbered anew."""
        edges = kept[self.piece]
        self.begin, self.end = self.begin[edges], self.end[edges]
        self.piece = (np.cumsum(kept, dtype=np.int32) - 1)[self.piece[edges]]
        self._step()

    def _step(self) -> None:
        position = self._position[self.end]
        bounds = np.searchsorted(position, np.arange(1, self._position.max(initial=0) + 2))
        self._steps = []
        for low, high in itertools.pairwise(bounds):
            if low < high:
                starts = np.flatnonzero(np.diff(self.end[low:high], prepend=-1))
                sizes = np.diff(starts, append=high - low)
                self._steps.append((slice(low, high), starts, sizes, self.end[low:high][starts]))

    def expected_counts(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """How often each piece is expected in the texts, each counted `weights` times, over all segmentations."""
        forward = np.zeros(self.num_nodes)  # log-probability of all ways to a node
        for edges, starts, sizes, nodes in self._steps:
            paths = forward[self.begin[edges]] + scores[self.piece[edges]]
            top = np.maximum.reduceat(paths, starts)
            forward[nodes] = top + np.log(np.add.reduceat(np.exp(paths - np.repeat(top, sizes)), starts))
        mass = np.zeros(self.num_nodes)  # how often a node is passed
        mass[self.last] = weights
        passed = np.zeros(len(self.piece))
        for edges, *_ in reversed(self._steps):
            begin, end = self.begin[edges], self.end[edges]
            share = np.exp(forward[begin] + scores[self.piece[edges]] - forward[end])
            passed[edges] = mass[end] * share
            np.add.at(mass, begin, passed[edges])
        return np.bincount(self.piece, weights=passed, minlength=len(scores))

    def best_paths(self, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Edges on the likeliest segmentation of each text with a weight above 0, and the weights of their texts."""
        forward, best = np.zeros(self.num_nodes), np.zeros(self.num_nodes, dtype=np.int64)
        for edges, starts, sizes, nodes in self._steps:
            paths = forward[self.begin[edges]] + scores[self.piece[edges]]
            top = np.maximum.reduceat(paths, starts)
            at_top = np.flatnonzero(paths == np.repeat(top, sizes))
            forward[nodes] = top
            best[nodes] = edges.start + at_top[np.searchsorted(at_top, starts)]
        mass = np.zeros(self.num_nodes)
        mass[self.last] = weights
        on_path: list[np.ndarray] = []
        for *_, nodes in reversed(self._steps):
            edges = best[nodes[mass[nodes] > 0]]
            mass[self.begin[edges]] = mass[self.end[edges]]
            on_path.append(edges)
        chosen = np.concatenate(on_path)
        return chosen, mass[self.end[chosen]]


def digamma(x: np.ndarray) -> np.ndarray:
    """Derivative of log gamma(x), for x > 0: recurrence up to x >= 6, then the asymptotic series."""
    shift, x = np.zeros_like(x, dtype=np.float64), np.array(x, dtype=np.float64)
    while (small := x < 6).any():
        shift[small] -= 1 / x[small]
        x[small] += 1
    square = 1 / x**2
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return shift + np.log(x) - 0.5 / x - series


class BpeDropout:
    """Segmentations of the training text with BPE-dropout, Algorithm 1 of Provilkov et al. 2020.

    At each step every merge that could be applied is left out with the given probability, and the first of the rest
    is applied; where all were left out, the word stays as it is. Probability 0 gives the tokenizer's own ids,
    probability 1 characters.

    Each word has `NUM_VARIANTS` segmentations drawn once and for all from the word and the number of the variant; the
    generator picks among them. So the ids depend on nothing but text and generator, whatever was cached before.

    Args:
        tokenizer: one with BPE vocabularies.
        probability: of leaving out a merge, 0 to 1.

    Raises:
        ConfigError: the tokenizer is not BPE, or the probability is not between 0 and 1.
    """

    NUM_VARIANTS = 256

    def __init__(self, tokenizer: NmtTokenizer, probability: float):
        if not 0 <= probability <= 1:
            raise ConfigError(f"dropout: {probability} is not a probability; BPE-dropout takes 0 to 1.")
        self.tokenizer, self.probability = tokenizer, probability
        self._end = tokenizer.eos_token_id
        self._source = _MergeSampler(tokenizer.source_backend, probability)
        shared = tokenizer.target_backend is tokenizer.source_backend
        self._target = self._source if shared else _MergeSampler(tokenizer.target_backend, probability)

    def __reduce__(self):  # workers start with an empty cache
        return type(self), (self.tokenizer, self.probability)

    def sample_source_ids(
        self, text: str, generator: np.random.Generator, usual: Sequence[int] | None = None
    ) -> list[int]:
        """Ids as `tokenizer(text)` gives them, language tag and `</s>` included.

        Args:
            usual: what the tokenizer gave, set to the languages of the row, whose tag is taken; None takes that of
                the language that the tokenizer is set to now.
        """
        ids = self._source.sample(text, generator)
        if self.tokenizer.language_tags:
            ids.insert(0, self.tokenizer.language_tag_id if usual is None else usual[0])
        ids.append(self._end)
        return ids

    def sample_target_ids(self, text: str, generator: np.random.Generator) -> list[int]:
        """Ids as `tokenizer(text_target=text)` gives them, `</s>` included."""
        return [*self._target.sample(text, generator), self._end]


class _MergeSampler:
    """Random segmentations by the merges of one Rust BPE tokenizer."""

    def __init__(self, backend: Tokenizer, probability: float):
        written = json.loads(backend.to_str())
        model, added = written["model"], written["added_tokens"]
        if model["type"] != "BPE":
            raise ConfigError(dropout_needs_bpe(probability))
        self._normalize, self._split = backend.normalizer.normalize_str, backend.pre_tokenizer.pre_tokenize_str
        self._probability = probability
        # Tags of sources; special tokens that are written out are text.
        self._tags = {token["content"]: token["id"] for token in added if not token["special"]}
        self._tag = re.compile(f"({'|'.join(map(re.escape, self._tags)) or '(?!)'})")
        self._vocabulary: dict[str, int] = model["vocab"]
        self._unknown, self._byte_fallback = self._vocabulary[model["unk_token"]], model["byte_fallback"]
        self._merges = {}
        for rank, (left, right) in enumerate(model["merges"]):
            pair = self._vocabulary[left], self._vocabulary[right]
            self._merges[pair] = rank, self._vocabulary[left + right]
        self._segment = lru_cache(maxsize=2**17)(self._draw)

    def sample(self, text: str, generator: np.random.Generator) -> list[int]:
        words = list[str]()
        for number, part in enumerate(self._tag.split(text)):  # every second one is a tag
            words += [part] if number % 2 else [word for word, _ in self._split(self._normalize(part))]
        variants = generator.integers(BpeDropout.NUM_VARIANTS, size=len(words)).tolist()
        drawn = (self._segment(word, n if self._probability else 0) for word, n in zip(words, variants, strict=True))
        return [*itertools.chain.from_iterable(drawn)]

    def _characters(self, word: str) -> list[int]:
        if word in self._tags:
            return [self._tags[word]]
        ids: list[int] = []
        for character in word:
            if (known := self._vocabulary.get(character)) is not None:
                ids.append(known)
            elif self._byte_fallback:
                ids.extend(self._vocabulary[f"<0x{byte:02X}>"] for byte in character.encode())
            elif not ids or ids[-1] != self._unknown:
                ids.append(self._unknown)
        return ids

    def _draw(self, word: str, variant: int) -> tuple[int, ...]:
        # A generator of its own, seeded by text: the same in every process, unlike hash().
        ids, draw = self._characters(word), random.Random(f"{variant} {word}").random
        find, dropout = self._merges.get, self._probability
        while True:
            best = None
            for place, pair in enumerate(itertools.pairwise(ids)):
                merge = find(pair)
                if merge is not None and (best is None or merge < best[0]) and (not dropout or draw() >= dropout):
                    best = merge, place
            if best is None:
                return tuple(ids)
            (_, piece), place = best
            ids[place : place + 2] = [piece]


def dropout_needs_bpe(probability: float) -> str:
    return (
        f"dropout: {probability} was given, but BPE-dropout leaves out merges, and a unigram tokenizer has none. Set "
        "dropout to 0, or algorithm to bpe."
    )
