"""Exact duplicates: records whose texts are equal, as they stand or folded.

Texts are compared by 128-bit keys (XXH3), which is wrong with a chance of n^2 / 2^129 for n records. The record with
the smallest id stays, so that neither the order of the records nor the tables they lie in decide. Records with one id
are equal in every field: the first of them counts.

`decide` sorts ids and keys in memory, about 70 bytes a record; `apply` looks ids up in sorted files that are mapped
into memory. Beyond one machine (`decide_by`) the keys of records are shuffled, so that equal ones come to one place,
where the same rules tell who stays (`repeating`); what they tell is shuffled by ids.
"""

from __future__ import annotations

import abc
import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field

from hf_nmt.cleaning.engine import KEY, Shuffle
from hf_nmt.cleaning.pipeline import read_table, table_number, write_table
from hf_nmt.cleaning.step import SIDES, CorpusStep, Outcome
from hf_nmt.data.text_bytes import whole

Fold = Literal["case", "white_space", "punctuation", "digits"]
# Two unsigned numbers make a key of 128 bits; ids are such keys, in the order of their hexadecimal digits.
KEY_BYTES = 16
ID_COLUMNS, KEY_COLUMNS, _OF_COLUMNS = ("id_high", "id_low"), ("key_high", "key_low"), ("of_high", "of_low")
_DROPPED, _REPEATED = "dropped.arrow", "repeated.arrow"
# What makes two records meet: equal keys, or a band, whose number it is then.
EQUAL = -1
_NO_TABLE = -1
# Bytes of a row of `Meetings` while it is shuffled.
MEETING_BYTES = 58


def folded(texts: pa.Array | pa.ChunkedArray, fold: Sequence[Fold]) -> pa.Array:
    """Texts without differences that are folded, in Unicode's NFKC; as they stand where nothing is.

    A text of which nothing would be left, such as "...", stays as it is.

    Args:
        texts: strings.
        fold: `case` lowers letters; `white_space` makes one blank of any run and none at the ends; `punctuation`
            counts as white space, or goes where that is not folded; `digits` makes one 0 of any number.
    """
    plain = whole(texts)
    if not fold:
        return plain
    result = pc.utf8_normalize(plain, "NFKC")
    if "case" in fold:
        result = pc.utf8_lower(result)
    if "digits" in fold:
        result = pc.replace_substring_regex(result, r"\p{Nd}+", "0")
    marks, blanks = r"\p{P}" * ("punctuation" in fold), r"\p{Z}\p{Cc}" * ("white_space" in fold)
    if marks or blanks:
        result = pc.replace_substring_regex(result, f"[{marks}{blanks}]+", " " if blanks else "")
    if blanks:
        result = pc.utf8_trim_whitespace(result)
    return pc.if_else(pc.equal(result, ""), plain, result)


def keys_of(texts: pa.Array) -> np.ndarray:
    """128-bit keys of strings: (N, 2) unsigned numbers, the high half first."""
    digests = b"".join(map(xxhash.xxh3_128_digest, texts.cast(pa.binary()).to_pylist()))
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def pair_keys(pairs: pa.Table, sides: Sequence[str], fold: Sequence[Fold]) -> np.ndarray:
    """128-bit keys (N, 2) of the languages of records and of their texts on these sides."""
    parts: list[pa.Array] = []
    for side in sides:
        text = folded(pairs[side], fold)
        language = pc.fill_null(pairs[f"{side}_language"].combine_chunks(), "")
        # The length keeps apart what the blanks between the parts do not.
        parts += [language, pc.utf8_length(text).cast(pa.string()), text]
    return keys_of(pc.binary_join_element_wise(*parts, " "))


def ids_of(pairs: pa.Table) -> np.ndarray:
    """The ids of records as keys, (N, 2)."""
    digits = "".join(pairs["id"].to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2)


def column(measured: Sequence[Path], name: str) -> np.ndarray:
    """A column of numbers of all tables, in memory."""
    return np.concatenate([np.empty(0, np.uint64), *(read_table(path)[name].to_numpy() for path in measured)])


