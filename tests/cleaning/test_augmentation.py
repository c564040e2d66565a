"""Copies with noise and synonyms, and the share of synthetic records."""

from __future__ import annotations

import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from corpora_of_rows import rows_of, tables

from hf_nmt.cleaning.augmentation import AugmentSettings, augment, english_side
from hf_nmt.cleaning.engine import LocalEngine
from hf_nmt.cleaning.noise import _DUBEOLSIK, _QWERTY, Noise, neighbours
from hf_nmt.cleaning.pipeline import Cleaned
from hf_nmt.cleaning.synonyms import Synonyms, read_lexicon, replaced
from hf_nmt.errors import ConfigError, DataError, NmtError

SILENT = {"drop": 0, "swap": 0, "typo": 0, "case": 0, "punctuation": 0}
WORDS = [f"{a}{b}nor" for a in "bdfgklmnprstvw" for b in "aeiou"]


def noisy(text: str, key: str = "k", language: str = "en", **settings) -> str:
    return Noise(**{**SILENT, **settings}).noisy(text, language, key)


def human(count: int, seed: int = 0) -> list[dict]:
    draw = random.Random(seed)
    return [
        {
            "source": " ".join(draw.sample(WORDS, 8)) + ".", "target": f"The big dog saw number {seed} {row}.",
            "source_language": "de", "target_language": "en", "origin": f"corpus{row % 2}", "domain": "news",
        }
        for row in range(count)
    ]  # fmt: skip


def run(rows: list[dict], folder: Path, of: int = 7, workers: int = 1, **settings) -> tuple[list[dict], Cleaned]:
    paths = tables(folder / "in", rows, of)
    found = augment(Cleaned(paths, [], [], {}), AugmentSettings(**settings), LocalEngine(workers), folder / "work")
    return rows_of(found.kept), found


# Noise


def test_a_word_never_goes_farther_than_the_window_and_none_is_lost():
    words = [f"w{letter}" for letter in "abcdefghijklmnopqrst"]
    moved = Counter()
    for window in (1, 3):
        for key in map(str, range(60)):
            found = noisy(" ".join(words), key, swap=0.5, swap_window=window).split()
            assert sorted(found) == sorted(words)
            moved[window] += max(abs(found.index(word) - place) for place, word in enumerate(words)) == window
            assert all(abs(found.index(word) - place) <= window for place, word in enumerate(words))
    assert moved[1] > 20 and moved[3] > 10


def test_a_letter_gives_way_to_a_neighbour_of_its_key():
    assert set(neighbours(_QWERTY)["g"]) == set("ftyhbv") and set(neighbours(_QWERTY)["q"]) == set("wa")
    seen = Counter()
    for key in map(str, range(80)):
        seen.update(zip("Greatest", noisy("Greatest", key, typo=0.5), strict=True))
    assert {other for (letter, other) in seen if letter == "G"} == set("GFTYHBV")
    changed = sum(count for (one, other), count in seen.items() if one != other)
    assert changed / seen.total() == pytest.approx(0.5, abs=0.08)


def test_the_keyboard_is_that_of_the_language():
    german = {noisy("z", key, "de", typo=0.5) for key in map(str, range(60))}
    assert german == set("ztugh")
    assert {noisy("z", key, "en", typo=0.5) for key in map(str, range(60))} == set("zasx")
    assert noisy("\u72ac \u05d0", "k", "he", typo=0.5) == "\u72ac \u05d0"  # not on the keyboard


def test_korean_syllables_stay_syllables_with_one_jamo_of_a_neighbouring_key():
    syllable = "\ud55c"  # h, a, n
    found = {noisy(syllable, key, "ko", typo=0.5) for key in map(str, range(80))} - {syllable}
    assert len(found) > 3
    for other in found:
        before, after = (unicodedata.normalize("NFD", text) for text in (syllable, other))
        assert len(after) == 3 and sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert before[2] == after[2]
    assert set(neighbours(_DUBEOLSIK)["\u314f"]) >= {"\u3153", "\u3163"}


def test_numbers_and_addresses_stay_and_so_does_the_end():
    text = "In 1999, me@a.example saw www.b.example and 12 dogs."
    for key in map(str, range(50)):
        found = noisy(text, key, drop=0.5, swap=0.5, typo=0.5, case=0.5)
        kept = {word.rstrip(".") for word in found.split()}
        assert {"1999,", "me@a.example", "www.b.example", "12"} <= kept and found.endswith(".")


def test_each_kind_of_mistake_does_what_it_says():
    assert noisy("One, two: three!", punctuation=1.0) == "One two three"
    assert {noisy("One two.", key, case=1.0) for key in map(str, range(40))} == {"one two.", "ONE TWO.", "One Two."}
    counts = [len(noisy("a b c d e f g h", key, drop=0.25).split()) for key in map(str, range(300))]
    assert sum(counts) / 300 == pytest.approx(6, abs=0.3) and min(counts) >= 1
    assert noisy("alone", "k", drop=0.5) == "alone"
    chinese = {noisy("\u6211\u4eec\u770b\u5230\u4e00\u53ea\u72d7", key, "zh", swap=1.0) for key in map(str, range(9))}
    assert len(chinese) > 3 and all(len(text) == 7 for text in chinese)


