"""Pairs whose sides do not belong together, told by a lexicon that is learnt from the corpus itself.

IBM Model 1 (`ibm_model_1`) is trained in both directions on a sample of the pairs. How well a target fits is the mean
over its words of the logarithm of their probability given the source, over that of the word by itself: 0 where the
source says nothing of it, whatever the length and however rare the words. Five words more count as 0, as little is
known of a short sentence. The score of a pair is the sum of both
directions. A pair that took part in the training has taught the model its own words, right or wrong: so the corpus is
divided in three by its texts, and each third is scored by models of the other two.

What a score means is found by giving sources the targets of others of the sample. The threshold is the highest score
at which both of these hold:

-   of such random pairs a share of `max_chance` or more scores as well or better;
-   of what scores less, a share of `min_precision` or more is estimated to be misaligned. F being the share of the
    corpus below a score and H that of random pairs, at most min F/H of the corpus is misaligned (Blanchard et al.
    2010, section 3); this times H/F is the precision. Where the model knows too little to tell, little goes.

`measure` keeps 8 bytes a word on disk. `decide` holds the sample: about 600 MB with the 2^25 cells (words of one side
times words of the other, summed over the pairs) at which it is cut off.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from hf_nmt.artifacts import write_json
from hf_nmt.cleaning.alignment_model import AlignmentModel, Sample, priorities_of, sentences_of, words_of
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.step import SIDES, CorpusStep, Outcome

logger = logging.getLogger(__name__)

_LANGUAGES = ("source_language", "target_language")
_MOST_CELLS = 2**25
_LEVELS = np.arange(5, 100) / 100
_SURE = 0.3
_MOST_MISALIGNED = 0.5


class Alignment(CorpusStep):
    """Drops pairs whose words do not go together, by a lexicon learnt from the corpus itself; the detail is the score.
    Each pair of languages has a lexicon of its own."""

    max_chance: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="a pair may go where at least this share of random targets fits the source as well; more is "
        "stricter on good pairs and milder with bad ones",
    )
    min_precision: float = Field(
        0.8,
        ge=0,
        le=1,
        description="least share of what goes that is estimated to be misaligned; 0 leaves max_chance alone to decide",
    )
    sample_pairs: int = Field(
        50_000, ge=100, description="most pairs that a lexicon is learnt from, drawn by a hash of their texts"
    )
    vocabulary: int = Field(50_000, ge=10, description="most words of a language that are told apart")
    iterations: int = Field(5, ge=1, description="rounds of expectation-maximisation")
    min_pairs: int = Field(
        1000, ge=50, description="fewest pairs of two languages that a lexicon is learnt from; of fewer none goes"
    )

    def measure(self, pairs: pa.Table) -> pa.Table:
        """Words of pairs with words on both sides."""
        columns = {"priority": priorities_of(pairs)} | {name: pairs[name] for name in _LANGUAGES}
        columns |= {side: words_of(pairs[side]) for side in SIDES}
        table = pa.table(columns)
        some = pc.and_(*(pc.greater(pc.list_value_length(table[side]), 0) for side in SIDES))
        table = table.filter(some)
        if len(table) > self.sample_pairs:
            table = table.sort_by("priority").slice(0, self.sample_pairs)
        return table

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        known: list[dict[str, Any]] = []
        for languages in _languages_of(measured):
            sample = _sample(measured, languages, self.sample_pairs)
            told = "-".join(code or "?" for code in languages)
            if len(sample) < self.min_pairs:
                logger.warning(
                    "alignment: %s pairs of %s are too few to learn from; none goes.", f"{len(sample):,}", told
                )
                continue
            model = AlignmentModel.learnt(sample, self.vocabulary, self.iterations)
            threshold = _threshold(*model.scores_of(sample), self, told)
            folder = state / f"{len(known):03d}"
            folder.mkdir()
            model.save(folder)
            known.append({"languages": languages, "folder": folder.name, "threshold": threshold})
        write_json(state / "known.json", known)

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        goes = np.zeros(len(pairs), bool)
        scores = np.full(len(pairs), np.nan)
        for entry in json.loads((state / "known.json").read_text(encoding="utf-8")):
            if entry["threshold"] is None:
                continue
            places = pc.indices_nonzero(_in_languages(pairs, entry["languages"])).to_numpy()
            few = pairs.select([*SIDES]).take(places)
            model = _load(state / entry["folder"])
            source, target = (model.numbers(side, words_of(few[side])) for side in SIDES)
            scores[places] = model.scores(source, target, priorities_of(few))
            with np.errstate(invalid="ignore"):
                goes[places] = scores[places] < entry["threshold"]
        details = [f"{score:.4f}" if gone else None for score, gone in zip(scores, goes, strict=True)]
        return Outcome.dropping(pairs, {"misaligned": pa.array(goes)}, pa.array(details, pa.string()))


def _in_languages(pairs: pa.Table, languages: Sequence[str | None]) -> pa.ChunkedArray:
    masks = [
        pc.is_null(pairs[name]) if code is None else pc.fill_null(pc.equal(pairs[name], code), False)
        for name, code in zip(_LANGUAGES, languages, strict=True)
    ]
    return pc.and_(*masks)


def _languages_of(measured: Sequence[Path]) -> list[tuple[str | None, str | None]]:
    found = {
        (row["source_language"], row["target_language"])
        for path in measured
        for row in read_table(path).group_by([*_LANGUAGES]).aggregate([]).to_pylist()
    }
    return sorted(found, key=str)


def _sample(measured: Sequence[Path], languages: tuple[str | None, str | None], most: int) -> Sample:
    """The pairs of two languages with the smallest priorities."""
    priorities = []
    for path in measured:
        table = read_table(path)
        priorities.append(table["priority"].to_numpy()[pc.indices_nonzero(_in_languages(table, languages)).to_numpy()])
    every = np.concatenate(priorities)
    last = np.partition(every, most - 1)[most - 1] if len(every) > most else None
    parts = []
    for path in measured:
        table = read_table(path)
        rows = _in_languages(table, languages)
        if last is not None:
            rows = pc.and_(rows, pc.less_equal(table["priority"], pa.scalar(last, pa.uint64())))
        parts.append(table.select(["priority", *SIDES]).filter(rows))
    drawn = pa.concat_tables(parts).sort_by("priority").slice(0, most).combine_chunks()
    sides = [sentences_of(drawn[side]) for side in SIDES]
    cells = np.cumsum((sides[0].lengths + 1) * (sides[1].lengths + 1))
    count = int(np.searchsorted(cells, _MOST_CELLS, side="right"))
    source, target = (side.take(np.arange(count)) for side in sides)
    return Sample(drawn["priority"].to_numpy()[:count], (source, target))


@functools.lru_cache(maxsize=2)
def _load(folder: Path) -> AlignmentModel:
    return AlignmentModel.load(folder)


def _threshold(scores: np.ndarray, chance: np.ndarray, settings: Alignment, told: str) -> float | None:
    """The score below which pairs go; None where none goes."""
    levels = np.append(_LEVELS[_LEVELS < 1 - settings.max_chance], 1 - settings.max_chance)
    ordered = np.sort(chance)
    found = ordered[(levels * (len(ordered) - 1)).astype(np.int64)]
    below, random_below = (np.searchsorted(np.sort(of), found) / len(of) for of in (scores, chance))
    some = random_below > 0
    shares = below[some] / random_below[some]
    # Of the very worst there may be none by chance.
    misaligned = float(np.min(shares[levels[some] >= _SURE], initial=1.0))
    precision = misaligned / np.maximum(shares, 1e-12)
    held = np.flatnonzero((shares > 0) & (precision >= settings.min_precision))
    threshold = float(found[some][held[-1]]) if len(held) else None
    if misaligned > _MOST_MISALIGNED:
        logger.warning(
            "alignment: %s: %.0f%% of the pairs fit no better than random ones. Either most are misaligned, or they "
            "are too few to learn from; none goes.",
            told,
            100 * misaligned,
        )
        return None
    seeming = f"alignment: {told}: at most {misaligned:.2%} of the pairs seem misaligned"
    if threshold is None:
        logger.info("%s; none goes", seeming)
    else:
        going, of_random = (100 * float(np.mean(of < threshold)) for of in (scores, chance))
        logger.info("%s; %.2f%% score below %s, %.0f%% of random ones", seeming, going, threshold, of_random)
    return threshold
