"""Readers of the file formats that parallel text comes in. Each streams its input as `Pair`s in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet

from hf_nmt.config_keys import nearest
from hf_nmt.data.text_lines import aligned_lines, aligned_texts, existing_file, open_bytes, read_lines
from hf_nmt.errors import DataError

ROWS_AT_A_TIME = 10_000


class Pair(NamedTuple):
    """One record as it was read.

    Attributes:
        number: line, row or translation unit, from 1.
        source: None where a record of several languages lacks this one.
        target: likewise; equals the first of `references` where there are any.
        references: all translations, or None where the corpus has a single one.
        other: further columns by name.
    """

    number: int
    source: str | None
    target: str | None
    references: list[str] | None
    other: dict[str, Any]


@dataclass
class Corpus:
    """An opened corpus.

    Attributes:
        name: what messages call it.
        unit: what `Pair.number` counts.
        pairs: the records, read once.
        other: Arrow types of the further columns; None where the first record tells them.
        texts: where every pair is two texts and nothing more, what reads them in place of `pairs`: so many of each
            side at a time.
    """

    name: str
    unit: str
    pairs: Iterator[Pair]
    other: dict[str, pa.DataType] | None = field(default_factory=dict)
    texts: Callable[[int], Iterator[list[list[str]]]] | None = None

    def at(self, number: int) -> str:
        return f"{self.name}, {self.unit} {number}"


@dataclass(frozen=True)
class Wanted:
    """Which column or language is which side.

    Attributes:
        columns: of source and target, as the user named them; None leaves it to the usual names.
        languages: codes of source and target, None where unknown.
    """

    columns: tuple[str | None, str | None] = (None, None)
    languages: tuple[str | None, str | None] = (None, None)


# Columns


def find_columns(names: Sequence[str], wanted: Wanted, where: str) -> tuple[str, str]:
    """Names of the source and the target column; `translation.de` means the key `de` inside the column `translation`.

    The usual names are `source`/`target`, then the language code, then the code inside `translation`.

    Raises:
        DataError: a column is missing, with the nearest name.
    """
    found: list[str] = []
    for side, column, language in zip(("source", "target"), wanted.columns, wanted.languages, strict=True):
        usual = [side, *([language, f"translation.{language}"] if language else [])]
        # A corpus with several references may name no target: the first reference is the target.
        usual += ["references"] if side == "target" else []
        name = column if column in names else next((name for name in usual if name in names and not column), None)
        if name is None:
            near = nearest(column or language or side, [one for one in names if one not in (*found, *wanted.columns)])
            hint = f" Did you mean {near!r}?" if near and column else f" Set {side}_column to one of them."
            asked = f"no column {column!r}" if column else f"no column for the {side} (looked for {', '.join(usual)})"
            raise DataError(f"{where}: there is {asked}. Columns: {_listed(names)}.{hint}")
        found.append(name)
    if found[0] == found[1]:
        raise DataError(f"{where}: the column {found[0]!r} cannot be both source and target.")
    return found[0], found[1]


def column_names(record: dict[str, Any]) -> list[str]:
    """Names of a record's columns, with those inside `translation` written as `translation.<language>`."""
    nested = record.get("translation")
    inner = [f"translation.{key}" for key in nested] if isinstance(nested, dict) else []
    return [name for name in record if name != "translation" or not inner] + inner


def _record_pairs(records: Iterable[tuple[int, dict[str, Any]]], wanted: Wanted, where: Callable) -> Iterator[Pair]:
    """Pairs of records whose columns are those of the first record."""
    columns: tuple[str, str] | None = None
    for number, record in records:
        if columns is None:
            columns = find_columns(column_names(record), wanted, where(number))
            paths = [column.split(".") if column not in record else [column] for column in columns]
            used = {path[0] for path in paths} | ({"references"} if "references" in record else set())
        values = []
        for column, path in zip(columns, paths, strict=True):
            value: Any = record
            for step in path:
                if not isinstance(value, dict) or step not in value:
                    names = column_names(record)
                    near = nearest(column, [name for name in names if name not in columns])
                    hint = f" Did you mean {near!r}?" if near else ""
                    raise DataError(
                        f"{where(number)}: there is no column {column!r}. Columns: {_listed(names)}.{hint}"
                    )
                value = value[step]
            values.append(value)
        source, target = values
        references = record.get("references")
        if references is not None:
            target = references[0] if columns[1] == "references" and references else target
            texts = isinstance(references, list) and all(isinstance(text, str) for text in references)
            if not texts or not references or references[0] != target:
                raise DataError(
                    f"{where(number)}: 'references' must be a list of texts whose first equals the target, here "
                    f"{_cut(references)} and target {_cut(target)}."
                )
        for side, value in (("source", source), ("target", target)):
            if not isinstance(value, str | None):
                raise DataError(f"{where(number)}: the {side} must be text, here it is {_cut(value)}.")
        other = {name: value for name, value in record.items() if name not in used}
        if clash := {"source", "target"} & other.keys():
            raise DataError(
                f"{where(number)}: the column {clash.pop()!r} would be overwritten by {' and '.join(columns)}. Rename "
                "it in the file."
            )
        yield Pair(number, source or "", target or "", references, other)


