"""Checks of a version: planted faults are counted one by one, and the recipe tells of them by its exit status."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from settings_walk.keys import recipe_module

from hf_nmt.cleaning.check_page import page_of
from hf_nmt.cleaning.check_settings import CHECKS, CheckSettings
from hf_nmt.cleaning.checks import check_version
from hf_nmt.cleaning.engine import Engine, LocalEngine
from hf_nmt.cleaning.measures import histograms, quantiles
from hf_nmt.data.manifest import Step
from hf_nmt.data.records import SCHEMA, id_of
from hf_nmt.data.versions import verify, write_version
from hf_nmt.errors import ConfigError, DataError, GateError
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

GERMAN = "Der alte Mann sitzt mit seinem Hund auf einer Bank und liest die Zeitung Nummer"
ENGLISH = "The old man is sitting with his dog on a bench and reads the paper number"
FRENCH = "Le vieil homme est assis avec son chien sur un banc et lit le journal numéro"
# Words that make every pair another one, for the search of near ones too.
SYLLABLES = [f"{one}{two}" for one in "bcdfghklmnprstvz" for two in ("a", "e", "i", "o", "u", "an", "er")]

Pairs = list[tuple[str, str]]


def clean_pairs(count: int, seed: int) -> Pairs:
    chance = random.Random(seed)
    pairs = []
    for number in range(count):
        name = " ".join("".join(chance.choices(SYLLABLES, k=3)) for _ in range(12))
        pairs.append((f"{GERMAN} {number}: {name}.", f"{ENGLISH} {number}: {name}."))
    return pairs


def planted() -> dict[str, Pairs]:
    """Two splits; what is planted is counted in the tests."""
    train, test = clean_pairs(60, 1), clean_pairs(20, 2)
    train += [(train[0][0], " ")] * 1 + [("", train[1][1])]  # 2 records that do not fit
    train += [(f"{GERMAN} eins.", f"{GERMAN} zwei.")]  # 1 target that is German
    train += [(f"{ENGLISH} one.", f"{GERMAN} drei.")]  # swapped: a source and a target
    train += [(f"{FRENCH} un.", f"{FRENCH} deux.")]  # both sides French
    train += [("Ja, das ist gut so und schön.", " ".join([ENGLISH] * 4))]  # 1 side too long
    train += [train[5], (train[6][0].upper(), train[6][1])]  # 2 repeats, one of them folded
    train += [(train[7][0], train[7][1].replace("reads", "read"))]  # 1 near
    test += [train[8], (train[9][0], train[9][1].upper())]  # 2 that are in train
    return {"train": train, "test": test}


def write(folder: Path, splits: dict[str, Pairs]) -> Path:
    rows = {
        name: [
            {"source": source, "target": target, "source_language": "de", "target_language": "en"}
            for source, target in pairs
        ]
        for name, pairs in splits.items()
    }
    tables = {
        name: [pa.Table.from_pylist([{"id": id_of(row), **row} for row in found], schema=SCHEMA)]
        for name, found in rows.items()
    }
    gone = pa.Table.from_pylist(
        [{"id": f"{n:032x}", "source": f"Satz {n}", "target": f"sentence {n}"} for n in range(3)], schema=SCHEMA
    )
    for name, value in {"step": "lengths", "reason": "source_long", "detail": None}.items():
        gone = gone.append_column(name, pa.array([value] * 3, pa.string()))
    steps = [Step(name="empty", kept=99), Step(name="lengths", kept=96, dropped={"source_long": 3})]
    return write_version(folder, tables, [gone], steps=steps, files=[], inputs={}, languages=["de", "en"])


class Backwards:
    """Takes the last task first, each with a function that came as it would to another process."""

    shuffle = None

    def map(self, function, tasks):
        results = [pickle.loads(pickle.dumps(function))(task) for task in reversed(tasks)]
        return iter(pickle.loads(pickle.dumps(results))[::-1])


def checked(folder: Path, work: Path, engine: Engine | None = None, **settings: Any) -> dict[str, Any]:
    return check_version(folder, CheckSettings(**settings), engine or LocalEngine(1), work)


def counts(report: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(gate["split"], gate["what"]): gate["count"] for gate in report["gates"]}


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("planted"), planted())


@pytest.fixture(scope="module")
def report(version, tmp_path_factory) -> dict[str, Any]:
    return checked(version, tmp_path_factory.mktemp("work"))


def test_what_was_planted_is_counted(report):
    found = counts(report)
    assert {key: count for key, count in found.items() if count} == {
        ("train", "invalid records"): 2,
        ("train", "sources in another language"): 2,
        ("train", "targets in another language"): 3,
        ("train", "sides too long for the other"): 3,  # with the two empty ones
        ("train", "records that repeat another"): 2,
        ("train", "records almost the same as another"): 1,
        ("test", "records also in train"): 2,
    }
    assert not report["passed"]
    order = [CHECKS.index(gate["check"]) for gate in report["gates"]]
    assert order == sorted(order)
    assert {gate["check"] for gate in report["gates"] if gate["passed"]} == {
        "files", "schema", "language", "alignment", "duplicates", "tokens",
    }  # fmt: skip
    told = {
        (one["language"], one["found"]): one["count"] for one in report["splits"]["train"]["wrong_language"]["target"]
    }
    assert told == {("en", "de"): 1, ("en", "fr"): 1, ("en", "sides swapped"): 1}


def test_splits_without_faults_pass(tmp_path):
    folder = write(tmp_path / "clean", {"train": clean_pairs(50, 3), "test": clean_pairs(20, 4)})
    report = checked(folder, tmp_path / "work")
    assert report["passed"] and not any(counts(report).values()) and report["not_checked"] == []


def test_words_and_ngrams_are_those_of_the_texts(report):
    texts = [source.split() for source, _ in planted()["train"]]
    for one in report["splits"]["train"]["distinct"]:
        if one["side"] == "source":
            size = one["n"]
            expected = {tuple(text[at : at + size]) for text in texts for at in range(len(text) - size + 1)}
            assert one["estimate"] == len(expected) and one["exact"]
    assert len(report["splits"]["train"]["distinct"]) == 6


def test_lengths_are_those_of_the_texts(report):
    for side, place in (("source", 0), ("target", 1)):
        lengths = sorted(len(pair[place]) for pair in planted()["train"])
        told = report["splits"]["train"]["lengths"]["characters"][side]
        assert told["max"] == lengths[-1] and told["p50"] == lengths[(len(lengths) - 1) // 2]
        assert told["mean"] == pytest.approx(sum(lengths) / len(lengths), abs=0.01)
        drawn = report["splits"]["train"]["histograms"]["words"]
        assert sum(drawn["counts"][side]) + drawn["more"][side] == len(lengths)


def test_neither_order_nor_workers_nor_files_change_anything(report, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_nmt.cleaning.checks.ROWS_OF_A_TABLE", 7)
    monkeypatch.setattr("hf_nmt.data.versions.ROWS_OF_A_FILE", 13)
    mixed = {name: random.Random(1).sample(pairs, len(pairs)) for name, pairs in planted().items()}
    again = checked(write(tmp_path / "mixed", mixed), tmp_path / "work", Backwards())
    assert {**again, "created": 0, "gates": counts(again)} == {**report, "created": 0, "gates": counts(report)}


def test_a_tokenizer_counts_tokens_and_unknown_ones(version, tmp_path):
    settings = TokenizerSettings(vocab_size=60, byte_fallback=False)
    tokenizer = train_tokenizer(
        ["der hund liest"] * 9, ["a dog reads"] * 9, settings, source_language="de", target_language="en"
    )
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = {"tokenizer": str(tmp_path / "tokenizer"), "max_length": 60}
    report = checked(version, tmp_path / "work", only=["tokens"], tokens=given)
    texts = [target for _, target in planted()["train"]]
    ids = [tokenizer(text_target=text, add_special_tokens=False)["input_ids"] for text in texts]
    unknown = sum(one.count(tokenizer.unk_token_id) for one in ids)
    found = {gate["what"]: (gate["count"], gate["of"]) for gate in report["gates"] if gate["split"] == "train"}
    assert found["unknown tokens of the targets"] == (unknown, sum(map(len, ids))) and unknown
    assert found["targets of more than 60 tokens"] == (sum(len(one) > 60 for one in ids), len(ids))
    distinct = {(one["side"], one["n"]): one["estimate"] for one in report["splits"]["train"]["distinct"]}
    for size in (1, 2, 3):
        expected = {tuple(one[at : at + size]) for one in ids for at in range(len(one) - size + 1)}
        assert distinct["target", size] == len(expected)
    assert "<figcaption>Tokens<" in page_of(report)


def test_pairs_with_the_targets_of_others_are_misaligned(tmp_path):
    chance = random.Random(4)
    words = {f"wort{number}": f"word{number}" for number in range(40)}
    pairs = []
    for _ in range(400):
        drawn = chance.choices([*words], k=9)
        pairs.append((" ".join(drawn) + ".", " ".join(words[word] for word in drawn) + "."))
    shifted = [(source, pairs[at + 1][1]) for at, (source, _) in enumerate(pairs[:12])]
    folder = write(tmp_path / "v", {"train": pairs[12:], "test": shifted + pairs[12:20]})
    words_settings = {"words": {"min_pairs": 100}, "max_words": 99}
    found = counts(checked(folder, tmp_path / "1", only=["alignment"], alignment=words_settings))
    assert found["test", "pairs whose words do not go together"] >= 10
    assert found["train", "pairs whose words do not go together"] <= 4
    few = checked(folder, tmp_path / "3", only=["alignment"], alignment={"words": {"min_pairs": 409}})
    assert few["notes"] == [
        "alignment: 408 pairs of de-en are too few to learn which words go together (alignment.words.min_pairs is "
        "409), so this was not measured of them."
    ]
    assert few["notes"][0] in page_of(few)
    assert {what for _, what in counts(few)} == {"sides too long for the other"}
    without = checked(folder, tmp_path / "2", only=["alignment"], alignment={"words": None})
    assert {what for _, what in counts(without)} == {"sides too long for the other"}


@pytest.mark.parametrize("only", [["files"], ["schema", "duplicates"], ["tokens"]])
def test_only_what_was_asked_for_is_checked(version, tmp_path, only):
    found = checked(version, tmp_path, only=only)
    assert {gate["check"] for gate in found["gates"]} == {*only} == {*found["checks"]}


def test_bars_move(version, tmp_path):
    bars = {
        "records": {"max_invalid": 0.05},
        "language": {"max_wrong": 0.05},
        "alignment": {"max_outliers": 0.05, "words": None},
        "duplicates": {"max_exact": 0.05, "max_near": 0.05, "max_across": 0.1},
    }
    assert checked(version, tmp_path / "1", **bars)["passed"]
    bars["duplicates"]["max_across"] = 0.05
    (failed,) = [one for one in checked(version, tmp_path / "2", **bars)["gates"] if not one["passed"]]
    assert failed["told"] == (
        "duplicates of test: records also in train: 2 of 22 (9.091%); duplicates.max_across allows 5.000%."
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.drop(["source"]), "lacks the columns source."),
        (lambda rows: rows.append_column("score", [[0.5] * len(rows)]), "has columns that no record has: score."),
        (
            lambda rows: rows.set_column(rows.schema.get_field_index("position"), "position", [["1"] * len(rows)]),
            "the column position is string in place of int64.",
        ),
    ],
)
def test_other_columns_are_told_and_nothing_else_is_measured(version, tmp_path, change, told):
    folder = shutil.copytree(version, tmp_path / version.name)
    path = next(folder.glob("data/train*"))
    pq.write_table(change(pq.read_table(path)), path)
    report = checked(folder, tmp_path / "work", only=["schema", "language"])
    assert report["problems"] == [f"{path}: {told}"]
    assert report["not_checked"] == ["language"] and not report["passed"]
    with pytest.raises(DataError, match="The check schema tells of all files"):
        checked(folder, tmp_path / "work", only=["language"])
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        checked(folder, tmp_path / "work", only=["language"])


def test_a_column_that_came_later_may_be_missing(version, tmp_path, report):
    folder = shutil.copytree(version, tmp_path / version.name)
    for path in folder.glob("data/*"):
        pq.write_table(pq.read_table(path).drop(["licence", "synthetic"]), path)
    again = checked(folder, tmp_path / "work", only=["schema", "language", "duplicates"])
    assert again["problems"] == [] and counts(again).items() <= counts(report).items()


# The page


def test_the_page_needs_nothing_else_and_escapes_what_is_in_texts(tmp_path):
    pairs = [*clean_pairs(5, 1), ("<script>alert(1)</script> und dann", "<b>bold</b> & more"), ("x", "")]
    page = page_of(checked(write(tmp_path / "v", {"train": pairs}), tmp_path / "work", samples=10))
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "&lt;b&gt;bold&lt;/b&gt; &amp; more" in page
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\w""", page) and "http" not in page
    assert page.count("<svg") == 3 and "prefers-color-scheme: dark" in page


