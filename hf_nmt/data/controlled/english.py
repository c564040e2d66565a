"""From meaning to English text and its variants."""

from __future__ import annotations

from collections.abc import Callable

from hf_nmt.data.controlled.english_morphology import (
    comparison,
    gerund,
    past_participle,
    past_tense,
    plural,
    third_person,
)
from hf_nmt.data.controlled.english_phrases import Part, person_of, simple_phrase, synonym
from hf_nmt.data.controlled.meaning import (
    Clause,
    Existence,
    Judgment,
    Link,
    NounPhrase,
    Report,
    Seeming,
    Sentence,
)

MAX_REFERENCES = 4
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "will not": "won't", "cannot": "can't",
    "could not": "couldn't", "would not": "wouldn't", "is not": "isn't", "are not": "aren't", "was not": "wasn't",
    "were not": "weren't", "has not": "hasn't", "have not": "haven't", "had not": "hadn't",
}  # fmt: skip
# The verb that takes tense, and how the main verb follows it.
_MODALITIES = {
    "must": ("have", "to"), "want": ("want", "to"), "want_other": ("want", "to"), "plan": ("plan", "to"),
    "decide": ("decide", "to"), "begin": ("begin", "to"), "enjoy": ("like", "-ing"), "know_how": ("know", "how to"),
    "try": ("try", "to"), "may": ("be", "allowed to"),
}  # fmt: skip
_MODAL_SYNONYMS = {"begin": "start", "plan": "intend", "must": "need", "enjoy": "enjoy"}
_CONJUNCTIONS = {
    "because": "because", "because_of": "because", "since": "since", "if": "if", "when": "when", "before": "before",
    "after": "after", "as_soon_as": "as soon as", "until": "until", "although": "although",
}  # fmt: skip
_OTHER_CONJUNCTIONS = {"because": "since", "because_of": "since", "since": "as", "although": "though"}
_BACKSHIFTED = {"past": "pluperfect", "present": "past", "future": "would"}
_ASKED = {"object": "what", "place": "where", "time": "when", "reason": "why"}


def noun_phrase(phrase: NounPhrase, role: str) -> list[Part]:
    """A noun phrase with all that belongs to it; roles as in `simple_phrase`."""
    parts = simple_phrase(phrase, role)
    if phrase.relative is not None:
        parts = [*parts, *_relative(phrase)]
    if phrase.joined is not None:
        parts = [*parts, "and", *simple_phrase(phrase.joined, role)]
    return parts


def _relative(phrase: NounPhrase) -> list[Part]:
    clause = phrase.relative
    if phrase.gap == "object":
        return [("relative", ["that"], []), *_statement(clause, clause.tense)]
    return ["who", *_verb_phrase(clause, clause.tense, "plural" if person_of(phrase) == "plural" else "third")]


# Verbs


def _be(tense: str, person: str) -> str:
    if tense == "past":
        return "were" if person == "plural" else "was"
    return {"first": "am", "third": "is", "plural": "are"}[person]


def _inflected(verb: str, tense: str, person: str) -> str:
    if verb.startswith("be "):
        return _be(tense, person) + verb[2:]
    if tense == "past":
        return past_tense(verb)
    return third_person(verb) if person == "third" else verb


def _form(form: Callable[[str], str], verb: str, other: str) -> Part:
    return synonym(form(verb), other and form(other))


def _head(clause: Clause) -> tuple[str, list[Part], str]:
    """The verb that takes tense, what follows it, and its synonym."""
    if clause.verb is None:
        return "be", _complement(clause), ""
    verb, other = clause.verb.english, clause.verb.synonym
    after: list[Part] = []
    if clause.passive:
        verb, other, after = "be", "", [past_participle(verb)]
    if clause.modality == "can":
        return "can", [synonym(verb, other), *after], ""
    if clause.modality:
        lead, link = _MODALITIES[clause.modality]
        following = [_form(gerund, verb, other)] if link == "-ing" else [link, synonym(verb, other)]
        return lead, [*following, *after], _MODAL_SYNONYMS.get(clause.modality, "")
    if clause.aspect == "progressive":
        return "be", [_form(gerund, verb, other), *after], ""
    if clause.aspect:
        return "have", [_form(past_participle, verb, other), *after], ""
    return verb, after, other


