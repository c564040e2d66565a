"""English inflection: verb forms, plurals, comparison, indefinite articles, numerals."""

from __future__ import annotations

from functools import cache


def _table(text: str) -> dict[str, str]:
    """`word forms, word forms` as a dictionary."""
    return dict(entry.split(maxsplit=1) for entry in text.split(","))


# Past and past participle; one form where they agree.
_IRREGULAR_VERBS = _table(
    """
    be was been, become became become, begin began begun, bite bit bitten, break broke broken, bring brought,
    build built, burn burned, buy bought, catch caught, choose chose chosen, come came come, cost cost, cut cut,
    deal dealt, do did done, draw drew drawn, drink drank drunk, drive drove driven, eat ate eaten, fall fell
    fallen, feed fed, feel felt, fight fought, find found, fly flew flown, forget forgot forgotten, get got
    gotten, give gave given, go went gone, grow grew grown, hang hung, have had, hear heard, hide hid hidden,
    hit hit, hold held, hurt hurt, keep kept, know knew known, lay laid, lead led, leave left, lend lent, let
    let, lie lay lain, lose lost, make made, mean meant, meet met, oversee oversaw overseen, overcome overcame
    overcome, pay paid, put put, quit quit, read read, ride rode ridden, ring rang rung, rise rose risen, run
    ran run, say said, see saw seen, sell sold, send sent, set set, sew sewed sewn, shake shook shaken, shoot
    shot, show showed shown, shut shut, sing sang sung, sit sat, sleep slept, speak spoke spoken, spend spent,
    spread spread, stand stood, steal stole stolen, sweep swept, swim swam swum, take took taken, teach taught,
    tear tore torn, tell told, think thought, throw threw thrown, understand understood, wake woke woken, wear
    wore worn, win won, withdraw withdrew withdrawn, write wrote written, rewrite rewrote rewritten, rebuild
    rebuilt
    """
)
# Verbs that double their last consonant before -ed and -ing.
_DOUBLED = frozenset(
    """
    admit ban chat commit control cut defer drop equip fit get grab hit hug jog knit map occur permit plan
    prefer program put quit refer run scan set ship shop shut sit spin step stop submit swim transfer transmit
    trap wrap
    """.split()
)
_IRREGULAR_PLURALS = _table(
    """
    child children, man men, woman women, person people, foot feet, tooth teeth, mouse mice, fish fish, sheep
    sheep, knife knives, wife wives, leaf leaves, shelf shelves, life lives, half halves, crisis crises, thesis
    theses, analysis analyses, photo photos, piano pianos, radio radios, video videos, studio studios, hanbok
    hanbok, aircraft aircraft, series series, loaf loaves, kilo kilos, won won, yen yen, diagnosis diagnoses,
    hypothesis hypotheses, phenomenon phenomena, medium media
    """
)
_IRREGULAR_COMPARISON = {"good": ("better", "best"), "bad": ("worse", "worst"), "fun": ("more fun", "most fun")}
_LONG_BUT_SHORT_COMPARISON = {"quiet", "narrow", "simple", "clever", "gentle"}
_VOWELS = "aeiou"


@cache
def third_person(verb: str) -> str:
    """Present form after he, she, it."""
    head, _, rest = verb.partition(" ")
    head = {"be": "is", "have": "has"}.get(head) or _with_s(head)
    return f"{head} {rest}" if rest else head


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        return word + "es"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def _with_ed(word: str) -> str:
    if word.endswith("e"):
        return word + "d"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return word[:-1] + "ied"
    return word + (word[-1] if word in _DOUBLED else "") + "ed"


@cache
def past_tense(verb: str) -> str:
    """Simple past of a verb; only the first word of a phrase inflects."""
    head, _, rest = verb.partition(" ")
    irregular = _IRREGULAR_VERBS.get(head)
    head = irregular.split()[0] if irregular else _with_ed(head)
    return f"{head} {rest}" if rest else head


