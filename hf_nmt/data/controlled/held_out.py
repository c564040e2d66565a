"""The combinations that no training sentence holds, and which split a sentence may stand in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

from hf_nmt.data.controlled.meaning import (
    Clause,
    Content,
    Existence,
    Judgment,
    Link,
    NounPhrase,
    Report,
    Seeming,
)

_PERCENT = 6
# The subjects of these verbs undergo what an object would.
_UNACCUSATIVE = frozenset({"change", "event", "happening", "failure"})


@cache
def split_of(first: str, second: str) -> str:
    """The split of a combination of two English words: a keyed hash, so the same for every seed."""
    bucket = int.from_bytes(hashlib.sha256(f"held out|{first}|{second}".encode()).digest()[:4], "big") % 100
    if bucket < _PERCENT:
        return "test"
    return "validation" if bucket < 2 * _PERCENT else "train"


def split_of_sentence(content: Content, seldom: frozenset[str] = frozenset()) -> str:
    """`train` where no combination is held out; the split of those that are; empty where they are of two splits.

    Args:
        content: what the sentence says.
        seldom: words whose combinations are never held out.
    """
    held = {split_of(*pair) for pair in combinations(content) if seldom.isdisjoint(pair)} - {"train"}
    if len(held) == 2:
        return ""
    return held.pop() if held else "train"


def combinations(content: Content) -> Iterator[tuple[str, str]]:
    """Pairs of English words: verb and argument (else place), adjective and noun, job, place and thing.

    Verbs whose English depends on their object are left out: an unseen object would leave it open.
    """
    if isinstance(content, Clause):
        yield from _of_clause(content)
    elif isinstance(content, Link):
        yield from _of_clause(content.subordinate)
        yield from _of_clause(content.main)
    elif isinstance(content, Report):
        yield from _of_phrase(content.subject)
        yield from combinations(content.content)
    elif isinstance(content, Seeming):
        yield from _of_clause(content.content)
    elif isinstance(content, Judgment):
        yield from _of_clause(content.action)
    elif isinstance(content, Existence):
        yield content.place.noun.english, content.thing.noun.english
        yield from _of_phrase(content.thing)


def _of_clause(clause: Clause) -> Iterator[tuple[str, str]]:
    verb, subject = clause.verb, clause.subject
    if verb is not None and not verb.ambiguous:
        undergoes = clause.passive or verb.flags & _UNACCUSATIVE
        for phrase in _with_joined(subject if undergoes else clause.argument or clause.place):
            yield verb.english, phrase.noun.english
    if clause.adjective is not None and subject is not None:
        for phrase in _with_joined(subject):
            yield clause.adjective.english, phrase.noun.english
    if isinstance(clause.identity, NounPhrase):
        yield "be", clause.identity.noun.english
        yield from _of_phrase(clause.identity)
    for phrase in (subject, clause.argument, clause.recipient, clause.companion, clause.place, clause.than):
        yield from _of_phrase(phrase)
    if clause.purpose is not None:
        yield from _of_clause(clause.purpose)


def _with_joined(phrase: NounPhrase | None) -> list[NounPhrase]:
    if phrase is None:
        return []
    return [phrase] if phrase.joined is None else [phrase, phrase.joined]


def _of_phrase(phrase: NounPhrase | None) -> Iterator[tuple[str, str]]:
    if phrase is None:
        return
    if phrase.modifier is not None:
        yield phrase.modifier.english, phrase.noun.english
    if phrase.owner is not None and phrase.owner.noun.form == "count" and not phrase.owner.noun.group:
        yield phrase.noun.english, phrase.owner.noun.english
    if phrase.relative is not None:
        if phrase.gap == "object" and not phrase.relative.verb.ambiguous:
            yield phrase.relative.verb.english, phrase.noun.english
        yield from _of_clause(phrase.relative)
