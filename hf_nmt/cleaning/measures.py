"""What is measured of the records of a version: table by table on any worker, and put together whatever the order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from hf_nmt.cleaning.byte_search import num_words
from hf_nmt.cleaning.check_settings import CheckSettings
from hf_nmt.cleaning.filters import EmptyAndCopies, size, tokenizer_of
from hf_nmt.cleaning.languages import Script
from hf_nmt.cleaning.pipeline import read_table
from hf_nmt.cleaning.step import SIDES
from hf_nmt.data.sketches import DistinctSketch, buffer_size, hashes_of, mixed, ngrams
from hf_nmt.data.text_bytes import whole
from hf_nmt.language import problem_of

NGRAMS = (1, 2, 3)
# Logarithms of target over source are counted in twentieths, to the base 2.
RATIO_BINS = 20
_KEY = np.uint64(0x2545F4914F6CDD1D)
_ID = r"^[0-9a-f]{32}$"


@dataclasses.dataclass
class Measures:
    """Sums over some records.

    Attributes:
        rows: how many.
        counts: by name of what was found: Counters of values.
        sketches: distinct n-grams by side and n.
        samples: by what they show, (order, record) of those that come first in a fixed random order.
        limit: how many samples are kept of each.
    """

    limit: int
    rows: int = 0
    counts: dict[str, Counter[Any]] = dataclasses.field(default_factory=dict)
    sketches: dict[tuple[str, int], DistinctSketch] = dataclasses.field(default_factory=dict)
    samples: dict[str, list[tuple[int, dict[str, Any]]]] = dataclasses.field(default_factory=dict)

    def count(self, name: str, values: Mapping[Any, int] | Sequence[Any]) -> None:
        self.counts.setdefault(name, Counter()).update(values)

    def count_numbers(self, name: str, values: pa.ChunkedArray | pa.Array) -> None:
        found, number = np.unique(values.to_numpy(zero_copy_only=False), return_counts=True)
        self.count(name, dict(zip(found.tolist(), number.tolist(), strict=True)))

    def show(self, name: str, rows: pa.Table, **more: Sequence[Any]) -> None:
        """Take part of some records as samples, with further values of each."""
        if not len(rows) or not self.limit:
            return
        order = np.array([xxhash.xxh3_64_intdigest(one.encode()) for one in rows["id"].to_pylist()], np.uint64)
        first = np.argsort(order, kind="stable")[: self.limit]
        few = rows.select(["id", *SIDES]).take(first).to_pylist()
        found = [
            (int(order[place]), row | {key: values[place] for key, values in more.items()})
            for place, row in zip(first, few, strict=True)
        ]
        self._keep(name, found)

    def _keep(self, name: str, found: list[tuple[int, dict[str, Any]]]) -> None:
        both = self.samples.get(name, []) + found
        self.samples[name] = sorted(both, key=lambda one: (one[0], one[1]["id"], str(one[1])))[: self.limit]

    def join(self, other: Measures) -> None:
        """Add what was measured of other records."""
        self.rows += other.rows
        for name, values in other.counts.items():
            self.count(name, values)
        for key, sketch in other.sketches.items():
            self.sketches.setdefault(key, DistinctSketch(sketch.size)).join(sketch)
        for name, found in other.samples.items():
            self._keep(name, found)

    def total(self, name: str) -> int:
        return self.counts.get(name, Counter()).total()


def measure(settings: CheckSettings, usual: Path, path: Path) -> Measures:
    """Measure a table of records; what the checks need that were chosen.

    Args:
        settings: of the checks.
        usual: folder with what `settings.alignment` decided.
        path: the table.
    """
    pairs = read_table(path)
    found = Measures(settings.samples, len(pairs))
    if not len(pairs):
        return found
    for side in SIDES:
        found.count_numbers(f"characters.{side}", pc.utf8_length(pairs[side]))
        found.count_numbers(f"words.{side}", num_words(pairs[side]))
    spare = settings.alignment.spare_characters
    source, target = (pc.add(pc.cast(size(pairs[side]), pa.float64()), max(spare, 1)) for side in SIDES)
    found.count_numbers("ratio", pc.round(pc.multiply(pc.log2(pc.divide(target, source)), RATIO_BINS)))
    found.count("languages", Counter(zip(*(pairs[f"{side}_language"].to_pylist() for side in SIDES), strict=True)))
    found.count("domains", pairs["domain"].to_pylist())
    found.show("kept", pairs)
    if "schema" in settings.only:
        _records(found, pairs)
    if "language" in settings.only:
        _languages(found, pairs, settings)
    if "alignment" in settings.only:
        _outliers(found, pairs, settings, usual)
    if "tokens" in settings.only:
        _tokens(found, pairs, settings)
    return found


def _outliers(found: Measures, pairs: pa.Table, settings: CheckSettings, usual: Path) -> None:
    outcome = settings.alignment.apply(pairs, usual)
    goes = pc.is_valid(outcome.reasons)
    reasons, details = (values.filter(goes).to_pylist() for values in (outcome.reasons, outcome.details))
    found.count("alignment", reasons)
    found.show("alignment", pairs.filter(goes), reason=reasons, detail=details)


def _records(found: Measures, pairs: pa.Table) -> None:
    reasons = EmptyAndCopies(copies=False).apply(pairs, None).reasons
    masks = {"id": pc.invert(pc.match_substring_regex(pairs["id"], _ID)), "position": pc.less(pairs["position"], 0)}
    for side in SIDES:
        codes = pairs[f"{side}_language"]
        bad = [code for code in pc.unique(codes.drop_null()).to_pylist() if problem_of(code)]
        masks[f"{side}_language"] = pc.or_(pc.is_null(codes), pc.is_in(codes, pa.array(bad, pa.string())))
    masks["references"] = pa.array(
        [one is not None and not (one and all(one)) for one in pairs["references"].to_pylist()], pa.bool_()
    )
    for name, mask in masks.items():
        reasons = pc.if_else(pc.and_(pc.fill_null(whole(mask), False), pc.is_null(reasons)), name, reasons)
    goes = pc.is_valid(reasons)
    told = reasons.filter(goes).to_pylist()
    found.count("invalid", told)
    found.show("invalid", pairs.filter(goes), reason=told)


def _languages(found: Measures, pairs: pa.Table, settings: CheckSettings) -> None:
    """Each side by itself: where the source is wrong, a step has not told of the target yet."""
    wrong: dict[str, list[str | None]] = {side: [None] * len(pairs) for side in SIDES}
    for step in (settings.language, Script()):
        outcome = step.apply(pairs, None)
        reasons, details = outcome.reasons.to_pylist(), outcome.details.to_pylist()
        rows = [row for row, reason in enumerate(reasons) if reason and reason.startswith("source")]
        if rows:
            nothing = pa.nulls(len(rows), pa.string())
            column = pairs.schema.get_field_index("source_language")
            again = step.apply(pairs.take(rows).set_column(column, "source_language", nothing), None)
            told = zip(again.reasons.to_pylist(), again.details.to_pylist(), strict=True)
            for row, (reason, detail) in zip(rows, told, strict=True):
                if reason:
                    wrong["target"][row] = detail or "another script"
        for row, (reason, detail) in enumerate(zip(reasons, details, strict=True)):
            for side in SIDES:
                if reason and (reason.startswith(side) or reason == "swapped_sides"):
                    other = "sides swapped" if reason == "swapped_sides" else detail or "another script"
                    wrong[side][row] = wrong[side][row] or other
    for side in SIDES:
        those = pairs.append_column("found", pa.array(wrong[side], pa.string()))
        those = those.filter(pc.is_valid(those["found"]))
        others = those["found"].to_pylist()
        found.count(f"wrong.{side}", list(zip(those[f"{side}_language"].to_pylist(), others, strict=True)))
        found.show("language", those, reason=[f"{side}_language"] * len(others), detail=others)


def _tokens(found: Measures, pairs: pa.Table, settings: CheckSettings) -> None:
    bars = settings.tokens
    room = buffer_size(bars.epsilon, bars.delta)
    for side in SIDES:
        hashes, lengths, unknown = _tokenised(pairs[side].combine_chunks(), side, bars.tokenizer)
        found.count_numbers(f"tokens.{side}", pa.array(lengths))
        found.count(f"unknown.{side}", {"unknown": unknown})
        long = lengths > bars.max_length
        found.show("long", pairs.filter(pa.array(long)), detail=[f"{side}: {count}" for count in lengths[long]])
        for number in NGRAMS:
            sketch = found.sketches[side, number] = DistinctSketch(room)
            sketch.add(ngrams(hashes, lengths, number))


def _tokenised(texts: pa.Array, side: str, folder: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Keyed hashes of all tokens, how many each text has, and how many are unknown."""
    if folder is None:
        words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
        words = pc.if_else(pc.equal(num_words(texts), 0), pa.scalar([], words.type), words)
        return hashes_of(words.flatten()), pc.list_value_length(words).to_numpy(), 0
    tokenizer = tokenizer_of(folder)
    given = {"text" if side == "source" else "text_target": texts.to_pylist()}
    ids = tokenizer(**given, add_special_tokens=False)["input_ids"]
    lengths = np.array([len(one) for one in ids], np.int64)
    flat = np.array([token for one in ids for token in one], np.int64)
    return mixed(flat.astype(np.uint64) + _KEY), lengths, int((flat == tokenizer.unk_token_id).sum())


