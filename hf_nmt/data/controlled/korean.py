"""From meaning to Korean text."""

from __future__ import annotations

from functools import lru_cache

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
    sino_number,
)
from hf_nmt.data.controlled.meaning import Clause, Existence, Link, NounPhrase, Report, Sentence

# Auxiliary constructions: what the stem before takes, and the stem that follows it.
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
_NEGATED_MODALITIES = {"can": ("으ㄹ 수 ", "없", "exist"), "may": ("으면 안 ", "되", "verb"), "must": ("지 않아도 ", "되", "verb"),
                       "know_how": ("으ㄹ 줄 ", "모르", "verb")}  # fmt: skip
_LEXICAL_HONORIFICS = {"먹": "드시", "마시": "드시", "자": "주무시", "있": "계시"}
# What a subordinate clause ends in; `past:` goes on the past stem where the clause is past.
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
_COPULA_LINKS = {"but": "이지만", "because": "이어서", "because_of": "이기 때문에", "if": "이면", "and": "이고"}
_PRONOUN_STYLES = {"나": "저"}
_LOW_STYLES = ("plain", "written")


@lru_cache(maxsize=None)
def counted(number: int, counter: str) -> str:
    """A number with its counter; native numerals, and digits from thirty on."""
    if counter in ("건", "편", "점") and number > 20 or number >= 30:
        return f"{number}{counter}"
    return f"{native_number(number)} {counter}"


def noun_phrase(phrase: NounPhrase, style: str) -> str:
    """A noun phrase without its case particle."""
    noun = phrase.noun
    if noun.form == "pronoun":
        return noun.korean if style in _LOW_STYLES else _PRONOUN_STYLES.get(noun.korean, noun.korean)
    if noun.gender:
        name = noun.family[0] + noun.korean if phrase.full_name or phrase.title else noun.korean
        if phrase.title:
            return f"{name} {phrase.title.korean}"
        return name if style in _LOW_STYLES else f"{name} 씨"
    words = []
    if phrase.determiner:
        words.append(phrase.determiner)
    if phrase.owner is not None:
        owner = noun_phrase(phrase.owner, style)
        words.append(owner if owner == "우리" else particle(owner, "의"))
    if phrase.relative is not None:
        words.append(_relative(phrase.relative, style))
    if phrase.modifier is not None:
        words.append(_before_noun(phrase.modifier))
    words.append(noun.korean + ("들" if phrase.number == 0 else ""))
    if phrase.counted:
        words.append(counted(phrase.number, noun.counter))
    return " ".join(words)


def _before_noun(adjective) -> str:
    if adjective.stem.text == "새롭":
        return "새"
    return adjective.adnominal or _adnominal(adjective.stem, "present")


def _adnominal(stem: Stem, tense: str) -> str:
    if tense == "present":
        return present_adnominal(stem)
    return attach(stem, "으ㄴ" if tense == "past" else "으ㄹ")


def _relative(clause: Clause, style: str) -> str:
    stem = predicate(clause, style)
    return " ".join([*_before_predicate(clause, style, "이"), _adnominal(stem, clause.tense)])


def cased(phrase: NounPhrase, case: str, style: str) -> str:
    """A noun phrase with a particle; `은` marks the topic and `이` the subject."""
    text = noun_phrase(phrase, style)
    if phrase.marker and case in ("은", "이", "을"):
        return text + phrase.marker
    if phrase.noun.honored and case in ("은", "이", "에게"):
        return text + {"은": "께서는", "이": "께서", "에게": "께"}[case]
    return particle(text, case)


def predicate(clause: Clause, style: str) -> Stem:
    """The stem of the predicate with honorific, polarity, aspect and modality, before tense. Not for the copula."""
    full = style in ("formal", "written")
    honored = clause.subject is not None and clause.subject.noun.honored
    if clause.adjective is not None:
        stem = clause.adjective.stem
        stem = Stem(stem.text, stem.kind, full)
        if honored:
            stem = honorific(stem)
        return Stem(attach(stem, "지 않"), "adjective", full) if clause.polarity else stem
    text = clause.verb.stem.text
    if clause.passive:
        text = text[:-1] + "되"
    base = Stem(text, "verb", full)
    if clause.recipient is not None and clause.recipient.noun.honored and text == "주":
        base = Stem("드리", "verb", full)
    if honored and (clause.modality in ("", "can", "may") and not clause.aspect):
        base = honor(base)
        honored = False
    return _auxiliaries(clause, base, honored, full)


def honor(stem: Stem) -> Stem:
    replaced = _LEXICAL_HONORIFICS.get(stem.text)
    return Stem(replaced, "verb", stem.full) if replaced else honorific(stem)


