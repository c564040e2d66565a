"""Long input: a text is cut into sentences and put together again with its own white space.

Models trained on single sentences drop what follows the first few. The boundaries come from `sentencex` (rules for
some three hundred languages, no download); it is looked up when first needed, as this file travels with saved models.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)

INSTALL_SPLITTER = "Install it with: pip install sentencex"

# Where to cut a sentence that is too long, best first: after a clause, then between words. A comma between digits is
# part of a number. Chinese and Japanese write no space after punctuation, nor do Burmese and Khmer always.
_CUTS = (
    re.compile(
        r"[,;:]\s+|\s+[\u2013\u2014-]\s+|[\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u104a\u104b\u17d4\u17d5]\s*"
    ),
    re.compile(r"\s+"),
)

# The ends of Khmer sentences, which sentencex does not know; between two of them the letter lo means "and so on".
_KHMER_ENDS = re.compile(r"(?<=[\u17d4\u17d5])(?![\u17d4\u17d5]|\u179b\u17d4)")

# Scripts with no spaces at all: kana, Chinese characters, their punctuation, full-width forms.
_NO_SPACES = re.compile(r"[\u3000-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
# Scripts with spaces between sentences and clauses, but not between words: Thai, Lao, Tibetan, Burmese, Khmer.
_NO_WORD_SPACES = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f]")
# What tells the script of a sentence: its letters, and marks that only such scripts have.
_NO_LETTER = re.compile(r"[\W\d_]")


@dataclass(frozen=True)
class SplitText:
    """A text as consecutive pieces, each a sentence with the white space around it; joined they are the text.

    Attributes:
        pieces: the pieces, in order.
        num_cut: how often a sentence had to be cut because it was too long.
    """

    pieces: tuple[str, ...]
    num_cut: int = 0

    @functools.cached_property
    def sentences(self) -> list[str]:
        """What there is to translate: the pieces without white space around them, empty ones left out."""
        return [sentence for piece in self.pieces if (sentence := piece.strip())]

    def cut(self, fits: Callable[[str], bool]) -> SplitText:
        """Cut every sentence for which `fits` is false: near its middle, best at a clause, else between words, and
        where there is neither, between characters."""
        pieces, num_cut = [], 0
        for piece in self.pieces:
            parts = _halves(piece, fits)
            pieces.extend(parts)
            num_cut += len(parts) - 1
        return SplitText(tuple(pieces), self.num_cut + num_cut)

    def join(self, translations: Sequence[str]) -> str:
        """Put one translation per sentence into the white space of the text.

        A missing space is added where the script of the translation writes one and that of the text does not, such as
        from Chinese to English or Thai, and from Thai, cut within a sentence, to English. A single space is dropped
        where Chinese or Japanese comes of another script. Where a translation is empty, its neighbours are apart as if
        its sentence had not been there. Everything else stays as it is.
        """
        parts: list[str] = []
        gaps = [""]  # since the last translation that is not empty
        source = before = ""
        remaining = iter(translations)
        for piece in self.pieces:
            sentence = piece.strip()
            if not sentence:
                gaps[-1] += piece
                continue
            start = piece.index(sentence)
            gaps[-1] += piece[:start]
            translation = next(remaining)
            if translation:
                parts += [_fitting(gaps, source, before), translation]
                source, before, gaps = sentence, translation, []
            gaps.append(piece[start + len(sentence) :])
        return "".join([*parts, *gaps])


def _fitting(gaps: list[str], source: str, before: str) -> str:
    """The gap after the translation `before` of `source`; `gaps` are those of the text up to the next translation,
    several where those between are empty."""
    gap = " " if " " in gaps and set(gaps) <= {"", " "} else "".join(gaps)
    if not before or gap not in ("", " "):
        return gap
    spaces, spaces_of_source = _spaces(before), _spaces(source)
    if gap:
        return gap if spaces or not spaces_of_source else ""
    return " " if spaces > spaces_of_source else ""


def _spaces(sentence: str) -> int:
    """Where the script that a sentence ends in writes spaces, as its last letter tells: 0 nowhere, 1 between sentences
    and clauses, 2 between words."""
    for character in reversed(sentence):
        if _NO_SPACES.match(character):
            return 0
        if _NO_WORD_SPACES.match(character):
            return 1
        if not _NO_LETTER.match(character):
            return 2
    return 2


def _halves(piece: str, fits: Callable[[str], bool]) -> list[str]:
    sentence = piece.strip()
    if len(sentence) < 2 or fits(sentence):
        return [piece]
    length, middle = len(piece), len(piece) / 2
    for pattern in _CUTS:
        ends = [match.end() for match in pattern.finditer(piece) if length * 0.2 < match.end() < length * 0.8]
        if ends:
            cut = min(ends, key=lambda end: abs(end - middle))
            break
    else:
        cut = piece.index(sentence) + len(sentence) // 2
    return _halves(piece[:cut], fits) + _halves(piece[cut:], fits)


@functools.cache
def _segmenter() -> Callable[[str, str], list[str]] | None:
    try:
        from sentencex import segment
    except ImportError:
        return None
    return segment


@functools.cache
def _warn_without_splitter() -> None:
    logger.warning("The package sentencex is not installed: texts are not split into sentences. %s", INSTALL_SPLITTER)


def has_splitter() -> bool:
    """Whether texts can be split into sentences here."""
    return _segmenter() is not None


def split_text(text: str, language: str | None, mode: bool | Literal["auto"] = "auto") -> SplitText:
    """Split a text into what is translated at a time.

    Args:
        text: any text; line breaks and other white space are kept for `SplitText.join`.
        language: code of the text's language, such as `de`, `zh-TW` or `deu_Latn`; None for rules that suit most.
        mode: True for every sentence on its own; "auto" for the same, but where sentencex is not installed for every
            line on its own, with one warning; False for the text as it is.

    Raises:
        ValueError: `mode` is True and sentencex is not installed.
    """
    if mode is False:
        return SplitText((text,))
    segment = _segmenter()
    if segment is None:
        if mode is True:
            raise ValueError(f"Splitting texts into sentences needs the package sentencex. {INSTALL_SPLITTER}")
        _warn_without_splitter()
    code = re.split(r"[-_]", language)[0].lower() if language else "en"
    lines = text.splitlines(keepends=True)
    if segment is None:
        return SplitText(tuple(lines))
    pieces = (piece for line in lines for piece in segment(code, line))
    if code in ("km", "khm"):
        pieces = (part for piece in pieces for part in _KHMER_ENDS.split(piece))
    return SplitText(tuple(pieces))
