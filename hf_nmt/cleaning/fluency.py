"""Steps that ask language models how usual a text is: perplexity, and the cross-entropy difference.

The models are of n-grams (`ngram_model`), trained on given text or on the corpus itself, or any causal language model
of Transformers. Where they learn from the corpus itself it is divided in three by its texts, and each third is scored
by models of the other two.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from hf_nmt.cleaning.alignment_model import priorities_of, sentences_of, words_of
from hf_nmt.cleaning.causal_model import CausalModel
from hf_nmt.cleaning.ngram_model import MAX_ORDER, NgramModel, vocabulary
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.scores import DIGITS, ScoreStep
from hf_nmt.data.text_lines import read_lines

_FOLDS = 3
Side = Literal["source", "target"]


class LanguageModelStep(ScoreStep):
    """What both steps share."""

    side: Side = Field("target", description="which texts are looked at; for both have the step twice")
    order: int = Field(3, ge=1, le=MAX_ORDER, description="length of the longest n-grams, in words")
    sample_sentences: int = Field(
        200_000,
        ge=1,
        description="most sentences that a model is trained on: of a file the first, of the corpus those with the "
        "smallest hashes",
    )

    @property
    def reason(self) -> str:
        return f"{self.side}_{self.name}"

    def words(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        return {
            "priority": priorities_of(pairs),
            "language": pairs[f"{self.side}_language"],
            "words": words_of(pairs[self.side], endings=True),
        }

    def of_corpus(self, measured: Sequence[Path], language: str | None, known: np.ndarray | None) -> list[NgramModel]:
        """A model for each third of the texts of a language, trained on the other two.

        Args:
            measured: tables with `words`.
            language: code.
            known: vocabulary; None takes that of the text.
        """
        tables = []
        for path in measured:
            table = read_table(path)
            tables.append(table.filter(_in_language(table, language)).select(["priority", "words"]))
            if len(tables) > 1:
                tables = [_first(pa.concat_tables(tables), self.sample_sentences)]
        sample = _first(pa.concat_tables(tables), self.sample_sentences)
        sentences, priorities = sentences_of(sample["words"]), sample["priority"].to_numpy()
        words = vocabulary(sentences) if known is None else known
        parts = (sentences.take(np.flatnonzero(priorities % _FOLDS != fold)) for fold in range(_FOLDS))
        return [NgramModel.trained(part, words, self.order) for part in parts]

    def of_file(self, path: Path) -> NgramModel:
        lines = pa.array(itertools.islice(read_lines(path), self.sample_sentences), pa.string())
        sentences = sentences_of(words_of(lines, endings=True))
        return NgramModel.trained(sentences, vocabulary(sentences), self.order)


def _first(table: pa.Table, count: int) -> pa.Table:
    return table.sort_by("priority").slice(0, count) if len(table) > count else table


def _in_language(table: pa.Table, language: str | None) -> pa.ChunkedArray:
    return (
        pc.is_null(table["language"])
        if language is None
        else pc.fill_null(pc.equal(table["language"], language), False)
    )


def _scored(table: pa.Table, models: Sequence[NgramModel]) -> np.ndarray:
    """Cross-entropies of the texts of a table, each third by its model; not a number where a text has no words."""
    sentences = sentences_of(table["words"])
    folds = table["priority"].to_numpy() % len(models)
    found = np.full(len(table), np.nan)
    for fold, model in enumerate(models):
        rows = np.flatnonzero((folds == fold) & (sentences.lengths > 0))
        found[rows] = model.cross_entropies(sentences.take(rows))
    return found


def _languages(measured: Sequence[Path]) -> list[str | None]:
    codes = {code for path in measured for code in pc.unique(read_table(path)["language"]).to_pylist()}
    return sorted(codes, key=str)


class Perplexity(LanguageModelStep):
    """Drops texts that a language model finds unlikely: e to the mean of minus the logarithm of the probability of its
    words and its end."""

    name: ClassVar[str] = "perplexity"
    limit: ClassVar[str] = "max_perplexity"
    decided_by: ClassVar[frozenset[str]] = frozenset({"keep", "max_perplexity", "order", "sample_sentences", "text"})

    text: Path | None = Field(
        None,
        description="file of good sentences of the side, one a line, plain or .gz, that the n-grams are counted in; "
        "null counts them in the corpus itself, for each language",
    )
    model: Path | None = Field(
        None,
        description="folder of a causal language model of Transformers in place of n-grams; perplexity is then of its "
        "tokens. Scores are kept, so that another limit is quick",
    )
    max_perplexity: float | None = Field(
        None, gt=1, description="highest perplexity; what is usual depends on the text: the log tells the median"
    )

    @pydantic.model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model is not None and (idle := self.model_fields_set & {"text", "order", "sample_sentences"}):
            raise ValueError(f"{' and '.join(sorted(idle))}: for n-grams, of which model takes the place")
        return self

    def files(self) -> Iterable[Path]:
        return [path for path in (self.text, self.model) if path is not None]

    def figures(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        if self.model is None:
            return self.words(pairs)
        return {"entropy": np.round(_causal(self.model).cross_entropies(pairs[self.side].to_pylist()), DIGITS)}

    def scores(self, measured: Sequence[Path]) -> Iterator[np.ndarray]:
        if self.model is not None:
            for path in measured:
                yield np.round(np.exp(read_table(path)["entropy"].to_numpy()), DIGITS)
            return
        own = [self.of_file(self.text)] if self.text is not None else None
        models = {code: own or self.of_corpus(measured, code, None) for code in _languages(measured)}
        for path in measured:
            table = read_table(path)
            found = np.full(len(table), np.nan)
            for code, of_language in models.items():
                rows = pc.indices_nonzero(_in_language(table, code)).to_numpy()
                found[rows] = _scored(table.take(rows), of_language)
            yield np.round(np.exp(found), DIGITS)


class CrossEntropyDifference(LanguageModelStep):
    """Drops texts that are less like a domain than like the corpus: the score is the cross-entropy under a model of
    the domain, less that under a model of the corpus (Moore and Lewis 2010). Both have the words that stand twice in
    the text of the domain."""

    name: ClassVar[str] = "out_of_domain"
    limit: ClassVar[str] = "max_difference"
    decided_by: ClassVar[frozenset[str]] = frozenset(
        {"keep", "max_difference", "order", "sample_sentences", "in_domain"}
    )

    in_domain: Path = Field(description="file of sentences of the domain, one a line, in the language of the side")
    max_difference: float | None = Field(
        0.0,
        description="largest difference, in nats a word; at 0 a text is as likely in the domain as in the corpus; "
        "null leaves it to keep",
    )

    def files(self) -> Iterable[Path]:
        return [self.in_domain]

    def figures(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        return self.words(pairs)

    def scores(self, measured: Sequence[Path]) -> Iterator[np.ndarray]:
        domain = self.of_file(self.in_domain)
        models = {code: self.of_corpus(measured, code, domain.words) for code in _languages(measured)}
        for path in measured:
            table = read_table(path)
            found = np.full(len(table), np.nan)
            for code, of_language in models.items():
                rows = pc.indices_nonzero(_in_language(table, code)).to_numpy()
                few = table.take(rows)
                found[rows] = _scored(few, [domain]) - _scored(few, of_language)
            yield np.round(found, DIGITS)


@functools.lru_cache(maxsize=2)
def _causal(path: Path) -> CausalModel:
    return CausalModel(path)
