"""Unigram training against enumeration, and BPE-dropout against the Rust tokenizer and closed forms."""

from __future__ import annotations

import itertools
import math
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hf_nmt.errors import ConfigError
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.subwords import (
    MAX_PIECE_LENGTH,
    MAX_WORD_LENGTH,
    BpeDropout,
    Lattice,
    _bounded,
    _seed_pieces,
    cut,
    digamma,
    most_frequent,
    train_unigram,
)
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

STEMS = ["lauf", "spiel", "koch", "wander", "mal", "schreib", "denk", "fisch"]
ENDINGS = ["en", "end", "st", "ung", "er", "erin", "erinnen"]


def words(seed: int = 0, number: int = 400) -> Counter[str]:
    draw = random.Random(seed)
    return Counter("▁" + draw.choice(STEMS) + draw.choice(ENDINGS) for _ in range(number))


def segmentations(text: str, pieces: dict[str, float]) -> list[tuple[str, ...]]:
    """All ways to write `text` in pieces, by the definition."""
    if not text:
        return [()]
    return [
        (text[:end], *rest)
        for end in range(1, len(text) + 1)
        if text[:end] in pieces
        for rest in segmentations(text[end:], pieces)
    ]


# Unigram


def test_digamma_is_that_of_torch():
    x = np.concatenate([np.array([1e-3, 0.5, 1.0, 2.5, 5.999, 6.0]), np.logspace(-2, 7, 50)])
    np.testing.assert_allclose(digamma(x), torch.digamma(torch.tensor(x)).numpy(), rtol=1e-10, atol=1e-12)
    assert digamma(np.array([1.0]))[0] == pytest.approx(-0.5772156649015329)


@pytest.fixture
def lattice():
    draw = random.Random(3)
    texts = ["".join(draw.choices("abc", k=length)) for length in (1, 2, 5, 7, 8)]
    parts = {text[i:j] for text in texts for i, j in itertools.combinations(range(len(text) + 1), 2)}
    pieces = sorted({*"abc", *draw.sample(sorted(parts), 15)})
    scores = {piece: draw.uniform(-6, -1) for piece in pieces}
    return texts, pieces, scores


