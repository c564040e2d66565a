"""Tags of back-translated sources: one token each in a source, text in a target."""

from __future__ import annotations

import json
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
from corpora import write_corpus
from datasets import Dataset

from hf_nmt.config import load
from hf_nmt.errors import ConfigError
from hf_nmt.generation.backtranslation import SYNTHETIC, tags_of
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.subwords import BpeDropout
from hf_nmt.tokenizer_training import TokenizerSettings, load_tokenizer, train_tokenizer
from hf_nmt.training.recipe import TrainingRecipe

TRAIN = Path(__file__).parents[1] / "recipes" / "train.py"
SOURCES = ["Ein alter Mann sitzt auf einer Bank.", "Zwei Hunde laufen.", "Ein Hund sitzt."] * 4
TARGETS = ["An old man sits on a bench.", "Two dogs run.", "A dog sits."] * 4
TAGGED = [f"<BT> {text}" if number % 2 else text for number, text in enumerate(SOURCES)]


def train(sources=TAGGED, *, languages="en", **settings) -> NmtTokenizer:
    settings = {"vocab_size": 350, "source_tags": ["<BT>"]} | settings
    tokenizer = train_tokenizer(
        sources, TARGETS, TokenizerSettings(**settings), source_language="de", target_language=languages
    )
    tokenizer.tgt_lang = "en"
    return tokenizer


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("languages", ["en", ["en", "fr"]])
def test_a_tag_is_one_token_of_a_source_and_text_in_a_target(joint, algorithm, languages, tmp_path):
    trained = train(languages=languages, joint=joint, algorithm=algorithm)
    trained.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    again.tgt_lang = "en"
    for tokenizer in (trained, again, pickle.loads(pickle.dumps(trained))):
        assert tokenizer.source_tags == ["<BT>"]
        tag = tokenizer.source_backend.token_to_id("<BT>")
        front = isinstance(languages, list)  # after the tag of the language
        for text in ("Zwei Hunde laufen.", "</s> <2en> <b>", ""):
            plain = tokenizer(text)["input_ids"]
            assert tag not in plain
            assert tokenizer(f"<BT> {text}")["input_ids"] == [*plain[:front], tag, *plain[front:]]
        ids = tokenizer(text_target="Two <BT> dogs.")["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "Two <BT> dogs."
        if joint:  # a model could write it: what is read of it has none
            assert tag not in ids
            assert tokenizer.batch_decode([[tag, *ids]], skip_special_tokens=True) == ["Two <BT> dogs."]
        else:
            assert tokenizer.target_backend.token_to_id("<BT>") is None


@pytest.mark.parametrize("joint", [True, False])
def test_no_pieces_are_learnt_of_tags(joint):
    tagged = train(joint=joint, vocab_size=340)
    plain = train(SOURCES, joint=joint, vocab_size=339, source_tags=None)
    assert {*tagged.get_vocab()} == {*plain.get_vocab(), "<BT>"}
    assert plain.source_tags == [] and plain(TAGGED[1])["input_ids"] != tagged(TAGGED[1])["input_ids"]


@pytest.mark.parametrize("joint", [True, False])
def test_merges_are_left_out_beside_the_tag_and_never_in_it(joint):
    tokenizer, generator = train(joint=joint, languages=["en", "fr"]), np.random.default_rng(1)
    tag = tokenizer.source_backend.token_to_id("<BT>")
    text = "<BT> Zwei <BT>Hunde</s>"
    same, letters = BpeDropout(tokenizer, 0.0), BpeDropout(tokenizer, 1.0)
    assert same.sample_source_ids(text, generator) == tokenizer(text)["input_ids"]
    assert same.sample_target_ids(text, generator) == tokenizer(text_target=text)["input_ids"]
    ids = letters.sample_source_ids(text, generator)
    assert ids[1] == tag and ids.count(tag) == 2 and len(ids) > len(tokenizer(text)["input_ids"])
    assert not joint or tag not in letters.sample_target_ids(text, generator)


def test_tags_are_found_in_rows_that_were_translated_back():
    rows = {
        "source": ["<BT> a", "<s> b", "<BT> c", "<i>d</i> e", "<b> f", "<BT>", *["<BT2> g"] * 3, *["h"] * 20],
        "synthetic": [SYNTHETIC, SYNTHETIC, SYNTHETIC, SYNTHETIC, None, SYNTHETIC, *[SYNTHETIC] * 3, *["noise"] * 20],
    }
    assert tags_of(Dataset.from_dict(rows)) == ["<BT2>", "<BT>"]
    rare = {name: [*values, *values[3:4] * 30] for name, values in rows.items()}  # 2 of 38 and 3 of 38
    assert tags_of(Dataset.from_dict(rare)) == []
    assert tags_of(Dataset.from_dict({"source": ["<BT> a"]})) == []
    assert tags_of(Dataset.from_dict({"source": ["a"], "synthetic": [None]})) == []


@pytest.mark.parametrize("tag", ["<s>", "<2de>", "<0x41>"])
def test_tags_that_mean_something_else_are_refused(tag):
    with pytest.raises(ConfigError, match=f"tokenizer.source_tags: {tag} is a token with another meaning"):
        load(TrainingRecipe, overrides=[f"tokenizer.source_tags=[{tag}]"])
    for word in ("BT", "<B T>", "<<BT>>"):
        with pytest.raises(ConfigError, match=rf"tokenizer.source_tags: '{word}' is no word in angle brackets"):
            load(TrainingRecipe, overrides=[f"tokenizer.source_tags=[{word}]"])


def test_training_takes_the_tag_of_its_rows_and_tells_where_a_saved_tokenizer_has_none(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    caplog.set_level("INFO")
    write_corpus(tmp_path)
    texts = [(tmp_path / f"text.{language}").read_text().splitlines() for language in ("xx", "yy")]
    with (tmp_path / "text.jsonl").open("w") as file:
        for number, (source, target) in enumerate(zip(*texts, strict=True)):
            made = SYNTHETIC if number % 2 else None
            row = {"source": f"<BT> {source}" if made else source, "target": target, "synthetic": made}
            file.write(json.dumps(row) + "\n")

    def run(name: str, *settings: str) -> Path:
        argv = [f"data.train.path={tmp_path / 'text.jsonl'}", "data.source_language=xx", "data.target_language=yy"]
        argv += ["--config", "tiny", f"output_dir={tmp_path / name}", "training.max_steps=1", "training.save_steps=1"]
        caplog.clear()
        assert runpy.run_path(str(TRAIN))["main"]([*argv, "training.eval_strategy=no", *settings]) == 0
        return next((tmp_path / name).iterdir())

    found = load_tokenizer(run("null") / "best")
    assert found.source_tags == ["<BT>"] and "one token each in sources: <BT>" in caplog.messages
    assert len(found("<BT>", add_special_tokens=False)["input_ids"]) == 1
    none = run("none", "tokenizer.source_tags=[]")
    assert load_tokenizer(none / "best").source_tags == [] and "saved tokenizer spells" not in caplog.text
    saved = (f"tokenizer.path={none / 'tokenizer'}", "tokenizer.vocab_size=8000")
    run("path", *saved)
    told = [message for message in caplog.messages if "which the saved tokenizer spells in " in message]
    assert len(told) == 1 and told[0].startswith("Back-translated sources of the training text open with <BT>, ")
    with pytest.raises(ConfigError, match=r"tokenizer.source_tags: .*but the tokenizer saved in path settles it"):
        run("both", *saved, "tokenizer.source_tags=[<BT>]")
