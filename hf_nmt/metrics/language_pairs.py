"""Scores of texts in several language pairs: the mean over the pairs, and each pair by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from hf_nmt import language
from hf_nmt.errors import NmtError
from hf_nmt.metrics.off_target import OffTarget
from hf_nmt.metrics.records import ScoredData, ScoredSystem, mean_score
from hf_nmt.metrics.scoring import Scoring, score_corpus
from hf_nmt.metrics.settings import MetricSettings, OffTargetSettings

logger = logging.getLogger(__name__)

Metrics = TypeVar("Metrics", bound=MetricSettings)

# Codes of source and target language; None where one is not told.
LanguagePair = tuple[str | None, str | None]


def pair_name(pair: LanguagePair) -> str:
    """As tables and records call a pair: `de-en`, with `und` of ISO 639 for a language that is not told."""
    return "-".join(code or "und" for code in pair)


def score_pairs(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    pairs: Mapping[LanguagePair, Sequence[int]],
    settings: MetricSettings,
    *,
    data: ScoredData | None = None,
    system: ScoredSystem | None = None,
    segments: str | None = None,
) -> Scoring:
    """Score translations, those of each language pair by the rules of its target language.

    Args:
        predictions, references, settings, data, system, segments: as for `score_corpus`.
        pairs: the positions of the segments of each pair; every segment is of one.

    Returns:
        Of one pair, what `score_corpus` gives. Of several, the records of the means over the pairs (`mean_score`; each
        pair counts the same, whatever its size), then those of each pair, which stands in `data.domain`; the scores of
        the segments in the order of the predictions; no details.

    Raises:
        DataError, ConfigError, NmtError: as `score_corpus`.
    """
    data = data or ScoredData()
    parts = []
    for pair, rows in pairs.items():
        named = data.model_copy(update={"domain": pair_name(pair)}) if len(pairs) > 1 else data
        texts, wanted = [predictions[row] for row in rows], [references[row] for row in rows]
        parts.append(score_corpus(texts, wanted, settings, pair[1], data=named, system=system, segments=segments))
    if len(parts) == 1:
        return parts[0]
    means = [mean_score(scores) for scores in zip(*(part.scores for part in parts), strict=True)]
    by_segment: dict[str, list[float | None]] = {name: [None] * len(predictions) for name in settings.names}
    for part, rows in zip(parts, pairs.values(), strict=True):
        for name, values in part.segments.items():
            for row, value in zip(rows, values, strict=True):
                by_segment[name][row] = value
    return Scoring(means + [score for part in parts for score in part.scores], {}, by_segment)


def with_off_target(metrics: Metrics, pairs: Iterable[LanguagePair]) -> Metrics:
    """The metrics with what the off-target rate needs: the languages to choose from, where none are named.

    The rate itself is added where there are several target languages, and the log says where it cannot be.
    """
    pairs = list(pairs)
    targets = list(dict.fromkeys(target for _, target in pairs))
    codes = list(dict.fromkeys(code for pair in pairs for code in pair if code is not None))
    if metrics.off_target.candidates is None and len({language.primary(code) for code in codes}) > 1:
        chosen = metrics.model_copy(update={"off_target": OffTargetSettings(candidates=codes)})
    else:
        chosen = metrics
    if "off_target" in metrics.names:
        return chosen
    if len(targets) < 2:
        return metrics
    try:
        for target in targets:
            OffTarget(target, chosen.off_target.candidates)
    except NmtError as error:
        logger.warning("The share of translations in a wrong language is not measured. %s", error)
        return metrics
    return chosen.model_copy(update={"names": [*metrics.names, "off_target"]})
