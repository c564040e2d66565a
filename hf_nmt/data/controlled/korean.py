"""From meaning to Korean text."""

from __future__ import annotations

from functools import cache

from hf_nmt.data.controlled.korean_morphology import (
    Stem,
    attach,
    copula,
    copula_past,
    final,
    honorific,
    native_number,
    particle,
    past,
    plain,
    present_adnominal,
)
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
from hf_nmt.data.controlled.vocabulary import Adjective

# Auxiliary constructions: what the stem before takes, and the stem that follows.
MODALITIES = {
    "can": ("으ㄹ 수 ", "있", "exist"),
    "must": ("어야 ", "하", "verb"),
    "want": ("고 ", "싶", "adjective"),
    "want_other": ("고 싶어 ", "하", "verb"),
    "plan": ("으려고 ", "하", "verb"),
    "decide": ("기로 ", "하", "verb"),
    "begin": ("기 ", "시작하", "verb"),
    "enjoy": ("는 것을 ", "좋아하", "verb"),
    "may": ("어도 ", "되", "verb"),
    "know_how": ("으ㄹ 줄 ", "알", "verb"),
    "try": ("으려고 ", "노력하", "verb"),
}
_NEGATED_MODALITIES = {
    "can": ("으ㄹ 수 ", "없", "exist"),
    "must": ("지 않아도 ", "되", "verb"),
    "may": ("으면 안 ", "되", "verb"),
    "know_how": ("으ㄹ 줄 ", "모르", "verb"),
}
_LEXICAL_HONORIFICS = {"먹": "드시", "마시": "드시", "자": "주무시", "말하": "말씀하시", "아프": "편찮으시"}
# What a subordinate clause ends in, after the past sign where it is `tensed` and past.
RELATIONS = {
    "because": ("", "어서"),
    "because_of": ("tensed", "기 때문에"),
    "since": ("tensed", "으니까"),
    "if": ("", "으면"),
    "when": ("tensed", "으ㄹ 때"),
    "before": ("", "기 전에"),
    "after": ("", "으ㄴ 후에"),
    "as_soon_as": ("", "자마자"),
    "until": ("", "으ㄹ 때까지"),
    "while": ("", "으면서"),
    "purpose": ("", "기 위해"),
    "but": ("tensed", "지만"),
    "and": ("", "고"),
    "although": ("tensed", "는데도"),
}
_ASKED = {"subject": "누가", "place": "어디에서", "time": "언제", "reason": "왜"}
_ASKED_WITHIN = {"why": "왜", "when": "언제", "where": "어디에서"}
_ORDINALS = {1: "첫 번째", 2: "두 번째", 3: "세 번째", 4: "네 번째", 5: "다섯 번째"}
_LOW_STYLES = ("plain", "written")


@cache
def counted(number: int, counter: str) -> str:
    """A number with its counter: native numerals below thirty, digits from there on."""
    return f"{number}{counter}" if number >= 30 else f"{native_number(number)} {counter}"


def noun_phrase(phrase: NounPhrase, style: str) -> str:
    """A noun phrase without its case particle."""
    text = _single(phrase, style)
    return text if phrase.joined is None else f"{particle(text, '와')} {_single(phrase.joined, style)}"


def _single(phrase: NounPhrase, style: str) -> str:
    noun = phrase.noun
    if noun.form == "pronoun":
        return "저" if noun.korean == "나" and style not in _LOW_STYLES else noun.korean
    if noun.gender:
        name = noun.family[0] + noun.korean if phrase.full_name or phrase.title else noun.korean
        if phrase.title:
            return f"{name} {phrase.title.korean}"
        return name if style in _LOW_STYLES else f"{name} 씨"
    if phrase.is_plain:
        return noun.korean
    words = []
    if phrase.determiner:
        words.append(phrase.determiner)
    if phrase.owner is not None:
        owner = noun_phrase(phrase.owner, style)
        words.append(owner if owner == "우리" else particle(owner, "의"))
    if phrase.ordinal:
        words.append(_ORDINALS[phrase.ordinal])
    if phrase.relative is not None:
        words += _before_predicate(phrase.relative, style, "이")
        words.append(_adnominal(predicate(phrase.relative, style), phrase.relative.tense))
    if phrase.modifier is not None:
        words.append(_before_noun(phrase.modifier))
    words.append(noun.korean + ("들" if phrase.number == 0 else ""))
    if phrase.counted:
        words.append(counted(phrase.number, noun.counter))
    return " ".join(words)


