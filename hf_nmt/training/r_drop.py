"""R-Drop: what two draws of dropout make of the same pair shall agree.

Liang et al. (2021), R-Drop: Regularized Dropout for Neural Networks, algorithm 1: the batch comes twice in one pass,
so that encoder and decoder drop other states for each copy.

Shapes: N real target tokens, D model width, V vocabulary, C rows of one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import nn

from hf_nmt.config import Settings
from hf_nmt.models.loss_nmt import CHUNK_ROWS, ChunkedLoss, summed_in
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration

DIVERGENCE = "r_drop_divergence"  # in metrics.jsonl
_RATES = ("dropout", "attention_dropout", "activation_dropout", "dropout_rate")  # of configurations
NO_DROPOUT = (
    "objective.r_drop: compares what two draws of dropout make of a pair, and the model has no dropout, so that both "
    "are the same. Set model.dropout, or objective.r_drop to null."
)


class RDropSettings(Settings):
    alpha: float = Field(
        2.5,
        gt=0,
        description="Weight of the divergence (half of the sum of the Kullback-Leibler divergences in both "
        "directions) beside the mean cross-entropy of the two copies. The paper adds up the two cross-entropies, so "
        "that its 5 for translation is 2.5 here.",
    )


def has_dropout(model: nn.Module) -> bool:
    """Whether a model in training makes something else of the same input each time, by dropout."""
    rates = (getattr(model.config, name, 0.0) for name in _RATES)
    return any(rates) or any(isinstance(part, nn.Dropout) and part.p > 0 for part in model.modules())


class RDrop:
    """Mean cross-entropy of two copies of a batch + alpha * their divergence, over real target tokens.

    Args:
        model: as it is, not wrapped.
        smoothing: of the labels.
        settings: alpha.
    """

    def __init__(self, model: Any, smoothing: float, settings: RDropSettings):
        self.smoothing, self.alpha = smoothing, settings.alpha
        self._has_own_loss = isinstance(model, NmtForConditionalGeneration)
        self._masked_id = model.config.pad_token_id
        self._at = -1  # the update that is summed up here
        self._divergence: torch.Tensor | float = 0.0
        self._tokens: torch.Tensor | int = 0

    def begin(self, max_steps: int) -> None:
        pass

    def __call__(self, model: Any, inputs: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
        divergence: list[torch.Tensor] = []
        if self._has_own_loss:

            def loss_of_pairs(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                loss, apart = paired_cross_entropy(
                    hidden, weight, labels, alpha=self.alpha, masked_id=self._masked_id, smoothing=self.smoothing
                )
                divergence.append(apart)
                return loss

            loss = model(**twice, return_logits=False, token_function=loss_of_pairs).loss
        else:
            labels = twice.pop("labels")
            logits = model(**twice, use_cache=False).logits
            is_token = labels != -100
            loss, apart = paired_cross_entropy_from_logits(
                logits[is_token], labels[is_token], alpha=self.alpha, smoothing=self.smoothing
            )
            divergence.append(apart)
        if self._at != step:
            self._at, self._divergence, self._tokens = step, 0.0, 0
        self._divergence = self._divergence + divergence[0]
        self._tokens = self._tokens + (inputs["labels"] != -100).sum()
        return loss

    def log_values(self, step: int, total: Any) -> dict[str, float]:
        """The divergence of the last update, as a mean over its target tokens."""
        sums = [torch.as_tensor(one).float() for one in (self._divergence, self._tokens)]
        divergence, tokens = total(torch.stack(sums))
        return {DIVERGENCE: float(divergence / tokens)}


class _ChunkedPairs(ChunkedLoss):
    """Sum of the loss; and of the divergence, without a gradient.

    Of the logits z of a copy with the distribution p, the other one being q, and l = log p - log q:
    d KL(p|q) / dz = p (l - KL(p|q)), d KL(q|p) / dz = p - q.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, alpha, masked_id, smoothing, needs_gradient):
        share = smoothing / (weight.shape[0] - 1)  # the masked entry takes no part
        exact = summed_in(hidden.dtype)
        output_weight = weight.to(hidden.dtype)
        loss = torch.zeros((), dtype=exact, device=hidden.device)
        divergence = torch.zeros_like(loss)
        hidden_gradient = weight_gradient = None
        if needs_gradient:
            hidden_gradient = torch.empty(hidden.shape, dtype=exact, device=hidden.device)
            weight_gradient = torch.zeros(weight.shape, dtype=exact, device=hidden.device)
        count = hidden.shape[0] // 2
        size = CHUNK_ROWS // 2
        for start in range(0, count, size):
            places = torch.arange(start, min(start + size, count), device=hidden.device)
            places = torch.cat([places, places + count])  # of both copies
            rows, targets = hidden[places], labels[places, None]
            logits = (rows @ output_weight.t()).to(exact)  # (2C, V)
            logits[:, masked_id] = float("-inf")
            logs = logits.sub_(logits.logsumexp(1, keepdim=True))
            probabilities = logs.exp()
            logs[:, masked_id] = 0.0
            cross_entropy = -(1.0 - smoothing) * logs.gather(1, targets).sum()
            if smoothing:
                cross_entropy -= share * logs.sum()
            first, second = probabilities.chunk(2)
            apart = logs[: len(logs) // 2] - logs[len(logs) // 2 :]  # l of the first copy, (C, V)
            forth = (first * apart).sum(1, keepdim=True)
            back = -(second * apart).sum(1, keepdim=True)
            chunk_divergence = (forth.sum() + back.sum()) / 2
            divergence += chunk_divergence
            loss += cross_entropy / 2 + alpha * chunk_divergence
            if needs_gradient:
                towards = first - second
                gradient = probabilities - share
                gradient[:, masked_id] = 0.0
                gradient.scatter_add_(1, targets, gradient.new_full((1, 1), smoothing - 1.0).expand_as(targets))
                of_first, of_second = gradient.chunk(2)
                of_first += alpha * (first * (apart - forth) + towards)
                of_second -= alpha * (second * (apart + back) + towards)
                gradient = gradient.div_(2).to(hidden.dtype)
                hidden_gradient[places] = (gradient @ output_weight).to(exact)
                weight_gradient += gradient.t() @ rows
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.mark_non_differentiable(divergence)
        return loss, divergence


def paired_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, alpha: float, masked_id: int, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """R-Drop of `hidden @ weight.T`, never holding all logits; see `models.loss_nmt.smoothed_cross_entropy`.

    Args:
        hidden: decoder states of N tokens, then those of the same tokens once more, (2N, D).
        weight: output projection, (V, D).
        labels: target ids, twice, (2N).
        alpha: weight of the divergence.
        masked_id: the padding entry, whose probability is 0.
        smoothing: probability mass taken from the target.

    Returns:
        Summed over the N tokens: mean cross-entropy + alpha * divergence; and the divergence, without a gradient.
    """
    return _ChunkedPairs.of(hidden, weight, labels, alpha, masked_id, smoothing)


def paired_cross_entropy_from_logits(
    logits: torch.Tensor, labels: torch.Tensor, *, alpha: float, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `paired_cross_entropy`, of given logits (2N, V), for models of other families."""
    cross_entropy = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="sum")
    first, second = logits.float().log_softmax(1).chunk(2)
    divergence = ((first.exp() - second.exp()) * (first - second)).sum() / 2
    return cross_entropy / 2 + alpha * divergence, divergence.detach()
