"""Augmentation of training text: copies of human records with noise or synonyms, and how many may be synthetic.

What becomes of a record depends on its id, the seed and the settings, and whether it stays on the corpus as a set too:
not on order, tables or workers. A copy is a record of its own with `synthetic` (its kind) and `parent` (the id of the
record that it was made of); it stands in no article, and is in the rest as that. Copies that equal their parent are
not made; those that equal another record on both sides are left out, and of equal copies the one with the smallest id
stays.

In memory are about 60 bytes for each record and each copy while they are compared.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from pydantic import Field
from tqdm.auto import tqdm

from hf_nmt.artifacts import failed_writes_told, write_json
from hf_nmt.cleaning.duplicates import ids_of, pair_keys
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.noise import Noise
from hf_nmt.cleaning.pipeline import Cleaned, kept_file, read_table, rejected_file, with_reasons, write_table
from hf_nmt.cleaning.step import SIDES
from hf_nmt.cleaning.synonyms import Synonyms, digest_of
from hf_nmt.config import Settings, fingerprint
from hf_nmt.data.manifest import Step as RecordedStep
from hf_nmt.data.records import SCHEMA, id_of
from hf_nmt.errors import NmtError

logger = logging.getLogger(__name__)

STEP = "augment"
VERSION = 1
_OVER = "over_synthetic_share"
# A copy stands in no article, whose sentences are one after another.
_OUTSIDE = {"article": None, "position": None}


class AugmentSettings(Settings):
    """Synthetic records of the training text."""

    noise: Noise | None = Field(None, description="copies with mistakes in the source; null makes none")
    synonyms: Synonyms | None = Field(None, description="copies with other English words; null makes none")
    max_synthetic_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="largest share of the training text that may be synthetic: copies, and records of inputs that are "
        "synthetic, such as back-translations. What is too much goes, by a hash of id and seed",
    )
    seed: int = Field(0, ge=0, description="of mistakes, choice of words, and of what goes")

    @property
    def kinds(self) -> dict[str, Noise | Synonyms]:
        return {name: kind for name in ("noise", "synonyms") if (kind := getattr(self, name)) is not None}

    def problems(self, languages: Sequence[tuple[str | None, str | None]]) -> list[str]:
        """Findings on what the settings need beside themselves.

        Args:
            languages: codes of source and target of each input.
        """
        findings = []
        if self.synonyms is not None:
            try:
                self.synonyms.lookup()
            except NmtError as error:
                findings.append(f"augment.synonyms: {error}")
            if not any(english_side(*pair) for pair in languages):
                told = ", ".join(f"{source}-{target}" for source, target in dict.fromkeys(languages))
                findings.append(
                    f"augment.synonyms: neither side of {told} is English, which they are for. Leave them out."
                )
        return findings

    def identity(self) -> list[Any]:
        return [VERSION, self.model_dump(mode="json"), None if self.synonyms is None else digest_of(self.synonyms)]


def english_side(source_language: str | None, target_language: str | None) -> str | None:
    """`source` or `target`, whichever is English; None where neither is."""
    for side, code in zip(SIDES, (source_language, target_language), strict=True):
        if code is not None and code.replace("_", "-").lower().split("-")[0] in ("en", "eng"):
            return side
    return None


def augment(cleaned: Cleaned, settings: AugmentSettings, engine: Engine, work: Path) -> Cleaned:
    """Add copies to training text, and leave out what is synthetic beyond the share that is allowed.

    Args:
        cleaned: the training text, no evaluation set.
        settings: which copies.
        engine: where they are made.
        work: folder of what is between; a run with the same text and settings goes on from there.

    Raises:
        DataError, NmtError: there is no lexicon; a file cannot be written.
    """
    start = time.process_time()
    tables = [(path.parent.name, path.name) for path in cleaned.kept]
    folder = work / f"augment-{fingerprint(tables, settings.identity())}"
    with failed_writes_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = engine.map(functools.partial(_make, settings, folder), list(enumerate(cleaned.kept)))
    figures = list(tqdm(done, STEP, len(cleaned.kept), unit="table", leave=False, disable=None))
    made = [folder / f"{number:06d}.made.arrow" for number in range(len(figures))]
    goes, human = _decide(cleaned.kept, made, settings)
    kept, rejected = _write(cleaned.kept, made, goes, folder)
    counts: Counter[str] = Counter()
    for path in kept:
        counts.update(_kinds(read_table(path)))
    copies = sum((Counter(one["made"]) for one in figures), Counter[str]())
    step = RecordedStep(
        name=STEP,
        settings=settings.model_dump(mode="json"),
        kept=sum(len(read_table(path)) for path in kept),
        dropped={_OVER: count} if (count := sum(len(read_table(path)) for path in rejected)) else {},
        added={kind: _added(made, goes, kind) for kind in settings.kinds},
    )
    for kind, count in step.added.items():
        unchanged = sum(one["unchanged"].get(kind, 0) for one in figures)
        logger.info(
            "augment: %s copies with %s; left out: %s as they would repeat a record or go beyond the share; %s would "
            "have equalled their record", f"{count:,}", kind, f"{copies[kind] - count:,}", f"{unchanged:,}",
        )  # fmt: skip
    share = sum(counts.values()) / max(1, step.kept)
    logger.info(
        "augment: %s human records, %s synthetic (%s), %.1f%% of all; %.1f%% are allowed",
        f"{human:,}",
        f"{sum(counts.values()):,}",
        ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none",
        100 * share,
        100 * settings.max_synthetic_share,
    )
    seconds = sum(one["seconds"] for one in figures) + time.process_time() - start
    return Cleaned(
        kept, cleaned.rejected + rejected, [*cleaned.steps, step], {**cleaned.seconds, STEP: round(seconds, 3)}
    )


def _make(settings: AugmentSettings, folder: Path, task: tuple[int, Path]) -> dict[str, Any]:
    """The copies of one table. The figures are written last: where they are, the copies are."""
    number, path = task
    done = folder / f"{number:06d}.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    start = time.process_time()
    pairs = read_table(path)
    human = pairs.filter(pc.is_null(pairs["synthetic"])).to_pylist()
    records, counts, unchanged = [], Counter[str](), Counter[str]()
    for name, kind in settings.kinds.items():
        for record in human:
            for copy in range(kind.copies):
                changed = _copy(kind, record, f"{settings.seed} {name} {copy} {record['id']}")
                if changed is None:
                    unchanged[name] += 1
                    continue
                made = {**record, **changed, **_OUTSIDE, "synthetic": name, "parent": record["id"]}
                records.append({**made, "id": id_of(made)})
                counts[name] += 1
    write_table(folder / f"{number:06d}.made.arrow", pa.Table.from_pylist(records, schema=SCHEMA))
    figures = {"made": counts, "unchanged": unchanged, "seconds": time.process_time() - start}
    write_json(done, figures)
    return figures


def _copy(kind: Noise | Synonyms, record: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The fields of a record that differ in its copy; None where none would."""
    if isinstance(kind, Noise):
        text = kind.noisy(record["source"], record["source_language"], key)
        return None if text == " ".join(record["source"].split()) or not text else {"source": text}
    side = english_side(record["source_language"], record["target_language"])
    if side is None:
        return None
    text = kind.replaced(record[side], key)
    if text == record[side]:
        return None
    return {side: text} | ({"references": None} if side == "target" else {})


