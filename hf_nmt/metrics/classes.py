"""BLEU, chrF and TER as `evaluate.Metric`: nothing is looked up on the Hub, the figures are sacreBLEU's."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from hf_nmt.metrics.scoring import score_corpus
from hf_nmt.metrics.settings import BleuSettings, ChrfSettings, MetricSettings, TerSettings, TokenizerName

INPUTS = """
Args:
    predictions: list of translations.
    references: for each translation one reference, or a list of references (their number may differ).
    lowercase: lower-case both sides first.
    target_language: code of the language of the predictions; None looks at the script of the references.
    num_bootstrap_samples, confidence, seed: interval; 0 samples give none.
Returns:
    score, signature, interval, and the figures it was made from.
"""


class _SacreMetric(evaluate.Metric):
    """What the three metrics share; a subclass says which one it is."""

    description: str
    citation_key: str

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description,
            citation=self.citation_key,
            inputs_description=INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _score(self, predictions, references, settings: MetricSettings, target_language: str | None) -> dict[str, Any]:
        rows = [[row] if isinstance(row, str) else row for row in references]
        scoring = score_corpus(predictions, rows, settings, target_language)
        (score,), (name,) = scoring.scores, settings.names
        result = {"score": score.value, "signature": score.signature, "interval": score.interval}
        figures = {
            "bleu": ("counts", "totals", "precisions", "bp", "sys_len", "ref_len"),
            "chrf": ("char_order", "word_order", "beta"),
            "ter": ("num_edits", "ref_length"),
        }[name]
        return result | {figure: getattr(scoring.details[name], figure) for figure in figures}


class Bleu(_SacreMetric):
    """BLEU. `tokenize` takes the names of `BleuSettings.tokenize`; "auto" goes by the target language."""

    description = "BLEU (Papineni et al., 2002) as computed by sacreBLEU (Post, 2018)."
    citation_key = "Post, 2018, A Call for Clarity in Reporting BLEU Scores, WMT."

    def _compute(
        self,
        predictions,
        references,
        tokenize: TokenizerName = "auto",
        lowercase: bool = False,
        target_language: str | None = None,
        num_bootstrap_samples: int = 0,
        confidence: float = 0.95,
        seed: int = 12345,
    ) -> dict[str, Any]:
        settings = MetricSettings(
            names=["bleu"],
            lowercase=lowercase,
            bleu=BleuSettings(tokenize=tokenize),
            num_bootstrap_samples=num_bootstrap_samples,
            confidence=confidence,
            seed=seed,
        )
        return self._score(predictions, references, settings, target_language)


class Chrf(_SacreMetric):
    """chrF2; with `word_order=2` chrF2++."""

    description = "chrF (Popovic, 2015) and chrF++ (Popovic, 2017) as computed by sacreBLEU."
    citation_key = "Popovic, 2015, chrF: character n-gram F-score for automatic MT evaluation, WMT."

    def _compute(
        self,
        predictions,
        references,
        char_order: int = 6,
        word_order: int = 0,
        lowercase: bool = False,
        target_language: str | None = None,
        num_bootstrap_samples: int = 0,
        confidence: float = 0.95,
        seed: int = 12345,
    ) -> dict[str, Any]:
        settings = MetricSettings(
            names=["chrf"],
            lowercase=lowercase,
            chrf=ChrfSettings(char_order=char_order, word_order=word_order),
            num_bootstrap_samples=num_bootstrap_samples,
            confidence=confidence,
            seed=seed,
        )
        return self._score(predictions, references, settings, target_language)


class Ter(_SacreMetric):
    """Translation edit rate: edits per 100 reference words; lower is better."""

    description = "TER (Snover et al., 2006) as computed by sacreBLEU."
    citation_key = "Snover et al., 2006, A Study of Translation Edit Rate with Targeted Human Annotation, AMTA."

    def _compute(
        self,
        predictions,
        references,
        normalized: bool = False,
        case_sensitive: bool = False,
        target_language: str | None = None,
        num_bootstrap_samples: int = 0,
        confidence: float = 0.95,
        seed: int = 12345,
    ) -> dict[str, Any]:
        settings = MetricSettings(
            names=["ter"],
            ter=TerSettings(normalized=normalized, case_sensitive=case_sensitive),
            num_bootstrap_samples=num_bootstrap_samples,
            confidence=confidence,
            seed=seed,
        )
        return self._score(predictions, references, settings, target_language)
