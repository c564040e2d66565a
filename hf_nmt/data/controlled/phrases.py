"""Random noun phrases, circumstances and clauses inside one article."""

from __future__ import annotations

from collections.abc import Sequence

from hf_nmt.data.controlled import quantities
from hf_nmt.data.controlled.meaning import Clause, NounPhrase
from hf_nmt.data.controlled.random_choice import Draw, cumulative
from hf_nmt.data.controlled.vocabulary import Adverbial, Noun, Verb
from hf_nmt.data.controlled.world import World

_STYLES = {
    "daily": ("polite", "plain", "formal", "polite"),
    "tech": ("formal", "written", "polite"),
    "business": ("formal", "written", "polite"),
    "education": ("polite", "formal", "written"),
    "health": ("polite", "formal", "written"),
    "news": ("written", "formal", "written"),
}


def _pronoun(korean: str, english: str) -> Noun:
    return Noun(korean, english, "", "pronoun", frozenset({"person", "human"}), (), True)


FIRST, WE = _pronoun("나", "I"), _pronoun("우리", "we")
HE, SHE, THEY = _pronoun("그", "he"), _pronoun("그녀", "she"), _pronoun("그들", "they")

_TENSES = cumulative({"past": 0.58, "future": 0.17, "habit": 0.16, "now": 0.09})
_MODALITIES = cumulative(
    {"can": 3, "must": 3, "want": 3, "plan": 2, "decide": 2, "begin": 2, "enjoy": 2, "may": 1, "know_how": 1, "try": 1}
)
_SMALL_MODALITIES = cumulative({"can": 1, "must": 1, "want": 1})
_PEOPLE = frozenset({"human", "name", "elder", "person"})
_UNOWNED = frozenset({"incident", "crime", "public_event", "match"})
_ORDERED = frozenset({"event", "structure", "product", "software", "plan"})


