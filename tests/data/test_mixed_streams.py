"""Several streams as one: every row in its share and its languages, epoch after epoch, on from wherever one began."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from small_corpus import lines, write
from test_readers import FORMATS, tmx

from hf_nmt.data import mixed_streams, readers, streams
from hf_nmt.data.mixed_streams import MixedStream
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.data.streams import stream_pairs
from hf_nmt.errors import DataError

SIZES = {"de-en": 83, "fr-en": 10, "en-de": 31}


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(readers, "ROWS_AT_A_TIME", 3)
    monkeypatch.setattr(streams, "_ROWS_AT_A_TIME", 4)
    monkeypatch.setattr(mixed_streams, "_ROWS_AT_A_TIME", 10)


def write_parts(folder, sizes=SIZES, empty_at=()):
    """JSONL of numbered rows for each pair."""
    for name, size in sizes.items():
        rows = [{"source": f"{name} {n}", "target": "" if n in empty_at else f"t{n}", "id": n} for n in range(size)]
        write(folder / f"{name}.jsonl", lines(map(json.dumps, rows)))


def open_parts(folder, drawn=None, counts=None, **settings) -> MixedStream:
    parts = {}
    for name in SIZES:
        languages = name.split("-")
        corpus = CorpusSettings(path=str(folder / f"{name}.jsonl"), **settings)
        parts[name] = (*languages, stream_pairs(corpus, source_language=languages[0], target_language=languages[1]))
    return MixedStream(parts, counts or list(SIZES.values()), drawn)


def read(stream, start=None):
    reading = stream.tables(start)
    rows = [row for batch in reading for row in batch.to_pylist()]
    assert all(row["source"].split()[0] == f"{row['source_language']}-{row['target_language']}" for row in rows)
    return rows, json.loads(json.dumps(reading.end)), dict(reading.dropped)


def names_of(rows) -> Counter:
    return Counter(row["source"].split()[0] for row in rows)


@pytest.mark.parametrize("counts", [None, [50, 3, 100], [200, 10, 31], [1, 1, 1]])
def test_every_row_comes_once_an_epoch_whatever_was_counted(tmp_path, counts):
    write_parts(tmp_path)
    stream = open_parts(tmp_path, counts=counts)
    first, end, _ = read(stream)
    assert sorted(row["source"] for row in first) == sorted(
        f"{name} {n}" for name, size in SIZES.items() for n in range(size)
    )
    again, *_ = read(stream, end)
    assert first == again == list(stream) == read(open_parts(tmp_path, counts=counts))[0]


def test_the_streams_are_mixed_all_the_way(tmp_path):
    write_parts(tmp_path)
    rows, *_ = read(open_parts(tmp_path))
    total = sum(SIZES.values())
    for upto in range(total):
        found = names_of(rows[:upto])
        # Half a row by rounding at the end of a block of ten, and what lies within it.
        assert all(abs(found[name] - upto * size / total) < 1.6 for name, size in SIZES.items())
    for name in SIZES:
        own = [int(row["source"].split()[1]) for row in rows if row["source"].startswith(f"{name} ")]
        assert own == sorted(own)


@pytest.mark.parametrize("drawn", [[60, 30, 34], [10, 100, 14], [1, 1, 1]])
def test_drawn_rows_walk_through_each_stream_again_and_again(tmp_path, drawn):
    write_parts(tmp_path)
    stream, start, used = open_parts(tmp_path, drawn), None, Counter()
    for epoch in range(1, 8):
        rows, start, _ = read(stream, start)
        assert [names_of(rows)[name] for name in SIZES] == drawn
        used.update(row["source"] for row in rows)
        for (name, size), count in zip(SIZES.items(), drawn, strict=True):
            times = [used[f"{name} {n}"] for n in range(size)]
            assert times == sorted(times, reverse=True) and sum(times) == epoch * count
            assert max(times) - min(times) <= 1


def test_an_epoch_begins_where_the_last_one_ended_also_when_it_is_opened_anew(tmp_path, caplog):
    write_parts(tmp_path, empty_at=(2, 7, 30))
    kept, start = open_parts(tmp_path, [60, 30, 34], empty="drop"), None
    for _ in range(6):
        expected = read(kept, start)
        assert read(open_parts(tmp_path, [60, 30, 34], empty="drop"), start) == expected
        start = expected[1]
    assert not caplog.records
    # What was recorded holds, not what is counted or drawn now.
    other = open_parts(tmp_path, [1, 2, 3], [4, 5, 6], empty="drop")
    assert read(other, start)[0] == read(kept, start)[0]
    assert "other numbers of rows now; the run goes on with the shares it began with" in caplog.text


def test_a_reading_left_in_the_middle_disturbs_no_other(tmp_path):
    write_parts(tmp_path)
    stream = open_parts(tmp_path, [60, 30, 34])
    _, start, _ = read(stream)
    expected = read(open_parts(tmp_path, [60, 30, 34]), start)
    unfinished = iter(stream.tables(start))
    next(unfinished)
    assert read(stream, start) == expected


def test_dropped_rows_are_counted_once(tmp_path):
    write_parts(tmp_path, empty_at=(2, 7, 30))
    assert read(open_parts(tmp_path, empty="drop"))[2] == {"empty": 8}
    stream, start, dropped = open_parts(tmp_path, [166, 20, 62], empty="drop"), None, Counter()
    for _ in range(4):
        _, start, found = read(stream, start)
        dropped.update(found)
    # 664 of 80, 80 of 8 and 248 of 28 rows: 8, 10 and 8 whole readings, and some rows more of two of them.
    assert 8 * 3 + 9 * 2 + 8 * 3 <= dropped["empty"] <= 9 * 3 + 10 * 2 + 9 * 3


def test_what_changed_before_an_epoch_is_told_and_what_comes_later_may(tmp_path):
    write_parts(tmp_path)
    drawn = [60, 30, 34]
    _, start, _ = read(open_parts(tmp_path, drawn))
    path = tmp_path / "de-en.jsonl"
    records = path.read_text().splitlines()
    path.write_text(lines([*records[:70], records[0], *records[71:]]))
    assert names_of(read(open_parts(tmp_path, drawn), start)[0])["de-en"] == 60
    for changed in ([records[1], *records[1:]], records[:59]):
        path.write_text(lines(changed))
        with pytest.raises(
            DataError, match=r"the first 60 rows of data\.pairs\.de-en\.train have changed\. Bring the"
        ):
            read(open_parts(tmp_path, drawn), start)


def test_a_text_that_has_grown_goes_on_where_it_was(tmp_path):
    write_parts(tmp_path)
    path, size = tmp_path / "de-en.jsonl", SIZES["de-en"]
    records = path.read_text().splitlines()
    more = [json.dumps({"source": f"de-en {size + n}", "target": "x"}) for n in range(size)]
    for drawn in (size - 1, size):  # in the last batch, which is not full, and at its end
        path.write_text(lines(records))
        _, start, _ = read(open_parts(tmp_path, [drawn, 30, 34]))
        path.write_text(lines([*records, *more]))
        rows, *_ = read(open_parts(tmp_path, [drawn, 30, 34]), start)
        found = [row["source"] for row in rows if row["source"].startswith("de-en ")]
        assert found == [f"de-en {drawn + n}" for n in range(drawn)]


def test_a_broken_line_is_told_with_its_pair_file_and_line(tmp_path):
    write_parts(tmp_path)
    path = tmp_path / "en-de.jsonl"
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(
        DataError, match=r"^data\.pairs\.en-de\.train: .*en-de\.jsonl, line 32: this is not valid JSON"
    ):
        read(open_parts(tmp_path))


def test_rows_with_languages_of_their_own_are_refused(tmp_path):
    write_parts(tmp_path)
    record = {"source": "a", "target": "b", "source_language": "fr"}
    write(tmp_path / "fr-en.jsonl", json.dumps(record) + "\n")
    stream = open_parts(tmp_path)
    for use in (lambda: read(stream), lambda: stream.head(9, cache_dir=tmp_path)):
        with pytest.raises(DataError, match=r"^data\.pairs\.fr-en\.train: The corpus has a column source_language"):
            use()


def test_the_head_has_rows_of_each_stream(tmp_path):
    write_parts(tmp_path)
    head = open_parts(tmp_path).head(20, cache_dir=tmp_path)
    assert names_of(head.to_list()) == {"de-en": 13, "fr-en": 1, "en-de": 5}
    assert set(head.column_names) == {"source", "target", "source_language", "target_language"}


def test_the_hash_goes_by_contents_and_languages(tmp_path):
    write_parts(tmp_path)
    first = open_parts(tmp_path).content_hash
    assert open_parts(tmp_path, [1, 2, 3]).content_hash == first
    write(tmp_path / "fr-en.jsonl", json.dumps({"source": "a", "target": "b"}) + "\n")
    assert open_parts(tmp_path).content_hash != first


@pytest.mark.parametrize("name", [*FORMATS, "tmx"])
def test_rows_are_counted_without_reading_them(tmp_path, monkeypatch, name):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    languages = {"source_language": "de", "target_language": "en"}
    corpus = CorpusSettings(**(tmx if name == "tmx" else FORMATS[name])(tmp_path))
    rows = len(load_pairs(corpus, **languages, cache_dir=tmp_path))
    assert stream_pairs(corpus, **languages).count() == rows >= 7
    assert stream_pairs(corpus.model_copy(update={"max_rows": 3}), **languages).count() == 3
