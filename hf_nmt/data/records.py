"""Records: pairs of sentences with where they come from, in one Arrow schema, each with an id of its own.

The id is the first 32 hexadecimal digits of the SHA-256 of the record's canonical line (`canonical.canonical_line`) as
it was read. It does not depend on the file, the line, the order or the number of workers; two records that are equal
in every field have one id. It stays with the record whatever the steps of cleaning change.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
from pydantic import Field

from hf_nmt.config_keys import findings_of
from hf_nmt.data.canonical import canonical_line, canonical_lines, digests_of
from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.errors import DataError

logger = logging.getLogger(__name__)

ID_DIGITS = 32
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("references", pa.list_(pa.string())),
        pa.field("source_language", pa.string()),
        pa.field("target_language", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("article", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("origin", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("synthetic", pa.string()),
        pa.field("parent", pa.string()),
    ]
)


_WITHOUT_ID = pa.schema(list(SCHEMA)[1:])


class PairRecord(pydantic.BaseModel):
    """What a record may hold."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore")

    source: str = Field(description="source sentence")
    target: str = Field(description="its translation; with several references the first")
    references: list[str] | None = Field(None, description="all translations, where there are several")
    source_language: str | None = Field(None, description="code, such as de or pt-BR")
    target_language: str | None = Field(None, description="likewise")
    domain: str | None = Field(None, description="such as news")
    article: str | None = Field(None, description="document that the sentence is from")
    position: int | None = Field(None, ge=0, lt=2**63, description="place in the article, from 0")
    origin: str | None = Field(None, description="corpus that it comes from")
    licence: str | None = Field(None, description="terms of use, such as CC-BY-4.0")
    synthetic: str | None = Field(None, description="how it was made, such as backtranslation; null for human text")
    parent: str | None = Field(None, description="id of the record that it was made of, where it was made of one")


def id_of(record: Mapping[str, Any]) -> str:
    """The id of a record; its own key `id` takes no part."""
    line = canonical_line({name: value for name, value in record.items() if name != "id"})
    return hashlib.sha256(line).hexdigest()[:ID_DIGITS]


def _ids(table: pa.Table) -> pa.Array:
    digits = digests_of(canonical_lines(table))[:, : ID_DIGITS // 2].tobytes().hex().encode()
    starts = np.arange(len(table) + 1, dtype=np.int32) * ID_DIGITS
    return pa.Array.from_buffers(pa.string(), len(table), [None, pa.py_buffer(starts), pa.py_buffer(digits)])


def tables_of(corpus: Corpus, constants: Mapping[str, Any], *, rows: int) -> Iterator[pa.Table]:
    """The records of a corpus as tables of SCHEMA. A missing side is read as an empty one; further columns are left
    out, which is told once.

    Args:
        corpus: opened, read once.
        constants: fields that every record gets unless it has them itself.
        rows: of a table; the last may have fewer.

    Raises:
        DataError: a record does not fit, with file, line and field.
    """
    read = (_of_pairs(corpus, held, constants) for held in _batches(corpus, rows))
    if corpus.texts is not None and _constant_columns(constants, 0):
        read = (_of_texts(texts, constants) for texts in corpus.texts(rows))
    for table in read:
        yield table.add_column(0, SCHEMA.field("id"), _ids(table))


def _batches(corpus: Corpus, rows: int) -> Iterator[list[Pair]]:
    pairs = iter(corpus.pairs)
    first = True
    while held := list(itertools.islice(pairs, rows)):
        if first and (more := sorted(held[0].other.keys() - {*SCHEMA.names})):
            logger.warning("%s: no field of a record, left out: %s", corpus.name, ", ".join(more))
        first = False
        yield held


def _of_pairs(corpus: Corpus, pairs: Sequence[Pair], constants: Mapping[str, Any]) -> pa.Table:
    if not any(pair.other or pair.references is not None for pair in pairs):
        texts = [[pair.source or "" for pair in pairs], [pair.target or "" for pair in pairs]]
        table = _of_texts(texts, constants) if {type(text) for side in texts for text in side} == {str} else None
        if table is not None:
            return table
    return pa.Table.from_pylist([_record(corpus, pair, constants) for pair in pairs], schema=_WITHOUT_ID)


def _of_texts(texts: Sequence[list[str]], constants: Mapping[str, Any]) -> pa.Table | None:
    """Pairs that are two texts and nothing more, without looking at them one by one; None where something is wrong,
    which `_record` tells with its line."""
    rest = _constant_columns(constants, len(texts[0]))
    try:
        sides = [pa.array(side, pa.string()) for side in texts]
    except UnicodeEncodeError:
        return None
    return pa.Table.from_arrays([*sides, *rest], schema=_WITHOUT_ID) if rest else None


def _constant_columns(constants: Mapping[str, Any], rows: int) -> list[pa.Array]:
    """The columns after the texts where records have nothing of their own; empty where these are not allowed."""
    try:
        values = PairRecord.model_validate({**constants, "source": "", "target": ""}).model_dump()
    except pydantic.ValidationError:
        return []
    return [pa.repeat(pa.scalar(values[name], _WITHOUT_ID.field(name).type), rows) for name in _WITHOUT_ID.names[2:]]


def _record(corpus: Corpus, pair: Pair, constants: Mapping[str, Any]) -> dict[str, Any]:
    other = {name: value for name, value in pair.other.items() if value is not None and name != "id"}
    values = {**constants, **other, "source": pair.source or "", "target": pair.target or ""}
    if pair.references is not None:
        values["references"] = pair.references
    try:
        record = PairRecord.model_validate(values).model_dump()
    except pydantic.ValidationError as error:
        findings = "; ".join(findings_of(error, "field"))
        raise DataError(f"{corpus.at(pair.number)}: {findings}") from error
    for name, value in record.items():
        try:
            for text in value if isinstance(value, list) else [value]:
                str(text).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{corpus.at(pair.number)}: the {name} holds half a surrogate pair, which is no character. Write the "
                "file anew with whole characters."
            ) from None
    return record
