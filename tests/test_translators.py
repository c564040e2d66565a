"""Opening saved models: what works, and what each broken folder is told."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from families import make
from small_models import SPECIAL, WORDS, word_tokenizer
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from hf_nmt import artifacts
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.translators import load_translator, model_folder


@pytest.fixture
def folder(copy_folder, tmp_path):
    return shutil.copytree(copy_folder, tmp_path / "model")


def refused(path, message, **kwargs):
    with pytest.raises(NmtError, match=message):
        load_translator(path, "cpu", **kwargs)


def test_our_own_model(folder):
    translator = load_translator(folder, "cpu")
    assert [n_best[0].text for n_best in translator.translate(["balo delo."])] == ["balo delo."]
    assert not translator.model.training


def test_a_run_folder_stands_for_its_best_model(folder, tmp_path):
    run = tmp_path / "runs" / "copy-20261121-080000"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    refused(run, "is a run without a best model: .* Continue it with: recipes/train.py resume=")
    shutil.move(folder, run / "best")
    assert model_folder(run) == run / "best"
    assert next(load_translator(run, "cpu").translate(["kalo."]))[0].text == "kalo."


def test_a_model_of_another_family(tmp_path):
    torch.manual_seed(0)  # so that it does not end by chance
    size = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    MarianMTModel(
        MarianConfig(
            vocab_size=len(SPECIAL) + len(WORDS) + 3, pad_token_id=1, eos_token_id=3, decoder_start_token_id=1,
            encoder_attention_heads=1, decoder_attention_heads=1, forced_eos_token_id=3, **size,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(tmp_path)
    translator = load_translator(tmp_path, "cpu")
    ((one,),) = translator.translate(["balo delo."], DecodingSettings(max_target_length=4))
    # A forced end of sentence would hide that the search was cut.
    assert one.finish_reason == "length" and len(one.tokens) == 4


def test_paths_that_are_no_models(folder, tmp_path):
    refused(tmp_path / "missing", r"missing: there is no such folder. Give the folder of a saved model, such as runs/")
    refused("runs/none", "runs/none: there is no such folder")
    refused(folder / "config.json", "is a file; a model is a folder with config.json")
    refused(tmp_path, r"holds no model: config.json is missing. There is a model in .*model\.")


def test_folders_that_are_not_whole(folder):
    artifacts.mark_complete(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(folder, r"is not whole. Copy or write it again.\n.*model.safetensors: has \d+ bytes instead of \d+")
    (folder / artifacts.COMPLETE).unlink()
    refused(
        folder, rf"model.safetensors is cut short: it has {len(weights) // 2:,} of {len(weights):,} bytes. Copy or"
    )
    (folder / "model.safetensors").write_bytes(weights[:20])
    refused(folder, r"model.safetensors is cut short: it has 20 of [\d,]+ bytes")
    (folder / "model.safetensors").write_bytes(b"x" * 200)
    refused(folder, r"cannot be loaded as a translation model \(model_type 'hf_nmt'\)")
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no weights: none of model.safetensors, .* is there. Was it written to the end?")
    (folder / "model.safetensors").write_bytes(weights)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(
        folder, "model holds no tokenizer: none of tokenizer.json, .* is there. Copy it from the model that this one"
    )


def test_weights_of_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"decoder_layers": 2}))
    refused(folder, r"the weights of \d+ tensors are missing and would be random, such as model.decoder.layers.1")
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 64}))
    refused(folder, "cannot be loaded")


def test_models_that_do_not_translate(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    refused(folder, r"cannot be loaded as a translation model \(model_type 'gpt2'\)")
    (folder / "config.json").write_text("{")
    refused(folder, "cannot be loaded")


def test_a_folder_without_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "holds no tokenizer")


def test_wrong_devices_and_languages(folder):
    with pytest.raises(NmtError, match="device is 'gpu'; write cpu, cuda or cuda:<number>"):
        load_translator(folder, "gpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"source_language": "ko", "target_language": "en"}))
    with pytest.raises(ConfigError, match="The target language 'de' was asked for; this model has en"):
        load_translator(folder, "cpu", target_language="de")


def test_a_tokenizer_that_needs_sentencepiece_says_how_to_install_it(tmp_path, monkeypatch):
    make("marian", tmp_path)
    load_translator(tmp_path, "cpu")

    def without(*given, **options):
        raise ImportError("MarianTokenizer requires the SentencePiece library")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", without)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(NmtError, match=r"'sentencepiece' is needed here .* pip install \"hf_nmt\[sentencepiece\]\""):
        load_translator(tmp_path, "cpu")
