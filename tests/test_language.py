"""Which language a text is in."""

from __future__ import annotations

import pytest

from hf_nmt import language
from hf_nmt.errors import ConfigError

pytest.importorskip("py3langid")
SENTENCES = {
    "de": "Zwei Kinder spielen im Garten mit einem Hund.",
    "en": "Two children are playing in the garden with a dog.",
    "fr": "Deux enfants jouent dans le jardin avec un chien.",
    "cs": "Dvě děti si hrají na zahradě se psem.",
    "ko": "두 아이가 정원에서 개와 함께 놀고 있다.",
    "ja": "二人の子供が庭で犬と遊んでいる。",
}


def test_sentences_are_told_among_all_languages_and_among_few():
    assert [code for code, _ in language.identify(SENTENCES.values())] == [*SENTENCES]
    few = language.identify(SENTENCES.values(), list(SENTENCES))
    assert [code for code, _ in few] == [*SENTENCES] and all(probability > 0.9 for _, probability in few)


def test_codes_come_back_as_they_were_given():
    codes = ["deu_Latn", "en-GB", "fr_XX", "ces_Latn", "kor_Hang", "jpn"]
    assert [code for code, _ in language.identify(SENTENCES.values(), codes)] == codes
    # One identifier does not change another.
    assert language.identify([SENTENCES["cs"]], ["de", "en"])[0][0] in ("de", "en")
    assert language.identify([SENTENCES["cs"]])[0][0] == "cs"


def test_what_has_no_letters_is_no_language():
    assert language.identify(["", "12:30 - 5 %", "?"], ["de", "en"]) == [(None, 0.0)] * 3


def test_what_the_detector_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="The detector does not know xx, qaa. It knows: ace, af,"):
        language.identify(["a"], ["de", "xx", "qaa"])
    with pytest.raises(
        ConfigError, match="Languages pt-BR and pt-PT cannot be told apart: for the detector both are pt"
    ):
        language.identify(["a"], ["pt-BR", "pt-PT"])


def test_every_alias_is_a_language_of_the_detector():
    known = language.known_languages()
    assert len(known) > 100 and language.detector().startswith("py3langid-")
    unknown = {code for code in language._THREE_LETTERS.values() if code not in known}
    assert unknown <= {"yi"}