def _before_noun(adjective: Adjective) -> str:
    return adjective.adnominal or _adnominal(adjective.stem, "present")


def _adnominal(stem: Stem, tense: str) -> str:
    if tense == "present":
        return present_adnominal(stem)
    return attach(stem, "으ㄴ" if tense == "past" else "으ㄹ")


def cased(phrase: NounPhrase, case: str, style: str) -> str:
    """A noun phrase with a particle; `은` marks the topic and `이` the subject."""
    text = noun_phrase(phrase, style)
    if phrase.marker and case in ("은", "이"):
        return text + phrase.marker
    if phrase.noun.honored and case in ("은", "이", "에게"):
        return text + {"은": "께서는", "이": "께서", "에게": "께"}[case]
    return particle(text, case)


def predicate(clause: Clause, style: str) -> Stem:
    """The stem of a verb or adjective with honorific, polarity, aspect and modality, before tense."""
    full = style in ("formal", "written")
    honored = clause.subject is not None and clause.subject.noun.honored
    if clause.adjective is not None:
        stem = Stem(clause.adjective.stem.text, clause.adjective.stem.kind, full)
        stem = _honored(stem) if honored else stem
        return Stem(attach(stem, "지 않"), "adjective", full) if clause.polarity else stem
    text = clause.verb.stem.text
    if clause.passive:
        text = text.removesuffix("하") + "되"
    if clause.recipient is not None and clause.recipient.noun.honored and text == "주":
        text = "드리"
    base = Stem(text, "verb", full)
    # The honorific stands on the main verb unless an auxiliary verb takes it.
    on_main = clause.modality in ("", "can", "know_how") and clause.aspect != "progressive"
    if honored and on_main:
        base = _honored(base)
    return _with_auxiliaries(clause, base, honored and not on_main)


def _honored(stem: Stem) -> Stem:
    replaced = _LEXICAL_HONORIFICS.get(stem.text)
    return Stem(replaced, stem.kind, stem.full) if replaced else honorific(stem)


def _with_auxiliaries(clause: Clause, stem: Stem, honored: bool) -> Stem:
    full = stem.full
    if clause.aspect == "progressive":
        return Stem(attach(stem, "고 ") + ("계시" if honored else "있"), "verb" if honored else "exist", full)
    if clause.aspect == "experience":
        return Stem(attach(stem, "으ㄴ 적이 ") + ("없" if clause.polarity else "있"), "exist", full)
    polarity = clause.polarity
    if clause.modality:
        table = _NEGATED_MODALITIES if polarity and clause.modality in _NEGATED_MODALITIES else MODALITIES
        polarity = "" if table is _NEGATED_MODALITIES else polarity
        link, last, kind = table[clause.modality]
        stem = Stem(attach(stem, link) + last, kind, full)
    if polarity == "short":
        stem = Stem(f"안 {stem.text}", stem.kind, full)
    elif polarity == "unable_short":
        stem = Stem(f"못 {stem.text}", stem.kind, full)
    elif polarity == "unable":
        stem = Stem(attach(stem, "지 못하"), "verb", full)
    elif polarity == "long":
        stem = Stem(attach(stem, "지 않"), "adjective" if stem.kind == "adjective" else "verb", full)
    return honorific(stem) if honored else stem


