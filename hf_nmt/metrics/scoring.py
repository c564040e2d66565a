"""Scores of a list of translations: corpus score, bootstrap interval and the score of every segment from one pass.

sacreBLEU counts what each segment contributes (its sufficient statistics); sums of these give the corpus score, and
sums over resampled segments the bootstrap distribution, so the slow part (TER's edit distance) runs once.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric as SacreMetric
from sacrebleu.metrics.base import Score as SacreScore

from hf_nmt.errors import ConfigError, DataError
from hf_nmt.metrics.off_target import OffTarget
from hf_nmt.metrics.records import EDITS, PERCENT, POINTS, Score, ScoredData, ScoredSystem
from hf_nmt.metrics.settings import MetricSettings
from hf_nmt.metrics.tokenization import (
    DEFAULT_TOKENIZER,
    TOKENIZER_OF_LANGUAGE,
    choose_tokenizer,
    guess_language,
    moses_tokenize,
    moses_version,
    primary_language,
    segmenter,
)

logger = logging.getLogger(__name__)

UNITS = {"bleu": POINTS, "chrf": POINTS, "ter": EDITS, "off_target": PERCENT}


@dataclass(frozen=True)
class PreparedMetric:
    """A sacreBLEU metric together with the text steps that run before it.

    Attributes:
        name: key of `MetricSettings.names`.
        metric: the sacreBLEU object.
        segmenter_name: sacreBLEU tokenizer that puts spaces between words first (TER of scripts without spaces); None
            where the metric reads the text itself.
        pretokenizer: what the signature says about Moses tokenisation; None where there was none.
    """

    name: str
    metric: SacreMetric
    segmenter_name: str | None = None
    pretokenizer: str | None = None

    def prepare(self, texts: Sequence[str]) -> list[str]:
        return [segmenter(self.segmenter_name)(text) for text in texts] if self.segmenter_name else list(texts)

    def signature(self, *, samples: int = 0, seed: int = 0, test: str = "bs") -> str:
        """sacreBLEU's signature after scoring, with `pre:` added where text was segmented before the metric saw it."""
        signature = self.metric.get_signature()
        if samples:
            signature.update(test, samples)
            signature.update("seed", seed)
        if before := self.pretokenizer or self.segmenter_name:
            signature.update("pre", before)
        return signature.format()


@dataclass(frozen=True)
class Scoring:
    """What `score_corpus` returns.

    Attributes:
        scores: one record a metric, in the order of `MetricSettings.names`.
        details: for each metric sacreBLEU's own score object (n-gram precisions, brevity penalty, number of edits).
        segments: for each metric the list of segment scores, unrounded, in the order of the predictions; None where
            the language of a translation could not be told (off_target).
    """

    scores: list[Score]
    details: dict[str, SacreScore]
    segments: dict[str, list[float | None]]


def check_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raise DataError unless every prediction is a string and has at least one reference string."""
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} segments of references; there must be one "
            "prediction for each segment, in the same order."
        )
    if not len(predictions):
        raise DataError("There is nothing to score: the list of predictions is empty.")
    for row, (prediction, row_references) in enumerate(zip(predictions, references, strict=True), 1):
        if not isinstance(prediction, str):
            raise DataError(f"Prediction {row} is {prediction!r}; it must be a string (an empty one is allowed).")
        if isinstance(row_references, str) or not all(isinstance(reference, str) for reference in row_references):
            raise DataError(f"The references of segment {row} are {row_references!r}; they must be a list of strings.")
        if not len(row_references):
            raise DataError(f"Segment {row} has no reference; each needs at least one.")


def transpose_references(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Lists of references per segment, possibly of different lengths, as sacreBLEU's streams padded with None.

    `[["a", "b"], ["c"]]` becomes `[["a", "c"], ["b", None]]`.
    """
    width = max(len(row) for row in references)
    return [[row[column] if column < len(row) else None for row in references] for column in range(width)]


