"""How many translations are in another language than was asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.base import Metric, Score

from hf_nmt import language
from hf_nmt.errors import ConfigError

logger = logging.getLogger(__name__)

# Below this probability the detector is wrong too often. With four languages of Multi30k to choose from, 0.25 % of the
# texts of three words and 1 % of single words are then told wrong, and 2 % and 48 % are left undecided.
LEAST_PROBABILITY = 0.6


class OffTargetScore(Score):
    """Percentage of the decided translations, `decided` and `undecided` ones; of none it is 0 and tells nothing."""

    def __init__(self, wrong: float, decided: float, total: float):
        super().__init__("off-target", 100 * wrong / decided if decided else 0.0)
        self.wrong, self.decided, self.undecided = int(wrong), int(decided), int(total - decided)


class OffTargetSignature:
    """What changes the figure; sacreBLEU's own signatures hold its version, which does not."""

    def __init__(self, arguments: dict[str, Any]):
        self.info = {name: arguments[name] for name in ("detector", "candidates", "least")}

    def update(self, key: str, value: Any) -> None:
        self.info[key] = value

    def format(self, short: bool = False) -> str:
        return "|".join(f"{name}:{value}" for name, value in self.info.items())


class OffTarget(Metric):
    """The off-target rate (Zhang et al. 2020, section 3) as a metric of sacreBLEU, which reads no reference.

    Texts too short for the detector are undecided: they are not counted. So are empty ones.

    Args:
        target_language: code of the language that was asked for, in any usual spelling.
        candidates: codes of the languages to choose from, in which the target language is included; None takes all.

    Raises:
        ConfigError: the target language is not given, not known to the detector, or the only candidate.
        NmtError: the extra `language` is not installed.
    """

    _SIGNATURE_TYPE = OffTargetSignature

    def __init__(self, target_language: str | None, candidates: Sequence[str] | None = None):
        super().__init__()
        if target_language is None:
            raise ConfigError(
                "metrics.names: off_target is the share of translations in another language than the target "
                "language, and none is given. Give the target language, or take off_target out."
            )
        self.target_language = target_language
        own = language.primary(target_language)
        codes = None if candidates is None else sorted({language.primary(code) for code in candidates} | {own})
        if codes is not None and len(codes) < 2:
            raise ConfigError(
                f"metrics.off_target.candidates: {own} alone is the language of every text. Name others too."
            )
        language.check(codes or [own])
        self._own, self._codes = own, codes
        self.detector, self.least = language.detector(), LEAST_PROBABILITY
        self.candidates = "all" if codes is None else ".".join(codes)

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: Any) -> Any:
        """(wrong, decided, 1) of each segment."""
        rows = []
        for code, probability in language.identify(hypotheses, self._codes):
            decided = code is not None and probability >= LEAST_PROBABILITY
            rows.append([int(decided and code != self._own), int(decided), 1])
        undecided = sum(1 - row[1] for row in rows)
        if undecided:
            logger.info(
                "off-target: %d of %d translations are too short to tell their language.", undecided, len(rows)
            )
        return rows

    def _compute_score_from_stats(self, stats: list[float]) -> OffTargetScore:
        return OffTargetScore(*(float(value) for value in stats))

    def _aggregate_and_compute(self, stats: list[list[int]]) -> OffTargetScore:
        return self._compute_score_from_stats([sum(column) for column in zip(*stats, strict=True)])

    def _preprocess_segment(self, sent: str) -> str:
        return sent

    def _extract_reference_info(self, refs: Any) -> dict[str, Any]:
        return {}

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: Any) -> list[int]:
        return self._extract_corpus_statistics([hypothesis], None)[0]