def _complement(clause: Clause) -> list[Part]:
    """What follows be: a noun phrase, an amount, or an adjective with degree or comparison."""
    identity, adjective = clause.identity, clause.adjective
    if identity is not None:
        return noun_phrase(identity, "predicate") if isinstance(identity, NounPhrase) else [identity.english]
    degree = [clause.degree.english] if clause.degree is not None and clause.degree.english else []
    if clause.than is not None:
        return [*degree, comparison(adjective.english)[0], "than", *noun_phrase(clause.than, "standard")]
    if clause.superlative is not None:
        return ["the", comparison(adjective.english)[1], "of", *noun_phrase(clause.superlative, "object")]
    return [*degree, synonym(adjective.english, adjective.synonym)]


def _verb_group(clause: Clause, tense: str, person: str, question: bool = False) -> tuple[list[Part], list[Part]]:
    """The auxiliary with its negation (empty where there is none), and the rest of the verb."""
    head, after, other = _head(clause)
    if clause.polarity.startswith("unable") and head != "can":
        head, after, other = "can", [synonym(head, other), *after], ""
    auxiliary, following = _auxiliary(head, other, tense, person, bool(clause.aspect))
    if not auxiliary and (clause.polarity or question):
        auxiliary = "did" if tense == "past" else ("does" if person == "third" else "do")
        following = [synonym(head, other)]
    elif not auxiliary:
        following = [synonym(_inflected(head, tense, person), other and _inflected(other, tense, person))]
    middle: list[Part] = []
    if clause.subject is not None and clause.subject.marker == "도":
        middle.append("also")
    if clause.aspect == "perfect":
        middle.append("already")
    if clause.frequency is not None:
        middle.append(synonym(clause.frequency.english, clause.frequency.synonym))
    return _negated(auxiliary, clause), [*middle, *following, *after]


def _auxiliary(head: str, other: str, tense: str, person: str, perfect: bool) -> tuple[str, list[Part]]:
    """The auxiliary that head and tense bring with them, and the form of the head after it."""
    if head == "can":
        if tense in ("past", "present"):
            return ("could" if tense == "past" else "can"), []
        return {"future": "will", "would": "would", "pluperfect": "had"}[tense], [
            "been able to" if tense == "pluperfect" else "be able to"
        ]
    if tense in ("future", "would"):
        return ("will" if tense == "future" else "would"), [synonym(head, other)]
    if tense == "pluperfect":
        return "had", [] if perfect and head == "have" else [_form(past_participle, head, other)]
    if head == "be":
        return _be(tense, person), []
    if head == "have" and perfect:
        return ("has" if person == "third" else "have"), []
    return "", []


def _negated(auxiliary: str, clause: Clause) -> list[Part]:
    if not clause.polarity:
        return [auxiliary] if auxiliary else []
    if clause.aspect == "experience":
        return [auxiliary, "never"]
    full = "cannot" if auxiliary == "can" else f"{auxiliary} not"
    short = _CONTRACTIONS.get(full)
    return [("contraction", [full], [short])] if short else [full]


# Clauses


def _circumstances(clause: Clause, with_time: bool = True) -> list[Part]:
    """Everything after the verb."""
    parts: list[Part] = _arguments(clause) if clause.verb is not None else []
    if clause.amount is not None:
        parts.append(clause.amount.english)
    if clause.manner is not None:
        parts.append(synonym(clause.manner.english, clause.manner.synonym))
    if clause.companion is not None:
        parts += ["with", *noun_phrase(clause.companion, "object")]
    if clause.place is not None:
        parts += _place(clause.place)
    if clause.purpose is not None:
        parts += ["to", *_bare_phrase(clause.purpose)]
    if clause.duration is not None:
        parts.append(clause.duration.english)
    if clause.time is not None and with_time:
        parts.append(clause.time.english)
    return parts


def _arguments(clause: Clause) -> list[Part]:
    verb, phrase = clause.verb, clause.argument
    argument: list[Part] = []
    if phrase is not None:
        if "goal" in verb.flags:
            return _goal(phrase, verb.preposition)
        role = "subject" if verb.article == "the" and phrase.is_plain else "object"
        argument = noun_phrase(phrase, role)
        if verb.preposition:
            argument = [verb.preposition, *argument]
    if clause.recipient is None:
        return argument
    recipient = noun_phrase(clause.recipient, "object")
    if "dative" in verb.flags:
        preposition = "for" if "for" in verb.flags else "to"
        return [("dative", [*recipient, *argument], [*argument, preposition, *recipient])]
    return [*argument, verb.recipient, *recipient]


def _goal(phrase: NounPhrase, preposition: str) -> list[Part]:
    """The place that one goes to: home takes no preposition, and some places no article."""
    noun = phrase.noun
    if not phrase.is_plain:
        return [preposition, *noun_phrase(phrase, "object")]
    fixed = noun.to_phrase if preposition == "to" or noun.to_phrase == "home" else noun.at_phrase
    return [fixed] if fixed else [preposition, *noun_phrase(phrase, "subject")]


