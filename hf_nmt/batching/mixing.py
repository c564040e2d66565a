"""Settings of a mixture: which groups of rows an epoch draws how often, stage after stage."""

from __future__ import annotations

import math
from typing import Literal, Self

import pydantic
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError

CORPUS = "corpus"  # the column that names the entry of data.pairs that a row is from


class MixingStage(Settings):
    """What is drawn until some place in the training."""

    weights: dict[str, float] | None = Field(
        None,
        description="share of each group in an epoch, in proportion and whatever its size: {news: 3, talk: 1}. All "
        "groups are named, 0 leaves one out; `none` are rows that name none",
    )
    temperature: float | None = Field(
        None,
        ge=1,
        description="in place of weights: group i, with n_i of all N rows, in proportion to (n_i/N)^(1/T). 1 draws as "
        "the data are, .inf all groups equally",
    )
    until_epoch: int | None = Field(None, ge=1, description="the stage ends when so many epochs are done")
    until_step: int | None = Field(None, ge=1, description="the stage ends when so many updates are done")

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.weights is None) == (self.temperature is None):
            raise ValueError("give either weights or temperature of a stage")
        if self.until_epoch is not None and self.until_step is not None:
            raise ValueError("give either until_epoch or until_step of a stage")
        for name, weight in (self.weights or {}).items():
            if weight < 0 or not math.isfinite(weight):
                raise ConfigError(f"weights.{name}: given {weight}, allowed: a number from 0.")
        if self.weights is not None and not any(self.weights.values()):
            raise ConfigError("weights: all are 0, so that nothing would be drawn. Raise one.")
        return self

    @property
    def told(self) -> str:
        """Where the stage ends, for the log."""
        if self.until_epoch is not None:
            return f"until epoch {self.until_epoch}"
        return "to the end" if self.until_step is None else f"until step {self.until_step:,}"


class MixingSettings(Settings):
    """Groups of the training text, and how often each is drawn."""

    by: Literal["domain", "origin", "synthetic", "corpus"] = Field(
        description="what tells the groups: a column of the rows, or corpus for the names in data.pairs"
    )
    stages: list[MixingStage] = Field(
        min_length=1,
        description="one after another: all but the last say until_epoch or until_step. An epoch has as many rows as "
        "the data in each of them",
    )

    @pydantic.model_validator(mode="after")
    def _stages_follow(self) -> Self:
        findings = []
        for number, stage in enumerate(self.stages):
            ends = stage.until_epoch is not None or stage.until_step is not None
            last = number == len(self.stages) - 1
            if last and ends:
                findings.append(
                    f"stages.{number}: the last stage goes on to the end of training. Leave its end out, or add one."
                )
            elif not last and not ends:
                findings.append(f"stages.{number}: give until_epoch or until_step, as another stage follows.")
        for name in ("until_epoch", "until_step"):
            given = [end for stage in self.stages if (end := getattr(stage, name)) is not None]
            if given != sorted(set(given)):
                findings.append(f"stages: {name} must grow from stage to stage, and is {', '.join(map(str, given))}.")
        plain = self.stages[0].temperature == 1 and len(self.stages) == 1
        if plain:
            findings.append("stages: a temperature of 1 draws the data as they are; leave data.mixing out.")
        if findings:
            raise ConfigError(findings)
        return self
