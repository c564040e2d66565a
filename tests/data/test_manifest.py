"""The manifest of a run: hashes that tell contents and nothing else."""

from __future__ import annotations

import hashlib
import json
import random

import datasets
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import PAIRS, load_from, saved_dataset, tsv, two_files, write

from hf_nmt.data import description, manifest
from hf_nmt.data.canonical import canonical_line, canonical_lines
from hf_nmt.data.description import content_hash, describe
from hf_nmt.data.manifest import recorded_steps
from hf_nmt.data.sources import CorpusSettings

RECORDS = [{"source": source, "target": target} for source, target in PAIRS]

texts = st.text(max_size=5)
records = st.lists(st.fixed_dictionaries({"source": texts, "target": texts}, optional={"n": st.integers(0, 3)}))


def hash_by_definition(rows):
    """All in memory, written from the definition in the module's docstring."""
    canonical = [json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() for row in rows]
    by_id = sorted((hashlib.sha256(line).hexdigest(), line) for line in canonical)
    return hashlib.sha256(b"".join(line + b"\n" for _, line in by_id)).hexdigest()


@given(rows=records, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_content_hash_is_its_definition_in_any_order(rows, seed):
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert content_hash(shuffled) == content_hash(rows) == hash_by_definition(rows)


ODD = st.text(st.characters(exclude_categories=["Cs"]))
ODD |= st.sampled_from(['"', "\\", "\x00\x1f\x7f", "\u2028", "\U0001f600"])


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"source": ODD, "target": ODD},
            optional={
                "domain": ODD,
                "position": st.integers(0, 9),
                "references": st.lists(ODD, min_size=1, max_size=2),
            },
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_lines_of_a_table_are_those_of_its_records(rows):
    rows = [row | ({"references": [row["target"]]} if row.get("position") == 3 else {}) for row in rows]
    kinds = {"position": pa.int64(), "references": pa.list_(pa.string())}
    names = ("target", "source", "references", "position", "domain")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    table = pa.Table.from_pylist(rows, schema=schema)
    expected = [
        json.dumps(
            {name: row[name] for name in sorted(row) if row[name] != [row["target"]]},
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        for row in rows
    ]
    assert canonical_lines(table).to_pylist() == expected == list(map(canonical_line, rows))


def test_content_hash_tells_contents_apart():
    other = [
        RECORDS[:-1],
        RECORDS + RECORDS[:1],  # a repeated record counts
        [{"source": row["target"], "target": row["source"]} for row in RECORDS],
        [dict(row, domain="news") for row in RECORDS],
        [dict(row, target=row["target"] + " ") for row in RECORDS],
        [dict(row, references=[row["target"], "x"]) for row in RECORDS],
    ]
    assert len({content_hash(rows) for rows in [RECORDS, *other]}) == 1 + len(other)


def test_what_says_nothing_is_not_hashed():
    same = [
        [dict(row, domain=None) for row in RECORDS],
        [dict(row, references=[row["target"]]) for row in RECORDS],
        datasets.Dataset.from_list(RECORDS),
        datasets.Dataset.from_list(RECORDS).select(range(len(RECORDS) - 1, -1, -1)),
    ]
    assert {content_hash(rows) for rows in same} == {content_hash(RECORDS)}
    assert canonical_line({"target": "b", "source": "a\n"}) == b'{"source":"a\\n","target":"b"}'


def test_a_corpus_larger_than_one_slice_and_one_part(monkeypatch):
    rows = [{"source": str(n % 700), "target": str(n)} for n in range(2000)]
    monkeypatch.setattr(description, "_ROWS_AT_A_TIME", 300)
    assert content_hash(datasets.Dataset.from_list(rows)) == hash_by_definition(rows)


def test_describe_names_files_steps_and_splits(tmp_path):
    train = {**two_files(tmp_path), "empty": "drop"}
    write(tmp_path / "train.en", "\n" + "".join(f"{row['target']}\n" for row in RECORDS[1:]))
    corpora = {
        "train": (CorpusSettings(**train), load_from(tmp_path, **train)),
        "validation": (CorpusSettings(**tsv(tmp_path)), load_from(tmp_path, **tsv(tmp_path))),
        "test": (CorpusSettings(**saved_dataset(tmp_path)), load_from(tmp_path, **saved_dataset(tmp_path))),
    }
    described = describe(corpora, languages=["de", "en"])
    described.write(tmp_path / "manifest.json")
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert set(written) == {
        "schema_version", "content_hash", "recipe_hash", "rows", "languages", "splits", "files", "inputs", "steps",
        "parent", "created",
    }  # fmt: skip
    assert written["languages"] == ["de", "en"] and written["rows"] == 3 * len(PAIRS) - 1
    assert written["splits"]["test"] == {"rows": len(PAIRS), "content_hash": content_hash(RECORDS)}
    assert written["splits"]["validation"]["content_hash"] == written["splits"]["test"]["content_hash"]
    files = {file["path"]: file for file in written["files"]}
    contents = (tmp_path / "train.de").read_bytes()
    assert files[str(tmp_path / "train.de")] == {
        "path": str(tmp_path / "train.de"),
        "bytes": len(contents),
        "sha256": hashlib.sha256(contents).hexdigest(),
    }
    assert str(tmp_path / "c.tsv") in files and any("saved/data-" in name for name in files)
    assert written["inputs"]["train"]["source"] == str(tmp_path / "train.de")
    step = written["steps"][0]
    assert (step["split"], step["name"], step["kept"], step["dropped"]) == (
        "train",
        "load",
        len(PAIRS) - 1,
        {"empty": 1},
    )


def test_hashes_do_not_depend_on_path_format_or_date(tmp_path):
    def described(settings):
        dataset = load_from(tmp_path, **settings)
        return describe({"train": (CorpusSettings(**settings), dataset)}, languages=["de", "en"])

    first, moved, table = (
        described(two_files(tmp_path)),
        described(two_files(tmp_path, "x", "y")),
        described(tsv(tmp_path)),
    )
    assert first.content_hash == moved.content_hash == table.content_hash == content_hash(RECORDS)
    assert first.recipe_hash == moved.recipe_hash != table.recipe_hash
    assert [file.sha256 for file in first.files] == [file.sha256 for file in moved.files]


def test_moving_a_record_between_splits_changes_the_hash():
    def described(cut):
        rows = datasets.Dataset.from_list(RECORDS)
        settings = CorpusSettings(path="controlled/tiny")
        parts = {"train": rows.select(range(cut)), "test": rows.select(range(cut, len(rows)))}
        corpora = {name: (settings, part) for name, part in parts.items()}
        return describe(corpora, languages=["ko", "en"]).content_hash

    assert len({described(cut) for cut in range(1, len(RECORDS))}) == len(RECORDS) - 1


def test_a_dataset_made_otherwise_has_no_recorded_steps():
    assert recorded_steps(datasets.Dataset.from_list(RECORDS)) == []


def test_steps_that_came_later_are_added_once(tmp_path, monkeypatch):
    corpora = {
        split: (CorpusSettings(**tsv(tmp_path)), load_from(tmp_path, **tsv(tmp_path))) for split in ("train", "test")
    }
    before = describe(corpora, languages=["de", "en"])
    encode = manifest.Step(name="encode", kept=2, dropped={"source_too_long": 1})
    monkeypatch.setattr(manifest, "recorded_steps", lambda dataset: [encode])
    after = before.with_steps({"train": corpora["train"][1]})
    assert [(step.split, step.name) for step in after.steps] == [
        ("train", "load"),
        ("train", "encode"),
        ("test", "load"),
    ]
    assert after.steps[1].dropped == {"source_too_long": 1}
    assert after.content_hash == before.content_hash and after.recipe_hash != before.recipe_hash
    assert after.with_steps({"train": corpora["train"][1]}) == after
