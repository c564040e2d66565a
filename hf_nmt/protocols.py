"""What rooms promise each other. Recipes, suites and scorers take these, never a class. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy

# Columns of rows in several languages; a corpus without them is in the languages of the run.
LANGUAGE_COLUMNS = ("source_language", "target_language")
# Stands between sentences of one source that a model reads together, the oldest first. It is text, which a tokenizer
# that is trained on it has a piece for, so that models of every family can read it.
CONTEXT_SEPARATOR = "|||"


def languages_named(name: str) -> tuple[str, str] | tuple[None, None]:
    """Source and target language that the name of a corpus tells, as `de-en` does; None where it is another name."""
    source, _, target = name.partition("-")
    return (source, target) if source and target and "-" not in target else (None, None)


@dataclass(frozen=True)
class Translation:
    """One hypothesis for one source text.

    Attributes:
        text: detokenised translation.
        score: sum of token log-probabilities (natural log) divided by length ** length_penalty, the length being the
            number of tokens; what the search sorts by. Of a text of several sentences, the mean of their scores.
        tokens: subword pieces, with the end-of-sentence symbol where it was produced.
        token_scores: log-probability of each token; empty where none were asked for.
        finish_reason: "eos", or "length" where the length limit cut the output.
        alignment: pairs (source piece, target piece), or None where the system gives none.
        source_index: position of the source in the input, from 0.
    """

    text: str
    score: float
    tokens: list[str] = field(default_factory=list)
    token_scores: list[float] = field(default_factory=list)
    finish_reason: Literal["eos", "length"] = "eos"
    alignment: list[tuple[int, int]] | None = None
    source_index: int = 0


@runtime_checkable
class Translator(Protocol):
    def translate(
        self,
        sources: Iterable[str],
        settings: Any = None,
        *,
        source_language: str | Sequence[str | None] | None = None,
        target_language: str | Sequence[str | None] | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> Iterator[list[Translation]]:
        """Yield the n-best list of each source, best first, in the order of `sources`.

        Args:
            sources: texts, one sentence each.
            settings: a `generation.decoding.DecodingSettings`; None stands for its defaults.
            source_language, target_language: codes, for models of several languages: of all sources, or a list with
                that of each.
            prefixes: text that the translation of each source must open with.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    def score(self, sources: Iterable[str], targets: Iterable[str]) -> Iterator[list[float]]:
        """Yield the log-probability (natural log) of every target token, the end-of-sentence symbol included."""
        ...


@runtime_checkable
class SentenceEncoder(Protocol):
    def encode(self, texts: Sequence[str]) -> numpy.ndarray:
        """Return sentence vectors of length 1, shape (len(texts), dimension)."""
        ...
