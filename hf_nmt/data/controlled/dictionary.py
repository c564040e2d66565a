"""The true word-for-word dictionary behind the corpus."""

from __future__ import annotations

from collections.abc import Callable
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
from hf_nmt.data.controlled.vocabulary import Verb, function_words, vocabulary

_STYLES = ("formal", "polite", "plain", "written")


@cache
def lexicon() -> dict[str, str]:
    """Korean stems, inflected forms, names, adverbials and particles with their English, inflected the same way.

    A key may hold several words. Particles are keyed with a hyphen before them. Where a word has several senses the
    first in the word lists is given, as a dictionary without context must choose one.
    """
    words = vocabulary()
    entries: dict[str, str] = {}

    def add(korean: str, english: str) -> None:
        entries.setdefault(korean, english)

    for section, korean, english in function_words():
        add(f"-{korean}" if section == "particle" else korean, english)
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


def _add_verb(verb: Verb, add: Callable[[str, str], None]) -> None:
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


def _add_adjective(stem: Stem, english: str, add: Callable[[str, str], None]) -> None:
    for style in _STYLES:
        for mood in ("statement", "question"):
            add(final(stem, style, mood), "is " + english)
            add(final(past(stem), style, mood), "was " + english)
    add(present_adnominal(stem), english)
    add(plain(stem) + "고", "is " + english)
    add(attach(past(stem), "다고"), "was " + english)
    for ending in ("고", "지", "어서", "기", "으면"):
        add(attach(stem, ending), "is " + english)
