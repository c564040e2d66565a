"""Lines of text files: what ends one, and what is refused with file and line."""

from __future__ import annotations

import gzip
import io
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import SOURCES, lines, load_from, write

from hf_nmt.data import text_lines
from hf_nmt.data.text_lines import decoded_lines, read_lines
from hf_nmt.errors import DataError, NmtError


def corpus(folder, source: bytes | None, target: bytes = b"one\ntwo\nthree\n", name="a.txt"):
    """Settings for two files of these bytes; None: the file is not there."""
    if source is not None:
        (folder / name).write_bytes(source)
    (folder / "b.txt").write_bytes(target)
    return {"source": str(folder / name), "target": str(folder / "b.txt")}


BAD_FILES = {
    "unequal": (b"eins\nzwei\n", r"a\.txt has 2 lines, .*b\.txt has 3 lines\. Line n of one file must be the transl"),
    "empty": (b"", r"a\.txt: the file is empty\."),
    "only a byte order mark": (b"\xef\xbb\xbf", r"a\.txt: the file is empty\."),
    "latin-1": (
        b"eins\nzw\xf6lf\ndrei\n",
        r"a\.txt, line 2: this is not UTF-8: byte 0xF6 at byte 7 .*iconv -f WINDOWS-1252",
    ),
    "utf-16": ("eins\n".encode("utf-16"), r"a\.txt: this is UTF-16 text .*iconv -f UTF-16"),
    "utf-32": ("eins\n".encode("utf-32"), r"a\.txt: this is UTF-32 text"),
    "utf-16 without mark": (
        "eins\n".encode("utf-16-le"),
        r"line 1: there is a NUL byte \(byte 1 .*binary data or UTF-16",
    ),
    "binary": (b"eins\n\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"a\.txt, line 2: this is not UTF-8: byte 0x89 at byte 5"),
    "lone CR": (b"eins\nzw\rei\ndrei\n", r"a\.txt, line 2: there is a carriage return inside it \(character 3\)"),
    "old Macintosh": (b"eins\rzwei\rdrei\r", r"a\.txt, line 1: there is a carriage return inside it .*tr '\\r' '\\n'"),
    "one endless line": (b"x" * (16 * 2**20 + 1), r"a\.txt, line 1: the line is longer than 16 MiB"),
    "missing": (None, r"a\.txt: there is no such file\. Did you mean .*b\.txt\?"),
    "no text at all": (b"\n\n\n", r"3 pairs have an empty side"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_text_file_is_refused(tmp_path, name):
    contents, message = BAD_FILES[name]
    with pytest.raises(DataError, match=message):
        load_from(tmp_path, **corpus(tmp_path, contents))


def test_a_bad_gzip_file_is_refused(tmp_path):
    for contents in (b"not packed\n", gzip.compress(lines(SOURCES * 100).encode())[:-20]):
        with pytest.raises(DataError, match=r"a\.gz: the gzip file cannot be unpacked .*copy it again"):
            load_from(tmp_path, **corpus(tmp_path, contents, name="a.gz"))


def test_a_missing_folder_and_a_folder_for_a_file_are_refused(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"one\n")
    with pytest.raises(DataError, match=r"no such file, and no folder .*nowhere"):
        load_from(tmp_path, source=str(tmp_path / "nowhere" / "a"), target=str(tmp_path / "b.txt"))
    with pytest.raises(DataError, match="this is a folder; a file is needed here"):
        load_from(tmp_path, source=str(tmp_path), target=str(tmp_path / "b.txt"))


@pytest.mark.parametrize("lost", [40, 300, 980])
@pytest.mark.parametrize("side", [0, 1])
def test_the_place_of_a_lost_line_is_told(tmp_path, lost, side):
    draw = random.Random(lost)
    words = [draw.randint(2, 40) for _ in range(1000)]
    texts = [["wort " * n for n in words], ["word " * max(1, n + draw.randint(-2, 2)) for n in words]]
    del texts[side][lost]
    names = {"source": write(tmp_path / "a", lines(texts[0])), "target": write(tmp_path / "b", lines(texts[1]))}
    with pytest.raises(DataError, match="1,000 lines.*999 lines|999 lines.*1,000 lines") as error:
        load_from(tmp_path, **names)
    place = int(re.search(r"stop matching near line ([\d,]+)", str(error.value))[1].replace(",", ""))
    assert abs(place - (lost + 1)) <= 20


def test_no_place_is_invented_where_lengths_do_not_tell(tmp_path):
    names = {"source": write(tmp_path / "a", "ja\n" * 100), "target": write(tmp_path / "b", "yes\n" * 99)}
    with pytest.raises(DataError, match="100 lines.*99 lines") as error:
        load_from(tmp_path, **names)
    assert "near line" not in str(error.value)


def test_lines_are_read_one_by_one(tmp_path):
    path = write(tmp_path / "a", b"eins\nzwei\n\xff\n")
    reader = read_lines(path)
    assert [next(reader), next(reader)] == ["eins", "zwei"]
    with pytest.raises(NmtError, match="line 3: this is not UTF-8: byte 0xFF at byte 10"):
        next(reader)


def told(reader):
    """The lines of a reader, and what it refused after them."""
    found: list[str] = []
    try:
        found.extend(iter(lambda: next(reader, None), None))
    except DataError as error:
        return found, str(error)
    return found, None


def one_by_one(path):
    """As `read_lines`, but with `readline` of the file, and a carriage return alone is told in no more words."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        number = 0
        for number, (line, _) in enumerate(decoded_lines(file, str(path)), 1):
            text = line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")
            if "\r" in text:
                raise DataError(f"{path}, line {number}: there is a carriage return inside it")
            if line:
                yield text
            else:
                number = 0
    if number == 0:
        raise DataError(f"{path}: the file is empty.")


PIECES = [b"\n", b"\r\n", b"\r", b"a", "\u00fc\u2028".encode(), b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\0", b"\xc3"]


@given(
    pieces=st.lists(st.sampled_from(PIECES[:5]) | st.sampled_from(PIECES), max_size=14),
    block=st.integers(1, 12),
    longest=st.integers(1, 9),
    cut=st.integers(0, 12) | st.none(),
)
@settings(max_examples=400, deadline=None)
def test_blocks_hold_what_their_lines_hold(tmp_path_factory, pieces, block, longest, cut):
    """Read block by block, lines and refusals are those of reading line by line, for damaged gzip files too."""
    path = tmp_path_factory.getbasetemp() / ("pieces" if cut is None else "pieces.gz")
    contents = b"".join(pieces)
    path.write_bytes(contents if cut is None else gzip.compress(contents)[: -cut or None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_lines, "_BLOCK_BYTES", block)
        patch.setattr(text_lines, "MAX_LINE_BYTES", longest)
        found, refused = told(read_lines(path))
        expected, refusal = told(one_by_one(path))
    assert found == expected
    assert (refused is None) == (refusal is None) and (refused or "").startswith(refusal or "")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_no_line_is_split_where_it_is_as_long_as_a_line_may_be(tmp_path, monkeypatch, mark, more):
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 20)
    first = mark + b"x" * (20 - len(mark) + more)
    path = write(tmp_path / "a", first + b"\ntwo\n")
    for reader in (read_lines(path), decoded_lines(io.BytesIO(first + b"\ntwo\n"), "a")):
        found, refused = told(reader)
        if more < 0:
            assert len(found) == 2 and refused is None
        else:
            assert not found and "line 1: the line is longer than" in refused
