"""Steps that drop pairs by what stands in them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.cleaning.step import SIDES, Outcome, Step


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
            words = pc.count_substring_regex(pairs[side], r"\S+")
            short = pc.or_(pc.less(characters, self.min_characters), pc.less(words, self.min_words))
            long = pc.or_(pc.greater(characters, self.max_characters), pc.greater(words, self.max_words))
            masks |= {f"{side}_short": short, f"{side}_long": long}
        return Outcome.dropping(pairs, masks)
