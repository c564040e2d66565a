"""What a corpus is prepared from, and by which steps."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import pydantic
from pydantic import Field

from hf_nmt.cleaning.alignment import Alignment
from hf_nmt.cleaning.contents import Brackets, Links, Markup, Numbers
from hf_nmt.cleaning.core_set import CoreSet
from hf_nmt.cleaning.duplicates import ExactDuplicates
from hf_nmt.cleaning.engine import Engine, LocalEngine, spare_pandas
from hf_nmt.cleaning.filters import EmptyAndCopies, Endings, Lengths, LongWords, Ratio
from hf_nmt.cleaning.fluency import CrossEntropyDifference, Perplexity
from hf_nmt.cleaning.languages import LanguageCheck, Script
from hf_nmt.cleaning.model_scores import DualCrossEntropy, EncoderSimilarity
from hf_nmt.cleaning.near_duplicates import NearDuplicates
from hf_nmt.cleaning.normalising import Mojibake, Normalise
from hf_nmt.cleaning.pipeline import NamedStep
from hf_nmt.cleaning.ray_engine import ray_engine
from hf_nmt.cleaning.step import Step
from hf_nmt.config import Settings
from hf_nmt.config_keys import models_of
from hf_nmt.data.sources import CorpusFiles
from hf_nmt.errors import ConfigError


class EngineSettings(Settings):
    """Where the work on tables is done."""

    engine: Literal["local", "ray"] = Field(
        "local",
        description="local: processes of this machine; ray: Ray Data (extra ray), here or on a cluster, the nodes of "
        "which see the same files. The result is the same.",
    )
    ray_address: str | None = Field(
        None,
        description="host:port of a cluster of Ray, or auto for the one that this machine is part of; null takes that "
        "of the variable RAY_ADDRESS, and without one starts Ray here for the run.",
    )
    num_workers: int | None = Field(
        None, ge=1, description="Processes; null takes one for each processor. It changes nothing in the result."
    )

    @pydantic.model_validator(mode="after")
    def _engine_fits(self) -> Self:
        if self.ray_address is not None and self.engine != "ray":
            raise ConfigError("ray_address: it would change nothing, as the work is done here. Give engine=ray, too.")
        if (self.ray_address or "").startswith("ray://"):
            raise ConfigError(
                f"ray_address: {self.ray_address} is reached through a proxy, which does not see the files of this "
                "machine. Call the recipe on a node of the cluster, and give host:port or auto."
            )
        if self.engine == "ray" and self._address is not None and self.num_workers is not None:
            raise ConfigError(
                f"num_workers: the Ray at {self._address} has as many workers as its nodes have processors. "
                "Take it out."
            )
        return self

    @property
    def _address(self) -> str | None:
        return self.ray_address or os.environ.get("RAY_ADDRESS") or None

    @contextlib.contextmanager
    def opened_engine(self) -> Iterator[Engine]:
        """The engine, ready to work.

        Raises:
            NmtError: Ray is not installed.
            ConfigError: it cannot be reached.
        """
        num_workers = self.num_workers or len(os.sched_getaffinity(0))
        if self.engine == "local":
            spare_pandas()
            yield LocalEngine(num_workers)
            return
        with ray_engine(num_workers, self._address) as engine:
            yield engine


class InputSettings(CorpusFiles):
    """A corpus that goes in, and what holds for each of its records that do not say so themselves."""

    source_language: str | None = Field(None, description="code of the sources; null takes that of the whole recipe")
    target_language: str | None = Field(None, description="likewise of the targets")
    domain: str | None = Field(None, description="domain of the records, such as news")
    licence: str | None = Field(None, description="terms of use, such as CC-BY-4.0")
    synthetic: str | None = Field(None, description="how the text was made, where no human wrote it")


class StepChoice(Settings):
    """One step of the list: a single key, the kind of the step, with its settings below."""

    mojibake: Mojibake | None = Field(None, description="mend text that was read in a wrong encoding, or drop it")
    normalise: Normalise | None = Field(None, description="bring texts into one form")
    empty: EmptyAndCopies | None = Field(None, description="drop empty sides and copies")
    lengths: Lengths | None = Field(None, description="drop sides that are too short or too long")
    exact_duplicates: ExactDuplicates | None = Field(None, description="drop what repeats another record")
    near_duplicates: NearDuplicates | None = Field(None, description="drop what is almost another record")
    ratio: Ratio | None = Field(None, description="drop pairs one of whose sides is too long for the other")
    endings: Endings | None = Field(None, description="drop pairs one of whose sides breaks off")
    numbers: Numbers | None = Field(None, description="drop pairs with different numbers")
    links: Links | None = Field(None, description="drop pairs with different addresses of the web or of mail")
    markup: Markup | None = Field(None, description="drop what is left of HTML and other markup")
    long_words: LongWords | None = Field(None, description="drop words that no writer meant")
    script: Script | None = Field(None, description="drop sides in another script than that of their language")
    language: LanguageCheck | None = Field(None, description="drop sides in another language, and swapped sides")
    alignment: Alignment | None = Field(None, description="drop pairs whose words do not go together")
    perplexity: Perplexity | None = Field(None, description="drop texts that a language model finds unlikely")
    cross_entropy_difference: CrossEntropyDifference | None = Field(
        None, description="drop texts that are less like a given domain than like the corpus"
    )
    dual_cross_entropy: DualCrossEntropy | None = Field(
        None, description="drop pairs that translation models of both directions find unlikely, or disagree about"
    )
    similarity: EncoderSimilarity | None = Field(
        None, description="drop pairs whose sides lie far apart for a sentence encoder"
    )
    brackets: Brackets | None = Field(None, description="drop brackets that are closed on one side only")
    core_set: CoreSet | None = Field(None, description="keep so many records that stand for all")

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = sorted(self.model_fields_set)
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            told = f"holds {' and '.join(given)}" if given else "holds nothing"
            raise ValueError(f"each item of the list is one step, this one {told}. Write `- KIND: {{...}}`: {kinds}.")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _alone(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The kind that is given, without the null of all others, so that what is printed can be read again."""
        return {kind: settings for kind, settings in handler(self).items() if kind in self.model_fields_set}

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def step(self) -> Step:
        """The step; one with nothing below its key has the defaults."""
        given = getattr(self, self.kind)
        if given is None:
            given = models_of(type(self).model_fields[self.kind].annotation)[0]()
        return given


# Steps that need the whole corpus come last: each begins a pass over the tables.
DEFAULT_STEPS = (
    "mojibake",
    "normalise",
    "empty",
    "lengths",
    "ratio",
    "numbers",
    "links",
    "markup",
    "long_words",
    "script",
    "language",
    "endings",
    "exact_duplicates",
    "near_duplicates",
)


# The same with the opt-in step that finds what no other does, before the duplicates.
STEPS_WITH_ALIGNMENT = (*DEFAULT_STEPS[:-2], "alignment", *DEFAULT_STEPS[-2:])


def default_steps() -> list[StepChoice]:
    return [StepChoice.model_validate({kind: {}}) for kind in DEFAULT_STEPS]


def named_steps(choices: Sequence[StepChoice]) -> list[NamedStep]:
    """The steps with their names: the kind, and a number from the second of a kind on."""
    seen: Counter[str] = Counter()
    steps = []
    for choice in choices:
        seen[choice.kind] += 1
        number = f"-{seen[choice.kind]}" if seen[choice.kind] > 1 else ""
        steps.append(NamedStep(choice.kind + number, choice.step))
    return steps
