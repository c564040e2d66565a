"""Settings of a recipe that trains."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import ClassVar

import pydantic
from pydantic import Field
from transformers import Seq2SeqTrainingArguments

from hf_nmt import language
from hf_nmt.artifacts import problems_of_folder
from hf_nmt.batching import BatchingSettings
from hf_nmt.batching.streaming import check_division
from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError
from hf_nmt.evaluation.training_report import ReportSettings
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import MetricSettings
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.tokenizer_training import TokenizerSettings, load_tokenizer
from hf_nmt.training.familiar_names import FAMILIAR_NAMES
from hf_nmt.training.model_building import FROM_SAVED_WEIGHTS
from hf_nmt.training.objectives import ObjectiveSettings
from hf_nmt.training.r_drop import NO_DROPOUT
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.schedules import Course
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.sharding import applied_in_backward, is_asked_for
from hf_nmt.training.texts import TrainingData
from hf_nmt.training.watch_settings import WatchSettings

logger = logging.getLogger(__name__)

# Names under which other toolkits take a saved model.
_PRETRAINED = (
    "init_from", "from_pretrained", "pretrained", "pretrained_model", "model_path", "model_name", "model_name_or_path",
    "finetune", "fine_tune", "finetune_from", "finetune_from_model", "restore_file", "train_from", "warm_start",
)  # fmt: skip


class TrainingRecipe(Settings):
    """What every recipe that trains a translation model is told."""

    renamed_keys: ClassVar[dict[str, str]] = FAMILIAR_NAMES | dict.fromkeys(_PRETRAINED, FROM_SAVED_WEIGHTS)

    seed: int = Field(42, ge=0, description="Of the first weights, of dropout and of the order of the batches.")
    name: str | None = Field(
        None,
        pattern=r"^[\w-][\w.-]*$",
        description="Opens the name of the run folder: letters, digits, _ - and . after the first; null takes the "
        "languages, such as de-en.",
    )
    output_dir: Path = Field(Path("runs"), description="Folder in which every run gets its own.")
    resume: Path | None = Field(
        None,
        description="Run folder to continue, with the settings it was started with; none of them can be changed. "
        "null starts a new run.",
    )
    data: TrainingData = Field(TrainingData(), description="The texts.")
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="Subword vocabulary.")
    # Each recipe has its own; it is named here so that it stands in this place.
    model: Settings = Field(Settings(), description="Shape of the model.")
    batching: BatchingSettings = Field(BatchingSettings(), description="Sizes of the batches.")
    training: TrainingSettings = Field(TrainingSettings(), description="The training loop.")
    objective: ObjectiveSettings = Field(ObjectiveSettings(), description="What is learned.")
    schedule: ScheduleSettings = Field(ScheduleSettings(), description="Course of the learning rate.")
    watch: WatchSettings = Field(
        WatchSettings(), description="What may go wrong in a training, and what is done about it."
    )
    # Validation texts are aligned by line, and each line must come out.
    decoding: DecodingSettings = Field(
        DecodingSettings(split_sentences=False, truncate=True),
        description="How the last validation translates, and the saved model unless told otherwise.",
    )
    metrics: MetricSettings = Field(
        MetricSettings(names=["bleu", "chrf"], num_bootstrap_samples=0), description="Scores of the validations."
    )
    report: ReportSettings = Field(ReportSettings(), description="The report that is written at the end.")

    @pydantic.model_validator(mode="after")
    def _sections_fit(self) -> TrainingRecipe:
        best = self.training.metric_for_best_model
        findings = self._check_streaming()
        validates = "validation" in self.data.corpora and self.training.eval_strategy != "no"
        saves = self.training.save_strategy != "no"
        findings += [f"watch.{finding}" for finding in self.watch.findings(validates=validates, saves=saves)]
        if "validation" in self.data.corpora:
            findings += [f"training.{finding}" for finding in self.training.validation_findings()]
        findings += self.schedule.findings(
            learning_rate=self.training.learning_rate,
            validates="validation" in self.data.corpora and self.training.eval_strategy != "no",
            early_stopping=self.training.early_stopping_patience,
            is_streamed=self.data.is_streamed,
        )
        if best != "loss" and best not in self.metrics.names:
            findings.append(f"training.metric_for_best_model: {best} is not computed; add it to metrics.names.")
        rates = [getattr(self.model, name, None) for name in ("dropout", "attention_dropout", "activation_dropout")]
        if (
            self.objective.r_drop is not None
            and rates == [0.0] * 3
            and getattr(self.model, "pretrained", None) is None
        ):
            findings.append(NO_DROPOUT)
        targets = list(dict.fromkeys(target for _, target in self.data.language_pairs))
        if len(targets) > 1 and self.tokenizer.language_tags is False and self.tokenizer.path is None:
            findings.append(
                f"tokenizer.language_tags: false, but the data have {len(targets)} target languages "
                f"({', '.join(targets)}), and without tags a new model is not told which of them to write. Leave it "
                "out."
            )
        if findings:
            raise ConfigError(findings)
        return self

    def _check_streaming(self) -> list[str]:
        """What a stream needs, and what does nothing with one or without one."""
        if not self.data.is_streamed:
            if self.batching.streaming_window != BatchingSettings.model_fields["streaming_window"].default:
                return [
                    "batching.streaming_window: does nothing without data.train.streaming=true (or that of "
                    "data.pairs); leave it out."
                ]
            return []
        findings = []
        training = self.training
        try:  # once more when it is known how many processes run
            check_division(self.batching, training.num_processes or 1, training.gradient_accumulation_steps)
        except ConfigError as error:
            findings += error.findings
        if training.max_steps <= 0:
            findings.append(
                "training.max_steps: not given, but how long a stream is shows only at its end; with "
                "streaming give the number of updates to train for."
            )
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(training, name) == "epoch":
                findings.append(
                    f"training.{name}: given epoch, but the end of an epoch of a stream is not known beforehand; with "
                    "streaming write steps."
                )
        if training.dataloader_num_workers > 1:
            findings.append(
                f"training.dataloader_num_workers: given {training.dataloader_num_workers}, but a stream is read by "
                "one process; allowed with streaming: 0, or 1 to encode ahead of the training."
            )
        if training.dataloader_persistent_workers:
            findings.append(
                "training.dataloader_persistent_workers: does nothing with streaming, whose one worker "
                "lives as long as the training; leave it out."
            )
        return findings

    @property
    def run_name(self) -> str:
        pairs = self.data.language_pairs
        sides = [".".join(dict.fromkeys(codes)) for codes in zip(*pairs, strict=True)] if len(pairs) <= 4 else []
        return self.name or "-".join(sides) or "multilingual"

    def check_files(self) -> list[str]:
        findings = self.data.check_files() + [f"report.{finding}" for finding in self.report.check_files()]
        if self.resume is not None:  # it has a tokenizer and a folder of its own
            return findings
        if self.tokenizer.path is not None and not self.tokenizer.path.exists():
            findings.append(f"tokenizer.path: {self.tokenizer.path} does not exist.")
        try:
            self._check_output()
        except ConfigError as error:
            findings += error.findings
        return findings

    def doubts(self) -> list[str]:
        if self.resume is not None or self.training.max_steps <= 0 or self.schedule.counts_epochs:
            return []
        processes = self.training.num_processes or int(os.environ.get("WORLD_SIZE", "1"))
        peak = self.schedule.peak(self.training.learning_rate, self.tokens_per_update(processes))
        warning = Course(self.schedule, peak, self.training.max_steps).warning()
        return [] if warning is None else [warning]

    def tokens_per_update(self, processes: int) -> int:
        """Padded tokens of an update at most, of all processes."""
        return self.batching.batch_tokens * self.training.gradient_accumulation_steps * processes

    def arguments(self) -> Seq2SeqTrainingArguments:
        """The Trainer's arguments on this machine; they and the files that are named are checked against it.

        Raises:
            ConfigError: something cannot be had here, or does not fit.
            DataError: the tokenizer to be reused cannot be read.
        """
        if self.tokenizer.path is not None and self.resume is None:  # a run that goes on has a tokenizer of its own
            self._check_languages(self.tokenizer.path, load_tokenizer(self.tokenizer.path))
        if self.resume is None:
            self._check_output()
        if is_asked_for() and (findings := self.objective.sharding_findings()):
            raise ConfigError(findings)
        validate = "validation" in self.data.corpora
        arguments = self.training.arguments(seed=self.seed, run_name=self.run_name, validate=validate)
        in_backward = applied_in_backward(arguments.optim)
        if found := self.watch.findings(validates=True, saves=True, applied_in_backward=in_backward):
            raise ConfigError([f"watch.{finding}" for finding in found])
        if self.data.is_streamed:
            check_division(self.batching, arguments.world_size, arguments.gradient_accumulation_steps)
        if self.resume is None and arguments.process_index == 0:
            sides = zip(*self.data.language_pairs, strict=True)
            for name, codes in zip(LANGUAGE_COLUMNS, sides, strict=False):
                for code in dict.fromkeys(codes):
                    if doubt := language.doubt_about(code):
                        logger.warning("data.%s: %s It is taken as it stands.", name, doubt)
        return arguments

    def _check_output(self) -> None:
        """What can be told of output_dir without making it."""
        if findings := problems_of_folder("output_dir", self.output_dir):
            raise ConfigError(findings)

    def _check_languages(self, path: Path, tokenizer: NmtTokenizer) -> None:
        findings = []
        for side, codes in zip(("source", "target"), zip(*self.data.language_pairs, strict=True), strict=False):
            known = getattr(tokenizer, f"{side}_languages")
            findings += [
                f"tokenizer.path: the {side} language of {path} is {' or '.join(known)}, but data.{side}_language is "
                f"{wanted}. Give a tokenizer of this language, or leave tokenizer.path out to train one."
                for wanted in dict.fromkeys(codes)
                if known and wanted not in known
            ]
        if findings:
            raise ConfigError(findings)
