"""From settings to what a trainer needs: texts, the run folder, a tokenizer, encoded pairs, the trainer itself."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments, set_seed

from hf_nmt import runs
from hf_nmt.artifacts import atomic_folder, remove_leftovers, write_json
from hf_nmt.batching import (
    BatchingSettings,
    PairEncoder,
    StreamedBatches,
    TokenBatchSampler,
    TranslationCollator,
    encode_pairs,
    training_batches,
)
from hf_nmt.config import differences
from hf_nmt.data.manifest import Manifest
from hf_nmt.data.sources import cache_folder, count_several_references
from hf_nmt.data.streams import Stream
from hf_nmt.environment import processor
from hf_nmt.errors import ConfigError
from hf_nmt.generation.backtranslation import tags_of
from hf_nmt.models.sources_nmt import Languages, languages_kept
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.runs import Run
from hf_nmt.subwords import BpeDropout
from hf_nmt.tokenizer_checking import (
    check_tokenizer,
    measure_tokenizer,
    warn_of_small_pieces,
    warn_of_split_tags,
)
from hf_nmt.tokenizer_training import load_tokenizer, train_tokenizer
from hf_nmt.training import checkpoints, kernels, sharding
from hf_nmt.training.memory_budget import fit_memory
from hf_nmt.training.model_building import ModelSettings, build_model
from hf_nmt.training.pretrained import Pretrained
from hf_nmt.training.processes import from_first
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.streams import ROWS_LOOKED_AT, RowLanguages
from hf_nmt.training.texts import Texts
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.training.validation import Validation

MANIFEST = "manifest.json"
TOKENIZER_REPORT = "tokenizer_report.json"

logger = logging.getLogger(__name__)


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
        return _run_of_first(from_first(None, arguments.world_size))
    manifest = settings.data.describe(texts)
    data = {split: content.content_hash for split, content in manifest.splits.items()}
    device = describe_device(arguments)
    if resumed is not None:
        changed = [split for split, digest in resumed.record["data"].items() if data.get(split) != digest]
        if settings.data.is_streamed and "train" in changed:
            changed.remove("train")
            logger.warning(
                "The train texts changed since %s was started; they may, after the place to go on at.", resumed.folder
            )
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
    from_first(run.folder, arguments.world_size)
    return run


def _run_of_first(folder: Path) -> Run:
    """The run folder that the first process has made, to read."""
    if not (folder / "run.json").is_file():
        raise ConfigError(
            f"output_dir: the first process made the run folder {folder}, and process {os.environ.get('RANK')}, on "
            f"{socket.gethostname()}, does not see it. With several machines let output_dir be on storage that all of "
            "them share."
        )
    return runs.load(folder)


def data_seed(arguments: Seq2SeqTrainingArguments) -> int:
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def describe_device(arguments: Seq2SeqTrainingArguments) -> dict[str, Any]:
    device = arguments.device
    is_cuda = device.type == "cuda"
    return {
        "type": device.type,
        "name": torch.cuda.get_device_name(device) if is_cuda else processor(),
        "processes": arguments.world_size,
        "sharding": sharding.kind(),
        "threads": torch.get_num_threads(),
    }


def prepare_tokenizer(
    run: Run,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    train: Dataset | Stream,
    pretrained: PreTrainedTokenizerBase | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of the run: kept in its folder, else loaded or trained, and checked against the training text.

    Args:
        pretrained: the tokenizer of a saved model, in the languages of the run.
    """
    trained = settings.data.languages_in(train)
    only = settings.data.only_languages(train)

    def opened(folder: Path) -> NmtTokenizer:
        tokenizer = load_tokenizer(folder)
        if len(trained["target_language"]) > 1 and not tokenizer.language_tags:
            raise ConfigError(
                f"tokenizer.path: {folder} has no tags for languages, and the data have "
                f"{len(trained['target_language'])} target languages, of which the model must be told one. Leave "
                "tokenizer.path out to train one with tags."
            )
        tokenizer.src_lang, tokenizer.tgt_lang = only.values()  # it may have several
        return tokenizer

    with arguments.main_process_first(local=False, desc="tokenizer"):
        if arguments.process_index == 0 and not (run.tokenizer / "tokenizer_config.json").is_file():
            rows = train
            if isinstance(rows, Stream):
                rows = rows.head(settings.tokenizer.max_training_sentences)
            tags = settings.tokenizer.source_tags
            tags = tags_of(rows) if tags is None else tags
            if pretrained is not None:
                tokenizer = pretrained
            elif settings.tokenizer.path is not None:
                tokenizer = opened(settings.tokenizer.path)
            else:
                logger.info("training a tokenizer on %s pairs", f"{len(rows):,}")
                chosen = settings.tokenizer.model_copy(update={"source_tags": tags})
                tokenizer = train_tokenizer(rows["source"], rows["target"], chosen, **trained)
            warn_of_split_tags(tokenizer, tags)
            check = check_tokenizer if isinstance(tokenizer, NmtTokenizer) else measure_tokenizer
            report = check(tokenizer, rows["source"], rows["target"])
            if pretrained is not None and isinstance(settings.model, ModelSettings):
                warn_of_small_pieces(report, *_made_for(settings.model))
            write_json(run.folder / TOKENIZER_REPORT, report)
            with atomic_folder(run.tokenizer, replace=True) as partial:
                tokenizer.save_pretrained(partial)
    return pretrained if pretrained is not None else opened(run.tokenizer)