def test_one_kind_of_mistake_does_not_depend_on_another():
    assert noisy("One two three four", typo=0.2).lower() == noisy("One two three four", typo=0.2, case=1.0).lower()


# Synonyms

LEXICON = {"dog": ("hound",), "big": ("enormous",), "saw": ("noticed",), "apple": ("pear",), "may": ("might",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A big dog saw it.", "An enormous hound noticed it."),
        ("Dog, BIG dog!", "Hound, BIG hound!"),
        ("THE BIG DOG", "THE ENORMOUS HOUND"),
        ("an apple; An apple", "a pear; A pear"),
        ("In May the dogs slept", "In May the dogs slept"),
        ('He left. "Dog"', 'He left. "Hound"'),
    ],
)
def test_words_are_replaced_in_their_case_and_articles_follow(text, expected):
    lookup = lambda word: LEXICON.get(word, ())  # noqa: E731
    assert replaced(text, lookup, 1.0, random.Random(0)) == expected


def test_words_are_replaced_as_often_as_asked():
    lookup = lambda word: LEXICON.get(word, ())  # noqa: E731
    found = replaced("dog " * 2000, lookup, 0.3, random.Random(0)).split()
    assert found.count("hound") == pytest.approx(600, abs=60)


def test_a_lexicon_is_read_and_refused_by_its_line(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("Dog\thound\tdog\ndog\tpup\n\nbig\tvery large\n")
    assert read_lexicon(path) == {"dog": ("hound", "pup"), "big": ("very large",)}
    for number, line in enumerate(("dog", "look at\twatch", "dog\t \t"), 1):
        bad = tmp_path / f"bad{number}.tsv"
        bad.write_text(f"big\tlarge\n{line}\n")
        with pytest.raises(DataError, match=rf"bad{number}.tsv, line 2: a single word, a tab and its synonyms"):
            read_lexicon(bad)
    (tmp_path / "self.tsv").write_text("dog\tDog\n")
    with pytest.raises(DataError, match="there is no word with a synonym in it"):
        read_lexicon(tmp_path / "self.tsv")


def test_the_english_side_is_found_by_its_code():
    codes = [("en", "de"), ("de", "en-GB"), ("de", "eng_Latn"), ("de", "fr"), (None, "en"), ("enm", "de")]
    assert [english_side(*pair) for pair in codes] == ["source", "target", "target", None, "target", None]


# Records


def test_copies_are_marked_and_name_their_parent(tmp_path):
    (tmp_path / "words.tsv").write_text("big\tlarge\tgreat\n")
    lexicon = tmp_path / "words.tsv"
    rows, found = run(
        human(20), tmp_path, noise={}, synonyms={"lexicon": lexicon, "probability": 1}, max_synthetic_share=0.9
    )
    originals = {row["id"]: row for row in rows if row["synthetic"] is None}
    copies = [row for row in rows if row["synthetic"] is not None]
    assert len(originals) == 20 and Counter(row["synthetic"] for row in copies)["synonyms"] == 20
    assert found.steps[-1].added == dict(Counter(row["synthetic"] for row in copies))
    for copy in copies:
        parent = originals[copy["parent"]]
        same = ["target" if copy["synthetic"] == "noise" else "source", "origin", "domain", "source_language"]
        assert [copy[name] for name in same] == [parent[name] for name in same]
        assert (copy["source"], copy["target"]) != (parent["source"], parent["target"])
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("changes", [{"of": 3}, {"of": 40}, {"workers": 2}])
def test_neither_order_nor_tables_nor_workers_matter(tmp_path, changes):
    settings = {"noise": {"copies": 2}, "max_synthetic_share": 0.3}
    rows = human(30)
    expected, _ = run(rows, tmp_path / "a", **settings)
    found, _ = run(rows[::-1], tmp_path / "b", **changes, **settings)
    assert sorted(map(str, found)) == sorted(map(str, expected)) and len(expected) == 30 + 12


def test_the_share_is_kept_to_and_counts_inputs_that_are_synthetic(tmp_path):
    given = [{**row, "synthetic": "backtranslation"} for row in human(50, seed=1)]
    rows, found = run(human(40) + given, tmp_path, noise={}, max_synthetic_share=0.2)
    kinds = Counter(row["synthetic"] for row in rows)
    assert kinds.pop(None) == 40 and sum(kinds.values()) == 10  # 10 of 50
    assert set(kinds) == {"noise", "backtranslation"}
    gone = rows_of(found.rejected)
    assert len(gone) == 50 - kinds["backtranslation"]
    assert {(row["step"], row["reason"]) for row in gone} == {("augment", "over_synthetic_share")}
    assert found.steps[-1].dropped == {"over_synthetic_share": len(gone)} and found.steps[-1].kept == 50
    # More are let in with a larger share, and none of the others goes.
    more, _ = run(human(40) + given, tmp_path / "more", noise={}, max_synthetic_share=0.4)
    assert {row["id"] for row in rows} < {row["id"] for row in more}


def test_other_seeds_choose_others(tmp_path):
    texts = [
        {row["source"] for row in run(human(20), tmp_path / str(seed), noise={}, seed=seed)[0]} for seed in (0, 1)
    ]
    assert texts[0] != texts[1]


def test_copies_of_synthetic_records_are_not_made(tmp_path):
    rows, _ = run([{**row, "synthetic": "x"} for row in human(9)] + human(30, seed=5), tmp_path, noise={})
    ids = {row["id"] for row in rows if row["synthetic"] == "x"}
    assert not ids & {row["parent"] for row in rows}


def test_no_copy_equals_a_real_record_or_another_copy(tmp_path):
    """Two words have two orders, and both are there already for the first pair."""
    rows = [
        {"source": source, "target": target, "source_language": "de", "target_language": "en"}
        for source, target in [("ab cd", "x"), ("cd ab", "x"), ("ef gh", "y")]
    ]
    noise = {**SILENT, "swap": 1.0, "copies": 10}
    found, _ = run(rows, tmp_path, noise=noise, max_synthetic_share=0.9)
    assert sorted((row["source"], row["target"], row["synthetic"] or "") for row in found) == [
        ("ab cd", "x", ""), ("cd ab", "x", ""), ("ef gh", "y", ""), ("gh ef", "y", "noise"),
    ]  # fmt: skip


def test_what_was_made_is_not_made_again(tmp_path, monkeypatch):
    expected, _ = run(human(12), tmp_path, noise={})
    monkeypatch.setattr(Noise, "noisy", None)
    paths = sorted((tmp_path / "in").glob("*.arrow"))
    found = augment(Cleaned(paths, [], [], {}), AugmentSettings(noise={}), LocalEngine(1), tmp_path / "work")
    assert rows_of(found.kept) == expected


def test_no_text_is_fine(tmp_path):
    assert augment(Cleaned([], [], [], {}), AugmentSettings(noise={}), LocalEngine(1), tmp_path).kept == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": SILENT}, "noise: all probabilities are 0"),
        ({"noise": {"swap": 0, "swap_window": 2}}, "swap_window: it would change nothing with swap=0"),
        ({"max_synthetic_share": 1}, "less than 1"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        AugmentSettings(**settings)


def test_what_synonyms_need_is_told(tmp_path, monkeypatch):
    (tmp_path / "words.tsv").write_text("big\tlarge\n")
    settings = AugmentSettings(synonyms=Synonyms(lexicon=tmp_path / "words.tsv"))
    assert settings.problems([("de", "en"), ("de", "fr")]) == []
    assert settings.problems([("de", "fr")]) == [
        "augment.synonyms: neither side of de-fr is English, which they are for. Leave them out."
    ]
    settings = AugmentSettings(synonyms=Synonyms(lexicon=tmp_path / "word.tsv"))
    assert "Did you mean" in settings.problems([("de", "en")])[0]
    monkeypatch.setitem(__import__("sys").modules, "nltk", None)
    (finding,) = AugmentSettings(synonyms=Synonyms()).problems([("de", "en")])
    assert finding.startswith("augment.synonyms: The package 'nltk' is needed") and "hf_nmt[wordnet]" in finding


def test_the_recipe_augments_training_text_alone(tmp_path, monkeypatch, capsys):
    from settings_walk.keys import recipe_module

    from hf_nmt.data.manifest import Manifest

    monkeypatch.chdir(tmp_path)
    Path("raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in human(40)))
    Path("test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in human(4, seed=9)))
    given = ["--config", "tiny", "inputs.mine.path=raw.jsonl", "num_workers=1", "augment.noise={copies: 2}"]
    given += ["augment.max_synthetic_share=0.4", "leakage.sets.test.path=test.jsonl"]
    assert recipe_module("prepare_data").main(given) == 0
    folder = Path(capsys.readouterr().out.strip())
    manifest = Manifest.read(folder / "manifest.json")
    (step,) = [step for step in manifest.steps if step.name == "augment"]
    assert step.added == {"noise": 26} and manifest.splits["train"].rows == 66
    report = json.loads((folder / "leakage.json").read_text())
    assert report["sets"]["test"]["pairs"] == 4
    with pytest.raises((ConfigError, NmtError), match="augment.synonyms: .*nowhere.tsv: there is no such file"):
        recipe_module("prepare_data").main([*given, "augment.synonyms.lexicon=nowhere.tsv"])
