"""Test corpora in memory, of one language pair or of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydantic
from pydantic import Field

from hf_nmt import language
from hf_nmt.config import Settings
from hf_nmt.data.contexts import previous_in_article
from hf_nmt.data.description import describe
from hf_nmt.data.manifest import Manifest
from hf_nmt.data.mixtures import (
    given_beside_pairs,
    join_pairs,
    languages_of_pair,
    problems_of_codes,
    unnamed_languages,
)
from hf_nmt.data.sources import CorpusSettings, in_split, keys_told, load_pairs
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.metrics import LanguagePair, ScoredData
from hf_nmt.protocols import LANGUAGE_COLUMNS

if TYPE_CHECKING:
    import datasets
    import numpy


class PairTestSettings(Settings):
    """The test set of one language pair of several."""

    source_language: str | None = Field(
        None, description="Code of the source language; null takes it from the name of the pair, such as de-en."
    )
    target_language: str | None = Field(None, description="Code of the target language, as source_language.")
    test: CorpusSettings = Field(description="The test set of the pair; several targets: several references.")


class EvaluationData(Settings):
    """Which test set is scored, in which languages."""

    source_language: str | None = Field(
        None,
        description="Code of the source language of rows that name none in a column source_language; null takes the "
        "model's own.",
    )
    target_language: str | None = Field(
        None, description="Code of the target language, as source_language; it chooses BLEU's tokenizer."
    )
    test: CorpusSettings | None = Field(
        None, description="The test set. Needed, or pairs; several targets: several references."
    )
    pairs: dict[str, PairTestSettings] = Field(
        {},
        description="Test sets of several language pairs, in place of source_language, target_language and test: "
        "{de-en: {test: ...}, fr-en: ...}, or data.pairs.de-en.test.source=FILE and so on.",
    )

    @pydantic.model_validator(mode="after")
    def _pairs_alone(self) -> EvaluationData:
        findings = given_beside_pairs(self, *LANGUAGE_COLUMNS, "test") if self.pairs else []
        languages = {name: self.languages_of(name) for name in self.pairs}
        for name, told in languages.items():
            findings += unnamed_languages(name, told)
        findings += problems_of_codes(self, languages)
        if findings:
            raise ConfigError(findings)
        return self

    def languages_of(self, name: str) -> LanguagePair:
        """Source and target language of an entry of `pairs`."""
        pair = self.pairs[name]
        return languages_of_pair(name, pair.source_language, pair.target_language)


@dataclass(frozen=True)
class Corpus:
    """A test corpus in memory.

    Attributes:
        sources: one text a segment.
        references: one or more reference translations a segment.
        domains: the domain of each segment, or None where the corpus names none.
        data: what a score record says of it.
        manifest: its files, hashes and what was dropped.
        pairs: its language pairs, and the positions of the segments of each; a language is None where it is not told.
        previous: of each segment the one before it in its article, -1 where there is none; None where the corpus names
            no articles.
    """

    sources: list[str]
    references: list[list[str]]
    domains: list[str] | None
    data: ScoredData
    manifest: Manifest
    pairs: dict[LanguagePair, list[int]]
    previous: numpy.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def only_pair(self) -> LanguagePair:
        """Source and target language of the whole corpus; (None, None) where there are several pairs."""
        return next(iter(self.pairs)) if len(self.pairs) == 1 else (None, None)


def load_corpus(data: EvaluationData, usual: LanguagePair = (None, None)) -> Corpus:
    """Read the test set, or those of all pairs one after another.

    Args:
        data: where it is.
        usual: languages of rows that name none, where there is one test set.

    Raises:
        DataError, ConfigError: as `data.sources.load_pairs`.
    """
    if data.pairs:
        named = {name: (*data.languages_of(name), pair.test) for name, pair in data.pairs.items()}
        rows = join_pairs(named, "test")
        return corpus_of(rows, {name: pair.test for name, pair in data.pairs.items()})
    assert data.test is not None
    test = in_split(data.test, "test")
    with keys_told("data.test"):
        rows = load_pairs(test, source_language=usual[0], target_language=usual[1])
    findings = [
        f"data.test: the column {column}: {told}"
        for column in LANGUAGE_COLUMNS
        if column in rows.column_names
        for code in rows.unique(column)
        if code and (told := language.problem_of(code))
    ]
    if findings:
        raise ConfigError(findings)
    return corpus_of(rows, test, usual=usual)


def _domains(rows: datasets.Dataset) -> list[str] | None:
    """The domain of each row; None where no row names one, as in a version of a corpus without domains."""
    if "domain" not in rows.column_names or rows.unique("domain") == [None]:
        return None
    return [str(domain) for domain in rows["domain"]]


def corpus_of(
    rows: datasets.Dataset,
    settings: CorpusSettings | Mapping[str, CorpusSettings],
    *,
    usual: LanguagePair = (None, None),
) -> Corpus:
    """A corpus from a table with the columns `source`, `target` and, where there are, `references`, `domain` and
    `LANGUAGE_COLUMNS`.

    Args:
        rows: of the corpus.
        settings: where they came from; of several corpora, by the names of the pairs.
        usual: languages of rows that name none.

    Raises:
        DataError: there are no rows.
    """
    if isinstance(settings, CorpusSettings):
        name, split = str(settings.path or settings.source), settings.split or "test"
    else:
        name, split = ", ".join(settings), "test"
    if not len(rows):
        raise DataError(f"{name}: the test set is empty; there is nothing to score.")
    several = rows["references"] if "references" in rows.column_names else [None] * len(rows)
    sides = (
        [code or own for code in rows[column]] if column in rows.column_names else [own] * len(rows)
        for column, own in zip(LANGUAGE_COLUMNS, usual, strict=True)
    )
    pairs: dict[LanguagePair, list[int]] = {}
    for row, pair in enumerate(zip(*sides, strict=True)):
        pairs.setdefault(pair, []).append(row)
    # ISO 639's code for a language that is not told; the sources first.
    codes = dict.fromkeys(code or "und" for side in zip(*pairs, strict=True) for code in side)
    languages = [*codes] if len(pairs) > 1 else [code or "und" for code in next(iter(pairs))]
    previous = previous_in_article(rows)
    manifest = describe({split: (settings, rows)}, languages=languages)
    return Corpus(
        sources=list(rows["source"]),
        references=[list(row) if row else [text] for row, text in zip(several, rows["target"], strict=True)],
        domains=_domains(rows),
        data=ScoredData(id=name, hash=manifest.content_hash, split=split),
        manifest=manifest,
        pairs=pairs,
        previous=previous if (previous >= 0).any() else None,
    )
