"""The kinds of sentences and how often each is used."""

from __future__ import annotations

from collections.abc import Callable

from hf_nmt.data.controlled import quantities
from hf_nmt.data.controlled.meaning import Clause, Existence, Link, NounPhrase, Report, Sentence
from hf_nmt.data.controlled.phrases import _MORE, _MUCH_MORE, HE, I, SHE, THEY, WE, Article
from hf_nmt.data.controlled.random_choice import cumulative
from hf_nmt.data.controlled.vocabulary import Noun


def _action(article: Article) -> Sentence:
    clause = article.action()
    if clause.argument is not None and article.draw.chance(0.12):
        _add_relative(article, clause)
    return _said(article, clause)


def _add_relative(article: Article, clause: Clause) -> None:
    verb, phrase = clause.verb, clause.argument
    if verb.particle == "을" and not verb.article and "name" not in verb.objects and phrase.noun.form == "count":
        article.with_relative(phrase, clause.subject.noun, verb)


def _said(article: Article, content: Clause | Link | Report | Existence, **kwargs: object) -> Sentence:
    opener = None
    if not article.world.small and isinstance(content, Clause) and not kwargs and article.draw.chance(0.06):
        opener = article.draw.pick(article.world.times["opener"])
        if content.time is not None and opener.korean == "예를 들어":
            opener = None
    return Sentence(content, article.style, opener=opener, **kwargs)


def _yes_or_no(article: Article) -> Sentence:
    clause = article.action(simple=article.world.small)
    clause.polarity = ""
    if clause.subject.noun is WE or clause.subject.noun is I:
        clause.subject = NounPhrase(article.draw.pick((HE, SHE, THEY)))
        if clause.modality == "want":
            clause.modality = "want_other"
    clause.subject.marker = ""
    return _said(article, clause, mood="question")


def _wh(article: Article) -> Sentence:
    draw = article.draw
    clause = article.action(tense="past" if draw.chance(0.7) else "future", simple=True, pronouns=False)
    clause.subject.marker = ""
    options = ["reason", "subject"]
    if clause.verb.places and clause.place is None and clause.verb.particle != "에":
        options += ["place", "place"]
    if clause.time is None:
        options += ["time", "time"]
    if clause.argument is not None and clause.verb.particle == "을" and _takes_what(clause):
        options += ["object", "object"]
        if clause.argument.noun.form == "count" and clause.argument.noun.counter:
            options += ["count"]
    asked = draw.pick(options)
    if asked == "subject":
        clause.subject = None
    elif asked == "object":
        clause.argument = None
    elif asked == "count":
        clause.argument = NounPhrase(clause.argument.noun)
    return _said(article, clause, mood="question", asked=asked)


def _takes_what(clause: Clause) -> bool:
    return not clause.verb.ambiguous and not clause.verb.objects & {"human", "name"}


def _description(article: Article) -> Sentence:
    """An adjective as the predicate."""
    clause = _described(article)
    draw = article.draw
    if clause.polarity == "" and draw.chance(0.5) and "plainly" not in clause.adjective.flags:
        clause.degree = draw.pick(article.world.degrees)
    if draw.chance(0.15):
        clause.polarity, clause.degree = "ji", None
    return _said(article, clause)


def _described(article: Article, relative: float = 0.3) -> Clause:
    draw = article.draw
    while True:
        noun = draw.pick(article.people + article.roles) if draw.chance(0.3) else draw.pick(article.world.nouns)
        if article.domain in noun.domains and article.world.predicated[noun]:
            break
    adjective = draw.pick(article.world.predicated[noun])
    article._combine(adjective, noun)
    phrase = article._named(noun) if noun.gender else article.thing(noun, 0.6)
    phrase.modifier = None
    phrase.counted, phrase.number = False, 1
    if phrase.determiner in ("많은", "여러"):
        phrase.determiner = ""
    if draw.chance(relative):
        article.with_relative(phrase, None)
    return Clause(subject=phrase, adjective=adjective, tense="past" if draw.chance(0.35) else "present")


def _comparison(article: Article) -> Sentence:
    draw = article.draw
    while True:
        clause = _described(article, relative=0.1)
        noun = clause.subject.noun
        if "plainly" in clause.adjective.flags or clause.subject.noun.form not in ("count", "name"):
            article.begin()
            continue
        break
    if noun.form == "name":
        clause.than = article._named(_other(article, article.people, noun))
    else:
        rivals = [other for other in article.world.nouns if other is not noun and other.form == "count"
                  and clause.adjective in article.world.predicated[other] and not other.classes.isdisjoint(noun.classes)]  # fmt: skip
        rival = draw.pick(rivals) if rivals else noun
        clause.than = NounPhrase(rival, determiner="그")
        if clause.subject.relative is None and clause.subject.owner is None:
            clause.subject.determiner = "이"
    clause.degree = draw.pick((None, _MORE, _MORE, _MUCH_MORE))
    clause.tense = "present"
    return _said(article, clause)


