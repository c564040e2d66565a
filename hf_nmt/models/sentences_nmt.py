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
# part of a number. Chinese and Japanese write no space after punctuation.
_CUTS = (
    re.compile(r"[,;:]\s+|\s+[\u2013\u2014-]\s+|[\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f]\s*"),
    re.compile(r"\s+"),
)

# Scripts written without spaces between sentences: kana, Chinese characters, their punctuation, full-width forms,
# Thai, Lao, Burmese, Khmer.
_NO_SPACES = re.compile(
    r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
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

        A missing space is added where a script without spaces became one with spaces, and a single space is dropped in
        the opposite case; everything else stays as it is.
        """
        parts: list[str] = []
        gap = before = ""
        remaining = iter(translations)
        for piece in self.pieces:
            sentence = piece.strip()
            if not sentence:
                gap += piece
                continue
            start = piece.index(sentence)
            gap += piece[:start]
            translation = next(remaining)
            parts.append(_fitting(gap, before, parts[-1] if parts else "", translation))
            parts.append(translation)
            before = sentence
            gap = piece[start + len(sentence) :]
        return "".join([*parts, gap])


def _fitting(gap: str, source: str, before: str, after: str) -> str:
    """The gap between two translations, where `gap` followed `source`, of which the first is the translation."""
    if not before or not after or gap not in ("", " "):
        return gap
    with_spaces = _ends_with_spaces(before)
    return gap if with_spaces == _ends_with_spaces(source) else " " * with_spaces


def _ends_with_spaces(sentence: str) -> bool:
    """Whether a sentence ends in a script that is written with spaces, as its last letter tells."""
    for character in reversed(sentence):
        if _NO_SPACES.match(character):
            return False
        if not _NO_LETTER.match(character):
            return True
    return True


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
    return SplitText(tuple(piece for line in lines for piece in segment(code, line)))
