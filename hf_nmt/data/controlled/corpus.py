"""Builds the splits of the built-in corpus."""

from __future__ import annotations

import datasets

from hf_nmt.data.controlled import english, korean
from hf_nmt.data.controlled.constructions import sentence
from hf_nmt.data.controlled.held_out import split_of_sentence
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


def build(size: str, split: str, seed: int = 1) -> datasets.Dataset:
    """One split of the corpus, Korean to English.

    The rows depend on the three arguments only. Validation and test sentences hold at least one combination of a verb
    with its argument or of an adjective with its noun that no training sentence of any seed or size holds.

    Args:
        size: `tiny` (for a model of minutes) or `full`.
        split: `train`, `validation` or `test`.
        seed: another seed is another sample of the same language.

    Returns:
        Rows with `source` (Korean), `target` (English, the first reference), `references`, `domain`, `article` (id) and
        `position` (in the article).

    Raises:
        DataError: an unknown size or split.
    """
    if size not in _ROWS:
        raise DataError(f"The built-in corpus has no size {size!r}. Choose one of: {', '.join(_ROWS)}.")
    if split not in _ROWS[size]:
        raise DataError(f"The built-in corpus has no split {split!r}. Choose one of: {', '.join(_ROWS[size])}.")
    columns: dict[str, list] = {name: [] for name in _FEATURES}
    seen: set[str] = set()
    number = 0
    while len(seen) < _ROWS[size][split]:
        domain = DOMAINS[number % len(DOMAINS)]
        _write_article(columns, seen, size, split, seed, number, domain, _ROWS[size][split])
        number += 1
    return datasets.Dataset.from_dict(columns, features=_FEATURES)


def _write_article(
    columns: dict[str, list], seen: set[str], size: str, split: str, seed: int, number: int, domain: str, limit: int
) -> None:
    name = f"{size}-{split}-{seed}-{number:06d}"
    draw = Draw(name)
    article = Article(world(size), domain, draw)
    length = 4 + draw.below(7)
    position = 0
    for _ in range(length * 40):
        if position == length or len(seen) == limit:
            return
        meaning = sentence(article)
        if split_of_sentence(meaning.content) != split:
            continue
        source = korean.realize(meaning)
        references = english.realize(meaning)
        words = references[0].count(" ") + 1
        if source in seen or not _MINIMUM_WORDS <= words <= _MAXIMUM_WORDS:
            continue
        seen.add(source)
        for column, value in zip(
            columns.values(), (source, references[0], references, domain, name, position), strict=True
        ):
            column.append(value)
        position += 1
