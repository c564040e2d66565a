from __future__ import annotations

import json

import families
import pytest
import torch
from toy_training import GroupSampler, make_marian, make_model, make_run, make_tokenizer, make_trainer
from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

from hf_nmt import runs
from hf_nmt.errors import NmtError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.training import checkpoints
from hf_nmt.training.finish import choose_model, save_model
from hf_nmt.training.saved import WEIGHTS, check_checkpoint
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.translators import load_model


def make_composite():
    shape = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder, decoder = (BertConfig(**shape, intermediate_size=16) for _ in range(2))
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))
    model.config.use_cache = True  # set by the trainer; a saved one is opened without
    return model


MODELS = {
    "tied": lambda: make_model(),
    "separate": lambda: make_model(tie_word_embeddings=False, tie_encoder_decoder_embeddings=False),
    "rotary": lambda: make_model(position_embedding="rotary"),
    "learned": lambda: make_model(position_embedding="learned", norm_position="post"),
    "bfloat16": lambda: make_model().to(torch.bfloat16),
    "marian": lambda: make_marian(),
    "composite": make_composite,
}


def write(folder, model):
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def flip(path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_saved_is_the_model(tmp_path, name):
    model = MODELS[name]()
    write(tmp_path, model)
    check_checkpoint(model, make_tokenizer(), tmp_path)
    flip(tmp_path / WEIGHTS, -1)  # the lowest bit, or close to it
    with pytest.raises(NmtError, match=r"read back differently: the weight \S+ came back different"):
        check_checkpoint(model, make_tokenizer(), tmp_path)


def test_every_part_is_compared(tmp_path):
    model = make_model()
    write(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dropout": 0.77}))
    with pytest.raises(NmtError, match="dropout of its configuration is 0.77 instead of 0.1"):
        check_checkpoint(model, make_tokenizer(), tmp_path)
    write(tmp_path, model)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"w5"', '"w555"'))
    tokenizer = make_tokenizer()
    with pytest.raises(NmtError, match="its tokenizer gives other ids or other text"):
        check_checkpoint(model, tokenizer, tmp_path)
    write(tmp_path, make_model(tie_word_embeddings=False))
    with pytest.raises(NmtError, match="read back differently"):
        check_checkpoint(model, tokenizer, tmp_path)
    model = make_model(tie_word_embeddings=False)
    write(tmp_path, make_model())
    with pytest.raises(NmtError, match="read back differently"):
        check_checkpoint(model, tokenizer, tmp_path)


def test_a_checkpoint_that_comes_back_different_ends_the_training(tmp_path, monkeypatch):
    save = TranslationTrainer._save

    def corrupt(self, output_dir=None, state_dict=None):
        save(self, output_dir, state_dict)
        if self.state.global_step == 4:
            flip(tmp_path / output_dir / WEIGHTS, -1)

    monkeypatch.setattr(TranslationTrainer, "_save", corrupt)
    run = make_run(tmp_path)
    with pytest.raises(NmtError, match="checkpoints: a model was written and read back differently: the weight"):
        make_trainer(run, max_steps=6, save_steps=2, sampler=GroupSampler(64, 8)).train()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-2"]
    assert checkpoints.latest_whole(run.checkpoints).name == "step-2"


def test_no_more_checkpoints_are_read_than_are_needed(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    trainer = make_trainer(run, max_steps=10, save_steps=1, num_average_checkpoints=3, save_total_limit=None)
    trainer.train()
    read = []
    monkeypatch.setattr(checkpoints, "verify", lambda folder: read.append(folder.name) or [])
    assert choose_model(trainer)[0].steps == [8, 9, 10]
    assert read == ["step-10", "step-9", "step-8"]


def test_a_broken_checkpoint_does_not_get_into_the_average(tmp_path, caplog):
    run = make_run(tmp_path)
    trainer = make_trainer(run, max_steps=8, save_steps=2, num_average_checkpoints=3, save_total_limit=4)
    trainer.train()
    flip(run.checkpoints / "step-6" / WEIGHTS, -1)
    chosen, _ = choose_model(trainer)
    assert (chosen.kind, chosen.steps) == ("average", [2, 4, 8])
    assert "step-6 is not used" in caplog.text and "SHA-256 differs" in caplog.text
    expected = checkpoints.average_weights([runs.checkpoint_folder(run.checkpoints, step) for step in (2, 4, 8)])
    assert all(torch.equal(trainer.model.state_dict()[name], tensor) for name, tensor in expected.items())


def test_an_output_projection_of_its_own_stays(tmp_path):
    # The class of mT5 ties it to the embeddings; published models have both.
    model, tokenizer = families.load("mt5")
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    loaded, _ = load_model(tmp_path / "model")
    trainer = make_trainer(make_run(tmp_path / "runs"), model=loaded)
    expected = trainer.trained_weights()
    assert not torch.equal(expected["lm_head.weight"], expected["shared.weight"])
    trainer.load_weights(expected)
    trainer._load_from_checkpoint(tmp_path / "model")
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.items())
    assert trainer.model.shared.weight is trainer.model.decoder.embed_tokens.weight
    save_model(trainer.model, tokenizer, tmp_path / "best", DecodingSettings())
    assert torch.equal(load_model(tmp_path / "best")[0].lm_head.weight, expected["lm_head.weight"])
