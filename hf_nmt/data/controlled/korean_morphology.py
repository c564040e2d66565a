"""Korean inflection by unicode arithmetic: particles, verb and adjective stems, endings, numerals.

A precomposed syllable is `0xAC00 + (lead * 21 + vowel) * 28 + tail`; every rule below reads or replaces one of the
three. A stem is a dictionary form without its final -da. Irregular classes follow the school grammar: stems that end
in p, t, s, h, l, lu (reu), u change before endings that open with a vowel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_FIRST = 0xAC00
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_TAILS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
_TAIL_INDEX = {tail: index for index, tail in enumerate(_TAILS)}
_BRIGHT = "ㅏㅑㅗ"

# After a consonant, after a vowel. A final l counts as a vowel for (eu)ro only.
_PARTICLES = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "와": ("과", "와"),
    "으로": ("으로", "로"),
    "이나": ("이나", "나"),
}
_FUSED = {("나", "이"): "내가", ("저", "이"): "제가", ("누구", "이"): "누가", ("나", "의"): "내", ("저", "의"): "제"}

_REGULAR_P = set("입잡씹뽑좁접집업꼽")
_IRREGULAR_T = set("듣걷묻싣긷")
_IRREGULAR_S = set("짓낫붓잇긋젓")
_IRREGULAR_H = set("갛렇떻랗맣얗")
_PLAIN_REU = ("따르", "치르", "들르", "다다르", "우러르")
_REU_WITH_REO = ("푸르", "이르")
_OPEN_I = set("비피기")
_WRITTEN_IN_FULL = {"보": "보아", "주": "주어", "두": "두어", "꾸": "꾸어", "되": "되어", "쏘": "쏘아"}


def split(syllable: str) -> tuple[int, str, str]:
    """Lead index, vowel and tail (empty where there is none) of one Hangul syllable."""
    code = ord(syllable) - _FIRST
    return code // 588, _VOWELS[code // 28 % 21], _TAILS[code % 28]


def join(lead: int, vowel: str, tail: str = "") -> str:
    """The inverse of `split`."""
    return chr(_FIRST + (lead * 21 + _VOWELS.index(vowel)) * 28 + _TAIL_INDEX[tail])


def tail_of(word: str) -> str:
    """The final consonant of a word, empty after a vowel."""
    return split(word[-1])[2]


def with_tail(word: str, tail: str) -> str:
    """The word with the final consonant of its last syllable replaced."""
    lead, vowel, _ = split(word[-1])
    return word[:-1] + join(lead, vowel, tail)


@cache
def particle(word: str, name: str) -> str:
    """The word with a particle, in the shape its last sound asks for.

    Args:
        word: ends in a Hangul syllable.
        name: of a particle that varies, its shape after a consonant (but `와`); any other particle as it is.
    """
    fused = _FUSED.get((word, name))
    if fused is not None:
        return fused
    shapes = _PARTICLES.get(name)
    if shapes is None:
        return word + name
    tail = tail_of(word)
    closed = bool(tail) and not (name == "으로" and tail == "ㄹ")
    return word + shapes[0 if closed else 1]


@dataclass(frozen=True)
class Stem:
    """A stem that takes endings.

    Attributes:
        text: dictionary form without -da; may hold several words, only the last one inflects.
        kind: `verb`, `adjective`, `exist` (issda, eopsda: inflect as adjectives but modify as verbs), `copula`
            (the noun comes first and decides between i- and nothing) or `past` (ends in the past sign).
        full: write vowels out where both spellings are right (poatta, not pwatta), as formal writing does.
    """

    text: str
    kind: str = "verb"
    full: bool = False


def _is_irregular(text: str, tail: str) -> bool:
    last = text[-1]
    if tail == "ㅂ":
        return last not in _REGULAR_P
    if tail == "ㄷ":
        return last in _IRREGULAR_T or text.endswith("깨닫")
    if tail == "ㅅ":
        return last in _IRREGULAR_S
    return tail == "ㅎ" and last in _IRREGULAR_H


@cache
def infinitive(text: str, full: bool = False) -> str:
    """The form in -a/-eo on which -yo, -seo, -ya and the past are built (mek-eo, ka, hae, chuwo, molla)."""
    lead, vowel, tail = split(text[-1])
    before = text[:-1]
    if text == "아니" or text.endswith("적이"):
        return text + "어"
    if text[-1] == "하":
        return before + "해"
    if tail and _is_irregular(text, tail):
        if tail == "ㅂ":
            return before + join(lead, vowel) + ("와" if text[-1] in "돕곱" else "워")
        if tail == "ㄷ":
            return with_tail(text, "ㄹ") + ("아" if vowel in _BRIGHT else "어")
        if tail == "ㅅ":
            return with_tail(text, "") + ("아" if vowel in _BRIGHT else "어")
        return before + join(lead, {"ㅑ": "ㅒ", "ㅕ": "ㅖ"}.get(vowel, "ㅐ"))
    if tail:
        return text + ("아" if vowel in _BRIGHT and tail != "ㅆ" else "어")
    if text[-1] == "르" and not text.endswith(_PLAIN_REU):
        if text.endswith(_REU_WITH_REO):
            return text + "러"
        bright = split(before[-1])[1] in _BRIGHT
        return with_tail(before, "ㄹ") + ("라" if bright else "러")
    if vowel == "ㅡ":
        bright = len(before) > 0 and "가" <= before[-1] <= "힣" and split(before[-1])[1] in _BRIGHT
        return before + join(lead, "ㅏ" if bright else "ㅓ")
    if full and text[-1] in _WRITTEN_IN_FULL and (text[-1] == "되" or len(text) == 1 or before[-1] == " "):
        return before + _WRITTEN_IN_FULL[text[-1]]
    if text[-1] == "푸":
        return before + "퍼"
    if vowel == "ㅣ" and (text in _OPEN_I or (text[-1] in _OPEN_I and before[-1:] == " ")):
        return text + "어"
    fused = {"ㅗ": "ㅘ", "ㅜ": "ㅝ", "ㅣ": "ㅕ", "ㅚ": "ㅙ"}.get(vowel)
    if fused:
        return before + join(lead, fused)
    if vowel in "ㅟㅢ":
        return text + "어"
    return text


@cache
def before_eu(text: str) -> str:
    """The stem before endings in (eu)-, with the linking vowel where it is kept (mek-eu, deul-eu, chu-u)."""
    _, _, tail = split(text[-1])
    if not tail or tail == "ㄹ":
        return text
    if _is_irregular(text, tail):
        if tail == "ㅂ":
            return with_tail(text, "") + "우"
        if tail == "ㄷ":
            return with_tail(text, "ㄹ") + "으"
        if tail == "ㅅ":
            return with_tail(text, "") + "으"
        return with_tail(text, "")
    return text + "으"


@cache
def attach(stem: Stem, ending: str) -> str:
    """A stem with an ending.

    Args:
        stem: any kind but `copula`.
        ending: `어...` joins the infinitive (`어요`, `어서`, `어야`, and bare `어`); `으...` takes the linking vowel
            (`으면`, `으ㄴ`, `으ㄹ`, where a lone consonant becomes the final of the syllable before); anything else
            joins the stem as it is, a final l falling before n, s and p.
    """
    text = stem.text
    if ending[0] == "어":
        if text[-1] == "시" and stem.kind != "past" and ending == "어요" and _is_honorific(text):
            return text[:-1] + "세요"
        if ending == "어요" and (text == "아니" or text.endswith("적이")):
            return text + "에요"
        return infinitive(text, stem.full) + ending[1:]
    if ending[0] == "으":
        base, rest = before_eu(text), ending[1:]
        if base[-1] == "으" and text[-1] != "으" or not tail_of(base):
            return with_tail(base, rest[0]) + rest[1:] if rest[0] in _TAIL_INDEX else base + rest
        # Only a final l is left here: it merges with l and falls before n, s, p.
        if rest[0] in _TAIL_INDEX:
            return with_tail(base, rest[0]) + rest[1:]
        return (with_tail(base, "") if _opens_with_nsp(rest) else base) + rest
    if tail_of(text) == "ㄹ" and _opens_with_nsp(ending):
        return with_tail(text, "") + ending
    return text + ending


def _is_honorific(text: str) -> bool:
    return not text.endswith(("마시", "모시"))


def _opens_with_nsp(ending: str) -> bool:
    first = ending[0]
    return first in "ㄴㅂㅅ" or ("가" <= first <= "힣" and split(first)[0] in (2, 7, 9))


def past(stem: Stem) -> Stem:
    """The stem with the past sign."""
    return Stem(with_tail(infinitive(stem.text, stem.full), "ㅆ"), "past", stem.full)


def honorific(stem: Stem) -> Stem:
    """The stem with -(eu)si-."""
    return Stem(attach(stem, "으시"), "verb" if stem.kind == "exist" else stem.kind, stem.full)


def present_adnominal(stem: Stem) -> str:
    """The present form before a noun: -neun for verbs, -(eu)n for adjectives."""
    if stem.kind in ("verb", "exist"):
        return attach(stem, "는")
    return attach(stem, "으ㄴ")


@cache
def plain(stem: Stem) -> str:
    """The plain (haera) statement: -nda/-neunda for verbs in the present, -da otherwise."""
    if stem.kind != "verb":
        return stem.text + "다"
    tail = tail_of(stem.text)
    if not tail or tail == "ㄹ":
        return with_tail(stem.text, "ㄴ") + "다"
    return stem.text + "는다"


@cache
def final(stem: Stem, style: str, mood: str = "statement") -> str:
    """The form that closes a sentence.

    Args:
        stem: any kind but `copula`.
        style: `formal` (hapsyo), `polite` (haeyo), `plain` (haera in conversation) or `written` (haera in writing,
            which asks with -neunga).
        mood: `statement`, `question`, `request` or `proposal`.
    """
    if mood == "request":
        return attach(stem, {"formal": "으십시오", "polite": "으세요"}.get(style, "어라"))
    if mood == "proposal":
        return attach(stem, {"formal": "으ㅂ시다", "polite": "어요"}.get(style, "자"))
    if style == "polite":
        return attach(stem, "어요")
    tail = tail_of(stem.text)
    if style == "formal":
        last = "다" if mood == "statement" else "까"
        if not tail or tail == "ㄹ":
            return with_tail(stem.text, "ㅂ") + "니" + last
        return stem.text + "습니" + last
    if mood == "statement":
        return plain(stem)
    if style == "plain":
        return attach(stem, "니")
    return attach(stem, "으ㄴ가") if stem.kind == "adjective" else attach(stem, "는가")


_COPULA = {
    ("formal", "statement"): ("입니다", "입니다"),
    ("formal", "question"): ("입니까", "입니까"),
    ("polite", "statement"): ("이에요", "예요"),
    ("polite", "question"): ("이에요", "예요"),
    ("plain", "statement"): ("이다", "다"),
    ("plain", "question"): ("이니", "니"),
    ("written", "statement"): ("이다", "다"),
    ("written", "question"): ("인가", "인가"),
}


@cache
def copula(noun: str, style: str, mood: str = "statement") -> str:
    """A noun as the predicate of a main clause in the present."""
    closed, opened = _COPULA[style, mood]
    return noun + (closed if tail_of(noun) else opened)


def copula_past(noun: str) -> Stem:
    """A noun as a predicate with the past sign."""
    return Stem(noun + ("이었" if tail_of(noun) else "였"), "past")


_ONES = ["", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"]
_ONES_COUNTING = ["", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉"]
_TENS = ["", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"]
_SINO = ["", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"]


def native_number(number: int) -> str:
    """1 to 99 as a native numeral in the shape that stands before a counter (se gwon, seumu myeong)."""
    if number == 20:
        return "스무"
    return _TENS[number // 10] + _ONES_COUNTING[number % 10]


def sino_number(number: int) -> str:
    """1 to 99,999,999 as a Sino-Korean numeral, spaced at ten thousands."""
    high, low = divmod(number, 10_000)
    words = []
    if high:
        words.append(("" if high == 1 else _below_ten_thousand(high)) + "만")
    if low:
        words.append(_below_ten_thousand(low))
    return " ".join(words)


def _below_ten_thousand(number: int) -> str:
    text = ""
    for unit, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit, number = divmod(number, unit)
        if digit:
            text += ("" if digit == 1 and name else _SINO[digit]) + name
    return text
