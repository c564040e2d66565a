"""Subword models against the packages they stand for, and what trimming and growing must not change."""

from __future__ import annotations

import io
import json
import random
from collections import Counter

import pytest
import sentencepiece
from families import pairs
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hf_nmt.vocabularies.subword_models import Bpe, ScoredBpe, Unigram

SPACE = "\u2581"
SOURCES, TARGETS = pairs(300, seed=21)
WORDS = Counter(SPACE + word for text in SOURCES + TARGETS for word in text.split())
UNSEEN = sorted({SPACE + word[::-1] for text in SOURCES for word in text.split()} | {SPACE + "balo" * 5, "a", ""})


def rust_bpe(words=WORDS, size=70):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    tokenizer.train_from_iterator(["\n".join(words.elements())], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return tokenizer.model, Bpe(model["vocab"], [tuple(pair) for pair in model["merges"]])


def sentencepiece_model(kind):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SOURCES + TARGETS), model_writer=model, model_type=kind, vocab_size=70, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == 1}
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), scores


def test_bpe_segments_as_tokenizers_does():
    rust, ours = rust_bpe()
    assert len(ours.merges) > 30
    for word in [*WORDS, *UNSEEN]:
        if {*word} <= ours.pieces:
            assert ours.segment(word) == [token.value for token in rust.tokenize(word)], word


def test_scored_bpe_segments_as_sentencepiece_does():
    processor, scores = sentencepiece_model("bpe")
    ours = ScoredBpe(scores)
    for word in [*WORDS, *UNSEEN]:
        if word.startswith(SPACE):  # as it puts one in front of all text
            assert ours.segment(word) == processor.encode(word[1:], out_type=str), word


def test_unigram_segments_as_sentencepiece_does():
    processor, scores = sentencepiece_model("unigram")
    ours = Unigram(scores)
    for word in [*WORDS, *UNSEEN]:
        if word.startswith(SPACE) and {*word} <= ours.pieces:
            assert ours.segment(word) == processor.encode(word[1:], out_type=str), word
    assert ours.segment("baQZ") == [*ours.segment("ba"), "Q", "Z"]


MODELS = {
    "bpe": lambda: rust_bpe()[1],
    "scored": lambda: ScoredBpe(sentencepiece_model("bpe")[1]),
    "unigram": lambda: Unigram(sentencepiece_model("unigram")[1]),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_what_is_trimmed_to_some_words_segments_them_as_before(model):
    words = [SPACE + word for text in SOURCES[:6] for word in text.split()]
    kept = {piece for word in words for piece in model.segment(word)}
    small = model.trimmed(kept)
    assert kept <= small.pieces < model.pieces
    assert [small.segment(word) for word in words] == [model.segment(word) for word in words]
    # All of the pieces that remain can be written: nothing is kept that cannot be reached.
    assert all(small.segment(piece) == [piece] for piece in small.pieces)


def test_words_that_lose_a_piece_are_written_with_others(model):
    word = max((word for word in WORDS if len(model.segment(word)) == 1), key=len)
    small = model.trimmed(model.pieces - {word})
    if word not in small.pieces:  # it may be on the way to a longer one
        assert len(small.segment(word)) > 1 and "".join(small.segment(word)) == word


def test_growing_learns_a_planted_word_and_leaves_old_words_alone(model):
    words = Counter({SPACE + "zuzuk": 50, SPACE + "qalo": 20, SPACE + "balo": 1})
    grown = model.grown(words, 30)
    assert model.pieces < grown.pieces and len(grown.pieces) <= len(model.pieces) + 30
    assert grown.segment(SPACE + "zuzuk") == [SPACE + "zuzuk"]
    assert {"z", "k", "q"} & grown.pieces == {"z", "k", "q"}
    assert len(grown.segment(SPACE + "qalo")) < len(model.segment(SPACE + "qalo"))
    assert all(len(grown.segment(word)) <= len(model.segment(word)) for word in words)


def test_growing_keeps_to_its_number(model):
    for number in (1, 3, 10):
        assert len(model.grown(WORDS + Counter({SPACE + "zuzuk": 50}), number).pieces) <= len(model.pieces) + number


def test_bpe_goes_on_where_training_ended():
    """Grown from 40 to 60 entries on the same words, it joins what training to 60 at once joins."""
    draw = random.Random(0)
    words = Counter({word: draw.randint(100, 9999) for word in WORDS})  # so that no two pairs are as frequent
    short, long = rust_bpe(words, 40)[1], rust_bpe(words, 60)[1]
    assert len(long.pieces) == 60 and short.grown(words, 20).merges == long.merges


def test_a_model_trained_anew_knows_the_words_alone(model):
    words = Counter({SPACE + "zuzuk": 50, SPACE + "zak": 20})
    new = model.retrained(words, 20)
    assert type(new) is type(model)
    assert new.segment(SPACE + "zuzuk") == [SPACE + "zuzuk"]
    assert set("".join(new.pieces)) == set("".join(words))


def test_rare_characters_get_no_piece(model):
    words = Counter({SPACE + "zuzuk": 50_000, "\u2603": 1})
    assert "\u2603" not in model.grown(words, 20).pieces and "z" in model.grown(words, 20).pieces
