"""From meaning to English text and its variants.

A realisation is a list of parts: words, or a choice `(label, usual, other)` between two lists of parts. The canonical
sentence takes `usual` everywhere; for each label, the sentence that takes `other` at all places of that label is a
further reference.
"""

from __future__ import annotations

from hf_nmt.data.controlled.english_morphology import (
    comparison,
    gerund,
    indefinite,
    number_words,
    past_participle,
    past_tense,
    plural,
    third_person,
)
from hf_nmt.data.controlled.meaning import Clause, Existence, Link, NounPhrase, Report, Sentence

Part = str | tuple[str, list, list]

MAX_REFERENCES = 4
_OBJECT_PRONOUNS = {"I": "me", "he": "him", "she": "her", "they": "them", "we": "us"}
_POSSESSIVES = {"I": "my", "he": "his", "she": "her", "they": "their", "we": "our"}
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "will not": "won't", "cannot": "can't",
    "could not": "couldn't", "would not": "wouldn't", "is not": "isn't", "are not": "aren't", "was not": "wasn't",
    "were not": "weren't", "has not": "hasn't", "have not": "haven't", "had not": "hadn't",
}  # fmt: skip
# Head verb and the form of the verb after it.
_MODALITIES = {
    "must": ("have", "to"), "want": ("want", "to"), "want_other": ("want", "to"), "plan": ("plan", "to"),
    "decide": ("decide", "to"), "begin": ("begin", "to"), "enjoy": ("like", "ing"), "know_how": ("know how", "to"),
    "try": ("try", "to"), "may": ("be", "allowed to"),
}  # fmt: skip
_MODAL_SYNONYMS = {"begin": "start", "plan": "intend", "must": "need", "enjoy": "enjoy"}
_BEFORE = {"because": "because", "because_of": "because", "since": "since", "if": "if", "when": "when",
           "before": "before", "after": "after", "as_soon_as": "as soon as", "until": "until",
           "although": "although"}  # fmt: skip
_OTHER_CONJUNCTION = {"because": "since", "because_of": "since", "although": "though", "since": "as"}


def noun_phrase(phrase: NounPhrase, role: str) -> list[Part]:
    """A noun phrase; `role` is `subject`, `object`, `predicate` or `owner` and decides articles and pronoun forms."""
    noun = phrase.noun
    if noun.form == "pronoun":
        form = {"subject": noun.english, "owner": _POSSESSIVES[noun.english]}.get(role, _OBJECT_PRONOUNS[noun.english])
        return _marked([form], phrase)
    if noun.gender:
        name = f"{noun.family[1]} {noun.english}" if phrase.full_name or phrase.title else noun.english
        if phrase.title:
            name = f"{phrase.title.english} {name}"
        return _marked([_owned(name, role)], phrase)
    usual = _common(phrase, noun.english, phrase.modifier.english if phrase.modifier else "", role)
    synonym = phrase.modifier.synonym if phrase.modifier else ""
    if noun.synonym:
        other = _common(phrase, noun.synonym, phrase.modifier.english if phrase.modifier else "", role)
        parts: list[Part] = [("synonym", usual, other)]
    elif synonym:
        parts = [("synonym", usual, _common(phrase, noun.english, synonym, role))]
    else:
        parts = usual
    if phrase.relative is not None:
        parts = parts + _relative(phrase)
    return _marked(parts, phrase)


def _marked(parts: list[Part], phrase: NounPhrase) -> list[Part]:
    return ["only", *parts] if phrase.marker == "만" else parts


def _owned(text: str, role: str) -> str:
    if role != "owner":
        return text
    return text + ("'" if text.endswith("s") and not text.endswith("ss") else "'s")


def _common(phrase: NounPhrase, head: str, adjective: str, role: str) -> list[Part]:
    noun = phrase.noun
    many = phrase.number != 1 or phrase.determiner in ("모든", "여러", "많은")
    if many and noun.form == "count":
        head = plural(head)
    text = f"{adjective} {head}" if adjective else head
    text = _owned(text, role)
    if phrase.counted:
        return [_counted(phrase, text)]
    if phrase.owner is not None:
        return [*noun_phrase(phrase.owner, "owner"), text]
    if phrase.determiner:
        return _determined(phrase, text, many or noun.form == "plural")
    if noun.form == "name":
        return [text]
    if noun.form == "unique":
        return ["the " + text]
    if noun.form == "bare":
        return ["the " + text if phrase.relative is not None else text]
    if role in ("subject", "owner") or phrase.relative is not None:
        return ["the " + text]
    return [text if many or noun.form in ("mass", "plural") else indefinite(text)]


