"""One form of texts, and text read in a wrong encoding: planted in all ways it comes about."""

from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_run import fates, step_of, texts

from hf_nmt.cleaning.normalising import mended

SENTENCES = [
    "Größe, Übung und Straße für 5 €", "L'été à Noël, « ça » coûte un œuf", "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "개가 정원에서 큰 소리로 짖는다.", "It’s a “dog” – isn’t it…", "Ein Hund 🐕 bellt", "Собака лает", "犬が吠える。",
]  # fmt: skip


def one(text: str, **options) -> str:
    return texts(step_of("normalise", **options), [(text, "x")])[0][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gru\u0308\u00dfe", "Gr\u00fc\u00dfe"),
        ("\u1100\u1161", "\uac00"),
        ("a\u00a0b\u3000c\u2028d\te\u202f!", "a b c d e !"),
        ("  a   b \r\n", "a b"),
        ("a\u200bb\ufeffc\x00d\x07\u00ade", "abcde"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("R&amp;B &#39;n&#x27; &nbsp;&lt;b&gt;", "R&B 'n' <b>"),
        ("&amp;amp;quot;", '"'),
        ("&a\x00mp;", "&"),
        ("&unbekannt; & &;", "&unbekannt; & &;"),
        ("\u2010\u2011 a\u2026", "-- a..."),
        ("\uff21\ufb01\u00b2", "\uff21\ufb01\u00b2"),
        ("\u201eJa\u201c, \u00abnon\u00bb, don\u2019t", "\u201eJa\u201c, \u00abnon\u00bb, don\u2019t"),
    ],
)
def test_normal_form(text, expected):
    assert one(text) == expected


def test_settings_of_the_form():
    assert one("\uff21\ufb01\u00b2", form="NFKC") == "Afi2"
    assert one("\u201eJa\u201c, don\u2019t", punctuation="plain") == '"Ja", don\'t'
    assert one("a\u2026", punctuation="keep") == "a\u2026"
    assert one("R&amp;B", entities=False) == "R&amp;B"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn"], exclude_characters="&"), max_size=30))
def test_letters_are_those_of_unicodedata(text):
    assert one(text, punctuation="keep") == " ".join(unicodedata.normalize("NFC", text).split())


@pytest.mark.parametrize("sentence", SENTENCES)
def test_good_text_stays(sentence):
    step = step_of("mojibake")
    assert texts(step, [(sentence, "x")]) == [(sentence, "x")]
    assert one(html.escape(sentence)) == one(sentence)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_mojibake_is_mended(sentence, times, encoding):
    garbled = sentence
    for _ in range(times):
        read = (bytes([byte]) for byte in garbled.encode())
        # As browsers do: what Windows-1252 lacks is read as Latin-1.
        garbled = "".join(one.decode("latin-1" if one in b"\x81\x8d\x8f\x90\x9d" else encoding) for one in read)
    assert garbled != sentence
    assert texts(step_of("mojibake"), [(garbled, "x")]) == [(sentence, "x")]


@pytest.mark.parametrize(
    "text",
    ["\u201eSpa\u00df\u201c", "CAF\u00c9\u00bb", "caf\u00e9\u00a0\u00bb", "\u00c4\u2026",
     "\u00e0 \u00ab\u00a0\u00c0\u00a0\u00bb",
     "IRM\u00c3\u201d", "\u00c4\u201c", "\u00dcbung\u2122", "GR\u00d6\u00df\u00adE"],
)  # fmt: skip
def test_what_only_looks_like_mojibake(text):
    assert mended(text) == text
    assert fates(step_of("mojibake"), [(text, "x")]) == [None]


@pytest.mark.parametrize("text", ["Gr\ufffd\ufffde", "Gr\u00c3\u00bc\u00df\u00bfe", "It\u00e2\u20acs"])
def test_what_cannot_be_mended_goes(text):
    assert fates(step_of("mojibake"), [(text, "x"), ("x", text)]) == ["source_mojibake", "target_mojibake"]
