"""What a sentence of the controlled language says, before any words are inflected or ordered.

`korean.py` and `english.py` each read these records; neither sees the other's text.
"""

from __future__ import annotations

from dataclasses import dataclass

from hf_nmt.data.controlled.vocabulary import Adjective, Adverbial, Noun, Verb


@dataclass(eq=False, slots=True)
class NounPhrase:
    """A noun with what determines and modifies it.

    Attributes:
        number: 1 for a bare noun, 0 for a plural in -deul, n >= 1 with `counted` for a numeral with its counter.
        determiner: empty, `이` (this), `그` (the one spoken of), `모든` (all), `여러` (several), `많은` (many).
        owner: possessor.
        modifier: an adjective before the noun.
        relative: a clause whose gap this noun fills; `gap` names it, `subject` or `object`.
        marker: empty, `도` (also) or `만` (only); on subjects alone.
    """

    noun: Noun
    number: int = 1
    counted: bool = False
    determiner: str = ""
    owner: NounPhrase | None = None
    modifier: Adjective | None = None
    relative: Clause | None = None
    gap: str = ""
    marker: str = ""
    title: Noun | None = None
    full_name: bool = False


@dataclass(eq=False, slots=True)
class Clause:
    """One predicate with its arguments and circumstances.

    Attributes:
        subject: None for the weather and where a linked clause shares the subject of its main clause.
        verb, adjective, identity: the predicate, exactly one of them; `identity` stands before the copula: a noun
            phrase or an amount.
        argument: the noun phrase that takes the particle of the verb.
        tense: `past`, `present`, `future`.
        polarity: empty, or `an` (an V), `ji` (V-ji anta), `mot` (cannot help: V-ji mothada).
        modality: a key of `korean.MODALITIES`.
        aspect: empty, `progressive`, `perfect` (with already), `experience`.
        degree: adverb before an adjective or a change; `than`: standard of comparison; `superlative`: the group.
        amount: how much a figure changed, (Korean, English).
        passive: the subject undergoes the verb.
    """

    subject: NounPhrase | None = None
    verb: Verb | None = None
    adjective: Adjective | None = None
    identity: NounPhrase | Adverbial | None = None
    argument: NounPhrase | None = None
    recipient: NounPhrase | None = None
    companion: NounPhrase | None = None
    place: NounPhrase | None = None
    goal_purpose: Clause | None = None
    time: Adverbial | None = None
    duration: Adverbial | None = None
    frequency: Adverbial | None = None
    manner: Adverbial | None = None
    degree: Adverbial | None = None
    than: NounPhrase | None = None
    superlative: NounPhrase | None = None
    amount: Adverbial | None = None
    tense: str = "past"
    polarity: str = ""
    modality: str = ""
    aspect: str = ""
    passive: bool = False


@dataclass(eq=False, slots=True)
class Existence:
    """There is (or is not) a thing at a place; `position` is on, in, under and so on."""

    thing: NounPhrase
    place: NounPhrase
    position: Adverbial
    tense: str = "present"
    absent: bool = False


@dataclass(eq=False, slots=True)
class Report:
    """Somebody says, thinks, knows that; `content` is a clause or a link of two."""

    subject: NounPhrase
    verb: Verb
    content: Clause | Link
    tense: str = "past"
    time: Adverbial | None = None


@dataclass(eq=False, slots=True)
class Link:
    """Two clauses: the subordinate one comes first in Korean. `relation` is a key of `korean.RELATIONS`."""

    relation: str
    subordinate: Clause
    main: Clause


@dataclass(eq=False, slots=True)
class Sentence:
    """A whole sentence.

    Attributes:
        content: what it says.
        style: `formal`, `polite`, `plain` or `written`.
        mood: `statement`, `question`, `request`, `proposal`.
        asked: empty or what a question asks for: `subject`, `object`, `place`, `time`, `reason`, `count`.
        nominative: the subject of the main clause takes 이/가 and not 은/는.
        opener: a connective such as `그러나`.
    """

    content: Clause | Link | Report | Existence
    style: str
    mood: str = "statement"
    asked: str = ""
    nominative: bool = False
    opener: Adverbial | None = None
