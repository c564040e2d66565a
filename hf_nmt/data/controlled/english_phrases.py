"""From meaning to English noun phrases, with the rules for articles and number, and the parts that hold variants.

A realisation is a list of parts: words, or a choice `(label, usual, other)` between two lists of parts. The canonical
sentence takes `usual` everywhere; for each label, the sentence that takes `other` at all places of that label is a
further reference.
"""

from __future__ import annotations

from hf_nmt.data.controlled.english_morphology import indefinite, number_words, ordinal_words, plural
from hf_nmt.data.controlled.meaning import NounPhrase

Part = str | tuple[str, list, list]

_OBJECT_PRONOUNS = {"I": "me", "he": "him", "she": "her", "they": "them", "we": "us"}
_POSSESSIVES = {"I": "my", "he": "his", "she": "her", "they": "their", "we": "our"}
_QUANTIFIERS = {"모든": "all the", "여러": "several", "많은": "many"}


def synonym(usual: str, other: str) -> Part:
    """A word with the choice of a synonym, where it has one."""
    return ("synonym", [usual], [other]) if other else usual


def simple_phrase(phrase: NounPhrase, role: str) -> list[Part]:
    """A noun phrase without its relative clause and without a second noun phrase joined to it.

    Args:
        phrase: any.
        role: `subject` (a bare noun is definite), `object` and `predicate` (it is indefinite), `owner`, `standard`
            (after than: pronouns as subjects, nouns definite).
    """
    noun = phrase.noun
    if noun.form == "pronoun":
        usual = noun.english if role in ("subject", "standard") else _OBJECT_PRONOUNS[noun.english]
        parts: list[Part] = [_POSSESSIVES[noun.english] if role == "owner" else usual]
    elif noun.gender:
        parts = [_name(phrase, role)]
    else:
        parts = _common(phrase, role)
    return ["only", *parts] if phrase.marker == "만" else parts


def _name(phrase: NounPhrase, role: str) -> str:
    noun = phrase.noun
    name = f"{noun.family[1]} {noun.english}" if phrase.full_name or phrase.title else noun.english
    if phrase.title:
        name = f"{phrase.title.english} {name}"
    return _owner_form(name) if role == "owner" else name


def _owner_form(text: str) -> str:
    return text + ("'" if text.endswith("s") and not text.endswith("ss") else "'s")


def _common(phrase: NounPhrase, role: str) -> list[Part]:
    noun, modifier = phrase.noun, phrase.modifier
    usual = _with_head(phrase, noun.english, modifier.english if modifier else "", role)
    if noun.synonym:
        return [("synonym", usual, _with_head(phrase, noun.synonym, modifier.english if modifier else "", role))]
    if modifier and modifier.synonym:
        return [("synonym", usual, _with_head(phrase, noun.english, modifier.synonym, role))]
    return usual


def _with_head(phrase: NounPhrase, head: str, adjective: str, role: str) -> list[Part]:
    noun = phrase.noun
    many = _is_many(phrase)
    if many and noun.form == "count":
        head = plural(head)
    text = f"{adjective} {head}" if adjective else head
    if role == "owner":
        text = _owner_form(text)
    if phrase.counted:
        return [_counted(phrase, text)]
    if phrase.ordinal:
        text = f"{ordinal_words(phrase.ordinal)} {text}"
    if phrase.owner is not None:
        if phrase.owner.noun.form == "count" and not phrase.owner.noun.group:
            return [f"the {text} of", *simple_phrase(phrase.owner, "standard")]
        return [*simple_phrase(phrase.owner, "owner"), text]
    if phrase.determiner:
        return _determined(phrase.determiner, text, many)
    if noun.form == "name":
        return [text]
    if phrase.ordinal or phrase.relative is not None or noun.form == "unique":
        return ["the " + text]
    if noun.form == "bare":
        return [text]
    if role in ("subject", "owner", "standard"):
        return ["the " + text]
    return [text if many or noun.form in ("mass", "plural") else indefinite(text)]


def _counted(phrase: NounPhrase, text: str) -> str:
    amount = str(phrase.number) if phrase.number >= 30 else number_words(phrase.number)
    unit = phrase.noun.unit
    if not unit:
        return f"{amount} {text}"
    return f"{amount} {unit if phrase.number == 1 else plural(unit)} of {text}"


def _determined(determiner: str, text: str, many: bool) -> list[Part]:
    if determiner == "이":
        return [("these " if many else "this ") + text]
    if determiner == "그":
        return [("that", ["the"], ["those" if many else "that"]), text]
    return [f"{_QUANTIFIERS[determiner]} {text}"]


def is_plural(phrase: NounPhrase) -> bool:
    """Whether a verb agrees in the plural."""
    return phrase.joined is not None or _is_many(phrase)


def _is_many(phrase: NounPhrase) -> bool:
    noun = phrase.noun
    if phrase.counted:
        return phrase.number != 1
    return noun.plural or phrase.number == 0 or phrase.determiner in _QUANTIFIERS


def person_of(phrase: NounPhrase | None) -> str:
    """What a verb agrees with: `first`, `third` or `plural`."""
    if phrase is None:
        return "third"
    if phrase.joined is None and phrase.noun.form == "pronoun":
        return {"I": "first", "we": "plural", "they": "plural"}.get(phrase.noun.english, "third")
    return "plural" if is_plural(phrase) else "third"
