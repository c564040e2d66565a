"""Muon for the matrices of the layers, AdamW for all other weights.

Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks, kellerjordan.github.io/posts/muon: the
momentum of a matrix is made nearly orthogonal by five Newton-Schulz iterations, so that an update moves along all its
directions alike. Liu et al. (2025), Muon is Scalable for LLM Training, equation 4: times 0.2 sqrt(max(rows, columns))
such an update is as large as AdamW's, so that one learning rate and one weight decay serve both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def divided_weights(model: nn.Module, decayed: Iterable[str], weight_decay: float) -> list[dict[str, Any]]:
    """Groups of the weights that are trained: matrices of layers, and the rest with and without decay. Embeddings and
    the output projection count as rest, as Jordan et al. advise: their rows are tokens, met more or less often.

    Args:
        decayed: names of the weights that decay.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if output is not None:
        embedded.add(id(output.weight))
    decayed = set(decayed)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            is_matrix = weight.ndim == 2 and id(weight) not in embedded and "lora_embedding" not in name
            groups.setdefault((is_matrix, name in decayed), []).append(weight)
    return [
        {"params": weights, "is_matrix": is_matrix, "weight_decay": weight_decay if decays else 0.0}
        for (is_matrix, decays), weights in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that share their groups and their state, and so are saved, resumed and scheduled as one.

    Args:
        params: groups as `divided_weights` makes them.
        lr: learning rate of both.
        betas, eps: of AdamW.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        groups = list(params)
        self._parts: list[torch.optim.Optimizer] = []
        super().__init__(groups, {"lr": lr})
        matrices, rest = ([one for one in groups if one["is_matrix"] == wanted] for wanted in (True, False))
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=lr, betas=betas, eps=eps, fused=True))
        self._share()

    def _share(self) -> None:
        for part in self._parts:
            part.state = self.state
            part.param_groups = [
                group for group in self.param_groups if group["is_matrix"] == isinstance(part, torch.optim.Muon)
            ]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
