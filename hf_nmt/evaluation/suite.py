"""Translate a test corpus with any Translator, score the output, and keep everything in one folder.

predictions/<system>/<time>/
    translations.txt     one line a segment
    segments.jsonl       source, references, prediction and scores of each segment
    scores.json          the score records, and comparisons.json where there was a baseline
    settings.yaml        the resolved settings
    manifest.json        the test set: files, hashes, what was dropped
    record.json          hashes, counts, seconds, environment
    COMPLETE             hashes of the files above
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hf_nmt import artifacts, runs
from hf_nmt.config import fingerprint
from hf_nmt.data.manifest import Manifest, describe
from hf_nmt.data.sources import CorpusSettings, load_pairs
from hf_nmt.data.text_lines import existing_file, read_lines
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.generation.decoding import DecodingSettings, model_decoding
from hf_nmt.generation.meter import Meter
from hf_nmt.metrics import (
    Comparison,
    MetricSettings,
    Score,
    ScoredData,
    ScoredSystem,
    compute_scores,
    dump_scores,
    primary_language,
    score_corpus,
)
from hf_nmt.protocols import Translation, Translator
from hf_nmt.translators import find_model, load_translator

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SEGMENTS = "segments.jsonl"


@dataclass(frozen=True)
class Corpus:
    """A test corpus in memory.

    Attributes:
        sources: one text a segment.
        references: one or more reference translations a segment.
        domains: the domain of each segment, or None where the corpus names none.
        data: what a score record says of it.
        manifest: its files, hashes and what was dropped.
    """

    sources: list[str]
    references: list[list[str]]
    domains: list[str] | None
    data: ScoredData
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.sources)


@dataclass(frozen=True)
class System:
    """The output of one system on a corpus.

    Attributes:
        name: what the tables call it.
        texts: one translation a segment.
        facts: what a score record says of it.
        translations: what the translator told beside the text; empty where the texts came from a file.
        seconds: time spent translating; None where the texts came from a file.
    """

    name: str
    texts: list[str]
    facts: ScoredSystem
    translations: list[Translation] = field(default_factory=list)
    seconds: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: records of the whole corpus, then of each domain.
        segments: for each metric name the score of every segment.
    """

    scores: list[Score]
    segments: dict[str, list[float]]


def load_corpus(
    settings: CorpusSettings, *, source_language: str | None = None, target_language: str | None = None
) -> Corpus:
    """Read a test set.

    Args:
        settings: where it is.
        source_language, target_language: codes, or None where the file does not need them.

    Raises:
        DataError, ConfigError: as `data.sources.load_pairs`.
    """
    rows = load_pairs(settings, source_language=source_language, target_language=target_language)
    return corpus_of(rows, settings, source_language=source_language, target_language=target_language)


