"""Versions on disk, and `verify`: whatever is changed in one is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_nmt.artifacts import hash_file, mark_complete
from hf_nmt.data.manifest import Step
from hf_nmt.data.records import SCHEMA, id_of
from hf_nmt.data.versions import files_of_split, manifest_of, verify, write_version
from hf_nmt.errors import DataError


def records(count: int, start: int = 0) -> pa.Table:
    rows = [
        {"source": f"Satz {n}", "target": f"sentence {n}", "source_language": "de", "target_language": "en"}
        for n in range(start, start + count)
    ]
    return pa.Table.from_pylist([{"id": id_of(row), **row} for row in rows], schema=SCHEMA)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    gone = records(2, 90)
    for name in ("step", "reason", "detail"):
        gone = gone.append_column(name, pa.array(["x", "x"]))
    return write_version(
        tmp_path_factory.mktemp("versions"),
        {"train": [records(6), records(3, 6)], "test": [records(4, 20)]},
        [gone],
        steps=[Step(name="empty", kept=13, dropped={"copy": 2})],
        files=[],
        inputs={},
        languages=["de", "en"],
        reports={"leakage.json": "{}\n"},
    )


@pytest.fixture
def version(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / written.name)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_was_written_is_well(version):
    assert verify(version) == []
    for name in ("check.json", "check.html"):  # what recipes/check_data.py leaves there
        (version / name).write_text("x")
    assert verify(version) == []


def test_a_version_that_other_steps_made_says_so_and_stays(tmp_path, caplog):
    def write(*steps: Step) -> Path:
        return write_version(
            tmp_path, {"train": [records(6)]}, [], steps=steps, files=[], inputs={}, languages=["de", "en"]
        )

    first = write(Step(name="empty", kept=6))
    before = (first / "manifest.json").read_bytes()
    assert write(Step(name="empty", kept=6)) == first and "stays as it is" not in caplog.text
    assert write(Step(name="lengths", kept=6)) == first and "read other files or had other steps" in caplog.text
    assert (first / "manifest.json").read_bytes() == before


def test_a_changed_byte_anywhere_is_named(version):
    assert names(version) == [
        "COMPLETE", "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "leakage.json",
        "manifest.json", "rejects.parquet",
    ]  # fmt: skip
    for name in names(version):
        path = version / name
        before = path.read_bytes()
        for place in {0, 5, len(before) // 3, len(before) // 2, len(before) - 1} & {*range(len(before))}:
            path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
            named = any(str(path) in problem for problem in verify(version))
            assert named or (name == "COMPLETE" and verify(version)), (name, place)
        path.write_bytes(before)
    assert verify(version) == []


def test_every_byte_of_the_mark_counts(version):
    path = version / "COMPLETE"
    before = path.read_bytes()
    for place in range(0, len(before), 7):
        path.write_bytes(before[:place] + bytes([before[place] ^ 2]) + before[place + 1 :])
        assert verify(version), place


def test_what_is_missing_or_strange_is_named(version):
    (version / "notes.txt").write_text("mine")
    os.remove(version / "leakage.json")
    shutil.copy(next(version.glob("data/test*")), version / "data" / "extra-00000-of-00001.parquet")
    assert verify(version) == [
        f"{version}/leakage.json: the file is missing.",
        f"{version}/data/extra-00000-of-00001.parquet: this file was not written with the version. Move it elsewhere.",
        f"{version}/notes.txt: this file was not written with the version. Move it elsewhere.",
        f"{version}/data/extra-00000-of-00001.parquet: the manifest does not name this file.",
    ]


def test_other_records_are_told_even_where_all_hashes_were_made_anew(version):
    path = version / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 8), path)
    text = json.loads((version / "manifest.json").read_text())
    text["files"][1] |= {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    (version / "manifest.json").write_text(json.dumps(text))
    mark_complete(version)
    assert verify(version) == [
        "the split train: 8 records in place of 9.",
        "the split train: the records are not those of the manifest (content hash differs).",
        f"{version}/manifest.json: content_hash is not that of the records.",
    ]


def test_the_order_of_the_records_is_no_change_of_the_contents(version):
    path = files_of_split(version, "train")[0]
    pq.write_table(pq.read_table(path).take([8, *range(8)]), path)
    assert all(problem.startswith(str(path)) and "content hash" not in problem for problem in verify(version))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("rows", 14, "rows is not the sum over the splits."),
        ("recipe_hash", "0" * 16, "recipe_hash is not that of the steps."),
        ("content_hash", "0" * 64, "content_hash is not that of the records."),
    ],
)
def test_a_manifest_that_contradicts_itself(version, key, value, told):
    path = version / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    mark_complete(version)
    assert f"{path}: {told}" in verify(version)


def test_another_name(version):
    moved = version.rename(version.with_name("v2020-01-01-000000"))
    assert "does not end in the start of the content hash" in verify(moved)[0]


def test_no_version(tmp_path):
    assert len(verify(tmp_path)) == 2
    with pytest.raises(DataError, match="Give the folder of a version, v<date>-<hash>"):
        manifest_of(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="no manifest of a version"):
        manifest_of(tmp_path)