def quantiles(counts: Counter[int]) -> dict[str, float]:
    """Mean, quantiles (the smallest value that so many do not exceed) and largest value; of nothing all 0."""
    values = np.array(sorted(counts), np.int64)
    upto = np.cumsum([counts[value] for value in values.tolist()])
    whole = int(upto[-1]) if len(upto) else 0
    if not whole:
        return {"mean": 0.0, "p50": 0, "p95": 0, "p99": 0, "max": 0}
    at = {name: int(values[np.searchsorted(upto, math.ceil(share * whole))]) for name, share in _QUANTILES.items()}
    mean = sum(value * count for value, count in counts.items()) / whole
    return {"mean": round(mean, 2), **at, "max": int(values[-1])}


_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def histograms(counts: Mapping[str, Counter[int]], bins: int = 40) -> dict[str, Any]:
    """Counts of lengths in bins of one width, up to the length that 1 in 200 exceeds; longer ones are `more`.

    Args:
        counts: how often each length is there, for several kinds of text.
        bins: at most so many.
    """
    whole = sum(counts.values(), Counter())
    most = seen = 0
    for most in sorted(whole):
        seen += whole[most]
        if seen >= 0.995 * whole.total():
            break
    width = max(1, math.ceil((most + 1) / bins))
    found: dict[str, Any] = {"width": width, "counts": {}, "more": {}}
    for name, lengths in counts.items():
        line = [0] * math.ceil((most + 1) / width)
        for length, count in lengths.items():
            if length // width < len(line):
                line[length // width] += count
        found["counts"][name] = line
        found["more"][name] = lengths.total() - sum(line)
    return found
