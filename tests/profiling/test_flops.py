"""Operations in closed form against those that torch counts while the real model computes."""

from __future__ import annotations

import pytest
import torch
import toy_training
from torch.utils.flop_counter import FlopCounterMode

from hf_nmt.profiling.flops import forward_flops, measure_peak, product_shapes

SHAPES = {
    "as it is": {},
    "swiglu": {"activation_function": "swiglu"},
    "uneven": {"encoder_layers": 3, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 24},
    "ssru": {"decoder_layer_type": "ssru"},
    "post, untied": {"norm_position": "post", "tie_word_embeddings": False},
}


def batch(source_lengths, target_lengths):
    rows = [
        {"input_ids": [5] * (source - 1) + [3], "labels": [6] * (target - 1) + [3]}
        for source, target in zip(source_lengths, target_lengths, strict=True)
    ]
    return toy_training.collate(rows)


def counted(model, inputs, *, backward=False) -> int:
    with FlopCounterMode(display=False) as counter:
        if backward:
            model(**inputs, return_logits=False).loss.backward()
        else:
            with torch.no_grad():
                model(**inputs, return_logits=False)
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lengths", [([7, 7, 7], [5, 5, 5]), ([9, 3, 6], [2, 8, 5])], ids=["even", "padded"])
def test_a_forward_pass_has_as_many_as_torch_counts(shape, lengths):
    model = toy_training.make_model(**SHAPES[shape]).eval()
    model.set_attn_implementation("eager")
    parts = forward_flops(model.config, *lengths, padded=True)
    assert sum(parts.values()) == counted(model, batch(*lengths))
    assert (parts["ssru"] > 0) == (shape == "ssru")
    needed = forward_flops(model.config, *lengths)
    assert (needed == parts) == (len(set(lengths[0])) == 1)
    assert all(needed[name] <= parts[name] for name in parts)


def test_an_update_is_three_forward_passes():
    model = toy_training.make_model(dropout=0.0)
    model.set_attn_implementation("eager")
    lengths = [9, 3, 6], [2, 8, 5]
    parts = forward_flops(model.config, *lengths, padded=True)
    # torch does not count products that are added in place, as the loss does for the weights of the projection.
    assert counted(model, batch(*lengths), backward=True) + parts["projection"] == 3 * sum(parts.values())


def test_the_peak_is_the_work_over_the_clock():
    ticks = iter(range(10_000))
    rates = measure_peak({"one": (4, 5, 6)}, torch.float32, torch.device("cpu"), lambda: float(next(ticks)))
    assert rates == {"one": 2 * 4 * 5 * 6}  # one product between two ticks of a second


def test_shapes_are_those_of_the_model():
    shapes = product_shapes(16, 64, 1000, 300)
    assert shapes["into the feed-forward"] == (300, 16, 64) and shapes["out of the feed-forward"] == (300, 64, 16)
    assert shapes["projection"] == (300, 16, 1000) and product_shapes(16, 64, 10, 9000)["projection"][0] == 512
