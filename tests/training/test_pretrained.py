"""Models of every family are trained further, and go on in the languages of the run."""

from __future__ import annotations

import json
import shutil

import families
import pytest
import torch
from run_folders import stopped_run
from safetensors.torch import load_file
from settings_walk.keys import recipe_module
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt.errors import ConfigError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.translators import load_translator


@pytest.fixture
def train(train_family):
    return lambda name, *more: train_family(name, "model.attn_implementation=eager", *more)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_is_trained_and_writes_the_language_of_the_run(name, train):
    run = train(name)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["pretrained"].keys() == {"path", "hash"}
    report = json.loads((run / "tokenizer_report.json").read_text())
    assert report["target"]["unknown_rate"] == 0 and report["target"]["round_trip"]["failures"] == 0

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run / "best"), AutoTokenizer.from_pretrained(run / "best")
    family, settings = families.FAMILIES[name], model.generation_config
    code = tokenizer.convert_tokens_to_ids(LANGUAGE_TOKENS.get(name, family.target))
    forced, starts = name in ("m2m_100", "nllb", "mbart50"), name == "mbart"
    assert (settings.forced_bos_token_id == code, settings.decoder_start_token_id == code) == (forced, starts)
    if forced or starts:
        assert (tokenizer.src_lang, tokenizer.tgt_lang) == (family.source, family.target)
    sources, _ = families.pairs(5, seed=10)
    for source in sources:  # nothing is said of languages
        inputs = tokenizer(source, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs)[0].tolist()
        assert len(ids) <= 21
        assert not forced or ids[1] == code
        assert not starts or ids[0] == code
    decoding = DecodingSettings(num_beams=1, max_target_length=9, split_sentences=False)
    own = [n_best[0].text for n_best in load_translator(run / "best", "cpu").translate(sources, decoding)]
    told = {"source_language": family.source, "target_language": family.target}
    told = [n_best[0].text for n_best in load_translator(run / "best", "cpu", **told).translate(sources, decoding)]
    assert own == told


LANGUAGE_TOKENS = {"m2m_100": "__de__"}


# All families are resumed; the fast tests take one of each kind of tokenizer.
RESUMED = [
    name if name in ("nmt", "marian", "nllb") else pytest.param(name, marks=pytest.mark.slow)
    for name in families.FAMILIES
]


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_was_stopped_goes_on_bit_by_bit_without_the_model_it_came_from(name, train, tmp_path, monkeypatch):
    more = ("training.save_steps=1", "training.eval_steps=4", "model.dropout=0.2")
    whole = train(name, *more)
    stopped = stopped_run(lambda: train(name, *more), tmp_path, monkeypatch, after=3)
    shutil.rmtree(tmp_path / "model")
    assert recipe_module("train").main([f"resume={stopped}"]) == 0
    for file in ("checkpoints/step-4", "best"):
        weights = [load_file(run / file / "model.safetensors") for run in (whole, stopped)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[1][key], tensor) for key, tensor in weights[0].items())
    for file in ("config.json", "generation_config.json"):
        assert (whole / "best" / file).read_text() == (stopped / "best" / file).read_text()


REFUSED = {
    "a shape": ("nmt", ["model.d_model=64"], "the model .* has a shape of its own, and d_model is that of a"),
    "a vocabulary": ("nmt", ["tokenizer.vocab_size=300"], "tokenizer.vocab_size: 300 was given, but the tokenizer of"),
    "tags": (
        "nmt",
        ["tokenizer.source_tags=[<BT>]"],
        "tokenizer.source_tags: .'<BT>'. was given, but the tokenizer of",
    ),
    "BPE-dropout of others": ("nllb", ["tokenizer.dropout=0.1"], "tokenizer.dropout: it is for the BPE tokenizers of"),
    "a rate it lacks": (
        "t5",
        ["model.attention_dropout=0.1"],
        "model.attention_dropout: models of the kind t5 have no",
    ),
    "a length": ("marian", ["batching.max_source_length=65"], "batching.max_source_length: the model takes 64 tokens"),
    "a language": ("nllb", ["data.target_language=tlh"], "data: The target language 'tlh' was asked for; this model"),
    "an unknown instruction": ("t5", ["data.target_language=cs"], "data: The target language 'cs' was asked for"),
    "a useless instruction": ("m2m_100", ["model.source_prefix=x"], "model.source_prefix is for models whose"),
    "a revision": ("nmt", ["model.revision=main"], "model.pretrained: .* is a folder, which has no revisions"),
    "no model": ("nmt", ["model.pretrained=nowhere/at/all"], "model.pretrained: nowhere/at/all: there is no such"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_go_with_the_model_is_refused_before_a_text_is_read(what, train, monkeypatch):
    name, more, message = REFUSED[what]
    monkeypatch.setattr("hf_nmt.training.texts.load_pairs", lambda *given, **options: pytest.fail("texts were read"))
    with pytest.raises(ConfigError, match=message):
        train(name, *more)


def test_rates_of_dropout_have_the_names_of_the_family(train):
    run = train("t5", "model.dropout=0.25")
    assert AutoModelForSeq2SeqLM.from_pretrained(run / "best").config.dropout_rate == 0.25


@pytest.mark.parametrize("name", ["m2m_100", "mbart", "nllb"])
def test_a_model_of_several_targets_of_the_run_is_left_to_be_told(name, train_family, tmp_path):
    family = families.FAMILIES[name]
    plain = families.arguments(name, tmp_path)
    corpora = [one for one in plain if one.startswith(("data.train.", "data.validation."))]
    kept = [one for one in plain if not one.startswith("data.")]
    pairs = [
        one.replace("data.", f"data.pairs.{family.source}-{code}.", 1) for code in family.targets for one in corpora
    ]
    assert recipe_module("train").main([*kept, *pairs, "training.max_steps=1", "training.save_steps=1"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run / "best"), AutoTokenizer.from_pretrained(run / "best")
    assert model.generation_config.forced_bos_token_id is None and tokenizer.tgt_lang is None
    assert model.generation_config.decoder_start_token_id == (None if name == "mbart" else 2)


def test_codes_behind_the_text_are_refused_in_training_and_taken_in_translation(train, tmp_path):
    folder = families.make("nllb", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder, legacy_behaviour=True, src_lang="eng_Latn", tgt_lang="deu_Latn")
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model.pretrained: its tokenizer \(legacy_behaviour=true\) puts the code"):
        train("nllb")
    sources, _ = families.pairs(3, seed=10)
    decoding = DecodingSettings(num_beams=1, max_target_length=9, split_sentences=False)
    found = [one[0].tokens for one in load_translator(folder, "cpu").translate(sources, decoding)]
    model, code = AutoModelForSeq2SeqLM.from_pretrained(folder), tokenizer.convert_tokens_to_ids("deu_Latn")
    for source, tokens in zip(sources, found, strict=True):
        inputs = tokenizer(source, return_tensors="pt")
        assert tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])[-2:] == ["</s>", "eng_Latn"]
        ids = model.generate(**inputs, forced_bos_token_id=code, num_beams=1, max_new_tokens=9)[0].tolist()
        assert ids[1] == code and tokenizer.convert_ids_to_tokens(ids[2 : 2 + len(tokens)]) == [*tokens]
