"""Steps that drop pairs whose sides hold different things: numbers, addresses, brackets; and pairs with markup."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.cleaning.byte_search import matches, with_any, with_digits
from hf_nmt.cleaning.step import SIDES, Outcome, Step
from hf_nmt.data.text_bytes import whole

# What signs of East Asia multiply the number before them by: 12, and 3 of a thousand hundred-millions.
_MYRIADS = {"\ucc9c": 10**3, "\u5343": 10**3, "\ub9cc": 10**4, "\u4e07": 10**4, "\u842c": 10**4, "\uc5b5": 10**8}
_MYRIADS |= {"\u4ebf": 10**8, "\u5104": 10**8, "\uc870": 10**12, "\u5146": 10**12}
_SIGNS = "[" + "".join(_MYRIADS) + "]"
# Digits with what parts thousands, decimals, hours or days in some language.
_NUMBER = re.compile(
    rf"(?P<myriads>(?<![\d.,])(?:\d[\d,.]*+\s?{_SIGNS}+\s?)++(?:\d[\d,.]*+)?)|\d+(?:[.,:'\u2019\u00a0\u202f]\d+)*"
)
_MEASURE = r"(?<![\d.,])\d[\d.,]*+"
_IMPERIAL = (
    rf"{_MEASURE}[\s-]?(?:square[\s-])?(?:feet|foot|ft|miles?|mph|inch(?:es)?|"
    r"pounds?|lbs?|yards?|acres?|gallons?|ounces?)\b"
    rf"|{_MEASURE}['\"\u2032\u2033]"
    rf"|{_MEASURE}\s?\u00b0\s?F\b"
)
_LEFT_OUT = re.compile(rf"(?<!\d)\d++\s?[\uc6d4\uc77c\u6708\u65e5]|{_IMPERIAL}", re.IGNORECASE)  # month, day
_CONVERTED = re.compile(_IMPERIAL, re.IGNORECASE)
# What imperial measures on the other side may be converted from.
_METRIC = re.compile(rf"{_MEASURE}\s?(?:[ckm]?m|kg|g|[m]?l|km/h|\u00b0\s?C)(?![A-Za-z\u00c0-\u024f])")
# English, as one side mostly is; their places are the numbers.
_WORDS = (
    "zero|no", "one|first|once|an?\\b", "two|second|twice|both|pair|double", "three|third|triple", "four", "five|fif",
    "six", "seven", "eight", "nine|nin", "ten", "eleven", "twel",
)  # fmt: skip
_MOST_COMPARED, _LONGEST_NUMBER = 50, 60
_URL = r"(?:https?://|ftp://|www\.)[^\s<>\"]+"
_EMAIL = r"(?<![\w.+%-])[\w.+%-]++@[\w-]+(?:\.[\w-]+)+"
_BRACKETS = {
    "(": ")",
    "[": "]",
    "{": "}",
    "\uff08": "\uff09",
    "\u300c": "\u300d",
    "\u300e": "\u300f",
    "\u3010": "\u3011",
}
_BRACKET = re.compile("[" + re.escape("".join([*_BRACKETS, *_BRACKETS.values()])) + "]")
_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb'  # all of them: writers mix them in one quotation
_TAGS = (
    "a|abbr|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|form|h[1-6]|head|hr|html|i|iframe|img|input|li|link|"
    "meta|ol|p|pre|s|script|small|span|strike|strong|style|sub|sup|table|tbody|td|th|thead|title|tr|tt|u|ul|video"
)
_MARKUP = "|".join(
    [
        rf"(?i:<(?:{_TAGS})\s*/?>)",  # <b>, <br />
        r"</[a-zA-Z][a-zA-Z0-9:-]{0,20}\s*>|<[a-zA-Z][a-zA-Z0-9:-]{0,20}\s[^<>]*=[^<>]*>",  # </x>, <x y="1">
        r"<!--|-->|<!\[CDATA\[",
        r"&(?:#[0-9]{1,6}|#[xX][0-9a-fA-F]{1,5}|[a-zA-Z]{2,8}[0-9]{0,2});",
        r"\[/?(?:b|i|u|url|img|quote|code|size|color)(?:=[^\]\s]*)?\]",  # BBCode
        r"\{\{|\}\}|\[\[[^\]]*\]\]",  # wikis, templates
        r"\{\\[a-zA-Z]+|\\(?:begin|end|textbf|textit|emph)\{",  # subtitles, LaTeX
        r"\b(?:href|src|class|style)=[\"']",
    ]
)
# One of these is in each of them.
_MARKUP_NEEDS = "<>&[{}\\="


def numbers(text: str) -> list[str]:
    """Numbers of a text, their digits alone: `1,000.50` is `100050`, and 1 followed by the sign for ten thousand
    `10000`. Left out are days and months of East Asian dates, which are names elsewhere, and measures in units that
    translators convert."""
    found = []
    for match in _NUMBER.finditer(_LEFT_OUT.sub(" ", text)):
        if match["myriads"] is None or len(match[0]) > _LONGEST_NUMBER:
            found.append(_plain(match[0]))
            continue
        value = Fraction(0)
        for digits, decimals, signs in re.findall(rf"(\d[\d,]*)\.?([\d,.]*)\s?({_SIGNS}*)", match[0]):
            factor = math.prod(_MYRIADS[sign] for sign in signs)
            value += Fraction(f"{_plain(digits)}.{_plain(decimals)}") * factor
        found.append(str(round(value)))
    return found


def _plain(number: str) -> str:
    return "".join(str(unicodedata.decimal(character)) for character in number if character.isdecimal())


def numbers_differ(source: str, target: str) -> str | None:
    """What is left of the numbers of both sides when those that may be the same are gone, as `12 | 13`; None where
    one side has nothing left.

    Numbers may be the same where their digits are, but for zeros at the ends (1,000.50 and 1.000,5; 110 million and
    1.1 hundred million); where they tell one time by clocks of 12 and 24 hours; where one is the end of a year (1990s
    and '90s) or its century; and where several of one side make up one of the other (12 and 3, and 12.3).
    """
    rest = [numbers(text)[:_MOST_COMPARED] for text in (source, target)]
    if _digits(rest[0]) == _digits(rest[1]):
        return None
    for same in (_same_digits, _may_be):
        for number in [*rest[0]]:
            match = next((other for other in rest[1] if same(number, other) or same(other, number)), None)
            if match is not None:
                rest[0].remove(number)
                rest[1].remove(match)
    rest = [
        [number for number in side if not _in_words(number, other)]
        for side, other in zip(rest, (target, source), strict=True)
    ]
    if not all(rest) or _digits(rest[0]) == _digits(rest[1]):
        return None
    return " | ".join(" ".join(side) for side in rest)


def _digits(found: list[str]) -> list[str]:
    return sorted("".join(found).replace("0", ""))


def _in_words(number: str, text: str) -> bool:
    """Whether a small number stands in an English text as a word."""
    if len(number) > 2 or int(number) >= len(_WORDS):
        return False
    return re.search(rf"\b(?:{_WORDS[int(number)]})", text, re.IGNORECASE) is not None


def _same_digits(one: str, other: str) -> bool:
    return one.strip("0") == other.strip("0")


def _may_be(short: str, long: str) -> bool:
    """Whether a number may be the end or the century of a year, or a time of the afternoon."""
    if len(short) > 4 or len(long) > 4:
        return False
    small, large = int(short), int(long)
    if 1000 <= large < 2100 and small in (large % 100, large // 100 + 1):
        return True
    if 1 <= small <= 12:
        return large in (small + 12, (small + 12) * 100)
    return 100 <= small < 1300 and small % 100 < 60 and large == small + 1200


def numbers_differ_unconverted(source: str, target: str) -> str | None:
    """As `numbers_differ`; metric measures may be what imperial ones of the other side were converted to."""
    found = numbers_differ(source, target)
    if found is None:
        return None
    converted = [_CONVERTED.search(text) is not None for text in (target, source)]
    if not any(converted):
        return found
    texts = [
        _METRIC.sub(" ", text) if other else text for text, other in zip((source, target), converted, strict=True)
    ]
    return numbers_differ(*texts) and found


class Numbers(Step):
    """Drops pairs both of whose sides have a number that the other lacks. A number on one side only may be a word on
    the other, and stays."""

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        both = np.logical_and(*(with_digits(pairs[side]) for side in SIDES))
        rows = pc.and_(*(matches(pairs[side], r"\p{Nd}", both) for side in SIDES))
        return _judged(pairs, rows, "number_mismatch", numbers_differ_unconverted)


class Links(Step):
    """Drops pairs one of whose sides has more addresses of the web or of mail than the other, or other mail. Bare
    ones, such as www.a.example, may be described where the other side has none."""

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        pattern = r"://|www\.|@"
        rows = pc.or_(*(matches(pairs[side], pattern, with_any(pairs[side], "//", "w.", "@")) for side in SIDES))
        return _judged(pairs, rows, "link_mismatch", _links_differ)


def _links_differ(source: str, target: str) -> str | None:
    urls = [re.findall(_URL, text) for text in (source, target)]
    if not all(urls) and all(url.lower().startswith("www.") for side in urls for url in side):
        urls = [[], []]  # the other side may say whose page it is
    mails = [sorted(found.lower() for found in re.findall(_EMAIL, text)) for text in (source, target)]
    if len(urls[0]) == len(urls[1]) and mails[0] == mails[1]:
        return None
    return " | ".join(" ".join([*url, *mail]) for url, mail in zip(urls, mails, strict=True))


class Brackets(Step):
    """Drops pairs in which brackets or double quotes are closed on one side and not on the other."""

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        rows = pc.or_(*(pc.match_substring_regex(pairs[side], rf"{_BRACKET.pattern}|[{_QUOTES}]") for side in SIDES))
        return _judged(pairs, rows, "bracket_mismatch", _brackets_differ)


def _brackets_differ(source: str, target: str) -> str | None:
    left, right = _open_brackets(source), _open_brackets(target)
    return f"{left} | {right}" if bool(left) != bool(right) else None


def _open_brackets(text: str) -> str:
    """Brackets and quotes of a text that have no other half. The bracket of an item, as in `a)`, needs none."""
    opened: list[str] = []
    alone = ""
    for character in _BRACKET.findall(re.sub(r"^\s*\w{1,3}\)|[:;]-?[()]", "", text)):
        if character in _BRACKETS:
            opened.append(character)
        elif opened and _BRACKETS[opened[-1]] == character:
            opened.pop()
        else:
            alone += character
    quotes = len(re.findall(rf"(?<!\d)[{_QUOTES}]", text))  # 5" are inches
    return "".join(opened) + alone + '"' * (quotes % 2)


class Markup(Step):
    """Drops pairs with what is left of HTML, wikis, bulletin boards, subtitles or LaTeX."""

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        masks = {}
        for side in SIDES:
            masks[f"{side}_markup"] = matches(pairs[side], _MARKUP, with_any(pairs[side], *_MARKUP_NEEDS))
        return Outcome.dropping(pairs, masks)


def _judged(pairs: pa.Table, rows: pa.ChunkedArray, reason: str, differ: Callable[[str, str], str | None]) -> Outcome:
    """Drop those of some rows in which `differ` finds something, which becomes the detail."""
    details = pa.nulls(len(pairs), pa.string())
    places = pc.indices_nonzero(rows)
    if len(places):
        few = pairs.select(SIDES).take(places)
        found = [differ(*texts) for texts in zip(*(few[side].to_pylist() for side in SIDES), strict=True)]
        details = pc.replace_with_mask(details, whole(rows), pa.array(found, pa.string()))
    return Outcome.dropping(pairs, {reason: pc.is_valid(details)}, details)
