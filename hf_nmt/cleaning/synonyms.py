"""Other words of the same meaning on the English side, of a lexicon or of WordNet.

Words are taken as they stand, in any case, and not in other forms: "dogs" gets the synonyms of "dogs". WordNet gives
the single words of a word's most frequent sense; function words and inflected forms are left out. Words inside a
sentence that begin with a capital stay: they are mostly names.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.data.text_lines import read_lines
from hf_nmt.errors import DataError, NmtError, need

Lookup = Callable[[str], tuple[str, ...]]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_OPENING = " \t\"'([\u2018\u201c\u00ab"  # between the end of a sentence and the first word of the next
_VOWELS = frozenset("aeiou")
_FUNCTION_WORDS = frozenset(
    "a about above after again against all also am an and any are around as at back be because been before behind "
    "being below beside between both but by can could did do does doing done down during each either else ever "
    "every few for from get gets getting go goes going got had has have having he her here hers him his how i if "
    "in inside into is it its just like lot many may me might mine more most much must my near no nor not now of "
    "off on once one only onto or other our out outside over own same she should since so some still such than "
    "that the their them then there these they this those three through to together too toward two under until up "
    "upon us very was we well were what when where whether which while who whom whose why will with within "
    "without would yes yet you your".split()
)
_NO_WORDNET = (
    "WordNet is not installed for nltk. Fetch it once, where there is a network: python -m nltk.downloader wordnet. "
    "Or give augment.synonyms.lexicon a file."
)


class Synonyms(Settings):
    """Copies with other words of the same meaning on their English side."""

    lexicon: Path | None = Field(
        None,
        description="file of a word and its synonyms on a line, with tabs between; null takes WordNet, which nltk "
        "(extra wordnet) must have",
    )
    copies: int = Field(1, ge=1, le=10, description="copies of each record, each with words of its own")
    probability: float = Field(0.15, gt=0, le=1, description="that a word with synonyms is replaced")

    def lookup(self) -> Lookup:
        """
        Raises:
            DataError: the lexicon is none.
            NmtError: there is no WordNet.
        """
        return wordnet() if self.lexicon is None else read_lexicon(self.lexicon).__getitem__

    def replaced(self, text: str, key: str) -> str:
        """A text with other words, the same for the same key."""
        return replaced(text, self.lookup(), self.probability, random.Random(key))


class _Lexicon(dict[str, tuple[str, ...]]):
    def __missing__(self, word: str) -> tuple[str, ...]:
        return ()


@functools.lru_cache(maxsize=2)
def read_lexicon(path: Path) -> _Lexicon:
    """Synonyms by word, in small letters; of lines with one word all count.

    Raises:
        DataError: it cannot be read, or a line is none, with its number.
    """
    found: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        word, *others = (cell.strip() for cell in line.split("\t"))
        if not _WORD.fullmatch(word) or not any(others):
            raise DataError(
                f"{path}, line {number}: a single word, a tab and its synonyms, with tabs between, are needed: "
                f"{line[:60]!r}"
            )
        known = found.setdefault(word.lower(), {})
        known |= {other: None for other in others if other and other.lower() != word.lower()}
    lexicon = _Lexicon({word: tuple(others) for word, others in found.items() if others})
    if not lexicon:
        raise DataError(f"{path}: there is no word with a synonym in it.")
    return lexicon


def _corpus() -> Any:
    return need("nltk.corpus", "wordnet").wordnet


@functools.lru_cache(maxsize=1)
def wordnet() -> Lookup:
    """
    Raises:
        NmtError: nltk or its WordNet is not installed.
    """
    corpus = _corpus()
    try:
        corpus.ensure_loaded()
    except LookupError as error:
        raise NmtError(_NO_WORDNET) from error

    @functools.lru_cache(maxsize=2**16)
    def synonyms(word: str) -> tuple[str, ...]:
        # What is also a form of another word, as "dancing", would get synonyms in a form that does not fit.
        if word in _FUNCTION_WORDS or any(corpus.morphy(word, kind) not in (None, word) for kind in "nvar"):
            return ()
        lemmas = [lemma for lemma in corpus.lemmas(word) if lemma.name().lower() == word]
        if not lemmas:
            return ()
        sense = max(lemmas, key=lambda lemma: lemma.count()).synset()
        names = (lemma.name() for lemma in sense.lemmas())
        return tuple(name for name in names if name.lower() != word and name.islower() and _WORD.fullmatch(name))

    return synonyms


def digest_of(settings: Synonyms) -> str:
    """What tells this lexicon from others."""
    if settings.lexicon is not None:
        return hashlib.sha256(settings.lexicon.read_bytes()).hexdigest()
    wordnet()
    return f"wordnet {_corpus().get_version()}"


def replaced(text: str, lookup: Lookup, probability: float, draw: random.Random) -> str:
    """A text with some words replaced by synonyms; "a" and "an" go by the new word.

    Args:
        lookup: synonyms of a word in small letters.
        probability: that a word with synonyms is replaced.
        draw: random numbers.
    """
    pieces: list[str] = []
    end, article = 0, -1  # of the last word; where in `pieces` it stands, if it is an article
    for match in _WORD.finditer(text):
        word, gap = match[0], text[end : match.start()]
        pieces.append(gap)
        before = text[: match.start()].rstrip(_OPENING)
        begins = not before or before[-1] in ".!?"
        others = lookup(word.lower()) if begins or word[0].islower() or (word.isupper() and text.isupper()) else ()
        new = word
        if others and draw.random() < probability:
            new = _in_case_of(word, draw.choice(others))
            vowel = new[0].lower() in _VOWELS
            if article >= 0 and gap.isspace() and vowel != (word[0].lower() in _VOWELS):
                pieces[article] = pieces[article][0] + ("N" if text.isupper() else "n") * vowel
        pieces.append(new)
        end, article = match.end(), len(pieces) - 1 if word.lower() in ("a", "an") else -1
    return "".join([*pieces, text[end:]])


def _in_case_of(word: str, other: str) -> str:
    if len(word) > 1 and word.isupper():
        return other.upper()
    return other[0].upper() + other[1:] if word[0].isupper() else other
