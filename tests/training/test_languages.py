from __future__ import annotations

import pytest
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

from hf_nmt.training.languages import doubt_about, problem_of


@pytest.mark.parametrize(
    "code", ["de", "DE", "nds", "pt-BR", "pt_BR", "zh-Hant", "zh-Hant-TW", "es-419", "deu_Latn", "ca-valencia", "xx"]
)
def test_a_well_formed_code_is_taken(code):
    assert problem_of(code) == ""


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("german", "de"), ("English", "en"), ("deutsch", "de"), ("germna", "de"), ("korean", "ko"), ("d", None),
        ("klingon", None), ("de-", None), ("de en", None), ("../de", None),
    ],
)  # fmt: skip
def test_what_is_no_code_is_refused(code, meant):
    problem = problem_of(code)
    assert problem.startswith(f"given {code!r}, which is no code of a language. Write two or three letters")
    assert problem.endswith(f" Did you mean {meant}?") if meant else "Did you mean" not in problem


def test_codes_of_models_and_locales_are_known():
    # Large languages of Wikipedia, from memory, and the private use of ISO 639-2.
    codes = "de fr es it pt nl pl ru uk cs sk hu ro bg el tr ar he fa hi bn ta te th vi id ms ja ko zh ga eu sw zu qaa"
    codes += " EN pt-BR deu_Latn yue_Hant fil hsb"
    assert {code: doubt_about(code) for code in [*codes.split(), *FAIRSEQ_LANGUAGE_CODES] if doubt_about(code)} == {}


@pytest.mark.parametrize(("code", "meant"), [("jp", "ja"), ("cz-CZ", "cs"), ("xx", None), ("qzz", None)])
def test_an_unknown_code_is_pointed_out(code, meant):
    hint = f" Did you mean {meant}?" if meant else ""
    assert doubt_about(code) == f"{code.split('-')[0]} is not known as a code of a language.{hint}"