def test_the_page_tells_what_the_report_tells(report):
    page = page_of(report)
    for text in ("v20", "failed", "duplicates.max_across", "sides swapped", "source_long", "train 69", "test 22"):
        assert text in page, text
    assert page.startswith("<!DOCTYPE html>") and page.count("<table") == page.count("</table>") == 5


def test_an_empty_split_has_a_page_and_does_not_pass(tmp_path):
    folder = write(tmp_path / "v", {"train": clean_pairs(4, 1), "test": []})
    report = checked(folder, tmp_path / "work")
    assert not report["passed"] and report["splits"]["test"]["rows"] == 0
    failed = [gate["told"] for gate in report["gates"] if not gate["passed"]]
    assert failed == ["schema of test: splits that hold no record: 1."]
    assert "test 0" in page_of(report)


def test_quantiles_and_histograms():
    assert quantiles(Counter({1: 98, 5: 1, 9: 1})) == {"mean": 1.12, "p50": 1, "p95": 1, "p99": 5, "max": 9}
    assert quantiles(Counter())["max"] == 0
    drawn = histograms({"one": Counter({0: 100, 3: 100}), "two": Counter({7: 199, 1000: 1})}, bins=4)
    assert drawn == {
        "width": 2,
        "counts": {"one": [100, 100, 0, 0], "two": [0, 0, 0, 199]},
        "more": {"one": 0, "two": 1},
    }