def test_expected_counts_are_those_of_enumeration(lattice):
    texts, pieces, scores = lattice
    weights = np.array([1.0, 4.0, 2.5, 0.5, 3.0])
    expected = Counter()
    for text, weight in zip(texts, weights, strict=True):
        ways = segmentations(text, scores)
        chances = [math.exp(sum(scores[piece] for piece in way)) for way in ways]
        for way, chance in zip(ways, chances, strict=True):
            for piece in way:
                expected[piece] += weight * chance / sum(chances)
    graph = Lattice(texts, {piece: number for number, piece in enumerate(pieces)})
    counts = graph.expected_counts(np.array([scores[piece] for piece in pieces]), weights)
    np.testing.assert_allclose(counts, [expected[piece] for piece in pieces], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("whole", [True, False])
def test_best_paths_are_those_of_enumeration(lattice, whole):
    texts, pieces, scores = lattice
    weights = np.array([1.0, 4.0, 0.0, 0.5, 3.0])
    expected = Counter()
    for text, weight in zip(texts, weights, strict=True):
        ways = [way for way in segmentations(text, scores) if whole or len(way) > 1 or len(text) == 1]
        for piece in max(ways, key=lambda way: sum(scores[piece] for piece in way)):
            expected[piece] += weight
    graph = Lattice(texts, {piece: number for number, piece in enumerate(pieces)}, whole=whole)
    edges, used = graph.best_paths(np.array([scores[piece] for piece in pieces]), weights)
    counts = np.bincount(graph.piece[edges], weights=used, minlength=len(pieces))
    assert counts.tolist() == [expected[piece] for piece in pieces]
    assert set(graph.text_of(edges)) == {0, 1, 3, 4}


def test_a_lattice_with_pieces_taken_away_is_that_of_the_others(lattice):
    texts, pieces, scores = lattice
    kept = np.array([len(piece) == 1 or number % 2 == 0 for number, piece in enumerate(pieces)])
    smaller = Lattice(texts, {piece: number for number, piece in enumerate(pieces)})
    smaller.keep(kept)
    rest = [piece for piece, keep in zip(pieces, kept, strict=True) if keep]
    fresh = Lattice(texts, {piece: number for number, piece in enumerate(rest)})
    values, weights = np.array([scores[piece] for piece in rest]), np.ones(len(texts))
    assert smaller.expected_counts(values, weights).tolist() == fresh.expected_counts(values, weights).tolist()


def test_seeds_are_the_repeated_substrings_that_are_not_part_of_a_longer_one_each_time():
    corpus = {"banana": 2, "bandana": 1, "cab": 1}
    count = Counter()
    for word, number in corpus.items():
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            count[word[start:end]] += number
    closed = {
        part: number
        for part, number in count.items()
        if len(part) == 1
        or number > 1
        and not any(
            number == other for longer, other in count.items() if len(longer) == len(part) + 1 and part in longer
        )
    }
    assert _seed_pieces(corpus) == closed
    assert "anana" not in closed and closed["banana"] == 2 and closed["ana"] == 5


def test_pieces_are_word_parts_and_all_characters():
    pieces = dict(train_unigram(words(), 40))
    characters = set("".join(words()))
    assert len(pieces) == 40 and characters <= set(pieces)
    assert {"▁" + stem for stem in STEMS} <= set(pieces)
    assert list(pieces.values()) == sorted(pieces.values(), reverse=True)
    assert 0.9 < sum(math.exp(score) for score in pieces.values()) < 1


def test_the_order_of_words_does_not_matter():
    corpus = words()
    assert train_unigram(corpus, 60) == train_unigram(dict(sorted(corpus.items(), reverse=True)), 60)


def test_fewer_pieces_than_wanted_and_a_single_word():
    assert len(train_unigram({"ab": 1}, 50)) == 2
    assert {piece for piece, _ in train_unigram({"ab": 9}, 50)} >= {"a", "b", "ab"}


def test_scores_of_long_words_stay_finite():
    pieces = train_unigram({"ab" * 500: 3, "b" * 1000: 2}, 10)
    assert all(math.isfinite(score) for _, score in pieces)


def test_segmentations_are_no_longer_than_those_of_the_rust_trainer():
    corpus = words(number=3000)
    ours = models.Unigram([("<unk>", 0.0), *train_unigram(corpus, 47)], unk_id=0)
    theirs = Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(vocab_size=48, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    theirs.train_from_iterator([" ".join(corpus.elements())], trainer)
    assert theirs.get_vocab_size() <= 48
    length = {
        name: sum(len(model.tokenize(word)) * count for word, count in corpus.items())
        for name, model in (("ours", ours), ("theirs", theirs.model))
    }
    assert length["ours"] <= length["theirs"]


def test_the_saved_model_chooses_the_likeliest_segmentation():
    pieces = dict(train_unigram(words(), 45))
    model = models.Unigram([("<unk>", 0.0), *pieces.items()], unk_id=0)
    for word in words(seed=1, number=30):
        best = max(segmentations(word, pieces), key=lambda way: sum(pieces[piece] for piece in way))
        assert [token.value for token in model.tokenize(word)] == list(best)


# BPE-dropout

SOURCES = [" ".join(word.strip("▁") for word in words(seed, 25).elements()) for seed in range(20)]
TARGETS = [f"{i} fish are cooking, painting and walking </s> {i * 7}!" for i in range(20)]


def train(**settings) -> NmtTokenizer:
    settings = TokenizerSettings(**{"vocab_size": 330, **settings})
    return train_tokenizer(SOURCES, TARGETS, settings, source_language="de", target_language="en")


def tokenizer_of(merges: list[tuple[str, str]], characters: str) -> NmtTokenizer:
    pieces = ["<unk>", "<pad>", "<s>", "</s>", "▁", *characters, *("".join(merge) for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    template = train().source_backend
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True))
    backend.normalizer, backend.pre_tokenizer = template.normalizer, template.pre_tokenizer
    backend.post_processor = template.post_processor
    return NmtTokenizer(tokenizer_object=backend)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "settings", [{}, {"joint": False, "language_tags": True}, {"byte_fallback": False, "vocab_size": 80}]
)
def test_without_dropout_the_ids_are_the_tokenizers_own(settings):
    tokenizer = train(**settings)
    sampler = BpeDropout(tokenizer, 0.0)
    texts = [*SOURCES, *TARGETS, "", "  ", "\u00e5\u00e5 \N{DOG FACE}a\N{CAT FACE}", "</s> <2en> <0x41> 12", "a" * 40]
    for text in texts:
        assert sampler.sample_source_ids(text, generator()) == tokenizer(text)["input_ids"]
        assert sampler.sample_target_ids(text, generator()) == tokenizer(text_target=text)["input_ids"]


def test_with_certain_dropout_the_pieces_are_characters():
    tokenizer = train()
    sampler = BpeDropout(tokenizer, 1.0)
    for text in SOURCES[:5]:
        pieces = tokenizer.convert_ids_to_tokens(sampler.sample_source_ids(text, generator()))
        assert pieces == [*("▁" + text.replace(" ", "▁")), "</s>"]


def test_sampled_ids_are_the_same_text():
    tokenizer = train(joint=False)
    sampler, draws = BpeDropout(tokenizer, 0.3), generator()
    for source, target in zip(SOURCES, TARGETS, strict=True):
        ids = sampler.sample_source_ids(source, draws)
        assert ids != tokenizer(source)["input_ids"]
        assert tokenizer.source_backend.decode(ids) == source
        assert tokenizer.decode(sampler.sample_target_ids(target, draws), skip_special_tokens=True) == target


MERGES = [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "d"), ("▁", "abc"), ("bc", "d")]


