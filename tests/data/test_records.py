"""Records: ids, types, what is refused."""

from __future__ import annotations

import hashlib
import json

import pytest

from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.data.records import SCHEMA, PairRecord, id_of, tables_of
from hf_nmt.errors import DataError


def corpus(*rows: dict) -> Corpus:
    pairs = (Pair(n, row.pop("source"), row.pop("target"), None, row) for n, row in enumerate(map(dict, rows), 1))
    return Corpus("rows", "line", pairs)


def test_the_schema_and_the_model_have_the_same_fields():
    assert SCHEMA.names == ["id", *PairRecord.model_fields]


def test_ids_are_the_start_of_the_hash_of_the_canonical_line():
    record = {"source": "ein Haus", "target": "a house", "domain": None, "origin": "x"}
    line = json.dumps({"origin": "x", "source": "ein Haus", "target": "a house"}, separators=(",", ":"))
    assert id_of(record) == hashlib.sha256(line.encode()).hexdigest()[:32]
    assert id_of(record | {"id": "mine"}) == id_of(record)
    assert id_of(record | {"origin": "y"}) != id_of(record)


def test_records_take_constants_where_they_have_none():
    rows = corpus({"source": "a", "target": "b"}, {"source": "c", "target": "d", "domain": "talk"})
    (table,) = tables_of(rows, {"domain": "news", "origin": "mine"}, rows=10)
    assert table.schema == SCHEMA
    assert table["domain"].to_pylist() == ["news", "talk"] and table["origin"].to_pylist() == ["mine", "mine"]
    assert len(set(table["id"].to_pylist())) == 2


def test_tables_hold_so_many_rows():
    rows = corpus(*({"source": str(n), "target": "b"} for n in range(7)))
    assert [len(table) for table in tables_of(rows, {}, rows=3)] == [3, 3, 1]


def test_a_value_of_another_type_is_told_with_line_and_field():
    rows = corpus({"source": "a", "target": "b"}, {"source": "a", "target": "b", "position": "third"})
    with pytest.raises(DataError, match=r"rows, line 2: field\.position: given 'third'"):
        list(tables_of(rows, {}, rows=10))


def test_half_a_character_is_told():
    with pytest.raises(DataError, match="line 1: the target holds half a surrogate pair"):
        list(tables_of(corpus({"source": "a", "target": "\ud800"}), {}, rows=10))


def test_columns_that_are_no_fields_are_left_out_and_told(caplog):
    (table,) = tables_of(corpus({"source": "a", "target": "b", "score": 1.5}), {}, rows=10)
    assert table.schema == SCHEMA and "left out: score" in caplog.text


def test_pairs_of_texts_alone_become_what_others_become():
    """One pair with a field of its own has all of a table looked at one by one."""
    texts = [{"source": f"s {n} \u00fc", "target": "" if n == 3 else None if n == 4 else f't "{n}"'} for n in range(6)]
    constants = {"domain": "news", "position": 7}
    (quick,) = tables_of(corpus(*texts), constants, rows=10)
    (slow,) = tables_of(corpus(*texts, {"source": "a", "target": "b", "domain": "talk"}), constants, rows=10)
    assert quick.schema == slow.schema == SCHEMA and quick.equals(slow.slice(0, 6))
    assert quick["id"].to_pylist() == [id_of(row) for row in quick.to_pylist()]


def test_a_constant_of_another_type_is_told():
    with pytest.raises(DataError, match=r"rows, line 1: field\.position: given 'third'"):
        list(tables_of(corpus({"source": "a", "target": "b"}), {"position": "third"}, rows=10))