def corpus_of(
    rows: datasets.Dataset,
    settings: CorpusSettings,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> Corpus:
    """A corpus from a table with the columns `source`, `target` and, where there are, `references` and `domain`.

    Raises:
        DataError: there are no rows.
    """
    name, split = str(settings.path or settings.source), settings.split or "test"
    if not len(rows):
        raise DataError(f"{name}: the test set is empty; there is nothing to score.")
    references = [list(row) for row in rows["references"]] if "references" in rows.column_names else None
    # ISO 639's code for a language that is not told.
    source_language, target_language = source_language or "und", target_language or "und"
    manifest = describe({split: (settings, rows)}, languages=[source_language, target_language])
    return Corpus(
        sources=list(rows["source"]),
        references=references or [[target] for target in rows["target"]],
        domains=[str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else None,
        data=ScoredData(id=name, hash=manifest.content_hash, split=split),
        manifest=manifest,
    )


def model_languages(path: str | Path) -> tuple[list[str], list[str]]:
    """Source and target languages that a model folder says it was trained for; empty where it does not say.

    Read from `config.json` (one language a side) or else `tokenizer_config.json` (several); no weights are loaded.
    """

    def read(name: str) -> dict[str, Any]:
        try:
            found = json.loads(Path(path, name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    config, tokenizer = read("config.json"), read("tokenizer_config.json")
    sides = []
    for side in ("source", "target"):
        one, several = config.get(f"{side}_language"), tokenizer.get(f"{side}_languages")
        sides.append([one] if isinstance(one, str) else list(several) if isinstance(several, list) else [])
    return sides[0], sides[1]


def check_languages(path: str | Path, source: str | None, target: str | None) -> tuple[str | None, str | None]:
    """Language codes of an evaluation, in the model's own spelling.

    Args:
        path: a model folder.
        source, target: what the settings say; None takes the model's language where it has one.

    Raises:
        ConfigError: the model was trained for other languages, or has several and none was chosen.
    """
    findings: list[str] = []
    chosen: list[str | None] = []
    for side, code, known in zip(("source", "target"), (source, target), model_languages(path), strict=True):
        same = [own for own in known if code is not None and primary_language(own) == primary_language(code)]
        if code is None and len(known) == 1:
            chosen.append(known[0])
        elif code is None and len(known) > 1 and side == "target":
            findings.append(
                f"data.target_language: {path} translates into {', '.join(known)}; say which one the test set holds."
            )
        elif code is not None and known and not same:
            verb = "reads" if side == "source" else "writes"
            findings.append(
                f"data.{side}_language={code}: the model {path} {verb} {', '.join(known)}. Choose a model for "
                f"{code!r}, or correct data.{side}_language (are source and target files exchanged?)."
            )
        else:
            chosen.append(code if code in known or not same else same[0])
    if findings:
        raise ConfigError(findings)
    return chosen[0], chosen[1]


def find_system(path: str, kind: Literal["model", "translations", "baseline"]) -> str:
    """What a path stands for: a file of translations, the folder of a model (of a run, its best), or an id of the Hub.

    Args:
        path: as the user gave it.
        kind: a model, a file of translations, or either of them.

    Raises:
        NmtError: nothing usable is there.
    """
    if kind == "translations" or (kind == "baseline" and Path(path).is_file()):
        return str(existing_file(path))
    return find_model(path)


def system_name(path: str | Path) -> str:
    """A short name for a system: `runs/de-en-20260101-120000/best` -> `de-en-20260101-120000-best`."""
    path = Path(path).resolve()
    generic = path.name == "best" or path.name.startswith("step-")
    above = path.parent.parent.name if path.parent.name == "checkpoints" else path.parent.name
    return f"{above}-{path.name}" if generic and above else path.name


def new_folder(output_dir: str | Path, name: str) -> Path:
    """`<output_dir>/<name>/<YYYYmmdd-HHMMSS>`, with a number where that is taken. Nothing is made yet."""
    folder = Path(output_dir, name, time.strftime("%Y%m%d-%H%M%S"))
    candidates = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([folder], candidates) if not candidate.exists())


def read_system(path: str | Path, corpus: Corpus) -> System:
    """Translations from a file, one line a segment.

    Raises:
        DataError: the file cannot be read, or has another number of lines than the corpus has segments.
    """
    texts = list(read_lines(path))
    if len(texts) != len(corpus):
        raise DataError(
            f"{path} has {len(texts):,} lines, the test set {corpus.data.id} has {len(corpus):,} segments. There must "
            "be one translation a line, in the order of the test set."
        )
    return System(str(path), texts, ScoredSystem(hash=artifacts.hash_file(path)[:16]))


class CorpusDecodingSettings(DecodingSettings):
    """How a test set is translated: line by line, as it is aligned, and no line is refused; as in a training."""

    split_sentences: bool = Field(
        False,
        description="Translate every sentence of a line on its own and join the translations. A test set is "
        "translated line by line, as its references are.",
    )
    truncate: bool = Field(
        True,
        description="Cut off what is over the limit of the source, with a warning, so that every line is scored. "
        "false refuses such lines or, with split_sentences=true, cuts them into parts that are all translated.",
    )


def corpus_decoding(path: str | Path, given: CorpusDecodingSettings | None) -> CorpusDecodingSettings:
    """How a model translates a test set: as it is given, else as the model's `generation_config.json` says."""
    given = given or CorpusDecodingSettings()
    by_line = given.model_dump(include={"split_sentences", "truncate"})
    return CorpusDecodingSettings(**model_decoding(path, given).model_dump() | by_line)


def run_model(
    path: str | Path,
    corpus: Corpus,
    decoding: CorpusDecodingSettings | None,
    *,
    source_language: str | None,
    target_language: str | None,
    device: str | None = None,
) -> System:
    """Load a saved model and translate a corpus with it.

    Args:
        path: what `find_system` gave.
        corpus: what to translate.
        decoding: settings given by the user; the model's own are taken for the rest.
        source_language, target_language: codes in the model's own spelling, or None.
        device: such as "cpu"; None leaves the choice to `load_translator`.
    """
    resolved = corpus_decoding(path, decoding)
    translator = load_translator(path, device=device, source_language=source_language, target_language=target_language)
    return translate_corpus(
        translator,
        corpus,
        resolved,
        name=str(path),
        model_hash=fingerprint(artifacts.hash_model(path)) if Path(path).is_dir() else None,
        target_language=target_language,
    )


def translate_corpus(
    translator: Translator,
    corpus: Corpus,
    decoding: Any,
    *,
    name: str,
    model_hash: str | None,
    target_language: str | None,
) -> System:
    """Translate the sources of a corpus; progress goes to stderr.

    Args:
        translator: any saved or built system.
        corpus: what to translate.
        decoding: a `generation.decoding.DecodingSettings`, such as `CorpusDecodingSettings`.
        name: what tables call the system.
        model_hash: for the records.
        target_language: code in the model's own spelling, or None.
    """
    start = time.perf_counter()
    with Meter(len(corpus), "segments", f"translating with {name}") as meter:
        if hasattr(translator, "on_progress"):
            translator.on_progress = meter.at
        outputs = translator.translate(corpus.sources, decoding, target_language=target_language)
        best = []
        for nbest in outputs:
            best.append(nbest[0])
            meter.at(len(best))
    seconds = time.perf_counter() - start
    cut = sum(translation.finish_reason == "length" for translation in best)
    if cut:
        logger.warning("%s: %d of %d translations were cut at the length limit.", name, cut, len(best))
    facts = ScoredSystem(hash=model_hash, decoding=decoding.model_dump(mode="json"))
    # A line end inside a translation would move all later lines of a file.
    texts = [re.sub(r"[\r\n]+", " ", translation.text) for translation in best]
    return System(name, texts, facts, best, seconds)


def warn_if_like_source(corpus: Corpus, system: System) -> None:
    """Warn where translations are more like their sources than like their references, by chrF.

    A translation shares names and figures with its source, but most of its words with the reference. It is otherwise
    where the files are exchanged, where a file holds another language, or where the model copies.
    """
    rows = range(min(len(corpus), 500))
    texts, sources = [system.texts[row] for row in rows], [corpus.sources[row] for row in rows]
    references = [corpus.references[row] for row in rows]
    if all(source in row for source, row in zip(sources, references, strict=True)):
        return  # a test of copying
    chrf = MetricSettings(names=["chrf"], num_bootstrap_samples=0)
    like_sources, like_references = (
        compute_scores(texts, wanted, chrf)[0].value for wanted in ([[source] for source in sources], references)
    )
    if like_sources > like_references:
        logger.warning(
            f"{system.name}: the translations are more like the sources (chrF {like_sources:.1f}) than like the "
            f"references (chrF {like_references:.1f}). Are source and target exchanged, or is a file in another "
            "language? Otherwise the model copies its input."
        )


def evaluate(
    corpus: Corpus, system: System, settings: MetricSettings, target_language: str | None, *, per_domain: bool = False
) -> Evaluation:
    """Score a system on a corpus.

    Args:
        corpus: sources and references.
        system: its translations.
        settings: which scores and how.
        target_language: as in `metrics.compute_scores`.
        per_domain: score every domain by itself as well.

    Raises:
        ConfigError: `per_domain` for a corpus that names no domains.
    """
    if per_domain:
        check_domains(corpus)
    whole = score_corpus(
        system.texts,
        corpus.references,
        settings,
        target_language,
        data=corpus.data,
        system=system.facts,
        segments=SEGMENTS,
    )
    scores = list(whole.scores)
    for domain in sorted(set(corpus.domains or [])) if per_domain else []:
        rows = [row for row, name in enumerate(corpus.domains or []) if name == domain]
        scores += score_corpus(
            [system.texts[row] for row in rows],
            [corpus.references[row] for row in rows],
            settings,
            target_language,
            data=corpus.data.model_copy(update={"domain": domain}),
            system=system.facts,
            segments=SEGMENTS,
        ).scores
    return Evaluation(scores, whole.segments)


def check_domains(corpus: Corpus) -> None:
    """Raise ConfigError where the corpus names no domains."""
    if corpus.domains is None:
        raise ConfigError(f"per_domain: the test set {corpus.data.id} has no column `domain`. Set per_domain=false.")


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
        facts: what else the record should hold, such as paths and language codes.
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


def _segment_rows(corpus: Corpus, system: System, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for number, source in enumerate(corpus.sources):
        row: dict[str, Any] = {
            "source": source,
            "references": corpus.references[number],
            "prediction": system.texts[number],
        }
        row |= {name: round(values[number], 4) for name, values in evaluation.segments.items()}
        if corpus.domains:
            row["domain"] = corpus.domains[number]
        if system.translations:
            row["model_score"] = system.translations[number].score
            row["finish_reason"] = system.translations[number].finish_reason
        yield row


def _record(corpus: Corpus, system: System, facts: Mapping[str, Any]) -> dict[str, Any]:
    counts = {
        "segments": len(corpus),
        "references": sum(map(len, corpus.references)),
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
        "hashes": {"data": corpus.data.hash, "system": system.facts.hash},
        "counts": counts,
        "seconds": system.seconds,
        "environment": runs.environment(),
    }