@pytest.mark.parametrize(
    ("word", "expected"), [("abcd", "▁abc d"), ("bcd", "▁ bcd"), ("acd", "▁ a cd"), ("abab", "▁ ab ab"), ("d", "▁ d")]
)
def test_merges_by_hand(word, expected):
    tokenizer = tokenizer_of(MERGES, "abcd")
    ids = BpeDropout(tokenizer, 0.0).sample_source_ids(word, generator())
    assert tokenizer.convert_ids_to_tokens(ids) == [*expected.split(), "</s>"]


def chances(pieces: tuple[str, ...], dropout: float) -> Counter[tuple[str, ...]]:
    """Exact distribution of the segmentations of Algorithm 1: what is applied is the first merge not left out."""
    possible = sorted(
        (MERGES.index(pair), place) for place, pair in enumerate(itertools.pairwise(pieces)) if pair in MERGES
    )
    result = Counter({pieces: dropout ** len(possible)})
    for number, (_, place) in enumerate(possible):
        merged = (*pieces[:place], pieces[place] + pieces[place + 1], *pieces[place + 2 :])
        for outcome, chance in chances(merged, dropout).items():
            result[outcome] += dropout**number * (1 - dropout) * chance
    return result


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_segmentations_come_as_often_as_algorithm_1_says(monkeypatch, dropout):
    monkeypatch.setattr(BpeDropout, "NUM_VARIANTS", 10**9)
    tokenizer = tokenizer_of(MERGES, "abcd")
    sampler, draws, number = BpeDropout(tokenizer, dropout), generator(), 20_000
    seen = Counter(tuple(sampler.sample_source_ids("abcdab", draws)[:-1]) for _ in range(number))
    exact = chances(tuple("▁abcdab"), dropout)
    assert sum(exact.values()) == pytest.approx(1)
    assert {tuple(tokenizer.convert_ids_to_tokens(ids)) for ids in seen} <= set(exact)
    for pieces, chance in exact.items():
        share = seen[tuple(tokenizer.convert_tokens_to_ids(list(pieces)))] / number
        assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / number) + 1e-9, pieces


