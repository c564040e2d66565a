"""A stream gives what `load_pairs` gives, each time it is read, and refuses what it refuses."""

from __future__ import annotations

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet
import pytest
from small_corpus import PAIRS, SOURCES, TARGETS, lines, load_from, rows_of, two_files, write
from test_readers import BAD_TABLES, FORMATS, tmx

from hf_nmt.data import readers, streams
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.data.streams import PairStream, stream_pairs
from hf_nmt.errors import ConfigError, DataError


def stream_from(source_language="de", target_language="en", **settings) -> PairStream:
    return stream_pairs(CorpusSettings(**settings), source_language=source_language, target_language=target_language)


def hub_folder(folder):
    (folder / "hub").mkdir()
    records = [{"translation": {"de": source, "en": target}} for source, target in PAIRS]
    with gzip.open(folder / "hub" / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines(map(json.dumps, records)))
    return {"path": str(folder / "hub"), "format": "hub", "split": "train"}


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    for module, name in ((readers, "ROWS_AT_A_TIME"), (streams, "_ROWS_AT_A_TIME")):
        monkeypatch.setattr(module, name, 3)


@pytest.mark.parametrize("name", [*FORMATS, "tmx", "hub", "built-in"])
def test_a_stream_gives_the_loaded_rows_each_time(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    languages = ("ko", "en") if name == "built-in" else ("de", "en")
    if name == "built-in":
        settings = {"path": "controlled/tiny", "split": "train", "max_rows": 8}
    elif name == "tmx":
        settings = {"path": tmx(tmp_path)} if isinstance(tmx(tmp_path), str) else tmx(tmp_path)
    else:
        settings = hub_folder(tmp_path) if name == "hub" else FORMATS[name](tmp_path)
    loaded = load_pairs(
        CorpusSettings(**settings), source_language=languages[0], target_language=languages[1], cache_dir=tmp_path
    ).to_list()
    stream = stream_from(*languages, **settings)
    assert len(loaded) >= 7
    assert list(stream) == list(stream) == loaded
    assert stream.head(4, cache_dir=tmp_path).to_list() == loaded[:4]


def test_further_columns_references_and_languages_come_along(tmp_path):
    records = [
        {"source": s, "target": t, "references": [t, t + "!"], "source_language": "de", "target_language": c}
        for s, t, c in zip(SOURCES, TARGETS, ["en", "nl"] * 4, strict=False)
    ]
    path = write(tmp_path / "c.jsonl", lines(map(json.dumps, records)))
    assert list(stream_from(path=path)) == load_from(tmp_path, path=path).to_list() == records


def test_dropped_pairs_are_counted_and_do_not_move_the_others(tmp_path):
    rows = [("a", "b"), ("", "c"), ("d", "e"), (" ", "f"), ("g", "h"), ("i", "j")]
    path = write(tmp_path / "c.tsv", "source\ttarget\n" + lines(map("\t".join, rows)))
    stream = stream_from(path=path, empty="drop")
    assert rows_of(stream) == [rows[0], rows[2], rows[4], rows[5]]
    read = stream.tables()
    assert [row["source"] for batch in read for row in batch.to_pylist()] == ["a", "d", "g", "i"]
    assert (read.kept, dict(read.dropped)) == (4, {"empty": 2})
    assert rows_of(stream_from(path=path, empty="drop", max_rows=3)) == [rows[0], rows[2], rows[4]]


@pytest.mark.parametrize("name", BAD_TABLES)
def test_what_cannot_be_loaded_cannot_be_streamed_and_is_told_alike(tmp_path, name):
    file, text, message = BAD_TABLES[name]
    with pytest.raises(DataError, match=message):
        list(stream_from(path=write(tmp_path / file, text)))


def test_a_bad_line_far_into_a_file_is_told_after_the_rows_before_it(tmp_path):
    path = write(tmp_path / "c.jsonl", lines(json.dumps({"de": f"s{n}", "en": f"t{n}"}) for n in range(7)) + "{\n")
    given = []
    with pytest.raises(DataError, match=r"c\.jsonl, line 8: this is not valid JSON"):
        for row in stream_from(path=path):
            given.append(row["source"])
    assert given == [f"s{n}" for n in range(6)]


def test_an_empty_side_is_told_where_it_is_met(tmp_path):
    names = {"source": write(tmp_path / "a", "x\n\n\ny\n"), "target": write(tmp_path / "b", "x\nz\n\ny\n")}
    with pytest.raises(DataError, match=r"1 pair has an empty side \(line 2\).*set empty=drop"):
        list(stream_from(**names))


@pytest.mark.parametrize("names", [("train.de", "train.en"), ("train.de.gz", "train.en.gz")])
def test_files_that_do_not_match_are_refused_before_anything_is_read(tmp_path, names):
    settings = two_files(tmp_path, *names)
    write(tmp_path / names[1], lines(TARGETS[:-1]))
    with pytest.raises(DataError, match=r"train\.de.* has 7 lines, .*train\.en.* has 6 lines\. Line n of one file"):
        stream_from(**settings)
    assert rows_of(stream_from(**settings, max_rows=6)) == PAIRS[:6]  # as when it is loaded, the rest is not looked at


def test_missing_files_and_idle_settings_are_refused_before_anything_is_read(tmp_path):
    settings = two_files(tmp_path)
    with pytest.raises(DataError, match=r"there is no such file\. Did you mean .*train\.de"):
        stream_from(source=str(tmp_path / "trein.de"), target=settings["target"])
    path = write(tmp_path / "c.jsonl", "{}")
    with pytest.raises(ConfigError, match=r"split would change nothing: .* is a single jsonl file"):
        stream_from(path=path, split="train")
    with pytest.raises(ConfigError, match=r"split is needed for the Hub dataset 'owner/name', such as train"):
        stream_from(path="owner/name")


def test_a_hub_dataset_that_cannot_be_had_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"nor a dataset that could be loaded from the Hub .*is the network there"):
        stream_from(path=str(tmp_path / "none"), format="hub", split="train")