def prepare_metrics(
    settings: MetricSettings, target_language: str | None, references: Sequence[Sequence[str]] = ()
) -> list[PreparedMetric]:
    """Build the metrics of `settings` for a target language.

    Raises:
        ConfigError: a tokenizer that cannot score the language.
        NmtError: a package that the tokenizer needs is missing.
    """
    first_references = [row[0] for row in references[:1000] if row]
    code = primary_language(target_language) if target_language else guess_language(first_references)
    spaceless = code != "ko" and TOKENIZER_OF_LANGUAGE.get(code or "", DEFAULT_TOKENIZER) != DEFAULT_TOKENIZER
    pretokenizer = None
    tokenize = settings.bleu.tokenize
    if settings.pretokenize != "none":
        if code in TOKENIZER_OF_LANGUAGE:
            raise ConfigError(
                f"metrics.pretokenize={settings.pretokenize} cannot score target language {code!r}: the Moses "
                "tokeniser splits at spaces. Use metrics.pretokenize=none with metrics.bleu.tokenize=auto."
            )
        tokenize = "none"
        pretokenizer = f"{'lc.' if settings.lowercase else ''}norm.moses.{moses_version()}"
    if "bleu" not in settings.names and not spaceless and settings.bleu.tokenize != "auto":
        raise ConfigError(
            f"metrics.bleu.tokenize={settings.bleu.tokenize} would change nothing: bleu is not among metrics.names, "
            "and TER needs no tokenizer where words are written apart. Leave it out."
        )
    prepared = []
    for name in settings.names:
        if name == "bleu":
            chosen = choose_tokenizer(tokenize, target_language, first_references)
            metric: SacreMetric = BLEU(lowercase=settings.lowercase, tokenize=chosen, force=chosen == "none")
            prepared.append(PreparedMetric(name, metric, None, pretokenizer))
        elif name == "chrf":
            metric = CHRF(
                char_order=settings.chrf.char_order, word_order=settings.chrf.word_order, lowercase=settings.lowercase
            )
            prepared.append(PreparedMetric(name, metric, None, pretokenizer))
        elif name == "off_target":
            prepared.append(PreparedMetric(name, OffTarget(target_language, settings.off_target.candidates)))
        else:
            # TER counts edits of words: where the script writes no spaces, the words are those that BLEU counts.
            words = choose_tokenizer(tokenize, target_language, first_references) if spaceless else None
            metric = TER(normalized=settings.ter.normalized, case_sensitive=settings.ter.case_sensitive)
            prepared.append(PreparedMetric(name, metric, None if words == "none" else words, pretokenizer))
    return prepared


def check_metrics(
    settings: MetricSettings, target_language: str | None, references: Sequence[Sequence[str]] = ()
) -> None:
    """Raise what `score_corpus` would raise about settings, language and missing packages, before the translating."""
    prepare_metrics(settings, target_language, references)


def pretokenize(
    texts: Sequence[str], settings: MetricSettings, target_language: str | None, *, side: str
) -> list[str]:
    """Moses-tokenise `texts` if `settings.pretokenize` asks it for their side ("predictions" or "references")."""
    if settings.pretokenize == "both" or settings.pretokenize == side:
        return moses_tokenize(texts, target_language, lowercase=settings.lowercase)
    return list(texts)


def pretokenize_references(
    references: Sequence[Sequence[str]], settings: MetricSettings, target_language: str | None
) -> list[list[str]]:
    return [pretokenize(row, settings, target_language, side="references") for row in references]


# sacreBLEU adds up what the segments contribute, and offers no public way to these numbers, of which resamples and the
# scores of single segments are made. These three are all that reaches into it.


def contributions(metric: SacreMetric, texts: Sequence[str], streams: Any) -> list[list[Any]]:
    """What each segment contributes, (segments, k); `streams` are references by `transpose_references`."""
    return metric._extract_corpus_statistics(texts, streams)


def _score_of(metric: SacreMetric, rows: Sequence[Sequence[float]]) -> SacreScore:
    """The score of some segments together."""
    return metric._aggregate_and_compute(rows)


def _score_of_sum(metric: SacreMetric, total: Any) -> SacreScore:
    """The score of segments whose contributions are added already, (k,)."""
    return metric._compute_score_from_stats(total)


