"""How coherent an article is: the mean cosine of the vectors of neighbouring sentences.

After the distance between neighbouring segments of Foltz, Kintsch and Landauer (1998), with any vectors. The default
ones need no training: runs of characters, hashed, weighted by TF-IDF and projected to fewer dimensions by signs that
are always the same (Achlioptas 2003), which keeps cosines to about 0.03. Any `SentenceEncoder` may take their place.

Neighbours are records of one article, origin and pair of languages, one after the other by `position`; a record that
was dropped between two of them leaves no gap. Records without a position have no neighbours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.cleaning.duplicates import folded
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.shingles import FOLD
from hf_nmt.config import Settings
from hf_nmt.data.sketches import mixed
from hf_nmt.errors import DataError, need
from hf_nmt.protocols import SentenceEncoder

BUCKETS, DIMENSIONS, PROJECTION_SEED = 2**15, 1024, 1998
_ROWS_OF_A_TASK = 4096
_BASE = np.uint64(0x9E3779B97F4A7C15)
DIGITS = 4


class CoherenceSettings(Settings):
    """Vectors that coherence is measured with."""

    side: Literal["source", "target"] = Field("source", description="which texts are compared")
    ngram: int = Field(3, ge=1, le=10, description="characters of a run, for the vectors that need no model")
    encoder: Path | None = Field(
        None,
        description="folder of a model of sentence-transformers (extra encoders) in place of runs of characters; it "
        "must be here, nothing is downloaded",
    )


class HashedNgrams:
    """A `SentenceEncoder` of runs of characters.

    The weight of a run is (1 + ln tf) (ln((1 + N) / (1 + df)) + 1) with N sentences, df of which hold it.

    Args:
        ngram: characters of a run.
        document_frequency: in how many sentences a run of each of BUCKETS was seen (`buckets_of`).
        sentences: how many there were.
    """

    def __init__(self, ngram: int, document_frequency: np.ndarray, sentences: int):
        self.ngram = ngram
        self._weight = (np.log((1 + sentences) / (1 + document_frequency)) + 1).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        signs = projection()
        rows, buckets, counts = buckets_of(texts, self.ngram)
        weights = (1 + np.log(counts, dtype=np.float32)) * self._weight[buckets]
        ends = np.searchsorted(rows, np.arange(len(texts) + 1))
        for row, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
            # By itself, so that the neighbours of a text do not change its last bits.
            vectors[row] = weights[start:end] @ signs[buckets[start:end]].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths, lengths, 1)


@functools.cache
def projection() -> np.ndarray:
    """Signs (BUCKETS, DIMENSIONS), always the same ones."""
    words = np.arange(BUCKETS * DIMENSIONS // 64, dtype=np.uint64)
    bits = np.unpackbits(mixed(mixed(words) + np.uint64(PROJECTION_SEED)).astype("<u8").view(np.uint8))
    return (2 * bits.reshape(BUCKETS, DIMENSIONS).astype(np.int8) - 1).astype(np.int8)


def buckets_of(texts: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of characters of texts, folded, with a blank before and after: row, bucket and how often, sorted, each row
    with at least one. Shorter texts are a run of their own."""
    rows_of, hashes = [], []
    for row, text in enumerate(folded(pa.array(texts, pa.string()), FOLD).to_pylist()):
        characters = np.frombuffer(f" {text} ".encode("utf-32-le"), np.uint32).astype(np.uint64)
        width = min(ngram, len(characters))
        rolled = np.zeros(len(characters) - width + 1, np.uint64)
        for offset in range(width):
            rolled *= _BASE
            rolled += characters[offset : offset + len(rolled)]
        hashes.append(rolled)
        rows_of.append(np.full(len(rolled), row))
    if not hashes:
        return (np.empty(0, np.int64),) * 3
    buckets = (mixed(np.concatenate(hashes)) % np.uint64(BUCKETS)).astype(np.int64)
    codes, counts = np.unique(np.concatenate(rows_of) * BUCKETS + buckets, return_counts=True)
    return codes // BUCKETS, codes % BUCKETS, counts


def document_frequency(pairs: pa.Table, settings: CoherenceSettings) -> np.ndarray:
    """How many of the sentences that have neighbours hold each bucket: (BUCKETS,)."""
    placed = pc.and_(pc.is_valid(pairs["article"]), pc.is_valid(pairs["position"]))
    _, buckets, _ = buckets_of(pairs[settings.side].filter(placed).to_pylist(), settings.ngram)
    return np.bincount(buckets, minlength=BUCKETS).astype(np.uint32)


def sentence_encoder(settings: CoherenceSettings, frequency: np.ndarray, sentences: int) -> SentenceEncoder:
    """
    Raises:
        DataError: the folder holds no model.
        NmtError: sentence-transformers is not installed.
    """
    if settings.encoder is None:
        return HashedNgrams(settings.ngram, frequency, sentences)
    return EncoderFolder(settings.encoder)


class EncoderFolder:
    """A model of sentence-transformers, loaded when it is first asked."""

    def __init__(self, path: Path):
        self.path = path

    @functools.cached_property
    def _model(self) -> Any:
        package: Any = need("sentence_transformers", "encoders")
        try:
            return package.SentenceTransformer(str(self.path), local_files_only=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: this is no folder of a sentence-transformers model: {error}") from error

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def neighbouring_cosines(
    tables: Sequence[Path], order: np.ndarray, encoder: SentenceEncoder, side: str, engine: Engine
) -> np.ndarray:
    """Cosines of the vectors of records one after the other, rounded: (len(order) - 1,).

    Args:
        tables: files of records.
        order: places among all records, table after table.
        encoder: gives the vectors.
        side: of which texts.
        engine: where the work is done.
    """
    ends = np.cumsum([len(read_table(path)) for path in tables])
    tasks = [order[start : start + _ROWS_OF_A_TASK + 1] for start in range(0, max(len(order) - 1, 0), _ROWS_OF_A_TASK)]
    parts = engine.map(functools.partial(_cosines, tables, ends, encoder, side), tasks)
    return np.concatenate([np.empty(0), *parts])


def _cosines(
    tables: Sequence[Path], ends: np.ndarray, encoder: SentenceEncoder, side: str, order: np.ndarray
) -> np.ndarray:
    texts = np.empty(len(order), object)
    numbers = np.searchsorted(ends, order, side="right")
    for number in np.unique(numbers):
        here = np.flatnonzero(numbers == number)
        table = read_table(tables[number])
        texts[here] = table[side].take(order[here] - (ends[number] - len(table))).to_pylist()
    vectors = encoder.encode(texts.tolist()).astype(np.float64)
    return np.round(np.einsum("nd,nd->n", vectors[1:], vectors[:-1]), DIGITS)
