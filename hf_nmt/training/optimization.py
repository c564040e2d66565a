"""Optimizer and schedule of a Trainer."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments

from hf_nmt.batching import TokenBatchSampler
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.schedules import Course
from hf_nmt.training.sharding import ShardingTrainer


class OptimizationTrainer(ShardingTrainer):
    """A Trainer whose learning rate takes the course of the `schedule` settings.

    Attributes:
        schedule: the settings.
        sampler: makes the batches; None in a stream, where the length of an epoch is not known.
    """

    schedule: ScheduleSettings
    sampler: TokenBatchSampler | None

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