def _counted(phrase: NounPhrase, text: str) -> str:
    amount = str(phrase.number) if phrase.number >= 30 else number_words(phrase.number)
    unit = phrase.noun.unit
    if not unit:
        return f"{amount} {text}"
    return f"{amount} {unit if phrase.number == 1 else plural(unit)} of {text}"


def _determined(phrase: NounPhrase, text: str, many: bool) -> list[Part]:
    if phrase.determiner == "이":
        return [("these " if many else "this ") + text]
    if phrase.determiner == "그":
        return [("that", ["the"], ["those" if many else "that"]), text]
    return [{"모든": "all the ", "여러": "several ", "많은": "many "}[phrase.determiner] + text]


def _relative(phrase: NounPhrase) -> list[Part]:
    clause = phrase.relative
    if phrase.gap == "object":
        return [("relative", ["that"], []), *_statement(clause, clause.tense)]
    pronoun = "who" if phrase.noun.one_of(frozenset({"human", "elder"})) else "that"
    person = "plural" if _is_plural(phrase) else "third"
    return [pronoun, *_verb_phrase(clause, clause.tense, person)]


def _is_plural(phrase: NounPhrase) -> bool:
    noun = phrase.noun
    if noun.plural and not phrase.counted:
        return True
    if phrase.counted:
        return phrase.number != 1
    return (phrase.number == 0 or phrase.determiner in ("모든", "여러", "많은")) and noun.form in ("count", "mass", "plural")


def person_of(phrase: NounPhrase | None) -> str:
    """What a verb agrees with: `first`, `third` or `plural`."""
    if phrase is None:
        return "third"
    if phrase.noun.english == "I":
        return "first"
    if phrase.noun.english in ("we", "they") or phrase.noun.form == "plural" and not phrase.counted:
        return "plural"
    return "plural" if _is_plural(phrase) else "third"


def _be(tense: str, person: str) -> str:
    if tense == "past":
        return "were" if person == "plural" else "was"
    return {"first": "am", "third": "is", "plural": "are"}[person]


def _head_and_rest(clause: Clause) -> tuple[str, list[Part], str]:
    """The verb that takes tense, what follows it, and its synonym."""
    if clause.verb is None:
        return "be", _complement(clause), ""
    verb = clause.verb
    if clause.passive:
        head, rest, synonym = "be", [past_participle(verb.english)], ""
    else:
        head, rest, synonym = verb.english, [], verb.synonym
    if clause.modality == "can":
        return "can", _bare(head, synonym) + rest, ""
    if clause.modality:
        lead, form = _MODALITIES[clause.modality]
        if form == "ing":
            return lead, [_choice(gerund(head), synonym and gerund(synonym)), *rest], _MODAL_SYNONYMS.get(clause.modality, "")
        return lead, [form, *_bare(head, synonym), *rest], _MODAL_SYNONYMS.get(clause.modality, "")
    if clause.aspect == "progressive":
        return "be", [_choice(gerund(head), synonym and gerund(synonym)), *rest], ""
    if clause.aspect in ("perfect", "experience"):
        return "have", [_choice(past_participle(head), synonym and past_participle(synonym)), *rest], ""
    return head, rest, synonym


def _choice(usual: str, other: str) -> Part:
    return ("synonym", [usual], [other]) if other else usual


def _bare(head: str, synonym: str) -> list[Part]:
    return [_choice(head, synonym)]


def _complement(clause: Clause) -> list[Part]:
    """What follows be: an adjective with degree or comparison, or a noun phrase."""
    if clause.identity is not None:
        identity = clause.identity
        return noun_phrase(identity, "predicate") if isinstance(identity, NounPhrase) else [identity.english]
    adjective = clause.adjective
    if clause.than is not None:
        much = [clause.degree.english] if clause.degree is not None and clause.degree.english else []
        return [*much, comparison(adjective.english)[0], "than", *noun_phrase(clause.than, "subject_of_than")]
    if clause.superlative is not None:
        return ["the", comparison(adjective.english)[1], "of", *noun_phrase(clause.superlative, "object")]
    words: list[Part] = [_choice(adjective.english, adjective.synonym)]
    return [clause.degree.english, *words] if clause.degree is not None else words