def _made_for(model: ModelSettings) -> tuple[dict[str, Any], str]:
    """What the tokenizer of a saved model made of the text of its own run, where it lies in its run folder; and what
    to call the model."""
    folder = Path(str(model.pretrained))
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((place / TOKENIZER_REPORT).read_text(encoding="utf-8")), str(folder)
    return {}, str(folder)


def prepare_training(
    run: Run,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    texts: Texts,
    pretrained: Pretrained | None = None,
) -> TranslationTrainer:
    """The trainer of a run: with its tokenizer, its weights, which are new ones or those of a saved model, and its
    texts. The random state is that of the seed when the weights are made."""
    with arguments.main_process_first(local=True, desc="context"):
        texts = settings.data.with_context(texts)
    saved = None if pretrained is None else pretrained.tokenizer
    tokenizer = prepare_tokenizer(run, settings, arguments, texts.train, saved)
    set_seed(settings.seed)
    languages = settings.data.only_languages(texts.train)
    if pretrained is None:
        model: PreTrainedModel = build_model(settings.model, tokenizer, **languages)
    else:
        model = pretrained.load(settings.model, **languages)
    _keep_context(model, settings.data.context_sentences)
    return make_trainer(run, settings, arguments, texts, tokenizer, model)


def _keep_context(model: PreTrainedModel, sentences: int) -> None:
    """Note in the configuration that goes with the weights how many sentences before each the model is trained on."""
    before = getattr(model.config, "context_sentences", 0)
    if before and before != sentences:
        logger.warning(
            "The model was trained on %d sentences before each; it goes on with data.context_sentences=%d.",
            before, sentences,
        )  # fmt: skip
    if before or sentences:
        model.config.context_sentences = sentences


