from __future__ import annotations

import itertools
import json

import pytest
import torch
from families import FAMILIES, load
from toy_training import make_model

from hf_nmt.training import kernels
from hf_nmt.training.kernels import known_attention, measure


@pytest.fixture
def clock(monkeypatch):
    """Sets how long each measured call seems to take, by the name of what is called."""
    now = itertools.count()

    def set_costs(costs):
        def times(first, second):
            next(now)
            return costs(first, second)

        monkeypatch.setattr(kernels, "_times", times)

    return set_costs


MASKS = {"none": None, "padding": (3, 1, 1, 9), "every query its own": (3, 1, 7, 9)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("bias", [False, True])
def test_two_products_are_torchs_attention(mask, bias, dtype):
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, length, 4, dtype=dtype, requires_grad=True) for length in (7, 9, 9))
    mask = MASKS[mask] and torch.rand(MASKS[mask]) < 0.7
    if mask is not None:
        mask[..., 0] = True
    position_bias = torch.randn(1, 2, 7, 9, dtype=dtype) if bias else None
    module = torch.nn.Module()
    module.is_causal = False
    found = kernels.matmul_attention(module, query, key, value, mask, scaling=0.3, position_bias=position_bias)
    added = torch.zeros(3, 1, 7, 9, dtype=dtype) if position_bias is None else position_bias.expand(3, 2, 7, 9)
    if mask is not None:
        added = added.masked_fill(~mask, -torch.inf)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((output * weights).sum(), (query, key, value))
                 for output in (found, expected.transpose(1, 2))]  # fmt: skip
    torch.testing.assert_close(*gradients)


def test_a_causal_attention_without_mask_sees_nothing_that_follows():
    query, key, value = torch.randn(3, 2, 2, 5, 4).unbind(0)
    module = torch.nn.Module()
    module.is_causal = True
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(kernels.matmul_attention(module, query, key, value, None), expected)
    assert not torch.allclose(kernels.matmul_attention(module, query, key, value, None, is_causal=False), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_the_same_on_both_sides_of_the_length(name):
    model, _ = load(name)
    if not model._supports_sdpa:
        pytest.skip("the family has no fused attention")
    model.eval()
    ids = torch.randint(5, 20, (3, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[2, 2:] = 0
    logits = []
    for attention in ("sdpa", "matmul_up_to_8", "matmul_up_to_7"):
        model.set_attn_implementation(known_attention(attention))
        assert model.config._attn_implementation == attention
        with torch.no_grad():
            logits.append(model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids).logits)
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(logits[2], logits[0])  # longer than 7, so fused


def test_the_length_is_the_last_before_the_fused_kernel_is_faster(clock):
    times = iter([(2.0, 1.0), (1.5, 1.0), (0.8, 1.0)])
    clock(lambda first, second: next(times))
    assert kernels.measure_attention(2, 8, torch.float32) == (32, {"16": 2.0, "32": 1.5, "64": 0.8})
    clock(lambda first, second: (1.0, 3.0))
    assert kernels.measure_attention(2, 8, torch.float32)[0] == 0


@pytest.mark.parametrize(
    ("rounds", "gain", "chosen"),
    [(False, 2.0, "medium"), (False, 1.05, "highest"), (True, 5.0, "highest")],
)
def test_a_precision_is_chosen_that_is_faster_and_as_exact(clock, monkeypatch, rounds, gain, chosen):
    clock(lambda first, second: (gain if second.__defaults__ == ("medium",) else 1.0, 1.0))
    if rounds:  # as a GPU or a processor with AMX does
        multiply = torch.Tensor.__matmul__

        def rounded(left, right):
            if left.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
                left, right = left.bfloat16().float(), right.bfloat16().float()
            return multiply(left, right)

        monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    before = torch.get_float32_matmul_precision()
    name, found = kernels.measure_matmul_precision(32, 64)
    assert name == chosen and found["medium"]["gain"] == gain
    assert (found["medium"]["error"] > 1e-4) == rounds
    assert torch.get_float32_matmul_precision() == before


def test_what_was_measured_is_measured_once_on_a_machine(tmp_path, monkeypatch):
    config = make_model().config
    first = measure(config, torch.float32, folder=tmp_path / "cache")
    assert first.attention == "sdpa" or first.attention.startswith("matmul_up_to_")
    (kept,) = (tmp_path / "cache").glob("kernels-*.json")
    assert json.loads(kept.read_text()) == first._asdict()
    monkeypatch.setattr(kernels, "measure_attention", lambda *given: (64, {}))
    assert measure(config, torch.float32, folder=tmp_path / "cache") == first
    assert measure(config, torch.bfloat16, folder=tmp_path / "cache").attention == "matmul_up_to_64"
