"""Test corpora in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_nmt.data.manifest import Manifest, describe
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.errors import DataError
from hf_nmt.metrics import ScoredData

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Corpus:
    """A test corpus in memory.

    Attributes:
        sources: one text a segment.
        references: one or more reference translations a segment.
        domains: the domain of each segment, or None where the corpus names none.
        data: what a score record says of it.
        manifest: its files, hashes and what was dropped.
    """

    sources: list[str]
    references: list[list[str]]
    domains: list[str] | None
    data: ScoredData
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.sources)


def load_corpus(
    settings: CorpusSettings, *, source_language: str | None = None, target_language: str | None = None
) -> Corpus:
    """Read a test set.

    Args:
        settings: where it is.
        source_language, target_language: codes, or None where the file does not need them.

    Raises:
        DataError, ConfigError: as `data.sources.load_pairs`.
    """
    rows = load_pairs(settings, source_language=source_language, target_language=target_language)
    return corpus_of(rows, settings, source_language=source_language, target_language=target_language)


def corpus_of(
    rows: datasets.Dataset,
    settings: CorpusSettings,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Corpus:
    """A corpus from a table with the columns `source`, `target` and, where there are, `references` and `domain`.

    Raises:
        DataError: there are no rows.
    """
    name, split = str(settings.path or settings.source), settings.split or "test"
    if not len(rows):
        raise DataError(f"{name}: the test set is empty; there is nothing to score.")
    references = [list(row) for row in rows["references"]] if "references" in rows.column_names else None
    # ISO 639's code for a language that is not told.
    source_language, target_language = source_language or "und", target_language or "und"
    manifest = describe({split: (settings, rows)}, languages=[source_language, target_language])
    return Corpus(
        sources=list(rows["source"]),
        references=references or [[target] for target in rows["target"]],
        domains=[str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else None,
        data=ScoredData(id=name, hash=manifest.content_hash, split=split),
        manifest=manifest,
    )