def equal_keys(high: np.ndarray, low: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where keys are equal.

    Args:
        high: keys, or their high halves.
        low: their low halves.

    Returns:
        The places of all keys that are not alone, group after group and rising in each; and for each of them where
        in these its group starts.
    """
    order = sorted_places(high, low)
    same = np.zeros(len(order) + 1, bool)
    same[1:-1] = high[order[1:]] == high[order[:-1]]
    if low is not None:
        same[1:-1] &= low[order[1:]] == low[order[:-1]]
    several = same[:-1] | same[1:]
    members, first = order[several], ~same[:-1][several]
    return members, np.maximum.accumulate(np.where(first, np.arange(len(members)), 0))


def sorted_places(high: np.ndarray, low: np.ndarray | None = None) -> np.ndarray:
    """The places of keys in their order, of equal ones in that of the places.

    Args:
        high: keys, or their high halves, of which few are equal.
        low: their low halves.
    """
    order = np.argsort(high)
    same = high[order[1:]] == high[order[:-1]]
    if same.any():
        tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        places = order[tied]
        keys = (places, high[places]) if low is None else (places, low[places], high[places])
        order[tied] = places[np.lexsort(keys)]
    return order


def _halves(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Keys (N, 2) from the columns of their halves."""
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def first_of_equal(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """For each key the place of the first that is equal; -1 where it is that one."""
    of = np.full(len(high), -1)
    members, starts = equal_keys(high, low)
    of[members] = np.where(members == members[starts], -1, members[starts])
    return of


@dataclass(frozen=True)
class Measured:
    """Files of what was measured, and how many records lie in each and those before it."""

    paths: Sequence[Path]
    ends: np.ndarray

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Measured:
        return cls(paths, np.cumsum([read_table(path).num_rows for path in paths], dtype=np.int64))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def places_of(self, number: int) -> np.ndarray:
        """The places of the records of a table among all."""
        return np.arange(self.ends[number - 1] if number else 0, self.ends[number])

    def tables_of(self, rows: np.ndarray) -> np.ndarray:
        """In which table records lie, by their places among all."""
        return np.searchsorted(self.ends, rows, side="right")


class InOrderOfIds:
    """Records of measured tables in the order of their ids; of those with one id the first comes first.

    Args:
        measured: where they lie.
        some: rows of some of them: ID_COLUMNS, `place` among all, table after table, and what else is asked for. None
            takes all records.

    Attributes:
        rows: the place of each among all records.
        ids: (N, 2), sorted.
        repeats: whether the record before has the same id.
    """

    def __init__(self, measured: Measured, some: pa.Table | None = None):
        self.measured = measured
        if some is None:
            high, low = (column(measured.paths, name) for name in ID_COLUMNS)
            self._order = self.rows = sorted_places(high, low)
        else:
            high, low, place = (some[name].to_numpy() for name in (*ID_COLUMNS, "place"))
            self._order = np.lexsort((place, low, high))
            self.rows = place[self._order]
        self._some = some
        self.ids = np.stack([high[self._order], low[self._order]], axis=1)
        self.repeats = np.zeros(len(self.rows), bool)
        self.repeats[1:] = (self.ids[1:] == self.ids[:-1]).all(axis=1)

    def column(self, name: str) -> np.ndarray:
        values = column(self.measured.paths, name) if self._some is None else self._some[name].to_numpy()
        return values[self._order]

    def starts_of_repeats(self) -> np.ndarray:
        """Where those begin that have one id."""
        return np.flatnonzero(self.repeats & ~np.concatenate([[False], self.repeats[:-1]])) - 1

    def write(self, state: Path, goes: np.ndarray, instead: np.ndarray, similarity: np.ndarray | None = None) -> None:
        """Write what `DuplicateStep.apply` needs.

        Args:
            state: folder.
            goes: places in the order of the ids of the records to drop, rising; none where the record before has the
                same id.
            instead: for each the place of the record that it repeats.
            similarity: for each how similar the two are.
        """
        write_table(state / _DROPPED, _dropped(self.ids[goes], self.ids[instead], similarity))
        # Of records with one id the first keeps its place, by the table it lies in.
        starts = self.starts_of_repeats()
        write_table(state / _REPEATED, _repeated(self.ids[starts], self.measured.tables_of(self.rows[starts])))


def _dropped(ids: np.ndarray, instead: np.ndarray, similarity: np.ndarray | None) -> pa.Table:
    columns = {"id": fixed_keys(ids), "of": fixed_keys(instead)}
    if similarity is not None:
        columns["similarity"] = pa.array(similarity, pa.float32())
    return pa.table(columns)


def _repeated(ids: np.ndarray, tables: np.ndarray) -> pa.Table:
    return pa.table({"id": fixed_keys(ids), "table": tables.astype(np.int64)})


def repeating(records: InOrderOfIds) -> tuple[np.ndarray, np.ndarray]:
    """Places of the records that go as another has their key, rising, and of those that stay instead."""
    of = first_of_equal(*(records.column(name) for name in KEY_COLUMNS))
    goes = np.flatnonzero((of >= 0) & ~records.repeats)
    return goes, of[goes]


def meetings(measured: Measured, number: int, path: Path) -> pa.Table:
    """Rows of the records of a table that are shuffled, so that those with equal texts meet.

    Args:
        measured: all tables.
        number: which of them.
        path: the table, with ID_COLUMNS and KEY_COLUMNS.
    """
    table, places = read_table(path), measured.places_of(number)
    columns = {name: table[name] for name in (*ID_COLUMNS, *KEY_COLUMNS)}
    by = np.full(len(places), EQUAL, np.int16)
    return pa.table({KEY: table[KEY_COLUMNS[0]], "by": by, "place": places, **columns})


_HALF = pa.uint64()
_VERDICTS = pa.schema(
    [
        *((name, _HALF) for name in (KEY, *ID_COLUMNS, *_OF_COLUMNS)),
        ("by", pa.int16()),
        ("similarity", pa.float32()),
        ("table", pa.int64()),
    ]
)


def verdicts(
    records: InOrderOfIds, goes: np.ndarray, instead: np.ndarray, by: int = EQUAL, similarity: np.ndarray | None = None
) -> pa.Table:
    """Who goes, as `InOrderOfIds.write` has it, and by what they met the record that they repeat."""
    ids, of = records.ids[goes], records.ids[instead]
    return pa.table(
        {
            KEY: ids[:, 0],
            **dict(zip((*ID_COLUMNS, *_OF_COLUMNS), (*ids.T, *of.T), strict=True)),
            "by": np.full(len(ids), by, np.int16),
            "similarity": np.ones(len(ids), np.float32) if similarity is None else similarity.astype(np.float32),
            "table": np.full(len(ids), _NO_TABLE),
        }
    )


def equal_met(measured: Measured, rows: pa.Table) -> pa.Table:
    """`verdicts` from `meetings` by EQUAL of all records with some keys, and where those with one id begin."""
    records = InOrderOfIds(measured, rows)
    goes, of = repeating(records)
    starts = records.starts_of_repeats()
    begin = verdicts(records, starts, starts)
    tables = measured.tables_of(records.rows[starts]).astype(np.int64)
    begin = begin.set_column(begin.schema.get_field_index("table"), "table", pa.array(tables))
    return pa.concat_tables([verdicts(records, goes, of), begin])


def settled(rows: pa.Table) -> pa.Table:
    """`verdicts` in the order of ids, of each record the first: equal keys before bands, these by their numbers."""
    begin = rows.filter(pc.greater_equal(rows["table"], 0))
    rows = rows.filter(pc.less(rows["table"], 0))
    rows = rows.sort_by([(name, "ascending") for name in (*ID_COLUMNS, "by", *_OF_COLUMNS)])
    first = np.ones(len(rows), bool)
    high, low = (rows[name].to_numpy() for name in ID_COLUMNS)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return pa.concat_tables(
        [rows.filter(pa.array(first)), begin.sort_by([(name, "ascending") for name in ID_COLUMNS])]
    )


class DuplicateStep(CorpusStep, abc.ABC):
    """A step whose `decide` names records by id that go, and the records that they repeat (`InOrderOfIds.write`)."""

    reason: ClassVar[str]
    tells_similarity: ClassVar[bool] = False

    @property
    def bytes_of_meetings(self) -> int:
        """Bytes of `meetings_of` a record, while they are shuffled."""
        return MEETING_BYTES

    def meetings_of(self, measured: Measured, task: tuple[int, Path]) -> pa.Table:
        """What is shuffled of the records of a table (`meetings`)."""
        return meetings(measured, *task)

    def met(self, measured: Measured, rows: pa.Table) -> pa.Table:
        """`verdicts` on records that met, from all rows of `meetings_of` with some keys."""
        return equal_met(measured, rows)

    def decide_by(self, shuffle: Shuffle, measured: Sequence[Path], state: Path) -> None:
        files = Measured.of(measured)
        with tempfile.TemporaryDirectory(dir=state.parent, prefix=f".{state.name}.parts") as parts:
            paths = shuffle(
                functools.partial(self.meetings_of, files),
                list(enumerate(measured)),
                [functools.partial(self.met, files), settled],
                bytes_of_rows=self.bytes_of_meetings * len(files),
                folder=Path(parts),
            )
            tables = [_VERDICTS.empty_table(), *map(read_table, paths)]
            for name, begin in ((_DROPPED, False), (_REPEATED, True)):
                some = [table.filter(pc.equal(pc.greater_equal(table["table"], 0), begin)) for table in tables]
                rows = pa.concat_tables(some)
                ids, of = (_halves(rows, names) for names in (ID_COLUMNS, _OF_COLUMNS))
                similarity = rows["similarity"].to_numpy() if self.tells_similarity else None
                write_table(
                    state / name, _repeated(ids, rows["table"].to_numpy()) if begin else _dropped(ids, of, similarity)
                )

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        ids = key_bytes(fixed_keys(ids_of(pairs)))
        dropped = read_table(state / _DROPPED)
        goes, at = found_among(ids, dropped["id"])
        of, similarity = ids.copy(), np.ones(len(ids))
        of[goes] = key_bytes(dropped["of"])[at[goes]]
        measured = "similarity" in dropped.column_names
        if measured:
            similarity[goes] = dropped["similarity"].to_numpy()[at[goes]]
        repeated = read_table(state / _REPEATED)
        several, where = found_among(ids, repeated["id"])
        if several.any():
            places = np.flatnonzero(several)
            first = np.ones(len(ids), bool)
            first[places] = False
            first[places[np.unique(ids[places], return_index=True)[1]]] = True
            number = table_number(pairs)
            if number is not None:
                first[several] &= (repeated["table"].to_numpy()[where] == number)[several]
            goes = goes | (several & ~first)
        digits = of[goes].tobytes().hex()
        names = [digits[start : start + 2 * KEY_BYTES] for start in range(0, len(digits), 2 * KEY_BYTES)]
        if measured:
            names = [f"{name} {value:.3f}" for name, value in zip(names, similarity[goes], strict=True)]
        mask = pa.array(goes)
        details = pc.replace_with_mask(pa.nulls(len(ids), pa.string()), mask, pa.array(names, pa.string()))
        return Outcome.dropping(pairs, {self.reason: mask}, details)


def fixed_keys(keys: np.ndarray) -> pa.Array:
    """Keys (N, 2) as byte strings of one length, in the order of the keys."""
    contents = np.ascontiguousarray(keys.astype(">u8")).tobytes()
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(contents)])


