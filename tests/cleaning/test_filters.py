"""Size and shape of pairs: planted examples, and counts done again in plain Python."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_run import fates, run, step_of, table_of

from hf_nmt.cleaning.filters import num_words, size
from hf_nmt.cleaning.pipeline import NamedStep
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1))
def test_words_are_those_of_python(texts):
    # The control characters that str.split takes for white space are none to Unicode.
    plain = [re.sub("[\x1c-\x1f]", "", text) for text in texts]
    assert num_words(pa.chunked_array([plain])).to_pylist() == [len(text.split()) for text in plain]


def test_sizes_count_what_letters_of_a_script_stand_for():
    found = size(pa.chunked_array([["abc d", "\uac00\ub098 a", "\u72ac\u304c", ""]])).to_pylist()
    assert found == pytest.approx([5, 2 * 2.1 + 2, 3 + 1.5, 0])


def test_ratio():
    long = "one two three four five six seven eight nine ten."
    pairs = [(long, long[:-2] + "."), (long, "eins."), ("Go!", "Los geht's!"), ("\uac00!", "Let us go!"), (long, "")]
    assert fates(step_of("ratio"), pairs) == [None, "character_ratio", None, None, "character_ratio"]
    assert fates(step_of("ratio", max_characters=9), pairs)[1] == "word_ratio"
    assert fates(step_of("ratio", max_characters=9, max_words=9), pairs)[1] is None
    assert fates(step_of("ratio", spare_characters=0), [("Go!", "Los geht's!")]) == ["character_ratio"]
    _, gone = run(step_of("ratio"), [table_of([(long, "eins.")])])
    assert float(gone[0]["detail"]) == pytest.approx((len(long) + 15) / (len("eins.") + 15), abs=1e-4)


def test_a_side_may_be_as_long_as_usual_for_its_languages():
    # The target is mostly half of the source, as in a dense language; what is as long is too long.
    usual = [("x" * size, "y" * (size // 2)) for size in range(100, 402, 2)]
    strange = [("x" * 100, "y" * 120), ("x" * 100, "y" * 20), ("x" * 100, "y" * 80)]
    step = step_of("ratio", spare_characters=0, max_words=99)
    assert fates(step, usual + strange)[-3:] == ["character_ratio", "character_ratio", None]
    assert fates(step, usual + strange)[: len(usual)] == [None] * len(usual)
    # Of few pairs nothing is usual, and another pair of languages has lengths of its own.
    assert fates(step, usual[:90] + strange)[-3:] == [None, "character_ratio", None]
    of_czech = table_of(usual, ("de", "cs"))
    of_english = table_of([*strange, ("x" * 100, "y" * 49)], ("de", "en"))
    _, gone = run(step, [of_czech, of_english])
    assert sorted(row["target"] for row in gone) == ["y" * 20, "y" * 49]


def test_unspaced_scripts_have_no_ratio_of_words():
    pair = (
        "\u72ac\u304c\u5ead\u3067\u5927\u304d\u306a\u58f0\u3067\u5420\u3048\u3066\u3044\u308b",
        "A dog barks in it now",
    )
    assert fates(step_of("ratio", max_words=1.1), [pair, ("Hund", pair[1])]) == [None, "word_ratio"]


def test_ratio_of_tokens(tmp_path):
    tokenizer = train_tokenizer(["ab ab abc"] * 9, ["x y z"] * 9, TokenizerSettings(vocab_size=280),
                                source_language="de", target_language="en")  # fmt: skip
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    step = step_of("ratio", max_characters=99, max_words=99, tokenizer=str(tmp_path / "tokenizer"), max_tokens=2.0)
    assert fates(step, [("ab", "x y z x y z x y z"), ("ab", "x")]) == ["token_ratio", None]
    before = NamedStep("ratio", step).identity
    (tmp_path / "tokenizer" / "vocab.txt").write_text("another")
    assert NamedStep("ratio", step).identity != before


def test_a_side_that_breaks_off():
    whole = ("Der Hund bellt laut im Garten.", "The dog barks loudly in the garden.")
    cut = (whole[0], "The dog barks")
    assert fates(step_of("endings"), [whole, cut, cut[::-1], (whole[0][:-1], cut[1])]) == [
        None, "target_broken_off", "source_broken_off", None,
    ]  # fmt: skip
    # Where targets are usually half as long, one of half the length is whole.
    usual = [(whole[0], "Dog barks here.")] * 100
    assert set(fates(step_of("endings"), [*usual, cut])) == {None}
    assert (
        fates(step_of("endings", min_ratio=1.1, min_precision=0), [*usual, (whole[0], "Dog barks")])[-1]
        == "target_broken_off"
    )


def test_texts_that_end_without_a_mark_anyway_are_not_broken_off():
    long, short = "Der Hund bellt laut im Garten vor dem Haus.", "The dog barks in the garden."
    # One in twenty targets is that short, marked or not: of what has no mark none can be said to be cut off.
    free = [(long, "The dog barks loudly in the garden of the house." if n % 20 else short) for n in range(400)]
    captions = [(source, target.rstrip(".")) for source, target in free[:200]]
    step = step_of("endings", min_ratio=1.3)
    assert set(fates(step, free + captions)) == {None}
    # Where sixty more are cut off the ten are less than a quarter of all that go, but more than a tenth.
    cut = [(long, "The dog barks loudly in")] * 60
    mild = step_of("endings", min_ratio=1.3, min_precision=0.75)
    assert fates(mild, free + captions + cut)[400:].count("target_broken_off") == 70
    found = fates(step_of("endings", min_ratio=1.3, min_precision=0.9), free + captions + cut)
    assert set(found[600:]) == {"target_broken_off"} and set(found[:600]) == {None}
    # Without a bar on precision the ten go by themselves.
    assert fates(step_of("endings", min_ratio=1.3, min_precision=0), free + captions).count("target_broken_off") == 10


@pytest.mark.parametrize(
    "end", [".", "!", "?", "...", "\u2026", ".\u201c", '."', "\u3002", "\uff01\u300d", ". ", "\u061f"]
)
def test_what_ends_a_sentence(end):
    pair = ("Der Hund bellt laut im Garten" + end, "The dog")
    assert fates(step_of("endings"), [pair]) == ["target_broken_off"]


def test_long_words():
    word = "x" * 51
    pairs = [(word, "a"), ("a", word), ("x" * 50, "a"), ("a", "https://a.example/" + "/".join(["long"] * 20)),
             ("\u72ac" * 80, "a")]  # fmt: skip
    assert fates(step_of("long_words"), pairs) == ["source_long_word", "target_long_word", None, None, None]
