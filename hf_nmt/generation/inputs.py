"""What is translated: lines of text, or rows that name their languages, window by window.

Rows are objects of JSON Lines, or lines under the header of a TSV file, with `source` and, where they are told,
`source_language` and `target_language`, as in the texts that models are trained and scored on.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_nmt import artifacts, language
from hf_nmt.data.text_lines import decoded_lines
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS, Translator

InputFormat = Literal["auto", "text", "jsonl", "tsv"]

_MISSING = object()


@dataclass(frozen=True)
class Line:
    """A line of input.

    Attributes:
        text: what is translated: the line without its end, or the `source` of its row.
        end: LF, CR LF, or nothing at the end of a file.
        num_bytes: of the whole line; of the first below a header, those of the header too.
        number: of the line in its file, from 1.
        source_language, target_language: codes that the row names.
        article: of the row.
        before: sentences that stand before the text, for a model that reads them.
    """

    text: str
    end: str
    num_bytes: int
    number: int = 0
    source_language: str | None = None
    target_language: str | None = None
    article: str | None = None
    before: str = ""

    @property
    def languages(self) -> tuple[str | None, str | None]:
        return self.source_language, self.target_language


def open_input(path: Path | None) -> io.BufferedIOBase:
    """A file, unpacked where its name ends in `.gz`; None for the standard input, which closing leaves open."""
    if path is None:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")


@dataclass(frozen=True)
class Input:
    """A file, plain or `.gz`, or the standard input.

    Args:
        path: None for the standard input.
        format: of its lines; "auto" goes by the ending of the name, and takes the standard input for text.
    """

    path: Path | None
    format: InputFormat = "auto"
    is_guess: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.format == "auto":
            ending = "" if self.path is None else Path(self.path.name.removesuffix(".gz")).suffix
            formats: dict[str, InputFormat] = {".jsonl": "jsonl", ".tsv": "tsv"}
            object.__setattr__(self, "format", formats.get(ending, "text"))
            object.__setattr__(self, "is_guess", True)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def num_lines(self) -> int | None:
        """Lines of text, or rows, that a file holds."""
        return self.described["lines"] if self.described is not None else None

    @contextlib.contextmanager
    def lines(self, done: int = 0, offset: int = 0) -> Iterator[Iterator[Line]]:
        """Open it; see `read_lines`."""
        with open_input(self.path) as stream:
            lines = read_lines(stream, self.name, self.format, done=done, offset=offset)
            yield self._not_rows(lines) if self.is_guess and self.format == "text" and not done else lines

    def _not_rows(self, lines: Iterator[Line]) -> Iterator[Line]:
        """The same lines, taken for text by their file's name alone; refused where the first is a row."""
        first = next(lines, None)
        if first is None:
            return
        row = None
        if first.text.startswith("{"):
            with contextlib.suppress(ValueError):
                row = json.loads(first.text)
        if isinstance(row, dict) and "source" in row:
            raise DataError(
                f"{self.name}, line 1: this is a row of JSON Lines, {first.text[:80]}. Set input_format=jsonl to "
                "translate the text under its source, or input_format=text to translate whole lines."
            )
        yield first
        yield from lines

    @functools.cached_property
    def described(self) -> dict[str, Any] | None:
        """Size, hash and number of lines of a file, and the language pairs that its rows name; None for the standard
        input.

        Raises:
            DataError: as `read_lines`, which is better known before an hour of translating.
        """
        if self.path is None:
            return None
        count, pairs = 0, dict[tuple[str | None, str | None], None]()
        with self.lines() as lines:
            for count, line in enumerate(lines, 1):  # noqa: B007
                pairs[line.languages] = None
        named = {} if self.format == "text" else {"language_pairs": [list(pair) for pair in pairs]}
        return {"bytes": self.path.stat().st_size, "sha256": artifacts.hash_file(self.path), "lines": count, **named}


