"""Builds the splits of the built-in corpus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import datasets

from hf_nmt.data.controlled import english, korean
from hf_nmt.data.controlled.constructions import sentence
from hf_nmt.data.controlled.held_out import split_of_sentence
from hf_nmt.data.controlled.meaning import Sentence
from hf_nmt.data.controlled.phrases import Article
from hf_nmt.data.controlled.random_choice import Draw
from hf_nmt.data.controlled.vocabulary import DOMAINS
from hf_nmt.data.controlled.world import world
from hf_nmt.errors import DataError

_ROWS = {
    "tiny": {"train": 25_000, "validation": 500, "test": 1_000},
    "full": {"train": 210_000, "validation": 2_000, "test": 10_000},
}
_MINIMUM_WORDS, _MAXIMUM_WORDS = 4, 40
# Draws for each sentence of an article before it ends early: most draws of a held-out split are turned down.
_ATTEMPTS = 40
_FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "target": datasets.Value("string"),
        "references": datasets.List(datasets.Value("string")),
        "domain": datasets.Value("string"),
        "article": datasets.Value("string"),
        "position": datasets.Value("int32"),
    }
)


class Written(NamedTuple):
    """A sentence in both languages with what it means and where it stands."""

    source: str
    references: list[str]
    meaning: Sentence
    article: Article
    article_id: str
    position: int


def build(size: str, split: str, seed: int = 1) -> datasets.Dataset:
    """One split of the corpus, Korean to English.

    The rows depend on the three arguments only. Validation and test sentences hold at least one combination of a verb
    with its argument or of an adjective with its noun that no training sentence of that size holds, whatever the seed.

    Args:
        size: `tiny` (for a model of minutes) or `full`.
        split: `train`, `validation` or `test`.
        seed: another seed is another sample of the same language.

    Returns:
        Rows with `source` (Korean), `target` (English, the first reference), `references`, `domain`, `article` (its
        id) and `position` (in the article).

    Raises:
        DataError: an unknown size or split.
    """
    if size not in _ROWS:
        raise DataError(f"The built-in corpus has no size {size!r}. Choose one of: {', '.join(_ROWS)}.")
    if split not in _ROWS[size]:
        raise DataError(f"The built-in corpus has no split {split!r}. Choose one of: {', '.join(_ROWS[size])}.")
    rows = islice(sentences(size, split, seed), _ROWS[size][split])
    columns: dict[str, list] = {name: [] for name in _FEATURES}
    for written in rows:
        row = (
            written.source,
            written.references[0],
            written.references,
            written.article.domain,
            written.article_id,
            written.position,
        )
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return datasets.Dataset.from_dict(columns, features=_FEATURES)


def sentences(size: str, split: str, seed: int) -> Iterator[Written]:
    """The sentences of a split, without end; no source comes twice."""
    seen: set[str] = set()
    for number in count():
        name = f"{size}-{split}-{seed}-{number:06d}"
        draw = Draw(name)
        article = Article(world(size), DOMAINS[number % len(DOMAINS)], draw)
        length, position = 4 + draw.below(7), 0
        for _ in range(_ATTEMPTS * length):
            meaning = sentence(article)
            if split_of_sentence(meaning.content, world(size).seldom) != split:
                continue
            source, references = korean.realize(meaning), english.realize(meaning)
            words = references[0].count(" ") + 1
            if source in seen or not _MINIMUM_WORDS <= words <= _MAXIMUM_WORDS:
                continue
            seen.add(source)
            yield Written(source, references, meaning, article, name, position)
            position += 1
            if position == length:
                break
