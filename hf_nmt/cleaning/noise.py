"""Noise on source texts: mistakes that writers make, so that a model learns to read them.

Words are left out or change places as in Lample et al. (2018, section 3.3), letters give way to their neighbours on
the keyboard of the language as in Belinkov and Bisk (2018). What holds a number or an address is neither left out nor
changed, as the target says it too.
"""

from __future__ import annotations

import functools
import random
import re
from typing import Self

import pydantic
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError

# Languages that are not written in words: there single characters change places or go.
_WITHOUT_BLANKS = {"zh", "ja", "th", "lo", "km", "my"}
_KEPT = re.compile(r"\d|@|://|www\.", re.IGNORECASE)
_MARK = re.compile(r"[^\w\s]")
_CLOSING = re.compile(r"(?<=\w)[^\w\s]+$")

_QWERTY = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_QWERTZ = ("qwertzuiop\u00fc", "asdfghjkl\u00f6\u00e4", "yxcvbnm")
_AZERTY = ("azertyuiop", "qsdfghjklm", "wxcvbn")
_CYRILLIC = (
    "\u0439\u0446\u0443\u043a\u0435\u043d\u0433\u0448\u0449\u0437\u0445\u044a",
    "\u0444\u044b\u0432\u0430\u043f\u0440\u043e\u043b\u0434\u0436\u044d",
    "\u044f\u0447\u0441\u043c\u0438\u0442\u044c\u0431\u044e",
)
_DUBEOLSIK = (
    "\u3142\u3148\u3137\u3131\u3145\u315b\u3155\u3151\u3150\u3154",
    "\u3141\u3134\u3147\u3139\u314e\u3157\u3153\u314f\u3163",
    "\u314b\u314c\u314a\u314d\u3160\u315c\u3161",
)
_KEYBOARDS = {
    **dict.fromkeys(("de", "cs", "sk", "hu", "sl", "hr"), _QWERTZ),
    "fr": _AZERTY,
    **dict.fromkeys(("ru", "uk", "bg", "be"), _CYRILLIC),
    "ko": _DUBEOLSIK,
}
# How far the rows of keys stand to the right of the first, in keys.
_OFFSETS = (0.0, 0.25, 0.75)
_FARTHEST = 1.3
# Jamo in the order in which syllables count them: first consonants, and vowels. Unicode 15, section 3.12.
_CONSONANTS = (
    "\u3131\u3132\u3134\u3137\u3138\u3139\u3141\u3142\u3143\u3145"
    "\u3146\u3147\u3148\u3149\u314a\u314b\u314c\u314d\u314e"
)
_VOWELS = "".join(map(chr, range(0x314F, 0x3164)))
_FIRST_SYLLABLE, _LAST_SYLLABLE = 0xAC00, 0xD7A3
_OF_A_CONSONANT, _OF_A_VOWEL = 588, 28


