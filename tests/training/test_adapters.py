"""Training of adapters: only they are trained and kept, and the run ends with a whole model and with them alone."""

from __future__ import annotations

import json
import logging
import sys

import pytest
import torch
from run_folders import equal
from safetensors.torch import load_file, save_file
from toy_training import GroupSampler, make_marian, make_model, make_pairs, make_run, make_tokenizer, make_trainer
from transformers import AutoModelForSeq2SeqLM

from hf_nmt import runs
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.generation import adapters
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.training.adapters import AdapterSettings, adapter_findings, add_adapter, how_to_pack
from hf_nmt.training.finish import Candidate, choose_model, merge_adapter, save_model
from hf_nmt.training.saved import check_checkpoint
from hf_nmt.translators import load_model

SETTINGS = {"rank": 4, "alpha": 8}
DECODING = DecodingSettings(num_beams=2)


FAMILIES = {"nmt": make_model, "marian": make_marian}


def saved(family, folder, dropout=0.1):
    """A model folder: ours computes its own loss, Marian does not."""
    FAMILIES[family](dropout=dropout).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=FAMILIES)
def base(request, tmp_path):
    return saved(request.param, tmp_path / "base")


@pytest.fixture
def nmt_base(tmp_path):
    return saved("nmt", tmp_path / "base")


def adapted(base, **settings):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    torch.manual_seed(7)
    add_adapter(model, AdapterSettings(**SETTINGS | settings))
    return model


def trained(base, folder, *, adapter=None, resume=None, **settings):
    run = make_run(folder)
    with run:
        trainer = make_trainer(run, model=adapted(base, **adapter or {}), learning_rate=0.01, **settings)
        trainer.train(resume_from_checkpoint=resume)
    return trainer


def copied(weights):
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_only_the_adapter_is_trained_and_kept(base, tmp_path):
    trainer = trained(base, tmp_path / "runs")
    assert losses(trainer)[-1] < losses(trainer)[0] - 0.01
    expected = AutoModelForSeq2SeqLM.from_pretrained(base).state_dict()
    found = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in trainer.model.state_dict().items()
        if ".lora_" not in name
    }
    assert equal(found, expected)
    newest = runs.list_checkpoints(trainer.run.checkpoints)[-1]
    assert not (newest / "model.safetensors").exists() and not (newest / "config.json").exists()
    held = load_file(newest / "adapter_model.safetensors")
    assert equal(held, adapters.adapter_weights(trainer.model))
    assert all(".lora_A." in name or ".lora_B." in name for name in held)
    # The optimizer keeps two moments of each trained weight, and of no other.
    moments = torch.load(newest / "optimizer.pt")["state"].values()
    assert sum(state["exp_avg"].numel() for state in moments) == sum(tensor.numel() for tensor in held.values())
    loaded, _ = load_model(newest, merge=False)
    assert equal(copied(adapters.adapter_weights(loaded)), held)


