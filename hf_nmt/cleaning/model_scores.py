"""Scores of given models: translation models of both directions, encoders of sentences."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.scores import DIGITS, ScoreStep
from hf_nmt.cleaning.sentence_encoders import open_encoder
from hf_nmt.cleaning.step import SIDES
from hf_nmt.errors import DataError
from hf_nmt.protocols import Scorer, SentenceEncoder


class DualCrossEntropy(ScoreStep):
    """Drops pairs that two translation models, one of each direction, find unlikely or do not agree about. With the
    mean cross-entropies of the tokens of one side given the other, H(y|x) and H(x|y), the score of a pair is
    |H(y|x) - H(x|y)| + (H(y|x) + H(x|y)) / 2 (Junczys-Dowmunt 2018, eq. 2): 0 is best."""

    name: ClassVar[str] = "inadequate"
    limit: ClassVar[str] = "max_cross_entropy"
    decided_by: ClassVar[frozenset[str]] = frozenset({"keep", "max_cross_entropy"})

    forward: Path = Field(description="folder of a model that translates source into target, or a run folder")
    backward: Path = Field(description="likewise of target into source; a model of both directions may be both")
    max_cross_entropy: float | None = Field(
        None,
        gt=0,
        description="highest score, in nats a token; what is usual depends on the models: the log tells the median",
    )

    def files(self) -> Iterable[Path]:
        return [self.forward, self.backward]

    def figures(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        columns: dict[str, pa.Array | np.ndarray] = {}
        languages = [pairs[f"{side}_language"].to_pylist() for side in SIDES]
        texts = [pairs[side].to_pylist() for side in SIDES]
        for name, path, order in (("forward", self.forward, 1), ("backward", self.backward, -1)):
            found = np.full(len(pairs), np.nan)
            given, written = texts[::order]
            for codes in sorted({*zip(*languages[::order], strict=True)}, key=str):
                rows = [row for row, those in enumerate(zip(*languages[::order], strict=True)) if those == codes]
                found[rows] = cross_entropies(
                    _translator(path, *codes), [given[row] for row in rows], [written[row] for row in rows]
                )
            columns[name] = np.round(found, DIGITS)
        return columns

    def scores(self, measured: Sequence[Path]) -> Iterator[np.ndarray]:
        for path in measured:
            table = read_table(path)
            yield dual(table["forward"].to_numpy(), table["backward"].to_numpy())


def dual(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """The score of pairs, rounded, of their mean cross-entropies in both directions."""
    return np.round(np.abs(forward - backward) + (forward + backward) / 2, DIGITS)


def cross_entropies(scorer: Scorer, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Mean over the tokens of each target of minus the logarithm of their probability given the source; not a number
    where a text is over the limit of the model."""
    found = np.full(len(sources), np.nan)
    start = 0
    while start < len(sources):
        scored = scorer.score(itertools.islice(sources, start, None), itertools.islice(targets, start, None))
        begun = start
        try:
            for row in scored:
                found[start] = -np.mean(row)
                start += 1
        except DataError as error:
            if (index := getattr(error, "index", None)) is None:
                raise
            # Of the texts that were scored together with this one none was given.
            over = begun + index
            found[start:over] = cross_entropies(scorer, sources[start:over], targets[start:over])
            start = over + 1
    return found


@functools.lru_cache(maxsize=4)
def _translator(path: Path, source_language: str | None, target_language: str | None) -> Scorer:
    from hf_nmt.translators import load_translator

    return load_translator(path, source_language=source_language, target_language=target_language)


class EncoderSimilarity(ScoreStep):
    """Drops pairs whose sides lie far apart for a multilingual sentence encoder: the score is the cosine of their
    vectors."""

    name: ClassVar[str] = "dissimilar"
    limit: ClassVar[str] = "min_similarity"
    higher_is_better: ClassVar[bool] = True
    decided_by: ClassVar[frozenset[str]] = frozenset({"keep", "min_similarity"})

    encoder: Path = Field(
        description="folder of an encoder of both languages: of sentence-transformers (extra encoders), or any of "
        "Transformers, whose vectors are then averaged over the tokens; nothing is downloaded"
    )
    min_similarity: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="least cosine; what is usual depends on the encoder: the log tells the median",
    )

    def files(self) -> Iterable[Path]:
        return [self.encoder]

    def figures(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        return {"similarity": cosines(_encoder(self.encoder), *(pairs[side].to_pylist() for side in SIDES))}

    def scores(self, measured: Sequence[Path]) -> Iterator[np.ndarray]:
        for path in measured:
            yield read_table(path)["similarity"].to_numpy()


def cosines(encoder: SentenceEncoder, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """The cosine of the vectors of each pair, rounded; not a number where a side is empty or has no vector."""
    if not len(sources):
        return np.empty(0)
    one, other = (np.asarray(encoder.encode(texts), np.float64) for texts in (sources, targets))
    empty = np.array([not (a.strip() and b.strip()) for a, b in zip(sources, targets, strict=True)])
    empty |= ~one.any(axis=1) | ~other.any(axis=1)
    return np.where(empty, np.nan, np.round(np.einsum("nd,nd->n", one, other), DIGITS))


@functools.lru_cache(maxsize=2)
def _encoder(path: Path) -> SentenceEncoder:
    return open_encoder(path)
