"""Dropout and softmax as the layers compute them."""

from __future__ import annotations

import pytest
import torch

from hf_nmt.models.layers_nmt import dropout, softmax


class TestDropout:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_share_scale_and_gradient(self, dtype):
        torch.manual_seed(0)
        states = torch.ones(1001, 301, dtype=dtype, requires_grad=True)
        dropped = dropout(states, 0.3, training=True)
        share = 9830 / 2**15  # 0.3 in steps of 1/32768
        assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.003)
        assert dropped.max().item() == pytest.approx(1 / (1 - share), rel=0.004)
        columns = (dropped == 0).float().mean(0)
        assert columns.std().item() == pytest.approx((share * (1 - share) / 1001) ** 0.5, rel=0.2)  # independent
        dropped.sum().backward()
        assert torch.equal(states.grad, dropped)

    def test_off(self):
        states = torch.randn(3, 4)
        assert dropout(states, 0.3, training=False) is states
        assert dropout(states, 0.0, training=True) is states

    def test_close_to_0_and_to_1(self):
        torch.manual_seed(0)
        states = torch.ones(200_000)
        least = 2**-15
        for probability, share, largest in ((1e-9, least, 1 / (1 - least)), (1 - 1e-9, 1 - least, 2.0**15)):
            dropped = dropout(states, probability, training=True)
            assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=2e-4)
            assert dropped.max().item() == pytest.approx(largest)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_added_to_a_residual(self, dtype):
        residual, states = (torch.randn(40, 50, dtype=dtype, requires_grad=True) for _ in range(2))
        torch.manual_seed(3)
        total = dropout(states, 0.3, True, residual=residual)
        torch.manual_seed(3)
        apart = residual + dropout(states, 0.3, True)
        # Together, the product is not rounded before it is added.
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
        assert torch.allclose(total.double(), apart.double(), rtol=tolerance, atol=tolerance)
        gradient = torch.randn_like(total)
        together = torch.autograd.grad(total, (states, residual), gradient)
        for one, other in zip(together, torch.autograd.grad(apart, (states, residual), gradient), strict=True):
            assert torch.equal(one, other)

    def test_added_to_a_residual_of_another_type(self):
        residual, states = torch.randn(4, 5), torch.randn(4, 5, dtype=torch.bfloat16)
        assert dropout(states, 0.5, True, residual=residual).dtype == torch.float32
        assert torch.equal(dropout(states, 0.5, False, residual=residual), residual + states)

    def test_follows_the_seed(self):
        states = torch.ones(50)
        torch.manual_seed(1)
        first, second = dropout(states, 0.5, True), dropout(states, 0.5, True)
        torch.manual_seed(1)
        assert torch.equal(dropout(states, 0.5, True), first)
        assert not torch.equal(first, second)


class TestSoftmax:
    @pytest.mark.parametrize("keys", [1, 13, 24, 25])
    def test_against_torch(self, keys):
        scores = torch.randn(3, 2, 5, keys, dtype=torch.float64, requires_grad=True)
        gradient = torch.randn_like(scores)
        for ours, theirs in zip(
            (softmax(scores), *torch.autograd.grad(softmax(scores), scores, gradient)),
            (scores.softmax(-1), *torch.autograd.grad(scores.softmax(-1), scores, gradient)),
            strict=True,
        ):
            assert torch.allclose(ours, theirs, atol=1e-12)