def _place(phrase: NounPhrase) -> list[Part]:
    noun = phrase.noun
    if noun.at_phrase and phrase.is_plain:
        return [noun.at_phrase]
    return [noun.preposition, *noun_phrase(phrase, "subject" if phrase.is_plain else "object")]


def _bare_phrase(clause: Clause) -> list[Part]:
    """The verb phrase in the bare infinitive."""
    head, after, other = _head(clause)
    return [synonym(head, other), *after, *_circumstances(clause)]


def _gerund_phrase(clause: Clause) -> list[Part]:
    head, after, other = _head(clause)
    return [_form(gerund, head, other), *after, *_circumstances(clause)]


def _verb_phrase(clause: Clause, tense: str, person: str, with_time: bool = True) -> list[Part]:
    """Auxiliary, verb and what follows, without the subject."""
    auxiliary, rest = _verb_group(clause, tense, person)
    return [*auxiliary, *rest, *_circumstances(clause, with_time)]


def _subject(clause: Clause) -> list[Part]:
    return ["it"] if clause.subject is None else noun_phrase(clause.subject, "subject")


def _statement(clause: Clause, tense: str, with_time: bool = True) -> list[Part]:
    return [*_subject(clause), *_verb_phrase(clause, tense, person_of(clause.subject), with_time)]


def _question(clause: Clause, asked: str) -> list[Part]:
    if asked == "subject":
        return ["who", *_verb_phrase(clause, clause.tense, "third")]
    auxiliary, rest = _verb_group(clause, clause.tense, person_of(clause.subject), question=True)
    words: list[Part] = [_ASKED[asked]] if asked in _ASKED else []
    argument = clause.argument
    if asked == "count":
        words = [
            "how many",
            synonym(plural(argument.noun.english), argument.noun.synonym and plural(argument.noun.synonym)),
        ]
        clause.argument = None
    circumstances = _circumstances(clause)
    clause.argument = argument
    return [*words, *auxiliary, *_subject(clause), *rest, *circumstances]


def _main(clause: Clause) -> list[Part]:
    """A statement that stands alone. Its time stands last, or first where a relative clause would claim it."""
    if clause.time is None:
        return _with_passive(clause)
    adverb = clause.time.english
    if clause.argument is not None and clause.argument.relative is not None:
        return [adverb, ",", *_statement(clause, clause.tense, with_time=False)]
    return [("time", [], [adverb, ","]), *_with_passive(clause), ("time", [adverb], [])]


def _with_passive(clause: Clause) -> list[Part]:
    active = _statement(clause, clause.tense, with_time=False)
    if not _has_passive(clause):
        return active
    passive = Clause(subject=clause.argument, verb=clause.verb, passive=True, place=clause.place)
    auxiliary, rest = _verb_group(passive, clause.tense, person_of(clause.argument))
    agent = ["by", *noun_phrase(clause.subject, "subject")]
    patient = noun_phrase(clause.argument, "object")
    place = _place(clause.place) if clause.place is not None else []
    return [("passive", active, [*patient, *auxiliary, *rest, *agent, *place])]


def _has_passive(clause: Clause) -> bool:
    verb = clause.verb
    marked = clause.passive or clause.polarity or clause.modality or clause.aspect
    crowded = clause.frequency or clause.manner or clause.companion or clause.recipient or clause.duration
    if (
        marked
        or crowded
        or clause.purpose
        or verb is None
        or "passive" not in verb.flags
        or verb.particle != "을"
        or clause.argument is None
    ):
        return False
    return clause.argument.relative is None and clause.subject.noun.form != "pronoun" and not clause.subject.marker


# Sentences


def _same(clause: Clause) -> str:
    return clause.tense


def _link(link: Link, tense_of: Callable[[Clause], str] = _same) -> list[Part]:
    sub, main, relation = link.subordinate, link.main, link.relation
    if relation in ("but", "and"):
        first = sub.with_subject(main.subject) if link.shares_subject else sub
        second = _statement(main, tense_of(main))
        if link.shares_subject:
            return [*_statement(first, tense_of(first)), relation, *second[len(_subject(main)) :]]
        return [*_statement(first, tense_of(first)), ",", relation, *second]
    main_parts = _statement(main, tense_of(main))
    if relation == "purpose":
        return [*main_parts, ("purpose", ["to"], ["in order to"]), *_bare_phrase(sub)]
    if link.shares_subject and relation in ("before", "after", "while"):
        phrase = [relation, *_gerund_phrase(sub)]
        return [("order", [], [*phrase, ","]), *main_parts, ("order", phrase, [])]
    other = _OTHER_CONJUNCTIONS.get(relation)
    conjunction = _CONJUNCTIONS[relation]
    first = sub.with_subject(main.subject) if link.shares_subject else sub
    phrase = [
        ("conjunction", [conjunction], [other]) if other else conjunction,
        *_statement(first, _subordinate_tense(link, tense_of)),
    ]
    return [("order", [*phrase, ","], []), *main_parts, ("order", [], phrase)]


