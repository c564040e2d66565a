"""The course of the learning rate, by the schedules of Transformers and torch.

t counts updates from 0, W is the warm-up, N the whole training, all in updates; a rate is a factor of the peak,
`training.learning_rate`. The warm-up rises as t / W where the schedule has none of its own (one_cycle has).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler
from transformers import TrainerCallback, optimization

from hf_nmt.errors import ConfigError
from hf_nmt.training.schedule_settings import LEAST_RISE, QUANTITIES, USED, ScheduleSettings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Course:
    """A schedule with all lengths in updates.

    Attributes:
        settings: what it was made of.
        learning_rate: the peak.
        num_updates: N, of the whole training.
        updates_per_epoch: None where it is not known.
        greater_is_better: of the metric that reduce_on_plateau looks at.
    """

    settings: ScheduleSettings
    learning_rate: float
    num_updates: int
    updates_per_epoch: int | None = None
    greater_is_better: bool = True

    def updates(self, name: str) -> int | None:
        """A quantity of the settings in updates; at least one of what is not the warm-up.

        Raises:
            ConfigError: it counts epochs, and their length is not known.
        """
        measure = self.settings.quantity(name)
        if measure is None:
            return None
        unit, number = measure
        if unit == "epochs" and self.updates_per_epoch is None:
            raise ConfigError(
                f"schedule.{name}_epochs: the number of updates of an epoch is not known here; write "
                f"schedule.{name}_steps or schedule.{name}_share."
            )
        length = {"steps": 1, "epochs": self.updates_per_epoch or 0, "share": self.num_updates}[unit]
        # A share of the warm-up is rounded up, as by the Trainer.
        whole = math.ceil(number * length) if unit == "share" else round(number * length)
        return whole if name == "warmup" else max(whole, 1)

    @property
    def warmup(self) -> int:
        """Updates; a share or a part of an epoch may come to less than the rise of one_cycle needs."""
        return max(self.updates("warmup") or 0, LEAST_RISE if self.settings.name == "one_cycle" else 0)

    def make(self, optimizer: Optimizer) -> Any:
        """The schedule of an optimizer; `step()` after each update.

        Raises:
            ConfigError: its parts are longer than the training, or its end is above its peak.
        """
        if not self.learning_rate:  # whatever the course, it is a course of zeros
            return optimization.get_constant_schedule(optimizer)
        if "min_learning_rate" in USED[self.settings.name] and self.floor >= 1:
            raise ConfigError(
                f"schedule.min_learning_rate: {self.settings.value('min_learning_rate'):g} is not below the peak of "
                f"{self.learning_rate:g}, as schedule.scale={self.settings.scale} makes it; lower it."
            )
        return _MAKERS[self.settings.name](self, optimizer)

    @property
    def floor(self) -> float:
        """The least rate as a factor of the peak."""
        return self.settings.value("min_learning_rate") / self.learning_rate

    def rates(self) -> list[float]:
        """The learning rate of each of the N updates, without a plateau."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.learning_rate)
        schedule = self.make(optimizer)
        found = []
        for _ in range(self.num_updates):
            found.append(float(schedule.get_last_lr()[0]))
            optimizer.step()
            schedule.step()
        return found

    def told(self) -> str:
        """The course in words."""
        parts = [f"learning rate {self.learning_rate:.3g}: {self.settings.name}", f"warm-up {self.warmup} updates"]
        for name in USED[self.settings.name]:
            if name not in QUANTITIES:
                parts.append(f"{name} {self.settings.value(name)}")
            elif (length := self.updates(name)) is not None:
                parts.append(f"{name} {length} updates")
        return ", ".join(parts)

    def tell(self) -> None:
        """Into the log."""
        logger.info("%s", self.told())
        if (warning := self.warning()) is not None:
            logger.warning("%s", warning)

    def warning(self) -> str | None:
        """Where the training ends before the rate has come up, or soon after."""
        if 2 * self.warmup <= self.num_updates or self.settings.name == "one_cycle":
            return None
        unit, _ = self.settings.quantity("warmup") or ("steps", 0)
        if self.warmup < self.num_updates:
            return (
                f"The learning rate warms up for {self.warmup} of the {self.num_updates} updates of the training "
                f"(schedule.warmup_{unit}), so that little is made of its peak. A tenth is usual; "
                f"{self._a_tenth(unit)}."
            )
        end = self.learning_rate * max(self.num_updates - 1, 0) / self.warmup
        return (
            f"The learning rate warms up for {self.warmup} updates (schedule.warmup_{unit}), and the training has "
            f"{self.num_updates}: it ends at {end:.3g}, and its peak is {self.learning_rate:.3g}. A tenth of all "
            f"updates is usual; {self._a_tenth(unit)}."
        )

    @staticmethod
    def _a_tenth(unit: str) -> str:
        """How to set the warm-up, which is given in this unit, to a tenth."""
        return "write schedule.warmup_share=0.1" + ("" if unit == "share" else f" schedule.warmup_{unit}=null")