def key_bytes(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Byte strings of one length as an array that numpy orders, not copied where it lies in one piece."""
    keys = whole(values)
    if not len(keys):
        return np.empty(0, f"S{KEY_BYTES}")
    return np.frombuffer(keys.buffers()[1], f"S{KEY_BYTES}", len(keys), keys.offset * KEY_BYTES)


def found_among(ids: np.ndarray, among: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Which ids are among sorted ones, and where; 0 where they are not."""
    known = key_bytes(among)
    if not len(known):
        return np.zeros(len(ids), bool), np.zeros(len(ids), np.int64)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    found = known[at] == ids
    return found, np.where(found, at, 0)


class ExactDuplicates(DuplicateStep):
    """Drops records that repeat another one. The one with the smallest id stays, and the detail names it."""

    reason: ClassVar[str] = "duplicate"

    by: Literal["pair", "source", "target"] = Field(
        "pair", description="what must be equal: both sides, or one side whatever the other is; the language too"
    )
    fold: list[Fold] = Field(
        ["case", "white_space", "punctuation"],
        description="differences that do not count; [] compares the texts as they stand. Numbers count by default, "
        "as they are often all that tells two pairs apart",
    )

    def measure(self, pairs: pa.Table) -> pa.Table:
        keys = pair_keys(pairs, SIDES if self.by == "pair" else (self.by,), self.fold)
        ids = ids_of(pairs)
        names = (*ID_COLUMNS, *KEY_COLUMNS)
        return pa.table(dict(zip(names, (*ids.T, *keys.T), strict=True)))

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        records = InOrderOfIds(Measured.of(measured))
        goes, of = repeating(records)
        records.write(state, goes, of)
