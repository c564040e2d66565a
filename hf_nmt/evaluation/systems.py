"""What is scored: a saved model that translates a corpus, or a file with the translations of any system."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hf_nmt import artifacts
from hf_nmt.config import fingerprint
from hf_nmt.data.contexts import joined
from hf_nmt.data.text_lines import existing_file, read_lines
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.evaluation.corpora import Corpus
from hf_nmt.generation.contexts import sentences_read
from hf_nmt.generation.decoding import DecodingSettings, model_decoding
from hf_nmt.generation.meter import Meter
from hf_nmt.metrics import LanguagePair, ScoredSystem, primary_language
from hf_nmt.protocols import LANGUAGE_COLUMNS, Translation, Translator
from hf_nmt.runs import is_checkpoint
from hf_nmt.translators import find_model, load_translator

logger = logging.getLogger(__name__)


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
    generic = path.name == "best" or is_checkpoint(path)
    above = path.parent.parent.name if path.parent.name == "checkpoints" else path.parent.name
    return f"{above}-{path.name}" if generic and above else path.name


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


def usual_languages(paths: Sequence[str | Path], given: LanguagePair) -> LanguagePair:
    """Languages of segments that name none: as given, else the only language of that side of the first model that
    tells one, else None."""
    sides: list[str | None] = []
    for side, code in enumerate(given):
        only = (known[0] for path in paths if len(known := model_languages(path)[side]) == 1)
        sides.append(code or next(only, None))
    return sides[0], sides[1]


def check_languages(path: str | Path, pairs: Iterable[LanguagePair]) -> dict[LanguagePair, LanguagePair]:
    """Language pairs of a test set, each with its codes in the model's own spelling.

    Args:
        path: a model folder, or a file of translations, which has no spelling of its own.
        pairs: of the segments; None takes the model's language where it has one.

    Raises:
        ConfigError: the model was trained for other languages, or has several and none was chosen.
    """
    pairs, findings, spelling = list(pairs), [], []
    for side, known in zip(LANGUAGE_COLUMNS, model_languages(path), strict=True):
        chosen: dict[str | None, str | None] = {}
        for code in dict.fromkeys(pair[LANGUAGE_COLUMNS.index(side)] for pair in pairs):
            same = [own for own in known if code is not None and primary_language(own) == primary_language(code)]
            if code is None and len(known) > 1 and side == "target_language":
                findings.append(
                    f"data.target_language: {path} translates into {', '.join(known)}; say which one the test set "
                    "holds, or name that of each row in a column target_language."
                )
            elif code is not None and known and not same:
                verb = "reads" if side == "source_language" else "writes"
                findings.append(
                    f"data.{side}={code}: the model {path} {verb} {', '.join(known)}. Choose a model for {code!r}, "
                    f"or correct data.{side} (are source and target files exchanged?)."
                )
            only = known[0] if len(known) == 1 else None
            chosen[code] = code if code in known else same[0] if same else code or only
        spelling.append(chosen)
    if findings:
        raise ConfigError(findings)
    return {(source, target): (spelling[0][source], spelling[1][target]) for source, target in pairs}


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


def run_model(
    path: str | Path, corpus: Corpus, decoding: CorpusDecodingSettings | None, *, device: str | None = None
) -> System:
    """Load a saved model and translate a corpus with it, each segment into its own target language.

    Args:
        path: what `find_system` gave.
        corpus: what to translate.
        decoding: settings given by the user; the model's own are taken for the rest.
        device: such as "cpu"; None leaves the choice to `load_translator`.

    Raises:
        ConfigError: as `check_languages`, or the translator does not have a language; nothing is translated then.
    """
    resolved = corpus_decoding(path, decoding)
    languages = check_languages(path, corpus.pairs)
    return translate_corpus(
        load_translator(path, device=device),
        corpus,
        resolved,
        name=str(path),
        model_hash=fingerprint(artifacts.hash_model(path)) if Path(path).is_dir() else None,
        languages=languages,
    )


def _with_context(corpus: Corpus, sentences: int, name: str) -> list[str]:
    """The sources of a corpus with as many sentences before each as a model reads."""
    if not sentences:
        return corpus.sources
    if corpus.previous is None:
        logger.warning(
            "%s reads %d sentences before each, but the test set does not name its articles (columns article and "
            "position): every sentence is translated alone.", name, sentences,
        )  # fmt: skip
        return corpus.sources
    return joined(corpus.sources, corpus.previous, sentences)


def translate_corpus(
    translator: Translator,
    corpus: Corpus,
    decoding: Any,
    *,
    name: str,
    model_hash: str | None,
    languages: Mapping[LanguagePair, LanguagePair] | None = None,
) -> System:
    """Translate the sources of a corpus; progress goes to stderr.

    Args:
        translator: any saved or built system.
        corpus: what to translate.
        decoding: a `generation.decoding.DecodingSettings`, such as `CorpusDecodingSettings`.
        name: what tables call the system.
        model_hash: for the records.
        languages: the language pairs of the corpus in the model's own spelling; None takes them as they are.
    """
    began = time.perf_counter()
    texts_read = _with_context(corpus, sentences_read(translator), name)
    best: dict[int, Translation] = {}
    before = 0
    with Meter(len(corpus), "segments", f"translating with {name}") as meter:
        if hasattr(translator, "on_progress"):
            translator.on_progress = lambda done: meter.at(before + done)
        outputs = []
        # A translator refuses a language that it does not have when it is called: all of them before the first text.
        for pair, rows in corpus.pairs.items():
            source, target = pair if languages is None else languages[pair]
            sources = (texts_read[row] for row in rows)
            outputs.append(translator.translate(sources, decoding, source_language=source, target_language=target))
        for rows, n_best in zip(corpus.pairs.values(), outputs, strict=True):
            before = len(best)
            for row, found in zip(rows, n_best, strict=True):
                best[row] = dataclasses.replace(found[0], source_index=row)
                meter.at(len(best))
    seconds = time.perf_counter() - began
    translations = [best[row] for row in range(len(corpus))]
    cut = sum(translation.finish_reason == "length" for translation in translations)
    if cut:
        logger.warning("%s: %d of %d translations were cut at the length limit.", name, cut, len(best))
    facts = ScoredSystem(hash=model_hash, decoding=decoding.model_dump(mode="json"))
    # A line end inside a translation would move all later lines of a file.
    texts = [re.sub(r"[\r\n]+", " ", translation.text) for translation in translations]
    return System(name, texts, facts, translations, seconds)