def _subordinate_tense(link: Link, tense_of: Callable[[Clause], str]) -> str:
    """The tense of a subordinate clause: the present for the future, the simple past in indirect speech."""
    sub, main = link.subordinate, link.main
    if link.relation in ("because", "because_of", "since", "although"):
        return tense_of(sub)
    if main.tense == "future":
        return "past" if tense_of(main) == "would" else "present"
    return "past" if main.tense == "past" else sub.tense


def _report(report: Report) -> list[Part]:
    def tense_of(clause: Clause) -> str:
        return _BACKSHIFTED[clause.tense] if report.tense == "past" else clause.tense

    polarity = "lexical" if "negative" in report.verb.flags else ""
    said = _statement(
        Clause(subject=report.subject, verb=report.verb, tense=report.tense, polarity=polarity), report.tense
    )
    content = report.content
    inner = _link(content, tense_of) if isinstance(content, Link) else _statement(content, tense_of(content))
    # Before a second conjunction, that is kept.
    conjunction: Part = "that" if isinstance(content, Link) else ("that", ["that"], [])
    if report.asked == "whether":
        conjunction = ("whether", ["whether"], ["if"])
    elif report.asked:
        conjunction = report.asked
    if report.time is None:
        return [*said, conjunction, *inner]
    adverb = report.time.english
    return [("time", [], [adverb, ","]), *said, ("time", [adverb], []), conjunction, *inner]


def _existence(content: Existence, mood: str) -> list[Part]:
    verb = _be(content.tense, person_of(content.thing))
    where = [content.position.english, *noun_phrase(content.place, "subject")]
    thing = noun_phrase(content.thing, "object")
    if mood == "question":
        return [verb, "there", *thing, *where]
    if content.absent:
        return ["there", ("contraction", [f"{verb} not"], [_CONTRACTIONS[f"{verb} not"]]), *thing, *where]
    return [("order", ["there", verb, *thing, *where], [*where, "there", verb, *thing])]


def _judgment(content: Judgment) -> list[Part]:
    be = _be(content.tense, "third")
    adjective = content.adjective.english
    impersonal = ["it", be, adjective, "to", *_bare_phrase(content.action)]
    return [("order", impersonal, [*_gerund_phrase(content.action), be, adjective])]


def _parts(sentence: Sentence) -> list[Part]:
    content, mood = sentence.content, sentence.mood
    if isinstance(content, Report):
        return _report(content)
    if isinstance(content, Link):
        return _link(content)
    if isinstance(content, Existence):
        return _existence(content, mood)
    if isinstance(content, Seeming):
        return ["it seems", ("that", ["that"], []), *_statement(content.content, content.content.tense)]
    if isinstance(content, Judgment):
        return _judgment(content)
    if mood == "question":
        return _question(content, sentence.asked)
    if mood == "request":
        # The plain imperative is blunt.
        return _bare_phrase(content) if sentence.style == "plain" else ["please", *_bare_phrase(content)]
    if mood == "proposal":
        return ["let's", *_bare_phrase(content)]
    return _main(content)


def realize(sentence: Sentence) -> list[str]:
    """The English text of a sentence: the canonical one first, then up to three that say the same."""
    parts = _parts(sentence)
    if sentence.opener is not None:
        parts = [sentence.opener.english, ",", *parts]
    end = "?" if sentence.mood == "question" else "."
    labels: list[str] = []
    texts = [_spell(parts, "", labels, end)]
    for label in labels:
        text = _spell(parts, label, None, end)
        if text not in texts and " that that " not in text:
            texts.append(text)
        if len(texts) == MAX_REFERENCES:
            break
    return texts


def _spell(parts: list[Part], label: str, labels: list[str] | None, end: str) -> str:
    words: list[str] = []
    _flatten(parts, label, labels, words)
    text = " ".join(words).replace(" ,", ",")
    if text.endswith("."):
        end = end.removeprefix(".")
    return text[0].upper() + text[1:] + end


def _flatten(parts: list[Part], label: str, labels: list[str] | None, words: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            words.append(part)
            continue
        name, usual, other = part
        if labels is not None and name not in labels:
            labels.append(name)
        _flatten(other if name == label else usual, label, labels, words)
