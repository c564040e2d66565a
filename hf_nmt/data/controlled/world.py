"""Which words go together: the vocabulary of one size, indexed for sampling."""

from __future__ import annotations

from functools import lru_cache

from hf_nmt.data.controlled.vocabulary import DOMAINS, Adjective, Noun, Verb, vocabulary

_SPECIAL_SECTIONS = frozenset({"change", "event", "happening", "failure", "weather", "report", "inquiry"})

_FEW = 6


def _fits(verb: Verb, tense: str) -> bool:
    """Whether a verb goes with a habit, with what happens now, with the past or the future."""
    if "generic" in verb.flags:
        return tense in ("habit", "past")
    if tense == "habit":
        return not verb.flags & {"once", "state"}
    if tense == "now":
        return not verb.flags & {"once", "state", "unwilled"}
    return tense == "past" or "unwilled" not in verb.flags


class World:
    """The words of one size.

    Attributes:
        actions: for each domain, the verbs that a person or group may be the subject of.
        fitting: for each domain and tense, those of them that go with it.
        arguments: for each verb and domain, the nouns that its argument may be; any_arguments: of all domains.
        places: for each verb and domain, the nouns that name where it is done.
        doers: for each verb and domain, the nouns that its subject may be, people by name aside.
        describing, predicated: for each noun, the adjectives that may stand before it, and be said of it.
        acting_on: for each noun, the verbs that take it as their object (for relative clauses).
        seldom: English words that combine with few others; held out, they might never be seen in training.
        done_at: for each place, the verbs with an object that are done there of free will.
    """

    def __init__(self, size: str):
        words = vocabulary()
        self.small = size == "tiny"
        self.nouns = [noun for noun in words.nouns if noun.small or not self.small]
        self.people = [noun for noun in words.people if noun.small or not self.small]
        self.titles = words.titles
        self.verbs = [verb for verb in words.verbs if verb.small or not self.small]
        self.adjectives = [word for word in words.adjectives if word.small or not self.small]
        self.times: dict[str, list] = {}
        for time in words.times:
            if time.small or not self.small:
                self.times.setdefault(time.section, []).append(time)
        self.degrees = [word for word in words.degrees if word.small or not self.small]
        self.manners = {key: word for key, word in words.manners.items() if word.small or not self.small}
        self.change_degrees = words.change_degrees
        self._index()

    def _index(self) -> None:
        self.actions = {domain: self._verbs_of(domain) for domain in DOMAINS}
        self.fitting = {
            (domain, tense): [verb for verb in verbs if _fits(verb, tense)]
            for domain, verbs in self.actions.items()
            for tense in ("past", "future", "habit", "now")
        }
        self.by_section: dict[str, list[Verb]] = {}
        for verb in self.verbs:
            for section in verb.flags & _SPECIAL_SECTIONS:
                self.by_section.setdefault(section, []).append(verb)
        self.arguments: dict[tuple[Verb, str], list[Noun]] = {}
        self.any_arguments: dict[Verb, list[Noun]] = {}
        self.places: dict[tuple[Verb, str], list[Noun]] = {}
        self.doers: dict[tuple[Verb, str], list[Noun]] = {}
        for verb in self.verbs:
            for domain in DOMAINS:
                self.arguments[verb, domain] = self._of_classes(verb.objects, domain)
                self.any_arguments[verb] = self._of_classes(verb.objects, "")
                self.places[verb, domain] = self._of_classes(verb.places, domain)
                self.doers[verb, domain] = self._of_classes(verb.subjects, domain)
        self.describing: dict[Noun, list[Adjective]] = {
            noun: [word for word in self.adjectives if noun.one_of(word.of) and "not_before" not in word.flags]
            for noun in self.nouns + self.people
        }
        self.predicated: dict[Noun, list[Adjective]] = {
            noun: [word for word in self.adjectives if noun.one_of(word.of) and "before" not in word.flags]
            for noun in self.nouns + self.people
        }
        transitive = [
            verb for verb in self.verbs
            if verb.particle == "을" and not verb.recipient and not verb.flags & _SPECIAL_SECTIONS
            and self._has_words(verb)
        ]  # fmt: skip
        self.acting_on = {noun: [verb for verb in transitive if noun.one_of(verb.objects)] for noun in self.nouns}
        free = [verb for verb in transitive if not verb.flags & {"unwilled", "generic"} and "person" in verb.subjects]
        self.done_at = {
            noun: [verb for verb in free if noun.one_of(verb.places) and "person" not in verb.objects]
            for noun in self.nouns
        }
        self.of_class: dict[str, list[Noun]] = {}
        for noun in self.nouns:
            for name in sorted(noun.classes):
                self.of_class.setdefault(name, []).append(noun)

        self.describable = {
            domain: [noun for noun in self.nouns if domain in noun.domains and self.predicated[noun]]
            for domain in DOMAINS
        }
        self.rivals = {
            noun: [other for other in self.nouns if other is not noun and other.form == "count"
                   and not other.classes.isdisjoint(noun.classes)]
            for noun in self.nouns
        }  # fmt: skip
        self.seldom = self._seldom()
        self.holders = [noun for noun in self.nouns if noun.holds]
        self.held = {noun: self._of_classes(noun.holds, "") for noun in self.holders}
        self.passives = {
            domain: [verb for verb in verbs if "passive" in verb.flags and verb.stem.text.endswith("하")]
            for domain, verbs in self.actions.items()
        }

    def _seldom(self) -> frozenset[str]:
        """English words that combine with few others."""
        partners: dict[str, set[str]] = {}
        pairs = [(verb.english, noun.english) for verb in self.verbs for noun in self.any_arguments[verb]]
        pairs += [
            (verb.english, noun.english)
            for verb in self.verbs
            for noun in self._of_classes(verb.places, "")
            if not verb.particle
        ]
        pairs += [(word.english, noun.english) for noun in self.nouns for word in self.describing[noun]]
        for first, second in pairs:
            partners.setdefault(first, set()).add(second)
            partners.setdefault(second, set()).add(first)
        return frozenset(word for word, others in partners.items() if len(others) < _FEW)

    def _verbs_of(self, domain: str) -> list[Verb]:
        return [
            verb for verb in self.verbs
            if domain in verb.domains and not verb.flags & _SPECIAL_SECTIONS and self._has_words(verb)
        ]  # fmt: skip

    def _has_words(self, verb: Verb) -> bool:
        """Whether this size has a subject and an argument for the verb."""
        known = self.nouns + self.people
        return any(noun.one_of(verb.subjects) for noun in known) and (
            not verb.particle or any(noun.one_of(verb.objects) for noun in known)
        )

    def _of_classes(self, classes: frozenset[str], domain: str) -> list[Noun]:
        """Nouns of any of the classes: those of the domain where there are any, else all."""
        found = [noun for noun in self.nouns if noun.one_of(classes)] or [
            noun for noun in self.people if noun.one_of(classes)
        ]
        near = [noun for noun in found if domain in noun.domains]
        return near or found

    def in_class(self, name: str, domain: str = "") -> list[Noun]:
        found = self.of_class.get(name, [])
        return [noun for noun in found if domain in noun.domains] or found if domain else found


@lru_cache(maxsize=2)
def world(size: str) -> World:
    return World(size)
