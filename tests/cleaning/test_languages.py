"""Languages and scripts of the sides: planted exchanges, and what must stay."""

from __future__ import annotations

import pytest
from steps_run import fates, step_of

from hf_nmt.cleaning.languages import scripts_of

GOOD = [
    ("Der alte Mann liest im Garten eine Zeitung.", "The old man is reading a newspaper in the garden."),
    ("Zwei Kinder spielen mit einem roten Ball.", "Two children are playing with a red ball."),
    ("Ja!", "Yes!"),
    ("Angela Merkel, Berlin", "Angela Merkel, Berlin"),
    ("12,5 %", "12.5 %"),
]
FRENCH = "Le vieil homme lit un journal dans le jardin."


def test_other_languages():
    pairs = [*GOOD, GOOD[0][::-1], (GOOD[0][0], FRENCH), (FRENCH, GOOD[0][1]), ("Le chien", "The dog")]
    expected = [None] * len(GOOD) + ["swapped_sides", "target_language", "source_language", None]
    assert fates(step_of("language"), pairs) == expected


def test_what_it_surely_is_not_counts_and_not_what_it_may_be():
    # Czech that the detector takes for one of six Slavic languages; names that it takes for many languages a little.
    czech, names = "Muž jede na kole po ulici.", "Shinzo Abe, Yoshihide Suga, Fumio Kishida"
    pairs = [(GOOD[0][0], czech), (czech, GOOD[0][1]), (names, names + ".")]
    assert fates(step_of("language"), pairs) == ["target_language", "source_language", None]
    assert fates(step_of("language", min_letters=21), pairs) == [None, None, None]


def test_where_nothing_is_known_all_stays():
    for languages in [(None, None), ("xx", "tlh")]:
        assert set(fates(step_of("language"), [*GOOD, (FRENCH, FRENCH)], languages=languages)) == {None}
        assert set(fates(step_of("script"), [*GOOD, ("\uac1c", "\u0434")], languages=languages)) == {None}


def test_near_relatives_stay():
    czech = "Starý muž čte v zahradě noviny, pije kávu a přemýšlí, že je ještě příliš brzy."
    english = "The old man is reading a newspaper in the garden."
    assert fates(step_of("language"), [(czech, english)], languages=("sk", "en")) == [None]
    assert fates(step_of("language"), [(czech, english)], languages=("de", "en")) == ["source_language"]


def test_other_scripts():
    pairs = [
        ("\uac1c\uac00 \uc9d6\ub294\ub2e4", "A dog barks"),
        ("A dog barks", "\uac1c\uac00 \uc9d6\ub294\ub2e4"),
        ("\uac1c\uac00 \uc9d6\ub294\ub2e4", "\u0421\u043e\u0431\u0430\u043a\u0430"),
        ("Judy\uc640 Betty\ub294 \uc790\ub9e4\uc774\ub2e4.", "Judy and Betty are sisters."),
        ("1 + 1", "1 + 1"),
        ("Judy", "Judy"),
    ]
    expected = [None, "swapped_sides", "target_script", None, None, "source_script"]
    assert fates(step_of("script"), pairs, languages=("ko", "en")) == expected
    assert fates(step_of("script", min_share=0.5), pairs, languages=("ko", "en"))[3] == "source_script"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("de", {"Latin"}),
        ("deu_Latn", {"Latin"}),
        ("pt-BR", {"Latin"}),
        ("ru", {"Cyrillic"}),
        ("ko", {"Hangul", "Han"}),
        ("ja", {"Han", "Hiragana", "Katakana"}),
        ("zh-Hant", {"Han"}),
        ("sr-Latn", {"Latin"}),
        ("xx", set()),
    ],
)
def test_scripts(code, expected):
    assert set(scripts_of(code)) == expected
