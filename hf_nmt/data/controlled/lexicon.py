"""The true word-for-word dictionary behind the corpus."""

from __future__ import annotations

from functools import cache

from hf_nmt.data.controlled.english_morphology import (
    gerund,
    number_words,
    past_participle,
    past_tense,
    third_person,
)
from hf_nmt.data.controlled.korean_morphology import (
    Stem,
    attach,
    final,
    honorific,
    native_number,
    past,
    plain,
    present_adnominal,
    sino_number,
)
from hf_nmt.data.controlled.quantities import MONTHS
from hf_nmt.data.controlled.vocabulary import Verb, vocabulary

_STYLES = ("formal", "polite", "plain", "written")
_PARTICLES = {
    "에서": "at", "에게": "to", "께": "to", "에게서": "from", "와": "with", "과": "with", "의": "of", "보다": "than",
    "에": "at", "로": "to", "으로": "to", "도": "also", "만": "only", "은": "", "는": "", "이": "", "가": "", "을": "",
    "를": "", "께서": "", "께서는": "", "들": "", "들은": "", "들이": "", "들을": "", "들에게": "to", "들과": "with",
    "들의": "of", "들도": "also", "들만": "only", "씨": "", "것은": "", "것을": "", "것": "", "적이": "ever", "중에서": "of",
}  # fmt: skip
_FUNCTION_WORDS = {
    "이": "this", "그": "the", "모든": "all", "여러": "several", "많은": "many", "저": "I", "나": "I", "제": "my",
    "내": "my", "우리": "we", "그녀": "she", "그들": "they", "누가": "who", "무엇을": "what", "어디에서": "where",
    "언제": "when", "왜": "why", "몇": "how many", "안": "not", "못": "cannot", "이미": "already", "더": "more",
    "훨씬": "much", "가장": "most", "전에": "before", "후에": "after", "때": "when", "때까지": "until", "때문에": "because",
    "위해": "to", "동안": "for", "수": "can", "줄": "how to", "않았다": "not", "않았습니다": "not", "않았어요": "not",
    "않습니다": "not", "않는다": "not", "않아요": "not", "않다": "not", "싶어": "want", "하려고": "", "시작했다": "began",
    "위에": "on", "안에": "in", "아래에": "under", "옆에": "next to", "뒤에": "behind", "있다": "is", "있습니다": "is",
    "있어요": "is", "있었다": "was", "있었습니다": "was", "있었어요": "was", "것이다": "will", "것입니다": "will",
    "거예요": "will", "오전": "a.m.", "오후": "p.m.", "퍼센트": "percent", "원": "won", "달러": "dollars", "유로": "euros",
    "씨": "", "것이라고": "will", "있을": "is", "없다": "is not", "없습니다": "is not", "못했다": "could not",
    "못했습니다": "could not", "못했어요": "could not", "않을": "not", "아니다": "is not", "살": "years old", "시간": "hours", "분": "minutes", "일": "days", "주": "weeks", "달": "months", "개월": "months",
    "년": "years", "첫": "first", "번째": "", "같다": "seems", "같습니다": "seems", "같아요": "seems",
}  # fmt: skip


@cache
def lexicon() -> dict[str, str]:
    """Korean stems, inflected forms, names, adverbials and particles with their English, inflected the same way.

    A key may hold several words. Particles are keyed with a hyphen before them. Where a word has several senses the
    first in the word lists is given, as a dictionary without context must choose one.
    """
    words, entries = vocabulary(), {}

    def add(korean: str, english: str) -> None:
        entries.setdefault(korean, english)

    for korean, english in _FUNCTION_WORDS.items():
        add(korean, english)
    for korean, english in _PARTICLES.items():
        add(f"-{korean}", english)
    for adverb in (*words.times, *words.manners.values(), *words.degrees, *words.change_degrees.values()):
        add(adverb.korean, adverb.english)
    for noun in (*words.nouns, *words.titles):
        add(noun.korean, noun.english)
        if noun.counter:
            add(noun.counter, noun.unit)
    for person in words.people:
        add(person.korean, person.english)
        add(person.family[0] + person.korean, f"{person.family[1]} {person.english}")
    for verb in words.verbs:
        _add_verb(verb, add)
    for adjective in words.adjectives:
        _add_adjective(adjective.stem, adjective.english, add)
        if adjective.adnominal:
            add(adjective.adnominal, adjective.english)
    for number in range(1, 100):
        add(native_number(number), number_words(number))
        add(sino_number(number), number_words(number))
    for number, month in enumerate(MONTHS, 1):
        add(f"{number}월", month)
    return entries


def _add_verb(verb: Verb, add) -> None:
    english = verb.english + (f" {verb.preposition}" if verb.preposition else "")
    for stem in (verb.stem, honorific(verb.stem)):
        for style in _STYLES:
            for mood in ("statement", "question"):
                add(final(past(stem), style, mood), past_tense(english))
                add(final(stem, style, mood), third_person(english))
            add(final(stem, style, "request"), f"please {english}")
        add(attach(past(stem), "다고"), past_tense(english))
        add(plain(stem) + "고", third_person(english))
        add(attach(past(stem), "지만"), past_tense(english) + " but")
        add(attach(past(stem), "는지"), past_tense(english))
        add(attach(past(stem), "으ㄹ"), past_tense(english))
        add(attach(past(stem), "기"), past_tense(english))
        add(attach(stem, "기"), gerund(english))
        add(attach(stem, "으ㄴ"), "that " + past_tense(english))
        add(attach(stem, "으면"), "if " + english)
        add(attach(stem, "으러"), "to " + english)
        for ending in ("고", "지", "으ㄹ", "으려고", "어야", "어도", "어서", "자마자", "으면서", "는"):
            add(attach(stem, ending), english)
    if verb.stem.text.endswith("하"):
        passive = Stem(verb.stem.text.removesuffix("하") + "되")
        for style in _STYLES:
            for full in (False, True):
                add(final(past(Stem(passive.text, "verb", full)), style), "was " + past_participle(english))
        add(attach(passive, "으ㄹ"), "be " + past_participle(english))


def _add_adjective(stem: Stem, english: str, add) -> None:
    for style in _STYLES:
        for mood in ("statement", "question"):
            add(final(stem, style, mood), "is " + english)
            add(final(past(stem), style, mood), "was " + english)
    add(present_adnominal(stem), english)
    add(plain(stem) + "고", "is " + english)
    add(attach(past(stem), "다고"), "was " + english)
    for ending in ("고", "지", "어서", "기", "으면"):
        add(attach(stem, ending), "is " + english)
