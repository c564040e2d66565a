"""Raw files as they came in: whole copies, each content once, named by the version that was made of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from settings_walk.keys import recipe_module

from hf_nmt.data import raw
from hf_nmt.data.manifest import InputFile
from hf_nmt.data.raw import keep_raw
from hf_nmt.data.versions import manifest_of
from hf_nmt.errors import DataError


def given(path: Path, text: str) -> InputFile:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return InputFile(path=str(path), bytes=len(text), sha256=raw.hash_file(path))


def entries(folder: Path) -> list[dict]:
    return [one for path in sorted(folder.glob("*/manifest.json")) for one in json.loads(path.read_text())["files"]]


def test_what_is_kept_stays_what_it_was(tmp_path):
    file = given(tmp_path / "mine.tsv", "a\tb\n")
    kept = Path(keep_raw(tmp_path / "raw", {"mine": [file]}, {"mine": "CC0-1.0"})[file.path])
    with open(file.path, "a") as original:  # in place
        original.write("c\td\n")
    assert kept.read_text() == "a\tb\n" and kept.parts[-2:] == ("mine", "mine.tsv")
    assert not os.stat(kept).st_mode & 0o222
    assert entries(tmp_path / "raw") == [
        {"path": "mine/mine.tsv", "bytes": 4, "sha256": file.sha256, "origin": file.path, "input": "mine",
         "licence": "CC0-1.0"}
    ]  # fmt: skip


def test_each_content_is_kept_once_on_any_day(tmp_path, monkeypatch):
    one, same = given(tmp_path / "one.de", "x\n"), given(tmp_path / "same.de", "x\n")
    first = keep_raw(tmp_path / "raw", {"a": [one, same]}, {})
    assert first[one.path] == first[same.path] and len(entries(tmp_path / "raw")) == 1
    (day,) = (path for path in (tmp_path / "raw").iterdir() if path.is_dir())
    day.rename(day.with_name("2020-02-02"))
    again = keep_raw(tmp_path / "raw", {"b": [same]}, {})
    assert again[same.path] == first[one.path].replace(day.name, "2020-02-02")


def test_two_contents_of_one_name_stand_beside_each_other(tmp_path):
    one, other = given(tmp_path / "1" / "x.tsv", "one"), given(tmp_path / "2" / "x.tsv", "other")
    kept = keep_raw(tmp_path / "raw", {"a": [one]}, {}) | keep_raw(tmp_path / "raw", {"a": [other]}, {})
    assert [Path(path).read_text() for path in kept.values()] == ["one", "other"]
    assert [Path(path).name for path in kept.values()] == ["x.tsv", f"{other.sha256[:8]}-x.tsv"]
    assert len(entries(tmp_path / "raw")) == 2


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: (path.chmod(0o644), path.write_text("z"))]
)
def test_a_copy_that_is_gone_or_another_is_made_anew(tmp_path, change, caplog):
    file = given(tmp_path / "x.tsv", "one")
    change(Path(keep_raw(tmp_path / "raw", {"a": [file]}, {})[file.path]))
    again = Path(keep_raw(tmp_path / "raw", {"a": [file]}, {})[file.path])
    assert again.read_text() == "one" and "was changed or removed since it was kept" in caplog.text
    assert [one["sha256"] for one in entries(tmp_path / "raw")].count(file.sha256) >= 1
    caplog.clear()
    assert Path(keep_raw(tmp_path / "raw", {"a": [file]}, {})[file.path]) == again and not caplog.text


def test_where_blocks_cannot_be_shared_all_is_copied(tmp_path, monkeypatch):
    def refused(*given: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refused)
    file = given(tmp_path / "x.tsv", "one" * 1000)
    assert Path(keep_raw(tmp_path / "raw", {"a": [file]}, {})[file.path]).read_text() == "one" * 1000


def test_a_file_that_changes_meanwhile_is_no_copy(tmp_path):
    file = given(tmp_path / "x.tsv", "one")
    (tmp_path / "x.tsv").write_text("two")
    with pytest.raises(DataError, match="changed while it was copied"):
        keep_raw(tmp_path / "raw", {"a": [file]}, {})
    assert not [path for path in (tmp_path / "raw").rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_a_broken_manifest_is_told(tmp_path):
    given(tmp_path / "raw" / "manifest.json", "{")
    with pytest.raises(DataError, match="this is no manifest of raw files"):
        keep_raw(tmp_path, {"a": [given(tmp_path / "x.tsv", "one")]}, {})


def test_an_input_without_files_is_told(tmp_path, caplog):
    assert keep_raw(tmp_path, {"hub": []}, {}) == {}
    assert "inputs.hub comes from no file" in caplog.text


def test_the_version_names_them(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    Path("raw.tsv").write_text("Ein Hund\tA dog\nEine Katze\tA cat\n")
    arguments = ["source_language=de", "target_language=en", "inputs.mine.path=raw.tsv", "inputs.mine.licence=CC0-1.0",
                 "inputs.mine.source_column=1", "inputs.mine.target_column=2", "steps=[{empty: {}}]",
                 "num_workers=1"]  # fmt: skip
    recipe = recipe_module("prepare_data")
    assert recipe.main(arguments) == 0
    before = Path(capsys.readouterr().out.strip())
    assert "raw" not in manifest_of(before).inputs["files"]["raw.tsv"]
    assert recipe.main([*arguments, "raw_dir=data/raw"]) == 0
    assert "does not name the raw files. Remove it and run again" in caplog.text
    assert recipe.main([*arguments, "raw_dir=data/raw", "output_dir=other"]) == 0
    version = Path(capsys.readouterr().out.splitlines()[-1])
    file = manifest_of(version).inputs["files"]["raw.tsv"]
    assert version.name == before.name and Path(file["raw"]).read_bytes() == Path("raw.tsv").read_bytes()
    assert raw.hash_file(file["raw"]) == file["sha256"] and len(entries(Path("data/raw"))) == 1
