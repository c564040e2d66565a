"""The leakage gate against all pairs compared one by one, and as a user meets it."""

from __future__ import annotations

import csv
import itertools
import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora_of_rows import rows_of, tables
from settings_walk.keys import recipe_module
from test_duplicates import plainly as folded_plainly
from test_near_duplicates import corpus, plainly

from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.leakage import LeakageSettings, find_leaks, read_sets
from hf_nmt.cleaning.shingles import FOLD
from hf_nmt.errors import ConfigError, DataError, GateError


def write_lines(folder: Path, name: str, rows: list[dict]) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("source", "target"):
        (folder / f"{name}.{side}").write_text("".join(row[side] + "\n" for row in rows), encoding="utf-8")
    return {side: str(folder / f"{name}.{side}") for side in ("source", "target")}


def planted(seed: int) -> tuple[list[dict], list[dict]]:
    """Training text, and an evaluation set with rows of each kind of overlap."""
    draw = random.Random(seed)
    rows = corpus(80, seed)
    train, test = rows[:-40], rows[-40:]
    for row in draw.sample(train, 12):
        test += [
            dict(row),
            {"source": f"{row['source'].upper()}!", "target": row["target"]},
            {"source": row["source"], "target": "Something else."},
            {"source": "Etwas anderes.", "target": row["target"] + "."},
        ]
    return train, draw.sample(test, len(test))


def kinds_of(train: dict, test: dict, settings: LeakageSettings) -> set[str]:
    same = {
        side: folded_plainly(train[side], [*FOLD]) == folded_plainly(test[side], [*FOLD])
        for side in ("source", "target")
    }
    if all(train[side] == test[side] for side in same):
        return {"exact"}
    if all(same.values()):
        return {"normalised"}
    fold = {side: {s: folded_plainly(row[s], [*FOLD]) for s in same} for side, row in (("a", train), ("b", test))}
    near = plainly(fold["a"], fold["b"], settings.similarity) >= settings.similarity.threshold
    return {side for side, equal in same.items() if equal} | ({"near"} if near else set())


@pytest.mark.parametrize("of", [7, 1000])
def test_every_overlap_is_found_and_nothing_else(tmp_path, of):
    train, test = planted(1)
    given = {**write_lines(tmp_path, "test", test)}
    settings = LeakageSettings.model_validate({"sets": {"test": given}, "similarity": {"threshold": 0.6}})
    leakage = find_leaks(
        tables(tmp_path / "in", train, of),
        read_sets(settings.sets, ("de", "en")),
        settings.sets,
        settings,
        LocalEngine(1),
    )
    found = {(row["source"], row["target"], row["row"], row["kind"]) for row in leakage.found.to_pylist()}
    expected = {
        (one["source"], one["target"], number, kind)
        for one, (number, other) in itertools.product(train, enumerate(test, 1))
        for kind in kinds_of(one, other, settings)
    }
    missed = expected - found
    assert found <= expected and {kind for *_, kind in missed} <= {"near"} and len(missed) <= 0.02 * len(expected)
    assert {kind for *_, kind in found} == {"exact", "normalised", "source", "target", "near"}
    for bar, kinds in {"pairs": {"exact", "normalised"}, "one_sided": {"source", "target"}, "near": {"near"}}.items():
        rows = {row for *_, row, kind in found if kind in kinds}
        assert leakage.shares("test")[bar] == pytest.approx(len(rows) / len(test), abs=1e-6)


def prepare(*arguments: str) -> int:
    return recipe_module("prepare_data").main(list(arguments))


@pytest.fixture
def arguments(tmp_path, monkeypatch) -> list[str]:
    """Of a run whose test set has pairs in the training text, and whose other set has none."""
    monkeypatch.chdir(tmp_path)
    train, test = planted(2)
    write_lines(tmp_path, "train", train)
    write_lines(tmp_path, "test", test)
    write_lines(tmp_path, "clean", corpus(5, seed=99))
    corpora = {"inputs.mine": "train", "leakage.sets.test": "test", "leakage.sets.clean": "clean"}
    files = [f"{key}.{side}={name}.{side}" for key, name in corpora.items() for side in ("source", "target")]
    return ["source_language=de", "target_language=en", "num_workers=1", "steps=[{empty: {}}]", *files]


