"""Dates, clock times, durations, percentages and money, each as Korean and English.

Korean words become English words and digits become digits, so that the shape of the number in the target is decided by
the source.
"""

from __future__ import annotations

from hf_nmt.data.controlled.english_morphology import number_words
from hf_nmt.data.controlled.korean_morphology import native_number, sino_number
from hf_nmt.data.controlled.random_choice import Draw
from hf_nmt.data.controlled.vocabulary import Adverbial

MONTHS = "January February March April May June July August September October November December".split()
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_UNITS = (
    ("분", "minute"),
    ("시간", "hour"),
    ("일", "day"),
    ("주", "week"),
    ("달", "month"),
    ("개월", "month"),
    ("년", "year"),
)


def _made(korean: str, english: str, section: str) -> Adverbial:
    return Adverbial(korean, english, "", section, False)


def date(draw: Draw) -> Adverbial:
    """`3월 5일에`."""
    month = draw.below(12)
    day = 1 + draw.below(_DAYS[month])
    return _made(f"{month + 1}월 {day}일에", f"on {MONTHS[month]} {day}", "date")


def year(draw: Draw, small: bool) -> Adverbial:
    """`2015년에`, or with a month."""
    number = (2000 if small else 1960) + draw.below(25 if small else 65)
    if small or draw.chance(0.6):
        return _made(f"{number}년에", f"in {number}", "year")
    month = draw.below(12)
    return _made(f"{number}년 {month + 1}월에", f"in {MONTHS[month]} {number}", "year")


def clock(draw: Draw) -> Adverbial:
    """`오후 3시 30분에`, `저녁 일곱 시에`."""
    if draw.chance(0.6):
        half, english_half = (("오전", "a.m."), ("오후", "p.m."))[draw.below(2)]
        hour = 1 + draw.below(11)
        minute = (0, 0, 0, 30, 10, 15, 20, 40, 45, 50)[draw.below(10)]
        if minute:
            return _made(f"{half} {hour}시 {minute}분에", f"at {hour}:{minute} {english_half}", "clock")
        return _made(f"{half} {hour}시에", f"at {hour} {english_half}", "clock")
    part, english_part, first, last = (
        ("아침", "in the morning", 6, 9), ("오전", "in the morning", 9, 11), ("오후", "in the afternoon", 1, 5),
        ("저녁", "in the evening", 6, 9), ("밤", "at night", 9, 11),
    )[draw.below(5)]  # fmt: skip
    hour = first + draw.below(last - first + 1)
    if draw.chance(0.3):
        return _made(
            f"{part} {native_number(hour)} 시 반에", f"at half past {number_words(hour)} {english_part}", "clock"
        )
    return _made(f"{part} {native_number(hour)} 시에", f"at {number_words(hour)} {english_part}", "clock")


def with_clock(day: Adverbial, hour: Adverbial) -> Adverbial:
    """A day and a clock time: the day loses its particle in Korean and comes last in English."""
    return _made(f"{day.korean.removesuffix('에')} {hour.korean}", f"{hour.english} {day.english}", day.section)


def short_duration(draw: Draw, small: bool) -> Adverbial:
    """`두 시간 동안`, `30분 동안`."""
    return _duration(draw, _UNITS[1] if small else _UNITS[draw.below(2)])


def long_duration(draw: Draw, small: bool) -> Adverbial:
    """`세 달 동안`, `3년 동안`, `삼 년 동안`."""
    return _duration(draw, _UNITS[4] if small else _UNITS[2 + draw.below(len(_UNITS) - 2)])


def _duration(draw: Draw, names: tuple[str, str]) -> Adverbial:
    unit, english = names
    number = (5 * (1 + draw.below(10))) if unit == "분" else 2 + draw.below(5 if unit in ("주", "달") else 9)
    if unit in ("시간", "달"):
        korean, english_number = f"{native_number(number)} {unit}", number_words(number)
    elif draw.chance(0.6):
        korean, english_number = f"{number}{unit}", str(number)
    else:
        korean, english_number = f"{sino_number(number)} {unit}", number_words(number)
    return _made(f"{korean} 동안", f"for {english_number} {english}s", "duration")


def ago(draw: Draw) -> Adverbial:
    """`세 달 전에`, `10년 전에`."""
    unit, english = _UNITS[2 + draw.below(len(_UNITS) - 2)]
    number = 2 + draw.below(9)
    if unit == "달":
        return _made(f"{native_number(number)} {unit} 전에", f"{number_words(number)} {english}s ago", "past")
    return _made(f"{number}{unit} 전에", f"{number} {english}s ago", "past")


def percent(draw: Draw, small: bool) -> Adverbial:
    """`12퍼센트`, `3.5퍼센트`."""
    if small or draw.chance(0.7):
        number = str(2 + draw.below(28 if small else 58))
    else:
        number = f"{1 + draw.below(19)}.{1 + draw.below(9)}"
    return _made(f"{number}퍼센트", f"by {number} percent", "amount")


def money(draw: Draw) -> Adverbial:
    """An amount of won or dollars, as a predicate."""
    kind = draw.below(4)
    if kind == 0:
        number = 1 + draw.below(99)
        return _made(f"{number}만 원", f"{number}0,000 won", "money")
    if kind == 1:
        number = (1 + draw.below(99)) * 1000
        return _made(f"{sino_number(number)} 원", f"{number_words(number)} won", "money")
    if kind == 2:
        number = 2 + draw.below(98)
        return _made(f"{number}달러", f"{number} dollars", "money")
    number = 10 * (1 + draw.below(60))
    return _made(f"{number}유로", f"{number} euros", "money")


def age(draw: Draw) -> Adverbial:
    """`스물세 살`."""
    number = 20 + draw.below(50)
    return _made(f"{native_number(number)} 살", f"{number_words(number)} years old", "age")
