"""Steps that bring texts into one form; what cannot be read any more goes."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.cleaning.step import SIDES, Outcome, Step
from hf_nmt.data.text_bytes import whole

# Never part of a text: control characters, soft hyphens, spaces of no width, marks of byte order. Joiners and marks of
# direction stay, as Persian, Hebrew and Indian languages need them.
_CONTROL = (
    r"[\x00-\x08\x0e-\x1b\x7f-\x{84}\x{86}-\x{9f}\x{ad}\x{200b}\x{2060}\x{feff}\x{fff9}-\x{fffb}\x{fffe}\x{ffff}]"
)
_SPACES = r"\t\n\x0b\f\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});"
# What no reader can tell apart, or writers mean the same by.
_ALIKE = {"\u2010": "-", "\u2011": "-", "\u2012": "\u2013", "\u2015": "\u2014", "\u2026": "...", "\u201f": "\u201c"}
_PLAIN = {"\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"', "\u2018": "'", "\u2019": "'",
          "\u201a": "'", "\u201b": "'", "\u2039": "'", "\u203a": "'"}  # fmt: skip


class Normalise(Step):
    """Brings texts into one form: composed characters, single spaces, no control characters, no entities of HTML."""

    form: Literal["NFC", "NFKC"] = Field(
        "NFC",
        description="unicode normal form: NFC only composes letters with their marks, and the parts of Hangul, which "
        "changes no meaning. NFKC also makes full-width letters narrow and takes ligatures apart, but turns 10\u00b2 "
        "into 102 and Chinese punctuation into English.",
    )
    entities: bool = Field(
        True, description="write entities of HTML, such as &amp; and &#39;, as the characters that they stand for"
    )
    punctuation: Literal["keep", "alike", "plain"] = Field(
        "alike",
        description="alike makes one of the hyphens, dashes and dots of omission that look alike; plain also writes "
        "the quotes and apostrophes of all languages as those of the keyboard, where a translation need not have its "
        "own; keep leaves all",
    )

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        return Outcome.changing(pairs, {side: _until_same(whole(pairs[side]), self._once) for side in SIDES})

    def _once(self, texts: pa.Array) -> pa.Array:
        texts = replaced(texts, _CONTROL, "")
        if self.entities:
            texts = each(texts, pc.match_substring_regex(texts, _ENTITY), _without_entities)
        other = pc.invert(pc.string_is_ascii(texts))
        if pc.any(other).as_py():
            texts = pc.replace_with_mask(texts, other, pc.utf8_normalize(texts.filter(other), self.form))
        rows = pc.match_substring_regex(texts, rf"[{_SPACES}]|  ")
        if pc.any(rows).as_py():
            spaced = pc.replace_substring_regex(texts.filter(rows), rf"[ {_SPACES}]+", " ")
            texts = pc.replace_with_mask(texts, rows, spaced)
        texts = pc.utf8_trim(texts, " ")
        signs = {"keep": {}, "alike": _ALIKE, "plain": _ALIKE | _PLAIN}[self.punctuation]
        if signs:
            table = str.maketrans(signs)
            rows = pc.match_substring_regex(texts, f"[{''.join(signs)}]")
            texts = each(texts, rows, lambda text: text.translate(table))
        return texts


def _without_entities(text: str) -> str:
    return re.sub(_ENTITY, lambda found: _character(found[0]), text)


def _character(entity: str) -> str:
    character = html.unescape(entity)
    return "" if character == "\x00" or unicodedata.category(character[0]) == "Cs" else character


# Bytes of UTF-8 read one by one as Latin-1, or as Windows-1252, whose five gaps are read as Latin-1.
_BYTES = {chr(byte): byte for byte in range(0x80, 0x100)}
_BYTES |= {bytes([byte]).decode("cp1252"): byte for byte in range(0x80, 0xA0) if byte not in b"\x81\x8d\x8f\x90\x9d"}
_LATER = "".join(sorted(sign for sign, byte in _BYTES.items() if byte < 0xC0))
_GARBLED = f"[\u00c2-\u00df][{_LATER}]|[\u00e0-\u00ef][{_LATER}]{{2}}|[\u00f0-\u00f4][{_LATER}]{{3}}"
_SEQUENCE = re.compile(_GARBLED)
# What good text has after a letter too: spaces, closing quotes, dashes, dots, signs of trade.
_MAY_FOLLOW = frozenset(
    "\u00a0\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u2013\u2014\u2039\u203a\u2122\u00ae\u00b7"
)
_SCRIPTS = (
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "ARABIC",
    "HEBREW",
    "HANGUL",
    "HIRAGANA",
    "KATAKANA",
    "CJK",
    "THAI",
    "DEVANAGARI",
)
# Never in good text, in any language.
_LOST = "\ufffd|[\u00c2\u00c3][" + "".join(sorted(set(_LATER) - _MAY_FOLLOW)) + "]|\u00e2\u20ac"


class Mojibake(Step):
    """Mends UTF-8 that was read as Latin-1 or Windows-1252, once or more often; drops what cannot be mended.

    A text is mended where all its suspicious sequences are UTF-8 again and give letters or marks that texts are
    written with, and at least one of them is never met in good text. It comes before `normalise`, which would remove
    control characters that are half of a letter here.
    """

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        texts = {side: _until_same(whole(pairs[side]), _mend) for side in SIDES}
        masks = {f"{side}_mojibake": pc.match_substring_regex(found, _LOST) for side, found in texts.items()}
        return Outcome.dropping(Outcome.changing(pairs, texts).pairs, masks)


def _mend(texts: pa.Array) -> pa.Array:
    return each(texts, pc.match_substring_regex(texts, _GARBLED), mended)


def mended(text: str) -> str:
    """A text with UTF-8 that was read as Windows-1252 read rightly; as it is where that is in doubt."""
    found = _SEQUENCE.findall(text)
    if all(_MAY_FOLLOW.issuperset(sequence[1:]) for sequence in found) or not all(map(_meant, found)):
        return text
    return _SEQUENCE.sub(lambda sequence: _meant(sequence[0]), text)


def _meant(sequence: str) -> str:
    """The character whose bytes these are; "" where there is none, or none that texts are written with."""
    try:
        character = bytes(_BYTES[sign] for sign in sequence).decode("utf-8")
    except UnicodeDecodeError:
        return ""
    code = ord(character)
    # What Windows-1252 has may be garbled again.
    if character in _BYTES or code == 0xFEFF or 0x2000 <= code < 0x2C00 or 0x3000 <= code < 0x3040 or code >= 0x1F000:
        return character
    phonetic = 0x250 <= code < 0x370
    return character if unicodedata.name(character, "").startswith(_SCRIPTS) and not phonetic else ""


def replaced(texts: pa.Array, pattern: str, by: str) -> pa.Array:
    """pa.Array with a pattern of RE2 replaced, which is looked for first: few have it."""
    rows = pc.match_substring_regex(texts, pattern)
    if not pc.any(rows).as_py():
        return texts
    return pc.replace_with_mask(texts, rows, pc.replace_substring_regex(texts.filter(rows), pattern, by))


def each(texts: pa.Array, rows: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """pa.Array with those of some rows changed one by one."""
    if not pc.any(rows).as_py():
        return texts
    return pc.replace_with_mask(texts, rows, pa.array(map(change, texts.filter(rows).to_pylist()), pa.string()))


def _until_same(texts: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """pa.Array changed again until nothing changes: what one change brings about may be matter for another."""
    after = change(texts)
    rows = pc.not_equal(texts, after)
    while pc.any(rows).as_py():
        texts = after
        after = pc.replace_with_mask(texts, rows, change(texts.filter(rows)))
        rows = pc.not_equal(texts, after)
    return after