def test_a_passed_bar_writes_no_version(arguments, tmp_path):
    with pytest.raises(GateError) as refusal:
        prepare(*arguments)
    assert refusal.value.exit_status == 1
    told = str(refusal.value)
    assert "leakage.sets.test.max_pairs: " in told and "clean" not in told and "leakage.on_leak=drop" in told
    report = json.loads(Path("processed_data/leakage.json").read_text(encoding="utf-8"))
    assert report["sets"]["test"]["passed"] == ["pairs"] and report["sets"]["clean"]["passed"] == []
    with open("processed_data/leakage.tsv", encoding="utf-8", newline="") as file:
        shown = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    exact = [row for row in shown if row["kind"] == "exact"]
    assert len(exact) == 12 and all(row["source"] == row["evaluation_source"] for row in exact)
    assert not list(Path("processed_data").glob("v*"))
    assert prepare(*arguments, "leakage.sets.test.max_pairs=1") == 0
    assert (
        not Path("processed_data/leakage.tsv").exists()
        and len(list(Path("processed_data").glob("v*/leakage.tsv"))) == 1
    )


def test_leaked_pairs_are_taken_out(arguments, capsys):
    assert prepare(*arguments, "leakage.on_leak=drop", "leakage.sets.test.max_one_sided=0.01") == 0
    folder = Path(capsys.readouterr().out.strip())
    gone = [row for row in pq.read_table(folder / "rejects.parquet").to_pylist() if row["step"] == "leakage"]
    assert gone and {row["reason"] for row in gone} == {"leaked"}
    assert all(row["detail"].startswith("test ") for row in gone)
    step = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["steps"][-1]
    assert step["name"] == "leakage" and step["dropped"] == {"leaked": len(gone)}
    assert (folder / "leakage.tsv").is_file() and (folder / "leakage.json").is_file()
    (kept,) = (folder / "data").glob("train-*.parquet")
    rows = pq.read_table(kept).to_pylist()
    assert len(rows) == step["kept"]
    Path("left.jsonl").write_text(
        "".join(json.dumps({k: row[k] for k in ("source", "target")}) + "\n" for row in rows)
    )
    sides = ("inputs.mine.source=null", "inputs.mine.target=null", "inputs.mine.path=left.jsonl")
    assert prepare(*arguments, *sides, "leakage.sets.test.max_one_sided=0") == 0
    assert prepare(*arguments, "leakage.on_leak=drop", "leakage.sets.test.max_one_sided=0.01") == 0


def test_several_references_and_sets_without_text(tmp_path):
    train = [{"source": "Guten Tag.", "target": "Hello there!"}, {"source": "Ja.", "target": ""}]
    Path(tmp_path / "test.jsonl").write_text(
        json.dumps({"source": "Guten Tag", "references": ["Good day.", "Hello there"], "target": "Good day."}) + "\n"
    )
    settings = LeakageSettings.model_validate({"sets": {"test": {"path": str(tmp_path / "test.jsonl")}}})
    paths = tables(tmp_path / "in", train)
    leakage = find_leaks(paths, read_sets(settings.sets, ("de", "en")), settings.sets, settings, LocalEngine(1))
    assert [row["kind"] for row in leakage.found.to_pylist()] == ["normalised", "source"]
    assert leakage.passed() == {"test": ["pairs"]} and len(rows_of(paths)) == 2
    (tmp_path / "none.jsonl").write_text("")
    empty = LeakageSettings.model_validate({"sets": {"none": {"path": str(tmp_path / "none.jsonl")}}})
    with pytest.raises(DataError, match="none.jsonl"):
        read_sets(empty.sets, ("de", "en"))
    built_in = LeakageSettings.model_validate({"sets": {"tiny": {"path": "controlled/tiny", "split": "test"}}})
    with pytest.raises(ConfigError, match=r"leakage\.sets\.tiny\.path: controlled/tiny is no file"):
        read_sets(built_in.sets, ("ko", "en"))
