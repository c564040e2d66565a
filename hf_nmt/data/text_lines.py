"""Lines of a UTF-8 text file, plain or gzip, as translators count them: only a line feed ends a line.

Python's text mode and `str.splitlines` also split at a carriage return, U+0085, U+2028 or a vertical tab. In parallel
text one such split moves all later lines out of alignment, so files are read as bytes.
"""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hf_nmt.config_keys import nearest
from hf_nmt.errors import DataError

# No sentence is this long. A file without line feeds must not be read into memory as a single line.
MAX_LINE_BYTES = 16 * 2**20
_BLOCK_BYTES = 2**17

_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF8_MARK = b"\xef\xbb\xbf"
# How other files begin, and what to do with them.
_OTHER_FILES = {
    b"\x1f\x8b": "packed by gzip. Unpack it: gunzip; or let its name end in .gz",
    b"BZh91AY&SY": "packed by bzip2. Unpack it: bunzip2",
    b"\xfd7zXZ\0": "packed by xz. Unpack it: unxz",
    b"\x28\xb5\x2f\xfd": "packed by zstd. Unpack it: unzstd",
    b"PK\x03\x04": "packed by zip, as .docx and .xlsx files are too. Unpack it, or save it as plain text",
    b"PAR1\x15": "a Parquet file. Give it as path, with format=parquet",
    b"%PDF-": "a PDF file. Save its text as plain text",
}
# What gzip raises of a file that is cut short, changed, or no gzip file.
_NOT_UNPACKED = (gzip.BadGzipFile, EOFError, zlib.error)


def existing_file(path: str | Path) -> Path:
    """The path, if a file is there.

    Raises:
        DataError: no file is there; the nearest name in its folder, of a file or folder, is offered.
    """
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; a file is needed here.")
    if path.exists():
        raise DataError(
            f"{path}: this is a pipe or a device; a file is needed here, as it is read more than once. Write the text "
            "to a file first."
        )
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no such file, and no folder {path.parent}.")
    near = nearest(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    hint = f" Did you mean {path.with_name(near)}?" if near else ""
    raise DataError(f"{path}: there is no such file.{hint}")


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedIOBase]:
    """The contents of a file, unpacked where its name ends in `.gz`.

    Raises:
        DataError: the file cannot be read, or is not a whole gzip file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except _NOT_UNPACKED as error:
        raise _damaged(str(path), None, error) from error
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}.") from error


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a file without their ends (LF or CR LF) and without a byte order mark at the start.

    Raises:
        DataError: with file and line: the file is missing, empty, not gzip, not UTF-8, binary, or holds a carriage
            return inside a line.
    """
    return itertools.chain.from_iterable(_some_lines(path))


def _some_lines(path: str | Path) -> Iterator[Sequence[str]]:
    path = existing_file(path)
    number = offset = 0
    with open_bytes(path) as file:
        try:
            for block in _blocks(file):
                lines = _plain_lines(block) if offset else None  # the start of a file may be a byte order mark
                for some in [lines] if lines else ([line] for line in _lines_one_by_one(path, block, number, offset)):
                    number += len(some)
                    yield some
                offset += len(block)
        except _NOT_UNPACKED as error:
            raise _damaged(str(path), number, error) from error
    if number == 0:
        raise DataError(f"{path}: the file is empty.")


def _blocks(file: io.BufferedIOBase) -> Iterator[bytes]:
    """Some whole lines at a time; what is too long for a line comes without its end."""
    rest = b""
    while read := file.read1(_BLOCK_BYTES):
        rest += read
        end = rest.rfind(b"\n") + 1
        if len(rest) - end >= MAX_LINE_BYTES:
            end = len(rest)
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _plain_lines(block: bytes) -> list[str] | None:
    """What `_lines_one_by_one` yields, in a fraction of its time; None where it may refuse a line."""
    if len(block) >= MAX_LINE_BYTES or b"\0" in block:
        return None
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        if "\r" in text:
            return None
    return text.removesuffix("\n").split("\n")


def _lines_one_by_one(path: Path, block: bytes, before: int, offset: int) -> Iterator[str]:
    """Lines of a block that `before` lines and `offset` bytes of the file stand before."""
    for number, (line, _) in enumerate(decoded_lines(io.BytesIO(block), str(path), before, offset), before + 1):
        if not line:  # a byte order mark and nothing else
            continue
        text = line.removesuffix("\n")
        text = text.removesuffix("\r") if text != line else text
        _refuse_carriage_return(path, text, number)
        yield text


def decoded_lines(stream: io.BufferedIOBase, name: str, first: int = 0, offset: int = 0) -> Iterator[tuple[str, int]]:
    """Yield the lines of UTF-8 text with their ends, and how many bytes each took. A byte order mark is left out.

    Args:
        stream: where to read.
        name: what errors call it.
        first, offset: lines and bytes before what the stream gives. A byte order mark, and other encodings, are looked
            for at the start of the file alone.

    Raises:
        DataError: a line that is no UTF-8 text, with its number; a damaged gzip file.
    """
    for number in itertools.count(first + 1):
        try:
            raw = stream.readline(MAX_LINE_BYTES)
        except _NOT_UNPACKED as error:
            raise _damaged(name, number - 1, error) from error
        if not raw:
            return
        num_bytes = len(raw)
        is_cut = num_bytes == MAX_LINE_BYTES and not raw.endswith(b"\n")
        if number == 1:
            _refuse_other_encodings(name, raw)
            raw = raw.removeprefix(_UTF8_MARK)
        text = _decode(name, raw, number, offset + num_bytes - len(raw), is_cut=is_cut)
        yield text, num_bytes
        offset += num_bytes