def test_a_resumed_run_equals_one_never_stopped(base, tmp_path):
    adapter = {"dropout": 0.1, "type": "dora"}
    whole = trained(base, tmp_path / "whole", adapter=adapter)
    first = trained(base, tmp_path / "first", adapter=adapter)
    step = runs.checkpoint_folder(first.run.checkpoints, 10)
    resumed = trained(base, tmp_path / "second", adapter=adapter, resume=step)
    assert equal(copied(adapters.adapter_weights(resumed.model)), copied(adapters.adapter_weights(whole.model)))
    assert losses(resumed) == losses(whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_accumulation_gives_the_same_updates(family, tmp_path):
    base, found = saved(family, tmp_path / "base", dropout=0.0), []
    for size, accumulation in ((16, 1), (4, 4)):
        trainer = trained(
            base, tmp_path / str(size), pairs=make_pairs(64), sampler=GroupSampler(64, size, shuffle=False),
            gradient_accumulation_steps=accumulation, max_steps=6, logging_steps=1,
        )  # fmt: skip
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        found.append([(entry["loss"], entry["grad_norm"]) for entry in logged])
    assert len(found[0]) == 6
    for whole, parts in zip(*found, strict=True):
        assert parts == pytest.approx(whole, rel=1e-4)


def test_dora_trains_otherwise_than_lora(nmt_base, tmp_path):
    lora, dora = (trained(nmt_base, tmp_path / kind, adapter={"type": kind}) for kind in ("lora", "dora"))
    assert losses(lora) != losses(dora)
    lengths = [name for name in adapters.adapter_weights(dora.model) if "lora_magnitude_vector" in name]
    before = adapters.adapter_weights(adapted(nmt_base, type="dora"))
    after = adapters.adapter_weights(dora.model)
    assert len(lengths) == 2 * 6 + 2 * 10 and any(not torch.equal(before[name], after[name]) for name in lengths)


@pytest.mark.parametrize(
    "options", [{"bf16": True}, {"activation_checkpointing": True}], ids=["bf16", "checkpointing"]
)
def test_other_ways_to_compute(base, tmp_path, options):
    plain, other = trained(base, tmp_path / "plain"), trained(base, tmp_path / "other", **options)
    assert losses(other) == pytest.approx(losses(plain), rel=0.02)
    weights = adapters.adapter_weights(other.model)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(tensor.abs().max() > 0 for name, tensor in weights.items() if ".lora_B." in name)


def test_averages_of_adapters(nmt_base, tmp_path):
    trainer = trained(nmt_base, tmp_path / "runs", save_steps=5, num_average_checkpoints=2)
    chosen, _ = choose_model(trainer)
    assert (chosen.kind, chosen.steps) == ("average", [15, 20])
    parts = [load_file(runs.checkpoint_folder(trainer.run.checkpoints, step) / adapters.ADAPTER_WEIGHTS)
             for step in chosen.steps]  # fmt: skip
    found = adapters.adapter_weights(trainer.model)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2, atol=1e-7, rtol=1e-6)
    assert not equal(copied(found), parts[0])


