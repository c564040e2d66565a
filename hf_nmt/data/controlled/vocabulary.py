"""The words of the controlled language, read from the text files beside this module.

Every file holds sections `[class] defaults` with one word a line: `+ Korean = English | synonym ; options`, where the
plus marks the words of the small corpus. An option is a bare flag or `name=value,value`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from hf_nmt.data.controlled.korean_morphology import Stem

DOMAINS = ("daily", "tech", "business", "education", "health", "news")
_FORMS = ("mass", "unique", "plural", "bare", "name")


@dataclass(frozen=True, eq=False, slots=True)
class Noun:
    """A noun, name or pronoun.

    `form` decides the English article and number: `count`, `mass`, `plural` (has no singular), `unique` (always with
    the), `bare` (never an article), `name`, `pronoun`. `gender` and `family` are set for given names only; `holds`
    names the classes of what may lie in or on a thing. Objects are compared by identity: each word exists once.
    """

    korean: str
    english: str
    synonym: str
    form: str
    classes: frozenset[str]
    domains: tuple[str, ...]
    small: bool
    counter: str = ""
    unit: str = ""
    preposition: str = "at"
    at_phrase: str = ""
    to_phrase: str = ""
    honored: bool = False
    group: bool = False
    plural: bool = False
    gender: str = ""
    family: tuple[str, str] = ("", "")
    holds: frozenset[str] = frozenset()

    def one_of(self, classes: frozenset[str]) -> bool:
        return not self.classes.isdisjoint(classes)


@dataclass(frozen=True, eq=False, slots=True)
class Verb:
    """A verb with the classes of its arguments; `particle` is empty where it takes none but its subject."""

    stem: Stem
    english: str
    synonym: str
    particle: str
    objects: frozenset[str]
    subjects: frozenset[str]
    places: frozenset[str]
    manners: tuple[str, ...]
    degrees: tuple[str, ...]
    recipient: str
    preposition: str
    article: str
    flags: frozenset[str]
    domains: tuple[str, ...]
    small: bool
    ambiguous: bool


@dataclass(frozen=True, eq=False, slots=True)
class Adjective:
    stem: Stem
    english: str
    synonym: str
    of: frozenset[str]
    flags: frozenset[str]
    small: bool
    adnominal: str


@dataclass(frozen=True, eq=False, slots=True)
class Adverbial:
    """A time, manner or degree, Korean with its particle and English with its preposition."""

    korean: str
    english: str
    synonym: str
    section: str
    small: bool


@dataclass(frozen=True, eq=False, slots=True)
class Vocabulary:
    nouns: tuple[Noun, ...]
    people: tuple[Noun, ...]
    titles: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[Adjective, ...]
    times: tuple[Adverbial, ...]
    manners: dict[str, Adverbial]
    degrees: tuple[Adverbial, ...]
    change_degrees: dict[str, Adverbial]


class _Row(NamedTuple):
    """A line of a word list: its section, its own options and the defaults of the section."""

    section: str
    small: bool
    korean: str
    english: str
    synonym: str
    own: dict[str, str]
    defaults: dict[str, str]

    @property
    def classes(self) -> set[str]:
        return {self.section, *_many(self.defaults.get("class", "")), *_many(self.own.get("class", ""))}

    @property
    def flags(self) -> frozenset[str]:
        return frozenset(name for name, value in self.own.items() if not value)


def _lines(name: str) -> Iterator[str]:
    for line in (files(__package__) / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def _rows(name: str) -> Iterator[_Row]:
    section, defaults = "", {}
    for line in _lines(name):
        if line.startswith("["):
            section, _, rest = line[1:].partition("]")
            defaults = _options(rest)
            continue
        words, _, options = line[2:].partition(" ; ")
        korean, _, english = words.partition(" =")
        first, _, second = english.partition("|")
        yield _Row(section, line[0] == "+", korean.strip(), first.strip(), second.strip(), _options(options), defaults)


def _options(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (field.partition("=") for field in text.split()) if name}


def _many(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _noun(row: _Row, extra: dict[str, set[str]]) -> Noun:
    options = row.defaults | row.own
    form = next((form for given in (row.own, row.defaults) for form in _FORMS if form in given), "count")
    return Noun(
        row.korean,
        row.english,
        row.synonym,
        "name" if "kin" in options else form,
        frozenset(row.classes | extra.get(row.korean, set())),
        _many(options.get("domains", "")),
        row.small,
        "" if "uncounted" in options else options.get("counter", ""),
        options.get("unit", ""),
        options.get("prep", "at"),
        options.get("at", "").replace("_", " "),
        options.get("to", "").replace("_", " "),
        "honored" in options and "plainkin" not in options,
        "group" in options,
        "plural" in options,
        holds=frozenset(_many(options.get("holds", ""))),
    )


# Stands for every given name in the file of classes.
_ANYBODY = "@name"


def _extra_classes(rows: list[_Row]) -> dict[str, set[str]]:
    """For each noun the classes that `classes.txt` adds."""
    by_class: dict[str, list[str]] = {"name": [_ANYBODY]}
    for row in rows:
        for name in sorted(row.classes):
            by_class.setdefault(name, []).append(row.korean)
    extra: dict[str, set[str]] = {}
    for line in _lines("classes.txt"):
        name, _, members = line.partition(" = ")
        for member in members.split(", "):
            for korean in by_class.get(member[1:], ()) if member.startswith("@") else (member,):
                extra.setdefault(korean, set()).add(name)
                by_class.setdefault(name, []).append(korean)
    return extra


def _people(classes: set[str]) -> tuple[list[Noun], list[Noun]]:
    """Given names and titles."""
    people, titles = [], []
    every = frozenset({"name", "person", *classes})
    for row in _rows("people.txt"):
        if row.section == "title":
            domains = _many(row.defaults["domains"])
            titles.append(Noun(row.korean, row.english, "", "name", frozenset({"title"}), domains, row.small))
            continue
        korean, english = row.own
        person = Noun(
            row.korean,
            row.english,
            "",
            "name",
            every,
            DOMAINS,
            row.small,
            gender=row.section,
            family=(korean, english),
        )
        people.append(person)
    return people, titles


_VERB_PARTICLES = ("을", "에", "와", "에게", "으로", "에서")
_PERSON = frozenset({"name", "human", "elder", "person"})


def _with_people(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names) | (_PERSON if "person" in names else frozenset())


def _stem(korean: str, kind: str) -> Stem:
    text = korean.removesuffix("다")
    return Stem(text, "exist" if kind == "adjective" and text.endswith(("있", "없")) else kind)


def _verb(row: _Row, senses: int) -> Verb:
    own = row.own
    particle = next((name for name in _VERB_PARTICLES if name in own), "")
    english, preposition = row.english, own.get("prep", "")
    if "goal" in own:
        english, _, preposition = english.rpartition(" ")
    domain = row.section if row.section in DOMAINS else ""
    return Verb(
        _stem(row.korean, "verb"),
        english,
        row.synonym,
        particle,
        _with_people(_many(own.get(particle, ""))),
        _with_people(_many(own.get("s", "person"))),
        frozenset(_many(own.get("at", ""))),
        _many(own.get("how", "")),
        _many(own.get("degree", "")),
        next((name for name in ("to", "from") if name in own), ""),
        preposition,
        own.get("article", ""),
        row.flags | {row.section},
        _many(own.get("domains", domain)) or DOMAINS,
        row.small,
        senses > 1,
    )


def _verbs() -> Iterator[Verb]:
    rows = list(_rows("verbs.txt"))
    senses: dict[str, set[str]] = {}
    for row in rows:
        senses.setdefault(row.korean, set()).add(row.english)
    for row in rows:
        yield _verb(row, len(senses[row.korean]))


def _adjective(row: _Row) -> Adjective:
    of, adnominal = frozenset(_many(row.own["of"])), row.own.get("adnominal", "")
    return Adjective(_stem(row.korean, "adjective"), row.english, row.synonym, of, row.flags, row.small, adnominal)


def _adverbial(row: _Row) -> Adverbial:
    return Adverbial(row.korean, row.english, row.synonym, row.section, row.small)


@cache
def vocabulary() -> Vocabulary:
    """All words; read once."""
    rows = list(_rows("nouns.txt"))
    extra = _extra_classes(rows)
    people, titles = _people(extra[_ANYBODY])
    adverbs = [_adverbial(row) for row in _rows("adverbs.txt")]
    return Vocabulary(
        tuple(_noun(row, extra) for row in rows),
        tuple(people),
        tuple(titles),
        tuple(_verbs()),
        tuple(_adjective(row) for row in _rows("adjectives.txt")),
        tuple(_adverbial(row) for row in _rows("times.txt")),
        {word.korean: word for word in adverbs if word.section == "end"},
        tuple(word for word in adverbs if word.section == "degree"),
        {word.korean: word for word in adverbs if word.section == "change_degree"},
    )


def function_words() -> list[tuple[str, str, str]]:
    """Section (`word` or `particle`), Korean, English."""
    return [(row.section, row.korean, row.english) for row in _rows("function_words.txt")]
