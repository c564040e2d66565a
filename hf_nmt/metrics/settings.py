"""Settings of the scores."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from hf_nmt import language
from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError

MetricName = Literal["bleu", "chrf", "ter", "off_target"]
TokenizerName = Literal["auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200"]


class BleuSettings(Settings):
    tokenize: TokenizerName = Field(
        default="auto",
        description="sacreBLEU tokenizer. auto goes by the target language: 13a (what WMT reports) where words are "
        "written apart, zh for Chinese, ja-mecab for Japanese (extra ja), ko-mecab for Korean (extra ko), char for "
        "Thai, Lao, Khmer, Burmese, Tibetan. none scores text as it is given.",
    )


class ChrfSettings(Settings):
    char_order: int = Field(default=6, ge=1, description="Longest character n-gram; 6 as in Popovic (2015).")
    word_order: int = Field(
        default=0, ge=0, description="Longest word n-gram; 0 is chrF2, 2 is chrF2++ of Popovic (2017)."
    )


class TerSettings(Settings):
    normalized: bool = Field(
        default=False,
        description="Split punctuation off words before counting edits. False, as in tercom and sacreBLEU.",
    )
    case_sensitive: bool = Field(
        default=False, description="Count a difference of case as an edit. False, as in tercom and sacreBLEU."
    )


class OffTargetSettings(Settings):
    candidates: list[str] | None = Field(
        default=None,
        description="Codes of the languages that a translation may be in. null takes all source and target languages "
        "of the texts, or all that are known where that is one: the fewer, the surer short translations are told.",
    )

    @model_validator(mode="after")
    def _codes_of_languages(self) -> OffTargetSettings:
        findings = [f"candidates: {told}" for code in self.candidates or [] if (told := language.problem_of(code))]
        if findings:
            raise ConfigError(findings)
        return self


class MetricSettings(Settings):
    names: list[MetricName] = Field(
        default=["bleu", "chrf", "ter"],
        min_length=1,
        description="The scores to compute, in this order. off_target is the share of translations that are not in "
        "the target language (extra language).",
    )
    lowercase: bool = Field(
        default=False, description="Lower-case predictions and references first. False: cased scores, as WMT reports."
    )
    pretokenize: Literal["none", "predictions", "both"] = Field(
        default="none",
        description="Which texts to run through Moses punctuation normalisation and tokenisation (extra moses) before "
        "scoring. predictions: the references are tokenised already; both: nothing is. With lowercase=true this is "
        "the lower-cased tokenised BLEU of older papers; BLEU's own tokenizer is then none.",
    )
    bleu: BleuSettings = Field(default=BleuSettings(), description="BLEU (Papineni et al., 2002).")
    chrf: ChrfSettings = Field(default=ChrfSettings(), description="chrF (Popovic, 2015).")
    ter: TerSettings = Field(default=TerSettings(), description="Translation edit rate (Snover et al., 2006).")
    off_target: OffTargetSettings = Field(
        default=OffTargetSettings(), description="Share of translations in another language (Zhang et al., 2020)."
    )
    num_bootstrap_samples: int = Field(
        default=1000, ge=0, description="Bootstrap resamples for the interval of each score; 0 gives no interval."
    )
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Share of the resamples inside the interval.")
    seed: int = Field(default=12345, ge=0, description="Seed of all resampling; 12345 is sacreBLEU's own.")

    @model_validator(mode="after")
    def _check(self) -> MetricSettings:
        findings = self._idle()
        if repeated := sorted({name for name in self.names if self.names.count(name) > 1}):
            findings.append(f"names holds {', '.join(repeated)} more than once; name each score once")
        if self.num_bootstrap_samples and int(self.num_bootstrap_samples * (1 - self.confidence) / 2 + 1e-9) < 1:
            needed = int(2 / (1 - self.confidence) + 1 - 1e-9)
            findings.append(
                f"num_bootstrap_samples={self.num_bootstrap_samples} leaves no resample outside "
                f"confidence={self.confidence}; set at least {needed}, or 0 for no interval"
            )
        if self.pretokenize != "none" and self.bleu.tokenize not in ("auto", "none"):
            findings.append(
                f"bleu.tokenize={self.bleu.tokenize} would tokenise a second time what "
                f"pretokenize={self.pretokenize} has tokenised; set bleu.tokenize=none"
            )
        if findings:
            raise ValueError("; ".join(findings))
        return self

    # Settings that only resampling for the intervals reads.
    _of_intervals: ClassVar[tuple[str, ...]] = ("confidence", "seed")

    def _idle(self) -> list[str]:
        """What was changed from its default and would change nothing."""
        findings = []
        if not self.num_bootstrap_samples and (idle := changed(self, *self._of_intervals)):
            findings.append(
                f"{', '.join(idle)} would change nothing with num_bootstrap_samples=0: there is no interval; leave it "
                "out, or set num_bootstrap_samples"
            )
        # TER takes the words of a script without spaces from BLEU's tokenizer.
        readers = {"bleu": ("bleu", "ter"), "chrf": ("chrf",), "ter": ("ter",), "off_target": ("off_target",)}
        for section, names in readers.items():
            if not set(names) & set(self.names) and (idle := changed(getattr(self, section))):
                listed = ", ".join(f"{section}.{name}" for name in idle)
                findings.append(
                    f"{listed} would change nothing: {section} is not among names; add it or leave this out"
                )
        if self.lowercase and set(self.names) == {"off_target"}:
            findings.append("lowercase=true has no effect on off_target; leave it out")
        if self.lowercase and self.ter.case_sensitive:
            findings.append("ter.case_sensitive=true has no effect with lowercase=true; set one of them to false")
        elif self.lowercase and set(self.names) == {"ter"}:
            findings.append("lowercase=true has no effect on ter, which ignores case unless ter.case_sensitive=true")
        return findings


def changed(settings: Settings, *names: str) -> list[str]:
    """Names of the settings (of `names`; none stands for all) that are not at their default."""
    fields = type(settings).model_fields
    return [name for name in names or fields if getattr(settings, name) != fields[name].default]


class ComparisonSettings(MetricSettings):
    """Scores, and how two systems are compared by them."""

    paired_test: Literal["bootstrap", "randomization"] = Field(
        default="bootstrap",
        description="Significance test against a baseline: paired bootstrap (Koehn, 2004) or paired approximate "
        "randomisation (Riezler and Maxwell, 2005).",
    )
    num_paired_samples: int = Field(
        default=1000,
        ge=100,
        description="Resamples (bootstrap) or trials (randomization) of the significance test; sacreBLEU takes 1000 "
        "and 10000.",
    )

    # The paired test draws with the seed as well.
    _of_intervals: ClassVar[tuple[str, ...]] = ("confidence",)

    def idle_without_baseline(self) -> list[str]:
        """A finding for every setting that was changed and is read only where there is a baseline to compare with."""
        without_intervals = () if self.num_bootstrap_samples else ("seed",)
        idle = changed(self, "paired_test", "num_paired_samples", *without_intervals)
        return [
            f"metrics.{name}: it has no effect without baseline=MODEL or baseline=FILE; leave it out." for name in idle
        ]
