"""Random noun phrases, circumstances and clauses inside one article."""

from __future__ import annotations

from hf_nmt.data.controlled import quantities
from hf_nmt.data.controlled.meaning import Clause, NounPhrase
from hf_nmt.data.controlled.random_choice import Draw, cumulative
from hf_nmt.data.controlled.vocabulary import Adjective, Adverbial, Noun, Verb
from hf_nmt.data.controlled.world import World, split_of

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


I, WE = _pronoun("나", "I"), _pronoun("우리", "we")
HE, SHE, THEY = _pronoun("그", "he"), _pronoun("그녀", "she"), _pronoun("그들", "they")
_MORE, _MUCH_MORE = Adverbial("더", "", "", "degree", True), Adverbial("훨씬 더", "much", "", "degree", True)

_TENSES = cumulative({"past": 0.58, "future": 0.17, "habit": 0.16, "now": 0.09})
_MODALITIES = cumulative({"can": 3, "must": 3, "want": 3, "plan": 2, "decide": 2, "begin": 2, "enjoy": 2, "may": 1, "know_how": 1, "try": 1})
_SMALL_MODALITIES = cumulative({"can": 1, "must": 1, "want": 1})


class Article:
    """What the sentences of one article share: domain, style, people, places and things spoken of."""

    def __init__(self, world: World, domain: str, draw: Draw):
        self.world, self.domain, self.draw = world, domain, draw
        self.style = draw.pick(_STYLES[domain])
        self.people = self._some(world.people, 3)
        self.titles = [title for title in world.titles if domain in title.domains and not world.small]
        self.title = draw.pick(self.titles) if self.titles and draw.chance(0.5) else None
        self.roles = self._some(world.in_class("human", domain), 3)
        self.elders = [noun for noun in world.in_class("elder") if domain in noun.domains]
        self.groups = self._some([noun for noun in world.in_class("group") if domain in noun.domains], 2)
        self.topics = frozenset(self._some([noun for noun in world.nouns if domain in noun.domains], 40))
        self.first_person = self.style != "written" and domain not in ("news",)
        self.keys: list[tuple[str, str]] = []

    def _some(self, items: list, count: int) -> list:
        pool, chosen = list(items), []
        while pool and len(chosen) < count:
            chosen.append(pool.pop(self.draw.below(len(pool))))
        return chosen

    # Splits

    def begin(self) -> None:
        self.keys = []

    def split(self) -> str:
        """The split of the sentence sampled since `begin`: empty where it holds combinations of two held-out splits."""
        held = {split_of(*key) for key in self.keys} - {"train"}
        return "" if len(held) == 2 else (held.pop() if held else "train")

    def _combine(self, word: Verb | Adjective, noun: Noun) -> None:
        if not (isinstance(word, Verb) and word.ambiguous):
            self.keys.append((word.english, noun.english))

    # Noun phrases

    def choose(self, nouns: list[Noun]) -> Noun:
        """A noun, rather one that the article is about."""
        noun = self.draw.pick(nouns)
        if noun not in self.topics and self.draw.chance(0.5):
            noun = self.draw.pick(nouns)
        return noun

    def person(self, pronouns: bool = True, avoid: Noun | None = None) -> NounPhrase:
        """Somebody: a name, a role, an elder or a pronoun."""
        draw, point = self.draw, self.draw.below(100)
        if pronouns and point < 24:
            choices = [HE, SHE, THEY, HE if self.people[0].gender == "he" else SHE]
            if self.first_person:
                choices += [I, I, WE]
            return NounPhrase(draw.pick(choices))
        if point < 62:
            noun = draw.pick(self.people)
            if noun is not avoid:
                return self._named(noun)
        if point < 72 and self.elders:
            noun = draw.pick(self.elders)
            if noun is not avoid:
                return NounPhrase(noun)
        return self._role(avoid)

    def _named(self, noun: Noun) -> NounPhrase:
        if self.title is not None and noun is self.people[0]:
            return NounPhrase(noun, title=self.title)
        return NounPhrase(noun, full_name=not self.world.small and noun is self.people[1])

    def _role(self, avoid: Noun | None = None) -> NounPhrase:
        draw = self.draw
        noun = draw.pick(self.roles)
        if noun is avoid:
            return self._named(self.people[2])
        phrase = NounPhrase(noun)
        point = draw.below(100)
        if point < 22:
            phrase.number = 0
        elif point < 34:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 42 and not self.world.small:
            phrase.determiner = draw.pick(("모든", "여러", "많은"))
        elif point < 52:
            phrase.number, phrase.counted = self._count(), True
        if not phrase.counted and draw.chance(0.2):
            self._modify(phrase)
        return phrase

    def _count(self) -> int:
        draw = self.draw
        if self.world.small:
            return 2 + draw.below(8)
        return 2 + draw.below(11) if draw.chance(0.8) else 13 + draw.below(60)

    def _modify(self, phrase: NounPhrase) -> None:
        adjectives = self.world.describing.get(phrase.noun, ())
        if adjectives and phrase.noun.form in ("count", "mass", "plural"):
            phrase.modifier = self.draw.pick(adjectives)
            self._combine(phrase.modifier, phrase.noun)

    def thing(self, noun: Noun, richness: float = 1.0) -> NounPhrase:
        """A thing, place or event as an argument, with random determiners and modifiers."""
        draw, phrase = self.draw, NounPhrase(noun)
        if noun.form in ("name", "unique", "bare", "pronoun"):
            return self._named(noun) if noun.gender else phrase
        point = draw.below(1000) / 1000 / richness
        if point < 0.10:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 0.17:
            phrase.owner = self.owner()
        elif point < 0.29 and noun.counter and (noun.form == "count" or noun.unit):
            phrase.number, phrase.counted = self._count_of(noun), True
        elif point < 0.33 and not self.world.small and noun.form == "count":
            phrase.determiner = draw.pick(("여러", "모든", "많은"))
        elif point < 0.40 and noun.one_of(frozenset({"human"})):
            phrase.number = 0
        if draw.chance(0.28 * richness):
            self._modify(phrase)
        return phrase

    def _count_of(self, noun: Noun) -> int:
        return 1 + self.draw.below(9) if self.world.small or self.draw.chance(0.85) else 10 + self.draw.below(40)

    def owner(self) -> NounPhrase:
        if self.first_person and self.draw.chance(0.3):
            return NounPhrase(self.draw.pick((I, WE)))
        if self.draw.chance(0.35):
            return NounPhrase(self.draw.pick((HE, SHE, THEY)))
        return self._named(self.draw.pick(self.people[1:]))

    def with_relative(self, phrase: NounPhrase, avoid: Noun | None, main: Verb | None = None) -> bool:
        """Adds a relative clause whose object the noun is; False where no verb fits."""
        verbs = [verb for verb in self.world.acting_on.get(phrase.noun, ()) if not verb.ambiguous and "generic" not in verb.flags and verb is not main]
        if not verbs or phrase.noun.form not in ("count", "mass", "plural"):
            return False
        verb = self.draw.pick(verbs)
        clause = Clause(subject=self.person(avoid=avoid), verb=verb)
        self._combine(verb, phrase.noun)
        if self.draw.chance(0.35):
            clause.time = self.draw.pick(self.world.times["past"])
        elif self.draw.chance(0.25):
            self._place(clause)
        phrase.determiner, phrase.owner, phrase.number, phrase.counted, phrase.modifier = "", None, 1, False, None
        phrase.relative, phrase.gap = clause, "object"
        return True

    # Circumstances

    def time(self, tense: str, point: bool = False) -> Adverbial:
        """A time that goes with past or future; `point` asks for a day or an hour."""
        draw, small = self.draw, self.world.small
        share = draw.below(100)
        if share < 20:
            day = quantities.date(draw)
        elif share < 30 and tense == "past" and not point:
            return quantities.year(draw, small)
        elif share < 38 and tense == "past" and not point and not small:
            return quantities.ago(draw)
        else:
            day = draw.pick(self.world.times[tense])
        if not small and draw.chance(0.3 if point else 0.06) and _takes_clock(day):
            return quantities.with_clock(day, quantities.clock(draw, small))
        return day

    def _place(self, clause: Clause) -> None:
        places = self.world.places.get((clause.verb, self.domain))
        if places:
            noun = self.choose(places)
            clause.place = NounPhrase(noun)
            if noun.form == "count" and self.draw.chance(0.1):
                self._modify(clause.place)
            if clause.argument is None:
                self._combine(clause.verb, noun)

    # Clauses

    def subject_of(self, verb: Verb, avoid: Noun | None = None, pronouns: bool = True) -> NounPhrase:
        """A subject that the verb allows."""
        if "group" in verb.subjects and self.groups and (self.draw.chance(0.55) or "person" not in verb.subjects):
            return NounPhrase(self.draw.pick(self.groups))
        if "person" in verb.subjects:
            return self.person(pronouns, avoid)
        nouns = [noun for noun in self.world.nouns if noun.one_of(verb.subjects)]
        return NounPhrase(self.draw.pick(nouns))

    def action(self, tense: str = "", subject: NounPhrase | None = None, simple: bool = False, avoid: Noun | None = None,
               pronouns: bool = True) -> Clause:  # fmt: skip
        """A clause about what somebody does.

        Args:
            tense: `past`, `future`, `habit`, `now` or `present`; drawn where empty.
            subject: given or drawn; a given one must be a person.
            simple: no modality, polarity or aspect, and few circumstances.
            avoid: a noun that is in use already.
        """
        draw = self.draw
        tense = tense or draw.weighted(_TENSES)
        while True:
            verb = draw.pick(self.world.actions[self.domain])
            if self._fits(verb, tense) and (subject is None or "person" in verb.subjects):
                break
        clause = Clause(verb=verb)
        clause.subject = subject or self.subject_of(verb, avoid, pronouns)
        self._set_argument(clause)
        self._set_tense(clause, tense, simple)
        self._set_circumstances(clause, tense, simple)
        if not simple:
            self._set_mode(clause, tense)
        return clause

    @staticmethod
    def _fits(verb: Verb, tense: str) -> bool:
        if tense == "habit":
            return not verb.flags & {"once", "state"}
        if tense == "now":
            return not verb.flags & {"once", "state", "unwilled"}
        if tense == "future":
            return "unwilled" not in verb.flags and "generic" not in verb.flags
        return "generic" not in verb.flags or tense == "present"

    def _set_argument(self, clause: Clause) -> None:
        verb = clause.verb
        if verb.particle:
            nouns = self.world.arguments[verb, self.domain]
            if "name" in verb.objects or "person" in verb.objects:
                clause.argument = self.person(pronouns=False, avoid=clause.subject.noun)
                if clause.argument.noun.form == "name":
                    self._combine(verb, clause.argument.noun)
            else:
                noun = self.choose(nouns)
                self._combine(verb, noun)
                plain = "goal" in verb.flags or verb.article or "generic" in verb.flags
                clause.argument = NounPhrase(noun) if plain else self.thing(noun)
        if verb.recipient and (self.draw.chance(0.45) or "dative" in verb.flags):
            clause.recipient = self.person(pronouns=False, avoid=clause.subject.noun)

    def _set_tense(self, clause: Clause, tense: str, simple: bool) -> None:
        draw, times = self.draw, self.world.times
        clause.tense = {"habit": "present", "now": "present"}.get(tense, tense)
        if tense == "habit":
            if draw.chance(0.5):
                clause.frequency = draw.pick(times["frequency"])
            else:
                clause.time = draw.pick(times["habit"])
        elif tense == "now":
            clause.aspect, clause.time = "progressive", draw.pick(times["now"]) if draw.chance(0.6) else None
        elif tense in ("past", "future") and draw.chance(0.4 if simple else 0.7):
            clause.time = self.time(tense)

    def _set_circumstances(self, clause: Clause, tense: str, simple: bool) -> None:
        draw, verb = self.draw, clause.verb
        scale = 0.5 if simple else 1.0
        if draw.chance(0.45 * scale) and verb.places:
            self._place(clause)
        if "with" in verb.flags and draw.chance(0.18 * scale):
            clause.companion = self.person(pronouns=False, avoid=clause.subject.noun)
        if verb.manners and draw.chance(0.22 * scale):
            clause.manner = self.world.manners.get(draw.pick(verb.manners))
        if "long" in verb.flags and tense in ("past", "future") and draw.chance(0.16 * scale):
            clause.duration = quantities.duration(draw, self.world.small)

    def _set_mode(self, clause: Clause, tense: str) -> None:
        draw, verb = self.draw, clause.verb
        person = clause.subject.noun.one_of(frozenset({"human", "name", "elder", "person"}))
        willed = person and not verb.flags & {"unwilled", "state"}
        point = draw.below(100)
        if tense == "now" or clause.frequency is not None and point >= 12:
            return
        if point < 12 and clause.manner is None and clause.duration is None:
            clause.polarity = "ji" if verb.stem.text.endswith("하") or draw.chance(0.5) else "an"
            if tense == "past" and willed and draw.chance(0.3):
                clause.polarity = "mot" if clause.polarity == "ji" else "mot_short"
        elif point < 26 and willed and tense != "habit":
            self._set_modality(clause)
        elif point < 31 and tense == "past" and willed and not self.world.small:
            clause.aspect = draw.pick(("perfect", "experience"))
            clause.time = clause.duration = clause.manner = None
        elif point < 35 and not clause.subject.determiner and not clause.subject.counted:
            clause.subject.marker = draw.pick(("도", "만"))

    def _set_modality(self, clause: Clause) -> None:
        draw = self.draw
        modality = draw.weighted(_SMALL_MODALITIES if self.world.small else _MODALITIES)
        if modality == "want" and clause.subject.noun not in (I, WE):
            modality = "want_other"
        if modality in ("enjoy", "may", "know_how"):
            clause.tense, clause.time, clause.duration = "present", None, None
        if modality == "plan":
            clause.tense = "present" if clause.tense == "future" else clause.tense
        if modality == "decide":
            clause.tense, clause.time, clause.duration = "past", None, None
        if modality == "begin":
            clause.duration = None
        if modality in ("can", "may", "must") and draw.chance(0.25):
            clause.polarity = "ji"
        clause.modality = modality


def _takes_clock(day: Adverbial) -> bool:
    return day.section == "date" or day.korean in ("어제", "내일", "모레", "그저께") or day.korean.endswith("요일에")
