"""Lines and rows to translate: what is read, where it goes on, what is refused."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from hf_nmt.errors import DataError
from hf_nmt.generation.inputs import Input, beside, read_lines

ROWS = [("A dog.", "en", "de"), ("Un chien.", "fr", "de"), ("A cat\u2028, two.", None, "fr"), ("", None, None)]
JSONL = "".join(
    json.dumps({"id": 7, "source": text, "source_language": source, "target_language": target}) + "\n"
    for text, source, target in ROWS
)
TSV = "source_language\tid\tsource\ttarget_language\n" + "".join(
    f"{source or ''}\t7\t{text}\t{target or ''}\n" for text, source, target in ROWS
)


def read(text: str, input_format: str, **resumed):
    return list(read_lines(io.BytesIO(text.encode()), "in", input_format, **resumed))


@pytest.mark.parametrize(("text", "input_format", "header"), [(JSONL, "jsonl", 0), (TSV, "tsv", 1)])
def test_rows_have_their_own_languages_and_go_on_anywhere(text, input_format, header):
    lines = read(text, input_format)
    assert [(line.text, *line.languages) for line in lines] == ROWS
    assert [line.number for line in lines] == [1 + header + row for row in range(4)]
    assert sum(line.num_bytes for line in lines) == len(text.encode())
    for done in range(1, 5):
        offset = sum(line.num_bytes for line in lines[:done])
        assert read(text, input_format, done=done, offset=offset) == lines[done:]
    assert read(text.replace("\n", "\r\n"), input_format)[1].text == "Un chien."
    assert read("\ufeff" + text, input_format)[0].text == "A dog."


def test_columns_of_languages_may_be_missing_and_a_line_of_text_is_whatever_it_is():
    assert [line.languages for line in read("source\na\nb\n", "tsv")] == [(None, None)] * 2
    assert read('{"source": "a"}', "jsonl")[0].languages == (None, None)
    assert [line.text for line in read(JSONL, "text")] == JSONL.split("\n")[:-1]
    assert read("", "tsv") == read("", "jsonl") == read("source\ttarget_language\n", "tsv") == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jsonl", "jsonl"), ("a.jsonl.gz", "jsonl"), ("a.tsv", "tsv"), ("a.jsonl.de", "text"), ("jsonl", "text"),
        (None, "text"),
    ],
)  # fmt: skip
def test_the_format_goes_by_the_ending(tmp_path, name, found):
    path = None if name is None else tmp_path / name
    assert Input(path).format == found and Input(path, "tsv").format == "tsv"


def test_rows_in_a_file_that_is_not_called_so_are_no_text(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text(JSONL)
    with pytest.raises(DataError, match="rows.txt, line 1: this is a row of JSON Lines.* Set input_format=jsonl to"):
        assert Input(path).described
    assert Input(path, "text").num_lines == Input(path, "jsonl").num_lines == 4
    path.write_text('{"a": 1}\n{not JSON\n')
    with Input(path).lines() as lines:
        assert [line.text for line in lines] == ['{"a": 1}', "{not JSON"]
    with Input(path).lines(1, 9) as lines:
        assert [line.text for line in lines] == ["{not JSON"]


def test_a_file_is_described_once_it_was_read_through(tmp_path):
    path = tmp_path / "rows.tsv.gz"
    path.write_bytes(gzip.compress(TSV.encode()))
    source = Input(path)
    assert source.described["lines"] == source.num_lines == 4
    assert source.described["language_pairs"] == [["en", "de"], ["fr", "de"], [None, "fr"], [None, None]]
    with source.lines() as lines:
        assert [line.text for line in lines] == [text for text, *_ in ROWS]
    assert "language_pairs" not in Input(path, "text").described and Input(path, "text").num_lines == 5
    assert Input(None).described is None and Input(None).num_lines is None


@pytest.mark.parametrize(
    ("text", "input_format", "told"),
    [
        ('{"source": "a"}\nA dog.\n', "jsonl", "in, line 2: not an object of JSON"),
        ('{"source": "a"}\n\n', "jsonl", "in, line 2: not an object of JSON"),
        ('["a"]\n', "jsonl", "in, line 1: an object with a text under source is needed"),
        ('{"text": "a"}\n', "jsonl", "in, line 1: an object with a text under source is needed"),
        ('{"source": "a", "target_language": "german"}\n', "jsonl", "in, line 1: target_language: given 'german', wh"),
        ('{"source": "a", "source_language": 3}\n', "jsonl", "in, line 1: source_language: given '3', which is no"),
        ('{"source": "a\\ud800"}\n', "jsonl", r"in, line 1: the source holds half a surrogate pair \('.ud800'"),
        ("A dog.\tde\n", "tsv", "in: the first line of a TSV file names its columns, .* source; it is 'A dog.*de'"),
        ("source\tsource\na\tb\n", "tsv", "in: the first line of a TSV file names its columns, each once"),
        ("source\ttarget_language\na\tde\nb\n", "tsv", "in, line 3: there are 1 columns, but the first line names 2"),
        ("source\ttarget_language\na\tGerman\n", "tsv", "in, line 2: target_language: given 'German'.*mean de?"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_refused_with_its_line(text, input_format, told):
    with pytest.raises(DataError, match=told):
        read(text, input_format)


@pytest.mark.parametrize("done", [0, 1])
def test_a_byte_that_is_no_text_is_told_by_its_place_in_the_file(done):
    header, first = b"source\ttarget_language\n", b"a\tde\n"
    offset = len(header + first) if done else 0
    with pytest.raises(DataError, match="in, line 3: this is not UTF-8: byte 0xFF at byte 28 of the file"):
        list(read_lines(io.BytesIO(header + first + b"\xff\tde\n"), "in", "tsv", done=done, offset=offset))


def test_a_value_of_each_source_or_one_of_all():
    given = {"one": "x", "each": ["p", None], "none": None}
    assert list(beside(iter("ab"), given)) == [("a", "x", "p", None), ("b", "x", None, None)]
    with pytest.raises(DataError, match="each: 2 are given, and there are more sources; give one for each."):
        list(beside("abc", given))
    with pytest.raises(DataError, match="each: 2 are given for 1 sources; give one for each."):
        list(beside("a", given))
