"""Settings of the section `watch`: what a training is watched for, and what is done about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pydantic
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError

# From the mildest to the strongest.
ACTIONS = ("warn", "lower_learning_rate", "skip", "roll_back", "stop")

OF_UPDATES = ("not_finite", "loss_spike", "gradient_norm")
OF_VALIDATIONS = ("score_collapse", "repetition", "length_ratio")
# Setting -> the actions it is about. Where there is no checkpoint to go back to yet, an update is skipped.
_BOUNDED = {
    "learning_rate_factor": ("lower_learning_rate",),
    "max_lowerings": ("lower_learning_rate",),
    "max_skips": ("skip", "roll_back"),
    "max_roll_backs": ("roll_back",),
}

_ACTION = "What is done: "
_PATIENCE = "in a row after which the action is taken; those before are told. 1: at once."


class _Watched(Settings):
    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.places = tuple(cls.model_fields)  # a run that stopped may go on with another action or threshold


class NotFiniteSettings(_Watched):
    action: Literal["stop", "skip", "lower_learning_rate", "roll_back"] = Field(
        "stop",
        description=_ACTION + "stop; skip throws the gradients of the update away; lower_learning_rate does that, and "
        "lowers it; roll_back goes back to the last good checkpoint. Nothing is ever updated with such gradients but "
        "where it is stop.",
    )


class LossSpikeSettings(_Watched):
    action: Literal["warn", "lower_learning_rate", "skip", "roll_back", "stop"] = Field(
        "warn", description=_ACTION + "warn, lower_learning_rate, skip the update, roll_back, or stop."
    )
    deviations: float = Field(
        4.0,
        gt=0,
        description="Distance of the loss of an update above the median of the last watch.window_updates, in standard "
        "deviations (1.4826 times their median absolute deviation, at least 1% of the median), from which on it is a "
        "spike. Batches of other lengths stay within 3; of normal noise 0.2 in 1,000 updates reach 4, and 0.005 "
        "reach 5, which suits skip in long trainings.",
    )
    patience: int = Field(1, ge=1, description=f"Updates {_PATIENCE}")


class GradientNormSettings(_Watched):
    action: Literal["warn", "lower_learning_rate", "skip", "roll_back", "stop"] = Field(
        "warn", description=_ACTION + "warn, lower_learning_rate, skip the update, roll_back, or stop."
    )
    times_median: float = Field(
        5.0,
        gt=1,
        description="The gradient norm of an update, before clipping, is too large from so many times the median of "
        "the last watch.window_updates on. Trainings that go well reach 4.",
    )
    patience: int = Field(1, ge=1, description=f"Updates {_PATIENCE}")


class ScoreCollapseSettings(_Watched):
    action: Literal["warn", "lower_learning_rate", "roll_back", "stop"] = Field(
        "warn", description=_ACTION + "warn, lower_learning_rate, roll_back, or stop."
    )
    lost_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the best validation BLEU or chrF so far that must be lost for a collapse: 0.5 is half "
        "of it.",
    )
    patience: int = Field(1, ge=1, description=f"Validations {_PATIENCE}")


class RepetitionSettings(_Watched):
    action: Literal["warn", "lower_learning_rate", "roll_back", "stop"] = Field(
        "warn", description=_ACTION + "warn, lower_learning_rate, roll_back, or stop."
    )
    excess_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the sequences of four words of a validation translation that came in it before, above "
        "that of the references, from which on the model repeats itself. 0.1 is one in ten.",
    )
    patience: int = Field(1, ge=1, description=f"Validations {_PATIENCE}")


class LengthRatioSettings(_Watched):
    action: Literal["warn", "lower_learning_rate", "roll_back", "stop"] = Field(
        "warn", description=_ACTION + "warn, lower_learning_rate, roll_back, or stop."
    )
    lowest: float = Field(
        0.5, ge=0, description="Characters of the validation translations, divided by those of the references."
    )
    highest: float = Field(2.0, gt=0, description="As watch.length_ratio.lowest, at the other end.")
    patience: int = Field(1, ge=1, description=f"Validations {_PATIENCE}")

    @pydantic.model_validator(mode="after")
    def _check(self) -> LengthRatioSettings:
        if self.lowest >= self.highest:
            raise ConfigError(f"lowest: given {self.lowest:g}, must be below highest={self.highest:g}.")
        return self


class WatchSettings(_Watched):
    """What a training is watched for. May be given anew where a run is continued."""

    not_finite: NotFiniteSettings = Field(
        NotFiniteSettings(), description="A loss or a gradient norm that is no finite number."
    )
    loss_spike: LossSpikeSettings = Field(LossSpikeSettings(), description="A loss far above those before.")
    gradient_norm: GradientNormSettings = Field(
        GradientNormSettings(), description="A gradient norm far above those before."
    )
    score_collapse: ScoreCollapseSettings = Field(
        ScoreCollapseSettings(), description="Validation scores far below the best so far."
    )
    repetition: RepetitionSettings = Field(
        RepetitionSettings(), description="Validation translations that repeat themselves."
    )
    length_ratio: LengthRatioSettings = Field(
        LengthRatioSettings(), description="Validation translations far too short or too long."
    )
    grace_updates: int = Field(
        1000,
        ge=0,
        description="Updates at the start of which only those that are not finite are acted on, as losses and "
        "translations are unsteady then. As many as the warm-up (schedule.warmup_steps) has by default; losses and "
        "gradient norms alone can be judged from about 100 on.",
    )
    window_updates: int = Field(
        100,
        ge=10,
        description="Updates whose losses and gradient norms an update is compared with: the last ones that were "
        "made. Nothing is compared before there are so many.",
    )
    learning_rate_factor: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="What lower_learning_rate multiplies the learning rate with, for all the rest of the training and "
        "whatever its schedule.",
    )
    max_lowerings: int = Field(3, ge=1, description="Times the learning rate is lowered in a run; then it stops.")
    max_skips: int = Field(20, ge=1, description="Updates that are skipped in a run; then it stops.")
    max_roll_backs: int = Field(3, ge=1, description="Times a run goes back to a checkpoint; then it stops.")

    @pydantic.model_validator(mode="after")
    def _bounds_act(self) -> WatchSettings:
        taken = {check.action for _, check in self.checks()}
        findings = []
        for name, actions in _BOUNDED.items():
            given = getattr(self, name)
            if given != type(self).model_fields[name].default and not taken & {*actions}:
                findings.append(
                    f"{name}: given {given:g}, but the action of no check is {' or '.join(actions)}; leave it out."
                )
        if findings:
            raise ConfigError(findings)
        return self

    def checks(self) -> Iterator[tuple[str, Any]]:
        """Name and settings of each check."""
        for name in OF_UPDATES + OF_VALIDATIONS:
            yield name, getattr(self, name)

    def findings(self, *, validates: bool, saves: bool, applied_in_backward: str | None = None) -> list[str]:
        """What cannot act in a training; each opens with its key, without the section.

        Args:
            validates: there are validations with translations.
            saves: there are checkpoints.
            applied_in_backward: what makes the updates already in the backward pass, if anything does.
        """
        found = []
        for name, check in self.checks():
            if not validates and name in OF_VALIDATIONS and check != type(check)():
                found.append(f"{name}: does nothing without validations; leave it out.")
            if not saves and check.action == "roll_back":
                found.append(
                    f"{name}.action: given roll_back, but with training.save_strategy=no there is no checkpoint to go "
                    "back to."
                )
            acts = check.action in ("skip", "roll_back")
            if applied_in_backward and (acts or (name, check.action) == ("not_finite", "lower_learning_rate")):
                found.append(
                    f"{name}.action: given {check.action}, but {applied_in_backward} has updated the weights before "
                    "loss and gradients can be judged. Take another action."
                )
        return found
