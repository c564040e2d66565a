"""Which language a text is in, and whether a code is that of a language.

Texts are told by py3langid (a maintained fork of langid.py, Lui and Baldwin 2012): naive Bayes over byte n-grams, 142
languages, a model of 5 MB in the package, nothing to download. On whole sentences it is nearly always right; on a few
words only where it has few languages to choose from (docs/guide/multilingual.md has figures).

Codes are those of BCP 47, and NLLB's `deu_Latn`. Which are known comes from lists that are installed anyway: the
locales of Python, and the languages of Whisper and NLLB in Transformers. None of them is complete, so an unknown code
is only pointed out.
"""

from __future__ import annotations

import copy
import difflib
import functools
import locale
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import pydantic

from hf_nmt.config_keys import nearest
from hf_nmt.errors import ConfigError, need
from hf_nmt.models.language_codes_nmt import two_letters

# What the detector calls otherwise; and languages of another script than that of the macrolanguage that it knows.
_OWN_NAMES = {
    "nb": "no", "nob": "no", "ki": "kik", "kik": "kik", "gn": "gug", "grn": "gug", "gug": "gug", "fuv": "fuv",
    "azb": "azb", "ckb": "ckb",
}  # fmt: skip
_NO_LANGUAGE = "zxx"  # the detector's class of texts that are none
# Language, then script, region and variants where they are given; `_` stands for `-` in many toolkits. Some
# languages of OPUS-MT have four letters.
_CODE = re.compile(
    r"[a-z]{2,4}([-_][a-z]{4})?([-_]([a-z]{2}|\d{3}))?([-_]([a-z\d]{5,8}|\d[a-z\d]{3}))*", re.IGNORECASE
)
_PRIVATE = re.compile(r"q[a-t][a-z]")


def identify(texts: Iterable[str], candidates: Sequence[str] | None = None) -> list[tuple[str | None, float]]:
    """The language of each text, and how sure that is.

    Args:
        texts: sentences or longer.
        candidates: codes to choose from, in any usual spelling (`de`, `pt-BR`, `deu_Latn`); None chooses among all
            that are known. The fewer, the better the answer for short texts.

    Returns:
        (code, probability) of each: the code as it stands in `candidates`, else that of ISO 639; None where a text
        has no letters. The probability is that of the model, whose features are not independent: on sentences it is
        mostly near 1, and what is below 0.5 is a guess.

    Raises:
        NmtError: the extra `language` is not installed.
        ConfigError: a candidate is not known, or two of them are one language.
    """
    if candidates is None:
        spelling = {code: code for code in known_languages()}
    else:
        spelling = {}
        for code in candidates:
            if (name := primary(code)) in spelling and spelling[name] != code:
                raise ConfigError(
                    f"Languages {spelling[name]} and {code} cannot be told apart: for the detector both are {name}."
                )
            spelling[name] = code
        check(list(spelling.values()))
    identifier = _restricted(tuple(sorted(spelling)) if candidates is not None else None)
    found: list[tuple[str | None, float]] = []
    for text in texts:
        if not any(character.isalpha() for character in text):
            found.append((None, 0.0))
            continue
        name, probability = identifier.classify(text)
        found.append((None if name == _NO_LANGUAGE else spelling[name], float(probability)))
    return found


def identify_others(texts: Iterable[str], expected: Sequence[str]) -> list[tuple[str | None, float]]:
    """The language of texts that are in none of those expected, and how sure that is.

    What counts is how much likelier it is than those expected: a sentence of German that may be Luxembourgish is
    surely no English.

    Args:
        texts: sentences or longer.
        expected: codes that the detector knows.

    Returns:
        (code of ISO 639, probability against those expected, of these and itself alone) of each; (None, 0.0) where one
        of those expected is the likeliest, or no language is.

    Raises:
        NmtError: the extra `language` is not installed.
        ConfigError: a code is not known.
    """
    check(expected)
    names = {primary(code) for code in expected}
    texts = list(texts)
    found: list[tuple[str | None, float]] = []
    for text, (code, probability) in zip(texts, identify(texts), strict=True):
        if code is None or code in names:
            found.append((None, 0.0))
            continue
        rivals = sum(own for name, own in _identifier().rank(text) if name in names)
        found.append((code, probability / (probability + rivals)))
    return found


def known_languages() -> list[str]:
    """Codes that the detector knows, sorted."""
    return sorted(_known())


def check(codes: Iterable[str]) -> None:
    """Raise ConfigError for languages that the detector does not know."""
    if unknown := [code for code in codes if primary(code) not in known_languages()]:
        near = [f"{code}: did you mean {' or '.join(found)}?" for code in unknown if (found := _near(code))]
        raise ConfigError(
            f"The detector does not know {', '.join(unknown)}. "
            + " ".join(
                [*near, f"It knows {len(_known())} languages; known_languages() of hf_nmt.language lists them."]
            )
        )


def _near(code: str) -> list[str]:
    """Codes of the detector that may be meant by one that it does not know."""
    language = primary(code)
    if (meant := _names().get(language) or _locale_languages().get(language)) in _known():
        return [str(meant)]
    return difflib.get_close_matches(language, known_languages(), n=3, cutoff=0.8)


def detector() -> str:
    """Name and version of the detector, for signatures."""
    need("py3langid", "language")
    return f"py3langid-{version('py3langid')}"


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


def _well_formed(code: str) -> str:
    if problem := problem_of(code):
        raise ValueError(problem)
    return code


# For settings.
LanguageCode = Annotated[str, pydantic.AfterValidator(_well_formed)]


def doubt_about(code: str) -> str:
    """What to warn of in a well-formed code; "" where its language is known."""
    language = re.split("[-_]", code)[0].lower()
    if language in _known_codes() or _PRIVATE.fullmatch(language):
        return ""
    meant = _locale_languages().get(language)
    return f"{language} is not known as a code of a language." + (f" Did you mean {meant}?" if meant else "")


def primary(code: str) -> str:
    """The detector's own code of a language: `deu_Latn` -> `de`."""
    language = re.split("[-_]", code.lower().strip("_ "))[0]
    return _OWN_NAMES.get(language) or two_letters(language)


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(str(name) for name in _identifier().nb_classes) - {_NO_LANGUAGE}


@functools.cache
def _identifier() -> Any:
    langid = need("py3langid.langid", "language")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@functools.cache
def _restricted(names: tuple[str, ...] | None) -> Any:
    """The identifier for these languages; all share the arrays of the model."""
    identifier = copy.copy(_identifier())
    identifier.set_languages(list(names) if names is not None else None)
    return identifier


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
def _known_codes() -> frozenset[str]:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    of_models = {re.split("[-_]", code)[0].lower() for code in [*FAIRSEQ_LANGUAGE_CODES, *LANGUAGES]}
    return frozenset(of_models | set(_locale_languages().values()))
