"""Label-smoothed cross-entropy over real target positions, without the full matrix of logits.

Shapes: N real target tokens, D model width, V vocabulary, C rows of one chunk.
"""

from __future__ import annotations

import torch
from torch import nn

# Rows of logits held at a time: 512 x 32,000 in float32 are 64 MB.
CHUNK_ROWS = 512


def summed_in(dtype: torch.dtype) -> torch.dtype:
    """The type of sums over values of another: float32, or float64 where they have it."""
    return torch.promote_types(dtype, torch.float32)


class ChunkedLoss(torch.autograd.Function):
    """A loss of `hidden @ weight.T` whose gradients are already computed in the forward pass, chunk by chunk.

    `forward` takes hidden, weight and options, the last of them whether gradients are needed. It saves the gradients
    of the first two for `backward`, keeps their types in `ctx.dtypes`, and returns the loss first.
    """

    @staticmethod
    def backward(ctx, loss_gradient, *_):
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        of_inputs = [(gradient * loss_gradient).to(dtype) for gradient, dtype in gradients]
        return *of_inputs, *(None for _ in ctx.needs_input_grad[2:])

    @classmethod
    def of(cls, hidden: torch.Tensor, weight: torch.Tensor, *options):
        """What `forward` returns, under autocast in the type of its products."""
        device_type = hidden.device.type
        if torch.is_autocast_enabled(device_type):
            hidden = hidden.to(torch.get_autocast_dtype(device_type))
        with torch.autocast(device_type, enabled=False):
            needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
            return cls.apply(hidden, weight, *options, needs_gradient)


class _ChunkedCrossEntropy(ChunkedLoss):
    """Sum of the label-smoothed cross-entropy."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, masked_id, smoothing, needs_gradient):
        keep, share = 1.0 - smoothing, smoothing / (weight.shape[0] - 1)  # the masked entry takes no part
        output_weight, exact = weight.to(hidden.dtype), summed_in(hidden.dtype)
        unmasked = output_weight.sum(0, dtype=exact) - output_weight[masked_id]  # (D), sum of the rows
        loss = torch.zeros((), dtype=exact, device=hidden.device)
        hidden_gradient = weight_gradient = None
        if needs_gradient:
            hidden_gradient = torch.empty(hidden.shape, dtype=exact, device=hidden.device)
            weight_gradient = torch.zeros(weight.shape, dtype=exact, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK_ROWS):
            rows = hidden[start : start + CHUNK_ROWS]
            targets = labels[start : start + CHUNK_ROWS]
            logits = rows @ output_weight.t()  # (C, V)
            if not needs_gradient:
                logits = logits.to(exact)
            logits[:, masked_id] = float("-inf")
            target_logits = logits.gather(1, targets[:, None]).squeeze(1).to(exact)
            largest = logits.amax(1).to(exact)
            # One pass over the logits, summed in `exact`, rounded to their type: that of the products below.
            probabilities = torch.softmax(logits, 1)
            # p of the largest logit is e^largest / normaliser, and at least 1 / V.
            log_normaliser = largest - probabilities.amax(1).to(exact).log()
            # -(1 - e) log p(y) - e / (V - 1) * sum of log p, over all entries but the masked one
            loss += (log_normaliser - keep * target_logits).sum()
            if smoothing:  # an infinite sum would make it 0 * inf
                loss -= share * (rows.to(exact) @ unmasked).sum()
            if needs_gradient:
                # p - (1 - e) [y] - e / (V - 1): the first as products, the other two as the sums they come to.
                hidden_gradient[start : start + CHUNK_ROWS] = probabilities @ output_weight
                if hidden.dtype == exact:
                    weight_gradient.addmm_(probabilities.t(), rows)
                else:
                    weight_gradient += probabilities.t() @ rows
                weight_gradient.index_add_(0, targets, rows.to(exact), alpha=-keep)
        if needs_gradient:
            hidden_gradient.sub_(output_weight[labels], alpha=keep).sub_(unmasked, alpha=share)
            masked_row = weight_gradient[masked_id].clone()
            weight_gradient.sub_(hidden.sum(0, dtype=exact), alpha=share)
            weight_gradient[masked_id] = masked_row
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss


def smoothed_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, masked_id: int, smoothing: float = 0.0
) -> torch.Tensor:
    """Sum over tokens of the label-smoothed cross-entropy (Szegedy et al. 2016, section 7) of `hidden @ weight.T`.

    The smoothing mass is spread over all vocabulary entries except `masked_id`, whose probability is 0. With
    `smoothing` 0 this is plain cross-entropy.

    Args:
        hidden: decoder states, (N, D).
        weight: output projection, (V, D).
        labels: target ids, (N), none of them negative or `masked_id`.
        masked_id: the padding entry.
        smoothing: probability mass taken from the target, at least 0 and below 1.

    Returns:
        A scalar in nats, float32 or, of float64, float64.
    """
    return _ChunkedCrossEntropy.of(hidden, weight, labels, masked_id, smoothing)


def smoothed_cross_entropy_from_logits(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0):
    """Sum over tokens of the label-smoothed cross-entropy of given logits, for models of other families.

    Args:
        logits: (..., V).
        labels: (...), -100 where there is no token.
        smoothing: mass spread evenly over all V entries.

    Returns:
        A scalar in nats, float32 or, of float64, float64.
    """
    return nn.functional.cross_entropy(
        logits.to(summed_in(logits.dtype)).view(-1, logits.shape[-1]),
        labels.reshape(-1),
        ignore_index=-100,
        label_smoothing=smoothing,
        reduction="sum",
    )