# The recipe


def check(*arguments: str) -> int:
    return recipe_module("check_data").main([*arguments, "num_workers=1"])


def test_a_version_that_passes(tmp_path, capsys):
    folder = write(tmp_path, {"train": clean_pairs(30, 5)})
    assert check(str(folder)) == 0
    assert capsys.readouterr().out == f"{folder}/check.html\n"
    assert json.loads((folder / "check.json").read_text(encoding="utf-8"))["passed"]
    assert verify(folder) == [] and check(str(folder), "--only", "files,schema") == 0


def test_a_version_that_fails_and_what_it_leaves(version, tmp_path, capsys):
    with pytest.raises(GateError) as refusal:
        check(str(version), f"output_dir={tmp_path}", "only=[duplicates]")
    assert refusal.value.exit_status == 1 and "max_exact allows 0.000%" in str(refusal.value)
    assert capsys.readouterr().out == f"{tmp_path}/check.html\n" and (tmp_path / "check.json").is_file()
    assert not (version / "check.json").exists()


def test_a_changed_byte_ends_with_status_1(version, tmp_path):
    folder = shutil.copytree(version, tmp_path / version.name)
    path = folder / "rejects.parquet"
    path.write_bytes(path.read_bytes()[:-5] + b"x" + path.read_bytes()[-4:])
    with pytest.raises(GateError, match=r"rejects.parquet: the contents changed since it was written") as refusal:
        check(str(folder), "only=files,language")
    assert str(refusal.value).endswith("files: differences to what was written: 1.")
    assert json.loads((folder / "check.json").read_text(encoding="utf-8"))["not_checked"] == ["language"]
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(GateError, match="this is no manifest of a version, or it was changed"):
        check(str(folder))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "version: none is given. Write version=processed_data/v<date>-<hash>."),
        (["nowhere"], "version: there is no folder nowhere."),
        (["nowhere", "only=languages"], "only"),
        (["nowhere", "tokens.tokenizer=none/here"], "tokens.tokenizer: there is no folder none/here."),
        (["nowhere", "tokens.max_unknown=0.1"], "max_unknown changes nothing without a tokenizer"),
    ],
)
def test_refusals(arguments: Sequence[str], told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(told)):
        check(*arguments)


def test_a_folder_that_is_no_version(tmp_path):
    with pytest.raises(DataError, match="Give the folder of a version"):
        check(str(tmp_path))
