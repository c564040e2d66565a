"""Steps that drop pairs by their size and shape: empty sides, copies, lengths, ratios, endings, long words."""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.artifacts import write_json
from hf_nmt.cleaning.byte_search import ending_in, matches, maybe_east_asian, num_words, with_run
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.step import SIDES, CorpusStep, Outcome, Step
from hf_nmt.data.text_bytes import whole

# What a character of these scripts stands for, in Latin letters: 1 plus this. Measured for Hangul on Korean-English
# text (docs/guide/preparing.md); the others follow what is known of Japanese and Chinese.
_WIDER = {r"\p{Hangul}": 1.1, r"[\p{Hiragana}\p{Katakana}]": 0.5, r"\p{Han}": 2.0}
_NOT_SPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WITHOUT_MARKS = r"[\p{Thai}\p{Lao}]"
# A mark that ends a sentence or announces more, and what may close after it.
_MARKS, _CLOSING = ".!?:;", "\t\n\f\r \"')]}*"
_ENDED = (
    f"[{_MARKS}\u2026\u3002\uff0e\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4\u0589\u1362\u17d4\u104b]"
    f"[{re.escape(_CLOSING)}\\p{{Pe}}\\p{{Pf}}\\p{{Pi}}]*$"
)


def size(texts: pa.ChunkedArray) -> pa.Array:
    """Characters of each text, those of denser scripts counted as the Latin letters that they stand for."""
    found = whole(pc.utf8_length(texts))
    dense = maybe_east_asian(texts)
    if not dense.any():
        return found
    numbers, few = found.to_numpy().astype(np.float64), whole(texts).filter(pa.array(dense))
    for script, more in _WIDER.items():
        numbers[dense] += pc.count_substring_regex(few, script).to_numpy() * more
    return pa.array(numbers)


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