def make_trainer(
    run: Run,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    texts: Texts,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> TranslationTrainer:
    """Encode the texts and put the trainer together."""
    settings.objective.check_model(model)
    batching = settings.batching
    dropout = BpeDropout(tokenizer, settings.tokenizer.dropout) if settings.tokenizer.dropout else None
    collator = TranslationCollator.for_model(model, pad_to_multiple_of=batching.pad_to_multiple_of)
    if settings.data.built_in is None:
        is_stream = isinstance(texts.train, Stream)
        seen = texts.train.head(ROWS_LOOKED_AT) if isinstance(texts.train, Stream) else texts.train
        if several := count_several_references(seen):
            logger.warning(
                "data.train: %s of %s%s pairs have several references; training reads the first of each.",
                f"{several:,}",
                "the first " if is_stream else "",
                f"{len(seen):,}",
            )
    languages = Languages.of(model.config, tokenizer)
    source_language, target_language = settings.data.usual_languages
    encoder = PairEncoder(
        tokenizer,
        batching,
        languages=languages,
        source_language=source_language,
        target_language=target_language,
        with_context=settings.data.context_sentences > 0,
    )
    check_languages(languages, [pair for rows in texts if rows is not None for pair in settings.data.pairs_in(rows)])
    if isinstance(texts.train, Stream):
        texts.train.check_languages(RowLanguages(languages, settings.data.usual_languages))
    # The first process of each machine, as each may have a cache of its own.
    with arguments.main_process_first(local=True, desc="encoding"):
        encoded = {}
        if isinstance(texts.train, Dataset):
            keep = [] if settings.data.mixing is None else [settings.data.mixing.by]
            encoded["train"] = encode_pairs(texts.train, encoder, keep_text=dropout is not None, keep=keep)
        if texts.validation is not None:
            encoded["validation"] = encode_pairs(texts.validation, encoder)
            sample = sample_rows(texts.validation, settings.training.num_validation_sentences, settings.seed)
            if sample is not None:
                encoded_sample = encode_pairs(sample, encoder)
    if arguments.process_index == 0:
        # What was too long is known only now.
        path = run.folder / MANIFEST
        Manifest.model_validate_json(path.read_bytes()).with_steps(encoded).write(path)
    known = None if dropout is not None else encoded.get("train")  # with dropout pieces are more
    choose(run, settings, arguments, model)  # with which memory is measured
    batching = fit_memory(run, settings, arguments, model, tokenizer, collator, known)
    settings = settings.model_copy(update={"batching": batching})
    division: dict[str, Any] = {
        "seed": data_seed(arguments),
        "world_size": arguments.world_size,
        "accumulation": arguments.gradient_accumulation_steps,
        "subword_sampler": dropout,
    }
    pairs: Any
    sampler = None
    if isinstance(texts.train, Stream):
        pairs = StreamedBatches(texts.train, encoder, collator, batching, rank=arguments.process_index, **division)
    else:
        pairs, sampler = training_batches(
            encoded["train"],
            batching,
            **division,
            sampling_temperature=settings.data.sampling_temperature,
            languages=settings.data.usual_languages,
            mixing=settings.data.mixing,
        )
        check_stages(sampler, arguments)
    validation = validation_sample = None
    if texts.validation is not None:
        make_validation = functools.partial(
            Validation,
            tokenizer=tokenizer,
            decoding=settings.decoding,
            metrics=settings.metrics,
            languages=settings.data.usual_languages,
            num_samples=settings.training.num_sample_translations,
        )
        validation = make_validation(texts.validation, validation_batches(encoded["validation"], collator, batching))
        if sample is not None:
            validation_sample = make_validation(sample, validation_batches(encoded_sample, collator, batching))
    arguments.learning_rate = scale_learning_rate(run, settings, arguments)
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
        validation_sample=validation_sample,
        objective=settings.objective,
        schedule=settings.schedule,
        watch=settings.watch,
    )


def check_stages(sampler: TokenBatchSampler, arguments: Seq2SeqTrainingArguments) -> None:
    """Refuse stages of a mixture that training would not come to."""
    updates = len(sampler) // arguments.world_size // arguments.gradient_accumulation_steps
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * updates)
    sampler.check_length(steps)


def check_languages(languages: Languages, pairs: Sequence[tuple[str | None, str | None]]) -> None:
    """Refuse languages that the model cannot be asked for, before anything is encoded.

    Args:
        languages: of the model.
        pairs: those to be trained and validated.

    Raises:
        ConfigError: with all languages that the model does not have; or there are several target languages, and the
            model always writes the same one.
    """
    pairs = list(dict.fromkeys(pairs))
    targets = list(dict.fromkeys(target for _, target in pairs))
    if languages.kind == "fixed" and len(targets) > 1:
        raise ConfigError(
            f"data: there are {len(targets)} target languages ({', '.join(map(str, targets))}), but this model has no "
            "way to be told which one to write. Train a new model, which gets language tags, or take one of several "
            "languages (NLLB, M2M100, mBART-50)."
        )
    findings = []
    with languages_kept(languages.tokenizer):
        for pair in pairs:
            try:
                languages.select(*pair)
            except ValueError as error:
                findings.append(f"data: {error}")
    if findings:
        raise ConfigError(list(dict.fromkeys(findings)))


