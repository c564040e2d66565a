"""The scores of a system on a corpus."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.corpora import Corpus
from hf_nmt.evaluation.systems import System
from hf_nmt.metrics import MetricSettings, Score, compute_scores, score_corpus

logger = logging.getLogger(__name__)

# File with the scores of every segment, in the folder of an evaluation.
SEGMENTS = "segments.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: records of the whole corpus, then of each domain.
        segments: for each metric name the score of every segment.
    """

    scores: list[Score]
    segments: dict[str, list[float]]


def evaluate(
    corpus: Corpus, system: System, settings: MetricSettings, target_language: str | None, *, per_domain: bool = False
) -> Evaluation:
    """Score a system on a corpus.

    Args:
        corpus: sources and references.
        system: its translations.
        settings: which scores and how.
        target_language: as in `metrics.compute_scores`.
        per_domain: score every domain by itself as well.

    Raises:
        ConfigError: `per_domain` for a corpus that names no domains.
    """
    if per_domain:
        check_domains(corpus)
    whole = score_corpus(
        system.texts,
        corpus.references,
        settings,
        target_language,
        data=corpus.data,
        system=system.facts,
        segments=SEGMENTS,
    )
    scores = list(whole.scores)
    for domain in sorted(set(corpus.domains or [])) if per_domain else []:
        rows = [row for row, name in enumerate(corpus.domains or []) if name == domain]
        scores += score_corpus(
            [system.texts[row] for row in rows],
            [corpus.references[row] for row in rows],
            settings,
            target_language,
            data=corpus.data.model_copy(update={"domain": domain}),
            system=system.facts,
            segments=SEGMENTS,
        ).scores
    return Evaluation(scores, whole.segments)


def check_domains(corpus: Corpus) -> None:
    """Raise ConfigError where the corpus names no domains."""
    if corpus.domains is None:
        raise ConfigError(f"per_domain: the test set {corpus.data.id} has no column `domain`. Set per_domain=false.")


def warn_if_like_source(corpus: Corpus, system: System) -> None:
    """Warn where translations are more like their sources than like their references, by chrF.

    A translation shares names and figures with its source, but most of its words with the reference. It is otherwise
    where the files are exchanged, where a file holds another language, or where the model copies.
    """
    rows = range(min(len(corpus), 500))
    texts, sources = [system.texts[row] for row in rows], [corpus.sources[row] for row in rows]
    references = [corpus.references[row] for row in rows]
    if all(source in row for source, row in zip(sources, references, strict=True)):
        return  # a test of copying
    chrf = MetricSettings(names=["chrf"], num_bootstrap_samples=0)
    like_sources, like_references = (
        compute_scores(texts, wanted, chrf)[0].value for wanted in ([[source] for source in sources], references)
    )
    if like_sources > like_references:
        logger.warning(
            f"{system.name}: the translations are more like the sources (chrF {like_sources:.1f}) than like the "
            f"references (chrF {like_references:.1f}). Are source and target exchanged, or is a file in another "
            "language? Otherwise the model copies its input."
        )
