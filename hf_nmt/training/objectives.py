"""What training minimises, summed over the target tokens of a batch; the trainer divides by those of the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.models.loss_nmt import smoothed_cross_entropy_from_logits
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.training.moving_average import MovingAverageSettings


class ObjectiveSettings(Settings):
    """What is learned, beside the label-smoothed cross-entropy (training.label_smoothing_factor)."""

    ema: MovingAverageSettings | None = Field(
        None,
        description="Keep an exponential moving average of the weights (objective.ema.decay=0.999): a candidate for "
        "best/. It costs their size in float32 once more, in memory and in each checkpoint. null keeps none.",
    )

    def sharding_findings(self) -> list[str]:
        """What does not go with weights that are divided among the processes, by FSDP or DeepSpeed."""
        if self.ema is None:
            return []
        return [
            "objective.ema: with weights divided among the processes (FSDP, DeepSpeed) none of them has whole ones to "
            "average after each update. Set it to null; training.num_average_checkpoints averages checkpoints "
            "there too."
        ]


class CrossEntropy:
    """The label-smoothed cross-entropy of what comes next after the real target.

    Args:
        model: whose own loss, which never holds all logits, is taken where it is one of ours.
        smoothing: mass spread over the vocabulary.
    """

    def __init__(self, model: Any, smoothing: float):
        self._has_own_loss = isinstance(model, NmtForConditionalGeneration)
        self.smoothing = smoothing

    def __call__(self, model: Any, inputs: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        """The loss summed over the target tokens of a batch.

        Args:
            model: to call; it may be wrapped for several processes.
            inputs: of a `TranslationCollator`.
            step: updates made so far.
        """
        if self._has_own_loss:
            return model(**inputs, label_smoothing=self.smoothing, num_items_in_batch=1, return_logits=False).loss
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"}, use_cache=False)
        return smoothed_cross_entropy_from_logits(outputs.logits, inputs["labels"], self.smoothing)