def _after_warmup(course: Course, optimizer: Optimizer, **options: Any) -> Any:
    """A schedule of torch after the usual warm-up.

    Args:
        options: of that schedule, without its name.
    """
    kind = options.pop("kind")
    if not course.warmup:
        return kind(optimizer, **options)
    rising = optimization.get_constant_schedule_with_warmup(optimizer, course.warmup)
    return lr_scheduler.SequentialLR(optimizer, [rising, kind(optimizer, **options)], milestones=[course.warmup])


def _with_end(course: Course) -> dict[str, int]:
    # Transformers divides by their difference.
    return {"num_warmup_steps": course.warmup, "num_training_steps": max(course.num_updates, course.warmup + 1)}


def _constant(course: Course, optimizer: Optimizer) -> Any:
    return optimization.get_constant_schedule_with_warmup(optimizer, course.warmup)


def _cosine(course: Course, optimizer: Optimizer) -> Any:
    return optimization.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, **_with_end(course), min_lr_rate=course.floor
    )


def _polynomial(course: Course, optimizer: Optimizer, power: float | None = None) -> Any:
    # It reads the peak from the defaults of an optimizer, which wrapped ones lack.
    bare = torch.optim.SGD([torch.zeros(1)], lr=course.learning_rate)
    factor = optimization.get_polynomial_decay_schedule_with_warmup(
        bare,
        **_with_end(course),
        lr_end=course.settings.value("min_learning_rate"),
        power=course.settings.value("power") if power is None else power,
    ).lr_lambdas[0]
    return lr_scheduler.LambdaLR(optimizer, factor)


def _linear(course: Course, optimizer: Optimizer) -> Any:
    return _polynomial(course, optimizer, power=1.0)


def _cosine_with_restarts(course: Course, optimizer: Optimizer) -> Any:
    return _after_warmup(
        course,
        optimizer,
        kind=lr_scheduler.CosineAnnealingWarmRestarts,
        T_0=course.updates("T_0"),
        T_mult=course.settings.value("T_mult"),
        eta_min=course.settings.value("min_learning_rate"),
    )


def _step(course: Course, optimizer: Optimizer) -> Any:
    size, gamma = course.updates("step_size"), course.settings.value("gamma")
    return _after_warmup(course, optimizer, kind=lr_scheduler.StepLR, step_size=size, gamma=gamma)


def _exponential(course: Course, optimizer: Optimizer) -> Any:
    of_an_update = course.settings.value("gamma") ** (1 / (course.updates("step_size") or 1))
    return _after_warmup(course, optimizer, kind=lr_scheduler.ExponentialLR, gamma=of_an_update)


def _one_cycle(course: Course, optimizer: Optimizer) -> Any:
    # Its two phases need two updates each; it refuses a step behind its end, which a training may take.
    total = max(course.num_updates, 4)
    rise = min(course.warmup, total - 2)
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=course.learning_rate,
        total_steps=total,
        pct_start=rise / total,
        div_factor=course.settings.value("div_factor"),
        final_div_factor=course.settings.value("final_div_factor"),
        cycle_momentum=False,  # the betas of the optimizer are settings of their own
    )


