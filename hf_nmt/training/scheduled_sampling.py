"""Scheduled sampling for transformers: the decoder reads some of its own predictions in place of the reference.

Bengio et al. (2015), Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks, draws them one after
the other. Mihaylova and Martins (2019), Scheduled Sampling for Transformers, and Duckworth et al. (2019), Parallel
Scheduled Sampling, predict all positions at once: a first pass over the reference gives the predictions, a second one,
over the mixture, the loss. This is their form with one first pass, without a gradient through it.

Shapes: B sequences, T target positions, N real target tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError
from hf_nmt.models.loss_nmt import CHUNK_ROWS
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.training.cross_entropy import Objective

PROBABILITY = "scheduled_sampling_probability"  # in metrics.jsonl


class ScheduledSamplingSettings(Settings):
    probability: float = Field(
        0.3,
        gt=0,
        le=1,
        description="Share of the target tokens read by the decoder that are replaced by its own predictions, once "
        "the ramp has ended.",
    )
    start_steps: int | None = Field(
        None,
        ge=0,
        description="Updates before the ramp, which read the reference alone, as the predictions of a new model are "
        "of no use; where no start is given: 0.",
    )
    start_share: float | None = Field(None, ge=0, lt=1, description="The same as a share of all updates.")
    ramp_steps: int | None = Field(
        None,
        ge=0,
        description="Updates in which the probability rises from 0 in a straight line; 0 is all at once. Where no "
        "ramp is given: a share of 0.5.",
    )
    ramp_share: float | None = Field(None, gt=0, le=1, description="The same as a share of all updates.")
    prediction: Literal["argmax", "sample"] = Field(
        "argmax", description="The likeliest token at each place, or one drawn from the model's distribution."
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScheduledSamplingSettings:
        findings = [
            f"{name}_steps: {name}_steps and {name}_share are given; set one of them to null."
            for name in ("start", "ramp")
            if getattr(self, f"{name}_steps") is not None and getattr(self, f"{name}_share") is not None
        ]
        if findings:
            raise ConfigError(findings)
        return self

    def updates(self, max_steps: int) -> tuple[int, int]:
        """Before the ramp, and of the ramp."""
        start = math.ceil((self.start_share or 0.0) * max_steps) if self.start_steps is None else self.start_steps
        ramp = math.ceil((self.ramp_share or 0.5) * max_steps) if self.ramp_steps is None else self.ramp_steps
        return start, ramp


class ScheduledSampling:
    """Another objective over targets that the model has partly predicted itself.

    Special tokens stay as they are: the start symbol, language tags and padding are never replaced, and a predicted
    special token, such as an early end of the sentence, does not go in. The first pass is made without dropout, as
    in translating.

    What is replaced is drawn from the seed, the update and the place of the batch in it, and from nothing that has to
    be kept: a resumed run draws the same, and so do two processes and one that accumulates two batches.

    Args:
        objective: gives the loss of the second pass.
        settings: how much is replaced, and when.
        model: as it is, not wrapped.
        special_ids: target ids that are no words.
        seed, rank, world_size: of the training.
        accumulation: batches of an update on each process. Should they come a second time in it, as in
            sharpness-aware minimization, the same is drawn for each.
    """

    def __init__(
        self,
        objective: Objective,
        settings: ScheduledSamplingSettings,
        model: Any,
        special_ids: Iterable[int],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
    ):
        self.objective = objective
        self.settings = settings
        self._seed, self._rank, self._world_size, self._accumulation = seed, rank, world_size, accumulation
        self._has_own_loss = isinstance(model, NmtForConditionalGeneration)
        self._padding = model.config.pad_token_id
        self._special = torch.tensor(sorted({*special_ids}), dtype=torch.long)
        self._start = self._ramp = 0
        self._at = (-1, 0)  # an update, and how many of its batches were seen

    def begin(self, max_steps: int) -> None:
        self.objective.begin(max_steps)
        self._start, self._ramp = self.settings.updates(max_steps)

    def probability(self, step: int) -> float:
        """Of replacing a token in the update after `step` others."""
        passed = step - self._start
        risen = min(passed / self._ramp, 1.0) if self._ramp else 1.0
        return self.settings.probability * risen if passed >= 0 else 0.0

    def __call__(self, model: Any, inputs: Mapping[str, torch.Tensor], step: int) -> torch.Tensor:
        batch = self._at[1] if self._at[0] == step else 0
        self._at = step, batch + 1
        if probability := self.probability(step):
            inputs = self._mixed(model, inputs, probability, self._draws(inputs["labels"].device, step, batch))
        return self.objective(model, inputs, step)

    def log_values(self, step: int, total: Any) -> dict[str, float]:
        return {PROBABILITY: self.probability(step - 1), **self.objective.log_values(step, total)}

    def _draws(self, device: torch.device, step: int, batch: int) -> torch.Generator:
        place = batch % self._accumulation * self._world_size + self._rank
        (seed,) = np.random.SeedSequence((self._seed, step, place)).generate_state(1, np.uint64)
        return torch.Generator(device).manual_seed(int(seed))

    @torch.no_grad()
    def _mixed(
        self, model: Any, inputs: Mapping[str, torch.Tensor], probability: float, draws: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The inputs with some of `decoder_input_ids` (B, T) replaced."""
        labels, reference = inputs["labels"], inputs["decoder_input_ids"]
        if self._special.device != labels.device:
            self._special = self._special.to(labels.device)
        is_drawn = torch.rand(labels.shape, generator=draws, device=labels.device) < probability
        # The prediction for a place is read at the next one; the first is the start symbol's.
        predicted = torch.full_like(labels, self._padding)
        predicted[:, 1:] = self._predictions(model, inputs, draws)[:, :-1]
        is_word = (labels != -100) & ~torch.isin(reference, self._special) & ~torch.isin(predicted, self._special)
        is_word[:, 0] = False
        return {**inputs, "decoder_input_ids": torch.where(is_drawn & is_word, predicted, reference)}

    def _predictions(self, model: Any, inputs: Mapping[str, torch.Tensor], draws: torch.Generator) -> torch.Tensor:
        """The model's token for each label, read off the reference before it, (B, T); padding where there is none."""
        is_token = inputs["labels"] != -100
        sampled = draws if self.settings.prediction == "sample" else None
        was_training = model.training
        model.eval()
        try:
            if self._has_own_loss:

                def predict(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                    projection = weight.to(hidden.dtype).t()
                    parts = (
                        predicted_ids(rows @ projection, self._padding, sampled) for rows in hidden.split(CHUNK_ROWS)
                    )
                    return torch.cat([*parts])

                ids = model(**inputs, return_logits=False, token_function=predict).loss
            else:
                others = {name: value for name, value in inputs.items() if name != "labels"}
                logits = model(**others, use_cache=False).logits
                parts = (predicted_ids(rows, None, sampled) for rows in logits[is_token].split(CHUNK_ROWS))
                ids = torch.cat([*parts])
        finally:
            model.train(was_training)
            torch.clear_autocast_cache()  # weights that were cast here would have no gradient in the second pass
        return torch.full_like(inputs["labels"], self._padding).masked_scatter_(is_token, ids)


def predicted_ids(logits: torch.Tensor, padding: int | None, draws: torch.Generator | None) -> torch.Tensor:
    """The likeliest entries (N,) of logits (N, V), but for `padding`; with `draws` entries drawn from them."""
    if padding is not None:
        logits[:, padding] = float("-inf")
    if draws is None:
        return logits.argmax(1)
    return torch.multinomial(logits.float().softmax(1), 1, generator=draws).squeeze(1)


def special_ids(tokenizer: Any) -> set[int]:
    """Target ids that stand for no text: special tokens, and codes of languages that are not among these."""
    codes = getattr(tokenizer, "lang_code_to_id", None) or {}  # M2M100
    texts = getattr(tokenizer, "supported_language_codes", None) or ()  # Marian
    return {*tokenizer.all_special_ids, *codes.values(), *map(tokenizer.convert_tokens_to_ids, texts)}