def _auxiliaries(clause: Clause, stem: Stem, honored: bool, full: bool) -> Stem:
    if clause.polarity and clause.modality in _NEGATED_MODALITIES:
        link, last, kind = _NEGATED_MODALITIES[clause.modality]
        return _honored_last(Stem(attach(stem, link) + last, kind, full), honored)
    if clause.modality:
        link, last, kind = MODALITIES[clause.modality]
        stem = Stem(attach(stem, link) + last, kind, full)
    if clause.aspect == "progressive":
        return Stem(attach(stem, "고 ") + ("계시" if honored else "있"), "verb" if honored else "exist", full)
    if clause.aspect == "experience":
        return Stem(attach(stem, "으ㄴ 적이 ") + ("없" if clause.polarity else "있"), "exist", full)
    if clause.polarity == "an":
        stem = Stem("안 " + stem.text, stem.kind, full)
    elif clause.polarity == "mot_short":
        stem = Stem("못 " + stem.text, stem.kind, full)
    elif clause.polarity == "mot":
        stem = Stem(attach(stem, "지 못하"), "verb", full)
    elif clause.polarity:
        stem = Stem(attach(stem, "지 않"), stem.kind if stem.kind == "adjective" else "verb", full)
    return _honored_last(stem, honored)


def _honored_last(stem: Stem, honored: bool) -> Stem:
    return honorific(stem) if honored else stem


def _before_predicate(clause: Clause, style: str, subject_case: str) -> list[str]:
    """Everything before the predicate, in Korean order: subject, time, circumstances, arguments, manner."""
    words = []
    if clause.subject is not None:
        words.append(cased(clause.subject, subject_case, style))
    if clause.time is not None:
        words.append(clause.time.korean)
    if clause.frequency is not None:
        words.append(clause.frequency.korean)
    if clause.aspect == "perfect":
        words.append("이미")
    if clause.superlative is not None:
        words.append(f"{noun_phrase(clause.superlative, style)} 중에서 가장")
    if clause.companion is not None:
        words.append(particle(noun_phrase(clause.companion, style), "와"))
    if clause.place is not None:
        words.append(particle(noun_phrase(clause.place, style), "에서"))
    if clause.duration is not None:
        words.append(clause.duration.korean)
    if clause.than is not None:
        words.append(particle(noun_phrase(clause.than, style), "보다"))
    if clause.recipient is not None:
        words.append(cased(clause.recipient, "에게" if clause.verb.recipient == "to" else "에게서", style))
    if clause.goal_purpose is not None:
        words += _before_predicate(clause.goal_purpose, style, "이")
        words.append(attach(predicate(clause.goal_purpose, style), "으러"))
    if clause.argument is not None:
        words.append(cased(clause.argument, clause.verb.particle, style))
    if clause.amount is not None:
        words.append(clause.amount.korean)
    if clause.manner is not None:
        words.append(clause.manner.korean)
    if clause.degree is not None:
        words.append(clause.degree.korean)
    return words


def _identity(clause: Clause, style: str) -> str:
    if isinstance(clause.identity, NounPhrase):
        return noun_phrase(clause.identity, style)
    return clause.identity.korean


def _subordinate(relation: str, clause: Clause, style: str) -> str:
    words = _before_predicate(clause, style, "이")
    tensed, ending = RELATIONS[relation]
    if clause.identity is not None:
        return " ".join([*words, _identity(clause, style) + _COPULA_LINKS[relation]])
    stem = predicate(clause, style)
    if tensed and clause.tense == "past":
        stem = past(stem)
    elif tensed and clause.tense == "future":
        stem = Stem(attach(stem, "으ㄹ 것이"), "copula", stem.full)
    if relation == "although" and stem.kind == "adjective":
        ending = "으ㄴ데도"
    return " ".join([*words, attach(stem, ending)])


def _finite(clause: Clause, style: str, mood: str, subject_case: str) -> str:
    words = _before_predicate(clause, style, subject_case)
    return " ".join([*words, _closing(clause, style, mood)])


def _closing(clause: Clause, style: str, mood: str) -> str:
    if clause.identity is not None:
        text = _identity(clause, style)
        if clause.polarity:
            stem = Stem("아니", "adjective")
            return particle(text, "이") + " " + final(past(stem) if clause.tense == "past" else stem, style, mood)
        if clause.tense == "past":
            return final(copula_past(text), style, mood)
        return copula(text, style, mood)
    stem = predicate(clause, style)
    if mood in ("request", "proposal"):
        return final(stem, style, mood)
    if clause.tense == "past":
        return final(past(stem), style, mood)
    if clause.tense == "future":
        return _future(stem, style, mood)
    return final(stem, style, mood)