def resample_scores(
    metric: SacreMetric, statistics: Sequence[Sequence[float]], samples: int, seed: int
) -> list[float]:
    """Scores of `samples` bootstrap resamples, sorted; those that tell nothing are left out.

    The numbers are those of sacreBLEU's `_bootstrap_resample` (same generator, same order of draws, single precision),
    but drawn one resample at a time: sacreBLEU holds all of them, 7 GB for chrF of 100,000 segments.

    Args:
        metric: knows how to turn summed statistics into a score.
        statistics: (segments, k) contributions of the segments.
        samples: number of resamples.
        seed: of NumPy's default generator.
    """
    generator = numpy.random.default_rng(seed)
    table = numpy.array(statistics, dtype="float32")
    num_segments = len(table)
    resampled = (
        _score_of_sum(metric, table[generator.choice(num_segments, size=num_segments)].sum(0)) for _ in range(samples)
    )
    return sorted(value for score in resampled if (value := value_of(score)) is not None)


def value_of(score: SacreScore) -> float | None:
    """The figure of a score; None where it tells nothing, as no translation was long enough for off_target."""
    return float(score.score) if getattr(score, "decided", True) else None


def interval(sorted_scores: Sequence[float], confidence: float) -> tuple[float, float]:
    """Percentile interval (Efron): the share (1 - confidence) / 2 of the resamples lies outside at either end."""
    outside = int(len(sorted_scores) * (1 - confidence) / 2 + 1e-9)
    return sorted_scores[outside], sorted_scores[len(sorted_scores) - outside - 1]


def segment_scores(metric: SacreMetric, statistics: Sequence[Sequence[float]]) -> list[float | None]:
    """The score of each segment alone; BLEU with effective order, so that short segments do not count as zero."""
    single = copy.copy(metric)
    if isinstance(single, BLEU):
        single.effective_order = True
    return [value_of(_score_of(single, [row])) for row in statistics]


def score_corpus(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    settings: MetricSettings,
    target_language: str | None = None,
    *,
    data: ScoredData | None = None,
    system: ScoredSystem | None = None,
    segments: str | None = None,
) -> Scoring:
    """Score translations, with intervals and segment scores.

    Args:
        predictions: one translation a segment.
        references: one or more reference translations for each segment; the numbers may differ.
        settings: which scores and how.
        target_language: code of the language of the predictions; None looks at the script of the references.
        data, system, segments: facts copied into the records.

    Raises:
        DataError: no segments, or the lists do not fit together.
        ConfigError: a tokenizer that cannot score the language.
        NmtError: a package that the settings need is missing.
    """
    check_texts(predictions, references)
    prepared = prepare_metrics(settings, target_language, references)
    written = predictions
    predictions = pretokenize(predictions, settings, target_language, side="predictions")
    references = pretokenize_references(references, settings, target_language)
    scores, details, by_segment = [], {}, {}
    for item in prepared:
        streams = transpose_references([item.prepare(row) for row in references])
        texts = written if item.name == "off_target" else predictions
        statistics = contributions(item.metric, item.prepare(texts), streams)
        result = _score_of(item.metric, statistics)
        logger.debug("%s", result)  # with BLEU's precisions and length ratio
        bounds = None
        if settings.num_bootstrap_samples:
            resamples = resample_scores(item.metric, statistics, settings.num_bootstrap_samples, settings.seed)
            bounds = interval(resamples, settings.confidence) if resamples else None
        scores.append(
            Score(
                name=result.name,
                value=value_of(result),
                unit=UNITS[item.name],
                signature=item.signature(samples=settings.num_bootstrap_samples, seed=settings.seed),
                n=getattr(result, "decided", len(predictions)),
                interval=bounds,
                data=data or ScoredData(),
                system=system or ScoredSystem(),
                segments=segments,
            )
        )
        details[item.name] = result
        by_segment[item.name] = segment_scores(item.metric, statistics)
    return Scoring(scores, details, by_segment)


def compute_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    settings: MetricSettings | None = None,
    target_language: str | None = None,
    *,
    data: ScoredData | None = None,
    system: ScoredSystem | None = None,
) -> list[Score]:
    """The records of `score_corpus`, in the order of `settings.names`; None stands for the default settings."""
    return score_corpus(
        predictions, references, settings or MetricSettings(), target_language, data=data, system=system
    ).scores
