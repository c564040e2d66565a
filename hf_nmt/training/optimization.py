"""Optimizer and schedule of a Trainer."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel, Seq2SeqTrainingArguments

from hf_nmt.batching import TokenBatchSampler
from hf_nmt.errors import need
from hf_nmt.training.muon import MuonWithAdamW, divided_weights
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.schedules import Course
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.sharding import ShardingTrainer
from hf_nmt.training.sharpness import RandomState, moved_uphill


def optimizer_for(
    model: PreTrainedModel, args: Seq2SeqTrainingArguments, settings: TrainingSettings
) -> torch.optim.Optimizer:
    """The optimizer with which a Trainer would train a model, without the Trainer, which tells trackers of a run."""
    maker = OptimizationTrainer.__new__(OptimizationTrainer)
    maker.model, maker.args, maker.settings = model, args, settings
    maker.optimizer = maker.optimizer_cls_and_kwargs = None
    return maker.create_optimizer()


class OptimizationTrainer(ShardingTrainer):
    """A Trainer whose learning rate takes the course of the `schedule` settings, with the optimizers of the `training`
    settings that the Trainer lacks.

    Attributes:
        settings: of the training.
        schedule: the settings.
        sampler: makes the batches; None in a stream, where the length of an epoch is not known.
    """

    settings: TrainingSettings
    schedule: ScheduleSettings
    sampler: TokenBatchSampler | None

    def get_optimizer_cls_and_kwargs(self, args: Seq2SeqTrainingArguments, model: Any = None) -> tuple[Any, Any]:
        betas = args.adam_beta1, args.adam_beta2
        if self.settings.optim == "lion":
            return need("pytorch_optimizer", "optimizers").Lion, {"lr": args.learning_rate, "betas": betas}
        if self.settings.optim == "muon":
            groups = divided_weights(model, self.get_decay_parameter_names(model), args.weight_decay)
            return MuonWithAdamW, {
                "params": groups,
                "lr": args.learning_rate,
                "betas": betas,
                "eps": args.adam_epsilon,
            }
        return super().get_optimizer_cls_and_kwargs(args, model)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As the Trainer's. Under SAM the last batch of an update leaves the gradients of all its batches at the
        weights moved uphill; the loss is that of the weights themselves."""
        if self.settings.sam_rho is None:
            return super().training_step(model, inputs, num_items_in_batch)
        self._of_this_update = [*getattr(self, "_of_this_update", ()), (inputs, RandomState(self.args.device))]
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            batches, self._of_this_update = self._of_this_update, []
            weights = [*model.parameters()]
            with moved_uphill(weights, self.settings.sam_rho, adaptive=self.settings.sam_adaptive):
                model.zero_grad()
                for number, (batch, random_state) in enumerate(batches, start=1):
                    random_state.restore()  # both passes see the same dropout
                    alone = self.accelerator.no_sync(model) if number < len(batches) else nullcontext()
                    with alone:
                        super().training_step(model, batch, num_items_in_batch)
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:
            course = self.course(num_training_steps)
            self.lr_scheduler = course.make(self.optimizer if optimizer is None else optimizer)
            self._created_lr_scheduler = True
            course.tell()
        return self.lr_scheduler

    def course(self, num_updates: int) -> Course:
        """Of the learning rate in a training of so many updates."""
        return Course(
            self.schedule,
            self.args.learning_rate,
            num_updates,
            None if self.sampler is None else math.ceil(len(self.sampler) / self.batches_of_an_update),
            greater_is_better=bool(self.args.greater_is_better),
        )

    def planned_course(self) -> Course:
        """As the training will take it."""
        if self.args.max_steps > 0:
            return self.course(self.args.max_steps)
        batches = len(self.sampler) / self.batches_of_an_update
        return self.course(math.ceil(self.args.num_train_epochs * math.ceil(batches)))

    def get_total_train_batch_size(self, args: Seq2SeqTrainingArguments) -> int:
        """Sentence pairs of an update, on average; 0 where that is not known, as in a stream."""
        if self.sampler is None:
            return 0
        batches = max(len(self.sampler), 1)
        return round(len(self.train_dataset) / batches * self.batches_of_an_update)

    @property
    def batches_of_an_update(self) -> int:
        """On all processes."""
        return self.args.gradient_accumulation_steps * self.args.world_size