def _other(article: Article, items: list[Noun], noun: Noun) -> Noun:
    return next(other for other in items if other is not noun)


def _identity(article: Article) -> Sentence:
    draw = article.draw
    jobs = article.world.in_class("job", article.domain)
    clause = Clause(subject=article._named(draw.pick(article.people)) if draw.chance(0.6) else NounPhrase(draw.pick((HE, SHE))))
    clause.identity = NounPhrase(draw.pick(jobs))
    if draw.chance(0.45):
        article._modify(clause.identity)
    clause.tense = "past" if draw.chance(0.3) else "present"
    if draw.chance(0.15):
        clause.polarity = "ji"
    article.keys.append(("be", clause.identity.noun.english))
    return _said(article, clause)


def _existence(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    position = draw.pick(world.times["position"])
    place = draw.pick(world.in_class("container" if position.korean == "안" else "surface"))
    thing = article.thing(draw.pick(world.in_class("small_thing")))
    if thing.noun.form == "unique" or thing.determiner == "이" or thing.determiner == "그" or thing.owner:
        thing.determiner, thing.owner = "", None
    article.keys.append((place.english, thing.noun.english))
    existence = Existence(thing, NounPhrase(place, determiner="그" if draw.chance(0.2) else ""), position)
    existence.tense = "past" if draw.chance(0.5) else "present"
    mood = "question" if draw.chance(0.12) else "statement"
    if mood == "statement" and draw.chance(0.12) and not thing.counted and thing.noun.form == "count":
        existence.absent = True
    return _said(article, existence, mood=mood)


_RELATIONS = cumulative({"because": 2, "because_of": 2, "since": 1, "if": 3, "when": 3, "before": 3, "after": 3,
                         "as_soon_as": 1, "until": 1, "but": 3, "and": 2, "although": 1, "while": 2, "purpose": 2})  # fmt: skip
_SMALL_RELATIONS = cumulative({"because_of": 2, "if": 2, "when": 2, "before": 2, "after": 2, "but": 2})


def _linked(article: Article) -> Sentence:
    return _said(article, _link(article))


def _link(article: Article) -> Link:
    draw = article.draw
    relation = draw.weighted(_SMALL_RELATIONS if article.world.small else _RELATIONS)
    tense = "future" if relation == "if" or relation in ("when", "before", "after", "as_soon_as") and draw.chance(0.3) else "past"
    if relation in ("while", "purpose"):
        return _shared_link(article, relation)
    main = article.action(tense=tense, simple=True)
    if relation in ("because", "because_of", "since", "if", "when") and draw.chance(0.3):
        sub = Clause(verb=draw.pick(article.world.by_section["weather"]))
    elif relation in ("because", "because_of", "since") and draw.chance(0.5):
        sub = _described(article, relative=0.1)
    else:
        sub = article.action(tense=tense, simple=True, avoid=main.subject.noun, pronouns=relation in ("but", "and"))
    sub.tense = "past" if tense == "past" else "present"
    sub.time = sub.frequency = None
    return Link(relation, sub, main)


def _shared_link(article: Article, relation: str) -> Link:
    main = article.action(tense="past", subject=article.person(), simple=True)
    sub = article.action(tense="past", subject=main.subject, simple=True)
    sub.subject, sub.time, sub.duration = None, None, None
    return Link(relation, sub, main)


def _reported(article: Article) -> Sentence:
    draw = article.draw
    verb = draw.pick(article.world.by_section["report"])
    subject = article.subject_of(verb)
    subject.marker = ""
    point = draw.below(10)
    if point < 6:
        content = article.action(tense=draw.pick(("past", "past", "future")), simple=True, avoid=subject.noun)
        content.time = None
    elif point < 9 or article.world.small:
        content = _described(article, relative=0.15)
        content.tense = draw.pick(("past", "present", "present"))
    else:
        content = _link(article)
        content.main.time = None
    tense = "past" if draw.chance(0.8) or "future" in verb.flags else "present"
    return _said(article, Report(subject, verb, content, tense=tense))


def _figure(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = draw.pick(world.by_section["change"])
    nouns = [noun for noun in world.in_class("figure", article.domain)]
    noun = draw.pick(nouns)
    article._combine(verb, noun)
    clause = Clause(subject=NounPhrase(noun), verb=verb)
    clause.tense = "future" if draw.chance(0.25) else "past"
    if noun.form != "unique" and draw.chance(0.3) and article.groups:
        clause.subject.owner = NounPhrase(draw.pick(article.groups))
    if draw.chance(0.8):
        clause.time = article.time(clause.tense)
    if draw.chance(0.7):
        clause.amount = quantities.percent(draw, world.small)
    elif verb.degrees and not world.small:
        clause.manner = world.change_degrees[draw.pick(verb.degrees)]
    return _said(article, clause)


def _event(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = draw.pick(world.by_section["event"])
    events = [noun for noun in world.in_class("event") if article.domain in noun.domains] or world.in_class("event")
    noun = draw.pick(events)
    article._combine(verb, noun)
    clause = Clause(subject=NounPhrase(noun), verb=verb, tense="future" if draw.chance(0.4) else "past")
    if noun.form == "count" and draw.chance(0.25):
        clause.subject.determiner = draw.pick(("이", "그"))
    clause.time = article.time(clause.tense, point=True)
    if draw.chance(0.5):
        article._place(clause)
    return _said(article, clause)


def _happening(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verbs = [verb for verb in world.by_section.get("happening", []) + world.by_section["failure"] if article.domain in verb.domains]
    if not verbs:
        return _event(article)
    verb = draw.pick(verbs)
    noun = draw.pick([noun for noun in world.nouns if noun.one_of(verb.subjects)])
    article._combine(verb, noun)
    clause = Clause(subject=article.thing(noun, 0.8), verb=verb, tense="past")
    if draw.chance(0.6):
        clause.time = article.time("past")
    if verb.places and draw.chance(0.7):
        article._place(clause)
    return _said(article, clause)


def _amount(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    if draw.chance(0.4):
        subject = article._named(draw.pick(article.people))
        return _said(article, Clause(subject=subject, identity=quantities.age(draw), tense="present"))
    noun = draw.pick([noun for name in ("device", "clothes", "furniture", "product", "ware") for noun in world.in_class(name)
                      if noun.form == "count"])  # fmt: skip
    owner = NounPhrase(noun, determiner=draw.pick(("이", "그")))
    price = next(word for word in world.nouns if word.korean == "가격")
    article.keys.append(("price", noun.english))
    clause = Clause(subject=NounPhrase(price, owner=owner), identity=quantities.money(draw), tense="present")
    return _said(article, clause)


def _passive(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verbs = [verb for verb in world.actions[article.domain] if "passive" in verb.flags and verb.stem.text.endswith("하")]
    verb = draw.pick(verbs)
    nouns = [noun for noun in world.arguments[verb, article.domain] if not noun.one_of(frozenset({"human"}))]
    if not nouns:
        return _action(article)
    noun = draw.pick(nouns)
    article._combine(verb, noun)
    clause = Clause(subject=article.thing(noun), verb=verb, passive=True, tense="future" if draw.chance(0.25) else "past")
    if draw.chance(0.75):
        clause.time = article.time(clause.tense)
    if draw.chance(0.4):
        article._place(clause)
    return _said(article, clause)


def _request(article: Article) -> Sentence:
    draw = article.draw
    if article.style == "written" or article.domain == "news":
        return _action(article)
    clause = article.action(tense="future", subject=NounPhrase(HE), simple=True)
    clause.subject, clause.time = None, None
    mood = "request"
    if draw.chance(0.3) and article.style != "polite":
        mood = "proposal"
    return _said(article, clause, mood=mood)


_KINDS: dict[Callable[[Article], Sentence], float] = {
    _action: 34, _yes_or_no: 4, _wh: 5, _description: 8, _comparison: 4, _identity: 3, _existence: 4, _linked: 14,
    _reported: 9, _figure: 4, _event: 4, _happening: 2, _amount: 2, _passive: 4, _request: 2,
}  # fmt: skip
_SMALL_KINDS: dict[Callable[[Article], Sentence], float] = {
    _action: 44, _yes_or_no: 4, _description: 10, _comparison: 4, _identity: 4, _existence: 6, _linked: 12, _reported: 8,
    _figure: 4, _event: 4,
}  # fmt: skip
_FULL_TABLE, _SMALL_TABLE = cumulative(_KINDS), cumulative(_SMALL_KINDS)


def sentence(article: Article) -> Sentence:
    """A random sentence of the article."""
    return article.draw.weighted(_SMALL_TABLE if article.world.small else _FULL_TABLE)(article)