def _damaged(name: str, number: int | None, error: Exception) -> DataError:
    place = "" if number is None else f"after line {number} "
    return DataError(
        f"{name}: the gzip file cannot be unpacked {place}({error}). It may be cut short; copy it again, or rename it "
        "if it is not compressed."
    )


def _refuse_other_encodings(name: str, start: bytes) -> None:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            raise DataError(
                f"{name}: this is {encoding} text (it opens with that byte order mark). Convert it: "
                f"iconv -f {encoding} -t UTF-8 {Path(name).name} > converted"
            )
    for opening, told in _OTHER_FILES.items():
        if start.startswith(opening):
            raise DataError(f"{name}: this is no text but {told}.")


def _decode(name: str, raw: bytes, number: int, offset: int, *, is_cut: bool) -> str:
    if b"\0" in raw:
        raise DataError(
            f"{name}, line {number}: there is a NUL byte (byte {offset + raw.index(0)} of the file). This is binary "
            f"data or UTF-16, not UTF-8 text.{_without_mark(name, raw) if number == 1 else ''}"
        )
    if is_cut:
        raise DataError(
            f"{name}, line {number}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB. A file of one sentence a "
            "line is needed here."
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}, line {number}: this is not UTF-8: byte 0x{raw[error.start]:02X} at byte {offset + error.start} "
            f"of the file. If the file is in an older encoding, convert it, for instance: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {Path(name).name} > converted"
        ) from error


def _without_mark(name: str, start: bytes) -> str:
    """What to do with UTF-16 that has no byte order mark; nothing where the text is none."""
    for encoding, empty in (("UTF-16LE", 1), ("UTF-16BE", 0)):
        halves = start[empty:200:2], start[1 - empty : 200 : 2]
        if halves[0].count(0) > len(halves[0]) // 2 and 0 not in halves[1]:
            return f" Convert it: iconv -f {encoding} -t UTF-8 {Path(name).name} > converted"
    return ""


def _refuse_carriage_return(path: Path, line: str, number: int) -> None:
    if "\r" in line:
        raise DataError(
            f"{path}, line {number}: there is a carriage return inside it (character {line.index(chr(13)) + 1}). "
            "Some tools take it for the end of a line, which would shift all later pairs. Remove it, or, in a file "
            "with old Macintosh line ends, turn it into a line feed: tr '\\r' '\\n'"
        )


def aligned_lines(paths: Sequence[str | Path]) -> Iterator[tuple[str, ...]]:
    """Yield line 1 of every file, then line 2, and so on.

    Raises:
        DataError: the files differ in their number of lines; the message holds every count and, where the lengths of
            the lines tell it, the place where they stop matching. Also whatever `read_lines` refuses.
    """
    files = [read_lines(path) for path in paths]
    for number, lines in enumerate(itertools.zip_longest(*files)):
        if None in lines:
            counts = [
                number + (line is not None) + sum(1 for _ in file) for line, file in zip(lines, files, strict=True)
            ]
            raise _unequal(paths, counts)
        yield lines


def aligned_texts(paths: Sequence[str | Path], rows: int) -> Iterator[list[list[str]]]:
    """Likewise, so many lines of each file at a time, which are read before the first of them is there.

    Raises:
        DataError: as `aligned_lines`.
    """
    files = [read_lines(path) for path in paths]
    number = 0
    while any(texts := [list(itertools.islice(file, rows)) for file in files]):
        if len({len(side) for side in texts}) > 1:
            counts = [number + len(side) + sum(1 for _ in file) for side, file in zip(texts, files, strict=True)]
            raise _unequal(paths, counts)
        number += len(texts[0])
        yield texts


def _unequal(paths: Sequence[str | Path], counts: list[int]) -> DataError:
    shorter = counts.index(min(counts))
    longer = counts.index(max(counts))
    listed = ", ".join(f"{path} has {count:,} lines" for path, count in zip(paths, counts, strict=True))
    place = suspicious_line(read_lines(paths[longer]), read_lines(paths[shorter]))
    hint = f" The lengths of the lines stop matching near line {place:,}: look there first." if place else ""
    return DataError(f"{listed}. Line n of one file must be the translation of line n of the other.{hint}")


def suspicious_line(first: Iterator[str], second: Iterator[str]) -> int | None:
    """The line (from 1) after which two texts no longer look aligned, or None where lengths do not tell.

    Translations have correlated lengths. With z the standardised logarithm of a line's length, the products z1 * z2
    have mean rho > 0 while the lines are aligned and about 0 afterwards; the change lies where the sum of
    (product - 0.3) is largest. 0.3 is half of the rho of a noisy corpus (0.6).
    """
    lengths = array("i"), array("i")
    for pair in zip(first, second, strict=False):
        for side, line in zip(lengths, pair, strict=True):
            side.append(len(line))
    if len(lengths[0]) < 20:
        return None
    logs = np.log1p(np.stack([np.frombuffer(side, dtype=np.int32) for side in lengths]))
    spread = logs.std(axis=1, keepdims=True)
    if not spread.all():
        return None
    products = np.prod((logs - logs.mean(axis=1, keepdims=True)) / spread, axis=0)
    sums = np.cumsum(products - 0.3)
    change = int(sums.argmax()) + 1 if sums.max() > 0 else 0
    # In a text that never matched, or that matches to its end, the sum has no honest peak inside.
    matched = change >= 10 and products[:change].mean() > 0.3
    return change + 1 if matched and change < len(products) else None