def test_the_hash_goes_by_contents_and_reading_not_by_path(tmp_path):
    settings = two_files(tmp_path)
    moved = two_files(tmp_path, "other.de", "other.en")
    first = stream_from(**settings).content_hash
    assert re.fullmatch(r"[0-9a-f]+", first) and stream_from(**moved).content_hash == first
    found = {
        first,
        stream_from(**settings, max_rows=3).content_hash,
        stream_from(**settings, empty="drop").content_hash,
    }
    write(tmp_path / "other.en", lines(reversed(TARGETS)))
    assert len(found | {stream_from(**moved).content_hash}) == 4


def test_a_null_of_a_parquet_file_is_an_empty_side(tmp_path):
    table = pa.table({"de": ["a", "b"], "en": ["c", None]})
    pa.parquet.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet: 1 pair has an empty side \(row 2\)"):
        list(stream_from(path=str(tmp_path / "c.parquet")))


def code_rows(codes):
    return [{"source": f"s{n}", "target": f"t{n}", "target_language": code} for n, code in enumerate(codes)]


@pytest.mark.parametrize(("name", "place"), [("c.jsonl.gz", "line 6"), ("c.parquet", "row 6"), ("c.tsv", "line 7")])
def test_rows_in_other_languages_are_refused_where_they_stand(tmp_path, name, place):
    rows, path = code_rows(["en", "nl", "en", "nl", "en", "xx", "yy"]), tmp_path / name
    if name == "c.parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif name == "c.tsv":
        write(path, lines(map("\t".join, [rows[0], *(row.values() for row in rows)])))
    else:
        write(path, lines(map(json.dumps, rows)))
    stream = stream_from(path=str(path))
    assert len(list(stream)) == 7
    asked = []

    def problem_of(source, target):
        asked.append((source, target))
        return f"no {target}" if target == "xx" else ""

    stream.check_languages(problem_of)
    with pytest.raises(DataError, match=rf"{re.escape(name)}, {place}: no xx$"):
        list(stream)
    assert asked == [(None, "en"), (None, "nl"), (None, "xx")]


def test_a_language_that_is_no_text_is_told(tmp_path):
    path = write(tmp_path / "c.jsonl", lines(map(json.dumps, code_rows(["en", ["en"]]))))
    stream = stream_from(path=path)
    stream.check_languages(lambda source, target: "")
    with pytest.raises(DataError, match=r"c\.jsonl, line 2: target_language must be text, here it is \['en'\]"):
        list(stream)