def _before_predicate(clause: Clause, style: str, subject_case: str) -> list[str]:
    """Everything before the predicate: subject, time, circumstances, arguments, manner."""
    words = []
    if clause.subject is not None:
        words.append(cased(clause.subject, subject_case, style))
    for adverb in (clause.time, clause.frequency):
        if adverb is not None:
            words.append(adverb.korean)
    if clause.aspect == "perfect":
        words.append("이미")
    if clause.superlative is not None:
        words.append(f"{noun_phrase(clause.superlative, style)} 중에서 가장")
    if clause.companion is not None:
        words.append(cased(clause.companion, "와", style))
    if clause.place is not None:
        words.append(cased(clause.place, "에서", style))
    if clause.duration is not None:
        words.append(clause.duration.korean)
    if clause.than is not None:
        words.append(cased(clause.than, "보다", style))
    if clause.recipient is not None:
        words.append(cased(clause.recipient, "에게" if clause.verb.recipient == "to" else "에게서", style))
    if clause.purpose is not None:
        words += _before_predicate(clause.purpose, style, "이")
        words.append(attach(predicate(clause.purpose, style), "으러"))
    if clause.argument is not None:
        words.append(cased(clause.argument, clause.verb.particle, style))
    for adverb in (clause.amount, clause.manner, clause.degree):
        if adverb is not None:
            words.append(adverb.korean)
    return words


def _closing(clause: Clause, style: str, mood: str) -> str:
    """The predicate at the end of a sentence."""
    if clause.identity is not None:
        return _copula_closing(clause, style, mood)
    stem = predicate(clause, style)
    if mood in ("request", "proposal"):
        return final(stem, style, mood)
    if clause.tense == "past":
        return final(past(stem), style, mood)
    if clause.tense == "present":
        return final(stem, style, mood)
    if style == "polite":
        return attach(stem, "으ㄹ 거예요")
    if style == "plain" and mood == "question":
        return attach(stem, "으ㄹ 거니")
    return attach(stem, "으ㄹ ") + copula("것", style, mood)


def _copula_closing(clause: Clause, style: str, mood: str) -> str:
    text = _identity(clause, style)
    if clause.polarity:
        stem = Stem("아니", "adjective")
        return particle(text, "이") + " " + final(past(stem) if clause.tense == "past" else stem, style, mood)
    if clause.tense == "past":
        return final(copula_past(text), style, mood)
    return copula(text, style, mood)


def _identity(clause: Clause, style: str) -> str:
    identity = clause.identity
    return noun_phrase(identity, style) if isinstance(identity, NounPhrase) else identity.korean


def _finite(clause: Clause, style: str, mood: str, subject_case: str) -> str:
    return " ".join([*_before_predicate(clause, style, subject_case), _closing(clause, style, mood)])


def _subordinate(relation: str, clause: Clause, style: str) -> str:
    tensed, ending = RELATIONS[relation]
    stem = predicate(clause, style)
    if tensed and clause.tense == "past":
        stem = past(stem)
    if relation == "although" and stem.kind == "adjective":
        ending = "으ㄴ데도"
    return " ".join([*_before_predicate(clause, style, "이"), attach(stem, ending)])


def _link(link: Link, subject_case: str, style: str, close: str) -> str:
    """Two clauses; `close` is the closed predicate of the second. A subject that they share opens the sentence."""
    first = _subordinate(link.relation, link.subordinate, style)
    words = _before_predicate(link.main, style, subject_case)
    words.insert(1 if link.shares_subject else 0, first)
    return " ".join([*words, close])


def _quoted(clause: Clause, style: str) -> str:
    """The predicate of a clause in indirect speech."""
    if clause.identity is not None:
        text = _identity(clause, style)
        return copula_past(text).text + "다고" if clause.tense == "past" else particle(text, "이라고")
    stem = predicate(clause, style)
    if clause.tense == "past":
        return plain(past(stem)) + "고"
    if clause.tense == "future":
        return attach(stem, "으ㄹ 것이라고")
    # An adjective in -jeogida is a copula, which is quoted in -rago.
    return stem.text + "라고" if stem.text.endswith("적이") else plain(stem) + "고"


