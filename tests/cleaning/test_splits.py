"""Splits of a corpus against plain counting, with planted coherence, and as properties of any corpus."""

from __future__ import annotations

import itertools
import json
import random
import sys
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from corpora_of_rows import rows_of, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settings_walk.keys import recipe_module
from test_duplicates import plainly as folded_plainly

from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.shingles import FOLD
from hf_nmt.cleaning.split_manifest import describe
from hf_nmt.cleaning.splits import Split, SplitSettings, split
from hf_nmt.errors import ConfigError, DataError, NmtError

ONE = LocalEngine(1)
WORDS = "Haus Garten Hund Katze Brot Fluss Lampe Wagen Stein Vogel Fenster Apfel Regen Berg Wolke Tisch".split()


def article(name: str, sentences: list[str], domain: str | None = None) -> list[dict[str, Any]]:
    return [
        {"source": text, "target": f"{name} {number}: {text[::-1]}", "article": name, "position": number}
        | ({"domain": domain} if domain else {})
        for number, text in enumerate(sentences)
    ]


def corpus(articles: int = 40, loose: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Articles whose sentences share more words the higher their number is, and records without an article."""
    draw = random.Random(seed)
    rows = []
    for number in range(articles):
        own = draw.sample(WORDS, 3)
        of_own = number / articles
        texts = [
            " ".join(draw.choice(own if draw.random() < of_own else WORDS) for _ in range(8)) + f" {number}.{at}"
            for at in range(draw.randint(2, 9))
        ]
        rows += article(f"a{number:02d}", texts, "news" if number % 4 else "law")
    for number in range(loose):
        words = " ".join(draw.choice(WORDS) for _ in range(6))
        rows.append({"source": f"{words} {number}", "target": f"loose {number} {words[::-1]}", "domain": "news"})
    return rows


def made(folder: Path, rows: list[dict[str, Any]], of: int = 50, **given: Any) -> Split:
    return split(tables(folder / "in", rows, of), SplitSettings.model_validate(given), folder / "work", ONE)


def contents(one: Split) -> dict[str, list[dict[str, Any]]]:
    return {name: rows_of(paths) for name, paths in one.tables.items()}


def ids(one: Split) -> dict[str, list[str]]:
    return {name: sorted(row["id"] for row in rows) for name, rows in contents(one).items()}


SETS = {"sets": {"validation": {"share": 0.2}, "test": {"share": 0.1}}}


def check_apart(by_split: dict[str, list[dict[str, Any]]]) -> None:
    """No article and no text, folded, in two splits, with every pair of splits compared."""
    for (_, one), (_, other) in itertools.combinations(by_split.items(), 2):
        assert not {row["article"] for row in one if row["article"]} & {row["article"] for row in other}
        for side in ("source", "target"):
            plain = [{folded_plainly(row[side], [*FOLD]) for row in rows} for rows in (one, other)]
            assert not plain[0] & plain[1]


def test_articles_stand_whole_and_no_text_on_both_sides(tmp_path):
    rows = corpus()
    texts = random.Random(3)
    for row in texts.sample(
        [row for row in rows if "article" not in row], 20
    ):  # what repeats a side, in other clothes
        rows.append({"source": row["source"].upper() + "!", "target": f"again {row['target']}"})
        rows.append({"source": f"anders {row['source']}", "target": f"({row['target']})"})
    rows += article("b1", ["Ganz neu.", rows[0]["source"] + " ."])  # shares a sentence with a00
    by_split = contents(made(tmp_path, rows, **SETS))
    check_apart(by_split)
    assert sum(map(len, by_split.values())) == len(rows)
    together = next(name for name, found in by_split.items() if any(row["article"] == "b1" for row in found))
    assert any(row["article"] == "a00" for row in by_split[together])


def plain_cosines(rows: list[dict[str, Any]], side: str, ngram: int) -> dict[str, float]:
    """Coherence of articles with the exact TF-IDF vectors of all runs, neither hashed nor projected."""
    placed = [row for row in rows if row.get("article")]

    def runs(text: str) -> Counter:
        text = f" {folded_plainly(text, [*FOLD])} "
        return Counter(text[at : at + ngram] for at in range(max(len(text) - ngram + 1, 1)))

    frequency = Counter(run for row in placed for run in runs(row[side]))

    def vector(text: str) -> dict[str, float]:
        idf = {run: np.log((1 + len(placed)) / (1 + frequency[run])) + 1 for run in runs(text)}
        return {run: (1 + np.log(count)) * idf[run] for run, count in runs(text).items()}

    def cosine(one: dict[str, float], other: dict[str, float]) -> float:
        lengths = np.sqrt(sum(x * x for x in one.values())) * np.sqrt(sum(x * x for x in other.values()))
        return sum(weight * other.get(run, 0) for run, weight in one.items()) / lengths

    by_article = defaultdict(list)
    for row in sorted(placed, key=lambda row: (row["article"], row["position"])):
        by_article[row["article"]].append(vector(row[side]))
    return {name: float(np.mean([cosine(a, b) for a, b in itertools.pairwise(v)])) for name, v in by_article.items()}


@pytest.mark.parametrize("side", ["source", "target"])
def test_coherence_is_that_of_exact_vectors_up_to_the_projection(tmp_path, side):
    rows = corpus(loose=5)
    random.Random(1).shuffle(rows)
    one = made(tmp_path, rows, of=7, **SETS, coherence={"side": side, "ngram": 3})
    told = json.loads(describe(one, one.tables))["splits"]
    found = {row["article"]: row["coherence"] for part in told.values() for row in part["articles"]}
    expected = plain_cosines(rows, side, 3)
    assert found.keys() == expected.keys()
    errors = [found[name] - expected[name] for name in expected]
    assert abs(np.mean(errors)) < 0.03 and max(map(abs, errors)) < 0.08  # one cosine is told to 1/sqrt(1024)
    ranks = [np.argsort(np.argsort([values[name] for name in expected])) for values in (found, expected)]
    assert np.corrcoef(*ranks)[0, 1] > 0.9


def test_an_encoder_may_take_the_place_of_runs_of_characters(tmp_path, monkeypatch):
    """One that tells the number of blanks: neighbours with one number are alike, others opposite."""

    class Model:
        def __init__(self, folder: str, local_files_only: bool):
            assert folder == "some/folder" and local_files_only

        def encode(self, texts: list[str], normalize_embeddings: bool, show_progress_bar: bool) -> np.ndarray:
            return np.array([[1.0, 0.0] if " " in text else [0.0, 1.0] for text in texts])

    package = types.ModuleType("sentence_transformers")
    package.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    rows = article("same", ["ein Haus", "ein Hund", "ein Tag"]) + article("half", ["zwei Worte", "eins", "zwei"])
    one = made(tmp_path, rows, sets={"test": {"include": ["half"]}}, coherence={"encoder": "some/folder"})
    told = json.loads(describe(one, one.tables))["splits"]
    assert told["train"]["articles"][0]["coherence"] == 1 and told["test"]["articles"][0]["coherence"] == 0.5
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[encoders\]"'):
        made(tmp_path / "none", rows, sets={"test": {"include": ["half"]}}, coherence={"encoder": "some/folder"})


def test_every_bin_is_shared_out_alike(tmp_path):
    rows = corpus(articles=80, loose=0)
    one = made(tmp_path, rows, **SETS, bins=4)
    told = json.loads(describe(one, one.tables))
    sizes = Counter(row["article"] for row in rows)
    coherence = {row["article"]: row["coherence"] for part in told["splits"].values() for row in part["articles"]}
    ordered = sorted(coherence.values())
    edges = [ordered[20 * number] for number in (1, 2, 3)]
    assert told["coherence"]["edges"] == edges
    assert [place["articles"] for place in told["coherence"]["bins"]] == [20, 20, 20, 20]
    bin_of = {name: sum(value >= edge for edge in edges) for name, value in coherence.items()}
    for name, share in (("validation", 0.2), ("test", 0.1)):
        here = [row["article"] for row in told["splits"][name]["articles"]]
        for number in range(4):
            wished = share * sum(size for key, size in sizes.items() if bin_of[key] == number)
            has = sum(sizes[key] for key in here if bin_of[key] == number)
            assert abs(has - wished) <= max(sizes[key] for key in sizes if bin_of[key] == number)
            assert told["splits"][name]["bins"][number]["records"] == has
        whole = sum(sizes[key] for key in here)
        assert whole == told["splits"][name]["records"]
        assert abs(whole - share * len(rows)) <= max(sizes.values()) / 2 + 1
    # Planted: the words of later articles repeat, so that the last bin holds the late ones.
    late = [int(key[1:]) for key, place in bin_of.items() if place == 3]
    early = [int(key[1:]) for key, place in bin_of.items() if place == 0]
    assert np.mean(late) > 55 and np.mean(early) < 25


@st.composite
def corpora(draw: Any) -> list[dict[str, Any]]:
    rows = []
    for number in range(draw(st.integers(0, 6))):
        texts = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
        rows += article(f"a{number}", [f"{text} {number}" for text in texts], draw(st.sampled_from(["law", "news"])))
    for number in range(draw(st.integers(8, 25))):
        rows.append({"source": f"{draw(st.sampled_from(WORDS))} {number // 2}", "target": f"loose {number}"})
    unique = {(row["source"], row["target"], row.get("article"), row.get("position")): row for row in rows}
    return [*unique.values()]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=corpora(), seed=st.integers(0, 99), shuffle=st.randoms(use_true_random=False), of=st.integers(1, 9))
def test_order_and_tables_change_nothing(tmp_path_factory, rows, seed, shuffle, of):
    given = {"sets": {"validation": {"count": 3}, "test": {"share": 0.2}}, "seed": seed, "bins": 2}
    try:
        first = made(tmp_path_factory.mktemp("one"), rows, **given)
    except DataError:
        return
    shuffled = shuffle.sample(rows, len(rows))
    assert ids(first) == ids(made(tmp_path_factory.mktemp("other"), shuffled, of=of, **given))
    check_apart(contents(first))
    assert sum(map(len, ids(first).values())) == len(rows)


def test_a_further_record_moves_only_those_at_the_edge(tmp_path):
    """With single records and one bin a set is full after the same ones, give or take the last."""
    rows = corpus(articles=0, loose=400)
    before = ids(made(tmp_path / "before", rows, **SETS))
    for number in range(3):
        more = [*rows, {"source": f"Neu {number}", "target": f"new {number}"}]
        after = ids(made(tmp_path / str(number), more, **SETS))
        for name, limit in (("validation", 2), ("test", 4)):
            assert len({*before[name]} ^ {*after[name]}) <= limit
    other = ids(made(tmp_path / "seed", rows, **SETS, seed=2))
    assert len({*before["validation"]} & {*other["validation"]}) < 40  # of 80, by chance 16


def test_sets_come_by_their_names_and_one_more_moves_no_other(tmp_path):
    rows = corpus()
    two = ids(made(tmp_path / "two", rows, **SETS))
    three = {**SETS["sets"], "later": {"count": 30}}
    more = ids(made(tmp_path / "three", rows, sets=three))
    assert more["validation"] == two["validation"] and more["test"] == two["test"]
    assert len(more["later"]) == 30 or abs(len(more["later"]) - 30) <= 4


def test_counts_of_single_records_are_exact(tmp_path):
    found = contents(made(tmp_path, corpus(articles=0, loose=90), sets={"validation": {"count": 17}}))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 73, "validation": 17}


def test_articles_of_the_lists(tmp_path):
    rows = corpus()
    lists = {
        "validation": {"share": 0.1, "include": ["a01", "a02"]},
        "test": {"include": ["a03"]},
        "train": {"include": ["a04"], "exclude": ["a05"]},
    }
    found = contents(made(tmp_path, rows, sets=lists))
    where = {row["article"]: name for name, part in found.items() for row in part}
    assert (where["a01"], where["a02"], where["a03"], where["a04"]) == ("validation", "validation", "test", "train")
    assert where.get("a05", "validation") == "validation"
    assert {row["article"] for row in found["test"]} == {"a03"}
    assert abs(len(found["validation"]) - 0.1 * len(rows)) <= 9
    for seed in range(4):
        never = {"validation": {"share": 0.3, "exclude": [f"a{n:02d}" for n in range(35)]}}
        part = contents(made(tmp_path / str(seed), rows, sets=never, seed=seed))["validation"]
        assert not {row["article"] for row in part} & {*never["validation"]["exclude"]}


def test_what_may_stand_nowhere_is_rejected_with_the_reason(tmp_path):
    rows = corpus(loose=20)
    one = made(tmp_path, rows, sets={"validation": {"include": ["a01"]}, "train": {"exclude": ["a05"]}})
    gone = rows_of(one.rejected)
    assert {(row["article"], row["reason"], row["step"]) for row in gone} == {("a05", "excluded", "splits")}
    assert one.step.dropped == {"excluded": sum(row.get("article") == "a05" for row in rows)}
    assert one.step.kept == sum(map(len, contents(one).values())) == len(rows) - len(gone)
    assert one.place_of(gone[0]["id"]) == "splits: dropped, excluded (train)"


def test_domains_of_a_set_are_nowhere_else(tmp_path):
    rows = corpus()
    law = next(row for row in rows if row.get("domain") == "law")
    rows.append({"source": law["source"], "target": "the same in another text", "domain": "news"})
    one = made(tmp_path, rows, sets={"validation": {"share": 0.2}, "other": {"domains": ["law"]}})
    found = contents(one)
    assert {row["domain"] for row in found["other"]} == {"law"}
    assert "law" not in {row["domain"] for name in ("train", "validation") for row in found[name]}
    assert [(row["target"], row["reason"]) for row in rows_of(one.rejected)] == [
        ("the same in another text", "tied_to_domain")
    ]
    left = sum(row["domain"] == "news" for row in rows) - 1
    assert abs(len(found["validation"]) - 0.2 * left) <= 5


def test_a_balanced_set_holds_as_much_of_each_domain(tmp_path):
    found = contents(made(tmp_path, corpus(), sets={"validation": {"per_domain": 12}, "test": {"share": 0.1}}))
    counts = Counter(row["domain"] for row in found["validation"])
    assert counts.keys() == {"law", "news"} and all(abs(count - 12) <= 4 for count in counts.values())
    single = [{"source": f"s {n}", "target": f"t {n}", "domain": f"d{n % 3}"} for n in range(60)]
    found = contents(made(tmp_path / "single", single, sets={"validation": {"per_domain": 7}}))
    assert Counter(row["domain"] for row in found["validation"]) == {"d0": 7, "d1": 7, "d2": 7}


def test_sets_that_judge_hold_only_what_humans_wrote(tmp_path):
    rows = corpus(articles=0, loose=60)
    made_up = [{**row, "source": f"made up {n}", "synthetic": "backtranslation"} for n, row in enumerate(rows)]
    one = made(tmp_path, rows + made_up, sets={"validation": {"count": 15}})
    found = contents(one)
    assert len(found["validation"]) == 15 and not any(row["synthetic"] for row in found["validation"])
    # The copies share their target with what is in the set: they may not be trained on.
    assert Counter(row["reason"] for row in rows_of(one.rejected)) == {"synthetic": 15}
    assert len(found["train"]) == 90


def test_near_texts_stand_together_where_it_is_asked_for(tmp_path):
    draw = random.Random(5)
    rows = []
    for _ in range(60):
        texts = [" ".join(draw.choice(WORDS) for _ in range(12)) for _ in range(2)]
        rows.append({"source": texts[0], "target": texts[1]})
        rows.append({"source": f"{texts[0]} so", "target": f"{texts[1]} so"})
    sets = {"sets": {"validation": {"share": 0.3}}, "seed": 3}

    def parted(one: Split) -> int:
        where = {row["source"]: name for name, part in contents(one).items() for row in part}
        return sum(where[row["source"]] != where[f"{row['source']} so"] for row in rows[::2])

    assert parted(made(tmp_path / "equal", rows, **sets)) > 10
    assert parted(made(tmp_path / "near", rows, **sets, near={"threshold": 0.7})) == 0


def test_common_sentences_tie_articles_unless_told_otherwise(tmp_path):
    rows = [row for n in range(30) for row in article(f"a{n}", ["Ja.", *(f"Satz {n} {at}" for at in range(4))])]
    with pytest.raises(DataError, match=r"150 of 150 records hang together by equal sentences; splits.tie_articles"):
        made(tmp_path / "tied", rows, **SETS)
    found = contents(made(tmp_path / "free", rows, **SETS, tie_articles=False))
    assert {name: len({row["article"] for row in part}) for name, part in found.items()} == {
        "train": 21,
        "validation": 6,
        "test": 3,
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"validation": {}},
            "sets.validation: give one of share, count, per_domain, domains and include, not nothing",
        ),
        ({"validation": {"share": 0.1, "count": 3}}, "not share and count"),
        ({"train": {"share": 0.1}}, "sets.train.share: train gets what is left"),
        ({"a": {"share": 0.6}, "b": {"share": 0.4}}, "the shares add up to 1, which leaves nothing"),
        ({"a b": {"count": 1}}, "sets.a b: take letters, digits and _"),
        ({"a": {"include": ["x"]}, "b": {"include": ["x"]}}, "sets.b.include: x stands in a already"),
        ({"a": {"include": ["x"], "exclude": ["x"]}}, "x is in include and in exclude"),
    ],
)
def test_settings_that_do_not_fit(given, told):
    with pytest.raises(pydantic.ValidationError, match=told):
        SplitSettings.model_validate({"sets": given})


@pytest.mark.parametrize(
    ("sets", "error", "told"),
    [
        ({"a": {"include": ["a1"]}}, ConfigError, "sets.a.include: no record that is left is of the article 'a1'"),
        ({"a": {"domains": ["lwa"]}}, ConfigError, "of the domain 'lwa', only of law, news. Did you mean 'law'?"),
        ({"a": {"domains": ["law"]}, "b": {"include": ["a00"]}}, ConfigError, "'a00' must stand in a too, by"),
        ({"a": {"domains": ["law"], "exclude": ["a00"]}}, ConfigError, "sets.a.exclude: an article of the list"),
        ({"a": {"count": 1_000}}, DataError, r"1,000 records are asked for, and \d+ can be had with whole articles"),
        ({"a": {"per_domain": 200}}, DataError, r"200 records of the domain law are asked for"),
        ({"a": {"domains": ["law", "news"]}}, DataError, "nothing is left to train on"),
    ],
)  # fmt: skip
def test_what_the_corpus_cannot_give(tmp_path, sets, error, told):
    with pytest.raises(error, match=told):
        made(tmp_path, corpus(), sets=sets)


def test_more_processes_and_a_second_run_give_the_same(tmp_path):
    paths = tables(tmp_path / "in", corpus(), 40)
    chosen = SplitSettings.model_validate(SETS)
    one = split(paths, chosen, tmp_path / "one", ONE)
    two = split(paths, chosen, tmp_path / "two", LocalEngine(2))
    again = split(paths, chosen, tmp_path / "one", ONE)
    assert ids(one) == ids(two) == ids(again)
    assert describe(one, one.tables) == describe(two, two.tables) == describe(again, again.tables)


def prepare(*arguments: str) -> int:
    return recipe_module("prepare_data").main(list(arguments))


def test_a_user_makes_a_version_with_splits(tmp_path, capsys, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    rows = corpus()
    Path("raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ["source_language=de", "target_language=en", "inputs.x.path=raw.jsonl", "steps=[{empty: {}}]"]
    assert prepare(*common, "num_workers=1", "splits.sets.validation.count=40", "splits.sets.law.domains=[law]") == 0
    folder = Path(capsys.readouterr().out.strip())
    opened = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    told = json.loads((folder / "split_manifest.json").read_text(encoding="utf-8"))
    assert {name: len(part) for name, part in opened.items()} == {
        name: part["records"] for name, part in told["splits"].items()
    }
    assert [*told["splits"]] == ["train", "validation", "law"] and told["seed"] == 1
    assert told["splits"]["law"]["domains"] == {"law": told["splits"]["law"]["records"]}
    chosen = next(row for row in opened["law"])
    assert prepare(*common, "num_workers=1", "splits.sets.validation.count=40", "splits.sets.law.domains=[law]",
                   f"explain={chosen['id']}") == 0  # fmt: skip
    assert capsys.readouterr().out.endswith("kept to the end\nsplits: stands in law\n")
    leakage = json.loads((folder / "leakage.json").read_text(encoding="utf-8"))
    assert leakage["sets"].keys() == {"validation", "law"}
    assert leakage["sets"]["validation"]["shares"]["pairs"] == 0


def test_the_gate_compares_train_with_the_other_splits(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"source": text, "target": text[::-1] + ".", "article": f"a{n}", "position": at}
        for n in range(30)
        for at, text in enumerate(["Ja, gerne doch.", *(f"Satz {n} {at}" for at in range(4))])
    ]
    Path("raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ["source_language=de", "target_language=en", "inputs.x.path=raw.jsonl", "steps=[{empty: {}}]"]
    common += ["num_workers=1", "splits.sets.test.share=0.2", "splits.tie_articles=false"]
    with pytest.raises(Exception, match=r"leakage\.splits \(test\)\.max_pairs: 20\.00% of 30 pairs"):
        prepare(*common)
    assert prepare(*common, "leakage.on_leak=drop") == 0
    manifest = json.loads((Path(capsys.readouterr().out.strip()) / "split_manifest.json").read_text(encoding="utf-8"))
    assert manifest["splits"]["train"]["records"] == 24 * 4 and manifest["splits"]["test"]["records"] == 30
    with pytest.raises(ConfigError, match=r"leakage.sets.test: splits.sets has a set of this name"):
        prepare(*common, "leakage.sets.test.path=raw.jsonl")
    with pytest.raises(ConfigError, match=r"leakage.splits: it would change nothing"):
        prepare(*common[:3], "leakage.splits.max_near=0", "leakage.sets.x.path=raw.jsonl")
    with pytest.raises(ConfigError, match=r"leakage.sets: no set to compare with"):
        prepare(*common[:3], "leakage.on_leak=drop")
