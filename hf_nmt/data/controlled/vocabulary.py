"""The words of the controlled language, read from the text files beside this module.

Every file holds sections `[class] defaults` with one word a line: `+ Korean = English | synonym ; options`, where the
plus marks the words of the small corpus. An option is a bare flag or `name=value,value`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from hf_nmt.data.controlled.korean_morphology import Stem

DOMAINS = ("daily", "tech", "business", "education", "health", "news")
_FORMS = ("mass", "plural", "unique", "bare", "name")


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


def _rows(name: str) -> Iterator[tuple[str, bool, str, list[str], dict[str, str], dict[str, str]]]:
    """Section, small mark, Korean, English alternatives, options of the row, defaults of the section."""
    section, defaults = "", {}
    for line in (files(__package__) / name).read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            section, _, rest = line[1:].partition("]")
            defaults = _options(rest)
            continue
        words, _, rest = line[2:].partition(" ; ")
        korean, _, english = words.partition(" =")
        yield (
            section,
            line[0] == "+",
            korean.strip(),
            [part.strip() for part in english.split("|")],
            _options(rest),
            defaults,
        )


def _options(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (field.partition("=") for field in text.split()) if name}


def _second(english: list[str]) -> str:
    return english[1] if len(english) > 1 else ""


def _many(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _noun(section: str, small: bool, korean: str, english: list[str], own: dict, defaults: dict, extra: dict) -> Noun:
    options = defaults | own
    classes = {section, *_many(defaults.get("class", "")), *_many(own.get("class", "")), *extra.get(korean, ())}
    form = next((form for form in _FORMS if form in options), "count")
    # A kinship noun is a name whose English opens with my; a row may override the form of its section.
    for flag in own:
        form = flag if flag in _FORMS else form
    if "kin" in options:
        form = "name"
    if "unique" in own:
        form = "unique"
    return Noun(
        korean,
        english[0],
        _second(english),
        form,
        frozenset(classes),
        _many(options.get("domains", "")),
        small,
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


def _extra_classes(rows: list[tuple]) -> dict[str, set[str]]:
    by_class: dict[str, list[str]] = {"name": [_ANYBODY]}
    for section, _, korean, _, own, defaults in rows:
        for name in (section, *_many(defaults.get("class", "")), *_many(own.get("class", ""))):
            by_class.setdefault(name, []).append(korean)
    extra: dict[str, set[str]] = {}
    for line in (files(__package__) / "classes.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, members = line.partition(" = ")
        for member in members.split(", "):
            for korean in by_class.get(member[1:], ()) if member.startswith("@") else (member,):
                extra.setdefault(korean, set()).add(name)
                by_class.setdefault(name, []).append(korean)
    return extra


def _people(classes: set[str]) -> tuple[list[Noun], list[Noun]]:
    people, titles = [], []
    for section, small, korean, english, family, defaults in _rows("people.txt"):
        if section == "title":
            domains = _many(defaults["domains"])
            titles.append(Noun(korean, english[0], "", "name", frozenset({"title"}), domains, small))
            continue
        family_korean, family_english = family
        people.append(
            Noun(
                korean,
                english[0],
                "",
                "name",
                frozenset({"name", "person", *classes}),
                DOMAINS,
                small,
                gender=section,
                family=(family_korean, family_english),
            )
        )
    return people, titles


_VERB_PARTICLES = ("을", "에", "와", "에게", "으로", "에서")
_PERSON = frozenset({"name", "human", "elder", "person"})


def _subjects(text: str) -> frozenset[str]:
    names = _many(text or "person")
    return frozenset(names) | (_PERSON if "person" in names else frozenset())


def _stem(korean: str, kind: str) -> Stem:
    text = korean.removesuffix("다")
    if kind == "adjective" and text.endswith(("있", "없")):
        kind = "exist"
    return Stem(text, kind)


def _verbs() -> list[Verb]:
    rows = list(_rows("verbs.txt"))
    senses: dict[str, set[str]] = {}
    for _, _, korean, english, _, _ in rows:
        senses.setdefault(korean, set()).add(english[0])
    verbs = []
    for section, small, korean, english, own, _ in rows:
        particle = next((name for name in _VERB_PARTICLES if name in own), "")
        recipient = next((name for name in ("to", "from") if name in own), "")
        domain = section if section in DOMAINS else ""
        objects = frozenset(_many(own.get(particle, "")))
        base, _, preposition = english[0].rpartition(" ") if "goal" in own else (english[0], "", own.get("prep", ""))
        verbs.append(
            Verb(
                _stem(korean, "verb"),
                base,
                _second(english),
                particle,
                objects | (_PERSON if "person" in objects else frozenset()),
                _subjects(own.get("s", "")),
                frozenset(_many(own.get("at", ""))),
                _many(own.get("how", "")),
                _many(own.get("degree", "")),
                recipient,
                preposition,
                own.get("article", ""),
                frozenset(name for name, value in own.items() if not value) | {section},
                _many(own.get("domains", domain)) or DOMAINS,
                small,
                len(senses[korean]) > 1,
            )
        )
    return verbs


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """All words; read once."""
    rows = list(_rows("nouns.txt"))
    extra = _extra_classes(rows)
    nouns = [_noun(*row, extra) for row in rows]
    people, titles = _people(extra[_ANYBODY])
    adjectives = [
        Adjective(
            _stem(korean, "adjective"), english[0], _second(english), frozenset(_many(own["of"])),
            frozenset(name for name, value in own.items() if not value), small, own.get("adnominal", ""),
        )
        for _, small, korean, english, own, _ in _rows("adjectives.txt")
    ]  # fmt: skip
    times = [_adverbial(*row) for row in _rows("times.txt")]
    adverbs = [_adverbial(*row) for row in _rows("adverbs.txt")]
    return Vocabulary(
        tuple(nouns),
        tuple(people),
        tuple(titles),
        tuple(_verbs()),
        tuple(adjectives),
        tuple(times),
        {word.korean: word for word in adverbs if word.section == "end"},
        tuple(word for word in adverbs if word.section == "degree"),
        {word.korean: word for word in adverbs if word.section == "change_degree"},
    )


def function_words() -> list[tuple[str, str, str]]:
    """Section (`word` or `particle`), Korean, English."""
    return [(section, korean, english[0]) for section, _, korean, english, _, _ in _rows("function_words.txt")]


def _adverbial(section: str, small: bool, korean: str, english: list[str], _own: dict, _defaults: dict) -> Adverbial:
    return Adverbial(korean, english[0], _second(english), section, small)
