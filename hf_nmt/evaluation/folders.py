"""Everything about one evaluation in one folder.

predictions/<system>/<time>/
    translations.txt     one line a segment
    segments.jsonl       source, references, prediction and scores of each segment; its languages where there are
                         several language pairs
    scores.json          the score records, and comparisons.json where there was a baseline
    settings.yaml        the resolved settings
    manifest.json        the test set: files, hashes, what was dropped
    record.json          hashes, counts, seconds, environment
    COMPLETE             hashes of the files above
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_nmt import artifacts
from hf_nmt.environment import environment
from hf_nmt.errors import DataError
from hf_nmt.evaluation.corpora import Corpus
from hf_nmt.evaluation.scores import SEGMENTS, Evaluation
from hf_nmt.evaluation.systems import System
from hf_nmt.metrics import Comparison, Score, dump_scores, load_scores, pair_name
from hf_nmt.protocols import LANGUAGE_COLUMNS

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class WrittenEvaluation:
    """A folder that was written here, read back.

    Attributes:
        folder: of the evaluation.
        scores: its score records.
        record: its record.json.
    """

    folder: Path
    scores: list[Score]
    record: dict[str, Any]

    @property
    def system_hash(self) -> str | None:
        return self.record["hashes"]["system"]


def read_evaluations(folders: Iterable[Path | str]) -> list[WrittenEvaluation]:
    """All whole evaluations in folders and below them, by their paths; a folder that does not exist holds none."""
    found = []
    for path in sorted({file.parent for folder in folders for file in Path(folder).glob("**/record.json")}):
        if artifacts.is_complete(path):
            try:
                record = json.loads((path / "record.json").read_text(encoding="utf-8"))
                found.append(WrittenEvaluation(path, load_scores(path / "scores.json"), record))
            except (DataError, ValueError, OSError):  # another program's record.json
                continue
    return [one for one in found if isinstance(one.record, dict) and "hashes" in one.record]


def new_folder(output_dir: str | Path, name: str) -> Path:
    """`<output_dir>/<name>/<YYYYmmdd-HHMMSS>`, with a number where that is taken. Nothing is made yet."""
    folder = Path(output_dir, name, time.strftime("%Y%m%d-%H%M%S"))
    candidates = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], candidates) if not candidate.exists())


def write_evaluation(
    folder: Path,
    corpus: Corpus,
    system: System,
    evaluation: Evaluation,
    *,
    settings_yaml: str,
    facts: Mapping[str, Any],
    comparisons: Sequence[Comparison] = (),
) -> None:
    """Write the folder described at the top of this module, whole or not at all.

    Args:
        folder: must not exist.
        corpus, system, evaluation: what was measured.
        settings_yaml: resolved settings as text.
        facts: what else the record should hold, such as paths.
        comparisons: results of a significance test.

    Raises:
        NmtError: the folder exists or cannot be written.
    """
    with artifacts.atomic_folder(folder) as partial:
        artifacts.write_text(partial / "translations.txt", "".join(f"{text}\n" for text in system.texts))
        rows = (json.dumps(row, ensure_ascii=False) for row in _segment_rows(corpus, system, evaluation))
        artifacts.write_text(partial / SEGMENTS, "".join(f"{row}\n" for row in rows))
        artifacts.write_json(partial / "scores.json", dump_scores(evaluation.scores))
        if comparisons:
            artifacts.write_json(
                partial / "comparisons.json", [comparison.model_dump(mode="json") for comparison in comparisons]
            )
        artifacts.write_text(partial / "settings.yaml", settings_yaml)
        corpus.manifest.write(partial / "manifest.json")
        artifacts.write_json(partial / "record.json", _record(corpus, system, facts))
        artifacts.mark_complete(partial)


def sample_lines(corpus: Corpus, system: System, num_samples: int) -> list[str]:
    """Source, references and prediction of `num_samples` segments, spread evenly over the corpus, as text."""
    count = min(num_samples, len(corpus))
    lines = []
    for row in (index * len(corpus) // count for index in range(count)):
        lines.append(f"[{row + 1}] source      {corpus.sources[row]}")
        indent = " " * (len(str(row + 1)) + 3)
        lines += [f"{indent}reference   {reference}" for reference in corpus.references[row]]
        lines.append(f"{indent}prediction  {system.texts[row]}")
    return lines


def _segment_rows(corpus: Corpus, system: System, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    several = len(corpus.pairs) > 1
    languages = {row: pair for pair, rows in corpus.pairs.items() for row in rows} if several else {}
    for number, source in enumerate(corpus.sources):
        row: dict[str, Any] = {
            "source": source,
            "references": corpus.references[number],
            "prediction": system.texts[number],
        }
        row |= {
            name: None if value is None else round(value, 4)
            for name, value in ((name, values[number]) for name, values in evaluation.segments.items())
        }
        if corpus.domains:
            row["domain"] = corpus.domains[number]
        if several:
            row |= dict(zip(LANGUAGE_COLUMNS, languages[number], strict=True))
        if system.translations:
            row["model_score"] = system.translations[number].score
            row["finish_reason"] = system.translations[number].finish_reason
        yield row


def _record(corpus: Corpus, system: System, facts: Mapping[str, Any]) -> dict[str, Any]:
    pairs = {pair_name(pair): len(rows) for pair, rows in corpus.pairs.items()}
    counts: dict[str, Any] = {
        "segments": len(corpus),
        "references": sum(map(len, corpus.references)),
        **({"language_pairs": pairs} if len(pairs) > 1 else {}),
        "empty_translations": sum(not text.strip() for text in system.texts),
    }
    if system.translations:
        reasons = [translation.finish_reason for translation in system.translations]
        counts["cut_at_length_limit"] = reasons.count("length")
        counts["target_tokens"] = sum(len(translation.tokens) for translation in system.translations)
    return {
        "schema_version": SCHEMA_VERSION,
        "system": system.name,
        **facts,
        **dict(zip(LANGUAGE_COLUMNS, corpus.only_pair, strict=True)),
        "hashes": {"data": corpus.data.hash, "system": system.facts.hash},
        "counts": counts,
        "seconds": system.seconds,
        "environment": environment(),
    }