class Article:
    """What the sentences of one article share: domain, style, people, organisations and things spoken of."""

    def __init__(self, world: World, domain: str, draw: Draw):
        self.world, self.domain, self.draw = world, domain, draw
        self.style = draw.pick(_STYLES[domain])
        self.people = self._some(world.people, 3)
        titles = [title for title in world.titles if domain in title.domains and not world.small]
        self.title = draw.pick(titles) if titles and draw.chance(0.5) else None
        self.roles = self._some(world.in_class("human", domain), 3)
        self.elders = [noun for noun in world.in_class("elder") if domain in noun.domains]
        self.groups = self._some([noun for noun in world.in_class("group") if domain in noun.domains], 3)
        self.topics = frozenset(self._some([noun for noun in world.nouns if domain in noun.domains], 40))
        self.first_person = self.style != "written" and domain != "news"

    def _some(self, items: Sequence[Noun], count: int) -> list[Noun]:
        pool = list(items)
        chosen: list[Noun] = []
        while pool and len(chosen) < count:
            chosen.append(pool.pop(self.draw.below(len(pool))))
        return chosen

    # People and things

    def person(self, pronouns: bool = True, avoid: tuple[Noun, ...] = ()) -> NounPhrase:
        """Somebody: a name, a role, an elder or a pronoun; never one of `avoid`."""
        draw, point = self.draw, self.draw.below(100)
        pronoun = self._pronoun() if pronouns and point < 22 else None
        if pronoun is not None and pronoun not in avoid:
            return NounPhrase(pronoun)
        if point < 60:
            noun = draw.pick(self.people)
        elif point < 70 and self.elders:
            noun = draw.pick(self.elders)
        else:
            noun = draw.pick(self.roles)
        if noun in avoid:
            noun = next(person for person in self.people if person not in avoid)
        return self.somebody(noun)

    def _pronoun(self) -> Noun:
        choices = [HE, SHE, THEY, HE if self.people[0].gender == "he" else SHE]
        if self.first_person:
            choices += [FIRST, FIRST, WE]
        return self.draw.pick(choices)

    def somebody(self, noun: Noun) -> NounPhrase:
        """A person or group as the article names it; roles with random determiners and modifiers."""
        if noun.gender:
            if self.title is not None and noun is self.people[0]:
                return NounPhrase(noun, title=self.title)
            return NounPhrase(noun, full_name=not self.world.small and noun is self.people[1])
        phrase = NounPhrase(noun)
        if noun.form != "count" or not noun.one_of(_PEOPLE):
            return phrase
        draw, point = self.draw, self.draw.below(100)
        if point < 18:
            phrase.number = 0
        elif point < 28:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 35 and not self.world.small:
            phrase.determiner = draw.pick(("모든", "여러", "많은"))
        elif point < 43:
            phrase.number, phrase.counted = self._head_count(), True
        elif point < 48 and not self.world.small:
            self.add_doing(phrase)
        if draw.chance(0.18) and phrase.relative is None:
            self.modify(phrase)
        return phrase

    def _head_count(self) -> int:
        if self.world.small:
            return 2 + self.draw.below(8)
        return 2 + self.draw.below(11) if self.draw.chance(0.8) else 13 + self.draw.below(60)

    def add_doing(self, phrase: NounPhrase) -> None:
        """A relative clause that says what the person did."""
        verbs = [
            verb for verb in self.world.actions[self.domain] if phrase.noun.one_of(verb.subjects) and verb.objects
        ]
        verbs = [verb for verb in verbs if not verb.flags & {"generic", "dative"} and "person" not in verb.objects]
        if not verbs:
            return
        clause = Clause(verb=self.draw.pick(verbs))
        noun = self.choose(self.world.arguments[clause.verb, self.domain])
        clause.argument = NounPhrase(noun)
        phrase.relative, phrase.gap = clause, "subject"

    def modify(self, phrase: NounPhrase) -> None:
        """Adds an adjective where one fits."""
        adjectives = self.world.describing.get(phrase.noun, ())
        if adjectives and phrase.noun.form in ("count", "mass", "plural"):
            modifier = self.draw.pick(adjectives)
            if modifier.english not in phrase.noun.english:
                phrase.modifier = modifier

    def choose(self, nouns: Sequence[Noun]) -> Noun:
        """A noun, rather one that the article is about."""
        noun = self.draw.pick(nouns)
        if noun not in self.topics and self.draw.chance(0.5):
            noun = self.draw.pick(nouns)
        return noun

    def thing(self, noun: Noun, richness: float = 1.0, avoid: tuple[Noun, ...] = ()) -> NounPhrase:
        """A thing, place or event with random determiners and modifiers; none of `avoid` is its owner."""
        draw, phrase = self.draw, NounPhrase(noun)
        if noun.form not in ("count", "mass", "plural"):
            return phrase
        if noun.one_of(_PEOPLE):
            return self.somebody(noun)
        small, point = self.world.small, draw.below(1000) / richness
        if point < 90:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 160 and not noun.one_of(_UNOWNED):
            phrase.owner = self.owner(avoid)
        elif point < 270 and self._can_count(noun):
            phrase.number, phrase.counted = self._count(), True
        elif point < 310 and not small and noun.form == "count" and noun.counter:
            phrase.determiner = draw.pick(("여러", "모든", "많은"))
        elif point < 350 and not small and noun.one_of(_ORDERED) and noun.form == "count":
            phrase.ordinal = 1 + draw.below(5)
        if draw.chance(0.27 * richness) and not phrase.ordinal:
            self.modify(phrase)
        return phrase

    def _can_count(self, noun: Noun) -> bool:
        return bool(noun.counter) and (noun.form == "count" or bool(noun.unit))

    def _count(self) -> int:
        return 1 + self.draw.below(9) if self.world.small or self.draw.chance(0.85) else 10 + self.draw.below(40)

    def owner(self, avoid: tuple[Noun, ...] = ()) -> NounPhrase:
        draw = self.draw
        if self.first_person and draw.chance(0.3):
            return NounPhrase(draw.pick((FIRST, WE)))
        if draw.chance(0.35):
            return NounPhrase(draw.pick((HE, SHE, THEY)))
        noun = draw.pick(self.people)
        return NounPhrase(draw.pick((HE, SHE))) if noun in avoid else self.somebody(noun)

    def add_relative(self, phrase: NounPhrase, avoid: tuple[Noun, ...] = (), main: Verb | None = None) -> bool:
        """Adds a relative clause whose object the noun is, in place of other modifiers; False where no verb fits."""
        if phrase.noun.form not in ("count", "mass", "plural") or phrase.noun.one_of(_PEOPLE):
            return False
        verbs = [
            verb for verb in self.world.acting_on[phrase.noun] if self.domain in verb.domains and verb is not main
        ]
        verbs = [verb for verb in verbs if not verb.ambiguous and "generic" not in verb.flags]
        if not verbs:
            return False
        clause = Clause(verb=self.draw.pick(verbs))
        clause.subject = self.subject_of(clause.verb, avoid)
        clause.subject.relative = None
        if self.draw.chance(0.35):
            clause.time = self.draw.pick(self.world.times["past"])
        elif self.draw.chance(0.25):
            self.add_place(clause)
        phrase.determiner, phrase.owner, phrase.ordinal = "", None, 0
        phrase.number, phrase.counted, phrase.modifier = 1, False, None
        phrase.relative, phrase.gap = clause, "object"
        return True

    # Circumstances

    def time(self, tense: str, point: bool = False) -> Adverbial:
        """A time that goes with past or future; `point` asks for a day, or a day and an hour."""
        draw, small, share = self.draw, self.world.small, self.draw.below(100)
        if share < 20:
            day = quantities.date(draw)
        elif share < 30 and tense == "past" and not point:
            return quantities.year(draw, small)
        elif share < 38 and tense == "past" and not point and not small:
            return quantities.ago(draw)
        else:
            day = draw.pick(self.world.times[tense])
        if not small and draw.chance(0.35 if point else 0.06) and _takes_clock(day):
            return quantities.with_clock(day, quantities.clock(draw))
        return day

    def add_place(self, clause: Clause) -> None:
        places = self.world.places[clause.verb, self.domain]
        if places:
            clause.place = NounPhrase(self.choose(places))
            if clause.place.noun.form == "count" and self.draw.chance(0.08):
                self.modify(clause.place)

    # Clauses

    def subject_of(self, verb: Verb, avoid: tuple[Noun, ...] = (), pronouns: bool = True) -> NounPhrase:
        """A subject that the verb allows, rather one of the article."""
        draw = self.draw
        groups = [noun for noun in self.groups if noun.one_of(verb.subjects) and noun not in avoid]
        if groups and draw.chance(0.5):
            return NounPhrase(draw.pick(groups))
        if "person" in verb.subjects:
            return self.person(pronouns, avoid)
        near = [
            noun for noun in self.people + self.roles + self.elders if noun.one_of(verb.subjects) and noun not in avoid
        ]
        if near and draw.chance(0.7):
            return self.somebody(draw.pick(near))
        doers = self.world.doers[verb, self.domain]
        return self.somebody(draw.pick([noun for noun in doers if noun not in avoid] or doers))

    def action(
        self,
        tense: str = "",
        subject: NounPhrase | None = None,
        simple: bool = False,
        avoid: tuple[Noun, ...] = (),
        pronouns: bool = True,
        needs: set[str] | None = None,
        other_than: Verb | None = None,
    ) -> Clause:
        """A clause about what somebody does.

        Args:
            tense: `past`, `future`, `habit` or `now`; drawn where empty.
            subject: given or drawn.
            simple: no modality, polarity or aspect, and few circumstances.
            avoid: nouns that the subject must not be.
            pronouns: whether the subject may be one.
            needs: flags of which the verb has one.
            other_than: not this verb.

        Raises:
            IndexError: the domain has no such verb.
        """
        draw = self.draw
        tense = tense or draw.weighted(_TENSES)
        verbs = self.world.fitting[self.domain, tense]
        if needs:
            verbs = [verb for verb in verbs if verb.flags & needs]
        if subject is not None:
            verbs = [verb for verb in verbs if subject.noun.one_of(verb.subjects)]
        verb = draw.pick([verb for verb in verbs if verb is not other_than] if other_than else verbs)
        clause = Clause(subject or self.subject_of(verb, avoid, pronouns), verb)
        self._set_argument(clause)
        self._set_tense(clause, tense, simple)
        self._set_circumstances(clause, tense, simple)
        if not simple:
            self._set_mode(clause, tense)
        return clause

    def _set_argument(self, clause: Clause) -> None:
        draw, verb, subject = self.draw, clause.verb, clause.subject.noun
        if verb.particle:
            if verb.objects & {"name", "person"}:
                clause.argument = self._other_person(verb, subject)
            else:
                nouns = self.world.any_arguments[verb]
                noun = draw.pick(nouns) if draw.chance(0.3) else self.choose(self.world.arguments[verb, self.domain])
                if noun is subject:
                    noun = draw.pick(nouns)
                clause.argument = self._as_argument(verb, noun, subject)
        if verb.recipient and ("dative" in verb.flags or draw.chance(0.45)):
            owner = clause.argument.owner
            taken = (subject,) if owner is None else (subject, owner.noun)
            clause.recipient = self.person(pronouns=False, avoid=taken)
            clause.recipient.relative = None
        if "goal" in verb.flags and verb.particle == "에" and not self.world.small and draw.chance(0.3):
            self._add_purpose(clause)

    def _other_person(self, verb: Verb, subject: Noun) -> NounPhrase:
        if verb.objects <= {"name"}:
            return self.somebody(self.draw.pick([noun for noun in self.people if noun is not subject]))
        phrase = self.person(pronouns=False, avoid=(subject,))
        phrase.relative = None
        return phrase

    def _as_argument(self, verb: Verb, noun: Noun, subject: Noun) -> NounPhrase:
        if "goal" in verb.flags or verb.article or "generic" in verb.flags:
            return NounPhrase(noun)
        phrase = self.thing(noun, avoid=(subject,))
        phrase.relative = None
        if (
            phrase.is_plain
            and noun.form == "count"
            and noun.counter
            and not self.world.small
            and self.draw.chance(0.08)
        ):
            other = self.draw.pick(self.world.arguments[verb, self.domain])
            if other is not noun and other.form == "count":
                phrase.joined = NounPhrase(other)
        return phrase

    def _add_purpose(self, clause: Clause) -> None:
        """What one goes to a place for: something that is done there."""
        verbs = self.world.done_at.get(clause.argument.noun, ())
        if verbs:
            clause.purpose = Clause(verb=self.draw.pick(verbs))
            clause.purpose.argument = NounPhrase(self.choose(self.world.arguments[clause.purpose.verb, self.domain]))

    def _set_tense(self, clause: Clause, tense: str, simple: bool) -> None:
        draw, times = self.draw, self.world.times
        clause.tense = "present" if tense in ("habit", "now") else tense
        if "generic" in clause.verb.flags:
            return
        if tense == "habit":
            if draw.chance(0.5):
                clause.frequency = draw.pick(times["frequency"])
            else:
                clause.time = draw.pick(times["habit"])
        elif tense == "now":
            clause.aspect, clause.time = "progressive", draw.pick(times["now"]) if draw.chance(0.6) else None
        elif draw.chance(0.4 if simple else 0.7):
            clause.time = self.time(tense)

    def _set_circumstances(self, clause: Clause, tense: str, simple: bool) -> None:
        draw, verb = self.draw, clause.verb
        scale = 0.5 if simple else 1.0
        if draw.chance(0.45 * scale) and verb.places:
            self.add_place(clause)
        if "with" in verb.flags and draw.chance(0.18 * scale):
            clause.companion = self.person(pronouns=False, avoid=(clause.subject.noun,))
            clause.companion.relative = None
        if verb.manners and draw.chance(0.22 * scale):
            clause.manner = self.world.manners.get(draw.pick(verb.manners))
        if clause.companion is not None and clause.manner is not None and clause.manner.korean in ("혼자", "함께"):
            clause.manner = None
        if tense in ("past", "future") and clause.purpose is None and draw.chance(0.16 * scale):
            self._add_duration(clause)

    def _add_duration(self, clause: Clause) -> None:
        draw, flags = self.draw, clause.verb.flags
        if "years" in flags and (clause.time is None or draw.chance(0.3)):
            clause.time, clause.duration = None, quantities.long_duration(draw, self.world.small)
        elif "long" in flags:
            clause.duration = quantities.short_duration(draw, self.world.small)

    def _set_mode(self, clause: Clause, tense: str) -> None:
        """Negation, modality, aspect or a marker on the subject; at most one of them."""
        draw, verb = self.draw, clause.verb
        willed = clause.subject.noun.one_of(_PEOPLE) and not verb.flags & {"unwilled", "state"}
        point = draw.below(100)
        if tense == "now" or "generic" in verb.flags or clause.frequency is not None:
            return
        if point < 12 and clause.manner is None and clause.duration is None:
            self._negate(clause, tense == "past" and willed)
        elif point < 26 and willed and tense != "habit":
            self._set_modality(clause)
        elif point < 31 and tense == "past" and willed and not self.world.small:
            clause.aspect = draw.pick(("perfect", "experience"))
            clause.time = clause.duration = clause.manner = None
            if clause.aspect == "experience":
                clause.tense, clause.polarity = "present", "long" if draw.chance(0.25) else ""
        elif point < 35 and clause.subject.is_plain:
            clause.subject.marker = draw.pick(("도", "만"))

    def _negate(self, clause: Clause, willed: bool) -> None:
        text = clause.verb.stem.text
        short = not text.endswith("하") and " " not in text and self.draw.chance(0.5)
        if willed and self.draw.chance(0.35):
            clause.polarity = "unable_short" if short else "unable"
        else:
            clause.polarity = "short" if short else "long"

    def _set_modality(self, clause: Clause) -> None:
        draw = self.draw
        modality = draw.weighted(_SMALL_MODALITIES if self.world.small else _MODALITIES)
        flags = clause.verb.flags
        if modality == "enjoy" and "once" in flags or modality == "begin" and not flags & {"long", "years"}:
            modality = "plan"
        if modality == "know_how" and "skill" not in flags:
            modality = "can"
        if modality == "want" and clause.subject.noun not in (FIRST, WE):
            modality = "want_other"
        if modality in ("enjoy", "may", "know_how"):
            clause.tense, clause.time, clause.duration = "present", None, None
        elif modality == "plan" and clause.tense == "future":
            clause.tense = "present"
        elif modality == "decide":
            clause.tense, clause.time, clause.duration = "past", None, None
        elif modality == "begin":
            clause.duration = None
        if modality in ("can", "may", "must") and draw.chance(0.25):
            clause.polarity = "long"
        clause.modality = modality


def _takes_clock(day: Adverbial) -> bool:
    return day.section == "date" or day.korean in ("어제", "내일", "모레", "그저께") or day.korean.endswith("요일에")
