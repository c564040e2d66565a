"""Streams of a training: how pairs of languages are mixed, and which languages rows may name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from hf_nmt import language
from hf_nmt.batching import drawn_rows
from hf_nmt.data.mixed_streams import MixedStream
from hf_nmt.data.mixtures import told_of
from hf_nmt.data.sources import CorpusSettings, keys_told
from hf_nmt.data.streams import stream_pairs
from hf_nmt.errors import ConfigError
from hf_nmt.models.sources_nmt import Languages, languages_kept
from hf_nmt.protocols import LANGUAGE_COLUMNS

# Of a stream, before the training, to see which languages there are.
ROWS_LOOKED_AT = 1000

logger = logging.getLogger(__name__)


def mix_streams(
    corpora: Mapping[str, tuple[str | None, str | None, CorpusSettings]], temperature: float
) -> MixedStream:
    """Open the corpora of several language pairs as one stream.

    Args:
        corpora: name of the pair -> source and target language, and where the rows are.
        temperature: how often each pair of languages is drawn, see `drawn_rows`; its rows are those that
            `PairStream.count` tells. 1 takes every row once an epoch.

    Raises:
        DataError: as `stream_pairs`.
        ConfigError: likewise; the rows of a corpus cannot be counted, or there are none.
    """
    parts, counts, of_pair = {}, [], dict[tuple[str, str], int]()
    findings = []
    for name, (source, target, settings) in corpora.items():
        assert source is not None and target is not None
        with told_of(name, "train"), keys_told(f"data.pairs.{name}.train"):
            stream = stream_pairs(settings, source_language=source, target_language=target)
            count = stream.count()
        if count is None:
            findings.append(
                f"data.pairs.{name}.train: {settings.path} does not tell how many rows it has, and the share of a "
                f"pair goes by that. Give data.pairs.{name}.train.max_rows, or leave streaming out."
            )
            continue
        if count == 0:
            findings.append(
                f"data.pairs.{name}.train: {settings.path or settings.source} is empty. Give a file with pairs, or "
                "take this entry out."
            )
            continue
        parts[name] = source, target, stream
        counts.append(count)
        of_pair[source, target] = of_pair.get((source, target), 0) + count
    if findings:
        raise ConfigError(findings)
    if temperature == 1:
        return MixedStream(parts, counts)
    drawn = dict(zip(of_pair, drawn_rows(list(of_pair.values()), temperature), strict=True))
    shares = []
    for (name, (source, target, _)), count in zip(parts.items(), counts, strict=True):
        shares.append(max(1, round(drawn[source, target] * count / of_pair[source, target])))
        logger.info(
            "%s: %s of about %s pairs an epoch, each %.3g times",
            name,
            f"{shares[-1]:,}",
            f"{count:,}",
            shares[-1] / count,
        )
    return MixedStream(parts, counts, shares)


@dataclass(frozen=True)
class RowLanguages:
    """What is wrong with the languages that a row of a stream names (`Stream.check_languages`).

    Attributes:
        languages: of the model.
        usual: source and target language of rows that name none.
    """

    languages: Languages
    usual: tuple[str | None, str | None]

    def __call__(self, source: str | None, target: str | None) -> str:
        codes = source or self.usual[0], target or self.usual[1]
        for name, code in zip(LANGUAGE_COLUMNS, codes, strict=True):
            if code is None:
                return f"the row has no {name}. Write one into it, or give data.{name} for the rows that have none."
            if told := language.problem_of(code):
                return f"the column {name}: {told}"
        try:
            with languages_kept(self.languages.tokenizer):
                self.languages.select(*codes)
        except ValueError as error:
            return (
                f"the row is from {codes[0]} to {codes[1]}. {error} Mend the row or take it out; a new model has the "
                f"languages of the first {ROWS_LOOKED_AT:,} rows, so one that is meant must occur there."
            )
        return ""
