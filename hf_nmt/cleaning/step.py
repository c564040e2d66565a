"""What a step of cleaning is.

A step is a class of settings with `apply`, which looks at a table of records (`data.records.SCHEMA`) and says which
of them go, why, and how the texts of the others change. It sees some thousand records at a time, on any worker and in
any order, so that what it says of a record may depend on that record alone:

    class LongWords(Step):
        \"\"\"Drops pairs with a word that no writer meant.\"\"\"

        max_characters: int = Field(40, ge=1, description="longest word of either side, in characters")

        def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
            pattern = rf"\\S{{{self.max_characters + 1},}}"
            found = [pc.match_substring_regex(pairs[side], pattern) for side in SIDES]
            return Outcome.dropping(pairs, {"long_word": pc.or_(*found)})

What needs to see the corpus as a whole, such as duplicates, is a `CorpusStep`: it measures each table, decides once
over all that was measured, and is then applied like any other.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_nmt.cleaning.engine import Shuffle
from hf_nmt.config import Settings
from hf_nmt.data.text_bytes import whole

SIDES = ("source", "target")


@dataclass(frozen=True)
class Outcome:
    """What a step says of a table.

    Attributes:
        pairs: all records that came in, in their order, with texts as the step leaves them.
        reasons: for each the reason why it goes, null for those that stay.
        details: for each what was measured, or the id of the record that it repeats; null where there is nothing to
            tell.
    """

    pairs: pa.Table
    reasons: pa.Array
    details: pa.Array

    @classmethod
    def dropping(
        cls, pairs: pa.Table, masks: Mapping[str, pa.Array | pa.ChunkedArray], details: pa.Array | None = None
    ) -> Outcome:
        """Drop records for the first reason whose mask is true; null counts as false.

        Args:
            pairs: what came in.
            masks: boolean of each record by reason.
            details: as above.
        """
        reasons = pa.nulls(len(pairs), pa.string())
        for reason, mask in reversed(list(masks.items())):
            reasons = pc.if_else(pc.fill_null(whole(mask), False), reason, reasons)
        return cls(pairs, reasons, pa.nulls(len(pairs), pa.string()) if details is None else whole(details))

    @classmethod
    def changing(cls, pairs: pa.Table, texts: Mapping[str, pa.Array | pa.ChunkedArray]) -> Outcome:
        """Keep all records, with other texts in some columns."""
        for name, values in texts.items():
            pairs = pairs.set_column(pairs.schema.get_field_index(name), pairs.schema.field(name), values)
        nothing = pa.nulls(len(pairs), pa.string())
        return cls(pairs, nothing, nothing)


class Step(Settings, abc.ABC):
    """Settings of a step, and what it does.

    `version` is raised whenever the same settings would come to another result: what was kept from before is then
    made anew.
    """

    version: ClassVar[int] = 1

    @abc.abstractmethod
    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        """Look at some records.

        Args:
            pairs: table of SCHEMA, at least one row.
            state: of a CorpusStep, what `decide` wrote.
        """

    def files(self) -> Iterable[Path]:
        """Files and folders beside the settings that the result depends on."""
        return ()


class CorpusStep(Step):
    """A step that sees the whole corpus before it is applied.

    `measure` runs for each table on any worker; `decide` once, in the order of the tables, which is the same for any
    number of workers. In `apply`, `pipeline.table_number(pairs)` tells which table it is, for steps that must choose
    one of several records that are equal in every field.

    `decided_by` names the settings that only `decide` looks at: what was measured is kept when they change.
    """

    decided_by: ClassVar[frozenset[str]] = frozenset()

    @abc.abstractmethod
    def measure(self, pairs: pa.Table) -> pa.Table:
        """What is needed of some records: a row for each, or sums over them."""

    @abc.abstractmethod
    def decide(self, measured: Sequence[Path], state: Path) -> None:
        """Write to the folder `state`, which exists, what `apply` needs.

        Args:
            measured: Arrow IPC files of what `measure` gave, one for each table (`pipeline.read_table` maps them
                into memory).
            state: empty folder.
        """

    def decide_by(self, shuffle: Shuffle, measured: Sequence[Path], state: Path) -> None:
        """`decide` where records need not fit on one machine. Steps that keep little of each do as on one."""
        self.decide(measured, state)
