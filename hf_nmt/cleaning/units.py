"""What must stay together when a corpus is split: articles, and records that share a text.

A unit is what hangs together by any of these ties: the same article; the same source or target, folded; as asked for,
texts that are nearly the same. So of two units neither holds a sentence of the other. Held in memory are some 200
bytes a record.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from hf_nmt.cleaning.coherence import (
    BUCKETS,
    DIGITS,
    CoherenceSettings,
    document_frequency,
    neighbouring_cosines,
    sentence_encoder,
)
from hf_nmt.cleaning.duplicates import (
    ID_COLUMNS,
    KEY_BYTES,
    Fold,
    InOrderOfIds,
    Measured,
    column,
    equal_keys,
    ids_of,
    keys_of,
    pair_keys,
)
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.near_duplicates import NearDuplicates, near_pairs
from hf_nmt.cleaning.pipeline import read_table, write_table
from hf_nmt.cleaning.shingles import Similarity
from hf_nmt.cleaning.step import SIDES
from hf_nmt.data.sketches import mixed
from hf_nmt.data.text_bytes import whole

_SEQUENCE = ("article", "origin", "source_language", "target_language")


@dataclass(frozen=True)
class Ties:
    """What ties records together besides their article.

    Attributes:
        fold: differences between equal texts that do not count.
        near: how alike texts must be; None looks for equal ones only.
        articles: whether records in articles are tied by their texts too.
    """

    fold: Sequence[Fold]
    near: Similarity | None
    articles: bool


@dataclass(frozen=True)
class Units:
    """The units of a corpus.

    Attributes:
        of: unit of every record, table after table, from 0.
        article: 128-bit key of the article of every record (N, 2); zeros where it has none.
        key: 128-bit key of every unit, whatever the order of the records: the least of its articles, else of its ids.
        coherence: of every unit; NaN where no two of its records are neighbours.
        articles: keys of all articles, sorted (A, 2).
        article_coherence: of each article; NaN as above.
        article_units: unit of each article.
    """

    of: np.ndarray
    article: np.ndarray
    key: np.ndarray
    coherence: np.ndarray
    articles: np.ndarray
    article_coherence: np.ndarray
    article_units: np.ndarray

    def __len__(self) -> int:
        return len(self.key)

    def places_of(self, keys: np.ndarray) -> np.ndarray:
        """For each key (K, 2) of an article its place in `articles`; -1 where there is none."""
        known, wanted = _comparable(self.articles), _comparable(keys)
        if not len(known):
            return np.full(len(wanted), -1)
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[at] == wanted, at, -1)


def find_units(tables: Sequence[Path], ties: Ties, coherence: CoherenceSettings, work: Path, engine: Engine) -> Units:
    """Tie the records of a corpus together.

    Args:
        tables: files of records (`pipeline.write_table`).
        ties: by what.
        coherence: how that of articles is measured.
        work: folder for what is measured; what is there is taken as it is.
        engine: where the work is done.
    """
    done = list(engine.map(functools.partial(_measure, ties, coherence, work), list(enumerate(tables))))
    measured = [path for path, _ in done]
    article = np.stack([column(measured, name) for name in ("article_high", "article_low")], axis=1)
    ids = np.stack([column(measured, name) for name in ID_COLUMNS], axis=1)
    root = _components(len(article), _edges(measured, article, ties))
    roots, of = np.unique(root, return_inverse=True)
    key = _least_keys(of, len(roots), article, ids)
    order, cosines = _neighbours(tables, measured, [path for _, path in done], article, ids, coherence, engine)
    known, number = _articles(article)
    article_units = np.zeros(len(known), np.int64)
    article_units[number[number >= 0]] = of[number >= 0]
    first = order[:-1]
    return Units(
        of,
        article,
        key,
        coherence=_means(of[first], cosines, len(roots)),
        articles=known,
        article_coherence=_means(number[first], cosines, len(known)),
        article_units=article_units,
    )


def _measure(ties: Ties, coherence: CoherenceSettings, work: Path, task: tuple[int, Path]) -> tuple[Path, Path]:
    """What is needed of the records of a table, and how often its runs of characters come, as files."""
    number, path = task
    to, frequency = work / f"{number:06d}.measured.arrow", work / f"{number:06d}.runs.arrow"
    if to.is_file() and frequency.is_file():
        return to, frequency
    pairs = read_table(path)
    columns: dict[str, pa.Array | np.ndarray] = {}

    def add(name: str, keys: np.ndarray) -> None:
        columns.update({f"{name}_high": keys[:, 0], f"{name}_low": keys[:, 1]})

    add("id", ids_of(pairs))
    add("article", article_keys(pairs["article"]))
    parts = [pc.fill_null(pairs[name].combine_chunks(), "") for name in _SEQUENCE]
    add("sequence", keys_of(pc.binary_join_element_wise(*parts, "\n")))
    for side in SIDES:
        add(side, pair_keys(pairs, (side,), ties.fold))
    columns["position"] = pc.fill_null(pairs["position"], -1).to_numpy()
    if ties.near is not None:
        near = NearDuplicates(**ties.near.model_dump()).measure(pairs)
        columns.update({name: near[name] for name in near.column_names if name not in ID_COLUMNS})
    work.mkdir(parents=True, exist_ok=True)
    write_table(to, pa.table(columns))
    write_table(frequency, pa.table({"sentences": document_frequency(pairs, coherence)}))
    return to, frequency


def article_keys(articles: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """128-bit keys (N, 2) of names of articles; zeros for null."""
    names = whole(articles).dictionary_encode()
    keys = np.concatenate([np.zeros((1, 2), np.uint64), keys_of(names.dictionary.cast(pa.string()))])
    return keys[pc.fill_null(names.indices.cast(pa.int64()), -1).to_numpy() + 1]


def _edges(measured: Sequence[Path], article: np.ndarray, ties: Ties) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places of records that are tied."""
    inside = _named(article)
    members, starts = equal_keys(article[:, 0], article[:, 1])
    named = inside[members]
    yield members[named], members[starts[named]]
    chosen = np.arange(len(article)) if ties.articles else np.flatnonzero(~inside)
    for side in SIDES:
        high, low = (column(measured, f"{side}_{half}")[chosen] for half in ("high", "low"))
        members, starts = equal_keys(high, low)
        yield chosen[members], chosen[members[starts]]
    if ties.near is not None:
        yield from _near_edges(measured, chosen, ties.near)


