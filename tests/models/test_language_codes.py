from __future__ import annotations

import pytest
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M_100
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART_50
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB

from hf_nmt.models.language_codes_nmt import is_known, same_language, two_letters


@pytest.mark.parametrize(
    ("wanted", "known", "found"),
    [
        ("de", NLLB, ["deu_Latn"]),
        ("DE-at", NLLB, ["deu_Latn"]),
        ("ger", NLLB, ["deu_Latn"]),
        ("chi_Hant", NLLB, ["zho_Hant"]),
        ("__de__", NLLB, ["deu_Latn"]),
        ("deu", NLLB, ["deu_Latn"]),
        ("zh", NLLB, ["zho_Hans", "zho_Hant"]),
        ("zh-Hant", NLLB, ["zho_Hant"]),
        ("zh_CN", NLLB, ["zho_Hans"]),
        ("cmn_Hans", NLLB, ["zho_Hans"]),
        ("no", NLLB, ["nno_Latn", "nob_Latn"]),
        ("nb", NLLB, ["nob_Latn"]),
        ("ar", NLLB, ["arb_Arab"]),
        ("fa", NLLB, ["pes_Arab"]),
        ("az", NLLB, ["azb_Arab", "azj_Latn"]),
        ("tlh", NLLB, []),
        ("de_DE", MBART_50, ["de_DE"]),
        ("de_AT", MBART_50, []),
        ("en_GB", MBART_50, ["en_XX"]),
        ("por_Latn", MBART_50, ["pt_XX"]),
        ("zh-Hant", MBART_50, []),
        ("zho_Hans", MBART_50, ["zh_CN"]),
        ("deu_Latn", M2M_100["m2m100"], ["de"]),
        ("nob_Latn", M2M_100["m2m100"], ["no"]),
        ("arz_Arab", M2M_100["m2m100"], []),
    ],
)
def test_a_language_is_found_under_other_codes(wanted, known, found):
    assert sorted(same_language(wanted, known)) == found


def test_every_code_of_a_model_is_its_own():
    for codes in (NLLB, MBART_50, M2M_100["m2m100"]):
        assert all(code in same_language(code, codes) for code in codes)


def test_two_letters_find_a_code_of_nllb_wherever_m2m_100_has_them():
    """An independent list of what is the same: the languages that both models were made for."""
    lost = [code for code in M2M_100["m2m100"] if not same_language(code, NLLB)]
    # Breton, Frisian and `ns`, which ISO does not know, are not in NLLB.
    assert lost == ["br", "fy", "ns"]


def test_two_letters_of_the_codes_of_libraries():
    """The bibliographic codes of ISO 639-2, as the Library of Congress lists them, and codes of models."""
    bibliographic = (
        "alb sq arm hy baq eu bur my chi zh cze cs dut nl fre fr geo ka ger de gre el ice is mac mk mao mi may ms "
        "per fa rum ro slo sk tib bo wel cy"
    ).split()
    for code, short in zip(bibliographic[::2], bibliographic[1::2], strict=True):
        assert two_letters(code) == short and is_known(code) and short in same_language(code, [short, "xx"])
    of_models = {"nno_Latn": "nn", "nob_Latn": "nb", "twi_Latn": "tw", "pt_XX": "pt", "lvs_Latn": "lv", "__de__": "de"}
    assert {code: two_letters(code) for code in of_models} == of_models
    assert two_letters("tlh") == "tlh"
