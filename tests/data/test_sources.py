"""Where a corpus comes from, what is dropped, and the cache."""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pydantic
import pytest
from small_corpus import (
    PAIRS,
    TARGETS,
    lines,
    load_from,
    rows_of,
    saved_dataset_dict,
    two_files,
    write,
)

from hf_nmt.config import load
from hf_nmt.data import readers
from hf_nmt.data.manifest import recorded_steps
from hf_nmt.data.sources import CorpusSettings, count_copies, format_of, keys_told
from hf_nmt.errors import ConfigError, DataError


def test_max_rows_reads_the_first_pairs_only(tmp_path):
    names = two_files(tmp_path)
    assert rows_of(load_from(tmp_path, **names, max_rows=3)) == PAIRS[:3]
    # The rest is not looked at: this file could not be read to its end.
    Path(names["target"]).write_bytes(lines(TARGETS[:4]).encode() + b"\xff\n")
    assert rows_of(load_from(tmp_path, **names, max_rows=3)) == PAIRS[:3]


def test_empty_sides_are_refused_or_dropped_and_counted(tmp_path, caplog):
    sources = ["eins", "", "drei", "vier", " \t"]
    names = {"source": write(tmp_path / "a", lines(sources)), "target": write(tmp_path / "b", "one\ntwo\n\nfour\n\n")}
    with pytest.raises(DataError, match=r"a \+ .*b: 3 pairs have an empty side \(line 2, 3, 5\).*set empty=drop"):
        load_from(tmp_path, **names)
    dataset = load_from(tmp_path, **names, empty="drop")
    assert rows_of(dataset) == [("eins", "one"), ("vier", "four")]
    assert recorded_steps(dataset)[0].dropped == {"empty": 3}
    assert "2 pairs kept, dropped: 3 empty" in caplog.text


# The cache


def test_the_second_call_reads_nothing(tmp_path, monkeypatch):
    names = two_files(tmp_path)
    first = load_from(tmp_path, **names)
    monkeypatch.setattr(readers, "aligned_lines", None)
    again = load_from(tmp_path, **names)
    assert again.cache_files == first.cache_files and rows_of(again) == PAIRS
    moved = two_files(tmp_path, "other.de", "other.en")
    assert load_from(tmp_path, **moved).cache_files == first.cache_files


def test_changed_contents_or_settings_are_read_anew(tmp_path):
    names = two_files(tmp_path)
    found = {load_from(tmp_path, **names).cache_files[0]["filename"]}
    found.add(load_from(tmp_path, **names, max_rows=2).cache_files[0]["filename"])
    found.add(load_from(tmp_path, **names, empty="drop").cache_files[0]["filename"])
    write(Path(names["target"]), lines(reversed(TARGETS)))
    changed = load_from(tmp_path, **names)
    found.add(changed.cache_files[0]["filename"])
    assert len(found) == 4 and changed["target"][:] == TARGETS[::-1]


def test_a_damaged_cache_is_made_anew(tmp_path):
    names = two_files(tmp_path)
    file = Path(load_from(tmp_path, **names).cache_files[0]["filename"])
    file.write_bytes(file.read_bytes()[:100])
    assert rows_of(load_from(tmp_path, **names)) == PAIRS


def test_a_refused_corpus_leaves_nothing_behind(tmp_path):
    names = two_files(tmp_path)
    write(Path(names["target"]), lines(TARGETS[:-1]))
    with pytest.raises(DataError):
        load_from(tmp_path, **names)
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def _load_in_a_process(arguments):
    folder, names = arguments
    return load_from(folder, **names).cache_files, rows_of(load_from(folder, **names))


def test_two_processes_at_once(tmp_path):
    names = two_files(tmp_path)
    # An executor: a `Pool` waits for ever where a process dies.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_load_in_a_process, (tmp_path, names)) for _ in range(2)]
        results = [job.result(timeout=300) for job in jobs]
    assert results[0] == results[1] and results[0][1] == PAIRS


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.errors import NmtError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    load_pairs(CorpusSettings(source=sys.argv[1], target=sys.argv[1]), cache_dir=sys.argv[2])
except NmtError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_told_and_nothing_half_written_stays(tmp_path):
    text = write(tmp_path / "text", lines(f"Satz Nummer {n}" for n in range(20_000)))
    command = [sys.executable, "-c", LIMITED, text, str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"pairs-\w+ could not be written: it is larger than a file may", result.stderr), result.stderr
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


# Refusals


