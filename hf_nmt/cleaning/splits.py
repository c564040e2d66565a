"""A corpus as training, validation and test sets, and sets of whole domains, that share no article and no sentence.

Whole units are drawn (`units`): articles, single records, and what shares a text with them. They are binned by their
coherence, and a set takes from each bin the same share of its records; within a bin it takes those with the least
hashes of seed, name of the set and name of the article, so that who is drawn depends on nobody else, but for where the
bin ends and where the set is full. Sets are drawn in the order of the settings after those of whole domains; training
gets what is left. Of a set's share each bin is met within its largest unit, all bins together within half of one.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from pydantic import Field

from hf_nmt.cleaning.coherence import CoherenceSettings
from hf_nmt.cleaning.duplicates import Fold
from hf_nmt.cleaning.engine import Engine
from hf_nmt.cleaning.pipeline import Cleaned, kept_file, read_table, rejected_file, with_reasons, write_table
from hf_nmt.cleaning.shingles import FOLD, Similarity
from hf_nmt.cleaning.units import Ties, Units, article_keys, find_units, keyed_hash
from hf_nmt.config import Settings, fingerprint
from hf_nmt.config_keys import nearest
from hf_nmt.data.manifest import Step as RecordedStep
from hf_nmt.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

VERSION = 1
TRAIN = "train"
# Reasons why a record stands in no split.
REASONS = ("excluded", "synthetic", "tied_to_domain")


class SplitSet(Settings):
    """How large a set is, and which articles it holds for certain or never."""

    share: float | None = Field(None, gt=0, lt=1, description="of the records that are in no set of whole domains")
    count: int | None = Field(None, ge=1, description="records, in place of share")
    per_domain: int | None = Field(
        None, ge=1, description="records of each domain, in place of share: a balanced validation set"
    )
    domains: list[str] = Field(
        [], description="all records of these domains and nothing else, in place of share: an out-of-domain set"
    )
    include: list[str] = Field([], description="articles that stand here; they count towards its size")
    exclude: list[str] = Field(
        [], description="articles that do not stand here; of train they stand nowhere unless another set draws them"
    )

    def size(self) -> list[str]:
        """The keys that say how large it is."""
        return [name for name in ("share", "count", "per_domain", "domains") if getattr(self, name)]


class SplitSettings(Settings):
    """Which sets are made of what is left after the last step."""

    sets: dict[str, SplitSet] = Field(
        min_length=1,
        description="sets by names of your own, such as validation and test; train gets what is left, and takes "
        "include and exclude alone",
    )
    seed: int = Field(1, description="of the draw; another one draws other articles")
    bins: int = Field(5, ge=1, le=100, description="bins of coherence with as many articles each; 1 looks at none")
    fold: list[Fold] = Field(
        [*FOLD], description="records with the same source or target stand together; differences that do not count"
    )
    near: Similarity | None = Field(
        None, description="how alike records must be to stand together; null looks for equal sides only"
    )
    tie_articles: bool = Field(
        True,
        description="articles that share a sentence stand together too. false where short sentences that are "
        "everywhere would tie all to all: then leakage.on_leak=drop takes them out of train",
    )
    coherence: CoherenceSettings = Field(CoherenceSettings(), description="How coherent an article is.")

    @pydantic.model_validator(mode="after")
    def _sets_fit(self) -> Self:
        findings = []
        for name, one in self.sets.items():
            given = one.size()
            if not re.fullmatch(r"\w+", name):
                findings.append(f"sets.{name}: take letters, digits and _ for the name; files are called by it.")
            if name == TRAIN and given:
                findings.append(f"sets.train.{given[0]}: train gets what is left. Give the sizes of the others.")
            if name != TRAIN and len(given) != 1 and (given or not one.include):
                told = " and ".join(given) or "nothing"
                findings.append(f"sets.{name}: give one of share, count, per_domain, domains and include, not {told}.")
            if both := sorted({*one.include} & {*one.exclude}):
                findings.append(f"sets.{name}: {', '.join(both)} is in include and in exclude.")
        shares = sum(one.share or 0 for one in self.sets.values())
        if shares >= 1:
            findings.append(f"sets: the shares add up to {shares:g}, which leaves nothing to train on.")
        for key in ("include", "domains"):
            seen: dict[str, str] = {}
            for name, one in self.sets.items():
                for value in getattr(one, key):
                    if seen.setdefault(value, name) != name:
                        findings.append(f"sets.{name}.{key}: {value} stands in {seen[value]} already.")
        if findings:
            raise ConfigError(findings)
        return self

    @property
    def names(self) -> list[str]:
        """Of all splits, train first."""
        return [TRAIN, *(name for name in self.sets if name != TRAIN)]


@dataclass(frozen=True)
class Split:
    """A corpus that was split.

    Attributes:
        tables: files of records by name of the split, train first.
        rejected: files of the records that stand nowhere, as those of `pipeline.Cleaned`.
        step: the counts.
        units: what was kept together.
        unit_bins: bin of every unit from 0; as many as there are `edges` more one where it has no coherence.
        edges: coherence from which on a unit is in the next bin.
        settings: as given.
    """

    tables: dict[str, list[Path]]
    rejected: list[Path]
    step: RecordedStep
    units: Units
    unit_bins: np.ndarray
    edges: np.ndarray
    settings: SplitSettings

    def place_of(self, record_id: str) -> str:
        """Where a record stands, as a line of its story."""
        for path in self.rejected:
            table = read_table(path)
            for row in table.filter(pc.equal(table["id"], record_id)).slice(0, 1).to_pylist():
                return f"splits: dropped, {row['reason']} ({row['detail']})"
        for name, paths in self.tables.items():
            if any(pc.any(pc.equal(read_table(path)["id"], record_id)).as_py() for path in paths):
                return f"splits: stands in {name}"
        return "splits: came to none"

    def train(self, cleaned: Cleaned) -> Cleaned:
        """What cleaning came to, with the training records alone."""
        seconds = {**cleaned.seconds, self.step.name: 0.0}
        return Cleaned(self.tables[TRAIN], cleaned.rejected + self.rejected, [*cleaned.steps, self.step], seconds)


def split(tables: Sequence[Path], settings: SplitSettings, work: Path, engine: Engine) -> Split:
    """Split a corpus.

    Args:
        tables: files of records (`pipeline.clean`).
        settings: which sets.
        work: folder for what is between; a run with the same tables and settings goes on from there.
        engine: where the work is done.

    Raises:
        ConfigError: an article or domain that is named is not there, or must stand in two sets.
        DataError: there is too little for a set, or nothing is left to train on.
    """
    ties = Ties(settings.fold, settings.near, settings.tie_articles)
    folder = work / f"splits-{fingerprint(VERSION, [path.parent.name for path in tables], settings)}"
    units = find_units(tables, ties, settings.coherence, folder, engine)
    edges = bin_edges(units.coherence, settings.bins)
    bins = np.where(np.isnan(units.coherence), len(edges) + 1, np.searchsorted(edges, units.coherence, side="right"))
    records = _Records.of(tables, units)
    drawn = draw(units, bins, records, settings)
    of_record, reasons = _placed(units, records, drawn, settings)
    done = list(engine.map(functools.partial(_write, folder, settings.names), _tasks(tables, of_record, reasons)))
    dropped = {
        name: int((reasons == number).sum()) for number, name in enumerate(REASONS) if (reasons == number).any()
    }
    step = RecordedStep(
        name="splits", settings=settings.model_dump(mode="json"), kept=int((reasons < 0).sum()), dropped=dropped
    )
    written = {
        name: [kept_file(_folder_of(folder, name), table) for table in range(len(done))] for name in settings.names
    }
    logger.info("splits: %s", ", ".join(f"{name} {count:,}" for name, count in _counts(written).items()))
    rejected = [rejected_file(folder, number) for number, has in enumerate(done) if has]
    return Split(written, rejected, step, units, bins, edges, settings)


def bin_edges(coherence: np.ndarray, bins: int) -> np.ndarray:
    """Coherence from which on a unit is in the next of so many bins, each with as many units; fewer where units are
    too few or alike."""
    values = np.sort(coherence[~np.isnan(coherence)])
    at = [len(values) * number // bins for number in range(1, bins)]
    edges = np.unique(values[[place for place in at if place]]) if len(values) else values
    return edges[edges > values[0]] if len(values) else edges


@dataclass(frozen=True)
class _Records:
    """What is asked of each record.

    Attributes:
        domain: number of the domain of each, in `domains`.
        synthetic: whether no human wrote it.
        domains: names, None for records without one.
    """

    domain: np.ndarray
    synthetic: np.ndarray
    domains: list[str | None]

    @classmethod
    def of(cls, tables: Sequence[Path], units: Units) -> _Records:
        read = [read_table(path).select(["domain", "synthetic"]) for path in tables]
        found = pa.concat_arrays([pa.nulls(0, pa.string()), *(pc.unique(table["domain"]) for table in read)])
        domains = sorted({*found.to_pylist()}, key=lambda name: (name is not None, name or ""))
        known = pa.array(domains, pa.string())
        numbers = [pc.index_in(table["domain"], known).to_numpy() for table in read]
        synthetic = [pc.is_valid(table["synthetic"]).to_numpy() for table in read]
        return cls(
            np.concatenate([np.empty(0, np.int32), *numbers]), np.concatenate([np.empty(0, bool), *synthetic]), domains
        )

    def numbers(self, names: Sequence[str]) -> list[int]:
        return [self.domains.index(name) for name in names]


def draw(units: Units, bins: np.ndarray, records: _Records, settings: SplitSettings) -> np.ndarray:
    """The number of the split in `settings.names` that each unit stands in.

    Raises:
        ConfigError, DataError: as `split`.
    """
    drawn, forbidden = _named(units, records, settings)
    human = ~records.synthetic
    sizes = np.bincount(units.of[human], minlength=len(units))
    in_domains = np.zeros(len(units), bool)
    for number, name in enumerate(settings.names):
        if name in settings.sets and settings.sets[name].domains:
            in_domains |= drawn == number
    findings = []
    for number, name in enumerate(settings.names):
        one = settings.sets.get(name, SplitSet())
        if not number or one.domains:
            continue
        if one.per_domain is not None:
            groups = _domain_of_units(units, records, sizes)
            wishes = dict.fromkeys(np.unique(groups[(sizes > 0) & ~in_domains]).tolist(), one.per_domain)
        else:
            groups = np.zeros(len(units), np.int64)
            whole = int(sizes[~in_domains].sum())
            wish = round(one.share * whole) if one.share is not None else one.count
            wishes = {0: wish} if wish is not None else {}
        hashes = keyed_hash(units.key, settings.seed, name)
        for group, wish in wishes.items():
            of_group = (groups == group) & ~in_domains & (sizes > 0)
            free = of_group & (drawn < 0) & ~forbidden[number]
            taken, largest = _fill(drawn, number, of_group, free, wish, bins, sizes, hashes)
            if not taken or wish - taken > largest / 2:
                among = f" of the domain {records.domains[group]}" if one.per_domain is not None else ""
                findings.append(_too_little(name, one, wish, taken, among, sizes[free]))
    if findings:
        raise DataError("\n".join(findings))
    drawn[drawn < 0] = 0
    if not sizes[(drawn == 0) & ~forbidden[0]].any():
        raise DataError(f"splits.sets: nothing is left to train on.{_told_of_largest(sizes)}")
    return drawn


def _fill(
    drawn: np.ndarray,
    number: int,
    of_group: np.ndarray,
    free: np.ndarray,
    wish: int,
    bins: np.ndarray,
    sizes: np.ndarray,
    hashes: np.ndarray,
) -> tuple[int, int]:
    """Draw free units of a group for a set, bin by bin; what one bin lacks or has too much of is carried to the next.

    Returns:
        Records of the set in this group, and the size of the largest unit that was free.
    """
    whole, carried, got = int(sizes[of_group].sum()), 0.0, 0
    for place in np.unique(bins[of_group]):
        here = of_group & (bins == place)
        target = wish * int(sizes[here].sum()) / whole + carried
        has = int(sizes[here & (drawn == number)].sum())
        candidates = np.flatnonzero(here & free)
        candidates = candidates[np.argsort(hashes[candidates], kind="stable")]
        candidates = candidates[sizes[candidates] / 2 <= target - has]
        ends = np.cumsum(sizes[candidates])
        # A unit comes in where that brings the set nearer to what it should hold.
        taken = candidates[: int(np.searchsorted(ends - sizes[candidates] / 2, target - has, side="right"))]
        drawn[taken] = number
        has += int(sizes[taken].sum())
        carried = target - has
        got += has
    return got, int(sizes[free].max(initial=0))


def _named(units: Units, records: _Records, settings: SplitSettings) -> tuple[np.ndarray, np.ndarray]:
    """The split of each unit that is named in the settings, -1 for others; and for each split the units that must not
    stand there."""
    findings: list[str] = []
    drawn = np.full(len(units), -1)
    forbidden = np.zeros((len(settings.names), len(units)), bool)
    for number, name in enumerate(settings.names):
        one = settings.sets.get(name, SplitSet())
        if unknown := [domain for domain in one.domains if domain not in records.domains]:
            known = [domain for domain in records.domains if domain]
            findings += [_unknown(f"sets.{name}.domains", "domain", domain, known) for domain in unknown]
        elif one.domains:
            drawn[np.unique(units.of[np.isin(records.domain, records.numbers(one.domains))])] = number
    for number, name in enumerate(settings.names):
        one = settings.sets.get(name, SplitSet())
        for key, articles in (("include", one.include), ("exclude", one.exclude)):
            places = units.places_of(article_keys(pa.array(articles, pa.string())))
            for article, place in zip(articles, places, strict=True):
                if place < 0:
                    findings.append(f"splits.sets.{name}.{key}: no record that is left is of the article {article!r}.")
                    continue
                unit = units.article_units[place]
                if key == "exclude":
                    forbidden[number, unit] = True
                elif drawn[unit] in (-1, number):
                    drawn[unit] = number
                else:
                    other = settings.names[drawn[unit]]
                    findings.append(
                        f"splits.sets.{name}.include: {article!r} must stand in {other} too, by its domain or "
                        "because it shares sentences with what stands there."
                    )
    for number, name in enumerate(settings.names):
        if (forbidden[number] & (drawn == number)).any():
            findings.append(
                f"splits.sets.{name}.exclude: an article of the list must stand there, by its domain or because it "
                "shares sentences with one of include."
            )
    if findings:
        raise ConfigError(findings)
    return drawn, forbidden


def _unknown(key: str, what: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, list(known))
    listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    hint = f" Did you mean {near!r}?" if near else ""
    return f"splits.{key}: no record that is left is of the {what} {name!r}, only of {listed or 'none'}.{hint}"


def _too_little(name: str, one: SplitSet, wish: int, taken: int, among: str, sizes: np.ndarray) -> str:
    key = one.size()[0]
    told = f"splits.sets.{name}.{key}: {wish:,} records{among} are asked for, and {taken:,} can be had"
    if len(sizes) and sizes.min() > wish and not _told_of_largest(sizes):
        return f"{told}: the smallest article has {sizes.min():,}. Ask for more."
    return f"{told} with whole articles.{_told_of_largest(sizes)} Ask for fewer, or prepare more text."


def _told_of_largest(sizes: np.ndarray) -> str:
    whole, largest = int(sizes.sum()), int(sizes.max(initial=0))
    if 2 * largest <= whole or not whole:
        return ""
    return (
        f" {largest:,} of {whole:,} records hang together by equal sentences; splits.tie_articles=false lets articles "
        "stand apart."
    )


def _domain_of_units(units: Units, records: _Records, sizes: np.ndarray) -> np.ndarray:
    """Number of the domain that most human records of each unit are of, the first by name of several."""
    human = ~records.synthetic
    width = max(len(records.domains), 1)
    codes, counts = np.unique(units.of[human] * width + records.domain[human], return_counts=True)
    order = np.lexsort((codes, -counts, codes // width))
    found = np.full(len(sizes), -1)
    first = order[np.unique(codes[order] // width, return_index=True)[1]]
    found[codes[first] // width] = codes[first] % width
    return found


def _placed(
    units: Units, records: _Records, drawn: np.ndarray, settings: SplitSettings
) -> tuple[np.ndarray, np.ndarray]:
    """For each record its split, and which of REASONS keeps it out (-1: none)."""
    of_record = drawn[units.of].astype(np.int16)
    reasons = np.full(len(of_record), -1, np.int8)
    reasons[(of_record > 0) & records.synthetic] = REASONS.index("synthetic")
    for number, name in enumerate(settings.names):
        one = settings.sets.get(name, SplitSet())
        if one.domains:
            own = np.isin(records.domain, records.numbers(one.domains))
            reasons[(of_record == number) & ~own] = REASONS.index("tied_to_domain")
    excluded = settings.sets[TRAIN].exclude if TRAIN in settings.sets else []
    left_out = units.article_units[units.places_of(article_keys(pa.array(excluded, pa.string())))]
    reasons[np.isin(units.of, left_out) & (of_record == 0)] = REASONS.index("excluded")
    return of_record, reasons


def _folder_of(folder: Path, name: str) -> Path:
    """Where the tables of a split are, named by all that determines them."""
    return folder / f"{folder.name}-{name}"


def _counts(tables: Mapping[str, Sequence[Path]]) -> dict[str, int]:
    return {name: sum(len(read_table(path)) for path in paths) for name, paths in tables.items()}


def _tasks(
    tables: Sequence[Path], of_record: np.ndarray, reasons: np.ndarray
) -> list[tuple[int, Path, np.ndarray, np.ndarray]]:
    ends = np.cumsum([len(read_table(path)) for path in tables])[:-1]
    parts = zip(tables, np.split(of_record, ends), np.split(reasons, ends), strict=True)
    return [(number, *part) for number, part in enumerate(parts)]


def _write(folder: Path, names: Sequence[str], task: tuple[int, Path, np.ndarray, np.ndarray]) -> bool:
    """Write the records of a table by split; whether some stand nowhere."""
    number, path, of_record, reasons = task
    pairs = read_table(path)
    for index, name in enumerate(names):
        _folder_of(folder, name).mkdir(parents=True, exist_ok=True)
        stays = pa.array((of_record == index) & (reasons < 0))
        write_table(kept_file(_folder_of(folder, name), number), pairs.filter(stays))
    gone = pairs.filter(pa.array(reasons >= 0))
    told = [REASONS[reason] for reason in reasons[reasons >= 0]]
    where = [names[index] for index in of_record[reasons >= 0]]
    write_table(rejected_file(folder, number), with_reasons(gone, "splits", told, where))
    return bool(len(gone))


def check_names(settings: SplitSettings, others: Mapping[str, object]) -> None:
    """
    Raises:
        ConfigError: evaluation sets of the leakage gate have the names of splits.
    """
    if both := sorted({*settings.names} & {*others}):
        raise ConfigError([f"leakage.sets.{name}: splits.sets has a set of this name; take another." for name in both])