def _asked_within(clause: Clause, style: str) -> str:
    """The predicate of an indirect question."""
    stem = predicate(clause, style)
    if clause.tense == "future":
        return attach(stem, "으ㄹ지")
    if clause.tense == "past":
        return attach(past(stem), "는지")
    return attach(stem, "으ㄴ지" if stem.kind == "adjective" else "는지")


def _report(report: Report, style: str, mood: str, subject_case: str) -> str:
    content = report.content
    words = [cased(report.subject, subject_case, style)]
    if report.time is not None:
        words.append(report.time.korean)
    if isinstance(content, Link):
        words.append(_link(content, "이", style, _quoted(content.main, style)))
    elif report.asked:
        inner = _before_predicate(content, style, "이")
        if report.asked in _ASKED_WITHIN:
            inner.insert(1, _ASKED_WITHIN[report.asked])
        words += [*inner, _asked_within(content, style)]
    else:
        words += [*_before_predicate(content, style, "이"), _quoted(content, style)]
    outer = Clause(subject=report.subject, verb=report.verb, tense=report.tense)
    return " ".join([*words, _closing(outer, style, mood)])


def _existence(content: Existence, style: str, mood: str) -> str:
    where = f"{noun_phrase(content.place, style)} {content.position.korean}에"
    stem = Stem("없" if content.absent else "있", "exist")
    closing = final(past(stem) if content.tense == "past" else stem, style, mood)
    return f"{where} {cased(content.thing, '이', style)} {closing}"


def _seeming(content: Seeming, style: str, subject_case: str) -> str:
    clause = content.content
    adnominal = _adnominal(predicate(clause, style), clause.tense)
    if clause.adjective is not None and clause.tense == "past":
        adnominal = attach(past(predicate(clause, style)), "던")
    words = [*_before_predicate(clause, style, subject_case), adnominal, "것", final(Stem("같", "adjective"), style)]
    return " ".join(words)


def _judgment(content: Judgment, style: str) -> str:
    words = [*_before_predicate(content.action, style, "이"), attach(predicate(content.action, style), "는"), "것은"]
    stem = Stem(content.adjective.stem.text, content.adjective.stem.kind, style in ("formal", "written"))
    return " ".join([*words, final(past(stem) if content.tense == "past" else stem, style)])


def _wh_question(clause: Clause, style: str, asked: str) -> str:
    words = _before_predicate(clause, style, "은")
    before_manner = len(words) - (clause.manner is not None)
    if asked == "object":
        words.insert(before_manner, "무엇을")
    elif asked == "count":
        words.insert(before_manner, f"몇 {clause.argument.noun.counter}")
    else:
        words.insert(0 if asked == "subject" else 1, _ASKED[asked])
    return " ".join([*words, _closing(clause, style, "question")])


def realize(sentence: Sentence) -> str:
    """The Korean text of a sentence."""
    content, style, mood = sentence.content, sentence.style, sentence.mood
    case = "이" if sentence.nominative else "은"
    if isinstance(content, Clause):
        text = _wh_question(content, style, sentence.asked) if sentence.asked else _finite(content, style, mood, case)
    elif isinstance(content, Link):
        text = _link(content, case, style, _closing(content.main, style, mood))
    elif isinstance(content, Report):
        text = _report(content, style, mood, case)
    elif isinstance(content, Existence):
        text = _existence(content, style, mood)
    elif isinstance(content, Seeming):
        text = _seeming(content, style, case)
    else:
        text = _judgment(content, style)
    if sentence.opener is not None:
        text = f"{sentence.opener.korean} {text}"
    return text + ("?" if mood == "question" else ".")
