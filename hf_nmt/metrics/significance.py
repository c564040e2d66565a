"""Is one system better than another, or was it the choice of test sentences? sacreBLEU's paired tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sacrebleu.significance import PairedTest

from hf_nmt.errors import ConfigError
from hf_nmt.metrics.off_target import OffTarget
from hf_nmt.metrics.records import Comparison
from hf_nmt.metrics.scoring import (
    UNITS,
    check_texts,
    prepare_metrics,
    pretokenize,
    pretokenize_references,
    transpose_references,
)
from hf_nmt.metrics.settings import ComparisonSettings

logger = logging.getLogger(__name__)

TEST_KINDS = {"bootstrap": "bs", "randomization": "ar"}


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """sacreBLEU takes the seed of its tests from the environment and from nowhere else."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    settings: ComparisonSettings | None = None,
    target_language: str | None = None,
    *,
    baseline: str,
) -> list[Comparison]:
    """Test every system against the baseline on every metric of `settings`, on the same resampled segments.

    The numbers equal those of `sacrebleu REFERENCES -i BASELINE SYSTEM ... --paired-bs` (or `--paired-ar`) with
    SACREBLEU_SEED set to `settings.seed`, but for two equal lists of translations, whose p-value here is 1. The paired
    bootstrap (Koehn, 2004) holds resamples x segments x statistics in single precision: 72 MB for chrF of 1,000
    segments.

    Args:
        systems: name -> one translation a segment; the baseline is one of them.
        references: one or more references for each segment.
        settings: which scores, which test, how many samples, which seed; None stands for the defaults.
        target_language: as in `compute_scores`.
        baseline: name of the system that the others are compared with.

    Returns:
        One record for each metric and each system other than the baseline; metrics outermost. off_target is left out,
        with a warning, where the language of no translation of a system could be told.

    Raises:
        ConfigError: the baseline is not among the systems, or there is nothing to compare it with.
        DataError: the lists do not fit together.
    """
    settings = settings or ComparisonSettings()
    if baseline not in systems:
        raise ConfigError(f"baseline {baseline!r} is not among the systems: {', '.join(map(repr, systems))}.")
    others = [name for name in systems if name != baseline]
    if not others:
        raise ConfigError(f"There is no system beside the baseline {baseline!r}; a comparison needs two.")
    for predictions in systems.values():
        check_texts(predictions, references)
    tokenized = {
        name: pretokenize(predictions, settings, target_language, side="predictions")
        for name, predictions in systems.items()
    }
    prepared_metrics = prepare_metrics(settings, target_language, references)
    references = pretokenize_references(references, settings, target_language)
    comparisons = []
    for item in prepared_metrics:
        # The first of sacreBLEU's named systems is its baseline.
        named = [(name, item.prepare(tokenized[name])) for name in (baseline, *others)]
        streams = transpose_references([item.prepare(row) for row in references])
        if isinstance(item.metric, OffTarget):
            untold = [name for name, texts in named if not item.metric.corpus_score(texts, streams).decided]
            if untold:
                logger.warning(
                    "off_target is not compared: the language of no translation of %s could be told.",
                    ", ".join(untold),
                )
                continue
        kind = TEST_KINDS[settings.paired_test]
        with _sacrebleu_seed(settings.seed):
            metrics = {item.name: item.metric}
            test = PairedTest(named, metrics, streams, test_type=kind, n_samples=settings.num_paired_samples)
            signatures, table = test()
        (name,) = signatures
        first, *results = table[name]
        signature = item.signature(samples=settings.num_paired_samples, seed=settings.seed, test=kind)
        comparisons += [
            Comparison(
                name=name,
                unit=UNITS[item.name],
                signature=signature,
                n=len(references),
                system=system,
                baseline=baseline,
                value=float(result.score),
                baseline_value=float(first.score),
                mean=None if result.mean is None else float(result.mean),
                half_width=None if result.ci is None else float(result.ci),
                # sacreBLEU counts strictly greater differences, which makes a system differ from itself.
                p_value=1.0 if systems[system] == systems[baseline] else float(result.p_value),
            )
            for system, result in zip(others, results, strict=True)
        ]
    return comparisons