def _decide(tables: Sequence[Path], made: Sequence[Path], settings: AugmentSettings) -> tuple[list[np.ndarray], int]:
    """Which records of `tables` go, then which of `made`, table by table; and how many human records there are."""
    paths = [*tables, *made]
    counts, keys, ids, synthetic = [], [], [], []
    for path in paths:
        table = read_table(path)
        counts.append(len(table))
        if len(table):
            keys.append(pair_keys(table, SIDES, []))
            ids.append(ids_of(table))
            synthetic.append(pc.is_valid(table["synthetic"]).to_numpy())
    if not keys:
        return [np.zeros(0, bool) for _ in paths], 0
    all_keys, all_ids, is_synthetic = np.concatenate(keys), np.concatenate(ids), np.concatenate(synthetic)
    num_given = sum(counts[: len(tables)])
    is_made = np.arange(len(all_ids)) >= num_given
    goes = np.zeros(len(all_ids), bool)
    order = np.lexsort((all_ids[:, 1], all_ids[:, 0], is_made, all_keys[:, 1], all_keys[:, 0]))
    same = (all_keys[order[1:]] == all_keys[order[:-1]]).all(axis=1)
    goes[order[1:][same]] = True
    goes &= is_made
    human = int((~is_synthetic).sum())
    share = Fraction(str(settings.max_synthetic_share))
    most = int(share * human / (1 - share))
    places = np.flatnonzero(is_synthetic & ~goes)
    if len(places) > most:
        hashes = np.fromiter(
            (xxhash.xxh3_64_intdigest(one.astype(">u8").tobytes(), settings.seed) for one in all_ids[places]),
            np.uint64,
        )
        by_hash = np.lexsort((all_ids[places, 1], all_ids[places, 0], hashes))
        goes[places[by_hash[most:]]] = True
    return np.split(goes, np.cumsum(counts)[:-1]), human


def _write(
    tables: Sequence[Path], made: Sequence[Path], goes: Sequence[np.ndarray], folder: Path
) -> tuple[list[Path], list[Path]]:
    """Files of what stays, and of what goes of the given tables."""
    kept, rejected = [], []
    for number, (path, mask) in enumerate(zip([*tables, *made], goes, strict=True)):
        if not mask.any():
            kept.append(path)
            continue
        table = read_table(path)
        kept.append(kept_file(folder, number))
        write_table(kept[-1], table.filter(pa.array(~mask)))
        if number < len(tables):
            rejected.append(rejected_file(folder, number))
            write_table(rejected[-1], with_reasons(table.filter(pa.array(mask)), STEP, _OVER, None))
    return kept, rejected


def _kinds(table: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(table["synthetic"].drop_null()).to_pylist()
    return {one["values"]: one["counts"] for one in counts}


def _added(made: Sequence[Path], goes: Sequence[np.ndarray], kind: str) -> int:
    """Copies of a kind that stay."""
    masks = goes[len(goes) - len(made) :]
    return sum(
        int((pc.equal(read_table(path)["synthetic"], kind).to_numpy() & ~mask).sum())
        for path, mask in zip(made, masks, strict=True)
        if len(mask)
    )
