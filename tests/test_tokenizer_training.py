"""Training, checking and opening tokenizers: every setting, every refusal, the same files every time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, trainers

from hf_nmt import tokenizer_training
from hf_nmt.config import dump, load
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.subwords import BpeDropout
from hf_nmt.tokenizer_checking import check_tokenizer
from hf_nmt.tokenizer_training import TokenizerSettings, load_tokenizer, train_tokenizer

NAMES = ["Minji", "Yuna", "Jisoo", "Haneul", "Sora", "Taeyang"]
VERBS = ["kauft", "verkauft", "findet", "sucht", "malt", "zeichnet"]
THINGS = ["Häuser", "Bücher", "Blumen", "Brötchen", "Schlüssel", "Türen"]


def corpus(rows: int = 300, seed: int = 0) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    sources, targets = [], []
    for _ in range(rows):
        name, verb, thing, number = draw.choice(NAMES), draw.choice(VERBS), draw.choice(THINGS), draw.randint(2, 999)
        sources.append(f"{name} {verb} {number} {thing}.")
        targets.append(f"{number} {thing.lower()}, {name} {verb}!")
    return sources, targets


SOURCES, TARGETS = corpus()
SETTINGS_BY_ALGORITHM = [{"algorithm": "bpe"}, {"algorithm": "unigram"}]


def train(sources=SOURCES, targets=TARGETS, target_language="en", **settings) -> NmtTokenizer:
    settings = TokenizerSettings(**{"vocab_size": 400, **settings})
    return train_tokenizer(sources, targets, settings, source_language="de", target_language=target_language)


def files(tokenizer: NmtTokenizer, folder: Path) -> dict[str, str]:
    tokenizer.save_pretrained(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.json"))}


# Settings

CHANGES = {
    "algorithm": "unigram",
    "vocab_size": 390,
    "joint": False,
    "byte_fallback": False,
    "normalization": "nfc",
    "language_tags": True,
    "source_tags": ["<BT>"],
    "character_coverage": 0.95,
    "max_training_sentences": 20,
}


def test_every_key_changes_something(tmp_path):
    assert {*CHANGES, "path", "dropout"} == set(TokenizerSettings.model_fields)
    text = [*SOURCES, "\N{LATIN SMALL LIGATURE FI}x"], [*TARGETS, "e\u0301"]
    seen = {json.dumps(files(train(*text), tmp_path / "base"))}
    for key, value in CHANGES.items():
        assert TokenizerSettings.model_fields[key].default != value
        seen.add(json.dumps(files(train(*text, **{key: value}), tmp_path / key)))
    assert len(seen) == len(CHANGES) + 1


def test_settings_from_yaml_and_back(tmp_path):
    (tmp_path / "a.yaml").write_text("algorithm: unigram\nnormalization: none\nvocab_size: 500\n")
    settings = load(TokenizerSettings, tmp_path / "a.yaml", ["joint=false"])
    assert settings == TokenizerSettings(algorithm="unigram", normalization="none", vocab_size=500, joint=False)
    for again in (settings, TokenizerSettings(path="some/folder", dropout=0.1)):
        (tmp_path / "b.yaml").write_text(dump(again))
        assert load(TokenizerSettings, tmp_path / "b.yaml") == again


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"dropout: 0\.1 was given, but BPE-dropout leaves out merges"):
        load(TokenizerSettings, None, ["algorithm=unigram", "dropout=0.1"])
    with pytest.raises(ConfigError) as caught:
        load(TokenizerSettings, None, ["path=folder", "vocab_size=500", "joint=false", "dropout=0.1"])
    assert len(caught.value.findings) == 2
    assert "vocab_size: 500 was given, but the tokenizer saved in path settles it" in str(caught.value)
    assert "Leave joint out, or set path to null" in str(caught.value)
    with pytest.raises(ConfigError, match="character_coverage: given 0"):
        load(TokenizerSettings, None, ["character_coverage=0"])


# Training


@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_the_vocabulary_has_the_size_asked_for_and_the_ids_in_order(settings):
    joint = train(**settings, language_tags=True, vocab_size=340)
    assert len(joint) == joint.target_vocab_size == 340
    pieces = joint.convert_ids_to_tokens(range(340))
    assert pieces[:6] == ["<unk>", "<pad>", "<s>", "</s>", "<2en>", "<0x00>"] and pieces[260] == "<0xFF>"
    assert len(set(pieces)) == 340
    separate = train(**settings, joint=False, vocab_size=320)
    assert (separate.source_vocab_size, separate.target_vocab_size) == (320, 320)


@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_text_of_the_training_set_comes_back(settings):
    tokenizer = train(**settings)
    for text in TARGETS[:50]:
        assert tokenizer.decode(tokenizer(text_target=text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("limit", [500_000, 70])
@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_columns_lists_and_iterators_give_the_same_files(tmp_path, settings, limit):
    settings = {**settings, "vocab_size": 320, "max_training_sentences": limit}
    rows = Dataset.from_dict({"source": SOURCES, "target": TARGETS})
    column = files(train(rows["source"], rows["target"], **settings), tmp_path / "column")
    assert files(train(**settings), tmp_path / "list") == column
    assert files(train(iter(SOURCES), iter(TARGETS), **settings), tmp_path / "iterator") == column


def test_bpe_from_word_counts_is_bpe_from_the_texts():
    """The Rust trainer on whole texts, in which rare characters are spaces, finds the same pieces and merges."""
    draw = random.Random(1)
    odd = "\u2318 \u2660@ \u3042_\u6f22#"
    texts = ["".join(draw.choice(odd) if draw.random() < 0.05 else c for c in text) for text in SOURCES] + ["\u2318 b"]
    trained = train(texts, texts, joint=False, character_coverage=0.96, byte_fallback=False, vocab_size=150)
    model = json.loads(trained.source_backend.to_str())["model"]
    known = set("".join(sorted(model["vocab"], key=model["vocab"].get)[4:]))
    normal = [trained.source_backend.normalizer.normalize_str(text) for text in texts]
    gone = {character for text in normal for character in text if character not in known} - {" "}
    assert {"\u2318", "\u3042"} <= gone
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = trained.source_backend.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=150,
        special_tokens=sorted(model["vocab"], key=model["vocab"].get)[:4],
        min_frequency=2,
        show_progress=False,
    )
    whole.train_from_iterator(["".join(" " if c in gone else c for c in text) for text in normal], trainer)
    expected = json.loads(whole.to_str())["model"]
    assert model["vocab"] == expected["vocab"] and model["merges"] == expected["merges"]


AGAIN = """
import json, sys
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
rows, folder = json.load(sys.stdin)
for algorithm in ("bpe", "unigram"):
    settings = TokenizerSettings(vocab_size=400, algorithm=algorithm, joint=False, max_training_sentences=200)
    train_tokenizer(*rows, settings, source_language="de", target_language="en").save_pretrained(folder + algorithm)
