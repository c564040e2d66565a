"""Files that hold no text, or damaged text: what the recipes that read text say of each, and what becomes of it.

Each either ends in one message, exit status 2 and nothing written, or in a version whose records and counted rejects
are all that was there.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from settings_walk.keys import recipe_module

from hf_nmt.config import launch

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TARGETS = [f"The {number} dogs run over a meadow that lies behind house {number}." for number in NUMBERS]
SOURCES = [f"Die Hunde {number} laufen \u00fcber eine Wiese hinter dem Haus {number}." for number in NUMBERS]
COUNT = len(NUMBERS)
STEPS = "steps=[{normalise: {}}, {empty: {}}, {lengths: {}}, {exact_duplicates: {}}]"


def lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


TEXT = lines(SOURCES)
NOISE = b"\xff" + random.Random(3).randbytes(3000)
ROWS = [{"source": source, "target": target} for source, target in zip(SOURCES, TARGETS, strict=True)]
TABLE = "source\ttarget\n" + "".join(f"{source}\t{target}\n" for source, target in zip(SOURCES, TARGETS, strict=True))


def jsonl(*more: object) -> bytes:
    return lines([one if isinstance(one, str) else json.dumps(one) for one in [*ROWS, *more]])


def parquet(table: pa.Table | None = None) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS) if table is None else table, file)
    return file.getvalue()


def columns(**values: object) -> bytes:
    return parquet(pa.table(values))


# By name of the file its contents, and what is said of it, or how many records are kept and dropped by reason.
SIDES: dict[str, tuple[bytes, str | dict[str, int]]] = {
    "text": (TEXT, {"kept": COUNT}),
    "binary": (NOISE, r"binary, line 1: (this is not UTF-8: byte 0x|there is a NUL byte)"),
    "binary_from_line_11_on": (
        TEXT + b"\0" + NOISE,
        r"line 11: there is a NUL byte \(byte \d+ .*binary data or UTF-16",
    ),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"png, line 1: this is not UTF-8: byte 0x89 at byte 0 "),
    "zip": (b"PK\x03\x04" + NOISE, r"zip: this is no text but packed by zip, as \.docx .*Unpack it"),
    "gzip_by_another_name": (gzip.compress(TEXT), r"this is no text but packed by gzip\. Unpack it: gunzip"),
    "parquet_in_place_of_text": (
        parquet(),
        r"this is no text but a Parquet file\. Give it as path, with ",
    ),
    "utf_16": (TEXT.decode().encode("utf-16"), r"utf_16: this is UTF-16 text .*iconv -f UTF-16 -t UTF-8 utf_16 >"),
    "utf_16_le": (TEXT.decode().encode("utf-16-le"), r"line 1: there is a NUL byte .*iconv -f UTF-16LE -t UTF-8"),
    "utf_16_be": (TEXT.decode().encode("utf-16-be"), r"line 1: there is a NUL byte .*iconv -f UTF-16BE -t UTF-8"),
    "utf_32": (TEXT.decode().encode("utf-32"), r"this is UTF-32 text .*iconv -f UTF-32"),
    "latin_1": (TEXT.decode().encode("latin-1"), r"line 1: this is not UTF-8: byte 0xFC .*iconv -f WINDOWS-1252"),
    "surrogates": (TEXT.replace(b"Hunde", b"\xed\xa0\x80"), r"line 1: this is not UTF-8: byte 0xED"),
    "byte_order_mark": (b"\xef\xbb\xbf" + TEXT, {"kept": COUNT}),
    "only_a_byte_order_mark": (b"\xef\xbb\xbf", r"only_a_byte_order_mark: the file is empty"),
    "nothing": (b"", r"nothing: the file is empty"),
    "nul": (TEXT.replace(b"Hunde", b"Hun\0de", 1), r"nul, line 1: there is a NUL byte \(byte 7 of the file\)"),
    "long_line": (b"x" * (10 * 2**20) + TEXT[30:], {"kept": COUNT - 1, "source_long": 1}),
    "endless_line": (b"x" * (16 * 2**20 + 5), r"endless_line, line 1: the line is longer than 16 MiB"),
    "crlf": (TEXT.replace(b"\n", b"\r\n"), {"kept": COUNT}),
    "mixed_ends": (TEXT.replace(b"\n", b"\r\n", 4), {"kept": COUNT}),
    "cr": (TEXT.replace(b"\n", b"\r"), r"cr, line 1: there is a carriage return .*tr '\\r' '\\n'"),
    "one_cr": (TEXT.replace(b" laufen", b"\rlaufen", 1), r"one_cr, line 1: there is a carriage return inside it"),
    "other_line_ends": (TEXT.replace(b" laufen", "\u2028laufen\x0b\x0c\x85".encode()), {"kept": COUNT}),
    "no_last_line_end": (TEXT[:-1], {"kept": COUNT}),
    "blank_lines": (b"\n" * COUNT, {"kept": 0, "source_empty": COUNT}),
    "lines_of_spaces": (" \t\u00a0\u3000\n".encode() * COUNT, {"kept": 0, "source_empty": COUNT}),
    "some_blank_lines": (lines(["", *SOURCES[1:]]), {"kept": COUNT - 1, "source_empty": 1}),
    "lines_missing": (lines(SOURCES[2:]), rf"lines_missing has {COUNT - 2} lines, targets has {COUNT} lines\. Line n"),
    "cut.gz": (
        gzip.compress(TEXT)[:-30],
        r"cut\.gz: the gzip file cannot be unpacked after line \d+ \(.*copy it again",
    ),
    "plain.gz": (TEXT, r"plain\.gz: the gzip file cannot be unpacked .*rename it if it is not compressed"),
    "with_a_tail.gz": (gzip.compress(TEXT) + b"tail", rf"cannot be unpacked after line {COUNT} "),
    "nothing.gz": (gzip.compress(b""), r"nothing\.gz: the file is empty"),
    "packed.gz": (gzip.compress(TEXT), {"kept": COUNT}),
}
PATHS: dict[str, tuple[bytes, str | dict[str, int]]] = {
    "c.tsv": (TABLE.encode(), {"kept": COUNT}),
    "one.tsv": (lines(TABLE.splitlines()[:2]), {"kept": 1}),
    "header_alone.tsv": (b"source\ttarget\n", r"header_alone\.tsv: there is not a single pair in it"),
    "no_header.tsv": (
        lines(TABLE.splitlines()[1:]),
        r"A file without a header takes numbers: inputs\.a\.source_c",
    ),
    "tab_more.tsv": (
        TABLE.encode() + b"a\tb\tc\n",
        r"line 12: 3 columns instead of 2 .*mend it, or take the",
    ),
    "tab_less.tsv": (TABLE.encode() + b"a\n", r"tab_less\.tsv, line 12: 1 columns instead of 2 as in the first line"),
    "blank_line.tsv": (TABLE.encode() + b"\n", r"blank_line\.tsv, line 12: 1 columns instead of 2"),
    "tabs.tsv": (TABLE.encode() + b"\t\n", {"kept": COUNT, "source_empty": 1}),
    "utf_16.tsv": (TABLE.encode("utf-16"), r"utf_16\.tsv: this is UTF-16 text"),
    "cut.tsv.gz": (gzip.compress(TABLE.encode())[:-20], r"cut\.tsv\.gz: the gzip file cannot be unpacked after line"),
    "open_quote.csv": (
        b'source,target\n"a,b\nc,d\n',
        r"line 3: this is not valid CSV: .*A quote may be open since",
    ),
    "long_field.csv": (b"source,target\n" + b"x" * 200_000 + b",y\n", r"line 2: this is not valid CSV: field larger"),
    "noise.csv": (NOISE, r"noise\.csv, line 1: (this is not UTF|there is a NUL)"),
    "c.jsonl": (jsonl(), {"kept": COUNT}),
    "cut_line.jsonl": (jsonl('{"source": "a", "tar'), r"cut_line\.jsonl, line 11: this is not valid JSON"),
    "blank_line.jsonl": (jsonl(""), r"blank_line\.jsonl, line 11: this is not valid JSON"),
    "number.jsonl": (jsonl({"source": 3, "target": "b"}), r"line 11: the source must be text, here it is 3"),
    "list.jsonl": (jsonl({"source": "a", "target": ["b"]}), r"line 11: the target must be text, here it is \['b'\]"),
    "no_field.jsonl": (jsonl({"source": "a"}), r"no_field\.jsonl, line 11: there is no column 'target'"),
    "null.jsonl": (jsonl({"source": "a", "target": None}), {"kept": COUNT, "target_empty": 1}),
    "deep.jsonl": (jsonl("[" * 100_000), r"line 11: the JSON is nested too deeply"),
    "large.jsonl": (jsonl({**ROWS[0], "source": "A large row.", "x": list(range(200_000))}), {"kept": COUNT + 1}),
    "digits.jsonl": (
        jsonl(f'{{"source": "a", "target": "b", "position": {"9" * 5000}}}'),
        r"line 11: this is not v",
    ),
    "position.jsonl": (jsonl({**ROWS[0], "position": 10**20}), r"line 11: .*position: given 1000.*less than"),
    "surrogate.jsonl": (jsonl({**ROWS[0], "target": "\ud800"}), r"line 11: the target holds half a surrogate pair"),
    "surrogate_of_a_field.jsonl": (jsonl({**ROWS[0], "domain": "\ud800"}), r"line 11: the domain holds half a surro"),
    "surrogate_of_a_reference.jsonl": (
        jsonl({**ROWS[0], "references": [TARGETS[0], "\ud800"]}),
        r"line 11: the references holds half a surrogate pair",
    ),
    "references.jsonl": (
        jsonl({**ROWS[0], "references": [TARGETS[0], 3]}),
        r"line 11: 'references' must be a list",
    ),
    "language.jsonl": (jsonl({**ROWS[0], "source_language": 3}), r"line 11: .*source_language: given 3"),
    "nul.jsonl": (jsonl({**ROWS[0], "source": "A new\0 row."}), {"kept": COUNT + 1}),
    "line_ends.jsonl": (jsonl({**ROWS[0], "source": "A new\r\n\nrow."}), {"kept": COUNT + 1}),
    "scalar.jsonl": (b"3\n", r"line 1: each line must hold one JSON object, here it is 3"),
    "one_list.json": (json.dumps(ROWS, indent=1).encode(), r"line 1: this is not valid JSON.*jq -c '\.\[\]'"),
    "utf_16.jsonl": (jsonl().decode().encode("utf-16"), r"this is UTF-16 text"),
    "c.parquet": (parquet(), {"kept": COUNT}),
    "cut.parquet": (parquet()[:-40], r"cut\.parquet: this is not a Parquet file, or not a whole one .*Copy it again"),
    "hole.parquet": (
        parquet()[:80] + bytes(60) + parquet()[140:],
        r"what comes after row 0 cannot be read .*be dama",
    ),
    "noise.parquet": (NOISE, r"noise\.parquet: this is not a Parquet file"),
    "nothing.parquet": (b"", r"nothing\.parquet: this is not a Parquet file"),
    "no_rows.parquet": (
        columns(source=pa.array([], "string"), target=pa.array([], "string")),
        r"not a single pair",
    ),
    "others.parquet": (
        columns(a=["x"], b=["y"]),
        r"no column for the source .*Columns: a, b\. Set source_col",
    ),
    "numbers.parquet": (columns(source=[1], target=["y"]), r"numbers\.parquet, row 1: the source must be text"),
    "no_utf_8.parquet": (
        columns(source=pa.array([b"\xff\xfe"]).view(pa.string()), target=["y"]),
        r"what comes after row 0 cannot be read \('utf-8' codec",
    ),
    "twice.parquet": (
        parquet(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["source", "target", "target"])),
        r"twice\.parquet: two columns have the same name",
    ),
    "nulls.parquet": (columns(source=[None, "a b"], target=["b a", "c d"]), {"kept": 1, "source_empty": 1}),
    "cut.tmx": (b"<tmx><body><tu>", r"cut\.tmx, line 1: this is not well-formed XML"),
    "noise.tmx": (NOISE, r"noise\.tmx, line 1: this is not well-formed XML"),
    "encoding.tmx": (b"<?xml version='1.0' encoding='no-such'?><tmx/>", r"names an encoding that is not known here"),
    "no_language.tmx": (b"<tmx><body><tu><tuv><seg>x</seg></tuv></tu></body></tmx>", r"in the file: none is named"),
    "a.docx": (b"text", r"a\.docx: the ending of the name does not tell the format\. Set format to tsv"),
}
CASES = {**SIDES, **PATHS}


@pytest.fixture
def told(monkeypatch, capsys) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs a recipe as its command line does: exit status, stdout, stderr."""
    log = logging.getLogger("hf_nmt")
    before = log.handlers[:], log.level, signal.getsignal(signal.SIGTERM)

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        log.handlers = []
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            launch(recipe_module(name).main)
        return int(leaving.value.code or 0), *capsys.readouterr()

    yield run
    log.handlers, log.level = before[:2]
    signal.signal(signal.SIGTERM, before[2])


