"""Whether a code of a language is well formed (BCP 47, and NLLB's `deu_Latn`), and known.

What is known comes from lists that are installed anyway: the locales of Python, and the languages of Whisper and NLLB
in Transformers. None of them is complete, so an unknown code is only pointed out.
"""

from __future__ import annotations

import functools
import locale
import re

from hf_nmt.config_keys import nearest

# Language, then script, region and variants where they are given; `_` stands for `-` in many toolkits.
_CODE = re.compile(
    r"[a-z]{2,3}([-_][a-z]{4})?([-_]([a-z]{2}|\d{3}))?([-_]([a-z\d]{5,8}|\d[a-z\d]{3}))*", re.IGNORECASE
)
_PRIVATE = re.compile(r"q[a-t][a-z]")


def problem_of(code: str) -> str:
    """Why a code cannot be used; "" where it is well formed."""
    if _CODE.fullmatch(code):
        return ""
    names = _names()
    near = code.lower() if code.lower() in names else nearest(code.lower(), [*names], cutoff=0.8)
    hint = f" Did you mean {names[near]}?" if near else ""
    return (
        f"given {code!r}, which is no code of a language. Write two or three letters, with a script or region where "
        f"it matters, such as de, pt-BR, zh-Hant or deu_Latn.{hint}"
    )


def doubt_about(code: str) -> str:
    """What to warn of in a well-formed code; "" where its language is known."""
    language = re.split("[-_]", code)[0].lower()
    if language in _known() or _PRIVATE.fullmatch(language):
        return ""
    meant = _locale_languages().get(language)
    return f"{language} is not known as a code of a language." + (f" Did you mean {meant}?" if meant else "")


@functools.cache
def _locale_languages() -> dict[str, str]:
    """Languages as locales are named -> their codes: `german` -> `de`, `cz` -> `cs`, `de` -> `de`."""
    return {
        re.split(r"[_.@]", alias)[0]: language
        for alias, name in sorted(locale.locale_alias.items())
        if re.fullmatch("[a-z]{2,3}", language := re.split(r"[_.@]", name)[0])
    }


@functools.cache
def _names() -> dict[str, str]:
    """English names of languages -> their codes."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return {name: code for name, code in _locale_languages().items() if len(name) > 3} | TO_LANGUAGE_CODE


@functools.cache
def _known() -> frozenset[str]:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    of_models = {re.split("[-_]", code)[0].lower() for code in [*FAIRSEQ_LANGUAGE_CODES, *LANGUAGES]}
    return frozenset(of_models | set(_locale_languages().values()))
