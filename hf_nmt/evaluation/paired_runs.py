"""Is one run's model better than another's? Paired significance tests wherever both translated the same text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_nmt.errors import NmtError
from hf_nmt.evaluation.run_facts import RunFacts
from hf_nmt.evaluation.scores import SEGMENTS
from hf_nmt.metrics import Comparison, ComparisonSettings, LanguagePair, compare, pair_name
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.run_records import VALIDATION_SEGMENTS


@dataclasses.dataclass(frozen=True)
class Translated:
    """A text as a system translated it.

    Attributes:
        text: what it is called.
        references: of each segment.
        predictions: one a segment.
        pairs: language pair -> its segments.
        metrics: settings of the scores that were computed of it.
    """

    text: str
    references: list[list[str]]
    predictions: list[str]
    pairs: dict[LanguagePair, list[int]]
    metrics: Mapping[str, Any]


def compare_runs(run: RunFacts, baseline: RunFacts) -> tuple[dict[str, list[Comparison]], list[str]]:
    """Paired tests of a run's chosen model against that of another run.

    Returns:
        Name of a text that both translated -> its comparisons, each metric as this run was scored; and why what one
        might look for is not there.
    """
    theirs = {text.text: text for text in _translated(baseline)}
    found: dict[str, list[Comparison]] = {}
    notes = []
    ours = list(_translated(run))
    if not ours:
        notes.append(f"{run.name} has no translations: it was not finished, not validated, or is of an older version.")
    if not theirs:
        notes.append(
            f"{baseline.name} has no translations: it was not finished, not validated, or is of an older version."
        )
    for text in ours:
        other = theirs.get(text.text)
        if other is None:
            notes += [f"{text.text}: {baseline.name} did not translate it."] if theirs else []
        elif other.references != text.references:
            notes.append(f"{text.text}: the texts of {run.name} and {baseline.name} differ.")
        else:
            try:
                found[text.text] = list(_compared(run.name, text, baseline.name, other))
            except (NmtError, ValueError) as error:
                notes.append(f"{text.text}: {error}")
    return found, notes


def _compared(name: str, text: Translated, baseline: str, other: Translated) -> Iterator[Comparison]:
    known = ComparisonSettings.model_fields
    given = {key: value for key, value in text.metrics.items() if key in known}
    settings = ComparisonSettings(**given)
    if name == baseline:
        baseline = f"{baseline} (baseline)"
    for pair, rows in text.pairs.items():
        systems = {
            name: [text.predictions[row] for row in rows],
            baseline: [other.predictions[row] for row in rows],
        }
        references = [text.references[row] for row in rows]
        domain = pair_name(pair) if len(text.pairs) > 1 else None
        for comparison in compare(systems, references, settings, pair[1], baseline=baseline):
            yield comparison.model_copy(update={"domain": domain})


def _translated(facts: RunFacts) -> Iterator[Translated]:
    """What the chosen model of a run translated: the validation texts, and test sets."""
    path = facts.records.folder / VALIDATION_SEGMENTS
    if path.is_file():
        metrics = (facts.records.run.get("settings") or {}).get("metrics") or {}
        yield _read(path, "validation", (None, None), metrics)
    for folder in dict.fromkeys(one.folder for one in facts.tests):
        name = next(one.text for one in facts.tests if one.folder == folder and not one.score.data.domain)
        try:
            record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            settings = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
        except OSError:  # the whole of another program's folder
            continue
        languages = record.get("source_language"), record.get("target_language")
        yield _read(folder / SEGMENTS, name, languages, settings.get("metrics") or {})


def _read(path: Path, text: str, languages: LanguagePair, metrics: Mapping[str, Any]) -> Translated:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs: dict[LanguagePair, list[int]] = {}
    for number, row in enumerate(rows):
        source, target = (row.get(name) or usual for name, usual in zip(LANGUAGE_COLUMNS, languages, strict=True))
        pairs.setdefault((source, target), []).append(number)
    return Translated(
        text, [row["references"] for row in rows], [row["prediction"] for row in rows], pairs, metrics
    )  # fmt: skip