def read_lines(
    stream: io.BufferedIOBase, name: str, input_format: InputFormat = "text", *, done: int = 0, offset: int = 0
) -> Iterator[Line]:
    """Lines of UTF-8 text, or rows; only LF ends a line, and a CR before it belongs to the end. See `decoded_lines`.

    Args:
        stream: at its start.
        name: what errors call it.
        input_format: not "auto".
        done, offset: lines given before, and their bytes: where to go on.

    Raises:
        DataError: a line that is no UTF-8 text, no row, or names what is no code of a language, with its number.
    """
    header, columns = None, []
    if input_format == "tsv":
        header = next(_text_lines(stream, name), None)
        columns = _columns(header, name)
    if offset:
        stream.seek(offset)
    first = done + (header is not None)
    for line in _text_lines(stream, name, first, offset or (header.num_bytes if header is not None else 0)):
        extra = header.num_bytes if header is not None and line.number == 2 else 0
        if input_format == "text":
            yield line
            continue
        row = _json_row(line, name) if input_format == "jsonl" else _tsv_row(line, columns, name)
        codes = {column: row.get(column) or None for column in LANGUAGE_COLUMNS}
        for column, code in codes.items():
            if code is not None and (told := language.problem_of(str(code))):
                raise DataError(f"{name}, line {line.number}: {column}: {told}")
        article = row.get("article")
        yield Line(
            row["source"],
            line.end,
            line.num_bytes + extra,
            line.number,
            codes["source_language"],
            codes["target_language"],
            None if article is None else str(article),
        )


def _text_lines(stream: io.BufferedIOBase, name: str, first: int = 0, offset: int = 0) -> Iterator[Line]:
    for number, (line, num_bytes) in enumerate(decoded_lines(stream, name, first, offset), first + 1):
        body = line.removesuffix("\n")
        body = body.removesuffix("\r") if body != line else body
        yield Line(body, line[len(body) :], num_bytes, number)


def _columns(header: Line | None, name: str) -> list[str]:
    columns = [] if header is None else header.text.split("\t")
    if header is not None and ("source" not in columns or len(set(columns)) < len(columns)):
        raise DataError(
            f"{name}: the first line of a TSV file names its columns, each once, and one of them source; it is "
            f"{header.text[:80]!r}. Write such a line, such as source, a tab, target_language; or set "
            "input_format=text to translate whole lines."
        )
    return columns


def _tsv_row(line: Line, columns: Sequence[str], name: str) -> dict[str, Any]:
    cells = line.text.split("\t")
    if len(cells) != len(columns):
        raise DataError(
            f"{name}, line {line.number}: there are {len(cells)} columns, but the first line names {len(columns)}: "
            f"{', '.join(columns)}."
        )
    return dict(zip(columns, cells, strict=True))


def _json_row(line: Line, name: str) -> dict[str, Any]:
    try:
        row = json.loads(line.text)
    except ValueError as error:
        raise DataError(
            f"{name}, line {line.number}: not an object of JSON ({error}). Each line holds one, such as "
            '{"source": "A text.", "target_language": "de"}; input_format=text translates whole lines.'
        ) from error
    if not isinstance(row, dict) or not isinstance(row.get("source"), str):
        raise DataError(f"{name}, line {line.number}: an object with a text under source is needed: {line.text[:80]}")
    try:
        row["source"].encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}, line {line.number}: the source holds half a surrogate pair ({row['source'][error.start]!r}), "
            "which is no character. Take it out, or write the character itself."
        ) from error
    return row


def check_languages(translator: Translator, source: Input) -> None:
    """Raise ConfigError for every language pair that rows of a file name and the translator does not have; those of
    the standard input cannot be known before."""
    findings = []
    for pair in (source.described or {}).get("language_pairs", []):
        try:
            translator.translate([], **dict(zip(LANGUAGE_COLUMNS, pair, strict=True)))
        except ConfigError as error:
            findings += [f"input: {finding}" for finding in error.findings]
    if findings:
        raise ConfigError(list(dict.fromkeys(findings)))


def windows(texts: Iterable[Any], largest: int, first: int | None = None) -> Iterator[list[Any]]:
    """Consecutive lists of texts, read as they are asked for: the first of `first`, each next one twice as large,
    up to `largest`."""
    iterator, size = iter(texts), min(largest, first or largest)
    while window := list(itertools.islice(iterator, size)):
        yield window
        size = min(largest, 2 * size)


def beside(sources: Iterable[Any], columns: Mapping[str, str | Sequence[Any] | None]) -> Iterator[tuple[Any, ...]]:
    """Each source with its value of every column; a text or None is that of all sources.

    Raises:
        DataError: a column has more or fewer values than there are sources.
    """
    values = [
        itertools.repeat(column) if column is None or isinstance(column, str) else iter(column)
        for column in columns.values()
    ]
    count = 0
    for count, source in enumerate(sources, 1):
        row = (source, *(next(column, _MISSING) for column in values))
        if _MISSING in row:
            short = [*columns][row.index(_MISSING) - 1]
            raise DataError(f"{short}: {count - 1} are given, and there are more sources; give one for each.")
        yield row
    for name, column in columns.items():
        if column is not None and not isinstance(column, str) and len(column) > count:
            raise DataError(f"{name}: {len(column)} are given for {count} sources; give one for each.")
