"""What the trainer asks an objective for, and the plain one: the label-smoothed cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from hf_nmt.models.loss_nmt import smoothed_cross_entropy_from_logits
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration


class Objective(Protocol):
    """What the trainer asks for in each update."""

    def begin(self, max_steps: int) -> None:
        """Training begins, or goes on, and will have so many updates."""

    def __call__(self, model: Any, inputs: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        """The loss summed over the target tokens of a batch.

        Args:
            model: to call; it may be wrapped for several processes.
            inputs: of a `TranslationCollator`.
            step: updates made so far.
        """

    def log_values(self, step: int, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """What to log besides the loss, of the update that was the `step`th. Every process calls it.

        Args:
            total: sums a tensor over the processes.
        """


class CrossEntropy:
    """The label-smoothed cross-entropy of what comes next after the real target.

    Args:
        model: whose own loss, which never holds all logits, is taken where it is one of ours.
        smoothing: mass spread over the vocabulary.
    """

    def __init__(self, model: Any, smoothing: float):
        self._has_own_loss = isinstance(model, NmtForConditionalGeneration)
        self.smoothing = smoothing

    def begin(self, max_steps: int) -> None:
        pass

    def __call__(self, model: Any, inputs: Mapping[str, torch.Tensor], step: int = 0) -> torch.Tensor:
        if self._has_own_loss:
            return model(**inputs, label_smoothing=self.smoothing, num_items_in_batch=1, return_logits=False).loss
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"}, use_cache=False)
        return smoothed_cross_entropy_from_logits(outputs.logits, inputs["labels"], self.smoothing)

    def log_values(self, step: int, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        return {}
