"""What is to become of a vocabulary."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError


class VocabularySettings(Settings):
    """How a vocabulary is adapted; what learns from text does so from the corpus."""

    trim: bool = Field(
        False,
        description="Remove the pieces that the corpus does not use, with their weights. Special tokens, language "
        "codes and bytes stay.",
    )
    min_count: int = Field(
        1,
        ge=1,
        description="With trim: keep a piece that the corpus uses at least so often. 1 leaves the segmentation of the "
        "corpus as it is; more writes rare words with smaller pieces.",
    )
    keep_characters: bool = Field(
        True,
        description="With trim: keep all pieces of one character, so that other text of these scripts can still be "
        "written; false saves thousands of pieces where the model knows many scripts.",
    )
    grow: int = Field(
        0,
        ge=0,
        description="Add up to so many pieces learnt from the corpus, its characters first. BPE goes on joining where "
        "its merges end; Unigram takes pieces of a model of the corpus. 0 is off.",
    )
    grow_from: Literal["both", "source", "target"] = Field(
        "both",
        description="With grow: the side of the corpus that new pieces are learnt from. Where the model knows one of "
        "the two languages, take the other: what it knows then stays nearly as it was segmented.",
    )
    retrain: int | None = Field(
        None,
        ge=1,
        description="Replace all pieces by up to so many trained on the corpus; those that were there before keep "
        "their weights (fast vocabulary transfer, Gee et al. 2022). For a corpus in another language. null is off.",
    )
    add_languages: list[str] = Field(
        [],
        description="Codes of languages that the model is to know in addition, spelt as its own are: kor_Hang for "
        "NLLB, ko for M2M100 or a model of ours with language tags.",
    )
    like: str | None = Field(
        None,
        description="With add_languages: a language of the model whose code the new ones start as; null takes the "
        "mean of all codes.",
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> VocabularySettings:
        findings = []
        defaults = {name: field.default for name, field in VocabularySettings.model_fields.items()}

        def given(name: str) -> bool:
            return getattr(self, name) != defaults[name]

        for name, needed in (
            ("min_count", "trim"),
            ("keep_characters", "trim"),
            ("grow_from", "grow"),
            ("like", "add_languages"),
        ):
            if given(name) and not getattr(self, needed):
                findings.append(f"{name}: it has no effect without {needed}; set {needed} too, or leave {name} out.")
        for name in ("trim", "grow"):
            if self.retrain is not None and given(name):
                findings.append(f"{name}: retrain makes all pieces anew, so that {name} has no effect; leave one out.")
        if twice := sorted({code for code in self.add_languages if self.add_languages.count(code) > 1}):
            findings.append(f"add_languages: {', '.join(twice)} is named twice.")
        if findings:
            raise ConfigError(findings)
        return self

    @property
    def reads_text(self) -> bool:
        """Whether a corpus is needed."""
        return self.trim or self.learns_pieces

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides of the corpus that pieces are learnt from."""
        return ("source", "target") if self.grow_from == "both" else (self.grow_from,)

    @property
    def learns_pieces(self) -> bool:
        return self.grow > 0 or self.retrain is not None

    @property
    def does_nothing(self) -> bool:
        return not self.reads_text and not self.add_languages
