"""One corpus in every format gives the same rows, and a table that cannot be used is refused with file and line."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.sax.saxutils import escape

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from small_corpus import (
    PAIRS,
    SOURCES,
    TARGETS,
    lines,
    load_from,
    rows_of,
    saved_dataset,
    saved_dataset_dict,
    tsv,
    two_files,
    write,
)

from hf_nmt.data.description import content_hash
from hf_nmt.data.manifest import recorded_steps
from hf_nmt.errors import DataError

# Formats: each writes PAIRS and returns the settings that read them back


def two_files_without_last_line_end(folder):
    return {
        "source": write(folder / "a.txt", "\n".join(SOURCES)),
        "target": write(folder / "b.txt", "\n".join(TARGETS)),
    }


def two_files_with_byte_order_mark(folder):
    return {
        "source": write(folder / "a.txt", "\ufeff" + lines(SOURCES)),
        "target": write(folder / "b.txt.gz", "\ufeff" + lines(TARGETS)),
    }


def tsv_swapped_by_number(folder):
    text = lines(f"x\t{target}\t{source}" for source, target in PAIRS)
    return {"path": write(folder / "c.tsv.gz", text), "source_column": "3", "target_column": "2"}


def tsv_with_header(folder):
    return {"path": write(folder / "c.tsv", "en\tde\n" + lines(f"{t}\t{s}" for s, t in PAIRS))}


def csv_file(folder, header=("source", "target")):
    text = io.StringIO()
    csv.writer(text).writerows([header, *PAIRS])
    return {"path": write(folder / "c.csv", text.getvalue())}


def csv_with_named_columns(folder):
    return {**csv_file(folder, ("Deutsch", "English")), "source_column": "Deutsch", "target_column": "English"}


def tmx(folder, encoding="utf-8", codes=("de-DE", "EN"), name="c.tmx"):
    head = f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE tmx SYSTEM 'tmx14.dtd'><tmx><header/><body>"
    units = [
        "\n<tu><prop type='x'>y</prop>"
        + "".join(
            f"<tuv xml:lang='{code}'>\n  <seg>{escape(text)}</seg></tuv>"
            for code, text in zip(codes, pair, strict=True)
        )
        + "</tu>"
        for pair in PAIRS
    ]
    return {"path": write(folder / name, (head + "".join(units) + "</body></tmx>").encode(encoding))}


def jsonl(folder):
    return {"path": write(folder / "c.jsonl", lines(json.dumps({"source": s, "target": t}) for s, t in PAIRS))}


def jsonl_translation(folder):
    records = ({"translation": {"de": s, "en": t, "fr": "?"}} for s, t in PAIRS)
    return {"path": write(folder / "c.json", lines(json.dumps(record, ensure_ascii=False) for record in records))}


def jsonl_by_language(folder):
    return {"path": write(folder / "c.jsonl.gz", lines(json.dumps({"en": t, "de": s}) for s, t in PAIRS))}


def parquet(folder):
    pa.parquet.write_table(pa.table({"source": SOURCES, "target": TARGETS}), folder / "c.parquet")
    return {"path": str(folder / "c.parquet")}


def parquet_translation(folder):
    table = pa.table({"translation": [{"de": s, "en": t} for s, t in PAIRS]})
    pa.parquet.write_table(table, folder / "c.parquet")
    return {"path": str(folder / "c.parquet")}


FORMATS = {
    "two files": two_files,
    "two gzip files": lambda folder: two_files(folder, "a.gz", "b.gz"),
    "two files, CR LF": lambda folder: two_files(folder, end="\r\n"),
    **{
        function.__name__: function
        for function in (
            two_files_without_last_line_end,
            two_files_with_byte_order_mark,
            tsv,
            tsv_swapped_by_number,
            tsv_with_header,
            csv_file,
            csv_with_named_columns,
            jsonl,
            jsonl_translation,
            jsonl_by_language,
            parquet,
            parquet_translation,
            saved_dataset,
            saved_dataset_dict,
        )
    },
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows_and_the_same_hash(tmp_path, name):
    dataset = load_from(tmp_path, **FORMATS[name](tmp_path))
    assert rows_of(dataset) == PAIRS
    assert dataset.cache_files, "the rows must lie on disk, memory-mapped"
    assert dataset.column_names[-2:] == ["source", "target"] or dataset.column_names[:2] == ["source", "target"]
    plain = dataset.select_columns(["source", "target"])
    assert content_hash(plain) == content_hash({"source": s, "target": t} for s, t in PAIRS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("codes", [("de-DE", "EN"), ("de", "en_GB"), ("DE-AT", "en")])
def test_tmx_gives_the_same_rows_but_for_layout_around_segments(tmp_path, encoding, codes):
    dataset = load_from(tmp_path, **tmx(tmp_path, encoding, codes))
    assert rows_of(dataset) == [(source.strip(), target.strip()) for source, target in PAIRS]


def test_tmx_leaves_out_inline_codes_and_counts_units_that_lack_a_language(tmp_path):
    body = (
        "<tu><tuv lang='de'><seg>Ein <bpt i='1'>&lt;b&gt;</bpt><hi>roter</hi><ept i='1'>x</ept> Ball<ph/>.</seg></tuv>"
        "<tuv lang='en'><seg>A red ball.</seg></tuv></tu>"
        "<tu><tuv lang='de'><seg>Nur Deutsch</seg></tuv><tuv lang='fr'><seg>Non</seg></tuv></tu>"
    )
    path = write(tmp_path / "c.tmx.gz", f"<tmx><body>{body}</body></tmx>")
    dataset = load_from(tmp_path, path=path)
    assert rows_of(dataset) == [("Ein roter Ball.", "A red ball.")]
    (step,) = recorded_steps(dataset)
    assert (step.kept, step.dropped) == (1, {"language_missing": 1})


@pytest.mark.parametrize("prefix", ["", "t:"])
def test_tmx_with_a_namespace_is_read_as_one_without(tmp_path, prefix):
    plain = Path(tmx(tmp_path)["path"]).read_text(encoding="utf-8").replace("<!DOCTYPE tmx SYSTEM 'tmx14.dtd'>", "")
    text = re.sub(r"<(/?)(?=\w)", rf"<\1{prefix}", plain)
    declaration = f"xmlns{prefix and ':t'}='http://www.lisa.org/tmx14'"
    path = write(tmp_path / "n.tmx", text.replace(f"<{prefix}tmx>", f"<{prefix}tmx {declaration}>"))
    assert rows_of(load_from(tmp_path, path=path)) == rows_of(load_from(tmp_path, **tmx(tmp_path)))


def test_line_ends_of_other_alphabets_stay_inside_lines(tmp_path):
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"
    dataset = load_from(tmp_path, source=write(tmp_path / "s", text + "\n"), target=write(tmp_path / "t", "one\r\n"))
    assert rows_of(dataset) == [(text, "one")]


def test_several_references(tmp_path):
    second = [text.upper() for text in TARGETS]
    names = two_files(tmp_path)
    names["target"] = [names["target"], write(tmp_path / "second.en", lines(second))]
    dataset = load_from(tmp_path, **names)
    assert dataset["references"][:] == [[a, b] for a, b in zip(TARGETS, second, strict=True)]
    assert dataset["target"][:] == TARGETS
    records = [{"source": s, "references": [t, t.upper()]} for s, t in PAIRS]
    path = write(tmp_path / "c.jsonl", lines(map(json.dumps, records)))
    assert content_hash(load_from(tmp_path, path=path)) == content_hash(dataset)
    dataset.to_parquet(tmp_path / "c.parquet")
    assert content_hash(load_from(tmp_path, path=str(tmp_path / "c.parquet"))) == content_hash(dataset)


def test_further_columns_are_kept_with_their_types(tmp_path):
    records = [
        {"de": s, "en": t, "domain": "news", "article": n, "score": n / 2, "tags": ["x"]}
        for n, (s, t) in enumerate(PAIRS)
    ]
    records[3]["score"] = None
    dataset = load_from(tmp_path, path=write(tmp_path / "c.jsonl", lines(map(json.dumps, records))))
    assert dataset["article"][:] == list(range(len(PAIRS))) and dataset["score"][3] is None
    assert {name: str(dataset.features[name].dtype) for name in ("domain", "article", "score")} == {
        "domain": "string",
        "article": "int64",
        "score": "float64",
    }
    assert dataset["tags"][0] == ["x"]
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "c.parquet")
    again = load_from(tmp_path, path=str(tmp_path / "c.parquet"))
    assert content_hash(again) == content_hash(dataset)
    text = "source\ttarget\tdomain\n" + lines(f"{s}\t{t}\tnews" for s, t in PAIRS)
    assert load_from(tmp_path, path=write(tmp_path / "c.tsv", text))["domain"][:] == ["news"] * len(PAIRS)


# Refusals

BAD_TABLES = {
    "JSON": (
        "c.jsonl",
        '{"source": "a", "target": "b"}\n{"source": "a"\n',
        r"c\.jsonl, line 2: this is not valid JSON",
    ),
    "JSON depth": ("c.jsonl", "[" * 200_000 + "]" * 200_000, r"line 1: the JSON is nested too deeply to be read"),
    "JSON list": ("c.json", "[1]\n", r"line 1: each line must hold one JSON object, here it is \[1\]\. .*jq -c"),
    "JSON column": (
        "c.jsonl",
        '{"sorce": "a", "target": "b"}\n',
        r"line 1: there is no column for the source \(looked for "
        r"source, de, translation\.de\)\. Columns: sorce, target\. Set source_column",
    ),
    "JSON column later": (
        "c.jsonl",
        '{"source": "a", "target": "b"}\n{"source": "a", "tarpet": "b"}\n',
        r"line 2: there is no column 'target'\. Columns: source, tarpet\. Did you mean 'tarpet'\?",
    ),
    "JSON language": (
        "c.jsonl",
        '{"translation": {"de": "a", "fr": "b"}}\n',
        r"no column for the target .*translation\.fr",
    ),
    "JSON language later": (
        "c.jsonl",
        '{"translation": {"de": "a", "en": "b"}}\n{"translation": {"de": "a"}}\n',
        r"line 2: there is no column 'translation\.en'\. Columns: translation\.de\.$",
    ),
    "JSON type": ("c.jsonl", '{"source": "a", "target": 3}\n', r"line 1: the target must be text, here it is 3"),
    "JSON new column": (
        "c.jsonl",
        '{"source": "a", "target": "b"}\n{"source": "a", "target": "b", "x": 1}\n',
        r"line 2: the column 'x' is not in the first record",
    ),
    "JSON other type": (
        "c.jsonl",
        '{"source": "a", "target": "b", "x": 1}\n{"source": "a", "target": "b", "x": "y"}\n',
        r"line 2: 'y' in the column 'x' is not of type int64",
    ),
    "JSON surrogate": (
        "c.jsonl",
        '{"source": "a", "target": "\\ud800"}\n',
        r"line 1: the target holds half a surrogate pair",
    ),
    "JSON NUL": ("c.jsonl", '{"source": "a", "target": "\\u0000"}\n', r"line 1: there is a NUL character"),
    "JSON references": (
        "c.jsonl",
        '{"source": "a", "target": "b", "references": ["c"]}\n',
        r"'references' must be a list of texts whose first equals the target",
    ),
    "TSV columns": ("c.tsv", "de\ten\na\tb\tc\n", r"c\.tsv, line 2: 3 columns instead of 2 as in the first line"),
    "TSV one column": ("c.tsv", "de\nb\n", r"line 1: there is no column for the target .*Columns: de"),
    "TSV header of unknown names": (
        "c.tsv",
        "german\tenglish\nja\tyes\n",
        r"c\.tsv, line 1: there is no column for the source .*Columns: german, english\. Set source_column to one of "
        r"them\. A file without a header takes numbers: source_column=1 target_column=2",
    ),
    "TSV header": ("c.tsv", "de\ten\tde\n", r"two columns of the header have the same name"),
    "CSV header": (
        "c.csv",
        "x,y\na,b\n",
        r"c\.csv, line 1: there is no column for the source .*source_column=1 target_col",
    ),
    "CSV quotes": ("c.csv", 'source,target\na,b\n"a"x,b\n', r"c\.csv, line 3: this is not valid CSV"),
    "TMX syntax": ("c.tmx", "<tmx><body>\n<tu></body></tmx>", r"c\.tmx, line 2: this is not well-formed XML"),
    "TMX unit alone": (
        "c.tmx",
        "<tu><tuv lang='de'><seg>x</seg></tuv><tuv lang='en'><seg>y</seg></tuv></tu>",
        r"c\.tmx: the file is a single unit \(<tu>\)\. A TMX file is <tmx> with a <body> of units",
    ),
    "TMX depth": (
        "c.tmx",
        f"<tmx><body><tu><tuv lang='de'><seg>{'<hi>' * 5000}{'</hi>' * 5000}</seg></tuv></tu></body></tmx>",
        r"c\.tmx, unit 1: its elements are nested too deeply",
    ),
    "TMX empty": ("c.tmx", "<tmx><body/></tmx>", r"there are no translation units"),
    "TMX languages": (
        "c.tmx",
        "<tmx><body><tu><tuv lang='fr'><seg>x</seg></tuv></tu></body></tmx>",
        r"no unit holds both 'de' and 'en'\. Languages in the file: fr",
    ),
    "TMX regions": (
        "c.tmx",
        "<tmx><body><tu><tuv lang='de'><seg>x</seg></tuv><tuv lang='en-GB'><seg>y</seg></tuv>"
        "<tuv lang='en-US'><seg>z</seg></tuv></tu></body></tmx>",
        r"unit 1: en-GB and en-US both match the language 'en'\. Name one with its region",
    ),
    "Parquet": ("c.parquet", "text", r"c\.parquet: this is not a Parquet file"),
    "unknown ending": (
        "c.docx",
        "text",
        r"c\.docx: the ending of the name does not tell the format\. Set format to tsv",
    ),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_refused(tmp_path, name):
    file, text, message = BAD_TABLES[name]
    with pytest.raises(DataError, match=message):
        load_from(tmp_path, path=write(tmp_path / file, text))


@pytest.mark.parametrize(
    ("numbers", "given"),
    [
        (("1", None), "no target_column"),
        (("1", "3"), "target_column=3"),
        (("0", "1"), "source_column=0"),
        (("1", "en"), "target_column=en"),
    ],
)
def test_numbers_of_columns_are_checked(tmp_path, numbers, given):
    columns = {**tsv(tmp_path), "source_column": numbers[0], "target_column": numbers[1]}
    message = (
        rf"c\.tsv, line 1: {given} was given\. A file without a header takes both columns by number, here from 1 to 2"
    )
    with pytest.raises(DataError, match=message):
        load_from(tmp_path, **columns)


@pytest.mark.parametrize("header", ["de\ten", "source\ttarget\tdomain"])
def test_a_header_is_no_sentence_pair(tmp_path, header):
    names = header.split("\t")
    path = write(tmp_path / "c.tsv", header + "\n" + "\t".join(["ja", "yes", "x"][: len(names)]) + "\n")
    message = rf"c\.tsv, line 1: the first line is a header \({names[0]}, {names[1]}\).*target_column={names[1]}\."
    with pytest.raises(DataError, match=message):
        load_from(tmp_path, path=path, source_column="1", target_column="2")


def test_a_named_column_that_is_missing_is_answered_with_the_nearest_name(tmp_path):
    path = write(tmp_path / "c.tsv", "german\tenglish\nja\tyes\n")
    with pytest.raises(
        DataError, match=r"there is no column 'germn'\. Columns: german, english\. Did you mean 'german'\?"
    ):
        load_from(tmp_path, path=path, source_column="germn", target_column="english")
    with pytest.raises(DataError, match=r"A file without a header takes numbers: source_column=1 target_column=2"):
        load_from(tmp_path, path=path, source_column="german", target_column="ennglish")
    with pytest.raises(DataError, match="'german' cannot be both source and target"):
        load_from(tmp_path, path=path, source_column="german", target_column="german")