class Ratio(CorpusStep):
    """Drops pairs one of whose sides is too long for the other.

    In characters the other is taken as long as it usually is: times the median of target over source over the corpus,
    for each pair of languages; below 100 pairs 1. Czech says in 8 characters what German says in 10.
    """

    version: ClassVar[int] = 2

    max_characters: float = Field(
        2.0,
        gt=1,
        description="longest side, as a multiple of the other, in characters; one of Hangul counts as 2.1 Latin "
        "letters, of kana as 1.5, of Han as 3; beside what is usual for the languages. Of Multi30k's pairs 3 in "
        "10,000 or fewer are beyond 2.",
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

    def measure(self, pairs: pa.Table) -> pa.Table:
        """Counts of the logarithms of target over source, in hundredths, by pair of languages."""
        sizes = self._sizes(pairs)
        there = pc.and_(*(pc.greater(one, 0) for one in sizes))
        source, target = (pc.if_else(there, one, 1.0) for one in sizes)
        return _counted(pairs, {}, pc.divide(target, source), there)

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        counts: dict[tuple[str | None, str | None], Counter[int]] = {}
        for path in measured:
            for row in read_table(path).to_pylist():
                found = counts.setdefault((row["source_language"], row["target_language"]), Counter())
                found[row["hundredths"]] += row["count_all"]
        usual = [[*languages, _median(found)] for languages, found in sorted(counts.items(), key=str)]
        write_json(state / "usual.json", usual)

    @staticmethod
    def usual_lengths(state: Path) -> list[tuple[str | None, str | None, float]]:
        """What `decide` found: source and target language, and how long a target usually is, as a multiple."""
        found = json.loads((state / "usual.json").read_text(encoding="utf-8"))
        return [(source, target, math.exp(hundredths / 100)) for source, target, hundredths in found]

    def _sizes(self, pairs: pa.Table) -> list[pa.Array]:
        return [pc.cast(pc.add(size(pairs[side]), self.spare_characters), pa.float64()) for side in SIDES]

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        source, target = (pairs[side] for side in SIDES)
        usual = pa.nulls(len(pairs), pa.float64())
        for one, other, length in self.usual_lengths(state):
            usual = pc.if_else(_in_languages(pairs, one, other), length, usual)
        left, right = self._sizes(pairs)
        characters = ratio(pc.multiply(left, pc.fill_null(usual, 1.0)), right)
        words = ratio(num_words(source), num_words(target), 2)
        parted = pc.invert(pc.or_(*(matches(text, _NOT_SPACED, maybe_east_asian(text)) for text in (source, target))))
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
    pairs that end on both sides it is taken as 1. Where many sentences have no mark at their end without being cut
    off, as captions, a side must be so much shorter that this cannot be the reason: as many of them as of the pairs
    with both marks are that short by themselves.
    """

    version: ClassVar[int] = 2

    min_ratio: float = Field(
        1.5,
        ge=1,
        description="how much shorter the side is at least than it would usually be, in characters as in `ratio`; 1 "
        "drops all of which one side ends in a mark and the shorter does not",
    )
    min_precision: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="least share of what goes that is estimated to be cut off; the ratio is raised until it holds. "
        "0 leaves it",
    )

    def measure(self, pairs: pa.Table) -> pa.Table:
        """Counts of the logarithms of target over source, in hundredths, by pair of languages and ending sides."""
        ended = _ended(pairs)
        sides = dict(zip(SIDES, ended, strict=True))
        return _counted(pairs, sides, self._target_share(pairs), pc.or_(*ended))

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        counts: dict[tuple[str | None, str | None], dict[tuple[bool, bool], Counter[int]]] = {}
        for path in measured:
            for row in read_table(path).to_pylist():
                pair = counts.setdefault((row["source_language"], row["target_language"]), {})
                ended = row["source"], row["target"]
                pair.setdefault(ended, Counter())[row["hundredths"]] += row["count_all"]
        usual = []
        for languages, found in sorted(counts.items(), key=str):
            both = found.get((True, True), Counter())
            enough = both.total() >= _PAIRS_FOR_A_MEDIAN
            median = _median(both)
            least = [self.min_ratio, self.min_ratio]
            if enough:
                for side, ended in enumerate(((False, True), (True, False))):
                    sign = 1 if side == 0 else -1
                    shorter, likewise = (
                        Counter({sign * (value - median): count for value, count in of.items()})
                        for of in (found.get(ended, Counter()), both)
                    )
                    least[side] = self._least(shorter, likewise)
            usual.append([*languages, median, *least])
        write_json(state / "usual.json", usual)

    def _least(self, unmarked: Counter[int], marked: Counter[int]) -> float:
        """The least ratio at which what has no mark is likely to be cut off, of counts by logarithm of the ratio."""
        if not self.min_precision:
            return self.min_ratio
        least = round(100 * math.log(self.min_ratio))
        for hundredths in range(least, max([*unmarked, least]) + 1):
            tails = [sum(n for value, n in of.items() if value >= hundredths) for of in (unmarked, marked)]
            by_itself = unmarked.total() * (tails[1] + 1) / marked.total()
            # One more of each, as a few prove nothing.
            if tails[0] - by_itself - 1 >= self.min_precision * tails[0]:
                return max(self.min_ratio, math.exp((hundredths - 0.5) / 100))
        return math.inf

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        ended = _ended(pairs)
        if not pc.any(pc.xor(*ended)).as_py():
            return Outcome.dropping(pairs, {})
        usual = pa.nulls(len(pairs), pa.float64())
        least = [pa.nulls(len(pairs), pa.float64()) for _ in SIDES]
        for source, target, hundredths, *ratios in json.loads((state / "usual.json").read_text(encoding="utf-8")):
            those = _in_languages(pairs, source, target)
            usual = pc.if_else(those, math.exp(hundredths / 100), usual)
            least = [pc.if_else(those, value, values) for value, values in zip(ratios, least, strict=True)]
        share = pc.round(pc.divide(self._target_share(pairs), pc.fill_null(usual, 1.0)), 4)
        texts = [pairs[side] for side in SIDES]
        marked = pc.invert(pc.or_(*(matches(text, _WITHOUT_MARKS, maybe_east_asian(text)) for text in texts)))
        shares = {"source": share, "target": pc.round(pc.divide(1.0, share), 4)}
        masks = {}
        for side, itself, other, ratio_of in (("source", *ended, least[0]), ("target", *reversed(ended), least[1])):
            broken_off = pc.and_(pc.and_(other, pc.invert(itself)), marked)
            short = pc.greater_equal(shares[side], pc.fill_null(ratio_of, self.min_ratio))
            masks[f"{side}_broken_off"] = pc.and_(broken_off, short)
        details = pc.if_else(masks["source_broken_off"], shares["source"], shares["target"])
        return Outcome.dropping(pairs, masks, _text_where(pc.or_(*masks.values()), details))

    @staticmethod
    def _target_share(pairs: pa.Table) -> pa.ChunkedArray:
        # Without the mark, which would make the side that has none seem shorter.
        texts = (pc.utf8_rtrim(pairs[side], ".!?:;\u2026\u3002 ") for side in SIDES)
        source, target = (pc.add(pc.cast(size(text), pa.float64()), 10) for text in texts)
        return pc.divide(target, source)


_LANGUAGES = "source_language", "target_language"
_PAIRS_FOR_A_MEDIAN = 100


def _ended(pairs: pa.Table) -> list[pa.Array]:
    """For each side whether it ends in a mark."""
    return [matches(pairs[side], _ENDED, ending_in(pairs[side], _MARKS + _CLOSING)) for side in SIDES]


def _counted(pairs: pa.Table, by: dict[str, pa.Array], share: pa.Array, rows: pa.Array) -> pa.Table:
    """Counts of the logarithms of target over source, in hundredths, by pair of languages and what else is given."""
    columns = {name: pairs[name] for name in _LANGUAGES} | by
    columns["hundredths"] = pc.cast(pc.round(pc.multiply(pc.ln(share), 100)), pa.int32())
    return pa.table(columns).filter(rows).group_by([*columns]).aggregate([([], "count_all")])


def _in_languages(pairs: pa.Table, source: str | None, target: str | None) -> pa.ChunkedArray:
    those = [
        pc.is_null(pairs[name]) if code is None else pc.fill_null(pc.equal(pairs[name], code), False)
        for name, code in zip(_LANGUAGES, (source, target), strict=True)
    ]
    return pc.and_(*those)


def _median(counts: Counter[int]) -> int:
    """The lower median of counted values; 0 where they are too few."""
    if counts.total() < _PAIRS_FOR_A_MEDIAN:
        return 0
    values = sorted(counts)
    seen = itertools.accumulate(counts[value] for value in values)
    return next(value for value, upto in zip(values, seen, strict=True) if 2 * upto >= counts.total())


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
        masks = {}
        for side in SIDES:
            long = with_run(pairs[side], " /", self.max_characters)
            masks[f"{side}_long_word"] = matches(pairs[side], pattern, long)
        return Outcome.dropping(pairs, masks)
