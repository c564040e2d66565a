"""Settings of the course of the learning rate."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pydantic
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError

UNITS = ("steps", "epochs", "share")
LEAST_RISE = 2  # updates of the rise of one_cycle: at one end of it, and at the other
# What counts in each schedule besides the warm-up; a quantity of UNITS by its name alone.
USED: dict[str, tuple[str, ...]] = {
    "constant": (),
    "linear": ("min_learning_rate",),
    "cosine": ("min_learning_rate",),
    "cosine_with_restarts": ("T_0", "T_mult", "min_learning_rate"),
    "step": ("step_size", "gamma"),
    "exponential": ("step_size", "gamma"),
    "polynomial": ("power", "min_learning_rate"),
    "one_cycle": ("div_factor", "final_div_factor"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": ("decay", "decay_type", "min_learning_rate"),
    "reduce_on_plateau": ("gamma", "patience_validations", "cooldown_validations", "min_learning_rate"),
}
# What null stands for.
DEFAULTS: dict[str, Any] = {
    "warmup": ("steps", 1000),
    "T_0": ("epochs", 10),
    "T_mult": 2,
    "step_size": ("share", 0.2),
    "gamma": 0.5,
    "power": 2.0,
    "div_factor": 25.0,
    "final_div_factor": 1e4,
    "decay": ("share", 0.2),
    "decay_type": "1-sqrt",
    "patience_validations": 3,
    "cooldown_validations": 0,
    "min_learning_rate": 0.0,
}
# Where a schedule has another.
DEFAULTS_OF: dict[str, dict[str, Any]] = {
    "one_cycle": {"warmup": ("share", 0.3)},
    "cosine_with_restarts": {"min_learning_rate": 1e-6},
}
QUANTITIES = ("warmup", "T_0", "step_size", "decay", "timescale")
_SCALING = ("scale", "reference_tokens_per_update")
_OF_THE_PEAK = ("name", *_SCALING)
_FLOOR = "write schedule.min_learning_rate"
_EVERY = "write schedule.step_size_steps, step_size_epochs or step_size_share, and gamma"


class ScheduleSettings(Settings):
    """The course of the learning rate up to its peak (training.learning_rate) and after it. Of the keys for one
    quantity, in steps (updates), epochs or a share of all updates, at most one is given."""

    renamed_keys: ClassVar[dict[str, str]] = {
        "warmup_ratio": "write schedule.warmup_share.",
        "warmup_updates": "write schedule.warmup_steps.",
        "eta_min": f"{_FLOOR}.",
        "lr_end": f"{_FLOOR}.",
        "min_lr": f"{_FLOOR}.",
        "factor": "write schedule.gamma.",
        "patience": "write schedule.patience_validations.",
        "cooldown": "write schedule.cooldown_validations.",
        "decay_factor": f"{_EVERY}.",
        "num_cycles": "write schedule.T_0_steps, T_0_epochs or T_0_share, the length of the first cycle, and T_mult.",
        "num_decay_steps": "write schedule.decay_steps.",
        "T_0": "write schedule.T_0_epochs, T_0_steps or T_0_share.",
        "step_size": f"{_EVERY}.",
        "pct_start": "write schedule.warmup_share.",
        "max_lr": "write training.learning_rate.",
    }
    no_section: ClassVar[str] = "Write schedule.name."

    name: Literal[tuple(USED)] = Field(  # type: ignore[valid-type]
        "inverse_sqrt",
        description="Course after the warm-up. inverse_sqrt needs no total number of updates (Vaswani et al. 2017, "
        "5.3). one_cycle is Smith and Topin (2018), warmup_stable_decay Hu et al. (2024), cosine_with_restarts "
        "Loshchilov and Hutter (2017). reduce_on_plateau falls where validations bring nothing better.",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="Updates in which the rate rises from 0 to its peak; 0 starts at the peak. Where no warm-up is "
        "given: 1000, without which a transformer from scratch diverges; a share of 0.3 with one_cycle, whose rise "
        "it is, 2 updates at least.",
    )
    warmup_epochs: float | None = Field(None, ge=0, description="The same in epochs.")
    warmup_share: float | None = Field(None, ge=0, le=1, description="The same as a share of all updates.")
    min_learning_rate: float | None = Field(
        None,
        ge=0,
        description="Where linear, cosine, cosine_with_restarts, polynomial, warmup_stable_decay and "
        "reduce_on_plateau end (eta_min of torch); null: 1e-6 with cosine_with_restarts, else 0.",
    )
    T_0_steps: int | None = Field(
        None, gt=0, description="Updates of the first cycle of cosine_with_restarts; where no T_0 is given: 10 epochs."
    )
    T_0_epochs: float | None = Field(None, gt=0, description="The same in epochs.")
    T_0_share: float | None = Field(None, gt=0, le=1, description="The same as a share of all updates.")
    T_mult: int | None = Field(
        None, ge=1, description="Each cycle of cosine_with_restarts is this many times as long as the last; null: 2."
    )
    step_size_steps: int | None = Field(
        None,
        gt=0,
        description="Updates in which the rate falls by gamma: at their end in step, evenly in exponential; where no "
        "step_size is given: a share of 0.2.",
    )
    step_size_epochs: float | None = Field(None, gt=0, description="The same in epochs.")
    step_size_share: float | None = Field(None, gt=0, le=1, description="The same as a share of all updates.")
    gamma: float | None = Field(
        None, gt=0, lt=1, description="Factor of each fall in step, exponential and reduce_on_plateau; null: 0.5."
    )
    power: float | None = Field(
        None, gt=0, description="Exponent of polynomial: 1 is a line, more falls sooner; null: 2."
    )
    div_factor: float | None = Field(
        None, gt=1, description="one_cycle rises from this part of the peak: 25, the default, is a 25th."
    )
    final_div_factor: float | None = Field(
        None, gt=1, description="one_cycle ends at this part of where it began; null: 1e4."
    )
    timescale_steps: int | None = Field(
        None,
        gt=0,
        description="inverse_sqrt falls as 1 / sqrt(1 + (t - W) / timescale); null: the warm-up, as in Vaswani et "
        "al., or 10000 where there is none.",
    )
    timescale_epochs: float | None = Field(None, gt=0, description="The same in epochs.")
    timescale_share: float | None = Field(None, gt=0, description="The same as a share of all updates.")
    decay_steps: int | None = Field(
        None,
        gt=0,
        description="Last updates, in which warmup_stable_decay falls; where no decay is given: a share of 0.2 "
        "(Haegele et al. 2024, figure 5).",
    )
    decay_epochs: float | None = Field(None, gt=0, description="The same in epochs.")
    decay_share: float | None = Field(None, gt=0, le=1, description="The same as a share of all updates.")
    decay_type: Literal["linear", "cosine", "1-sqrt"] | None = Field(
        None, description="How warmup_stable_decay falls; null: 1-sqrt, the best in Haegele et al. (2024)."
    )
    patience_validations: int | None = Field(
        None,
        ge=0,
        description="Validations without a new best training.metric_for_best_model that reduce_on_plateau bears; "
        "null: 3. Those in the warm-up do not count.",
    )
    cooldown_validations: int | None = Field(
        None, ge=0, description="Validations after a fall that reduce_on_plateau does not count; null: 0."
    )

    scale: Literal["linear", "sqrt"] | None = Field(
        None,
        description="The peak is training.learning_rate times the tokens of an update (batching.batch_tokens times "
        "accumulation steps times processes) over reference_tokens_per_update (linear, Goyal et al. 2017), or times "
        "the square root of that (sqrt, for Adam: Malladi et al. 2022). null: the rate as it stands.",
    )
    reference_tokens_per_update: int | None = Field(
        None, gt=0, description="Tokens of the update that training.learning_rate was found with; needed with scale."
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ScheduleSettings:
        findings = []
        used = ("warmup", *USED[self.name])
        for quantity in QUANTITIES:
            given = [f"{quantity}_{unit}" for unit in UNITS if getattr(self, f"{quantity}_{unit}") is not None]
            if len(given) > 1:
                findings.append(f"{given[0]}: {' and '.join(given)} are given; set all but one of them to null.")
        for key in type(self).model_fields:
            quantity, _, unit = key.rpartition("_")
            base = quantity if unit in UNITS else key
            if key not in _OF_THE_PEAK and base not in used and getattr(self, key) is not None:
                having = ", ".join(name for name, keys in USED.items() if base in keys)
                findings.append(
                    f"{key}: does nothing with the schedule {self.name}; leave it out, or set it to null. It belongs "
                    f"to {having}."
                )
        unit, warmup = self.quantity("warmup") or ("steps", 0)
        if self.name == "one_cycle" and (warmup == 0 or (unit == "steps" and warmup < LEAST_RISE)):
            findings.append(
                f"warmup_{unit}: given {warmup:g}, but one_cycle begins with a rise, of {LEAST_RISE} updates at "
                "least; give more, or leave it out for a share of 0.3. cosine with warmup_steps=0 starts at the peak."
            )
        if (self.scale is None) != (self.reference_tokens_per_update is None):
            first, missing = _SCALING if self.reference_tokens_per_update is None else _SCALING[::-1]
            findings.append(f"{missing}: not given, but {first} is; give both or neither.")
        if findings:
            raise ConfigError(findings)
        return self

    def peak(self, learning_rate: float, tokens_per_update: int) -> float:
        """The peak of the learning rate, by the scaling rule where there is one."""
        if self.scale is None or self.reference_tokens_per_update is None:
            return learning_rate
        ratio = tokens_per_update / self.reference_tokens_per_update
        return learning_rate * (ratio if self.scale == "linear" else ratio**0.5)

    def value(self, key: str) -> Any:
        """What is given, or what null stands for."""
        given = getattr(self, key)
        return DEFAULTS_OF.get(self.name, {}).get(key, DEFAULTS[key]) if given is None else given

    def quantity(self, name: str) -> tuple[str, float] | None:
        """Unit and number of one of the quantities with a unit; None where it is neither given nor has a default."""
        for unit in UNITS:
            if (given := getattr(self, f"{name}_{unit}")) is not None:
                return unit, given
        return DEFAULTS_OF.get(self.name, {}).get(name, DEFAULTS.get(name))

    @property
    def counts_epochs(self) -> bool:
        """Whether the length of an epoch is needed."""
        measures = [self.quantity(name) for name in ("warmup", *USED[self.name]) if name in QUANTITIES]
        return any(measure is not None and measure[0] == "epochs" for measure in measures)

    def findings(
        self, *, learning_rate: float, validates: bool, early_stopping: int | None, is_streamed: bool
    ) -> list[str]:
        """What does not go with the rest of the settings; each opens with its key.

        Args:
            learning_rate: the peak.
            validates: whether there are validations while training.
            early_stopping: validations without a new best that end the training.
            is_streamed: whether the length of an epoch is unknown.
        """
        found = []
        has_floor = "min_learning_rate" in USED[self.name]
        # A scaled peak is known with the size of the updates, and looked at then.
        if self.scale is None and has_floor and self.value("min_learning_rate") >= learning_rate > 0:
            found.append(
                f"schedule.min_learning_rate: {self.value('min_learning_rate'):g} is not below "
                f"training.learning_rate={learning_rate:g}; lower it."
            )
        if self.name == "reduce_on_plateau":
            patience = self.value("patience_validations")
            if not validates:
                found.append(
                    "schedule.name: reduce_on_plateau looks at validations, and there are none; give data.validation "
                    "and training.eval_strategy=steps or epoch, or choose another."
                )
            elif early_stopping is not None and patience >= early_stopping:
                found.append(
                    f"schedule.patience_validations: {patience}, but training ends after {early_stopping} validations "
                    "without a new best, so that the rate would never fall; lower it, or raise "
                    "training.early_stopping_patience."
                )
        for name in ("warmup", *USED[self.name]) if is_streamed else ():
            if name in QUANTITIES and (measure := self.quantity(name)) is not None and measure[0] == "epochs":
                default = " (the default)" if getattr(self, f"{name}_epochs") is None else ""
                found.append(
                    f"schedule.{name}_epochs: {measure[1]:g}{default}, but how long an epoch of a stream is shows "
                    f"only at its end; write schedule.{name}_steps or schedule.{name}_share."
                )
        return found
