"""The kinds of sentences and how often each is used."""

from __future__ import annotations

from collections.abc import Callable

from hf_nmt.data.controlled import quantities
from hf_nmt.data.controlled.meaning import (
    Clause,
    Content,
    Existence,
    Judgment,
    Link,
    NounPhrase,
    Report,
    Seeming,
    Sentence,
)
from hf_nmt.data.controlled.phrases import FIRST, HE, SHE, THEY, WE, Article
from hf_nmt.data.controlled.random_choice import cumulative
from hf_nmt.data.controlled.vocabulary import Adverbial, Noun, Verb

_MORE, _MUCH_MORE = Adverbial("더", "", "", "degree", True), Adverbial("훨씬 더", "much", "", "degree", True)
_STATES = frozenset({"피곤하", "아프", "바쁘", "배고프", "졸리", "심심하", "기쁘", "행복하"})
_JUDGMENTS = frozenset({"중요하", "어렵", "쉽", "위험하", "재미있", "지루하", "복잡하"})
_PRICED = ("device", "clothes", "furniture", "product", "ware")


def _said(
    article: Article, content: Content, mood: str = "statement", asked: str = "", nominative: bool = False
) -> Sentence:
    """The content in the style of the article; a statement is now and then opened by a connective."""
    opener = None
    plain = isinstance(content, Clause) and mood == "statement" and not nominative
    if plain and not article.world.small and article.draw.chance(0.06):
        opener = article.draw.pick(article.world.times["opener"])
    return Sentence(content, article.style, mood, asked, nominative, opener)


def _action(article: Article) -> Sentence:
    clause = article.action()
    if article.draw.chance(0.14):
        _extend_object(article, clause)
    return _said(article, clause)


def _extend_object(article: Article, clause: Clause) -> None:
    """A relative clause on the object; what would stand between the two verbs in English goes."""
    verb, phrase = clause.verb, clause.argument
    if phrase is None or verb.particle != "을" or verb.article or clause.recipient is not None or phrase.joined:
        return
    if phrase.noun.form == "count" and article.add_relative(phrase, (clause.subject.noun,), verb):
        clause.manner = clause.companion = clause.place = clause.duration = None
        if clause.time is not None:
            phrase.relative.time = None


def _yes_or_no(article: Article) -> Sentence:
    clause = article.action(simple=article.world.small)
    clause.polarity = ""
    if clause.subject.noun in (FIRST, WE):
        clause.subject = NounPhrase(article.draw.pick((HE, SHE, THEY)))
        clause.modality = "want_other" if clause.modality == "want" else clause.modality
    clause.subject.marker = ""
    return _said(article, clause, mood="question")


def _wh(article: Article) -> Sentence:
    draw = article.draw
    clause = article.action(tense="past" if draw.chance(0.7) else "future", simple=True, pronouns=False)
    clause.subject.marker, clause.purpose = "", None
    asked = draw.pick(_askable(clause))
    if asked == "subject":
        clause.subject = None
    elif asked == "object":
        clause.argument = None
    elif asked == "count":
        clause.argument = NounPhrase(clause.argument.noun)
    return _said(article, clause, mood="question", asked=asked)


def _askable(clause: Clause) -> list[str]:
    verb, phrase = clause.verb, clause.argument
    options = ["reason"]
    if "person" in verb.subjects:
        options.append("subject")
    if verb.places and clause.place is None and verb.particle != "에":
        options += ["place", "place"]
    if clause.time is None and clause.duration is None:
        options += ["time", "time"]
    if phrase is not None and verb.particle == "을" and not verb.ambiguous and not verb.objects & {"human", "name"}:
        options += ["object", "object"]
        if phrase.noun.form == "count" and phrase.noun.counter:
            options.append("count")
    return options


def _description(article: Article) -> Sentence:
    clause, draw = _described(article), article.draw
    if draw.chance(0.15):
        clause.polarity = "long"
    elif draw.chance(0.5) and "plainly" not in clause.adjective.flags:
        clause.degree = draw.pick(article.world.degrees)
    return _said(article, clause)


