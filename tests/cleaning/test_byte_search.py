"""What is found in bytes, against Python's strings and against the patterns that it is found for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nmt.cleaning import contents, filters
from hf_nmt.cleaning.byte_search import (
    ending_in,
    matches,
    maybe_east_asian,
    num_words,
    with_any,
    with_digits,
    with_run,
)

BLANKS = [chr(code) for code in range(0x110000) if chr(code).isspace()]
LETTERS = [*"ab.w/:@1<&[{}\\=-!\"')", "\u00df", "\u0661", "\u0e01", "\u1780", "\u2014", "\u3042", "\uac00", "\u4e00"]
ANY = st.characters(codec="utf-8")
TEXTS = st.lists(st.text(st.sampled_from(LETTERS) | st.sampled_from(BLANKS) | ANY, max_size=12), max_size=8)
PATTERNS = [
    (filters._NOT_SPACED, maybe_east_asian),
    (filters._WITHOUT_MARKS, maybe_east_asian),
    *((script, maybe_east_asian) for script in filters._WIDER),
    (filters._ENDED, lambda texts: ending_in(texts, filters._MARKS + filters._CLOSING)),
    (contents._MARKUP, lambda texts: with_any(texts, *contents._MARKUP_NEEDS)),
    (r"://|www\.|@", lambda texts: with_any(texts, "//", "w.", "@")),
    (r"\p{Nd}", with_digits),
    (r"[^\s/a]{4}", lambda texts: with_run(texts, " /", 3)),
]


@settings(deadline=None)
@given(texts=TEXTS)
def test_words_are_those_of_python(texts):
    assert num_words(pa.array(texts, pa.string())).to_pylist() == [len(text.split()) for text in texts]


def test_every_blank_parts_words():
    texts = [f"a{blank}b{blank * 2}" for blank in BLANKS]
    assert num_words(pa.array(texts)).to_pylist() == [2] * len(BLANKS)


@pytest.mark.parametrize(("pattern", "where"), PATTERNS)
@settings(deadline=None)
@given(texts=TEXTS)
def test_no_match_is_passed_over(pattern, where, texts):
    column = pa.array(texts, pa.string())
    rows = where(column)
    assert rows.dtype == bool
    assert matches(column, pattern, rows).to_pylist() == pc.match_substring_regex(column, pattern).to_pylist()


def test_plain_text_is_passed_over():
    plain = pa.array(
        ["Ein Mann \u00fcberquert - \u201eendlich\u201c - die Stra\u00dfe", "", "A man walks his dog, again"]
    )
    for _, where in PATTERNS[:-2]:  # the dash may be a digit
        assert not where(plain).any()
    assert np.array_equal(with_run(pa.array(["ab cd ", "ab", "abcd"]), " ", 3), [False, True, True])


@pytest.mark.parametrize("pattern", [script for script, where in PATTERNS if where is maybe_east_asian])
def test_no_character_of_a_script_is_passed_over(pattern):
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    column = pa.array(characters)
    found = pc.match_substring_regex(column, pattern).to_numpy(zero_copy_only=False)
    assert found.any() and not (found & ~maybe_east_asian(column)).any()
    if pattern == filters._NOT_SPACED:
        digits = pc.match_substring_regex(column, r"\p{Nd}").to_numpy(zero_copy_only=False)
        assert not (digits & ~with_digits(column)).any()
