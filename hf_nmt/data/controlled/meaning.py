"""What a sentence of the controlled language says, before any words are inflected or ordered.

`korean.py` and `english.py` each read these records; neither sees the other's text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hf_nmt.data.controlled.vocabulary import Adjective, Adverbial, Noun, Verb


@dataclass(eq=False, slots=True)
class NounPhrase:
    """A noun with what determines and modifies it.

    Attributes:
        number: 1 for a bare noun, 0 for a plural in -deul, n >= 1 with `counted` for a numeral with its counter.
        determiner: empty, `이` (this), `그` (the one spoken of), `모든` (all), `여러` (several), `많은` (many).
        ordinal: 0, or n for the n-th.
        owner: possessor.
        modifier: an adjective before the noun.
        relative: a clause whose gap this noun fills; `gap` names it, `subject` or `object`.
        joined: a second noun phrase after and.
        marker: empty, `도` (also) or `만` (only); on subjects alone.
        title: of a person; `full_name`: with the family name.
    """

    noun: Noun
    number: int = 1
    counted: bool = False
    determiner: str = ""
    ordinal: int = 0
    owner: NounPhrase | None = None
    modifier: Adjective | None = None
    relative: Clause | None = None
    gap: str = ""
    joined: NounPhrase | None = None
    marker: str = ""
    title: Noun | None = None
    full_name: bool = False

    @property
    def is_plain(self) -> bool:
        """Nothing but the noun."""
        return not (
            self.counted
            or self.determiner
            or self.ordinal
            or self.owner
            or self.modifier
            or self.relative
            or self.joined
        ) and bool(self.number)


@dataclass(eq=False, slots=True)
class Clause:
    """One predicate with its arguments and circumstances.

    Attributes:
        subject: None for the weather, in a gap and where a linked clause shares the subject of its main clause.
        verb, adjective, identity: the predicate, exactly one of them; `identity` stands before the copula: a noun
            phrase or an amount.
        argument: the noun phrase that takes the particle of the verb.
        purpose: what a movement is for.
        tense: `past`, `present`, `future`.
        polarity: empty, or `short` (an V), `long` (V-ji anta), `unable` (V-ji mothada), `unable_short` (mot V),
            `lexical` (the Korean verb is negative in itself).
        modality: a key of `korean.MODALITIES`.
        aspect: empty, `progressive`, `perfect` (with already), `experience`.
        degree: adverb before an adjective; `than`: standard of comparison; `superlative`: the group.
        amount: by how much a figure changed.
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
    purpose: Clause | None = None
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

    @property
    def is_weather(self) -> bool:
        return self.verb is not None and "weather" in self.verb.flags

    def with_subject(self, subject: NounPhrase | None) -> Clause:
        return replace(self, subject=subject)


@dataclass(eq=False, slots=True)
class Link:
    """Two clauses, the subordinate one first in Korean. `relation` is a key of `korean.RELATIONS`."""

    relation: str
    subordinate: Clause
    main: Clause

    @property
    def shares_subject(self) -> bool:
        return self.subordinate.subject is None and not self.subordinate.is_weather


@dataclass(eq=False, slots=True)
class Report:
    """Somebody says, thinks, asks. `asked` is empty for that, else `whether`, `why`, `when`, `where`."""

    subject: NounPhrase
    verb: Verb
    content: Clause | Link
    tense: str = "past"
    time: Adverbial | None = None
    asked: str = ""


@dataclass(eq=False, slots=True)
class Existence:
    """There is (or is not) a thing at a place; `position` is on, in, under and so on."""

    thing: NounPhrase
    place: NounPhrase
    position: Adverbial
    tense: str = "present"
    absent: bool = False


@dataclass(eq=False, slots=True)
class Seeming:
    """It seems that."""

    content: Clause


@dataclass(eq=False, slots=True)
class Judgment:
    """It is important (easy, fun) to do something; the action has no subject."""

    action: Clause
    adjective: Adjective
    tense: str = "present"


Content = Clause | Link | Report | Existence | Seeming | Judgment


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

    content: Content
    style: str
    mood: str = "statement"
    asked: str = ""
    nominative: bool = False
    opener: Adverbial | None = None