def _finite(clause: Clause, tense: str, person: str, question: bool = False) -> tuple[list[Part], list[Part]]:
    """The auxiliary that a question puts before the subject (empty where there is none) and the rest of the verb."""
    head, rest, synonym = _head_and_rest(clause)
    auxiliary, following = "", []
    if head == "can":
        if tense in ("future", "would", "pluperfect"):
            auxiliary = {"future": "will", "would": "would", "pluperfect": "had"}[tense]
            following = ["been able to" if tense == "pluperfect" else "be able to"]
        else:
            auxiliary = "could" if tense == "past" else "can"
    elif tense in ("future", "would"):
        auxiliary = "will" if tense == "future" else "would"
        following = _bare(head, synonym)
    elif tense == "pluperfect":
        auxiliary = "had"
        following = [_choice(past_participle(head), synonym and past_participle(synonym))]
        if head == "have" and clause.aspect:
            following = []
    elif head == "be":
        auxiliary = _be(tense, person)
    elif head == "have" and clause.aspect:
        auxiliary = "had" if tense == "pluperfect" else ("has" if person == "third" else "have")
    elif clause.polarity or question:
        auxiliary = "did" if tense == "past" else ("does" if person == "third" else "do")
        following = _bare(head, synonym)
    else:
        following = [_choice(_inflect(head, tense, person), synonym and _inflect(synonym, tense, person))]
    middle: list[Part] = []
    if clause.subject is not None and clause.subject.marker == "도":
        middle.append("also")
    if clause.aspect == "perfect":
        middle.append("already")
    if clause.frequency is not None:
        middle.append(_choice(clause.frequency.english, clause.frequency.synonym))
    return _with_negation(auxiliary, clause), middle + following + rest


def _with_negation(auxiliary: str, clause: Clause) -> list[Part]:
    if not clause.polarity:
        return [auxiliary] if auxiliary else []
    if clause.aspect == "experience":
        return [auxiliary, "never"]
    full = "cannot" if auxiliary == "can" else f"{auxiliary} not"
    short = _CONTRACTIONS.get(full)
    return [("contraction", [full], [short])] if short else [full]


def _inflect(verb: str, tense: str, person: str) -> str:
    if tense == "past":
        if verb.startswith("be "):
            return _be("past", person) + verb[2:]
        return past_tense(verb)
    if verb.startswith("be "):
        return _be("present", person) + verb[2:]
    return third_person(verb) if person == "third" else verb


def _circumstances(clause: Clause, with_time: bool = True) -> list[Part]:
    """Everything after the verb."""
    parts: list[Part] = []
    if clause.verb is not None:
        parts += _arguments(clause)
    if clause.amount is not None:
        parts.append(clause.amount.english)
    if clause.degree is not None and clause.verb is not None:
        parts.append(clause.degree.english)
    if clause.manner is not None:
        parts.append(_choice(clause.manner.english, clause.manner.synonym))
    if clause.companion is not None:
        parts += ["with", *noun_phrase(clause.companion, "object")]
    if clause.place is not None:
        parts += place(clause.place)
    if clause.duration is not None:
        parts.append(clause.duration.english)
    if clause.goal_purpose is not None:
        parts += ["to", *base_form(clause.goal_purpose)]
    if clause.time is not None and with_time:
        parts.append(clause.time.english)
    return parts


def _arguments(clause: Clause) -> list[Part]:
    verb = clause.verb
    argument: list[Part] = []
    if clause.argument is not None:
        if "goal" in verb.flags:
            return _goal(clause)
        argument = noun_phrase(clause.argument, "object")
        if verb.article == "the" and clause.argument.number == 1 and not clause.argument.determiner:
            argument = ["the " + clause.argument.noun.english]
        if verb.preposition:
            argument = [verb.preposition, *argument]
    if clause.recipient is None:
        return argument
    recipient = noun_phrase(clause.recipient, "object")
    if "dative" in verb.flags:
        return [("dative", [*recipient, *argument], [*argument, "for" if "for" in verb.flags else "to", *recipient])]
    return [*argument, verb.recipient, *recipient]


def _goal(clause: Clause) -> list[Part]:
    """The place that one goes to: home takes no preposition, and some places no article."""
    phrase, preposition = clause.argument, clause.verb.preposition
    noun = phrase.noun
    if _plain(phrase):
        fixed = noun.to_phrase if preposition == "to" or noun.to_phrase == "home" else noun.at_phrase
        if fixed:
            return [fixed]
        return [preposition, *noun_phrase(phrase, "subject")]
    return [preposition, *noun_phrase(phrase, "object")]