def _listed(names: Sequence[str]) -> str:
    """For messages: a file without a header has whole sentences here."""
    return ", ".join(name if len(name) <= 30 else f"{name[:30]}..." for name in names) or "none"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).removesuffix(".")


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


# Formats


def read_aligned(source: str, targets: Sequence[str]) -> Corpus:
    """Line n of every target file translates line n of the source file."""

    def pairs() -> Iterator[Pair]:
        for number, (text, *references) in enumerate(aligned_lines([source, *targets]), 1):
            yield Pair(number, text, references[0], references if len(references) > 1 else None, {})

    texts = functools.partial(aligned_texts, [source, *targets]) if len(targets) == 1 else None
    return Corpus(" + ".join([source, *targets]), "line", pairs(), texts=texts)


def read_delimited(path: Path, wanted: Wanted, *, delimiter: str) -> Corpus:
    """TSV (every tab separates, quotes are text) or CSV (RFC 4180 quotes).

    Columns given as numbers (from 1) mean that there is no header. Otherwise the first line is one, with the names
    given or the usual ones.

    Raises:
        DataError: the first line does not hold the names: a header with others and a sentence pair look alike. Or
            numbers are given and the first line holds the usual names.
    """

    def rows() -> Iterator[tuple[int, list[str]]]:
        if delimiter == "\t":
            yield from ((number, line.split("\t")) for number, line in enumerate(read_lines(path), 1))
            return
        reader = csv.reader((line + "\n" for line in read_lines(path)), strict=True)
        try:
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: this is not valid CSV: {error}. A quote may be open since an "
                "earlier line. Quotes stand around a whole field and are doubled inside it."
            ) from error

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in table:
            if len(row) != len(names):
                raise DataError(
                    f"{path}, line {number}: {len(row)} columns instead of {len(names)} as in the first line. A "
                    "tab or comma may stand inside a text, or a line be empty or cut; mend it, or take the line out."
                )
            yield number, dict(zip(names, row, strict=True))

    table = rows()
    first_number, first = next(table)
    where = f"{path}, line {first_number}"
    header, columns = True, wanted
    if any(column and column.isdecimal() for column in wanted.columns):
        header = False
        for side, column in zip(("source", "target"), wanted.columns, strict=True):
            if column is None or not column.isdecimal() or not 1 <= int(column) <= len(first):
                given = f"{side}_column={column}" if column else f"no {side}_column"
                raise DataError(
                    f"{where}: {given} was given. A file without a header takes both columns by number, here from 1 "
                    f"to {len(first)}; one with a header takes names."
                )
        source, target = (f"column_{int(str(column))}" for column in wanted.columns)
        columns = Wanted((source, target))
        usual = None
        with contextlib.suppress(DataError):
            usual = find_columns(first, Wanted(languages=wanted.languages), where)
        if usual is not None:
            raise DataError(
                f"{where}: the first line is a header ({', '.join(usual)}), but numbers are for files without one. "
                f"Give the names: source_column={usual[0]} target_column={usual[1]}."
            )
    else:
        try:
            find_columns(first, wanted, where)
        except DataError as error:
            raise DataError(
                f"{error} A file without a header takes numbers: source_column=1 target_column=2."
            ) from None
    names = first if header else [f"column_{index}" for index in range(1, len(first) + 1)]
    if len(set(names)) != len(names):
        raise DataError(f"{where}: two columns of the header have the same name: {', '.join(names)}.")
    columns = Wanted(find_columns(names, columns, where))
    if not header:
        table = itertools.chain([(first_number, first)], table)
    pairs = _record_pairs(records(), columns, lambda number: f"{path}, line {number}")
    return Corpus(str(path), "line", pairs, other=None)


_LIST_TO_LINES = " A file with one large list becomes lines by: jq -c '.[]'"


def read_jsonl(path: Path, wanted: Wanted) -> Corpus:
    """One JSON object a line, with flat columns or `{"translation": {"de": ..., "en": ...}}`."""

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(read_lines(path), 1):
            try:
                record = json.loads(line)
            except RecursionError:
                raise DataError(
                    f"{path}, line {number}: the JSON is nested too deeply to be read. Each line holds one "
                    "object with the texts of a pair."
                ) from None
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}: this is not valid JSON: {error}. Each line holds one whole object."
                    f"{_LIST_TO_LINES if line.startswith('[') else ''}"
                ) from error
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}, line {number}: each line must hold one JSON object, here it is {_cut(record)}."
                    f"{_LIST_TO_LINES}"
                )
            yield number, record

    pairs = _record_pairs(records(), wanted, lambda number: f"{path}, line {number}")
    return Corpus(str(path), "line", pairs, other=None)


