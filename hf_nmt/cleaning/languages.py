"""Steps that drop pairs whose sides are in other languages, or in other scripts, than they should be."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.cleaning.step import SIDES, Outcome, Step
from hf_nmt.data.text_bytes import whole
from hf_nmt.language import identify, identify_others, known_languages, primary
from hf_nmt.models.language_codes_nmt import two_letters

# Scripts of ISO 15924 -> classes of RE2.
_CLASSES = {
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cyrl": "Cyrillic", "Deva": "Devanagari",
    "Ethi": "Ethiopic", "Geor": "Georgian", "Grek": "Greek", "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hang": "Hangul",
    "Hans": "Han", "Hant": "Han", "Hani": "Han", "Hebr": "Hebrew", "Khmr": "Khmer", "Knda": "Kannada", "Laoo": "Lao",
    "Latn": "Latin", "Mlym": "Malayalam", "Mymr": "Myanmar", "Olck": "Ol_Chiki", "Orya": "Oriya", "Sinh": "Sinhala",
    "Taml": "Tamil", "Telu": "Telugu", "Tfng": "Tifinagh", "Thai": "Thai", "Tibt": "Tibetan",
}  # fmt: skip
_JAPANESE = ("Han", "Hiragana", "Katakana")
# Too close to be told apart in a sentence: none is dropped for being another of its row.
_CLOSE = ("no nb nn da sv", "hr sr bs sl", "id ms jv su", "cs sk", "es gl pt ca", "bg mk", "ru uk be", "hi mr ne",
          "zh yue", "af nl", "xh zu", "az tr", "ur fa")  # fmt: skip


class LanguageCheck(Step):
    """Drops pairs with a side in another language than it says, by the detector of `hf_nmt.language`; pairs whose
    sides are in each other's language have a reason of their own. What the detector is not sure of stays, and so do
    texts too short to tell, languages that it does not know, and its near relatives."""

    version: ClassVar[int] = 2

    min_probability: float = Field(
        0.995,
        gt=0,
        le=1,
        description="how sure the detector must be of another language, among that one, the one that it should be and "
        "the near relatives of this; names of people and places seldom come to 0.99",
    )
    min_letters: int = Field(
        20,
        ge=1,
        description="letters of a text that is long enough to tell, about four words; one of Hangul counts as two, "
        "of Han as three. For swapped sides both together must have as many.",
    )

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        reasons: list[str | None] = [None] * len(pairs)
        details: list[str | None] = [None] * len(pairs)
        columns = [pairs[name].to_pylist() for name in ("source_language", "target_language")]
        rows: dict[tuple[str | None, str | None], list[int]] = {}
        for row, languages in enumerate(zip(*columns, strict=True)):
            rows.setdefault(languages, []).append(row)
        for languages, places in rows.items():
            texts = [pairs[side].take(places).to_pylist() for side in SIDES]
            for row, (reason, detail) in zip(places, self._judged(languages, *texts), strict=True):
                reasons[row], details[row] = reason, detail
        return Outcome(pairs, pa.array(reasons, pa.string()), pa.array(details, pa.string()))

    def _judged(
        self, languages: tuple[str | None, str | None], sources: list[str], targets: list[str]
    ) -> list[tuple[str | None, str | None]]:
        expected = [primary(code) if code and primary(code) in _known() else None for code in languages]
        sizes = [[_letters(text) for text in texts] for texts in (sources, targets)]
        found = [
            self._others(code, texts) if code else [None] * len(texts)
            for code, texts in zip(expected, (sources, targets), strict=True)
        ]
        judged: list[tuple[str | None, str | None]] = []
        for row, (one, other) in enumerate(zip(*found, strict=True)):
            enough = sizes[0][row] + sizes[1][row] >= self.min_letters
            if enough and self._swapped(expected, one, other, sources[row], targets[row]):
                judged.append(("swapped_sides", None))
            elif one and sizes[0][row] >= self.min_letters:
                judged.append(("source_language", one))
            elif other and sizes[1][row] >= self.min_letters:
                judged.append(("target_language", other))
            else:
                judged.append((None, None))
        return judged

    def _others(self, expected: str, texts: list[str]) -> list[str | None]:
        """What each text is in where that is surely not the language expected."""
        found = identify_others(texts, sorted(_near(expected) & _known()))
        return [code if round(probability, 4) >= self.min_probability else None for code, probability in found]

    def _swapped(
        self, expected: Sequence[str | None], one: str | None, other: str | None, source: str, target: str
    ) -> bool:
        """Whether each side is, of the two languages, in the other's."""
        if not (one or other) or None in expected or expected[1] in _near(str(expected[0])):
            return False
        found = identify([source, target], [str(code) for code in expected])
        return [code for code, _ in found] == [*reversed(expected)] and all(
            round(probability, 4) >= self.min_probability for _, probability in found
        )