def _inverse_sqrt(course: Course, optimizer: Optimizer) -> Any:
    return optimization.get_inverse_sqrt_schedule(optimizer, course.warmup, timescale=course.updates("timescale"))


def _warmup_stable_decay(course: Course, optimizer: Optimizer) -> Any:
    fall = course.updates("decay") or 1
    if course.warmup + fall > course.num_updates:
        unit, _ = course.settings.quantity("decay") or ("steps", 0)
        raise ConfigError(
            f"schedule.decay_{unit}: a warm-up of {course.warmup} updates and a fall of {fall} are longer than the "
            f"training, which has {course.num_updates}. Shorten one of them, or train longer."
        )
    falling = optimization.get_wsd_schedule(
        optimizer,
        num_warmup_steps=0,  # its own would rise from the least rate
        num_stable_steps=course.num_updates - fall,
        num_decay_steps=fall,
        decay_type=course.settings.value("decay_type"),
        min_lr_ratio=course.floor,
    ).lr_lambdas[0]
    rising = optimization.get_constant_schedule_with_warmup(optimizer, course.warmup).lr_lambdas[0]
    return lr_scheduler.LambdaLR(optimizer, lambda t: rising(t) * falling(t))


def _reduce_on_plateau(course: Course, optimizer: Optimizer) -> ReduceOnPlateau:
    return ReduceOnPlateau(
        optimizer,
        course.warmup,
        mode="max" if course.greater_is_better else "min",
        factor=course.settings.value("gamma"),
        patience=course.settings.value("patience_validations"),
        cooldown=course.settings.value("cooldown_validations"),
        min_lr=course.settings.value("min_learning_rate"),
    )


class ReduceOnPlateau:
    """A warm-up, then torch's `ReduceLROnPlateau`: any better value is progress, as for early stopping.

    Args:
        optimizer: whose rate it is.
        warmup: updates.
        options: of `torch.optim.lr_scheduler.ReduceLROnPlateau`.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, **options: Any):
        self.optimizer, self.warmup = optimizer, warmup
        self._rising = optimization.get_constant_schedule_with_warmup(optimizer, warmup)
        self._plateau = lr_scheduler.ReduceLROnPlateau(optimizer, **options, threshold=0, eps=0)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """After an update."""
        if self._rising.last_epoch < self.warmup:
            self._rising.step()

    def observe(self, value: float) -> bool:
        """After a validation; whether the rate fell. In the warm-up nothing is kept."""
        if self._rising.last_epoch < self.warmup:
            return False
        before = self.get_last_lr()
        self._plateau.step(value)
        return self.get_last_lr() != before

    def state_dict(self) -> dict[str, Any]:
        return {"rising": self._rising.state_dict(), "plateau": self._plateau.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The rate itself is kept by the optimizer."""
        self._rising.load_state_dict(state["rising"])
        self._plateau.load_state_dict(state["plateau"])


class PlateauWatch(TrainerCallback):
    """Shows the validations to a schedule that looks at them."""

    def on_evaluate(self, args, state, control, metrics=None, lr_scheduler=None, **kwargs):
        name = args.metric_for_best_model
        if isinstance(lr_scheduler, ReduceOnPlateau) and lr_scheduler.observe(metrics[f"eval_{name}"]):
            logger.info(
                "learning rate lowered to %.3g: no better %s in the last validations",
                lr_scheduler.get_last_lr()[0], name,
            )  # fmt: skip


_MAKERS = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "step": _step,
    "exponential": _exponential,
    "polynomial": _polynomial,
    "one_cycle": _one_cycle,
    "inverse_sqrt": _inverse_sqrt,
    "warmup_stable_decay": _warmup_stable_decay,
    "reduce_on_plateau": _reduce_on_plateau,
}