def test_the_same_generator_gives_the_same_ids_whatever_was_drawn_before():
    tokenizer = train()
    warm, cold = BpeDropout(tokenizer, 0.2), BpeDropout(tokenizer, 0.2)
    for text in SOURCES:
        warm.sample_source_ids(text, generator(9))
    copied = pickle.loads(pickle.dumps(warm))
    expected = [cold.sample_source_ids(text, generator(5)) for text in SOURCES]
    for sampler in (cold, warm, copied):
        assert [sampler.sample_source_ids(text, generator(5)) for text in SOURCES] == expected
    assert [cold.sample_source_ids(text, generator(6)) for text in SOURCES] != expected


def test_what_the_draws_are_does_not_change_between_processes_and_versions():
    tokenizer = tokenizer_of(MERGES, "abcd")
    sampler, draws = BpeDropout(tokenizer, 0.4), np.random.Generator(np.random.PCG64(1))
    drawn = [
        " ".join(tokenizer.convert_ids_to_tokens(sampler.sample_source_ids("abcd", draws))[:-1]) for _ in range(6)
    ]
    assert drawn == DRAWN


DRAWN = ["▁ ab cd", "▁ a b cd", "▁ ab c d", "▁ ab cd", "▁ abc d", "▁ a bc d"]


def test_a_tag_opens_the_sampled_source():
    tokenizer = train_tokenizer(
        SOURCES,
        TARGETS,
        TokenizerSettings(vocab_size=330, language_tags=True),
        source_language="de",
        target_language=["en", "fr"],
    )
    sampler = BpeDropout(tokenizer, 0.1)
    with pytest.raises(ValueError, match="set tgt_lang to en, fr"):
        sampler.sample_source_ids("laufen", generator())
    tagged = tokenizer.convert_tokens_to_ids(["<2en>", "l"])  # of a row that tells its language
    assert sampler.sample_source_ids("laufen", generator(), tagged)[0] == tagged[0]
    tokenizer.tgt_lang = "fr"
    assert tokenizer.convert_ids_to_tokens(sampler.sample_source_ids("laufen", generator()))[0] == "<2fr>"


def test_refusals():
    with pytest.raises(ConfigError, match=r"dropout: 0\.1 was given, but BPE-dropout leaves out merges, .* unigram"):
        BpeDropout(train(algorithm="unigram"), 0.1)
    with pytest.raises(ConfigError, match=r"dropout: 1\.5 is not a probability; BPE-dropout takes 0 to 1"):
        BpeDropout(train(), 1.5)


# The bounds on words, characters and seeds


def test_the_most_frequent_words_are_kept_with_the_characters_of_all():
    words = Counter({"aa": 9, "ab": 5, "ba": 1, "xy": 1, "bxz": 1})
    assert most_frequent(words, 5, 11) == words
    for limits in ((2, 100), (5, 5)):
        kept = most_frequent(words, *limits)
        assert kept == {"aa": 9, "ab": 5, "x": 2, "y": 1, "z": 1}
        assert set("".join(kept)) == set("".join(words))


def test_words_of_one_count_are_kept_from_everywhere():
    words = Counter(f"{chr(0x4E00 + first)}{chr(0x4E00 + second)}" for first in range(50) for second in range(50))
    kept = [word for word in most_frequent(words, 500, 10**6) if len(word) == 2]
    firsts = Counter(word[0] for word in kept)
    assert len(kept) == 500 and len(firsts) == 50 and max(firsts.values()) < 30
    backwards = Counter(dict(reversed(words.items())))
    assert most_frequent(backwards, 500, 10**6) == most_frequent(words, 500, 10**6)
    assert most_frequent(words, 2500, 1000) == most_frequent(words, 500, 10**6)


