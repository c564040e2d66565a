"""Pairs of a corpus as checked Arrow rows: what is dropped and counted, what is refused with file and line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from hf_nmt.data.readers import ROWS_AT_A_TIME, Corpus, Pair
from hf_nmt.errors import DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS

# What is wrong with the source and target language that a row names, either of them None; "" where nothing is.
LanguageProblem = Callable[[str | None, str | None], str]


class CorpusTables:
    """The rows of a corpus, read once: columns `source` and `target`, `references` where there are several, and
    whatever further columns the corpus carries.

    Args:
        corpus: opened.
        empty: "drop" leaves pairs with an empty side out; "error" refuses them.
        max_rows: only so many pairs, from the first on.
        at_once: an empty side is refused where it is met, not at the end together with all others.
        rows_at_a_time: of a batch.
        problem_of: refuses rows by the languages that they name; None takes any.

    Attributes:
        kept: pairs given so far.
        dropped: how many were left out so far, by reason.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        empty: str,
        max_rows: int | None = None,
        at_once: bool = False,
        rows_at_a_time: int = ROWS_AT_A_TIME,
        problem_of: LanguageProblem | None = None,
    ):
        self.corpus = corpus
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self._empty, self._max_rows, self._at_once = empty, max_rows, at_once
        self._rows_at_a_time = rows_at_a_time
        self._problem_of = problem_of
        self._known: set[tuple[Any, ...]] = set()
        self._empty_at: list[int] = []

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Batches of as many rows; the last may have fewer.

        Raises:
            DataError: with file and line: what cannot be read, a value that does not fit its column, an empty side or
                a language where that is refused; there is no pair at all.
        """
        schema: pa.Schema | None = None
        pairs: list[Pair] = []
        for pair in self._checked():
            if schema is None:
                schema = _schema(self.corpus, pair)
            self.kept += 1
            pairs.append(pair)
            if len(pairs) == self._rows_at_a_time:
                yield _record_batch(self.corpus, schema, pairs)
                pairs = []
            if self.kept == self._max_rows:
                break
        if pairs and schema is not None:
            yield _record_batch(self.corpus, schema, pairs)
        if self._empty_at:
            raise DataError(self._about_empty())
        if not self.kept:
            raise DataError(f"{self.corpus.name}: there is not a single pair with text on both sides.")

    def _checked(self) -> Iterator[Pair]:
        for pair in self.corpus.pairs:
            if pair.source is None or pair.target is None:
                self.dropped["language_missing"] += 1
                continue
            texts = (pair.source, pair.target) if pair.references is None else (pair.source, *pair.references)
            if not all(texts) or not all(map(str.strip, texts)):
                if self._empty == "error":
                    self._empty_at.append(pair.number)
                    if self._at_once:
                        raise DataError(self._about_empty())
                self.dropped["empty"] += 1
                continue
            if any("\0" in text for text in texts):
                raise DataError(f"{self.corpus.at(pair.number)}: there is a NUL character in the text.")
            if self._problem_of is not None:
                self._check_languages(pair, self._problem_of)
            yield pair

    def _check_languages(self, pair: Pair, problem_of: LanguageProblem) -> None:
        named = tuple(pair.other.get(name) for name in LANGUAGE_COLUMNS)
        for name, code in zip(LANGUAGE_COLUMNS, named, strict=True):
            if not isinstance(code, str | None):
                raise DataError(f"{self.corpus.at(pair.number)}: {name} must be text, here it is {code!r}.")
        if named not in self._known:
            if told := problem_of(*named):
                raise DataError(f"{self.corpus.at(pair.number)}: {told}")
            self._known.add(named)

    def _about_empty(self) -> str:
        at = self._empty_at
        listed = ", ".join(map(str, at[:10])) + (", ..." if len(at) > 10 else "")
        return (
            f"{self.corpus.name}: {len(at):,} pair{'s have' if len(at) > 1 else ' has'} an empty side "
            f"({self.corpus.unit} {listed}). If the corpus is aligned, set empty=drop to leave such pairs out."
        )


def _schema(corpus: Corpus, first: Pair) -> pa.Schema:
    text = pa.string()
    fields = {"source": text, "target": text}
    if first.references is not None:
        fields["references"] = pa.list_(text)
    for name, value in first.other.items():
        known = (corpus.other or {}).get(name)
        inferred = pa.array([value]).type
        fields[name] = known or (text if pa.types.is_null(inferred) else inferred)
    return pa.schema(list(fields.items()))


def _record_batch(corpus: Corpus, schema: pa.Schema, pairs: list[Pair]) -> pa.RecordBatch:
    rows = []
    for pair in pairs:
        row = dict(pair.other, source=pair.source, target=pair.target)
        if pair.references is not None:
            row["references"] = pair.references
        if not row.keys() <= set(schema.names):
            name = (row.keys() - set(schema.names)).pop()
            raise DataError(
                f"{corpus.at(pair.number)}: the column {name!r} is not in the first record. Give every record the "
                "same columns; null stands for no value."
            )
        rows.append(row)
    try:
        return pa.RecordBatch.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _unfit(corpus, schema, pairs, rows) or error from error


def _unfit(corpus: Corpus, schema: pa.Schema, pairs: list[Pair], rows: list[dict[str, Any]]) -> DataError | None:
    """What to say about the first value that does not fit its column."""
    for pair, row in zip(pairs, rows, strict=True):
        for column in schema:
            try:
                pa.array([row.get(column.name)], type=column.type)
            except UnicodeEncodeError:
                return DataError(
                    f"{corpus.at(pair.number)}: the {column.name} holds half a surrogate pair, which is no character."
                )
            except (pa.ArrowException, TypeError, ValueError):
                return DataError(
                    f"{corpus.at(pair.number)}: {row[column.name]!r} in the column {column.name!r} is not of type "
                    f"{column.type} as in the first record."
                )
    return None
