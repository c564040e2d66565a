"""Steps that drop pairs by their size and shape: empty sides, copies, lengths, ratios, endings, long words."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.artifacts import write_json
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.step import SIDES, CorpusStep, Outcome, Step

# What a character of these scripts stands for, in Latin letters: 1 plus this. Measured for Hangul on Korean-English
# text (docs/guide/preparing.md); the others follow what is known of Japanese and Chinese.
_WIDER = {r"\p{Hangul}": 1.1, r"[\p{Hiragana}\p{Katakana}]": 0.5, r"\p{Han}": 2.0}
_NOT_SPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WITHOUT_MARKS = r"[\p{Thai}\p{Lao}]"
# A mark that ends a sentence or announces more, and what may close after it.
_ENDED = "[.!?:;\u2026\u3002\uff0e\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u17d4\u104b]" + (
    r"[\s\"')\]}*\p{Pe}\p{Pf}\p{Pi}]*$"
)


def num_words(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words of each text, parted by white space."""
    stripped = pc.utf8_trim_whitespace(texts)
    parts = pc.list_value_length(pc.utf8_split_whitespace(stripped))
    return pc.if_else(pc.equal(stripped, ""), 0, parts)


def size(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Characters of each text, those of denser scripts counted as the Latin letters that they stand for."""
    found = pc.utf8_length(texts)
    if pc.all(pc.string_is_ascii(texts)).as_py():
        return found
    for script, more in _WIDER.items():
        if pc.any(pc.match_substring_regex(texts, script)).as_py():
            found = pc.add(found, pc.multiply(pc.count_substring_regex(texts, script), more))
    return found


def ratio(left: Any, right: Any, spare: int = 0) -> pa.ChunkedArray:
    """The larger over the smaller, `spare` added to both; infinite for 0 and something. Rounded to 4 digits."""
    left, right = (pc.cast(pc.add(one, spare), pa.float64()) for one in (left, right))
    found = pc.divide(pc.max_element_wise(left, right), pc.min_element_wise(left, right))
    return pc.round(pc.if_else(pc.equal(left, right), 1.0, found), 4)


class EmptyAndCopies(Step):
    """Drops pairs with an empty side, and pairs whose sides are the same text."""

    copies: bool = Field(True, description="drop pairs with the same text on both sides")

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        stripped = [pc.utf8_trim_whitespace(pairs[side]) for side in SIDES]
        masks = {f"{side}_empty": pc.equal(text, "") for side, text in zip(SIDES, stripped, strict=True)}
        if self.copies:
            masks["copy"] = pc.equal(*stripped)
        return Outcome.dropping(pairs, masks)


class Lengths(Step):
    """Drops pairs with a side that is too short or too long for a sentence."""

    min_characters: int = Field(1, ge=1, description="fewest characters of either side")
    max_characters: int = Field(1000, ge=1, description="most characters of either side")
    min_words: int = Field(1, ge=1, description="fewest words of either side, parted by white space")
    max_words: int = Field(150, ge=1, description="most words of either side")

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        masks: dict[str, pa.ChunkedArray] = {}
        for side in SIDES:
            characters = pc.utf8_length(pairs[side])
            words = num_words(pairs[side])
            short = pc.or_(pc.less(characters, self.min_characters), pc.less(words, self.min_words))
            long = pc.or_(pc.greater(characters, self.max_characters), pc.greater(words, self.max_words))
            masks |= {f"{side}_short": short, f"{side}_long": long}
        return Outcome.dropping(pairs, masks)


class Ratio(Step):
    """Drops pairs one of whose sides is too long for the other."""

    max_characters: float = Field(
        2.0,
        gt=1,
        description="longest side, as a multiple of the other, in characters; one of Hangul counts as 2.1 Latin "
        "letters, of kana as 1.5, of Han as 3. Of Multi30k's pairs 1 in 10,000 or fewer are beyond 2.",
    )
    max_words: float = Field(
        3.0,
        gt=1,
        description="the same in words, 2 added to both; not for pairs with a script that does not part them",
    )
    spare_characters: int = Field(
        15, ge=0, description="characters added to both sides first, so that short sentences have more room"
    )
    tokenizer: str | None = Field(None, description="folder of a tokenizer; null counts no tokens")
    max_tokens: float = Field(3.0, gt=1, description="as max_words, in tokens of `tokenizer`")

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        source, target = (pairs[side] for side in SIDES)
        characters = ratio(size(source), size(target), self.spare_characters)
        words = ratio(num_words(source), num_words(target), 2)
        parted = pc.invert(
            pc.or_(pc.match_substring_regex(source, _NOT_SPACED), pc.match_substring_regex(target, _NOT_SPACED))
        )
        masks = {
            "character_ratio": pc.greater(characters, self.max_characters),
            "word_ratio": pc.and_(parted, pc.greater(words, self.max_words)),
        }
        measured = {"character_ratio": characters, "word_ratio": words}
        if self.tokenizer is not None:
            tokenizer = tokenizer_of(self.tokenizer)
            given = {"text": source.to_pylist()}, {"text_target": target.to_pylist()}
            ids = [tokenizer(**texts, add_special_tokens=False)["input_ids"] for texts in given]
            counts = [pa.array([len(found) for found in one]) for one in ids]
            tokens = ratio(counts[0], counts[1], 2)
            masks["token_ratio"] = pc.greater(tokens, self.max_tokens)
            measured["token_ratio"] = tokens
        details = pc.coalesce(*(_text_where(masks[reason], measured[reason]) for reason in masks))
        return Outcome.dropping(pairs, masks, details)

    def files(self) -> Iterable[Path]:
        return [] if self.tokenizer is None else [Path(self.tokenizer)]


@functools.cache
def tokenizer_of(folder: str) -> Any:
    """A tokenizer, loaded once. It brings torch with it, whose seconds are not spent where nobody counts tokens."""
    from hf_nmt.tokenizer_training import load_tokenizer

    return load_tokenizer(folder)


class Endings(CorpusStep):
    """Drops pairs one of whose sides ends a sentence where the other breaks off, and is shorter than usual by far.

    How long a target usually is for its source is the median over the corpus, for each pair of languages; below 100
    pairs that end on both sides it is taken as 1.
    """

    min_ratio: float = Field(
        1.5,
        ge=1,
        description="how much shorter the side is at least than it would usually be, in characters as in `ratio`; 1 "
        "drops all of which one side ends in a mark and the shorter does not",
    )

    def measure(self, pairs: pa.Table) -> pa.Table:
        """Counts of the logarithms of target over source, in hundredths, by pair of languages."""
        ended = pc.and_(*(pc.match_substring_regex(pairs[side], _ENDED) for side in SIDES))
        hundredths = pc.cast(pc.round(pc.multiply(pc.ln(self._target_share(pairs)), 100)), pa.int32())
        columns = {name: pairs[name] for name in _LANGUAGES} | {"hundredths": hundredths}
        return pa.table(columns).filter(ended).group_by([*columns]).aggregate([([], "count_all")])

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        counts: dict[tuple[str | None, str | None], Counter[int]] = {}
        for path in measured:
            for row in read_table(path).to_pylist():
                pair = counts.setdefault((row["source_language"], row["target_language"]), Counter())
                pair[row["hundredths"]] += row["count_all"]
        usual = []
        for languages, found in sorted(counts.items(), key=str):
            middle = (found.total() + 1) // 2
            seen = itertools.accumulate(found[value] for value in sorted(found))
            median = next(value for value, upto in zip(sorted(found), seen, strict=True) if upto >= middle)
            usual.append([*languages, median if found.total() >= _PAIRS_FOR_A_MEDIAN else 0])
        write_json(state / "usual.json", usual)

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        ended = [pc.match_substring_regex(pairs[side], _ENDED) for side in SIDES]
        if not pc.any(pc.xor(*ended)).as_py():
            return Outcome.dropping(pairs, {})
        usual = pa.nulls(len(pairs), pa.float64())
        for source, target, hundredths in json.loads((state / "usual.json").read_text(encoding="utf-8")):
            those = pc.and_(
                *(_equal(pairs[name], code) for name, code in zip(_LANGUAGES, (source, target), strict=True))
            )
            usual = pc.if_else(those, math.exp(hundredths / 100), usual)
        share = pc.round(pc.divide(self._target_share(pairs), pc.fill_null(usual, 1.0)), 4)
        marked = pc.invert(pc.or_(*(pc.match_substring_regex(pairs[side], _WITHOUT_MARKS) for side in SIDES)))
        shares = {"source": share, "target": pc.round(pc.divide(1.0, share), 4)}
        masks = {}
        for side, itself, other in (("source", *ended), ("target", *reversed(ended))):
            broken_off = pc.and_(pc.and_(other, pc.invert(itself)), marked)
            masks[f"{side}_broken_off"] = pc.and_(broken_off, pc.greater_equal(shares[side], self.min_ratio))
        details = pc.if_else(masks["source_broken_off"], shares["source"], shares["target"])
        return Outcome.dropping(pairs, masks, _text_where(pc.or_(*masks.values()), details))

    @staticmethod
    def _target_share(pairs: pa.Table) -> pa.ChunkedArray:
        source, target = (pc.add(pc.cast(size(pairs[side]), pa.float64()), 10) for side in SIDES)
        return pc.divide(target, source)


_LANGUAGES = "source_language", "target_language"
_PAIRS_FOR_A_MEDIAN = 100


def _equal(codes: pa.ChunkedArray, code: str | None) -> pa.ChunkedArray:
    return pc.is_null(codes) if code is None else pc.fill_null(pc.equal(codes, code), False)


def _text_where(rows: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.Array:
    if not pc.any(rows).as_py():
        return pa.nulls(len(rows), pa.string())
    return pc.cast(pc.if_else(rows, values, None), pa.string())


class LongWords(Step):
    """Drops pairs with a word that no writer meant: a hash, a run of one letter, text that lost its spaces."""

    max_characters: int = Field(
        50,
        ge=1,
        le=900,
        description="longest word of either side, in characters, parted by white space or a slash; scripts that do "
        "not part words are left out. The longest of Multi30k have 34, those of German law 60 and more.",
    )

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        pattern = _NOT_SPACED.replace("[", r"[^\s/", 1) + f"{{{self.max_characters + 1}}}"
        masks = {f"{side}_long_word": pc.match_substring_regex(pairs[side], pattern) for side in SIDES}
        return Outcome.dropping(pairs, masks)
