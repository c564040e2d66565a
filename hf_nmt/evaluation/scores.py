"""The scores of a system on a corpus."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, TypeVar

from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.corpora import Corpus
from hf_nmt.evaluation.systems import System
from hf_nmt.metrics import (
    Comparison,
    ComparisonSettings,
    MetricSettings,
    Score,
    check_metrics,
    compare,
    compute_scores,
    pair_name,
    score_corpus,
    score_pairs,
    with_off_target,
)

logger = logging.getLogger(__name__)

# File with the scores of every segment, in the folder of an evaluation.
SEGMENTS = "segments.jsonl"


Settings = TypeVar("Settings", bound=MetricSettings)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: records of the whole corpus, then of each domain; of several language pairs, the means over them, then
            the records of each.
        segments: for each metric name the score of every segment, None as in `Scoring`.
    """

    scores: list[Score]
    segments: dict[str, list[float | None]]


def checked(corpus: Corpus, settings: Settings, *, per_domain: bool = False) -> Settings:
    """The settings for a corpus, where they fit it; to be called before anything is translated.

    Returns:
        The settings, completed by the languages of the corpus (`metrics.with_off_target`).

    Raises:
        ConfigError, NmtError: what `evaluate` would raise of the settings, about all language pairs at once.
    """
    settings = with_off_target(settings, corpus.pairs)
    findings = []
    for (_, target), rows in corpus.pairs.items():
        try:
            check_metrics(settings, target, [corpus.references[row] for row in rows])
        except ConfigError as error:
            findings += error.findings
    findings += _no_domains(corpus) if per_domain else []
    if findings:
        raise ConfigError(list(dict.fromkeys(findings)))
    return settings


def evaluate(corpus: Corpus, system: System, settings: MetricSettings, *, per_domain: bool = False) -> Evaluation:
    """Score a system on a corpus, each language pair by itself where there are several.

    Args:
        corpus: sources and references.
        system: its translations.
        settings: which scores and how, as `checked` gives them.
        per_domain: score every domain by itself as well.

    Raises:
        ConfigError: `per_domain` for a corpus of several language pairs, or one that names no domains.
    """
    if per_domain and (findings := _no_domains(corpus)):
        raise ConfigError(findings)
    facts: dict[str, Any] = {"system": system.facts, "segments": SEGMENTS}
    whole = score_pairs(system.texts, corpus.references, corpus.pairs, settings, data=corpus.data, **facts)
    scores = list(whole.scores)
    for domain in sorted(set(corpus.domains or [])) if per_domain else []:
        rows = [row for row, name in enumerate(corpus.domains or []) if name == domain]
        scores += score_corpus(
            [system.texts[row] for row in rows],
            [corpus.references[row] for row in rows],
            settings,
            corpus.only_pair[1],
            data=corpus.data.model_copy(update={"domain": domain}),
            **facts,
        ).scores
    return Evaluation(scores, whole.segments)


def compare_with(baseline: System, system: System, corpus: Corpus, settings: ComparisonSettings) -> list[Comparison]:
    """Paired significance tests of a system against a baseline; of several language pairs, of each by itself.

    Args:
        settings: as `checked` gives them.
    """
    found = []
    for pair, rows in corpus.pairs.items():
        texts = {one.name: [one.texts[row] for row in rows] for one in (system, baseline)}
        references = [corpus.references[row] for row in rows]
        domain = pair_name(pair) if len(corpus.pairs) > 1 else None
        comparisons = compare(texts, references, settings, pair[1], baseline=baseline.name)
        found += [comparison.model_copy(update={"domain": domain}) for comparison in comparisons]
    return found


def _no_domains(corpus: Corpus) -> list[str]:
    """Why the corpus cannot be scored by domain; empty where it can."""
    if len(corpus.pairs) > 1:
        return [
            "per_domain: the test set has several language pairs, and each of them is scored in place of domains. Set "
            "per_domain=false, or score one language pair."
        ]
    if corpus.domains is None:
        return [f"per_domain: the test set {corpus.data.id} has no column `domain`. Set per_domain=false."]
    return []


def warn_if_like_source(corpus: Corpus, system: System) -> None:
    """Warn where translations are more like their sources than like their references, by chrF.

    A translation shares names and figures with its source, but most of its words with the reference. It is otherwise
    where the files are exchanged, where a file holds another language, or where the model copies.
    """
    count = min(len(corpus), 500)
    rows = [index * len(corpus) // count for index in range(count)]
    texts, sources = [system.texts[row] for row in rows], [corpus.sources[row] for row in rows]
    references = [corpus.references[row] for row in rows]
    if all(source in row for source, row in zip(sources, references, strict=True)):
        return  # a test of copying
    chrf = MetricSettings(names=["chrf"], num_bootstrap_samples=0)
    like_sources, like_references = (
        compute_scores(texts, wanted, chrf)[0].value or 0.0
        for wanted in ([[source] for source in sources], references)
    )
    if like_sources > like_references:
        logger.warning(
            f"{system.name}: the translations are more like the sources (chrF {like_sources:.1f}) than like the "
            f"references (chrF {like_references:.1f}). Are source and target exchanged, or is a file in another "
            "language? Otherwise the model copies its input."
        )
