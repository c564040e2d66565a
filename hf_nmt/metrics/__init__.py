"""Scores of translations: sacreBLEU's figures with signature, interval and significance. Knows texts, not models."""

from hf_nmt.metrics.classes import Bleu, Chrf, Ter
from hf_nmt.metrics.records import Comparison, Score, ScoredData, ScoredSystem, dump_scores, load_scores
from hf_nmt.metrics.scoring import Scoring, compute_scores, score_corpus
from hf_nmt.metrics.settings import BleuSettings, ChrfSettings, MetricSettings, TerSettings
from hf_nmt.metrics.significance import compare
from hf_nmt.metrics.tables import comparison_table, score_table
from hf_nmt.metrics.tokenization import choose_tokenizer

__all__ = [
    "Bleu",
    "BleuSettings",
    "Chrf",
    "ChrfSettings",
    "Comparison",
    "MetricSettings",
    "Score",
    "ScoredData",
    "ScoredSystem",
    "Scoring",
    "Ter",
    "TerSettings",
    "choose_tokenizer",
    "compare",
    "comparison_table",
    "compute_scores",
    "dump_scores",
    "load_scores",
    "score_corpus",
    "score_table",
]
