"""What is checked in a version of a corpus, and the bars that it must not pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

import pydantic
from pydantic import Field

from hf_nmt.cleaning.alignment import Alignment
from hf_nmt.cleaning.duplicates import Fold
from hf_nmt.cleaning.filters import Ratio
from hf_nmt.cleaning.languages import LanguageCheck
from hf_nmt.cleaning.shingles import FOLD, Similarity
from hf_nmt.config import Settings

Check = Literal["files", "schema", "language", "alignment", "duplicates", "tokens"]
CHECKS: tuple[Check, ...] = get_args(Check)


class RecordBars(Settings):
    """Records that do not fit (the check `schema`)."""

    max_invalid: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest share of records with an empty side, without languages, or with an id, a position or "
        "references that cannot be",
    )


class LanguageBars(LanguageCheck):
    """Sides in another language or script than they say (the check `language`), measured as the steps `language` and
    `script` of the pipeline do."""

    max_wrong: float = Field(
        0.005, ge=0, le=1, description="largest share of records whose source, or whose target, is in another language"
    )


class AlignmentBars(Ratio):
    """Pairs that hardly translate each other (the check `alignment`), measured as the steps `ratio` and `alignment`
    do."""

    max_outliers: float = Field(
        0.005, ge=0, le=1, description="largest share of pairs one of whose sides is too long for the other"
    )
    words: Alignment | None = Field(
        Alignment(),
        description="whether the words of pairs go together, by a lexicon learnt from all splits; null does not ask",
    )
    max_misaligned: float = Field(0.01, ge=0, le=1, description="largest share of pairs whose words do not")


class DuplicateBars(Settings):
    """Records that are there twice (the check `duplicates`), found as the steps `exact_duplicates` and
    `near_duplicates`, and the leakage gate, find them."""

    max_exact: float = Field(
        0.0, ge=0, le=1, description="largest share of records that repeat another of their split"
    )
    max_near: float = Field(
        0.01, ge=0, le=1, description="largest share of records that are almost another of their split"
    )
    max_across: float = Field(
        0.0, ge=0, le=1, description="largest share of a split's records that are in a larger split too"
    )
    max_near_across: float = Field(
        0.01, ge=0, le=1, description="largest share of a split's records that are almost one of a larger split"
    )
    fold: list[Fold] = Field([*FOLD], description="differences that do not count between equal records")
    similarity: Similarity = Field(Similarity(), description="which records are near")


class TokenBars(Settings):
    """Tokens of the texts (the check `tokens`)."""

    tokenizer: str | None = Field(None, description="folder of a tokenizer; null takes words, parted by white space")
    max_length: int = Field(256, ge=1, description="tokens of a side that a model still takes")
    max_long: float = Field(
        0.001, ge=0, le=1, description="largest share of records with a source, or a target, of more than max_length"
    )
    max_unknown: float = Field(
        0.001, ge=0, le=1, description="largest share of unknown tokens on a side; for a tokenizer only"
    )
    epsilon: float = Field(
        0.05, ge=0.005, le=0.5, description="largest relative error of the numbers of distinct tokens and n-grams"
    )
    delta: float = Field(0.05, gt=0, lt=1, description="largest probability of a larger error than epsilon")

    @pydantic.model_validator(mode="after")
    def _unknown_to_whom(self) -> Self:
        if self.tokenizer is None and "max_unknown" in self.model_fields_set:
            raise ValueError("max_unknown changes nothing without a tokenizer, as no word is unknown. Give tokenizer.")
        return self


def _parted(given: Any) -> Any:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


class CheckSettings(Settings):
    """All of it."""

    only: Annotated[list[Check], pydantic.BeforeValidator(_parted)] = Field(
        [*CHECKS], min_length=1, description="checks to make, as a list or with commas between them"
    )
    records: RecordBars = Field(RecordBars(), description="the check schema")
    language: LanguageBars = Field(LanguageBars(), description="the check language")
    alignment: AlignmentBars = Field(AlignmentBars(), description="the check alignment")
    duplicates: DuplicateBars = Field(DuplicateBars(), description="the check duplicates")
    tokens: TokenBars = Field(TokenBars(), description="the check tokens")
    samples: int = Field(
        5, ge=0, le=1000, description="pairs of each split, and of each reason of a drop or a finding, that are shown"
    )
