"""One language under several codes: `de`, `deu`, `de_DE`, `deu_Latn`."""

from __future__ import annotations

import re
from collections.abc import Sequence

# ISO 639-1 and ISO 639-3, and the bibliographic code of ISO 639-2 where it is another one (deu, ger); behind them the
# individual languages (639-3) that are usually meant where the first is a macrolanguage. Dialects that have to be
# named, such as those of Arabic, are not among them.
_ISO_639 = """
aa aar|ab abk|ae ave|af afr|ak aka twi|am amh|an arg|ar ara arb|as asm|av ava|ay aym ayr|az aze azj azb|ba bak|be bel
bg bul|bi bis|bm bam|bn ben|bo bod tib|br bre|bs bos|ca cat|ce che|ch cha|co cos|cr cre|cs ces cze|cu chu|cv chv
cy cym wel|da dan|de deu ger|dv div|dz dzo|ee ewe|el ell gre|en eng|eo epo|es spa|et est ekk|eu eus baq|fa fas per pes
ff ful fuv|fi fin|fj fij|fo fao|fr fra fre|fy fry|ga gle|gd gla|gl glg|gn grn gug|gu guj|gv glv|ha hau|he heb|hi hin
ho hmo|hr hrv|ht hat|hu hun|hy hye arm|hz her|ia ina|id ind|ie ile|ig ibo|ii iii|ik ipk|io ido|is isl ice|it ita
iu iku|ja jpn|jv jav|ka kat geo|kg kon|ki kik|kj kua|kk kaz|kl kal|km khm|kn kan|ko kor|kr kau knc|ks kas
ku kur kmr ckb|kv kom|kw cor|ky kir|la lat|lb ltz|lg lug|li lim|ln lin|lo lao|lt lit|lu lub|lv lav lvs|mg mlg plt
mh mah|mi mri mao|mk mkd mac|ml mal|mn mon khk|mr mar|ms msa may zsm|mt mlt|my mya bur|na nau|nb nob|nd nde|ne nep npi
ng ndo|nl nld dut|nn nno|no nor nob nno|nr nbl|nv nav|ny nya|oc oci|oj oji|om orm gaz|or ori ory|os oss|pa pan|pi pli
pl pol|ps pus pbt|pt por|qu que quy|rm roh|rn run|ro ron rum|ru rus|rw kin|sa san|sc srd|sd snd|se sme|sg sag|si sin
sk slk slo|sl slv|sm smo|sn sna|so som|sq sqi alb als|sr srp|ss ssw|st sot|su sun|sv swe|sw swa swh|ta tam|te tel
tg tgk|th tha|ti tir|tk tuk|tl tgl fil|tn tsn|to ton|tr tur|ts tso|tt tat|tw twi|ty tah|ug uig|uk ukr|ur urd
uz uzb uzn|ve ven|vi vie|vo vol|wa wln|wo wol|xh xho|yi yid ydd|yo yor|za zha|zh zho chi cmn|zu zul
"""
_SAME: dict[str, set[str]] = {}
_TWO_LETTERS: dict[str, str] = {}
_ENTRIES = [entry.split() for entry in re.split(r"[|\n]", _ISO_639.strip())]
for _short, *_long in _ENTRIES:
    _TWO_LETTERS[_long[0]] = _short
    for _code in (_short, *_long):
        _SAME.setdefault(_code, set()).update((_short, *_long) if _code == _short else (_code, _short, _long[0]))
for _short, *_long in _ENTRIES:  # what is a language of its own, such as nno, is that first
    for _code in _long:
        _TWO_LETTERS.setdefault(_code, _short)

# Regions that stand for a script, as Chinese is written in two.
_SCRIPTS = {"cn": "hans", "sg": "hans", "tw": "hant", "hk": "hant", "mo": "hant"}
_ANY_REGION = "xx"  # as in mBART's en_XX


def same_language(wanted: str, known: Sequence[str]) -> list[str]:
    """The codes among `known` that can stand for a language: of the same language, and not of another script or
    region where both are named.

    Codes are two or three letters, with a script (four letters) or a region, in any case, joined by `-` or `_`.
    """
    language, marks = _parts(wanted)
    same = _SAME.get(language, {language})
    found = []
    for code in known:
        other, others = _parts(code)
        if other in same and all(others.get(kind, mark) == mark for kind, mark in marks.items()):
            found.append(code)
    return found


def two_letters(code: str) -> str:
    """The language of a code by its ISO 639-1 code, where it has one: `deu_Latn` -> `de`, `ger` -> `de`."""
    language = _parts(code.strip())[0]
    return _TWO_LETTERS.get(language, language)


def is_known(code: str) -> bool:
    """Whether the language of a code is one of ISO 639-1, by either of its codes."""
    return _parts(code)[0] in _SAME


def _parts(code: str) -> tuple[str, dict[str, str]]:
    """The language of a code, and its script and region where they are named."""
    language, *rest = re.split("[-_]", code.lower().strip("_"))  # M2M100 may write __de__
    marks: dict[str, str] = {}
    for part in rest:
        if len(part) == 4 and part.isalpha():
            marks["script"] = part
        elif part != _ANY_REGION:
            marks["region"] = part
    if language in _SAME["zh"] and "script" not in marks and (script := _SCRIPTS.get(marks.get("region", ""))):
        marks["script"] = script
    return language, marks
