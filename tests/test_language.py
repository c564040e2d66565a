"""Which language a text is in, and whether a code is that of a language."""

from __future__ import annotations

import importlib.util

import pytest
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

from hf_nmt import language
from hf_nmt.errors import ConfigError

needs_detector = pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="extra language")
SENTENCES = {
    "de": "Zwei Kinder spielen im Garten mit einem Hund.",
    "en": "Two children are playing in the garden with a dog.",
    "fr": "Deux enfants jouent dans le jardin avec un chien.",
    "cs": "Dvě děti si hrají na zahradě se psem.",
    "ko": "두 아이가 정원에서 개와 함께 놀고 있다.",
    "ja": "二人の子供が庭で犬と遊んでいる。",
}


@needs_detector
def test_sentences_are_told_among_all_languages_and_among_few():
    assert [code for code, _ in language.identify(SENTENCES.values())] == [*SENTENCES]
    few = language.identify(SENTENCES.values(), list(SENTENCES))
    assert [code for code, _ in few] == [*SENTENCES] and all(probability > 0.9 for _, probability in few)


@needs_detector
def test_codes_come_back_as_they_were_given():
    codes = ["deu_Latn", "en-GB", "fr_XX", "ces_Latn", "kor_Hang", "jpn"]
    assert [code for code, _ in language.identify(SENTENCES.values(), codes)] == codes
    # One identifier does not change another.
    assert language.identify([SENTENCES["cs"]], ["de", "en"])[0][0] in ("de", "en")
    assert language.identify([SENTENCES["cs"]])[0][0] == "cs"


@needs_detector
def test_others_than_expected_are_told_by_how_much_likelier_they_are():
    texts = [*SENTENCES.values(), "12:30"]
    found = language.identify_others(texts, ["en", "deu_Latn"])
    assert [code for code, _ in found] == [None, None, "fr", "cs", "ko", "ja", None]
    for text, (code, probability) in zip(texts, found, strict=True):
        # Probabilities among few are those among all, of these few alone.
        among_few = language.identify([text], [code, "en", "de"]) if code else [(None, 0.0)]
        assert among_few[0][0] == code and among_few[0][1] == pytest.approx(probability, abs=1e-5)
    with pytest.raises(ConfigError, match="does not know xx"):
        language.identify_others(texts, ["xx"])


@needs_detector
def test_what_has_no_letters_is_no_language():
    assert language.identify(["", "12:30 - 5 %", "?"], ["de", "en"]) == [(None, 0.0)] * 3


@needs_detector
def test_what_the_detector_cannot_do_is_refused():
    with pytest.raises(ConfigError) as error:
        language.identify(["a"], ["de", "xx", "jp", "klingon", "german"])
    assert error.value.findings == [
        "The detector does not know xx, jp, klingon, german. jp: did you mean ja? german: did you mean de? It knows "
        f"{len(language.known_languages())} languages; known_languages() of hf_nmt.language lists them."
    ]
    with pytest.raises(
        ConfigError, match="Languages pt-BR and pt-PT cannot be told apart: for the detector both are pt"
    ):
        language.identify(["a"], ["pt-BR", "pt-PT"])


@needs_detector
@pytest.mark.parametrize(
    "code",
    ["de", "DE", "nds", "en_XX", "pt-BR", "pt_BR", "zh-Hant", "zh-Hant-TW", "es-419", "deu_Latn", "ca-valencia", "xx"],
)
def test_a_well_formed_code_is_taken(code):
    assert language.problem_of(code) == ""


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("german", "de"), ("English", "en"), ("deutsch", "de"), ("germna", "de"), ("korean", "ko"), ("d", None),
        ("klingon", None), ("de-", None), ("de en", None), ("../de", None),
    ],
)  # fmt: skip
def test_what_is_no_code_is_refused(code, meant):
    problem = language.problem_of(code)
    assert problem.startswith(f"given {code!r}, which is no code of a language. Write two or three letters")
    assert problem.endswith(f" Did you mean {meant}?") if meant else "Did you mean" not in problem


def test_codes_of_models_and_locales_are_known():
    # Large languages of Wikipedia, from memory, and the private use of ISO 639-2.
    codes = "de fr es it pt nl pl ru uk cs sk hu ro bg el tr ar he fa hi bn ta te th vi id ms ja ko zh ga eu sw zu qaa"
    codes += " EN pt-BR deu_Latn yue_Hant fil hsb"
    assert {
        code: language.doubt_about(code)
        for code in [*codes.split(), *FAIRSEQ_LANGUAGE_CODES]
        if language.doubt_about(code)
    } == {}


@pytest.mark.parametrize(("code", "meant"), [("jp", "ja"), ("cz-CZ", "cs"), ("xx", None), ("qzz", None)])
def test_an_unknown_code_is_pointed_out(code, meant):
    hint = f" Did you mean {meant}?" if meant else ""
    assert language.doubt_about(code) == f"{code.split('-')[0]} is not known as a code of a language.{hint}"


def test_each_code_comes_to_the_one_of_the_detector():
    known = language.known_languages()
    assert len(known) > 100 and language.detector().startswith("py3langid-")
    assert [code for code in known if language.primary(code) != code] == []
    told = {"deu_Latn": "de", "ger": "de", "arb_Arab": "ar", "nob_Latn": "no", "nb": "no", "nno": "nn", "gn": "gug",
            "__de__": "de", "zho_Hant": "zh", "fil": "tl", "tlh": "tlh", "ckb_Arab": "ckb"}  # fmt: skip
    assert {code: language.primary(code) for code in told} == told
