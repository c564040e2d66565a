"""Adapters over weights of 8 and 4 bits, for every family, on a CPU."""

from __future__ import annotations

import json

import families
import pytest
import torch

from hf_nmt.errors import ConfigError
from hf_nmt.training.adapters import AdapterSettings, adapter_findings, add_adapter, how_to_pack
from hf_nmt.translators import SavedModel

FAST = ("nllb", "t5")


@pytest.mark.parametrize(("kind", "near"), [("int8", 0.01), ("nf4", 0.05)])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in families.FAMILIES]
)
def test_only_the_adapter_is_trained_over_packed_projections(name, kind, near, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    saved = SavedModel(str(families.make(name, tmp_path)))
    assert adapter_findings(saved.config(), AdapterSettings(), kind) == []
    full = saved.model(dtype=torch.float32)
    model = saved.model(dtype=torch.float32, quantization_config=how_to_pack(kind))
    packed = {"int8": bitsandbytes.nn.Linear8bitLt, "nf4": bitsandbytes.nn.Linear4bit}[kind]
    # T5 keeps the last projection of its feed-forward blocks whole; embeddings and output projection always are.
    whole = {key.rpartition(".")[2] for key, module in model.named_modules() if type(module) is torch.nn.Linear}
    assert whole <= {"lm_head", "wo"} and any(isinstance(module, packed) for module in model.modules())
    add_adapter(model, AdapterSettings(rank=4), rows={"source": [5], "target": [5]})
    ids = torch.tensor([[5, 6, 7, 2]])
    losses = [one(input_ids=ids, labels=ids).loss for one in (full, model)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=near) and losses[0] != losses[1]

    trained = {key: weight for key, weight in model.named_parameters() if weight.requires_grad}
    frozen = {key: weight.clone() for key, weight in model.named_parameters() if key not in trained}
    assert all("lora_" in key or "token_adapter" in key for key in trained)
    optimizer = torch.optim.Adam(trained.values(), lr=0.01)
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert all(weight.grad is not None for weight in trained.values())
        optimizer.step()
        optimizer.zero_grad()
    assert model(input_ids=ids, labels=ids).loss < losses[1]
    assert all(torch.equal(weight, dict(model.named_parameters())[key]) for key, weight in frozen.items())
    assert len(model.generate(input_ids=ids, num_beams=2, max_length=6)) == 1


def test_a_model_that_was_saved_in_few_bits_is_refused(train_family, tmp_path):
    config = families.make("marian", tmp_path / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"load_in_8bit": True}}))
    with pytest.raises(ConfigError, match="model.pretrained: its weights were saved quantized"):
        train_family("marian", "model.adapter.type=lora")
