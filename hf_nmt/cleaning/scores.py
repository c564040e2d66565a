"""Steps that give each record a score and drop the worst: beyond a limit, or all but a share of the corpus.

Scores are measured once and kept on disk: another limit or share decides anew without scoring again. Which records go
is found from all scores, exactly; ties at the border of a share stay, so that neither order nor tables decide. In
memory are 24 bytes a record.
"""

from __future__ import annotations

import abc
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import pydantic
from pydantic import Field

from hf_nmt.cleaning.duplicates import ID_COLUMNS, column, fixed_keys, found_among, ids_of, key_bytes
from hf_nmt.cleaning.pipeline import read_table, write_table
from hf_nmt.cleaning.step import CorpusStep, Outcome

logger = logging.getLogger(__name__)

DIGITS = 4
_DROPPED = "dropped.arrow"


class ScoreStep(CorpusStep, abc.ABC):
    """A step whose scores are known when all tables are measured.

    Attributes:
        name: of the reason for what goes; the detail is the score.
        limit: name of the setting that holds the limit.
        higher_is_better: whether what is below the limit goes, or what is above.
    """

    name: ClassVar[str]
    limit: ClassVar[str]
    higher_is_better: ClassVar[bool] = False

    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the records that stay, those with the best scores, and all that score like the last of "
        "them; null leaves it to the limit, and a default of the limit does not hold beside it",
    )

    @pydantic.model_validator(mode="after")
    def _some_criterion(self) -> Self:
        if self.keep is None and getattr(self, self.limit) is None:
            raise ValueError(f"nothing says what goes: give {self.limit}, keep, or both")
        return self

    def measure(self, pairs: pa.Table) -> pa.Table:
        columns = dict(zip(ID_COLUMNS, ids_of(pairs).T, strict=True)) | self.figures(pairs)
        return pa.table(columns)

    @property
    def reason(self) -> str:
        return self.name

    @abc.abstractmethod
    def figures(self, pairs: pa.Table) -> dict[str, pa.Array | np.ndarray]:
        """What scores are made of: columns with an entry for each record."""

    @abc.abstractmethod
    def scores(self, measured: Sequence[Path]) -> Iterator[np.ndarray]:
        """The scores of each table, rounded; not a number where a record has none, which stays."""

    def decide(self, measured: Sequence[Path], state: Path) -> None:
        scores = np.concatenate([np.empty(0), *self.scores(measured)])
        badness = -scores if self.higher_is_better else scores
        limits = []
        limit = getattr(self, self.limit)
        if limit is not None and (self.keep is None or self.limit in self.model_fields_set):
            limits.append(-limit if self.higher_is_better else limit)
        known = np.sort(badness[~np.isnan(badness)])
        if self.keep is not None and len(known):
            limits.append(known[max(math.ceil(round(self.keep * len(known), 6)), 1) - 1])
        with np.errstate(invalid="ignore"):
            goes = np.flatnonzero(badness > min(limits, default=math.inf))
        if missing := len(scores) - len(known):
            logger.warning("%s: %s records have no score and stay", self.reason, f"{missing:,}")
        if len(known):
            middle = float(np.median(scores[~np.isnan(scores)]))
            logger.info(
                "%s: median score %.4f; %s of %s go", self.reason, middle, f"{len(goes):,}", f"{len(scores):,}"
            )
        ids = np.stack([column(measured, name)[goes] for name in ID_COLUMNS], axis=1)
        order = np.lexsort((ids[:, 1], ids[:, 0]))
        write_table(state / _DROPPED, pa.table({"id": fixed_keys(ids[order]), "score": scores[goes][order]}))

    def apply(self, pairs: pa.Table, state: Path | None) -> Outcome:
        assert state is not None
        dropped = read_table(state / _DROPPED)
        goes, at = found_among(key_bytes(fixed_keys(ids_of(pairs))), dropped["id"])
        scores = dropped["score"].to_numpy()
        details = [f"{scores[place]:.{DIGITS}f}" if gone else None for gone, place in zip(goes, at, strict=True)]
        return Outcome.dropping(pairs, {self.reason: pa.array(goes)}, pa.array(details, pa.string()))