def read_tables(name: str, schema: pa.Schema, tables: Iterable[pa.RecordBatch | pa.Table], wanted: Wanted) -> Corpus:
    """Rows of Arrow data: a Parquet file, a saved dataset, a dataset of the Hub."""

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        rows = (table.to_pylist() for table in tables)
        while True:
            try:
                held = next(rows, None)
            except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
                raise DataError(
                    f"{name}: what comes after row {number} cannot be read ({_first_line(error)}). The file may be "
                    "damaged; copy it again, or make it anew."
                ) from error
            if held is None:
                return
            for record in held:
                number += 1
                yield number, record

    if len({*schema.names}) != len(schema.names):
        raise DataError(f"{name}: two columns have the same name: {_listed(schema.names)}. Rename one of them.")

    empty: dict[str, Any] = {column.name: None for column in schema}
    for column in schema:
        if column.name == "translation" and pa.types.is_struct(column.type):
            empty["translation"] = {inner.name: None for inner in column.type}
    columns = find_columns(column_names(empty), wanted, name)
    used = {column.split(".")[0] for column in columns} | {"references"}
    pairs = _record_pairs(records(), Wanted(columns), lambda number: f"{name}, row {number}")
    return Corpus(name, "row", pairs, {column.name: column.type for column in schema if column.name not in used})


def read_parquet(path: Path, wanted: Wanted) -> Corpus:
    try:
        file = pyarrow.parquet.ParquetFile(existing_file(path))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: this is not a Parquet file, or not a whole one ({_first_line(error)}). Copy it again, or "
            "make it anew."
        ) from error
    return read_tables(str(path), file.schema_arrow, file.iter_batches(ROWS_AT_A_TIME), wanted)


# TMX

_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
# Inline elements whose contents are codes of the original document, not text (TMX 1.4b, 2.2).
_CODES = {"bpt", "ept", "it", "ph", "ut"}


def read_tmx(path: Path, wanted: Wanted) -> Corpus:
    """Translation units of a TMX file. Units that lack one of the two languages come with None on that side.

    A code without a region (`pt`) takes any region, and a code with one (`pt-BR`) takes a segment without; an exact
    match goes first. White space around a segment is layout, not text.
    """
    existing_file(path)
    if None in wanted.languages:
        raise DataError(f"{path}: a TMX file holds languages by code; set source_language and target_language.")

    def pairs() -> Iterator[Pair]:
        seen: set[str] = set()
        number = found = 0
        try:
            with open_bytes(path) as file:
                open_elements: list[ElementTree.Element] = []
                for event, element in ElementTree.iterparse(file, events=("start", "end")):
                    if event == "start":
                        open_elements.append(element)
                        continue
                    open_elements.pop()
                    # TMX has no namespace, but some tools write one.
                    element.tag = element.tag.rpartition("}")[2]
                    if element.tag == "tu":
                        if not open_elements:
                            raise DataError(
                                f"{path}: the file is a single unit (<tu>). A TMX file is <tmx> with a <body> "
                                "of units."
                            )
                        number += 1
                        segments = _segments(element)
                        seen.update(segments)
                        texts = [
                            _segment_of(segments, str(language), f"{path}, unit {number}")
                            for language in wanted.languages
                        ]
                        found += None not in texts
                        yield Pair(number, texts[0], texts[1], None, {})
                        open_elements[-1].clear()  # else the tree of the whole file would stay in memory
        except ElementTree.ParseError as error:
            line, column = error.position
            raise DataError(
                f"{path}, line {line}: this is not well-formed XML (column {column + 1}): {error}."
            ) from error
        except RecursionError:
            raise DataError(f"{path}, unit {number}: its elements are nested too deeply to be read.") from None
        except LookupError as error:
            raise DataError(f"{path}: the file names an encoding that is not known here ({error}).") from error
        if not number:
            raise DataError(f"{path}: there are no translation units (<tu>) in the file.")
        if not found:
            raise DataError(
                f"{path}: no unit holds both {wanted.languages[0]!r} and {wanted.languages[1]!r}. Languages in the "
                f"file: {', '.join(sorted(filter(None, seen))) or 'none is named'}."
            )

    return Corpus(str(path), "unit", pairs())


def _segments(unit: ElementTree.Element) -> dict[str, str]:
    """Text of every language of a unit, by its code as written."""
    texts: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        segment = variant.find("seg")
        language = variant.get(_XML_LANGUAGE) or variant.get("lang") or ""
        texts.setdefault(language, "" if segment is None else "".join(_text(segment)).strip())
    return texts


def _text(element: ElementTree.Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag not in _CODES:
            yield from _text(child)
        yield child.tail or ""


def _segment_of(segments: dict[str, str], language: str, where: str) -> str | None:
    wanted = language.lower().replace("_", "-")
    codes = {code: code.lower().replace("_", "-") for code in segments}
    exact = [code for code, plain in codes.items() if plain == wanted]
    base = wanted.partition("-")[0]
    near = [
        code for code, plain in codes.items() if plain.partition("-")[0] == base and (plain == base or wanted == base)
    ]
    matches = exact[:1] or near
    if len(matches) > 1:
        raise DataError(
            f"{where}: {' and '.join(matches)} both match the language {language!r}. Name one with its region."
        )
    return segments[matches[0]] if matches else None
