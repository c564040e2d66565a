"""The texts of a training: which corpora, in which languages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import pydantic
from datasets import Dataset
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.data.manifest import Manifest, describe
from hf_nmt.data.sources import BUILT_IN, CorpusSettings, format_of, load_pairs
from hf_nmt.data.streams import PairStream, stream_pairs
from hf_nmt.data.text_lines import existing_file
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.training import languages

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)

_EXAMPLES = {"source_language": "de", "target_language": "en"}


class Texts(NamedTuple):
    """Pairs to train on, and to validate with."""

    train: Dataset | PairStream
    validation: Dataset | None


class TrainingCorpus(CorpusSettings):
    """Where the text to train on comes from."""

    streaming: bool = Field(
        False,
        description="read the text anew in each epoch, window by window (batching.streaming_window), instead of "
        "keeping it and its token ids on disk; for corpora too large for that. Needs training.max_steps",
    )


class TrainingData(Settings):
    """Texts to train on and to validate with."""

    source_language: str | None = Field(
        None, description="Code of the source language, such as de; needed for every corpus but the built-in one (ko)."
    )
    target_language: str | None = Field(
        None, description="Code of the target language, such as en; needed for every corpus but the built-in one (en)."
    )
    train: TrainingCorpus | None = Field(
        None, description="Pairs to train on; null takes the built-in corpus controlled/tiny."
    )
    validation: CorpusSettings | None = Field(
        None,
        description="Pairs to validate with; they choose the best model. null: those of the built-in corpus where it "
        "is trained on, else none: then the best model is the average of the last checkpoints.",
    )

    @pydantic.model_validator(mode="after")
    def _one_translation_each(self) -> TrainingData:
        if self.train is not None and len(self.train.targets) > 1:
            raise ConfigError(
                f"train.target: training reads one translation of each source, and {len(self.train.targets)} files "
                "are given. To train on all of them, join them one after another into one file, and the source as "
                "many times into another; several references are for validation and tests."
            )
        return self

    @pydantic.model_validator(mode="after")
    def _languages_given(self) -> TrainingData:
        if not self.built_in:
            missing = [(name, code) for name, code in _EXAMPLES.items() if getattr(self, name) is None]
            findings = [
                f"{name}: not given; write the code of the language, such as {code}." for name, code in missing
            ]
            if findings:
                raise ConfigError(findings)
        return self

    @pydantic.model_validator(mode="after")
    def _codes_of_languages(self) -> TrainingData:
        given = {name: getattr(self, name) for name in _EXAMPLES}
        findings = [f"{name}: {told}" for name, code in given.items() if code and (told := languages.problem_of(code))]
        if findings:
            raise ConfigError(findings)
        return self

    @property
    def built_in(self) -> str | None:
        """`path` of the built-in corpus, where that is what is trained on."""
        path = f"{BUILT_IN}tiny" if self.train is None else self.train.path
        return path if path is not None and path.startswith(BUILT_IN) else None

    @property
    def is_streamed(self) -> bool:
        return self.train is not None and self.train.streaming

    @property
    def languages(self) -> dict[str, str]:
        """source_language and target_language."""
        return {
            "source_language": self.source_language or "ko",
            "target_language": self.target_language or "en",
        }

    @property
    def corpora(self) -> dict[str, CorpusSettings]:
        """What is read, by split."""
        built_in = {
            split: CorpusSettings(path=self.built_in, split=split)
            for split in ("train", "validation")
            if self.built_in is not None
        }
        given = {"train": self.train, "validation": self.validation}
        return built_in | {split: corpus for split, corpus in given.items() if corpus is not None}

    def check_files(self) -> list[str]:
        findings = []
        for split, corpus in self.corpora.items():
            try:
                if corpus.path is not None and not corpus.path.startswith(BUILT_IN) and not Path(corpus.path).exists():
                    if format_of(corpus) != "hub":
                        existing_file(corpus.path)
            except DataError as error:
                findings.append(f"data.{split}.path: {error}")
            for name, path in [("source", corpus.source), *(("target", path) for path in corpus.targets)]:
                try:
                    if path is not None:
                        existing_file(path)
                except DataError as error:
                    findings.append(f"data.{split}.{name}: {error}")
        return findings

    def load(self) -> Texts:
        if self.is_streamed:
            validation = self.corpora.get("validation")
            return Texts(
                stream_pairs(self.corpora["train"], **self.languages),
                None if validation is None else load_pairs(validation, **self.languages),
            )
        texts = {split: load_pairs(corpus, **self.languages) for split, corpus in self.corpora.items()}
        return Texts(texts["train"], texts.get("validation"))

    def describe(self, texts: Texts) -> Manifest:
        read = texts._asdict()
        return describe({split: (corpus, read[split]) for split, corpus in self.corpora.items()}, **self.languages)