class Noise(Settings):
    """Copies with mistakes in the source; the target stays."""

    copies: int = Field(1, ge=1, le=10, description="copies of each record, each with mistakes of its own")
    drop: float = Field(
        0.05, ge=0, le=0.5, description="probability that a word is left out, one without digits; one word stays"
    )
    swap: float = Field(0.1, ge=0, le=1, description="probability that a word moves to the right")
    swap_window: int = Field(3, ge=1, description="no word comes to stand farther from its place than so many words")
    typo: float = Field(
        0.02, ge=0, le=0.5, description="probability that a letter gives way to a neighbour on the keyboard"
    )
    case: float = Field(
        0.05, ge=0, le=1, description="probability that the sentence is in small letters, capitals or Title Case"
    )
    punctuation: float = Field(0.1, ge=0, le=1, description="probability that a punctuation mark is left out")

    @pydantic.model_validator(mode="after")
    def _does_something(self) -> Self:
        if not any((self.drop, self.swap, self.typo, self.case, self.punctuation)):
            raise ConfigError(
                "noise: all probabilities are 0, so that no copy would differ. Raise one, or leave it out."
            )
        if "swap_window" in self.model_fields_set and not self.swap:
            raise ConfigError("swap_window: it would change nothing with swap=0. Raise swap, or leave it out.")
        return self

    def noisy(self, text: str, language: str | None, key: str) -> str:
        """A text with mistakes, the same for the same key; white space becomes single blanks.

        Args:
            language: code, for the keyboard and for whether there are blanks between words.
            key: of the random numbers. Each kind of mistake has its own, so none depends on another's probability.
        """
        primary = (language or "").split("-")[0].split("_")[0].lower()
        if self.case and (draw := random.Random(f"{key} case")).random() < self.case:
            change = draw.choice((str.lower, str.upper, str.title))
            text = " ".join(word if _KEPT.search(word) else change(word) for word in text.split())
        words = text.split()
        if self.typo:
            draw = random.Random(f"{key} typo")
            words = [word if _KEPT.search(word) else self._mistyped(word, primary, draw) for word in words]
        if self.punctuation:
            draw = random.Random(f"{key} punctuation")
            words = [word if _KEPT.search(word) else self._unmarked(word, draw) for word in words]
        # What closes a sentence stays at its end, whatever moves.
        closing = _CLOSING.search(words[-1]) if words and not _KEPT.search(words[-1]) else None
        if closing:
            words[-1] = words[-1][: closing.start()]
        joint = "" if primary in _WITHOUT_BLANKS else " "
        units = [unit for word in words if word for unit in ([word] if joint or _KEPT.search(word) else word)]
        if self.drop:
            draw = random.Random(f"{key} drop")
            left = [unit for unit in units if draw.random() >= self.drop or _KEPT.search(unit)]
            units = left or units[:1]
        if self.swap:
            # A place plus a number below window + 1: what stands more than the window apart stays in its order.
            draw = random.Random(f"{key} swap")
            moves = [(draw.random() < self.swap) * draw.uniform(0, self.swap_window + 1) for _ in units]
            units = [units[place] for place in sorted(range(len(units)), key=lambda place: place + moves[place])]
        return joint.join(units) + (closing[0] if closing else "")

    def _mistyped(self, word: str, language: str, draw: random.Random) -> str:
        return "".join(
            _neighbour(letter, language, draw) if letter.isalpha() and draw.random() < self.typo else letter
            for letter in word
        )

    def _unmarked(self, word: str, draw: random.Random) -> str:
        return _MARK.sub(lambda mark: "" if draw.random() < self.punctuation else mark[0], word)


def _neighbour(letter: str, language: str, draw: random.Random) -> str:
    """What stands on a key beside that of a letter; the letter itself where its keyboard is not known."""
    if language == "ko" and _FIRST_SYLLABLE <= ord(letter) <= _LAST_SYLLABLE:
        return _korean_neighbour(letter, draw)
    around = neighbours(_KEYBOARDS.get(language, _QWERTY)).get(letter.lower())
    if not around:
        return letter
    other = draw.choice(around)
    return other.upper() if letter.isupper() else other


def _korean_neighbour(syllable: str, draw: random.Random) -> str:
    """Another first consonant or vowel of a syllable; its last consonant stays."""
    place = ord(syllable) - _FIRST_SYLLABLE
    consonant, vowel, last = place // _OF_A_CONSONANT, place % _OF_A_CONSONANT // _OF_A_VOWEL, place % _OF_A_VOWEL
    keys = neighbours(_DUBEOLSIK)
    if draw.random() < 0.5:
        found = [_CONSONANTS.index(key) for key in keys.get(_CONSONANTS[consonant], "") if key in _CONSONANTS]
        consonant = draw.choice(found) if found else consonant
    else:
        found = [_VOWELS.index(key) for key in keys.get(_VOWELS[vowel], "") if key in _VOWELS]
        vowel = draw.choice(found) if found else vowel
    return chr(_FIRST_SYLLABLE + _OF_A_CONSONANT * consonant + _OF_A_VOWEL * vowel + last)


@functools.cache
def neighbours(rows: tuple[str, ...]) -> dict[str, str]:
    """The keys around each key of a keyboard, in the order of the rows."""
    places = {
        key: (offset + column, row)
        for row, (keys, offset) in enumerate(zip(rows, _OFFSETS, strict=True))
        for column, key in enumerate(keys)
    }
    return {
        key: "".join(
            other
            for other, (right, below) in places.items()
            if other != key and (right - x) ** 2 + (below - y) ** 2 <= _FARTHEST**2
        )
        for key, (x, y) in places.items()
    }