def _future(stem: Stem, style: str, mood: str) -> str:
    if style == "polite":
        return attach(stem, "으ㄹ 거예요")
    if style == "plain" and mood == "question":
        return attach(stem, "으ㄹ 거니")
    return attach(stem, "으ㄹ ") + copula("것", style, mood)


def _quoted(clause: Clause, style: str) -> str:
    """A clause in indirect speech."""
    words = _before_predicate(clause, style, "이")
    if clause.identity is not None:
        text = _identity(clause, style)
        if clause.tense == "past":
            return " ".join([*words, copula_past(text).text + "다고"])
        return " ".join([*words, particle(text, "이라고")])
    stem = predicate(clause, style)
    if clause.tense == "past":
        closing = plain(past(stem)) + "고"
    elif clause.tense == "future":
        closing = attach(stem, "으ㄹ 것이라고")
    else:
        # The copula is quoted in -rago.
        closing = stem.text + "라고" if stem.text.endswith("적이") else plain(stem) + "고"
    return " ".join([*words, closing])


def _link_head(link: Link, style: str, subject_case: str) -> tuple[list[str], Clause]:
    """The words up to the main clause, and that clause; a shared subject moves to the front."""
    shared = link.subordinate.subject is None and (link.subordinate.verb is None or "weather" not in link.subordinate.verb.flags)
    if not shared:
        return [_subordinate(link.relation, link.subordinate, style)], link.main
    return [cased(link.main.subject, subject_case, style), _subordinate(link.relation, link.subordinate, style)], link.main


def _link(link: Link, style: str, mood: str, subject_case: str) -> str:
    head, main = _link_head(link, style, subject_case)
    if len(head) == 1:
        return " ".join([*head, _finite(main, style, mood, subject_case)])
    words = _before_predicate(main, style, subject_case)[1:]
    return " ".join([*head, *words, _closing(main, style, mood)])


def _quoted_link(link: Link, style: str) -> str:
    head, main = _link_head(link, style, "이")
    quoted = _quoted(main, style)
    if len(head) == 2:
        quoted = quoted[len(cased(main.subject, "이", style)) + 1 :]
    return " ".join([*head, quoted])


def _report(report: Report, style: str, mood: str, subject_case: str) -> str:
    content = report.content
    quoted = _quoted_link(content, style) if isinstance(content, Link) else _quoted(content, style)
    words = [cased(report.subject, subject_case, style)]
    if report.time is not None:
        words.append(report.time.korean)
    clause = Clause(subject=report.subject, verb=report.verb, tense=report.tense)
    return " ".join([*words, quoted, _closing(clause, style, mood)])


_ASKED = {"subject": "누가", "place": "어디에서", "time": "언제", "reason": "왜"}


def realize(sentence: Sentence) -> str:
    """The Korean text of a sentence."""
    content, style, mood = sentence.content, sentence.style, sentence.mood
    if isinstance(content, Existence):
        return _existence(content, style, mood)
    case = "이" if sentence.nominative else "은"
    if isinstance(content, Report):
        text = _report(content, style, mood, case)
    elif isinstance(content, Link):
        text = _link(content, style, mood, case)
    elif sentence.asked:
        text = _wh_question(content, style, sentence.asked)
    else:
        text = _finite(content, style, mood, case)
    if sentence.opener is not None:
        text = f"{sentence.opener.korean} {text}"
    return text + ("?" if mood == "question" else ".")


def _existence(content: Existence, style: str, mood: str) -> str:
    where = f"{noun_phrase(content.place, style)} {content.position.korean}에"
    stem = Stem("없" if content.absent else "있", "exist")
    closing = final(past(stem) if content.tense == "past" else stem, style, mood)
    return f"{where} {cased(content.thing, '이', style)} {closing}" + ("?" if mood == "question" else ".")


def _wh_question(clause: Clause, style: str, asked: str) -> str:
    argument = clause.argument
    if asked == "count":
        clause.argument = None
    words = _before_predicate(clause, style, "은")
    clause.argument = argument
    if asked == "object":
        words.insert(len(words) - (clause.manner is not None), "무엇을")
    elif asked == "count":
        noun = clause.argument.noun
        words.insert(len(words) - (clause.manner is not None), f"{noun.korean} 몇 {particle(noun.counter, '을')}")
    else:
        words.insert(0 if asked == "subject" else 1, _ASKED[asked])
    return " ".join([*words, _closing(clause, style, "question")])


def duration(number: int, unit: str, digits: bool) -> str:
    """`세 시간`, `3년`, `삼 년`."""
    if digits:
        return f"{number}{unit}"
    native = unit in ("시간", "달")
    return f"{native_number(number) if native else sino_number(number)} {unit}"
