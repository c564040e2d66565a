"""Adapters on models of every family: what they compute, their folders, and merging."""

from __future__ import annotations

import json
import math
import shutil

import families
import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from hf_nmt.errors import NmtError
from hf_nmt.generation import adapters
from hf_nmt.generation.translator import TorchTranslator
from hf_nmt.training.adapters import AdapterSettings, add_adapter, projections
from hf_nmt.translators import load_model, load_translator

TEXTS = ["balo delo kalo.", "falo, selo?"]


def adapted(model, seed: int = 5, **settings):
    """The model with an adapter that is not zero any more."""
    torch.manual_seed(seed)
    add_adapter(model, AdapterSettings(**{"rank": 4, "alpha": 8} | settings))
    with torch.no_grad():
        for name, tensor in adapters.adapter_weights(model).items():
            if "lora_B" in name:
                tensor.normal_(std=0.1)
    return model.eval()


def logits(model) -> torch.Tensor:
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=ids.flip(1)).logits


@pytest.fixture
def base(tmp_path):
    return families.make("marian", tmp_path / "base")


@pytest.fixture
def pair(base, tmp_path):
    """A base on the disk, a model of it with an adapter, and the folder of that adapter."""
    model, tokenizer = load_model(base)
    adapters.write_adapter(adapted(model), tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return base, model, tmp_path / "adapter"


def refused(path, text: str, **options) -> None:
    with pytest.raises(NmtError, match=text):
        load_translator(path, "cpu", **options)


PROJECTIONS = {
    "nmt": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "marian": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "m2m_100": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "mbart50": "fc1 fc2 k_proj out_proj q_proj v_proj",
    "t5": "k o q v wi wo",
    "mt5": "k o q v wi_0 wi_1 wo",
}


@pytest.mark.parametrize("family", PROJECTIONS)
def test_every_projection_gets_an_adapter_and_nothing_else_is_trained(family):
    model, _ = families.load(family)
    assert " ".join(sorted({name.rpartition(".")[2] for name in projections(model)})) == PROJECTIONS[family]
    before = logits(model)
    wanted = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    torch.manual_seed(0)
    add_adapter(model, AdapterSettings())
    assert torch.equal(logits(model), before)  # B is zero at first
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {f"{name}.lora_{side}.default.weight" for name in wanted for side in "AB"}


@pytest.mark.parametrize("family", PROJECTIONS)
def test_merged_equals_unmerged_and_tied_weights_stay_tied(family, tmp_path):
    model, tokenizer = families.load(family)
    tied, before = dict(model.all_tied_weights_keys or {}), logits(model)
    kind, names = type(model), {*model.state_dict()}
    expected = logits(adapted(model))
    assert (expected - before).abs().max() > 0.01
    merged = adapters.merge_adapter(model)
    # Sums in another order: about 1e-7 of the largest logit in each layer.
    torch.testing.assert_close(logits(merged), expected, atol=1e-5 * max(1, expected.abs().max().item()), rtol=0)
    assert type(merged) is kind and {*merged.state_dict()} == names and not adapters.has_adapter(merged)
    assert tied
    for name, source in tied.items():
        assert merged.get_parameter(name).data_ptr() == merged.get_parameter(source).data_ptr()
    merged.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert not {*tied} & {*load_file(tmp_path / "model.safetensors")}  # saved once, under the name of the source
    loaded, _ = load_model(tmp_path)
    assert torch.equal(logits(loaded), logits(merged))
    assert all(
        loaded.get_parameter(name).data_ptr() == loaded.get_parameter(source).data_ptr()
        for name, source in tied.items()
    )


def test_one_layer_by_hand(base):
    model, _ = load_model(base)
    weight = model.model.decoder.layers[0].fc1.weight.clone()
    adapted(model, rank=3, alpha=7.5)
    layer = model.model.decoder.layers[0].fc1
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (3, 64) and b.shape == (64, 3)
    x = torch.randn(2, 64)
    by_hand = weight + 7.5 / 3 * b @ a
    torch.testing.assert_close(layer(x), x @ by_hand.T + layer.bias, atol=1e-5, rtol=1e-5)
    adapters.merge_adapter(model)
    torch.testing.assert_close(model.model.decoder.layers[0].fc1.weight, by_hand, atol=1e-6, rtol=1e-5)


def test_one_layer_of_dora_by_hand(base):
    model, _ = load_model(base)
    weight = model.model.encoder.layers[0].self_attn.q_proj.weight.clone()
    adapted(model, type="dora", target_modules=["q_proj"])
    layer = model.model.encoder.layers[0].self_attn.q_proj
    length = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(length, weight.norm(dim=1))
    with torch.no_grad():
        length.mul_(1.5)
    summed = weight + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    by_hand = length[:, None] * summed / summed.norm(dim=1, keepdim=True)
    x = torch.randn(2, 64)
    torch.testing.assert_close(layer(x), x @ by_hand.T + layer.bias, atol=1e-5, rtol=1e-5)
    expected = logits(model)
    adapters.merge_adapter(model)
    torch.testing.assert_close(model.model.encoder.layers[0].self_attn.q_proj.weight, by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


def test_a_folder_holds_the_adapter_alone_and_gives_equal_outputs(pair):
    base, model, folder = pair
    names = {*load_file(folder / adapters.ADAPTER_WEIGHTS)}
    assert len(names) == 2 * 16  # 6 projections in an encoder layer, 10 in a decoder layer
    assert all(".lora_A." in name or ".lora_B." in name for name in names)
    assert (folder / adapters.ADAPTER_WEIGHTS).stat().st_size < (base / "model.safetensors").stat().st_size / 2
    beside, _ = load_model(folder, merge=False)
    assert torch.equal(logits(beside), logits(model))
    merged, _ = load_model(folder)
    assert not adapters.has_adapter(merged)
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=0)
    ours, plain = load_translator(folder, "cpu"), load_translator(base, "cpu")
    unmerged = TorchTranslator(model, ours.tokenizer, "cpu")
    results = [[n_best[0].text for n_best in system.translate(TEXTS)] for system in (ours, unmerged, plain)]
    assert results[0] == results[1] != results[2]


def test_peft_itself_reads_the_folder(pair):
    base, model, folder = pair
    theirs = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(str(folder))
    assert torch.equal(logits(theirs.eval()), logits(model))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and config["inference_mode"]
    # A set of names has another order in each process.
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_base_that_is_elsewhere(pair, tmp_path):
    base, model, folder = pair
    base.rename(tmp_path / "moved")
    refused(folder, "adapter is an adapter of .*base, which cannot be opened: .*there is no such folder[^$]*write its "
            "folder or id into base_model_name_or_path of adapter_config.json, or take the merged")  # fmt: skip
    moved, _ = load_model(folder, base=tmp_path / "moved", merge=False)
    assert torch.equal(logits(moved), logits(model))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    refused(folder, "is an adapter and does not say of which model: write its folder or id into base_model_name_or")


def test_a_base_of_other_weights_is_refused(pair, tmp_path):
    base, _, folder = pair
    other, tokenizer = families.load("marian")
    with torch.no_grad():
        other.model.encoder.layers[0].fc1.weight[0, 0] += 1
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    refused(folder, "is an adapter of other weights than those in .*other: the model was trained further, or",
            base=tmp_path / "other")  # fmt: skip
    families.make("marian", tmp_path / "wide", encoder_ffn_dim=128)
    with safe_open(folder / adapters.ADAPTER_WEIGHTS, framework="pt") as file:
        assert len(file.metadata()["base_weights_sha256"]) == 64
    save_file(load_file(folder / adapters.ADAPTER_WEIGHTS), folder / adapters.ADAPTER_WEIGHTS)  # as others write it
    (folder / adapters.MODEL_CONFIG).unlink()
    refused(folder, r"does not fit the model: base_model.model.model.encoder.layers.0.fc1.lora_B.weight is \(128, 4\) "
            r"in the model and \(64, 4\) in the adapter", base=tmp_path / "wide")  # fmt: skip


def test_adapter_folders_that_are_not_whole(pair, tmp_path):
    _, _, folder = pair
    cut = shutil.copytree(folder, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes()[:500])
    refused(cut, "cut cannot be loaded")
    (cut / "adapter_model.safetensors").unlink()
    refused(cut, "is an adapter without weights: adapter_model.safetensors is missing")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "SPELL"}))
    refused(folder, "peft cannot read adapter_config.json")


def test_a_sum_that_is_not_finite_is_not_merged(pair):
    _, model, _ = pair
    with torch.no_grad():
        model.model.encoder.layers[0].fc2.lora_B["default"].weight[0, 0] = math.nan
    with pytest.raises(NmtError, match="The adapter cannot be merged: model.encoder.layers.0.fc2: NaNs detected"):
        adapters.merge_adapter(model)


def test_weights_that_came_apart_are_told(base):
    model, _ = load_model(base)
    adapters.check_tied(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(NmtError, match="lm_head.weight and model.shared.weight should be one and came apart"):
        adapters.check_tied(model)


@pytest.mark.parametrize("also", [{"modules_to_save": ["fc1"]}, {"trainable_token_indices": [5, 6]}, {"bias": "all"}])
def test_what_else_peft_trains_is_merged_too(base, tmp_path, also):
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj"], **also)
    theirs = peft.get_peft_model(model, config)
    torch.manual_seed(7)
    for weight in theirs.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = logits(theirs.eval())
    merged, _ = load_model(tmp_path / "theirs")
    plain = AutoModelForSeq2SeqLM.from_pretrained(base)
    assert {*merged.state_dict()} == {*plain.state_dict()}
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits(plain), expected, atol=1e-3)