def test_a_run_ends_with_a_whole_model_and_the_adapter_alone(base, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hf_nmt")
    trainer = trained(base, tmp_path / "runs", num_average_checkpoints=0)
    tokenizer, last = make_tokenizer(), Candidate("last", [20])
    ids = torch.tensor([[5, 6, 7, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    model = trainer.model.eval()
    expected = model(**inputs).logits
    assert merge_adapter(trainer, tokenizer, DECODING, last, model.forward) is last
    save_model(trainer.model, tokenizer, trainer.run.best, DECODING)
    best, alone = (load_model(folder)[0] for folder in (trainer.run.best, trainer.run.adapter))
    for loaded in (best, alone):
        torch.testing.assert_close(loaded(**inputs).logits, expected, atol=1e-5, rtol=0)
        assert loaded.generation_config.num_beams == 2
    assert equal(best.state_dict(), alone.state_dict())
    names = {path.name for path in trainer.run.adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    assert "model.safetensors" not in names and "config.json" not in names
    assert json.loads((trainer.run.adapter / "adapter_config.json").read_text())["r"] == 4
    assert f"adapter belongs to the model in {base}, a folder of this machine. Elsewhere it is of use" in caplog.text
    # The checkpoints are still there for whoever wants another one.
    assert adapters.is_adapter(runs.list_checkpoints(trainer.run.checkpoints)[-1])


def test_an_adapter_that_comes_back_different_is_an_error(nmt_base, tmp_path):
    model, folder = adapted(nmt_base), tmp_path / "adapter"
    adapters.write_adapter(model, folder)
    make_tokenizer().save_pretrained(folder)
    check_checkpoint(model, make_tokenizer(), folder)
    weights = load_file(folder / adapters.ADAPTER_WEIGHTS)
    name = min(weights)
    save_file({key: tensor for key, tensor in weights.items() if key != name}, folder / adapters.ADAPTER_WEIGHTS)
    with pytest.raises(NmtError, match=f"read back differently: the weight {name} is missing, or too many"):
        check_checkpoint(model, make_tokenizer(), folder)
    save_file(weights | {name: weights[name] + 1}, folder / adapters.ADAPTER_WEIGHTS)
    with pytest.raises(NmtError, match=f"the weight {name} came back different"):
        check_checkpoint(model, make_tokenizer(), folder)
    save_file(weights, folder / adapters.ADAPTER_WEIGHTS)
    config = json.loads((folder / adapters.ADAPTER_CONFIG).read_text())
    (folder / adapters.ADAPTER_CONFIG).write_text(json.dumps(config | {"lora_alpha": 16}))
    with pytest.raises(NmtError, match="lora_alpha of its configuration is 16 instead of 8"):
        check_checkpoint(model, make_tokenizer(), folder)


def test_a_model_that_changed_meanwhile_is_not_resumed(nmt_base, tmp_path):
    first = trained(nmt_base, tmp_path / "first")
    make_model(seed=2, dropout=0.1).save_pretrained(nmt_base)
    with pytest.raises(
        ConfigError, match=r"resume: the weights in .*base are not those that the adapter in .*step-10"
    ):
        trained(nmt_base, tmp_path / "second", resume=runs.checkpoint_folder(first.run.checkpoints, 10))


def test_some_layers_only(nmt_base):
    some = adapters.adapter_weights(adapted(nmt_base, target_modules=["q_proj", "v_proj"]))
    assert len(some) == 2 * 2 * (2 + 4)
    assert AdapterSettings(target_modules="all-linear") == AdapterSettings()


@pytest.mark.parametrize(("kind", "near"), [("int8", 0.01), ("nf4", 0.2)])
def test_training_over_quantized_weights_ends_in_full_ones(tmp_path, kind, near, caplog):
    pytest.importorskip("bitsandbytes")
    caplog.set_level(logging.INFO, "hf_nmt")
    base = tmp_path / "base"
    make_model(d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=64, dropout=0.0).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    model = AutoModelForSeq2SeqLM.from_pretrained(base, quantization_config=how_to_pack(kind))
    add_adapter(model, AdapterSettings(**SETTINGS))
    packed = {name: tensor.clone() for name, tensor in model.state_dict().items() if ".base_layer.weight" in name}
    assert {tensor.dtype for name, tensor in packed.items() if name.endswith("base_layer.weight")} <= {
        torch.int8, torch.uint8
    }  # fmt: skip
    run = make_run(tmp_path / "runs")
    with run:
        trainer = make_trainer(run, model=model, learning_rate=0.01)
        trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0] - 0.1
    assert all(torch.equal(trainer.model.state_dict()[name], tensor) for name, tensor in packed.items())
    with pytest.raises(NmtError, match="An adapter is merged into weights of full precision, and these are quantized"):
        adapters.merge_adapter(trainer.model)
    ids = torch.tensor([[5, 6, 7, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    with torch.no_grad():
        quantized = trainer.model.eval()(**inputs).logits
    trained_weights = trainer.trained_weights()
    merge_adapter(trainer, make_tokenizer(), DECODING, Candidate("last", [20]), lambda: adapted(base))
    save_model(trainer.model, make_tokenizer(), run.best, DECODING)
    best, alone = (load_model(folder)[0] for folder in (run.best, run.adapter))
    assert equal(best.state_dict(), alone.state_dict())
    by_hand = adapted(base).eval()
    adapters.load_adapter_weights(by_hand, trained_weights)
    torch.testing.assert_close(best(**inputs).logits, by_hand(**inputs).logits, atol=1e-5, rtol=0)
    gap = (best(**inputs).logits - quantized).abs().max()
    assert 0 < gap < near


def test_what_a_model_cannot_have_is_told_before_it_is_read(monkeypatch):
    config = make_model(d_model=64, encoder_ffn_dim=96, decoder_ffn_dim=128).config
    assert adapter_findings(config, AdapterSettings(), None) == []
    assert adapter_findings(config, AdapterSettings(target_modules=["q_proj", "query", "lm_head"]), None) == [
        "model.adapter.target_modules: given lm_head, query; the layers of this model have fc1, fc2, k_proj, "
        "out_proj, q_proj, v_proj."
    ]
    pytest.importorskip("bitsandbytes")
    assert adapter_findings(config, AdapterSettings(), "int8") == []
    assert adapter_findings(config, AdapterSettings(), "nf4") == [
        "model.quantization: nf4 packs 64 weights into a block, and these layers are no multiple of that wide: "
        "fc1 (64 to 96), fc2 (96 to 64). Write int8."
    ]
    even = make_model(d_model=64, encoder_ffn_dim=64, decoder_ffn_dim=64).config
    assert adapter_findings(even, AdapterSettings(), "nf4") == []
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(NmtError, match=r"The package 'bitsandbytes' is needed here .* pip install .hf_nmt\[qlora\]"):
        adapter_findings(config, AdapterSettings(), "nf4")
