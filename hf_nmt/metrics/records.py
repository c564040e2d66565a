"""The record of a measured score: what every recipe that scores writes, and gates, registry and cards read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pydantic

from hf_nmt.errors import DataError

POINTS = "points of 100"
EDITS = "edits per 100 reference words"
PERCENT = "%"


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ScoredData(_Record):
    """What was scored.

    Attributes:
        id: a name a person knows, such as the file or corpus name.
        hash: content hash of the corpus.
        split: "train", "validation", "test"; None where unknown.
        domain: the domain that the score is limited to; None for the whole corpus.
    """

    id: str | None = None
    hash: str | None = None
    split: str | None = None
    domain: str | None = None


class ScoredSystem(_Record):
    """What produced the text.

    Attributes:
        hash: hash of the model folder, or of the file of translations; None for a model straight from the Hub.
        decoding: resolved decoding settings; None where the translations came from outside.
    """

    hash: str | None = None
    decoding: dict[str, Any] | None = None


class Score(_Record):
    """A measured score.

    Attributes:
        name: sacreBLEU's own name, which tells variants apart: "BLEU", "chrF2", "chrF2++", "TER"; or "off-target".
        value: the score, unrounded; None where there is none: off_target of translations whose language none could be
            told.
        unit: what 1.0 stands for.
        signature: every setting that changes the number, as sacreBLEU writes it.
        n: number of segments; of off_target, those whose language could be told.
        interval: (low, high) of the bootstrap distribution, or None where none was asked for.
        data: the corpus.
        system: the system.
        segments: path of the JSONL with the score of every segment, or None.
    """

    name: str
    value: float | None
    unit: str
    signature: str
    n: int
    interval: tuple[float, float] | None = None
    data: ScoredData = ScoredData()
    system: ScoredSystem = ScoredSystem()
    segments: str | None = None

    @property
    def text(self) -> str:
        """The value to two decimals, for people; a dash where there is none."""
        return "-" if self.value is None else f"{self.value:.2f}"


class Comparison(_Record):
    """A paired significance test of one system against the baseline, on one metric.

    Attributes:
        name, unit, signature, n: as in `Score`; the signature holds the test, its samples and seed.
        system, baseline: names of the two systems.
        value, baseline_value: their scores.
        mean, half_width: mean and half the width of the 95 % interval of the system's score over the resamples;
            None where the test gives none.
        p_value: probability of a difference at least this large if the two systems were equal (two-sided).
        domain: the language pair that it is limited to; None for the whole corpus.
    """

    name: str
    unit: str
    signature: str
    n: int
    system: str
    baseline: str
    value: float
    baseline_value: float
    mean: float | None
    half_width: float | None
    p_value: float
    domain: str | None = None


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of one metric over several test sets, such as one for each language pair, each counting the same.

    Its signature says of how many; what the signatures do not share, such as BLEU's tokenizer, is named by `various`.
    A test set without a value is left out. There is no interval.
    """
    values = [score.value for score in scores if score.value is not None]
    fields = [dict(part.partition(":")[::2] for part in score.signature.split("|")) for score in scores]
    shared = [
        f"{key}:{value if all(other.get(key) == value for other in fields) else 'various'}"
        for key, value in fields[0].items()
    ]
    return scores[0].model_copy(
        update={
            "value": sum(values) / len(values) if values else None,
            "signature": "|".join([f"mean:{len(values)}", *shared]),
            "n": sum(score.n for score in scores),
            "interval": None,
            "data": scores[0].data.model_copy(update={"domain": None}),
        }
    )


def load_scores(path: str | Path) -> list[Score]:
    """Read a `scores.json`.

    Raises:
        DataError: the file is missing, or is not a list of score records.
    """
    path = Path(path)
    try:
        return pydantic.TypeAdapter(list[Score]).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot read the scores: {error.strerror}.") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: not a list of score records: {place}: {first['msg']}.") from error


def dump_scores(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """The records as plain values for JSON; `load_scores` reads them back equal."""
    return [score.model_dump(mode="json") for score in scores]
