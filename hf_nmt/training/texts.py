"""The texts of a training: which corpora, in which languages."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
from datasets import Dataset
from pydantic import Field

from hf_nmt import language
from hf_nmt.batching import language_pairs
from hf_nmt.batching.mixing import CORPUS, MixingSettings
from hf_nmt.config import Settings
from hf_nmt.data.contexts import check_articles, with_context
from hf_nmt.data.description import describe
from hf_nmt.data.manifest import Manifest
from hf_nmt.data.mixtures import (
    given_beside_pairs,
    join_pairs,
    languages_of_pair,
    problems_of_codes,
    unnamed_languages,
)
from hf_nmt.data.sources import BUILT_IN, CorpusSettings, count_copies, format_of, in_split, keys_told, load_pairs
from hf_nmt.data.streams import Stream, stream_pairs
from hf_nmt.data.text_lines import existing_file
from hf_nmt.data.version_reading import Version
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.training.streams import ROWS_LOOKED_AT, mix_streams

logger = logging.getLogger(__name__)

_EXAMPLES = {"source_language": "de", "target_language": "en"}


class Texts(NamedTuple):
    """Pairs to train on, and to validate with."""

    train: Dataset | Stream
    validation: Dataset | None


class TrainingCorpus(CorpusSettings):
    """Where the text to train on comes from."""

    streaming: bool = Field(
        False,
        description="read the text anew in each epoch, window by window (batching.streaming_window), instead of "
        "keeping it and its token ids on disk; for corpora too large for that. Needs training.max_steps; of "
        "data.pairs all are streamed or none",
    )


class LanguagePairSettings(Settings):
    """Texts of one language pair of several."""

    source_language: str | None = Field(
        None, description="Code of the source language; null takes it from the name of the pair, such as de-en."
    )
    target_language: str | None = Field(None, description="Code of the target language, as source_language.")
    train: TrainingCorpus | None = Field(
        None, description="Pairs to train on; null only validates, as for a direction that is never trained."
    )
    validation: CorpusSettings | None = Field(None, description="Pairs to validate with; null only trains.")


class TrainingData(Settings):
    """Texts to train on and to validate with."""

    source_language: str | None = Field(
        None,
        description="Code of the source language, such as de; needed for every corpus but the built-in one (ko), and "
        "one whose rows name theirs in a column source_language.",
    )
    target_language: str | None = Field(
        None, description="Code of the target language, such as en, as source_language; built-in: en."
    )
    version: str | None = Field(
        None,
        description="Folder of a version of a corpus, processed_data/v<date>-<hash> of recipes/prepare_data.py, in "
        "place of train: its split train, in its languages, and its split validation where it has one and none is "
        "given.",
    )
    train: TrainingCorpus | None = Field(
        None, description="Pairs to train on; null takes the built-in corpus controlled/tiny, or those of pairs."
    )
    validation: CorpusSettings | None = Field(
        None,
        description="Pairs to validate with; they choose the best model. null: those of the built-in corpus where it "
        "is trained on, else none: then the best model is the average of the last checkpoints.",
    )
    pairs: dict[str, LanguagePairSettings] = Field(
        {},
        description="Texts of several language pairs for one model, in place of source_language, target_language, "
        "train and validation: {de-en: {train: ..., validation: ...}, fr-en: ...}, or "
        "data.pairs.de-en.train.source=FILE and so on.",
    )
    context_sentences: int = Field(
        0,
        ge=0,
        le=20,
        description="Sentences before each source in its article (columns article and position, as in a version of a "
        "corpus) that the model reads with it (Tiedemann and Scherrer 2017, 2+1); they never cross an article. The "
        "saved model keeps the number, and validate.py and translate.py give it as many. 0 reads sentences alone.",
    )
    sampling_temperature: float = Field(
        1.0,
        ge=1,
        description="T of several language pairs: an epoch draws pair i, with n_i of all N rows, in proportion to "
        "(n_i/N)^(1/T). 1 takes every row once; 5 is usual where some have little text; .inf draws all equally. Of "
        "streamed pairs the n_i are counts of lines.",
    )
    mixing: MixingSettings | None = Field(
        None,
        description="Domains, origins or corpora drawn by weights or a temperature, stage after stage, in place of "
        "sampling_temperature; null draws every row once an epoch.",
    )

    @pydantic.model_validator(mode="after")
    def _mixture_possible(self) -> TrainingData:
        if self.mixing is None:
            return self
        findings = []
        if self.sampling_temperature != 1:
            findings.append("sampling_temperature: given beside data.mixing, which settles it. Leave one of them out.")
        if self.is_streamed:
            findings.append(
                "mixing: the rows of a stream are taken as they come. Leave streaming out; or give the pairs of "
                "languages shares of a stream by sampling_temperature."
            )
        if self.mixing.by == CORPUS and not self.pairs:
            findings.append(
                "mixing.by: corpus goes by the names of data.pairs, and none are given. Give data.pairs.NAME for each "
                "corpus, or take a column of the rows: domain, origin or synthetic."
            )
        if findings:
            raise ConfigError(findings)
        return self

    @pydantic.model_validator(mode="after")
    def _pairs_alone(self) -> TrainingData:
        findings = given_beside_pairs(self, *_EXAMPLES, "version", "train", "validation") if self.pairs else []
        if self.version is not None and self.train is not None:
            findings.append(
                "version: given together with data.train, which is another corpus. Leave one of them out; "
                "data.train.path takes a version too, beside settings such as streaming."
            )
        for name, pair in self.pairs.items():
            findings += unnamed_languages(name, self._named(name))
            if pair.train is None and pair.validation is None:
                findings.append(f"pairs.{name}: it has no texts; give data.pairs.{name}.train.")
        findings += self._streamed_in_part()
        if self.context_sentences and (self.is_streamed or self.pairs or self.built_in is not None):
            what = "pairs" if self.pairs else "train.streaming" if self.is_streamed else "train"
            findings.append(
                f"context_sentences: data.{what} does not tell which sentences stand before which. It takes a whole "
                "corpus with the columns article and position, such as a version of a corpus (data.version=FOLDER), "
                "whose rows may name several languages."
            )
        if self.pairs and all(pair.train is None for pair in self.pairs.values()):
            findings.append("pairs: none of them has texts to train on; give one of them train.")
        if self.sampling_temperature != 1 and not self._may_have_several:
            findings.append(
                f"sampling_temperature: {self.sampling_temperature} would change nothing with one language pair; "
                "leave it out, or give several in data.pairs."
            )
        elif self.sampling_temperature != 1 and self.is_streamed and not self.pairs:
            findings.append(
                "sampling_temperature: the rows of a single stream are taken as they come, whatever languages they "
                "name. To draw its pairs by temperature, put each into a file of its own and give them in data.pairs; "
                "or leave streaming out."
            )
        if findings:
            raise ConfigError(findings)
        return self

    def _streamed_in_part(self) -> Iterator[str]:
        trained = {name: pair.train.streaming for name, pair in self.pairs.items() if pair.train is not None}
        if len({*trained.values()}) > 1:
            streamed = ", ".join(name for name, is_streamed in trained.items() if is_streamed)
            for name, is_streamed in trained.items():
                if not is_streamed:
                    yield (
                        f"pairs.{name}.train.streaming: false, but {streamed} is streamed, and rows can be mixed only "
                        "where all are. Set it to true here too, or to false everywhere."
                    )

    @pydantic.model_validator(mode="after")
    def _one_translation_each(self) -> TrainingData:
        given = [("train", self.train), *((f"pairs.{name}.train", pair.train) for name, pair in self.pairs.items())]
        findings = [
            f"{place}.target: training reads one translation of each source, and {len(corpus.targets)} files "
            "are given. To train on all of them, join them one after another into one file, and the source as "
            "many times into another; several references are for validation and tests."
            for place, corpus in given
            if corpus is not None and len(corpus.targets) > 1
        ]
        if findings:
            raise ConfigError(findings)
        return self

    @pydantic.model_validator(mode="after")
    def _languages_given(self) -> TrainingData:
        # The rows of two aligned files and of TMX cannot name their languages.
        if self.built_in is None and not self.pairs and not self._may_have_several:
            missing = [(name, code) for name, code in _EXAMPLES.items() if getattr(self, name) is None]
            findings = [
                f"{name}: not given; write the code of the language, such as {code}." for name, code in missing
            ]
            if findings:
                raise ConfigError(findings)
        return self

    @pydantic.model_validator(mode="after")
    def _codes_of_languages(self) -> TrainingData:
        if findings := problems_of_codes(self, {name: self._named(name) for name in self.pairs}):
            raise ConfigError(findings)
        return self

    def _named(self, name: str) -> tuple[str | None, str | None]:
        """The languages of an entry of `pairs`, as far as they are told."""
        pair = self.pairs[name]
        return languages_of_pair(name, pair.source_language, pair.target_language)

    @property
    def _may_have_several(self) -> bool:
        """Whether there may be several language pairs, as far as the settings tell."""
        if self.pairs:
            return len({self._named(name) for name, pair in self.pairs.items() if pair.train is not None}) > 1
        if self.version is not None:
            return True
        if self.train is None or self.train.path is None or self.built_in is not None:
            return False
        return ".tmx" not in Path(self.train.path).suffixes and self.train.format != "tmx"

    @property
    def built_in(self) -> str | None:
        """`path` of the built-in corpus, where that is what is trained on."""
        if self.pairs or self.version is not None:
            return None
        path = f"{BUILT_IN}tiny" if self.train is None else self.train.path
        return path if path is not None and path.startswith(BUILT_IN) else None

    @property
    def is_streamed(self) -> bool:
        trained = [self.train, *(pair.train for pair in self.pairs.values())]
        return any(corpus is not None and corpus.streaming for corpus in trained)

    @property
    def language_pairs(self) -> list[tuple[str, str]]:
        """The pairs that the settings name, each once; empty where only the rows tell."""
        if self.pairs:
            return list(dict.fromkeys(self._named(name) for name in self.pairs))
        source, target = self.usual_languages
        return [] if source is None or target is None else [(source, target)]

    @property
    def usual_languages(self) -> tuple[str | None, str | None]:
        """Source and target language of rows that name none."""
        if self.built_in is not None:
            return self.source_language or "ko", self.target_language or "en"
        if self.version is not None and None in (self.source_language, self.target_language):
            told = Version.read(self.version).languages
            own = (told[0], told[1]) if len(told) == 2 else (None, None)
            return self.source_language or own[0], self.target_language or own[1]
        return self.source_language, self.target_language

    def pairs_in(self, rows: Dataset | Stream) -> dict[tuple[str | None, str | None], int]:
        """The language pairs of texts, and how many rows each has; of a stream, in its first rows."""
        seen = rows if isinstance(rows, Dataset) else rows.head(ROWS_LOOKED_AT)
        return language_pairs(seen, self.usual_languages)

    def languages_in(self, train: Dataset | Stream) -> dict[str, list[str]]:
        """`source_language` and `target_language`: the codes that are trained, each once."""
        sides = zip(*self.pairs_in(train), strict=True)
        return {name: list(dict.fromkeys(codes)) for name, codes in zip(_EXAMPLES, sides, strict=True)}

    def only_languages(self, train: Dataset | Stream) -> dict[str, str | None]:
        """`source_language` and `target_language`: the code where just one is trained, else None."""
        return {name: codes[0] if len(codes) == 1 else None for name, codes in self.languages_in(train).items()}

    @property
    def corpora(self) -> dict[str, CorpusSettings | dict[str, CorpusSettings]]:
        """What is read, by split; of several language pairs, by the name of the pair."""
        if self.pairs:
            by_pair = {
                split: {name: corpus for name, pair in self.pairs.items() if (corpus := getattr(pair, split))}
                for split in ("train", "validation")
            }
            return {split: corpora for split, corpora in by_pair.items() if corpora}
        found: dict[str, CorpusSettings | dict[str, CorpusSettings]] = {}
        for split, given in (("train", self.train), ("validation", self.validation)):
            if given is not None:
                found[split] = in_split(given, split)
            elif self.version is not None and (split == "train" or self._version_may_have(split)):
                found[split] = CorpusSettings(path=self.version, split=split)
            elif self.built_in is not None:
                found[split] = CorpusSettings(path=self.built_in, split=split)
        return found

    def _version_may_have(self, split: str) -> bool:
        """Whether the version has a split; taken for granted where it cannot be read, which `check_files` tells."""
        try:
            return Version.read(str(self.version)).has(split)
        except DataError:
            return True

    def _places(self) -> Iterator[tuple[str, CorpusSettings]]:
        """Every corpus that is read, with its key inside `data`."""
        for split, corpus in self.corpora.items():
            if isinstance(corpus, CorpusSettings):
                yield split, corpus
            else:
                yield from ((f"pairs.{name}.{split}", one) for name, one in corpus.items())

    def check_files(self) -> list[str]:
        findings = []
        if self.version is not None:
            try:
                Version.read(self.version).split("train")
            except (ConfigError, DataError) as error:
                return [f"data.version: {error}"]
        for place, corpus in self._places():
            try:
                if corpus.path is not None and not corpus.path.startswith(BUILT_IN) and not Path(corpus.path).exists():
                    if format_of(corpus) != "hub":
                        existing_file(corpus.path)
            except DataError as error:
                findings.append(f"data.{place}.path: {error}")
            for name, path in [("source", corpus.source), *(("target", path) for path in corpus.targets)]:
                try:
                    if path is not None:
                        existing_file(path)
                except DataError as error:
                    findings.append(f"data.{place}.{name}: {error}")
            if corpus.source is not None and os.path.realpath(corpus.source) in map(os.path.realpath, corpus.targets):
                findings.append(
                    f"data.{place}.target: {corpus.source} is the source too, and a model would learn to copy. Give "
                    "the file with its translations."
                )
        return findings

    def load(self) -> Texts:
        """
        Raises:
            DataError, ConfigError: a corpus cannot be read; rows do not tell their languages, and the settings do not.
        """
        texts = {split: self._load(split, corpus) for split, corpus in self.corpora.items()}
        findings = [finding for split, rows in texts.items() for finding in self._unknown_languages(split, rows)]
        if findings:
            raise ConfigError(findings)
        if self.mixing is not None and self.mixing.by not in (columns := texts["train"].column_names):
            raise ConfigError(
                f"data.mixing.by: the training text has no column {self.mixing.by}. It has {', '.join(columns)}; the "
                "corpora that recipes/prepare_data.py writes have domain, origin and synthetic."
            )
        for split, rows in texts.items():
            if self.context_sentences and isinstance(rows, Dataset):
                check_articles(rows, f"data.{split}")
            seen = rows.head(ROWS_LOOKED_AT) if isinstance(rows, Stream) else rows
            if (copies := count_copies(seen)) > len(seen) / 2:
                logger.warning(
                    "data.%s: the target equals the source in %s of %s pairs. Are they two languages? Training on "
                    "them teaches the model to copy.", split, f"{copies:,}", f"{len(seen):,}",
                )  # fmt: skip
        return Texts(texts["train"], texts.get("validation"))

    def with_context(self, texts: Texts) -> Texts:
        """The texts with as many sentences before each source as `context_sentences` says."""
        if not self.context_sentences:
            return texts
        assert isinstance(texts.train, Dataset)
        train, validation = (
            None if rows is None else with_context(rows, self.context_sentences)
            for rows in (texts.train, texts.validation)
        )
        assert train is not None
        return Texts(train, validation)

    def _load(self, split: str, corpus: CorpusSettings | dict[str, CorpusSettings]) -> Dataset | Stream:
        if isinstance(corpus, CorpusSettings):
            is_stream = split == "train" and self.is_streamed
            with keys_told(f"data.{split}"):
                return (stream_pairs if is_stream else load_pairs)(
                    corpus, **dict(zip(_EXAMPLES, self.usual_languages, strict=True))
                )
        if split == "train" and self.is_streamed:
            return mix_streams(
                {name: (*self._named(name), one) for name, one in corpus.items()}, self.sampling_temperature
            )
        named = {name: (*self._named(name), one) for name, one in corpus.items()}
        if self.mixing is None or split != "train":
            return join_pairs(named, split)
        if self.mixing.by == CORPUS:
            return join_pairs(named, split, names_in=CORPUS)
        return join_pairs(named, split, keep=[self.mixing.by])

    def _unknown_languages(self, split: str, rows: Dataset | Stream) -> Iterator[str]:
        if isinstance(rows, Stream):
            rows = rows.head(ROWS_LOOKED_AT)
        pairs = self.pairs_in(rows)
        for side, name in enumerate(LANGUAGE_COLUMNS):
            missing = sum(count for pair, count in pairs.items() if pair[side] is None)
            if missing and name not in rows.column_names:
                yield (
                    f"data.{name}: not given, and the rows of data.{split} have no column {name}; write the code of "
                    f"the language, such as {_EXAMPLES[name]}."
                )
            elif missing:
                yield (
                    f"data.{name}: {missing:,} rows of data.{split} have none in their column {name}; write the code "
                    f"of the language that is meant there, such as {_EXAMPLES[name]}."
                )
            for code in dict.fromkeys(pair[side] for pair in pairs):
                if not isinstance(code, str | None):
                    yield f"data.{split}: the column {name} must hold text, here it is {code!r}."
                elif code and name in rows.column_names and (told := language.problem_of(code)):
                    yield f"data.{split}: the column {name}: {told}"

    def describe(self, texts: Texts) -> Manifest:
        read: dict[str, Any] = texts._asdict()
        trained = self.languages_in(texts.train)
        return describe(
            {split: (corpus, read[split]) for split, corpus in self.corpora.items()},
            languages=list(dict.fromkeys(code for codes in trained.values() for code in codes)),
        )