def _plain(phrase: NounPhrase) -> bool:
    return not (phrase.counted or phrase.owner or phrase.modifier or phrase.determiner or phrase.relative)


def place(phrase: NounPhrase) -> list[Part]:
    """A place with its preposition."""
    noun = phrase.noun
    if noun.at_phrase and _plain(phrase):
        return [noun.at_phrase]
    return [noun.preposition, *noun_phrase(phrase, "subject" if _plain(phrase) else "object")]


def _bare_phrase(clause: Clause) -> list[Part]:
    """The verb phrase in the bare infinitive."""
    head, rest, synonym = _head_and_rest(clause)
    return [_choice(head, synonym), *rest, *_circumstances(clause)]


def _gerund_phrase(clause: Clause) -> list[Part]:
    """The verb phrase in -ing."""
    head, rest, synonym = _head_and_rest(clause)
    return [_choice(gerund(head), synonym and gerund(synonym)), *rest, *_circumstances(clause)]


def _verb_phrase(clause: Clause, tense: str, person: str, with_time: bool = True) -> list[Part]:
    """Auxiliary, verb and what follows, without the subject."""
    auxiliary, rest = _finite(clause, tense, person)
    return [*auxiliary, *rest, *_circumstances(clause, with_time)]


def _subject(clause: Clause) -> list[Part]:
    return ["it"] if clause.subject is None else noun_phrase(clause.subject, "subject")


def _statement(clause: Clause, tense: str, with_time: bool = True) -> list[Part]:
    """A clause in the order of a statement."""
    return [*_subject(clause), *_verb_phrase(clause, tense, person_of(clause.subject), with_time)]


_ASKED = {"object": "what", "place": "where", "time": "when", "reason": "why"}


def _question(clause: Clause, asked: str) -> list[Part]:
    if asked == "subject":
        return ["who", *_verb_phrase(clause, clause.tense, "third")]
    auxiliary, rest = _finite(clause, clause.tense, person_of(clause.subject), question=True)
    words: list[Part] = [_ASKED[asked]] if asked in _ASKED else []
    circumstances = _circumstances(clause)
    if asked == "count":
        words = ["how many", plural(clause.argument.noun.english)]
        argument = clause.argument
        clause.argument = None
        circumstances = _circumstances(clause)
        clause.argument = argument
    return [*words, *auxiliary, *_subject(clause), *rest, *circumstances]


def _main(clause: Clause) -> list[Part]:
    """A statement that stands alone; its time may come first, and the object of some verbs may become the subject."""
    if clause.time is None:
        return [_with_passive(clause, _statement(clause, clause.tense))]
    adverb = clause.time.english
    return [
        ("time", [], [adverb, ","]),
        _with_passive(clause, _statement(clause, clause.tense, with_time=False)),
        ("time", [adverb], []),
    ]


def _with_passive(clause: Clause, active: list[Part]) -> Part:
    if not _has_passive(clause):
        return ("", active, [])
    patient = NounPhrase(
        clause.argument.noun, clause.argument.number, clause.argument.counted, clause.argument.determiner,
        clause.argument.owner, clause.argument.modifier,
    )  # fmt: skip
    auxiliary = {"past": "was", "present": "is", "future": "will be"}[clause.tense]
    if person_of(patient) == "plural":
        auxiliary = {"past": "were", "present": "are", "future": "will be"}[clause.tense]
    rest = [*noun_phrase(clause.subject, "object")]
    circumstances = place(clause.place) if clause.place is not None else []
    passive = [
        *noun_phrase(patient, "object"), auxiliary, past_participle(clause.verb.english), "by", *rest, *circumstances,
    ]  # fmt: skip
    return ("passive", active, passive)


def _has_passive(clause: Clause) -> bool:
    verb, argument = clause.verb, clause.argument
    return (
        verb is not None
        and "passive" in verb.flags
        and verb.particle == "을"
        and argument is not None
        and argument.relative is None
        and not (clause.passive or clause.polarity or clause.modality or clause.aspect or clause.frequency)
        and not (clause.manner or clause.companion or clause.recipient or clause.duration or clause.goal_purpose)
        and clause.subject.noun.form != "pronoun"
        and not clause.subject.marker
    )


