"""From settings to what a trainer needs: texts, the run folder, a tokenizer, encoded pairs, the trainer itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pydantic
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from hf_nmt import runs
from hf_nmt.artifacts import atomic_folder, write_json
from hf_nmt.batching import BatchingSettings, TranslationCollator, encode_pairs, training_batches
from hf_nmt.config import Settings, differences
from hf_nmt.data.manifest import Manifest, describe
from hf_nmt.data.sources import BUILT_IN, CorpusSettings, count_several_references, format_of, load_pairs
from hf_nmt.data.text_lines import existing_file
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import MetricSettings
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.runs import Run
from hf_nmt.subwords import BpeDropout
from hf_nmt.tokenizer_checking import check_tokenizer
from hf_nmt.tokenizer_training import TokenizerSettings, load_tokenizer, train_tokenizer
from hf_nmt.training import checkpoints, languages
from hf_nmt.training.model_building import FROM_NEW_WEIGHTS
from hf_nmt.training.settings import TrainingSettings
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.training.validation import Validation

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)

_EXAMPLES = {"source_language": "de", "target_language": "en"}


class Texts(NamedTuple):
    """Pairs to train on, and to validate with."""

    train: Dataset
    validation: Dataset | None


class TrainingData(Settings):
    """Texts to train on and to validate with."""

    source_language: str | None = Field(
        None, description="Code of the source language, such as de; needed for every corpus but the built-in one (ko)."
    )
    target_language: str | None = Field(
        None, description="Code of the target language, such as en; needed for every corpus but the built-in one (en)."
    )
    train: CorpusSettings | None = Field(
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
        texts = {split: load_pairs(corpus, **self.languages) for split, corpus in self.corpora.items()}
        return Texts(texts["train"], texts.get("validation"))

    def describe(self, texts: Texts) -> Manifest:
        read = texts._asdict()
        return describe({split: (corpus, read[split]) for split, corpus in self.corpora.items()}, **self.languages)


# Names under which users look for what is not there yet.
_PRETRAINED = (
    "init_from", "from_pretrained", "pretrained", "pretrained_model", "model_path", "model_name", "model_name_or_path",
    "finetune", "fine_tune", "finetune_from", "finetune_from_model", "restore_file", "train_from", "warm_start",
)  # fmt: skip


class TrainingRecipe(Settings):
    """What every recipe that trains a translation model is told."""

    renamed_keys: ClassVar[dict[str, str]] = dict.fromkeys(_PRETRAINED, FROM_NEW_WEIGHTS)

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
    # Validation texts are aligned by line, and each line must come out.
    decoding: DecodingSettings = Field(
        DecodingSettings(split_sentences=False, truncate=True),
        description="How the last validation translates, and the saved model unless told otherwise.",
    )
    metrics: MetricSettings = Field(
        MetricSettings(names=["bleu", "chrf"], num_bootstrap_samples=0), description="Scores of the validations."
    )

    @pydantic.model_validator(mode="after")
    def _sections_fit(self) -> TrainingRecipe:
        best = self.training.metric_for_best_model
        if best != "loss" and best not in self.metrics.names:
            raise ConfigError(f"training.metric_for_best_model: {best} is not computed; add it to metrics.names.")
        return self

    @property
    def run_name(self) -> str:
        return self.name or "-".join(self.data.languages.values())

    def check_files(self) -> list[str]:
        findings = self.data.check_files()
        if self.resume is not None:  # it has a tokenizer and a folder of its own
            return findings
        if self.tokenizer.path is not None and not self.tokenizer.path.exists():
            findings.append(f"tokenizer.path: {self.tokenizer.path} does not exist.")
        try:
            self._check_output()
        except ConfigError as error:
            findings += error.findings
        return findings

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
        validate = "validation" in self.data.corpora
        arguments = self.training.arguments(seed=self.seed, run_name=self.run_name, validate=validate)
        if self.resume is None and arguments.process_index == 0:
            for name, code in self.data.languages.items():
                if doubt := languages.doubt_about(code):
                    logger.warning("data.%s: %s It is taken as it stands.", name, doubt)
        return arguments

    def _check_output(self) -> None:
        """What can be told of output_dir without making it."""
        folder = self.output_dir.absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            raise ConfigError(
                f"output_dir: {self.output_dir} cannot be made, as {existing} is a file. Choose another."
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigError(
                f"output_dir: you may not write in {existing}. Choose another folder, or have its rights changed."
            )

    def _check_languages(self, path: Path, tokenizer: NmtTokenizer) -> None:
        findings = []
        for side in ("source", "target"):
            known, wanted = getattr(tokenizer, f"{side}_languages"), self.data.languages[f"{side}_language"]
            if known and wanted not in known:
                findings.append(
                    f"tokenizer.path: the {side} language of {path} is {' or '.join(known)}, but "
                    f"data.{side}_language is {wanted}. Give a tokenizer of this language, or leave tokenizer.path "
                    "out to train one."
                )
        if findings:
            raise ConfigError(findings)


def open_run(
    recipe: str,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    texts: Texts,
    *,
    resumed: Run | None,
) -> Run:
    """The folder of a new run, or that of the run to be continued; the first process makes it for all.

    Raises:
        ConfigError: the texts are not those that the run to be continued was trained on.
    """
    if arguments.process_index > 0:
        return runs.load(_from_first(arguments, None))
    manifest = settings.data.describe(texts)
    data = {split: content.content_hash for split, content in manifest.splits.items()}
    device = describe_device(arguments)
    if resumed is not None:
        changed = [split for split, digest in resumed.record["data"].items() if data.get(split) != digest]
        if changed:
            raise ConfigError(f"resume: the {' and '.join(changed)} texts changed since {resumed.folder} was started.")
        for path, before, now in differences(resumed.record["device"], device):
            logger.warning("%s was %s and is now %s; the result may differ in the last bits.", path, before, now)
        run = resumed
        run.update(settings=settings.model_dump(mode="json") | {"resume": None})  # the texts may lie elsewhere now
    else:
        seeds = {"seed": arguments.seed, "data_seed": data_seed(arguments)}
        plain = settings.model_dump(mode="json")
        run = runs.start(recipe, plain, settings.output_dir, settings.run_name, data=data, seeds=seeds, device=device)
        manifest.write(run.folder / MANIFEST)
    _from_first(arguments, run.folder)
    return run


def _from_first(arguments: Seq2SeqTrainingArguments, value: Any) -> Any:
    """The value that the first process has."""
    if arguments.world_size == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def data_seed(arguments: Seq2SeqTrainingArguments) -> int:
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def describe_device(arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    device = arguments.device
    is_cuda = device.type == "cuda"
    return {
        "type": device.type,
        "name": torch.cuda.get_device_name(device) if is_cuda else runs.environment()["processor"],
        "processes": arguments.world_size,
        "threads": torch.get_num_threads(),
    }


def prepare_tokenizer(
    run: Run, settings: TrainingRecipe, arguments: Seq2SeqTrainingArguments, train: Dataset
) -> PreTrainedTokenizerBase:
    """The tokenizer of the run: kept in its folder, else loaded or trained, and checked against the training text."""
    source_language, target_language = settings.data.languages.values()

    def opened(folder: Path) -> NmtTokenizer:
        tokenizer = load_tokenizer(folder)
        tokenizer.src_lang, tokenizer.tgt_lang = source_language, target_language  # it may have several
        return tokenizer

    with arguments.main_process_first(local=False, desc="tokenizer"):
        if not (run.tokenizer / "tokenizer_config.json").is_file():
            if settings.tokenizer.path is not None:
                tokenizer = opened(settings.tokenizer.path)
            else:
                logger.info("training a tokenizer on %s pairs", f"{len(train):,}")
                tokenizer = train_tokenizer(
                    train["source"],
                    train["target"],
                    settings.tokenizer,
                    **settings.data.languages,
                )
            report = check_tokenizer(tokenizer, train["source"], train["target"])
            write_json(run.folder / "tokenizer_report.json", report)
            with atomic_folder(run.tokenizer, replace=True) as partial:
                tokenizer.save_pretrained(partial)
    return opened(run.tokenizer)


def make_trainer(
    run: Run,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    texts: Texts,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> TranslationTrainer:
    """Encode the texts and put the trainer together."""
    batching = settings.batching
    dropout = BpeDropout(tokenizer, settings.tokenizer.dropout) if settings.tokenizer.dropout else None
    collator = TranslationCollator.for_model(model, pad_to_multiple_of=batching.pad_to_multiple_of)
    if settings.data.built_in is None and (several := count_several_references(texts.train)):
        logger.warning(
            "data.train: %s of %s pairs have several references; training reads the first of each.",
            f"{several:,}",
            f"{len(texts.train):,}",
        )
    with arguments.main_process_first(local=False, desc="encoding"):
        encoded = {"train": encode_pairs(texts.train, tokenizer, batching, keep_text=dropout is not None)}
        if texts.validation is not None:
            encoded["validation"] = encode_pairs(texts.validation, tokenizer, batching)
    if arguments.process_index == 0:
        # What was too long is known only now.
        path = run.folder / MANIFEST
        Manifest.model_validate_json(path.read_bytes()).with_steps(encoded).write(path)
    pairs, sampler = training_batches(
        encoded["train"],
        batching,
        seed=data_seed(arguments),
        world_size=arguments.world_size,
        accumulation=arguments.gradient_accumulation_steps,
        subword_sampler=dropout,
    )
    validation = None
    if texts.validation is not None:
        validation = Validation(
            texts.validation,
            validation_batches(encoded["validation"], collator, batching),
            tokenizer,
            settings.decoding,
            settings.metrics,
            target_language=settings.data.languages["target_language"],
            num_samples=settings.training.num_sample_translations,
        )
    choose(run, settings, arguments, model)
    return TranslationTrainer(
        model,
        arguments,
        settings.training,
        run,
        tokenizer=tokenizer,
        sampler=sampler,
        collator=collator,
        train_dataset=pairs,
        validation=validation,
    )


def choose(run: Run, settings: TrainingRecipe, arguments: Seq2SeqTrainingArguments, model: PreTrainedModel) -> None:
    """Record what the training computes with; a run that goes on takes what it took before, and the log tells it.

    Attention is chosen by the machine, so the recorded one is set again. The rest is in the settings, which are the
    run's own; that the launcher does not overrule them is checked here.

    Raises:
        ConfigError: what the run computed with is not to be had here.
    """
    recorded = run.record["choices"]
    attention = recorded.get("attention", model.config._attn_implementation)
    if attention != model.config._attn_implementation:
        logger.warning(
            "attention: the run goes on with %s, which it began with; this machine would take %s.",
            attention,
            model.config._attn_implementation,
        )
        try:
            model.set_attn_implementation(attention)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"resume: the run computes attention with {attention}, which cannot be used here: {error} Continue it "
                "on a machine like the first."
            ) from error
    now = {
        "matmul_precision": settings.training.matmul_precision,
        "attention": attention,
        "mixed_precision": str(arguments.mixed_precision),
        "batch_tokens": settings.batching.batch_tokens,
    }
    if changed := differences(recorded, now) if recorded else []:
        raise ConfigError(
            [
                f"resume: the run computes with {name}={before}, but now it is {after}."
                for name, before, after in changed
            ]
        )
    if recorded:
        logger.info("goes on as before: %s", ", ".join(f"{name} {value}" for name, value in now.items()))
    run.choose(**now)


def validation_batches(
    encoded: Dataset, collator: TranslationCollator, batching: BatchingSettings
) -> list[Mapping[str, torch.Tensor]]:
    """All pairs, shortest first, in padded batches within the token budget."""
    rows = encoded.select_columns(["input_ids", "labels"])[:]
    pairs = [{"input_ids": source, "labels": target} for source, target in zip(*rows.values(), strict=True)]
    pairs.sort(key=lambda pair: max(len(pair["input_ids"]), len(pair["labels"])))
    batches: list[Any] = []
    batch: list[dict[str, Any]] = []
    for pair in pairs:
        longest = max(len(pair["input_ids"]), len(pair["labels"]))
        if batch and (len(batch) + 1) * longest > batching.batch_tokens:
            batches.append(collator(batch))
            batch = []
        batch.append(pair)
    return [*batches, collator(batch)]


def latest_checkpoint(run: Run, arguments: Seq2SeqTrainingArguments) -> Path | None:
    """Where to go on: the newest whole checkpoint. What was written after it is removed, to be made again."""
    folder = None
    if arguments.process_index == 0:
        folder = checkpoints.latest_whole(run.checkpoints)
        step = None if folder is None else checkpoints.step_of(folder)
        run.forget_after(step)
        checkpoints.remove_after(run.checkpoints, step)
        if folder is None:
            logger.warning("The run has no whole checkpoint; it begins anew in the same folder.")
        else:
            logger.info("continuing at step %d", step)
    return _from_first(arguments, folder)