def test_saved_datasets_are_checked(tmp_path):
    names = saved_dataset_dict(tmp_path)
    with pytest.raises(
        ConfigError, match=r"split: .*saved holds no split 'tests', only train, test\. Did you mean 'test'\?"
    ):
        load_from(tmp_path, **{**names, "split": "tests"})
    with pytest.raises(ConfigError, match="split is needed: .*saved holds train, test"):
        load_from(tmp_path, path=names["path"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: this folder was not written by Dataset\.save_to_disk"):
        load_from(tmp_path, path=str(tmp_path / "folder"))


def test_a_hub_dataset_is_asked_for_and_its_absence_explained(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="split is needed for the Hub dataset 'nobody/nothing'"):
        load_from(tmp_path, path="nobody/nothing")

    def offline(*_arguments, **_settings):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        DataError, match="nobody/nothing: this path is neither a file or folder here nor .*need a subset"
    ):
        load_from(tmp_path, path="nobody/nothing", split="train")

    def online(name, subset, split):
        assert (name, subset, split) == ("wmt/wmt14", "de-en", "train")
        return datasets.Dataset.from_list([{"translation": {"de": s, "en": t}} for s, t in PAIRS])

    monkeypatch.setattr(datasets, "load_dataset", online)
    assert rows_of(load_from(tmp_path, path="wmt/wmt14", subset="de-en", split="train")) == PAIRS


def test_a_path_that_looks_like_a_file_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("a\tb\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/trian\.tsv: there is no such file\. Did you mean data/train\.tsv\?"):
        load_from(tmp_path, path="data/trian.tsv")
    for name in ("wmt/wmt14", "owner-1/name.v2.0"):
        assert format_of(CorpusSettings(path=name)) == "hub"
    (tmp_path / "saved").mkdir()
    refused = {
        "pairs.txt": r"pairs\.txt: there is no such file\. A dataset of the Hub is given as owner/name, or with "
        "format=hub",
        "wmt14": r"wmt14: there is no such file\. A dataset of the Hub",
        "savd": r"savd: there is no such file\. Did you mean saved\? A dataset of the Hub",
        "owner/pairs.txt": r"owner/pairs\.txt: there is no such file, and no folder owner\. A dataset of the Hub",
        "data/train": r"data/train: there is no such file\. Did you mean data/train\.tsv\?",
        "a/b/c": r"a/b/c: there is no such file, and no folder a/b\.",
    }
    for name, message in refused.items():
        with pytest.raises(DataError, match=message):
            format_of(CorpusSettings(path=name))
        assert format_of(CorpusSettings(path=name, format="hub")) == "hub"


BAD_SETTINGS = {
    "nothing": ({}, "nothing to read: give source and target .*, or path"),
    "one side": ({"source": "a"}, "source is given alone"),
    "both ways": ({"path": "x", "source": "a"}, "path: given together with source, which are another corpus. Leave"),
    "idle": (
        {"source": "a", "target": "b", "split": "train", "format": "tsv"},
        "format and split would change nothing",
    ),
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_that_do_not_fit_are_refused(name):
    settings, message = BAD_SETTINGS[name]
    with pytest.raises(ConfigError, match=message):
        load(CorpusSettings, overrides=[f"{key}={value}" for key, value in settings.items()])


def test_settings_from_the_command_line():
    settings = load(CorpusSettings, overrides=["source=a", "target=[b,c]", "max_rows=5"])
    assert settings.targets == ["b", "c"] and settings.max_rows == 5
    assert load(CorpusSettings, overrides=["path=x.tsv", "source_column=2"]).source_column == "2"


def holes(folder):
    """Records of every kind of file, of which the second has no target."""
    texts = [("eins", "one"), ("zwei", ""), ("drei", "three"), ("vier", "four")]
    sides = dict(zip(("de", "en", "xx"), (*zip(*texts, strict=True), ["a", "b", "c", "d"]), strict=True))
    unit = "<tu><tuv xml:lang='de'><seg>{}</seg></tuv><tuv xml:lang='en'><seg>{}</seg></tuv></tu>"
    rows = [dict(zip(sides, row, strict=True)) for row in zip(*sides.values(), strict=True)]
    table = lines("\t".join(row) for row in ([*sides], *zip(*sides.values(), strict=True)))
    saved = datasets.Dataset.from_dict(sides)
    saved.save_to_disk(folder / "saved")
    pa.parquet.write_table(pa.table(sides), folder / "c.parquet")
    return {
        "lines": {
            "source": write(folder / "a", lines(sides["de"])),
            "target": write(folder / "b", lines(sides["en"])),
        },
        "tsv": {"path": write(folder / "c.tsv", table)},
        "csv": {"path": write(folder / "c.csv", table.replace("\t", ","))},
        "tmx": {
            "path": write(folder / "c.tmx", f"<tmx><body>{lines(unit.format(*row) for row in texts)}</body></tmx>")
        },
        "jsonl": {"path": write(folder / "c.jsonl", lines(map(json.dumps, rows)))},
        "parquet": {"path": str(folder / "c.parquet")},
        "arrow": {"path": str(folder / "saved")},
        "built-in": {"path": "controlled/tiny", "split": "validation"},
    }


# What may follow from a setting, given alone: pairs that are not read otherwise, or this refusal.
CHANGES = {
    "source_column": "xx", "target_column": "xx", "empty": "drop", "max_rows": 2, "subset": "x", "split": "x",
    "format": "csv",
}  # fmt: skip


@pytest.mark.parametrize("setting", CHANGES)
@pytest.mark.parametrize("kind", ["lines", "tsv", "csv", "tmx", "jsonl", "parquet", "arrow", "built-in"])
def test_every_setting_does_something_for_every_kind_of_corpus_or_is_refused(tmp_path, kind, setting):
    def outcome(**settings):
        languages = {"source_language": "ko"} if kind == "built-in" else {}
        try:
            return rows_of(load_from(tmp_path, **languages, **settings))
        except (ConfigError, DataError, pydantic.ValidationError) as error:
            return str(error)

    given = holes(tmp_path)[kind]
    if kind != "built-in" and setting != "empty":
        given["empty"] = "drop"
    plain, changed = outcome(**given), outcome(**{**given, setting: CHANGES[setting]})
    if (kind, setting) == ("csv", "format"):
        assert changed == plain  # it says what the name says too
    elif f"{setting} would change nothing: " not in changed:
        assert changed != plain
        if setting == "empty":
            assert "1 pair has an empty side" in plain and len(changed) == 3


def test_what_changes_nothing_is_told_with_the_reason(tmp_path):
    refused = {
        "tmx": r"split and source_column would change nothing: .*c\.tmx is a single tmx file\. Take it out\.",
        "tsv": r"split would change nothing: .*c\.tsv is a single tsv file",
        "arrow": "split would change nothing: .*saved holds a single dataset",
    }
    for kind, message in refused.items():
        column = {"source_column": "a"} if kind == "tmx" else {}
        with pytest.raises(ConfigError, match=message):
            load_from(tmp_path, **holes(tmp_path)[kind], split="train", **column)


def test_the_built_in_corpus_is_checked(tmp_path):
    with pytest.raises(ConfigError) as error:
        load_from(tmp_path, path="controlled/small", split="dev", subset="x")
    for message in (
        "path: the built-in corpora are controlled/tiny and controlled/full, not 'controlled/small'",
        "split: the built-in corpus has train, validation, test; given was 'dev'",
        "the built-in corpus is Korean to English .*not de to en",
        "subset would change nothing",
    ):
        assert re.search(message, str(error.value))


# Bounded memory

READING = """
import re, sys
from hf_nmt.data.sources import CorpusSettings, load_pairs
load_pairs(CorpusSettings(path=sys.argv[1]), source_language="de", target_language="en", cache_dir=sys.argv[2])
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("file", ["c.tsv", "c.jsonl", "c.tmx", "c.parquet"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, file):
    peaks = []
    for size in (10_000, 400_000):
        texts = (f"Satz Nummer {n} mit etwas mehr Text darin" for n in range(size))
        path = tmp_path / f"{size}" / file
        path.parent.mkdir()
        if file.endswith("tsv"):
            path.write_text("de\ten\n" + lines(f"{text}\t{text}" for text in texts))
        elif file.endswith("jsonl"):
            path.write_text(lines(json.dumps({"de": text, "en": text}) for text in texts))
        elif file.endswith("tmx"):
            unit = "<tu><tuv xml:lang='de'><seg>{0}</seg></tuv><tuv xml:lang='en'><seg>{0}</seg></tuv></tu>"
            path.write_text(f"<tmx><body>{lines(map(unit.format, texts))}</body></tmx>")
        else:
            table = pa.table({"de": list(texts)})
            pa.parquet.write_table(table.append_column("en", table["de"]), path, row_group_size=20_000)
        command = [sys.executable, "-c", READING, str(path), str(tmp_path / "cache")]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout))
    assert peaks[1] - peaks[0] < 30, f"MiB at 10k and 400k pairs: {peaks}"


def test_errors_name_the_keys_as_they_are_typed():
    with pytest.raises(DataError, match=r"^x: set data\.train\.empty=drop, or data\.train\.source_column=1\.$"):
        with keys_told("data.train"):
            raise DataError("x: set empty=drop, or source_column=1.")
    with pytest.raises(ConfigError) as error, keys_told("data.pairs.de-en.train"):
        raise ConfigError(["split: there is no x; --format=tsv stays.", "names would change nothing."])
    assert error.value.findings == [
        "data.pairs.de-en.train.split: there is no x; --format=tsv stays.",
        "data.pairs.de-en.train: names would change nothing.",
    ]


def test_pairs_that_are_copies_are_counted(monkeypatch):
    monkeypatch.setattr("hf_nmt.data.sources.ROWS_AT_A_TIME", 2)
    rows = datasets.Dataset.from_dict({"source": ["a", "b", "c", "d", "e"], "target": ["a", "B", "c", "d ", "e"]})
    assert count_copies(rows) == 3
