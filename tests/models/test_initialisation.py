"""The random weights that a new model starts from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration


def test_blocks_start_by_xavier_and_depth():
    """Largest weights of each map against the limits of Glorot and Bengio (2010), of the third layer."""
    model = NmtForConditionalGeneration(
        NmtConfig(d_model=64, encoder_ffn_dim=256, decoder_ffn_dim=256, vocab_size=90, activation_function="swiglu",
                  encoder_layers=3, decoder_layers=3)
    )  # fmt: skip
    square, wide = (6 / (64 + 64)) ** 0.5, (6 / (64 + 256)) ** 0.5
    for layer in (model.model.encoder.layers[2], model.model.decoder.layers[2]):
        limits = {
            layer.self_attn.q_proj: (6 / (64 + 3 * 64)) ** 0.5,  # the three maps as one
            layer.self_attn.out_proj: square * 3**-0.5,
            layer.feed_forward.fc1: wide,
            layer.feed_forward.gate: wide,
            layer.feed_forward.fc2: wide * 3**-0.5,
        }
        for linear, limit in limits.items():
            assert linear.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
            assert linear.bias.abs().max() == 0


def test_loading_leaves_every_weight_as_saved(tmp_path):
    """A weight that the file lacks is drawn anew, and no other."""
    model = NmtForConditionalGeneration(NmtConfig(d_model=32, vocab_size=60, encoder_layers=1, decoder_layers=1))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    missing = "model.decoder.layers.0.encoder_attn.q_proj.weight"
    lost = weights.pop(missing)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = NmtForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert not torch.equal(again[missing], lost)
    assert again[missing].abs().max().item() == pytest.approx((6 / (32 + 3 * 32)) ** 0.5, rel=0.02)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