def _letters(text: str) -> int:
    """Letters of a text, those of syllables and words counted as the Latin letters that they stand for."""
    count = 0
    for character in text:
        if character.isalpha():
            count += 1 if character < "\u2e80" else 2 if "\uac00" <= character <= "\ud7a3" else 3
    return count


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(known_languages())


@functools.cache
def _near(language: str) -> frozenset[str]:
    return frozenset([language, *(code for row in _CLOSE if language in row.split() for code in row.split())])


class Script(Step):
    """Drops pairs with a side that has too few of its letters in the script of its language. A side without letters
    stays, and so does one whose language has no known script."""

    min_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="least share of the letters that are in the script of the language; a Korean sentence of foreign "
        "names may have 0.4, a source that was never translated has 0",
    )

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        masks = {
            reason: pa.array([False] * len(pairs)) for reason in ("swapped_sides", "source_script", "target_script")
        }
        columns = [pairs[f"{side}_language"] for side in SIDES]
        for codes in sorted(set(zip(*(column.to_pylist() for column in columns), strict=True)), key=str):
            scripts = [scripts_of(code) if code else () for code in codes]
            those = pa.array([True] * len(pairs))
            for column, code in zip(columns, codes, strict=True):
                same = pc.is_null(column) if code is None else pc.fill_null(pc.equal(column, code), False)
                those = pc.and_(those, same)
            wrong = [pc.and_(those, self._wrong(pairs[side], own)) for side, own in zip(SIDES, scripts, strict=True)]
            for side, found in zip(SIDES, wrong, strict=True):
                masks[f"{side}_script"] = pc.or_(masks[f"{side}_script"], found)
            if all(scripts) and pc.any(both := pc.and_(*wrong)).as_py():
                for side, other in zip(SIDES, reversed(scripts), strict=True):
                    both = pc.and_(both, pc.invert(self._wrong(pairs[side], other)))
                masks["swapped_sides"] = pc.or_(masks["swapped_sides"], both)
        return Outcome.dropping(pairs, masks)

    def _wrong(self, texts: pa.ChunkedArray, classes: Sequence[str]) -> pa.Array:
        if not classes:
            return pa.array([False] * len(texts))
        own = "".join(rf"\p{{{name}}}" for name in classes)
        texts = whole(texts)
        rows = pc.match_substring_regex(texts, rf"[^\P{{L}}{own}]")
        wrong = pa.array([False] * len(texts))
        if not pc.any(rows).as_py():
            return wrong
        few = texts.filter(rows)
        others = pc.count_substring_regex(few, rf"[^\P{{L}}{own}]")
        letters = pc.count_substring_regex(few, r"\p{L}")
        share = pc.round(pc.subtract(1.0, pc.divide(pc.cast(others, pa.float64()), letters)), 4)
        return pc.replace_with_mask(wrong, rows, pc.less(share, self.min_share))


@functools.cache
def scripts_of(code: str) -> tuple[str, ...]:
    """Scripts that a language is written in, as RE2 names them; () where none is known.

    A script in the code (`sr-Latn`, `deu_Latn`) is the one; else those in which NLLB has the language.
    """
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    parts = code.replace("_", "-").split("-")
    named = [part.title() for part in parts[1:] if len(part) == 4 and part.isalpha()]
    language = two_letters(parts[0].lower())
    if language == "ja" or "Jpan" in named:
        return _JAPANESE
    if not named:
        known = (entry.split("_") for entry in FAIRSEQ_LANGUAGE_CODES)
        named = sorted({script for name, script in known if two_letters(name) == language})
        named = ["Hani"] if language == "zh" else named
    if not named or not all(name in _CLASSES for name in named):
        return ()
    extra = ("Han",) if "Hang" in named else ()
    return (*dict.fromkeys(_CLASSES[name] for name in named), *extra)
