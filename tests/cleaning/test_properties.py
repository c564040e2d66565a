"""What holds for every kind of step, whatever the text: a kind that is added is walked over by itself."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps_run import run
from steps_run import table_of as table_in
from tiny_models import save_encoder, save_translator

from hf_nmt.cleaning.settings import StepChoice
from hf_nmt.cleaning.step import Step

# Settings that a kind cannot do without, or that make it act on less than a corpus.
FOLDER = Path(tempfile.mkdtemp())
NEEDED: dict[str, dict] = {
    "alignment": {"min_pairs": 100},
    "core_set": {"size": 4},
    "cross_entropy_difference": {"in_domain": str(FOLDER / "text.txt")},
    "dual_cross_entropy": {"forward": str(FOLDER / "forward"), "backward": str(FOLDER / "backward"),
                           "max_cross_entropy": 6},
    "perplexity": {"text": str(FOLDER / "text.txt"), "max_perplexity": 12},
    "similarity": {"encoder": str(FOLDER / "encoder"), "min_similarity": 0.9},
}  # fmt: skip
# What these learn from is the corpus itself, so that what is left may teach them otherwise.
LEARNING = ("CrossEntropyDifference",)
# Models know their languages.
LANGUAGES_OF = {"DualCrossEntropy": ("de", "en")}
KINDS = sorted(StepChoice.model_fields)
PIECES = [
    "", " ", "\u00a0", "\u200b", "\ufeff", "\u3000", "\x00", "\x07", "\n", "\r\n", "\t", ".", "?", "\u3002", "!",
    "...", "(", ")", '"', "\u201e", "\u201c", "\u00ab", "\u00bb", "'", "\u2019", "\u2013", "<b>", "</b>", "&amp;",
    "&amp;lt;", "&lt;", "&#39;", "&nbsp;", "&", "<", "1,5", "1.000", "12", "3\ucc9c\uc5b5", "7:30", "19.30", "2nd",
    "\u0661\u0662",
    "https://a.example/b", "www.a.example", "me@a.example", "Gr\u00fc\u00dfe", "Gru\u0308\u00dfe", "GrÃ¼ÃŸe",
    "\u00c3\u0192\u00c2\u00a9", "Ã©tÃ©", "\u00e2\u20ac\u2122", "\u00ef\u00bb\u00bf", "\ufffd", "Der", "Hund", "bellt",
    "The", "dog", "barks", "\uac1c\uac00", "\u1100\u1161", "\u3131", "\uff21\uff11", "\ufb01n", "\u72ac", "\U0001f415",
    "x" * 60, "Der alte Mann sitzt auf einer Bank und liest die Zeitung.",
    "The old man is sitting on a bench and reading the paper.", "Le vieil homme est assis sur un banc dans le parc.",
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=7).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12)
LANGUAGES = st.sampled_from([("de", "en"), ("ko", "en"), ("fr", "cs"), (None, None), ("en", "xx")])
LIGHT = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", autouse=True)
def models():
    text = ["Der Hund bellt.", "The dog barks.", "Der alte Mann sitzt auf einer Bank und liest die Zeitung."]
    (FOLDER / "text.txt").write_text("\n".join(text * 3) + "\n", encoding="utf-8")
    save_translator(FOLDER / "forward", seed=1)
    save_translator(FOLDER / "backward", seed=2, languages=("en", "de"))
    save_encoder(FOLDER / "encoder")
    yield
    shutil.rmtree(FOLDER)


def step_of(kind: str) -> Step:
    return StepChoice.model_validate({kind: NEEDED.get(kind, {})}).step


each_kind = pytest.mark.parametrize("step", [*map(step_of, KINDS)], ids=KINDS)


def table_of(step: Step, pairs: list[tuple[str, str]], languages: tuple = ("de", "en")):
    return table_in(pairs, LANGUAGES_OF.get(type(step).__name__, languages))


def fate(step: Step, tables: list) -> tuple[Counter, Counter]:
    """What stays and what goes, whatever the order."""
    kept, gone = run(step, tables)
    return Counter(map(str, kept)), Counter(map(str, gone))


def test_there_are_kinds_to_walk():
    assert len(KINDS) >= 8 and set(NEEDED) <= set(KINDS)


@each_kind
@LIGHT
@given(pairs=PAIRS, languages=LANGUAGES)
def test_every_pair_is_kept_once_or_dropped_with_a_reason(step, pairs, languages):
    kept, gone = run(step, [table_of(step, pairs, languages)])
    assert sorted(row["id"] for row in kept + gone) == [f"{number:032x}" for number in range(len(pairs))]
    assert all(row["reason"] and row["reason"].replace("_", "").isalnum() for row in gone)
    assert all((row["source"], row["target"]) == pairs[int(row["id"], 16)] for row in gone)
    assert all(row["source"] is not None and row["target"] is not None for row in kept)


@each_kind
@LIGHT
@given(pairs=PAIRS, languages=LANGUAGES, seed=st.integers(0, 9))
def test_order_and_borders_of_tables_change_nothing(step, pairs, languages, seed):
    table = table_of(step, pairs, languages)
    expected = fate(step, [table])
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))
    assert fate(step, [table.take(order)]) == expected
    at = seed % len(pairs) or 1
    parts = [table.slice(0, at), table.slice(at)]
    assert fate(step, [part for part in parts if len(part)]) == expected


@each_kind
@LIGHT
@given(pairs=PAIRS, languages=LANGUAGES)
def test_what_was_kept_is_kept_again_unchanged(step, pairs, languages):
    if type(step).__name__ in LEARNING:
        return
    kept, _ = run(step, [table_of(step, pairs, languages)])
    if not kept:
        return
    once = [(row["source"], row["target"]) for row in kept]
    again, gone = run(step, [table_of(step, once, languages)])
    assert [(row["source"], row["target"]) for row in again] == once and not gone


def shifted_lines(chance: random.Random) -> list[tuple[str, str]]:
    """Sentences with their translations, word by word, and some with another."""
    lines = [[(f"a{n}", f"b{n}") for n in chance.choices(range(50), k=9)] for _ in range(900)]
    others = [lines[(n + (n % 20 == 0)) % len(lines)] for n in range(len(lines))]
    return [(" ".join(a for a, _ in one), " ".join(b for _, b in two)) for one, two in zip(lines, others, strict=True)]


@functools.cache
def kinds_that_act() -> set[str]:
    chance = random.Random(3)
    acting = set()
    for kind in KINDS:
        texts = [[" ".join(chance.choices(PIECES, k=chance.randrange(9))) for _ in range(2)] for _ in range(300)]
        pairs = [tuple(pair) for pair in texts] + shifted_lines(chance)
        kept, gone = run(step_of(kind), [table_in(pairs)])
        if gone or any((row["source"], row["target"]) != pairs[int(row["id"], 16)] for row in kept):
            acting.add(kind)
    return acting


def test_the_texts_give_every_kind_something_to_do():
    assert kinds_that_act() == set(KINDS)