@cache
def past_participle(verb: str) -> str:
    """Past participle of a verb; only the first word of a phrase inflects."""
    head, _, rest = verb.partition(" ")
    irregular = _IRREGULAR_VERBS.get(head)
    head = irregular.split()[-1] if irregular else _with_ed(head)
    return f"{head} {rest}" if rest else head


@cache
def gerund(verb: str) -> str:
    """The form in -ing of a verb; only the first word of a phrase inflects."""
    head, _, rest = verb.partition(" ")
    if head.endswith("ie"):
        head = head[:-2] + "ying"
    elif head.endswith("e") and not head.endswith(("ee", "oe", "ye")) and head != "be":
        head = head[:-1] + "ing"
    else:
        head += (head[-1] if head in _DOUBLED or head in ("begin", "forget") else "") + "ing"
    return f"{head} {rest}" if rest else head


@cache
def plural(noun: str) -> str:
    """Plural of a noun or of a compound, whose last word inflects."""
    before, _, head = noun.rpartition(" ")
    if head in _IRREGULAR_PLURALS:
        head = _IRREGULAR_PLURALS[head]
    elif head.endswith("man") and head not in ("human", "German"):
        head = head[:-3] + "men"
    elif head.endswith("o") and head[-2] not in _VOWELS and head not in ("potato", "tomato", "hero"):
        head += "s"
    elif head.endswith("o") and head[-2] in _VOWELS:
        head += "s"
    else:
        head = _with_s(head)
    return f"{before} {head}" if before else head


@cache
def comparison(adjective: str) -> tuple[str, str]:
    """Comparative and superlative: by ending for short adjectives, with more and most otherwise."""
    if adjective in _IRREGULAR_COMPARISON:
        return _IRREGULAR_COMPARISON[adjective]
    if not _is_short(adjective):
        return f"more {adjective}", f"most {adjective}"
    if adjective.endswith("y"):
        base = adjective[:-1] + "i"
    elif adjective.endswith("e"):
        base = adjective[:-1]
    elif (
        len(adjective) <= 4 and adjective[-1] in "gtndm" and adjective[-2] in _VOWELS and adjective[-3] not in _VOWELS
    ):
        base = adjective + adjective[-1]
    else:
        base = adjective
    return base + "er", base + "est"


def _is_short(adjective: str) -> bool:
    if adjective in _LONG_BUT_SHORT_COMPARISON:
        return True
    if len(adjective) > 3 and adjective.endswith(("ed", "ful", "ous", "ing", "ent", "ive")):
        return False
    groups, inside = 0, False
    for letter in adjective.removesuffix("e") if len(adjective) > 3 else adjective:
        vowel = letter in "aeiouy"
        groups += vowel and not inside
        inside = vowel
    return groups == 1 or (groups == 2 and adjective.endswith("y"))


@cache
def indefinite(phrase: str) -> str:
    """A noun phrase with a or an, by the sound that it opens with."""
    lowered = phrase.lower()
    if lowered.startswith(("hour", "honest", "honor", "mri", "x-ray")):
        return "an " + phrase
    if lowered.startswith(("uni", "use", "usu", "euro", "one", "uk")) and not lowered.startswith(("unim", "unin")):
        return "a " + phrase
    return ("an " if lowered[0] in _VOWELS or lowered[:1] == "8" else "a ") + phrase


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
             "twelve": "twelfth"}  # fmt: skip


@cache
def number_words(number: int) -> str:
    """A cardinal below one hundred million in words, without `and`."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_SMALL[ones]}" if ones else "")
    for unit, name in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if number >= unit:
            high, low = divmod(number, unit)
            return f"{number_words(high)} {name}" + (f" {number_words(low)}" if low else "")
    raise AssertionError(number)


@cache
def ordinal_words(number: int) -> str:
    """An ordinal below one hundred in words."""
    words = number_words(number)
    head, hyphen, last = words.rpartition("-")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return head + hyphen + last