def _link(link: Link, tense_of=lambda clause: clause.tense) -> list[Part]:
    sub, main, relation = link.subordinate, link.main, link.relation
    shared = sub.subject is None and not (sub.verb is not None and "weather" in sub.verb.flags)
    main_parts = _statement(main, tense_of(main))
    if relation in ("but", "and"):
        if shared:
            sub = _with_subject(sub, main.subject)
            rest = _verb_phrase(_with_subject(main, main.subject), tense_of(main), person_of(main.subject))
            return [*_statement(sub, tense_of(sub)), relation, *rest]
        return [*_statement(sub, tense_of(sub)), ",", relation, *main_parts]
    if shared and relation in ("before", "after", "while"):
        phrase = [relation, *_gerund_phrase(sub)]
    elif relation == "purpose":
        return [*main_parts, ("purpose", ["to"], ["in order to"]), *_bare_phrase(sub)]
    else:
        # A subordinate clause of time or condition stays in the present where the main clause is future.
        tense = _subordinate_tense(relation, main, sub, tense_of)
        other = _OTHER_CONJUNCTION.get(relation)
        conjunction = [(("conjunction", [_BEFORE[relation]], [other]) if other else _BEFORE[relation])]
        phrase = [*conjunction, *_statement(_with_subject(sub, main.subject) if shared else sub, tense)]
    return [("order", [*phrase, ","], []), *main_parts, ("order", [], phrase)]


def _subordinate_tense(relation: str, main: Clause, sub: Clause, tense_of) -> str:
    if relation in ("if", "when", "before", "after", "as_soon_as", "until") and main.tense == "future":
        return "past" if tense_of(main) == "would" else "present"
    if relation in ("because", "before", "after", "as_soon_as", "until", "if"):
        return "past" if main.tense == "past" else "present"
    return tense_of(sub)


def _with_subject(clause: Clause, subject: NounPhrase | None) -> Clause:
    if clause.subject is subject:
        return clause
    copy = Clause(**{name: getattr(clause, name) for name in Clause.__slots__})
    copy.subject = subject
    return copy


_BACKSHIFTED = {"past": "pluperfect", "present": "past", "future": "would"}


def _report(report: Report) -> list[Part]:
    def tense_of(clause: Clause) -> str:
        return _BACKSHIFTED[clause.tense] if report.tense == "past" else clause.tense

    outer = Clause(subject=report.subject, verb=report.verb, tense=report.tense)
    content = report.content
    inner = _link(content, tense_of) if isinstance(content, Link) else _statement(content, tense_of(content))
    said = _statement(outer, report.tense)
    if report.time is None:
        return [*said, ("that", ["that"], []), *inner]
    adverb = report.time.english
    return [("time", [], [adverb, ","]), *said, ("time", [adverb], []), ("that", ["that"], []), *inner]


def _existence(content: Existence, mood: str) -> list[Part]:
    verb = _be(content.tense, person_of(content.thing))
    where = [content.position.english, *noun_phrase(content.place, "subject")]
    thing = noun_phrase(content.thing, "object")
    if mood == "question":
        return [verb, "there", *thing, *where]
    if content.absent:
        return ["there", ("contraction", [f"{verb} not"], [_CONTRACTIONS[f"{verb} not"]]), *thing, *where]
    return [("order", ["there", verb, *thing, *where], [*where, "there", verb, *thing])]


def realize(sentence: Sentence) -> list[str]:
    """The English text of a sentence: the canonical one first, then up to three that say the same."""
    content = sentence.content
    end = "?" if sentence.mood == "question" else "."
    if isinstance(content, Report):
        parts = _report(content)
    elif isinstance(content, Link):
        parts = _link(content)
    elif isinstance(content, Existence):
        parts = _existence(content, sentence.mood)
    elif sentence.mood == "question":
        parts = _question(content, sentence.asked)
    elif sentence.mood == "request":
        parts = ["please", *_bare_phrase(content)]
    elif sentence.mood == "proposal":
        parts = ["let's", *_bare_phrase(content)]
    else:
        parts = _main(content)
    if sentence.opener is not None:
        parts = [sentence.opener.english, ",", *parts]
    labels: list[str] = []
    texts = [_spell(parts, "", labels, end)]
    for label in labels:
        text = _spell(parts, label, None, end)
        if text not in texts:
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
        if labels is not None and name and name not in labels:
            labels.append(name)
        _flatten(other if name == label and name else usual, label, labels, words)