def choose(run: Run, settings: TrainingRecipe, arguments: Seq2SeqTrainingArguments, model: PreTrainedModel) -> None:
    """Set and record what the training computes with; a run that goes on takes what it took before, and the log tells
    it.

    On a CPU what the settings leave to `auto` is measured. The rest is in the settings, which are the run's own; that
    the launcher does not overrule them is checked here.

    Raises:
        ConfigError: what the run computed with is not to be had here.
    """
    recorded = run.record["choices"]
    automatic = {
        "matmul_precision": settings.training.matmul_precision == "auto",
        "attention": getattr(settings.model, "attn_implementation", None) == "auto" and model._supports_sdpa,
    }
    now = {
        "matmul_precision": "highest" if automatic["matmul_precision"] else settings.training.matmul_precision,
        "attention": model.config._attn_implementation,
        "mixed_precision": str(arguments.mixed_precision),
    }
    if settings.batching.memory_share is None:
        now["batch_tokens"] = settings.batching.batch_tokens
    elif "batch_tokens" in recorded:
        now["batch_tokens"] = recorded["batch_tokens"]
    if recorded:
        now["attention"] = recorded["attention"]
        if automatic["matmul_precision"]:
            now["matmul_precision"] = recorded["matmul_precision"]
    elif any(automatic.values()) and arguments.device.type == "cpu":
        dtype = torch.bfloat16 if arguments.bf16 else torch.float32
        measured = None
        if arguments.process_index == 0:
            measured = kernels.measure(model.config, dtype, folder=cache_folder(None))
        choice = from_first(measured, arguments.world_size)
        run.update(measurements={**run.record.get("measurements", {}), **choice.figures})
        now |= {name: getattr(choice, name) for name, is_automatic in automatic.items() if is_automatic}
    same = {name: value for name, value in recorded.items() if name in now}
    if changed := differences(same, now) if recorded else []:
        raise ConfigError(
            [
                f"resume: the run computes with {name}={before}, but now it is {after}."
                for name, before, after in changed
            ]
        )
    if now["attention"] != model.config._attn_implementation:
        try:
            model.set_attn_implementation(kernels.known_attention(now["attention"]))
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"resume: the run computes attention with {now['attention']}, which cannot be used here: {error} "
                "Continue it on a machine like the first."
            ) from error
    torch.set_float32_matmul_precision(now["matmul_precision"])
    goes = "goes on as before" if recorded else "computes with"
    logger.info("%s: %s", goes, ", ".join(f"{name} {value}" for name, value in now.items()))
    run.choose(**now)


def scale_learning_rate(run: Run, settings: TrainingRecipe, arguments: Seq2SeqTrainingArguments) -> float:
    """The peak of the learning rate, recorded and told where a rule scales it."""
    schedule, given = settings.schedule, settings.training.learning_rate
    tokens = settings.tokens_per_update(arguments.world_size)
    peak = schedule.peak(given, tokens)
    if schedule.scale is not None:
        logger.info(
            "learning rate %.4g: %.4g at %s tokens an update, scaled (%s) to %s x %d accumulated x %d processes = %s",
            peak, given, f"{schedule.reference_tokens_per_update:,}", schedule.scale,
            f"{settings.batching.batch_tokens:,}", arguments.gradient_accumulation_steps, arguments.world_size,
            f"{tokens:,}",
        )  # fmt: skip
        run.choose(learning_rate=peak, tokens_per_update=tokens)
    return peak


def sample_rows(rows: Dataset, count: int | None, seed: int) -> Dataset | None:
    """So many rows in their order, the same ones for the same seed; None where all are wanted, or there are fewer."""
    if count is None or count >= len(rows):
        return None
    return rows.select(np.sort(np.random.default_rng(seed).permutation(len(rows))[:count]))


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
    """Where to go on: the newest whole checkpoint. What was written after it is removed, to be made again, and what a
    killed process left half written."""
    folder = None
    if arguments.process_index == 0:
        remove_leftovers(run.folder)
        folder = checkpoints.latest_whole(run.checkpoints)
        step = None if folder is None else runs.step_of(folder)
        put_off = [] if folder is None else checkpoints.read_state(folder).get("put_off", [])
        run.forget_after(step, validates="should_evaluate" in put_off)
        checkpoints.remove_after(run.checkpoints, step)
        if folder is None:
            logger.warning("The run has no whole checkpoint; it begins anew in the same folder.")
        else:
            logger.info("continuing at step %d", step)
    return from_first(folder, arguments.world_size)
