"""Settings of a search: ranges by dotted key, metric, pruning, budget."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.config_keys import findings_of, shown
from hf_nmt.errors import ConfigError, need
from hf_nmt.run_records import is_falling

# Set for each trial by the study.
_OWNED = ("name", "output_dir", "resume")


class SearchRange(Settings):
    """The values of one key: an interval, or a list."""

    low: int | float | None = Field(
        None, description="Least value; whole numbers are drawn where both ends are whole."
    )
    high: int | float | None = Field(None, description="Largest value, which may be drawn.")
    log: bool = Field(False, description="Draw the logarithm evenly, as suits learning rates.")
    step: int | float | None = Field(None, description="Distance of the values from low on; null for 1, or none.")
    choices: list[Any] | None = Field(None, description="The values themselves, in place of an interval.")

    @pydantic.field_validator("low", "high", "step", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"given {shown(value)}, but a number is needed.")
        return value

    @pydantic.model_validator(mode="after")
    def _check(self) -> SearchRange:
        if self.choices is not None:
            if given := [name for name in type(self).model_fields if name != "choices" and _is_changed(self, name)]:
                raise ValueError(f"choices stand alone; leave {', '.join(given)} out.")
            if len({json.dumps(value) for value in self.choices}) < 2:
                raise ValueError("choices needs two different values or more.")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices, such as {low: 1e-4, high: 1e-2, log: true}.")
        elif self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high}).")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log, low must be above 0 and step left out.")
        elif self.step is not None and self.step <= 0:
            raise ValueError(f"step is {self.step}; it must be above 0.")
        elif self.is_whole and isinstance(self.step, float):
            raise ValueError(f"step is {self.step}, and whole numbers are drawn; write low as {float(self.low)}.")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> Any:
        """As Optuna has it."""
        distributions = need("optuna", "tune").distributions
        if self.choices is not None:
            return distributions.CategoricalDistribution([_told(value) for value in self.choices])
        if self.is_whole:
            return distributions.IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)
        return distributions.FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """What Optuna drew, as settings have it."""
        if self.choices is None:
            return drawn
        return next(one for one in self.choices if (type(_told(one)), _told(one)) == (type(drawn), drawn))

    def examples(self) -> list[str]:
        """Its ends or its choices, as JSON."""
        values = [self.low, self.high] if self.choices is None else self.choices
        return [json.dumps(value) for value in values]


def _told(value: Any) -> Any:
    """A choice as Optuna takes it, which has no lists."""
    return json.dumps(value) if isinstance(value, list | dict) else value


class PruningSettings(Settings):
    method: Literal["none", "median", "successive_halving"] = Field(
        "median",
        description="Which trials end early, judged after each validation. median: those whose best is worse than the "
        "median of the others at the same validation; successive_halving (Li et al. 2020): all but the best "
        "1/halving_factor at the 1st, halving_factor-th, halving_factor^2-th ... validation.",
    )
    startup_trials: int = Field(
        4, ge=1, description="Trials that run to their end before the median is of use; of median alone."
    )
    halving_factor: int = Field(3, ge=2, description="Of how many trials one goes on; of successive_halving alone.")


class BudgetSettings(Settings):
    """What the study may spend, all processes together; it ends with the first of these that is reached."""

    trials: int | None = Field(20, ge=1, description="Trials, failed and pruned ones counted.")
    updates: int | None = Field(None, ge=1, description="Updates of the weights of all trials; null: no limit.")
    cpu_minutes: float | None = Field(
        None, gt=0, description="Processor minutes of all trials, starting and validations included; null: no limit."
    )

    @pydantic.model_validator(mode="after")
    def _some_limit(self) -> BudgetSettings:
        if self.trials is self.updates is self.cpu_minutes is None:
            raise ValueError("nothing ends the study; give trials, updates or cpu_minutes.")
        return self


class TuningSettings(Settings):
    """What is searched for, where, and at what cost."""

    places: ClassVar[tuple[str, ...]] = ("study",)
    # Who names a range has chosen what is searched for.
    chosen_whole: ClassVar[tuple[str, ...]] = ("search",)

    study: Path = Field(
        Path("studies/study"),
        description="Folder of the study. One that is there goes on, beside others at work on it.",
    )
    recipe: str = Field("train", pattern=r"^\w+$", description="The recipe whose runs are the trials, without .py.")
    base: str | None = Field(
        None, description="Settings of the recipe, as its --config takes them: a name or a file; null for its default."
    )
    settings: dict[str, Any] = Field(
        {},
        description="Further settings of the recipe, the same in all trials, such as settings.training.max_steps=500.",
    )
    search: dict[str, Any] = Field(
        {},
        description="Ranges by the key that they are for: search.training.learning_rate={low: 1e-4, high: 1e-2, log: "
        "true}, {low: 1, high: 6} for whole numbers, {choices: [pre, post]}. Those that are typed are searched for "
        "alone, without those of the settings file.",
    )
    metric: Literal["loss", "perplexity", "bleu", "chrf", "ter", "off_target"] = Field(
        "loss",
        description="What the best validation of a trial is judged by; loss, perplexity, ter and off_target down, the "
        "others up. loss tells settings apart after few updates, when BLEU is still noise.",
    )
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="tpe (Bergstra et al. 2011) draws near what was good; random does not look."
    )
    startup_trials: int = Field(
        8, ge=1, description="Trials that tpe draws at random before it looks at their values."
    )
    seed: int = Field(42, ge=0, description="Of the draws. The seed of the trials is settings.seed, the same for all.")
    pruning: PruningSettings = Field(PruningSettings(), description="Which trials end early.")
    budget: BudgetSettings = Field(BudgetSettings(), description="What the study may spend.")
    keep_weights: Literal["best", "all"] = Field(
        "best",
        description="Whose checkpoints/ and best/ stay: those of the best trial so far, or of all. The rest of a "
        "run folder always does.",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> TuningSettings:
        findings = []
        try:
            ranges = self.ranges()
        except ConfigError as error:
            ranges, findings = {}, error.findings
        fixed = dict(_leaves(self.settings))
        findings += [f"settings.{name}: each trial gets its own; leave it out." for name in _OWNED if name in fixed]
        findings += [f"search.{name}: each trial gets its own; leave it out." for name in _OWNED if name in ranges]
        findings += [f"settings.{name}: it is searched for; leave it out here." for name in fixed if name in ranges]
        if self.pruning.method != "median" and _is_changed(self.pruning, "startup_trials"):
            findings.append("pruning.startup_trials: is for pruning.method=median; leave it out.")
        if self.pruning.method != "successive_halving" and _is_changed(self.pruning, "halving_factor"):
            findings.append("pruning.halving_factor: is for pruning.method=successive_halving; leave it out.")
        if self.sampler == "random" and _is_changed(self, "startup_trials"):
            findings.append("startup_trials: is for sampler=tpe; leave it out.")
        if findings:
            raise ConfigError(findings)
        return self

    def ranges(self) -> dict[str, SearchRange]:
        """Dotted key -> range.

        Raises:
            ConfigError: something in `search` is no range.
        """
        found, findings = {}, []
        for key, value in _ranges_in(self.search):
            if not isinstance(value, Mapping):
                findings.append(
                    f"search.{key}: given {shown(value)}; write {{low: 1, high: 2}} or {{choices: [1, 2]}}."
                )
                continue
            try:
                found[key] = SearchRange.model_validate(value)
            except pydantic.ValidationError as error:
                findings += findings_of(error, f"search.{key}")
        if findings:
            raise ConfigError(findings)
        return found

    def overrides(self) -> list[str]:
        """`settings` as `key=value`."""
        return [f"{key}={json.dumps(value)}" for key, value in _leaves(self.settings)]

    @property
    def falls(self) -> bool:
        return is_falling(self.metric)


def _is_changed(settings: Settings, name: str) -> bool:
    return getattr(settings, name) != type(settings).model_fields[name].default


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _ranges_in(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A section holds sections only; a range holds a number or a list."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
            yield from _ranges_in(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