def _near_edges(
    measured: Sequence[Path], chosen: np.ndarray, near: Similarity
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    records = InOrderOfIds(Measured.of(measured))
    places = np.flatnonzero(np.isin(records.rows, chosen))
    members, starts = equal_keys(records.column("key_high")[places], records.column("key_low")[places])
    yield records.rows[places[members]], records.rows[places[members[starts]]]
    first = np.ones(len(places), bool)
    first[members] = members == members[starts]
    nothing = np.full(len(records.rows), -1)
    for later, earlier, _ in near_pairs(records, places[first], nothing, near):
        yield records.rows[later], records.rows[earlier]


def _components(count: int, edges: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The least node that each of `count` nodes is connected with."""
    root = np.arange(count)
    for one, other in edges:
        while True:
            ends = root[one], root[other]
            differ = ends[0] != ends[1]
            if not differ.any():
                break
            one, other, low, high = one[differ], other[differ], np.minimum(*ends)[differ], np.maximum(*ends)[differ]
            np.minimum.at(root, high, low)
            while True:
                shorter = root[root]
                if (shorter == root).all():
                    break
                root = shorter
    return root


def _least_keys(of: np.ndarray, count: int, article: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(count, 2): of each unit the least key of its articles, or of its ids where it has none."""
    inside = _named(article)
    keys = np.where(inside[:, None], article, ids)
    order = np.lexsort((keys[:, 1], keys[:, 0], ~inside, of))
    return keys[order[np.searchsorted(of[order], np.arange(count))]]


def _articles(article: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The keys of all articles, sorted, and which of them each record is of (-1: none)."""
    names, number = np.unique(_comparable(article), return_inverse=True)
    known = np.frombuffer(names.tobytes(), ">u8").astype(np.uint64).reshape(-1, 2)
    loose = bool(len(known)) and not known[0].any()
    return known[loose:], number - loose


def _named(article: np.ndarray) -> np.ndarray:
    """Which records have an article."""
    return (article[:, 0] | article[:, 1]) != 0


def _comparable(keys: np.ndarray) -> np.ndarray:
    """Keys (N, 2) as byte strings, in the order of the keys."""
    return np.ascontiguousarray(keys.astype(">u8")).view(f"S{KEY_BYTES}").ravel()


def _neighbours(
    tables: Sequence[Path],
    measured: Sequence[Path],
    runs: Sequence[Path],
    article: np.ndarray,
    ids: np.ndarray,
    settings: CoherenceSettings,
    engine: Engine,
) -> tuple[np.ndarray, np.ndarray]:
    """Places of records in the order of their articles, and the cosine of each with the next, NaN for the last of
    each article."""
    position = np.concatenate([np.empty(0, np.int64), *(read_table(path)["position"].to_numpy() for path in measured)])
    sequence = np.stack([column(measured, f"sequence_{half}") for half in ("high", "low")], axis=1)
    placed = np.flatnonzero(_named(article) & (position >= 0))
    sort = (*ids[placed].T[::-1], position[placed], *sequence[placed].T[::-1])
    order = placed[np.lexsort(sort)]
    same = (sequence[order[1:]] == sequence[order[:-1]]).all(axis=1)
    with_neighbour = np.zeros(len(order), bool)
    with_neighbour[1:] |= same
    with_neighbour[:-1] |= same
    order = order[with_neighbour]
    if not len(order):
        return np.zeros(1, np.int64), np.empty(0)
    frequency = np.zeros(BUCKETS, np.int64)
    for path in runs:
        frequency += read_table(path)["sentences"].to_numpy()
    encoder = sentence_encoder(settings, frequency, len(placed))
    cosines = neighbouring_cosines(tables, order, encoder, settings.side, engine)
    same = (sequence[order[1:]] == sequence[order[:-1]]).all(axis=1)
    return order, np.where(same, cosines, np.nan)


def _means(groups: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Mean of the values of each group, rounded; NaN where it has none."""
    known = ~np.isnan(values)
    sums = np.bincount(groups[known], values[known], minlength=count)
    numbers = np.bincount(groups[known], minlength=count)
    with np.errstate(invalid="ignore"):
        return np.round(sums / numbers, DIGITS)


def keyed_hash(keys: np.ndarray, *names: object) -> np.ndarray:
    """64-bit hashes of keys (N, 2), other ones for other names."""
    key = np.uint64(xxhash.xxh3_64_intdigest("\n".join(map(str, names)).encode()))
    return mixed(mixed(keys[:, 0] + key) ^ keys[:, 1])
