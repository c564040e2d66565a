"""Adapt the vocabulary of a saved model to a corpus, or add codes of languages; the result is a new model folder.

    python recipes/adapt_vocabulary.py model=MODEL output=small trim=true \\
        data.train.source=train.en data.train.target=train.cs
    python recipes/adapt_vocabulary.py model=runs/<id>/best output=parent-fr retrain=8000 data.source_language=fr \\
        data.target_language=en data.train.source=train.fr data.train.target=train.en
    python recipes/adapt_vocabulary.py model=nllb output=nllb-xx add_languages=[xxx_Latn] like=deu_Latn

trim removes the pieces that the corpus does not use; grow adds pieces learnt from it; retrain replaces all pieces by
new ones, for a corpus in another language. What is kept keeps its weights; what is new starts as the mean of the
pieces that wrote it before. The folder is read back before it counts: the logits of all kept tokens must be those of
the old model. It holds vocabulary.json, the report that also goes to stdout. Then fine-tune it: recipes/train.py.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.config import Settings, from_command_line, launch
from hf_nmt.data.sources import CorpusSettings, keys_told, load_pairs
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.translators import find_model, load_model
from hf_nmt.vocabularies.settings import VocabularySettings

logger = logging.getLogger("hf_nmt.recipes.adapt_vocabulary")


class AdaptVocabularyData(Settings):
    source_language: str | None = Field(
        None,
        description="Code of the corpus's source language; finds its column. A model of ours for one pair becomes one "
        "of this language.",
    )
    target_language: str | None = Field(None, description="Likewise of the target language.")
    train: CorpusSettings | None = Field(None, description="The corpus to adapt to: the text of the fine-tuning.")


class AdaptVocabularyRecipe(VocabularySettings):
    model: str | None = Field(
        None, description="Model to adapt: folder such as runs/<id>/best, a run folder, or id of the Hub."
    )
    output: str | None = Field(None, description="Folder to write, which must not exist.")
    data: AdaptVocabularyData = Field(AdaptVocabularyData(), description="Languages and corpus.")

    def check_files(self) -> list[str]:
        findings = missing(self)
        if self.model is not None:
            try:
                find_model(self.model)
            except NmtError as error:
                findings.append(f"model: {error}")
        if self.output is not None and Path(self.output).exists():
            findings.append(f"output: {self.output} exists already. Choose another name, or remove it first.")
        return findings


SETTINGS = AdaptVocabularyRecipe


def missing(settings: AdaptVocabularyRecipe) -> list[str]:
    """What must be given in addition, or left out."""
    findings = []
    if settings.model is None:
        findings.append("model: none is given. Write model=FOLDER, such as model=runs/<id>/best.")
    if settings.output is None:
        findings.append("output: none is given. Write output=FOLDER, the folder of the new model.")
    if settings.does_nothing:
        findings.append(
            "trim: nothing is asked for. Set trim=true, grow=NUMBER, retrain=NUMBER or add_languages=[CODE]."
        )
    if settings.reads_text and settings.data.train is None:
        findings.append("data.train: no corpus is given. Give data.train.source=FILE data.train.target=FILE.")
    if not settings.reads_text and settings.data.train is not None:
        findings.append("data.train: add_languages alone reads no text; leave data.train out, or set trim or grow.")
    return findings


def main(argv: list[str]) -> int:
    settings = from_command_line(
        AdaptVocabularyRecipe, argv, recipe="adapt_vocabulary", doc=__doc__, positional="model"
    )
    if findings := settings.check_files():
        raise ConfigError(findings)
    from hf_nmt.vocabularies.adaptation import adapt_vocabulary

    languages = settings.data.model_dump(include={"source_language", "target_language"})
    with keys_told("data.train"):
        corpus = load_pairs(settings.data.train, **languages) if settings.data.train is not None else {}
    texts = {side: corpus[side] if corpus else [] for side in ("source", "target")}
    chosen = VocabularySettings(**settings.model_dump(include={*VocabularySettings.model_fields}))
    report = adapt_vocabulary(*load_model(settings.model), settings.output, chosen, texts, **languages)
    for line in lines_of(report):
        logger.info(line)
    logger.info("Written to %s", settings.output)
    sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    return 0


def lines_of(report: dict) -> list[str]:
    """The report in a few lines."""
    lines = [
        f"vocabulary of {' and '.join(one['sides'])}: {one['before']:,} -> {one['after']:,} entries "
        f"({one['kept']:,} kept, {one['new']:,} new)"
        for one in report["vocabularies"]
    ]
    lines.append(f"weights: {report['parameters']['before']:,} -> {report['parameters']['after']:,}")
    for side, text in report.get("text", {}).items():
        before, after = text["before"], text["after"]
        lines.append(
            f"{side} text: {before['tokens_per_word']:.3f} -> {after['tokens_per_word']:.3f} tokens a word, "
            f"unknown {before['unknown_rate']:.3%} -> {after['unknown_rate']:.3%}"
        )
    return lines


if __name__ == "__main__":
    launch(main)