def written(name: str) -> list[str]:
    """Writes the file of a case; returns the keys of a corpus that name it."""
    Path(name).write_bytes(CASES[name][0])
    Path("targets").write_bytes(lines(TARGETS))
    return [f"source={name}", "target=targets"] if name in SIDES else [f"path={name}"]


def prepare(*arguments: str) -> list[str]:
    return ["source_language=de", "target_language=en", "num_workers=1", STEPS, *arguments]


@pytest.mark.parametrize("name", CASES)
def test_text_is_refused_or_all_of_it_is_accounted_for(told, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    keys = written(name)
    status, out, err = told("prepare_data", *prepare(*(f"inputs.a.{key}" for key in keys)))
    expected = CASES[name][1]
    assert "Traceback" not in err
    if isinstance(expected, str):
        assert status == 2 and not out and err.splitlines()[-1].startswith("Error: ")
        assert re.search(expected, err.splitlines()[-1]), err
        assert {path.name for path in Path().iterdir()} <= {name, "targets", "processed_data"}
        assert not [path for path in Path().glob("processed_data/.work/*") if not path.name.endswith(".lock")]
        assert [path.name for path in Path().glob("processed_data/*")] in ([], [".work"])
        return
    assert status == 0, err
    folder = Path(out.strip())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    dropped = {reason: count for step in manifest["steps"] for reason, count in step["dropped"].items()}
    assert {"kept": manifest["rows"], **dropped} == expected
    assert pq.read_metadata(folder / "rejects.parquet").num_rows == sum(dropped.values())
    assert ("The split train holds no record" in err) == (not expected["kept"])


# Of each reader, what load_pairs and streams may meet far into a file.
TRAINED_ON = [
    "binary_from_line_11_on", "utf_16", "nul", "endless_line", "cr", "nothing", "lines_missing", "cut.gz",
    "gzip_by_another_name", "tab_more.tsv", "cut.tsv.gz", "open_quote.csv", "cut_line.jsonl", "number.jsonl",
    "no_field.jsonl", "surrogate.jsonl", "references.jsonl", "cut.parquet", "hole.parquet", "no_utf_8.parquet",
    "twice.parquet", "cut.tmx", "encoding.tmx",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAINED_ON)
def test_training_refuses_the_same(told, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    keys = [f"data.{split}.{key}" for split in ("train", "validation") for key in written(name)]
    status, out, err = told("train", "data.source_language=de", "data.target_language=en", "output_dir=runs", *keys)
    assert (status, out) == (2, "") and "Traceback" not in err
    assert re.search(str(CASES[name][1]).replace(r"inputs\.a", r"data\.train"), err.splitlines()[-1]), err
    assert not Path("runs").exists() and not list(Path("cache").rglob("*partial"))


def test_a_language_that_is_no_text_is_told_before_training(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    Path("c.jsonl").write_bytes(lines([json.dumps({**row, "source_language": 3}) for row in ROWS]))
    keys = [f"data.{split}.path=c.jsonl" for split in ("train", "validation")]
    status, _, err = told("train", "data.source_language=de", "data.target_language=en", *keys)
    assert status == 2 and "data.train: the column source_language must hold text, here it is 3." in err


PLACES = {
    "a folder": ("source=folder target=targets", r"folder: this is a folder; a file is needed here"),
    "a folder as path": ("path=folder", r"this folder was not written by Dataset\.save_to_disk"),
    "a folder as table": ("path=folder format=tsv", r"folder: this is a folder; a file is needed here"),
    "a pipe": ("path=pipe.tsv", r"pipe\.tsv: this is a pipe or a device; a file is needed here"),
    "a device": ("source=/dev/zero target=targets", r"/dev/zero: this is a pipe or a device"),
    "no file": ("path=c.tsx", r"c\.tsx: there is no such file\. Did you mean c\.tsv\?"),
    "an unreadable file": ("source=locked target=targets", r"locked: the file cannot be read: Permission denied"),
    "an unreadable table": ("path=locked format=tsv", r"locked: the file cannot be read: Permission denied"),
    "an unreadable Parquet file": ("path=locked format=parquet", r"locked: .*Permission denied"),
}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_is_refused(told, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("c.tsv").write_text(TABLE)
    Path("targets").write_bytes(lines(TARGETS))
    Path("folder").mkdir()
    os.mkfifo("pipe.tsv")
    Path("locked").write_bytes(TEXT)
    keys, message = PLACES[name]
    if "locked" in keys:  # the superuser may read all
        opening = io.open

        def locked(path, *given, **more):
            if Path(str(path)).name == "locked":
                raise PermissionError(13, "Permission denied", str(path))
            return opening(path, *given, **more)

        monkeypatch.setattr("builtins.open", locked)
        monkeypatch.setattr(io, "open", locked)
        monkeypatch.setattr(pq, "ParquetFile", locked)
    status, out, err = told("prepare_data", *prepare(*(f"inputs.a.{key}" for key in keys.split())))
    assert (status, out) == (2, "") and re.search(message, err), err


OUTPUTS = {
    "output_dir is a file": (["output_dir=c.tsv"], r"output_dir: c\.tsv cannot be made, as .*c\.tsv is a file"),
    "work_dir below a file": (["work_dir=c.tsv/x"], r"work_dir: c\.tsv/x cannot be made, as .*c\.tsv is a file"),
    "raw_dir is a file": (["raw_dir=c.tsv"], r"raw_dir: c\.tsv cannot be made, as .*c\.tsv is a file"),
    "not ours": (["output_dir=closed/x"], r"output_dir: you may not write in .*closed\. Choose another folder, or"),
    "a name with folders": (
        ["raw_dir=raw", 'inputs={"../a": {"path": "c.tsv"}}'],
        r"inputs: '\.\./a' cannot be the name of a folder in raw_dir\. Take letters",
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_folders_that_cannot_be_written_are_told_before_anything_is_read(told, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("c.tsv").write_text(TABLE)
    Path("closed").mkdir()
    arguments, message = OUTPUTS[name]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *more: Path(path).name != "closed" and access(path, *more))
    status, out, err = told("prepare_data", *prepare("inputs.a.path=c.tsv", *arguments))
    assert (status, out) == (2, "") and re.search(message, err), err
    assert sorted(path.name for path in Path().iterdir()) == ["c.tsv", "closed"]


def test_a_lock_where_no_file_can_be_made_is_no_wait_without_end(tmp_path):
    from hf_nmt.artifacts import file_lock
    from hf_nmt.errors import NmtError

    with pytest.raises(NmtError, match="/proc/nowhere could not be written"), file_lock("/proc/nowhere", -1):
        pass


def test_an_evaluation_set_without_text_is_no_set(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.tsv").write_text(TABLE)
    Path("blank.tsv").write_text("source\ttarget\n\tx\ny\t\n")
    status, _, err = told("prepare_data", *prepare("inputs.a.path=c.tsv", "leakage.sets.t.path=blank.tsv"))
    assert status == 2 and "blank.tsv: there is not a single pair with text on both sides to compare with" in err


def test_a_version_without_records_does_not_pass(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = told("prepare_data", *prepare(*(f"inputs.a.{key}" for key in written("blank_lines"))))
    status, page, err = told("check_data", out.strip(), "num_workers=1")
    assert status == 1 and "schema of train: splits that hold no record: 1." in err and Path(page.strip()).is_file()
    keys = [f"data.{split}.path={out.strip()}" for split in ("train", "validation")]
    status, _, err = told("train", "data.validation.split=train", *keys)
    assert status == 2 and "there is not a single pair with text on both sides" in err


def test_text_to_translate_back_is_refused_alike(told, tmp_path, monkeypatch, copy_folder):
    monkeypatch.chdir(tmp_path)
    given = [f"model={copy_folder}", "device=cpu", "source_language=de", "target_language=en", "output=out.jsonl"]
    names = [
        name for name in SIDES if isinstance(SIDES[name][1], str) and name not in ("lines_missing", "cr", "one_cr")
    ]
    for name in names:
        written(name)
        status, out, err = told("backtranslate", *given, f"input={name}")
        message = err.splitlines()[-1]
        assert (status, out) == (2, "") and "Traceback" not in err, (name, err)
        assert re.search(str(SIDES[name][1]), message) or "there is no text in it" in message, (name, message)
    assert not [path for path in Path().iterdir() if path.name.startswith("out")]
