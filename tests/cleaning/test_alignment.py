"""Misaligned pairs: planted ones in a language made up word by word."""

from __future__ import annotations

import logging
import random

import pyarrow as pa
import pytest
import xxhash
from steps_run import fates, run, step_of, table_of

from hf_nmt.cleaning.alignment_model import words_of

WORDS = [f"{a}{b}" for a in ("ba", "de", "gi", "lo", "mu", "ne", "po", "ra") for b in ("k", "ns", "st", "tz", "x")]
OTHERS = [word[::-1] + "u" for word in WORDS]


def translated(pairs: int, seed: int = 1) -> list[tuple[str, str]]:
    """Sentences and their translations, word by word, of words some of which are rarer than others."""
    chance = random.Random(seed)
    weights = [1 / (1 + rank) for rank in range(len(WORDS))]
    found = []
    for _ in range(pairs):
        places = chance.choices(range(len(WORDS)), weights, k=chance.randint(5, 14))
        source = " ".join(WORDS[place] for place in places) + "."
        chance.shuffle(places)
        found.append((source, " ".join(OTHERS[place] for place in places) + "."))
    return found


def shifted(pairs: list[tuple[str, str]], every: int) -> tuple[list[tuple[str, str]], set[int]]:
    bad = set(range(0, len(pairs) - 1, every))
    return [(source, pairs[n + 1][1] if n in bad else target) for n, (source, target) in enumerate(pairs)], bad


def dropped(step, pairs, **options) -> set[int]:
    return {number for number, reason in enumerate(fates(step, pairs, **options)) if reason}


PAIRS, BAD = shifted(translated(1500), 30)


def test_shifted_lines_are_found():
    gone = dropped(step_of("alignment"), PAIRS)
    assert len(gone & BAD) >= 0.8 * len(BAD)
    assert len(gone - BAD) <= 0.2 * len(gone)
    kept, gone_rows = run(step_of("alignment"), [table_of(PAIRS)])
    assert {row["reason"] for row in gone_rows} == {"misaligned"} and all(float(row["detail"]) for row in gone_rows)
    assert len(kept) + len(gone_rows) == len(PAIRS)


def test_nothing_goes_where_all_is_well():
    assert len(dropped(step_of("alignment"), translated(1500))) <= 1


def test_order_and_tables_decide_nothing():
    table = table_of(PAIRS)
    found = []
    for parts, seed in ((1, 0), (1, 1), (4, 2)):
        order = random.Random(seed).sample(range(len(PAIRS)), len(PAIRS))
        mixed = table.take(order)
        size = -(-len(mixed) // parts)
        _, gone = run(
            step_of("alignment", sample_pairs=1200), [mixed.slice(n, size) for n in range(0, len(mixed), size)]
        )
        found.append(sorted((row["id"], row["detail"]) for row in gone))
    assert found[0] and found[0] == found[1] == found[2]


def test_chance_and_precision_are_what_they_say():
    strict, mild = (dropped(step_of("alignment", max_chance=share), PAIRS) for share in (0.05, 0.6))
    assert mild < strict
    assert 0.2 * len(BAD) < len(mild & BAD) < 0.7 * len(BAD)
    # Without a bar on precision a chance of 1% takes more of the good.
    every = dropped(step_of("alignment", max_chance=0.001, min_precision=0), PAIRS)
    held = dropped(step_of("alignment", max_chance=0.001, min_precision=0.9), PAIRS)
    assert held <= every and len(every & BAD) == len(BAD)


def test_pairs_that_do_not_go_together_at_all_are_told_and_stay(caplog):
    sources, targets = zip(*translated(1200), strict=True)
    assert not dropped(step_of("alignment"), list(zip(sources, targets[1:] + targets[:1], strict=True)))
    assert "fit no better than random ones" in caplog.text


def test_few_pairs_are_told_and_stay(caplog):
    assert not dropped(step_of("alignment"), PAIRS[:300])
    assert "300 pairs of de-en are too few to learn from" in caplog.text


def test_each_pair_of_languages_has_its_own_lexicon(caplog):
    caplog.set_level(logging.INFO)
    # The same words mean other things in the second pair of languages.
    turned = [(source, target.replace("u", "o")) for source, target in shifted(translated(1500, seed=2), 30)[0]]
    first, second = table_of(PAIRS), table_of(turned, ("de", "fr"))
    second = second.set_column(0, second.schema.field("id"), pa.array([f"{n:032x}" for n in range(9000, 10500)]))
    alone = [run(step_of("alignment"), [table])[1] for table in (first, second)]
    _, both = run(step_of("alignment"), [pa.concat_tables([first, second]).combine_chunks()])
    assert sorted(row["id"] for row in both) == sorted(row["id"] for rows in alone for row in rows)
    assert "de-en" in caplog.text and "de-fr" in caplog.text


def hashes(*words: str) -> list[int]:
    return [xxhash.xxh3_64_intdigest(word.encode()) for word in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Dogs' barking!", ["the", "dogs", "'", "barki", "!"]),
        ("\uff21\uff22c\u00a0x", ["abc", "x"]),
        ("\uac15\uc544\uc9c0\uac00 \uc9d6\ub294\ub2e4", ["\uac15\uc544", "\uc9d6\ub294"]),
        ("\u72ac\u304c\u9cf4", ["\u72ac", "\u304c", "\u9cf4"]),
        ("", []),
        (" \u00a0\n", []),
    ],
)
def test_words(text, words):
    # Between others, so that places that are not theirs would show.
    found = words_of(pa.chunked_array([["a b", text, "c"]])).to_pylist()
    assert found == [hashes("a", "b"), hashes(*words), hashes("c")]


def test_the_first_150_words_count():
    assert len(words_of(pa.array(["a " * 500]))[0].as_py()) == 150
    assert words_of(pa.array([], pa.string())).to_pylist() == []


def test_what_has_few_words_stays_and_long_texts_are_no_stop():
    odd = [("", ""), (" ", "."), ("\x00", "\ufffd"), ("a", ""), ("x" * 10**6, "a " * 10**6)]
    assert fates(step_of("alignment"), [*PAIRS, *odd])[len(PAIRS) :][:4] == [None] * 4