"""


def test_the_same_text_gives_the_same_files_in_another_process(tmp_path):
    subprocess.run(
        [sys.executable, "-c", AGAIN],
        input=json.dumps([[SOURCES, TARGETS], f"{tmp_path}/"]),
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    for algorithm in ("bpe", "unigram"):
        here = files(
            train(algorithm=algorithm, joint=False, max_training_sentences=200), tmp_path / "here" / algorithm
        )
        assert len(here) == 3
        for name, digest in here.items():
            assert hashlib.sha256((tmp_path / algorithm / name).read_bytes()).hexdigest() == digest


def test_a_dataset_a_list_and_a_generator_give_the_same(tmp_path):
    dataset = Dataset.from_dict({"source": SOURCES, "target": TARGETS})
    expected = files(train(), tmp_path / "list")
    assert files(train(dataset["source"], dataset["target"]), tmp_path / "column") == expected
    assert files(train((text for text in SOURCES), iter(TARGETS)), tmp_path / "generator") == expected


def test_sentences_are_drawn_from_the_whole_text():
    sources = [f"{letter * 3} x" for letter in "abcdefghij" for _ in range(100)]
    tokenizer = train(sources, ["x"] * 1000, max_training_sentences=100, vocab_size=300)
    assert all(tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefghij")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize(("unit", "limit"), [("WORDS", 20), ("CHARACTERS", 100)])
def test_characters_of_words_beyond_the_bound_have_a_piece(monkeypatch, algorithm, unit, limit):
    monkeypatch.setattr(tokenizer_training, f"MAX_{algorithm.upper()}_{unit}", limit)
    whole = getattr(tokenizer_training, f"_train_{algorithm}")
    learnt_from = []
    monkeypatch.setattr(
        tokenizer_training,
        f"_train_{algorithm}",
        lambda parts, *rest: learnt_from.extend(parts) or whole(parts, *rest),
    )
    tokenizer = train(algorithm=algorithm, character_coverage=1.0)
    characters = {*"".join(SOURCES), *"".join(TARGETS)} - {" "}
    assert len({word for text in SOURCES for word in text.split()}) > 20
    assert sum(map(len if unit == "CHARACTERS" else bool, learnt_from)) <= limit + len(characters)
    assert characters <= tokenizer.get_vocab().keys()


@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_a_text_with_few_pieces_gives_a_smaller_vocabulary_and_says_so(settings, caplog):
    with caplog.at_level(logging.WARNING, "hf_nmt"):
        tokenizer = train(["ab ab"] * 5, ["ba ba"] * 5, **settings)
    size = len(tokenizer)
    assert 263 < size < 270
    assert (
        f"tokenizer.vocab_size is 400, but the text gives only {size} pieces for the joint vocabulary" in caplog.text
    )
    assert f"set tokenizer.vocab_size to {size} or less" in caplog.text


def test_a_vocabulary_too_small_for_the_characters_is_refused():
    characters = len({*"".join(SOURCES), *"".join(TARGETS)})  # the space counts as the mark of a word's beginning
    message = (
        f"vocab_size: 270 is too small for the joint vocabulary: 4 special tokens, 256 bytes and {characters} "
        f"characters are {260 + characters}"
    )
    with pytest.raises(ConfigError, match=message):
        train(vocab_size=270)
    with pytest.raises(ConfigError, match=f"4 special tokens and {characters} characters"):
        train(vocab_size=20, byte_fallback=False)
    assert len(train(vocab_size=260 + characters)) == 260 + characters


def test_no_text_and_unequal_sides_are_refused():
    with pytest.raises(DataError, match="the sources hold 2 lines and all are empty"):
        train(["", "  "], ["a", "b"])
    with pytest.raises(DataError, match="the targets hold 1 lines and all are empty"):
        train(["a"], [""])
    with pytest.raises(DataError, match="not as many sources as targets"):
        train(["a", "b"], ["a"])


def test_rare_characters_are_left_to_bytes():
    sources = [*SOURCES * 4, "Minji\N{EURO SIGN}Yuna \N{EURO SIGN}"]
    counts = sum(len(text) + 1 for text in [*sources, *TARGETS * 4, "x"])
    for coverage, known in ((1 - 1 / counts, True), (1 - 4 / counts, False)):
        tokenizer = train(sources, [*TARGETS * 4, "x"], character_coverage=coverage)
        assert (tokenizer.source_backend.token_to_id("\N{EURO SIGN}") is not None) == known
        assert tokenizer.source_backend.token_to_id("x") is not None or not known
        ids = tokenizer(text_target="5\N{EURO SIGN}")["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "5\N{EURO SIGN}"


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [("nfkc", "fi \u00e9 a 2 ,"), ("nfc", "\ufb01 \u00e9 a \u00b2 \uff0c"), ("none", None)],
)
@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_normal_forms(normalization, expected, settings):
    text = " \ufb01 e\u0301\ta \u00b2  \uff0c"
    tokenizer = train(normalization=normalization, **settings)
    decoded = tokenizer.decode(tokenizer(text_target=text)["input_ids"], skip_special_tokens=True)
    assert decoded == (" ".join(text.split()) if expected is None else expected)


@pytest.mark.parametrize("settings", SETTINGS_BY_ALGORITHM)
def test_without_byte_fallback_unseen_characters_are_unknown(settings):
    tokenizer = train(byte_fallback=False, vocab_size=150, **settings)
    ids = tokenizer(text_target="Yuna \N{DOG FACE}\N{CAT FACE}")["input_ids"]
    assert ids.count(0) == 1  # a run of them is one <unk>
    assert "<0x00>" not in tokenizer.target_backend.get_vocab()


# Checking


def test_the_report_of_a_planted_text():
    tokenizer = train(joint=False, vocab_size=360)
    report = check_tokenizer(
        tokenizer, [*SOURCES[:8], "\N{EURO SIGN}\N{EURO SIGN}", ""], [*TARGETS[:8], "\u00b2", "a b"]
    )
    assert json.loads(json.dumps(report)) == report
    assert report["sentences"] == 10 and report["separate_vocabularies"]
    assert report["special_ids"] == {"unk_token": 0, "pad_token": 1, "bos_token": 2, "eos_token": 3}
    source, target = report["source"], report["target"]
    lengths = [len(ids) - 1 for ids in tokenizer([*SOURCES[:8], "\N{EURO SIGN}\N{EURO SIGN}"])["input_ids"]]
    assert source["tokens"] == sum(lengths) and source["longest_sentence"] == max(lengths)
    assert source["tokens_per_sentence"] == pytest.approx(sum(lengths) / 10)
    assert source["tokens_per_word"] == pytest.approx(sum(lengths) / 33, abs=1e-6)
    assert source["words"] == 33 and source["empty_sentences"] == 1
    assert source["byte_fallback_rate"] == pytest.approx(6 / sum(lengths), abs=1e-6)
    assert source["unknown_rate"] == 0 and source["round_trip"]["failures"] == 0
    assert source["uncovered_characters"]["most_frequent"] == [
        {"character": "\N{EURO SIGN}", "code_point": "U+20AC", "count": 2}
    ]
    assert source["uncovered_characters"]["distinct"] == 1
    assert source["uncovered_characters"]["rate"] == pytest.approx(2 / source["characters"], abs=1e-6)
    assert target["changed_by_normalization"]["examples"] == [{"text": "\u00b2", "normalized": "2"}]
    assert source["vocabulary"] == 360 and 30 < source["vocabulary_used"] < 100


def test_text_that_is_lost_is_refused():
    tokenizer = train(byte_fallback=False, vocab_size=150)
    sources, targets = [*SOURCES, "\N{DOG FACE} Minji"], [*TARGETS, "Minji"]
    report = check_tokenizer(tokenizer, sources, targets)
    assert report["source"]["round_trip"]["examples"] == [
        {"text": "\N{DOG FACE} Minji", "expected": "\N{DOG FACE} Minji", "decoded": " Minji"}
    ]
    assert report["source"]["unknown_rate"] > 0
    message = r"loses source text: 1 of 301 sentences do not come back .*accepted: 0\.1%.*byte_fallback: true"
    with pytest.raises(DataError, match=message):
        check_tokenizer(tokenizer, sources, targets, max_failures=0.001)
    with pytest.raises(DataError, match="loses target text"):
        check_tokenizer(tokenizer, targets, sources, max_failures=0.001)


def test_reserved_pieces_in_the_text_are_no_loss():
    tokenizer = train(language_tags=True)
    report = check_tokenizer(tokenizer, ["a </s> <2en> <0x41>"] * 3, ["<pad>"] * 3)
    assert report["source"]["round_trip"]["failures"] == report["target"]["round_trip"]["failures"] == 0


def test_only_so_many_sentences_are_looked_at():
    assert check_tokenizer(train(), SOURCES, TARGETS, max_sentences=50)["target"]["sentences"] == 50


def test_no_text_cannot_be_checked():
    with pytest.raises(DataError, match="there is no source text"):
        check_tokenizer(train(), [], [])
    with pytest.raises(DataError, match="there is no target text"):
        check_tokenizer(train(), ["a"], [" "])


def test_ids_and_sizes_of_the_model_must_fit():
    tokenizer = train(joint=False, vocab_size=320)
    fitting = NmtConfig(vocab_size=320, source_vocab_size=320)
    check_tokenizer(tokenizer, SOURCES, TARGETS, model_config=fitting)
    with pytest.raises(DataError) as caught:
        check_tokenizer(
            tokenizer,
            SOURCES,
            TARGETS,
            model_config=NmtConfig(vocab_size=300, pad_token_id=0, decoder_start_token_id=1),
        )
    for part in (
        "pad_token_id of the model is 0 and must be 1",
        "decoder_start_token_id of the model is 1 and must be 2",
        "vocab_size of the model is 300, the tokenizer has 320",
        "source_vocab_size of the model is None, the tokenizer has 320",
    ):
        assert part in str(caught.value)


def test_a_tokenizer_with_other_ids_does_not_fit():
    backend = train().source_backend
    other = json.loads(backend.to_str().replace("<pad>", "<blank>"))
    other["post_processor"] = json.loads(Tokenizer(models.BPE()).to_str())["post_processor"]
    tokenizer = NmtTokenizer(tokenizer_object=Tokenizer.from_str(json.dumps(other)))
    with pytest.raises(DataError) as caught:
        check_tokenizer(tokenizer, SOURCES, TARGETS)
    assert "<pad> has id 400 in the source vocabulary and must have 1" in str(caught.value)
    assert "sources do not end with </s>" in str(caught.value)


# Opening


def test_opened_tokenizers_are_the_saved_ones(tmp_path):
    for settings in ({"joint": False}, {"algorithm": "unigram", "language_tags": True}):
        tokenizer = train(**settings)
        tokenizer.save_pretrained(tmp_path)
        opened = load_tokenizer(tmp_path)
        assert opened(SOURCES, text_target=TARGETS).data == tokenizer(SOURCES, text_target=TARGETS).data


def test_what_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist\. Give the folder that holds tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        load_tokenizer(tmp_path / "file")
    with pytest.raises(DataError, match=r"holds no tokenizer\.json\. Give a folder written by save_pretrained"):
        load_tokenizer(tmp_path)
    train(joint=False, vocab_size=320).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_target.json").unlink()
    with pytest.raises(DataError, match="the target side is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"half": ')
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "MarianTokenizer"}))
    with pytest.raises(DataError, match="holds a MarianTokenizer, not an NmtTokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("no json")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_dropout_takes_an_opened_tokenizer(tmp_path):
    train().save_pretrained(tmp_path)
    opened = load_tokenizer(tmp_path)
    ids = BpeDropout(opened, 0.0).sample_target_ids(TARGETS[0], np.random.default_rng(0))
    assert ids == opened(text_target=TARGETS[0])["input_ids"]