VOWEL, TONE = "\N{THAI CHARACTER SARA I}", "\N{THAI CHARACTER MAI EK}"  # combining marks
LETTERS = [chr(code) for code in range(0x0E01, 0x0E2F)]


def phrases(number: int, length: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Thai letters with marks, joined to words of a lexicon and those, without spaces, to phrases."""
    draw = random.Random(seed)
    syllables = [first + mark for first in LETTERS for mark in ("", VOWEL, VOWEL + TONE)]
    lexicon = list(dict.fromkeys("".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(150)))
    return lexicon, ["".join(draw.choices(lexicon, k=length)) for _ in range(number)]


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 64, 65, 100, 1000])
def test_long_words_are_cut_evenly_and_not_before_a_mark(length):
    draw = random.Random(length)
    word = "".join(draw.choices(["k", "k" + TONE, "k" + VOWEL + TONE, "\N{ZERO WIDTH JOINER}"], k=length))[:length]
    parts = list(cut("k" + word))
    assert "".join(parts) == "k" + word
    assert max(map(len, parts)) <= MAX_WORD_LENGTH and (len(parts) == 1 or min(map(len, parts)) > MAX_PIECE_LENGTH / 2)
    assert all(part[0] == "k" for part in parts)
    assert list(cut(TONE * 70)) == [TONE * 24, TONE * 23, TONE * 23]


@pytest.mark.parametrize("number", [50, 500, 2000])
@pytest.mark.parametrize("times", [1, 2])
def test_what_is_learnt_from_is_bounded_however_long_the_phrases(number, times):
    _, texts = phrases(number, 40)
    words = Counter(dict.fromkeys([*texts, "".join(texts[:50])], times))
    kept = most_frequent(words, 300, 4000)
    long = [word for word in kept if len(word) > 1]
    assert 3900 <= sum(map(len, long)) <= 4000
    assert max(map(len, long)) <= MAX_WORD_LENGTH and len(long) <= 300
    assert set("".join(texts)) == set("".join(kept))
    seeds = _bounded(_seed_pieces(kept), 20_000)
    assert set("".join(texts)) <= seeds.keys()
    index = {piece: place for place, piece in enumerate(seeds)}
    assert len(Lattice(list(seeds), index).piece) <= 20_000
    assert len(Lattice(list(kept), index).piece) <= MAX_PIECE_LENGTH * sum(map(len, kept))


def test_the_seeds_that_stay_are_all_characters_and_the_frequent_and_short():
    seeds = {"a": 9, "b": 1, "ab": 4, "ba": 6, "aba": 5, "abab": 4}
    assert _bounded(seeds, 30) == seeds  # 1 + 1 + 3 + 3 + 6 + 10 edges are 24
    assert _bounded(seeds, 23) == {piece: count for piece, count in seeds.items() if piece != "abab"}
    assert _bounded(seeds, 10) == {"a": 9, "b": 1, "ba": 6, "ab": 4}
    assert _bounded(seeds, 0) == {"a": 9, "b": 1}


@pytest.mark.parametrize(("algorithm", "vocab_size"), [("unigram", 600), ("bpe", 900)])
def test_words_of_a_lexicon_are_found_in_text_without_spaces(algorithm, vocab_size):
    lexicon, texts = phrases(500, 12)
    assert min(map(len, texts)) > MAX_WORD_LENGTH / 2
    settings = TokenizerSettings(algorithm=algorithm, vocab_size=vocab_size, character_coverage=1.0)
    tokenizer = train_tokenizer(texts, texts, settings, source_language="th", target_language="th")
    assert len(set(lexicon) & tokenizer.get_vocab().keys()) >= 0.9 * len(lexicon)
    for text in phrases(20, 30, seed=0)[1]:
        ids = tokenizer(text_target=text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert len(ids) < len(text) / 2