def _described(article: Article, relative: float = 0.3) -> Clause:
    """An adjective as the predicate of a person, thing or place."""
    draw, world = article.draw, article.world
    noun = (
        draw.pick(article.people + article.roles) if draw.chance(0.3) else draw.pick(world.describable[article.domain])
    )
    phrase = NounPhrase(noun)
    if noun.gender:
        phrase = article.somebody(noun)
    elif noun.form == "count":
        point = draw.below(100)
        if point < 20:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 32:
            phrase.owner = article.owner() if "human" not in noun.classes else None
        elif point < 40 and "human" in noun.classes:
            phrase.number = 0
    if draw.chance(relative):
        article.add_relative(phrase)
    clause = Clause(subject=phrase, adjective=draw.pick(world.predicated[noun]))
    clause.tense = "past" if draw.chance(0.35) else "present"
    return clause


def _comparison(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    clause = _described(article, relative=0.1)
    noun, adjective = clause.subject.noun, clause.adjective
    clause.tense = "present"
    if noun.gender:
        clause.than = article.somebody(next(other for other in article.people if other is not noun))
    elif noun.form != "count" or "plainly" in adjective.flags:
        return _said(article, clause)
    else:
        rivals = [other for other in world.rivals[noun] if adjective in world.predicated[other]]
        if not rivals:
            return _said(article, clause)
        if not world.small and noun.counter and draw.chance(0.3):
            return _said(article, _superlative(article, clause))
        clause.than = NounPhrase(draw.pick(rivals), determiner="그")
        if clause.subject.is_plain:
            clause.subject.determiner = "이"
    clause.degree = draw.pick((None, _MORE, _MORE, _MUCH_MORE))
    return _said(article, clause)


def _superlative(article: Article, clause: Clause) -> Clause:
    """A person or thing as the most so of a group."""
    noun = clause.subject.noun
    if "human" in noun.classes:
        clause.subject = article.somebody(article.draw.pick(article.people))
        clause.superlative = NounPhrase(noun, number=0, determiner="이")
    else:
        clause.subject = NounPhrase(noun, owner=article.owner())
        clause.superlative = NounPhrase(noun, number=0, determiner="이")
    return clause


def _identity(article: Article) -> Sentence:
    draw = article.draw
    subject = NounPhrase(draw.pick((HE, SHE))) if draw.chance(0.4) else article.somebody(draw.pick(article.people))
    clause = Clause(subject=subject, tense="past" if draw.chance(0.3) else "present")
    clause.identity = NounPhrase(draw.pick(article.world.in_class("job", article.domain if draw.chance(0.5) else "")))
    if draw.chance(0.45):
        article.modify(clause.identity)
    if draw.chance(0.15):
        clause.polarity = "long"
    return _said(article, clause)


def _existence(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    place = draw.pick(world.holders)
    position = draw.pick([word for word in world.times["position"] if _fits(word.korean, place)])
    things = [noun for noun in world.held[place] if article.domain in noun.domains] or world.held[place]
    thing = article.thing(draw.pick(things))
    thing.owner = None
    if thing.determiner in ("이", "그", "모든"):
        thing.determiner = ""
    content = Existence(thing, NounPhrase(place, determiner="그" if draw.chance(0.2) else ""), position)
    content.tense = "past" if draw.chance(0.5) else "present"
    mood = "question" if draw.chance(0.12) else "statement"
    content.absent = mood == "statement" and thing.is_plain and thing.noun.form == "count" and draw.chance(0.15)
    return _said(article, content, mood=mood)


def _fits(position: str, place: Noun) -> bool:
    """Containers hold things inside; only what has legs has room under it."""
    inside = not place.classes.isdisjoint({"ware", "openable", "device"})
    return position == "안" if inside else position != "안" and (position != "아래" or "under" in place.classes)


_RELATIONS = cumulative(
    {
        "because": 2, "because_of": 2, "since": 1, "if": 3, "when": 3, "before": 3, "after": 3, "as_soon_as": 1,
        "until": 1, "but": 3, "and": 2, "although": 1, "while": 1, "purpose": 2,
    }
)  # fmt: skip
_SMALL_RELATIONS = cumulative({"because_of": 2, "if": 2, "when": 2, "before": 2, "after": 2, "but": 2})
_CAUSES = ("because", "because_of", "since")


def _linked(article: Article) -> Sentence:
    return _said(article, _link(article))


def _link(article: Article, avoid: tuple[Noun, ...] = ()) -> Link:
    """Two clauses; none of `avoid` is the subject of either."""
    draw, world = article.draw, article.world
    relation = draw.weighted(_SMALL_RELATIONS if world.small else _RELATIONS)
    future = relation == "if" or relation in ("when", "before", "after", "as_soon_as") and draw.chance(0.3)
    tense = "future" if future else "past"
    if (
        relation in ("while", "purpose")
        or not world.small
        and relation in ("before", "after", "and")
        and draw.chance(0.4)
    ):
        return _shared_link(article, relation, avoid)
    main = article.action(
        tense=tense, simple=True, avoid=avoid, needs={"long", "years"} if relation == "until" else None
    )
    if relation in _CAUSES and draw.chance(0.6):
        sub = _cause(article, main)
    elif relation in (*_CAUSES, "if", "when") and draw.chance(0.3):
        sub = Clause(verb=draw.pick(world.by_section["weather"]))
    else:
        sub = _other_action(article, main, tense, avoid, relation in ("but", "and"))
    sub.time = sub.frequency = None
    if relation not in (*_CAUSES, "but", "and", "although"):
        sub.time, main.time = main.time, None
    sub.tense = "past" if tense == "past" else "present"
    return Link(relation, sub, main)


def _other_action(article: Article, main: Clause, tense: str, avoid: tuple[Noun, ...], pronouns: bool) -> Clause:
    """What somebody else does, which is something else."""
    return article.action(
        tense, simple=True, avoid=(*avoid, main.subject.noun), pronouns=pronouns, other_than=main.verb
    )


def _cause(article: Article, main: Clause) -> Clause:
    """Why somebody does something: how the thing is, or how the person feels."""
    draw, phrase = article.draw, main.argument
    adjectives = (
        article.world.predicated.get(phrase.noun, ()) if phrase is not None and phrase.noun.form == "count" else ()
    )
    if adjectives and draw.chance(0.7) and "goal" not in main.verb.flags and "human" not in phrase.noun.classes:
        subject = NounPhrase(phrase.noun, determiner=draw.pick(("", "이", "그")))
        main.argument = NounPhrase(phrase.noun, determiner="그")
        return Clause(subject=subject, adjective=draw.pick(adjectives))
    states = [word for word in article.world.adjectives if word.stem.text in _STATES]
    return Clause(subject=article.person(False, (main.subject.noun,)), adjective=draw.pick(states))


def _shared_link(article: Article, relation: str, avoid: tuple[Noun, ...]) -> Link:
    verbs = article.world.fitting[article.domain, "past"]
    if relation == "while" and sum("meanwhile" in verb.flags for verb in verbs) < 2:
        relation = "purpose"
    needs = {"means", "goal"} if relation == "purpose" else None
    main = article.action(tense="past", subject=article.person(avoid=avoid), simple=True, needs=needs)
    main.purpose = None
    needs = {"meanwhile"} if relation == "while" else None
    sub = article.action(tense="past", subject=main.subject, simple=True, needs=needs, other_than=main.verb)
    sub.subject, sub.time, sub.duration, sub.purpose = None, None, None, None
    if relation == "while":
        sub.place = None
    return Link(relation, sub, main)


def _reporting_verb(article: Article) -> Verb:
    """A verb of saying that has a subject in the article."""
    verbs = article.world.by_section["report"]
    return article.draw.pick(
        [
            verb
            for verb in verbs
            if "person" in verb.subjects or any(noun.one_of(verb.subjects) for noun in article.groups)
        ]
    )


def _reported(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = _reporting_verb(article)
    subject = article.subject_of(verb)
    point = draw.below(10)
    if point < 6:
        content: Clause | Link = _reported_action(article, subject.noun)
    elif point < 8 or world.small:
        content = _described(article, relative=0.15)
    else:
        content = _link(article, (subject.noun,))
        content.main.time = content.subordinate.time = None
    past = draw.chance(0.8)
    report = Report(subject, verb, content, tense="past" if past else "present")
    if past and not world.small and draw.chance(0.25):
        report.time = draw.pick(world.times["past"])
    return _said(article, report)


def _reported_action(article: Article, avoid: Noun) -> Clause:
    tense = article.draw.pick(("past", "past", "future"))
    clause = article.action(tense=tense, simple=True, avoid=(avoid,))
    clause.time = None
    return clause


def _inquiry(article: Article) -> Sentence:
    """Somebody asks, knows or wonders whether, why, when, where."""
    draw = article.draw
    verb = draw.pick(article.world.by_section["inquiry"])
    subject = article.person()
    content = _reported_action(article, subject.noun)
    options = ["whether", "whether", "why"]
    if content.duration is None:
        options.append("when")
    if content.verb.places and content.verb.particle not in ("에", "으로") and content.place is None:
        options.append("where")
    return _said(article, Report(subject, verb, content, tense="past", asked=draw.pick(options)))


def _figure(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = draw.pick(world.by_section["change"])
    noun = draw.pick(world.in_class("figure", article.domain))
    clause = Clause(subject=NounPhrase(noun), verb=verb, tense="future" if draw.chance(0.25) else "past")
    if draw.chance(0.3) and article.groups and article.domain in ("business", "tech"):
        clause.subject.owner = NounPhrase(draw.pick(article.groups))
    if draw.chance(0.8):
        clause.time = article.time(clause.tense)
    if draw.chance(0.7):
        clause.amount = quantities.percent(draw, world.small)
    elif not world.small:
        clause.manner = world.change_degrees[draw.pick(verb.degrees)]
    return _said(article, clause, nominative=not world.small and draw.chance(0.3))


def _long(article: Article) -> Sentence:
    """A report of two clauses, each with its circumstances, some with relative clauses."""
    draw = article.draw
    subject = article.subject_of(verb := _reporting_verb(article))
    first = article.action(tense="past", avoid=(subject.noun,))
    clauses = (first, _other_action(article, first, "past", (subject.noun,), pronouns=False))
    for clause in clauses:
        clause.time, clause.subject.marker = None, ""
        role = clause.subject.noun.form == "count" and "human" in clause.subject.noun.classes
        if role and clause.subject.is_plain and draw.chance(0.5):
            article.add_doing(clause.subject)
        if draw.chance(0.4):
            _extend_object(article, clause)
        elif clause.place is None and clause.verb.places:
            article.add_place(clause)
    relation = draw.pick(("because_of", "when", "after", "before", "but", "and", "although"))
    for clause in clauses:
        clause.polarity, clause.modality, clause.aspect, clause.frequency, clause.tense = "", "", "", None, "past"
    report = Report(subject, verb, Link(relation, *clauses))
    if draw.chance(0.6):
        report.time = draw.pick(article.world.times["past"])
    return _said(article, report)


def _event(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = draw.pick(world.by_section["event"])
    phrase = NounPhrase(draw.pick(world.in_class("event", article.domain)))
    if phrase.noun.form == "count":
        point = draw.below(100)
        if point < 25:
            phrase.determiner = draw.pick(("이", "그"))
        elif point < 40 and not world.small:
            phrase.ordinal = 1 + draw.below(5)
    clause = Clause(subject=phrase, verb=verb, tense="future" if draw.chance(0.4) else "past")
    clause.time = article.time(clause.tense, point=True)
    if draw.chance(0.5):
        article.add_place(clause)
    return _said(article, clause, nominative=not world.small and draw.chance(0.3))


def _happening(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verbs = world.by_section.get("happening", []) + world.by_section["failure"]
    verbs = [verb for verb in verbs if article.domain in verb.domains]
    if not verbs:
        return _event(article)
    verb = draw.pick(verbs)
    subject = article.thing(draw.pick(world.doers[verb, article.domain]), 0.8)
    clause = Clause(subject=subject, verb=verb, tense="past")
    if draw.chance(0.6):
        clause.time = article.time("past")
    if verb.places and draw.chance(0.7):
        article.add_place(clause)
    return _said(article, clause, nominative=True)


def _amount(article: Article) -> Sentence:
    """A price or an age."""
    draw, world = article.draw, article.world
    if draw.chance(0.4):
        subject = article.somebody(draw.pick(article.people))
        return _said(article, Clause(subject=subject, identity=quantities.age(draw), tense="present"))
    nouns = [noun for noun in world.in_class(draw.pick(_PRICED)) if noun.form == "count"]
    noun = draw.pick([noun for noun in nouns if article.domain in noun.domains] or nouns)
    owner = NounPhrase(noun, determiner=draw.pick(("이", "그")))
    price = next(word for word in world.in_class("cost") if word.english == "price")
    clause = Clause(subject=NounPhrase(price, owner=owner), identity=quantities.money(draw), tense="present")
    return _said(article, clause)


def _passive(article: Article) -> Sentence:
    draw, world = article.draw, article.world
    verb = draw.pick(world.passives[article.domain]) if world.passives[article.domain] else None
    if verb is None:
        return _action(article)
    subject = article.thing(article.choose(world.arguments[verb, article.domain]))
    clause = Clause(subject=subject, verb=verb, passive=True, tense="future" if draw.chance(0.25) else "past")
    if draw.chance(0.75):
        clause.time = article.time(clause.tense)
    if draw.chance(0.4):
        article.add_place(clause)
    return _said(article, clause, nominative=draw.chance(0.3))


def _request(article: Article) -> Sentence:
    draw = article.draw
    if article.style == "written" or article.domain == "news":
        return _action(article)
    clause = _bare_action(article)
    proposal = draw.chance(0.3) and article.style != "polite"
    return _said(article, clause, mood="proposal" if proposal else "request")


def _bare_action(article: Article) -> Clause:
    """Something that one does of free will, without who or when."""
    while True:
        clause = article.action(tense="future", subject=NounPhrase(HE), simple=True)
        if "state" not in clause.verb.flags:
            clause.subject, clause.time = None, None
            return clause


def _seeming(article: Article) -> Sentence:
    if article.draw.chance(0.5):
        clause = _described(article, relative=0.1)
    else:
        clause = article.action(tense="past", simple=True)
        clause.subject.marker = ""
    return _said(article, Seeming(clause))


def _judgment(article: Article) -> Sentence:
    draw = article.draw
    action = _bare_action(article)
    action.duration = action.purpose = action.companion = None
    adjective = draw.pick([word for word in article.world.adjectives if word.stem.text in _JUDGMENTS])
    return _said(article, Judgment(action, adjective, tense="past" if draw.chance(0.25) else "present"))


_KINDS: dict[Callable[[Article], Sentence], float] = {
    _action: 33, _yes_or_no: 4, _wh: 5, _description: 7, _comparison: 4, _identity: 2, _existence: 3, _linked: 15,
    _reported: 10, _inquiry: 3, _figure: 4, _event: 4, _happening: 2, _amount: 2, _passive: 4, _request: 2,
    _seeming: 2, _judgment: 2, _long: 3,
}  # fmt: skip
_SMALL_KINDS: dict[Callable[[Article], Sentence], float] = {
    _action: 44, _yes_or_no: 4, _description: 10, _comparison: 4, _identity: 4, _existence: 6, _linked: 12,
    _reported: 8, _figure: 4, _event: 4,
}  # fmt: skip
_FULL_TABLE, _SMALL_TABLE = cumulative(_KINDS), cumulative(_SMALL_KINDS)


def sentence(article: Article) -> Sentence:
    """A random sentence of the article."""
    return article.draw.weighted(_SMALL_TABLE if article.world.small else _FULL_TABLE)(article)
