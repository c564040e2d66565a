"""Scores of translations: sacreBLEU's figures with signature, interval and significance. Knows texts, not models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_nmt.metrics.language_pairs import LanguagePair, pair_name, score_pairs, with_off_target
from hf_nmt.metrics.records import Comparison, Score, ScoredData, ScoredSystem, dump_scores, load_scores, mean_score
from hf_nmt.metrics.scoring import Scoring, check_metrics, compute_scores, score_corpus
from hf_nmt.metrics.settings import BleuSettings, ChrfSettings, ComparisonSettings, MetricSettings, TerSettings
from hf_nmt.metrics.significance import compare
from hf_nmt.metrics.tables import comparison_table, score_table
from hf_nmt.metrics.tokenization import choose_tokenizer, primary_language

if TYPE_CHECKING:
    from hf_nmt.metrics.classes import Bleu, Chrf, Ter

__all__ = [
    "Bleu",
    "BleuSettings",
    "Chrf",
    "ChrfSettings",
    "Comparison",
    "ComparisonSettings",
    "LanguagePair",
    "MetricSettings",
    "Score",
    "ScoredData",
    "ScoredSystem",
    "Scoring",
    "Ter",
    "TerSettings",
    "check_metrics",
    "choose_tokenizer",
    "compare",
    "comparison_table",
    "compute_scores",
    "dump_scores",
    "load_scores",
    "mean_score",
    "pair_name",
    "primary_language",
    "score_corpus",
    "score_pairs",
    "score_table",
    "with_off_target",
]


def __getattr__(name: str) -> Any:
    # `evaluate` loads all of Transformers' pipelines, which takes seconds; scoring needs nothing of it.
    if name in ("Bleu", "Chrf", "Ter"):
        from hf_nmt.metrics import classes

        return getattr(classes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
