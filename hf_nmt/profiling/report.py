"""A profile of a training and of its model in use: put together from the settings of a run, and shown."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt import config
from hf_nmt.config_keys import keys_of, pattern_of
from hf_nmt.config_yaml import write_yaml
from hf_nmt.environment import environment
from hf_nmt.evaluation.pages import Section, Table
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.translator import TorchTranslator
from hf_nmt.profiling.measuring import (
    PARTS,
    TrainingProfile,
    Utilization,
    measure_training,
    now,
    num_updates,
    padding_share,
    utilization,
)
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.run_records import leaves, read_records
from hf_nmt.training.model_building import ModelSettings
from hf_nmt.training.preparation import open_run, prepare_training
from hf_nmt.training.pretrained import open_pretrained
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.schedule_settings import ScheduleSettings
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.translators import load_model

SCHEMA_VERSION = 1
_MIB = 2**20
_WARMUP_SENTENCES = 2

logger = logging.getLogger(__name__)


class ProfiledTraining(TrainingRecipe):
    """The settings of recipes/train.py."""

    model: ModelSettings = Field(ModelSettings(), description="The model to train further, or the shape of a new one.")


@dataclasses.dataclass(frozen=True)
class InferenceRow:
    """Translating the same sentences in batches of one size.

    Attributes:
        batch_size: sentences given at once.
        latencies: wall seconds until the translation of each sentence was there, counted from when its batch was
            given.
        tokens: target tokens written.
        wall, cpu: seconds, of all batches.
    """

    batch_size: int
    latencies: list[float]
    tokens: int
    wall: float
    cpu: float

    def percentile(self, share: float) -> float:
        return percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def training_settings(run: Path | None, train_config: Path | None, overrides: Sequence[str]) -> ProfiledTraining:
    """The settings of a training: those of a run, or of a settings file of recipes/train.py.

    Raises:
        ConfigError: they are not valid in this version.
    """
    if run is None:
        return config.load(ProfiledTraining, train_config, overrides)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recorded.yaml"
        recorded = {key: value for key, value in read_records(run).run["settings"].items() if key != "report"}
        file.write_text(write_yaml(_known(recorded) | {"resume": None}), encoding="utf-8")
        return config.load(ProfiledTraining, file, overrides)


def _known(recorded: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run without the keys that only another version knows; they are told."""
    known = [pattern_of(key.path) for key in keys_of(ProfiledTraining)]
    tree: dict[str, Any] = {}
    left_out = []
    for path, value in leaves(recorded).items():
        if not any(pattern.fullmatch(path) for pattern in known):
            left_out.append(path)
            continue
        *above, last = path.split(".")
        node = tree
        for step in above:
            node = node.setdefault(step, {})
        node[last] = value
    if left_out:
        logger.warning("Of another version, and left out of the profile: %s.", ", ".join(left_out))
    return tree


@contextlib.contextmanager
def prepared_training(
    settings: ProfiledTraining, run: Path | None, *, max_steps: int
) -> Iterator[tuple[TranslationTrainer, Dataset]]:
    """The trainer of a training, as recipes/train.py would make it, in a folder that goes away; and what to translate.

    Args:
        settings: of the training; its length, schedule, checkpoints, validations in between and trackers are left out.
        run: whose tokenizer is taken, or None to train one.
        max_steps: updates.
    """
    usual = type(settings.training).model_fields["num_train_epochs"].default
    training = settings.training.model_copy(
        update={
            "max_steps": max_steps, "num_train_epochs": usual,
            "eval_strategy": "no", "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        }
    )  # fmt: skip
    tokenizer_settings = settings.tokenizer
    if run is not None and settings.model.pretrained is None:
        tokenizer_settings = tokenizer_settings.model_copy(update={"path": run / "tokenizer"})
    with tempfile.TemporaryDirectory() as folder:
        settings = settings.model_copy(
            update={
                "training": training,
                "tokenizer": tokenizer_settings,
                "output_dir": Path(folder),
                "resume": None,
                # Most schedules are planned for the length of the training; what an update costs is the same.
                "schedule": ScheduleSettings(name="constant", warmup_steps=0),
            }
        )
        arguments = settings.arguments()
        texts = settings.data.load()
        pretrained = open_pretrained(settings)
        with open_run("profile", settings, arguments, texts, resumed=None) as opened:
            if pretrained is not None:
                pretrained.note(opened)
            trainer = prepare_training(opened, settings, arguments, texts, pretrained)
            rows = texts.validation if texts.validation is not None else texts.train
            yield trainer, rows if isinstance(rows, Dataset) else rows.head(1000)


def measure_inference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    decoding: DecodingSettings,
    *,
    languages: tuple[str | None, str | None],
    batch_sizes: Sequence[int],
    num_sentences: int,
) -> list[InferenceRow]:
    """Translate sentences in batches of several sizes.

    Args:
        rows: with a column `source` and, where there are several languages, `LANGUAGE_COLUMNS`; the sentences are
            spread over them.
        decoding: how to search.
        languages: of rows that name none.
    """
    count = min(num_sentences, len(rows))
    chosen = rows.select([index * len(rows) // count for index in range(count)])
    sources = list(chosen["source"])
    sides: dict[str, Any] = dict(zip(LANGUAGE_COLUMNS, languages, strict=True))
    for name in LANGUAGE_COLUMNS:
        if name in chosen.column_names:
            sides[name] = [code or sides[name] for code in chosen[name]]
    translator = TorchTranslator(model.eval(), tokenizer, with_scores=False)
    device = model.device

    def translate(first: int, size: int) -> int:
        part = slice(first, first + size)
        own = {name: codes[part] if isinstance(codes, list) else codes for name, codes in sides.items()}
        best = [found[0] for found in translator.translate(sources[part], decoding, **own)]
        return sum(len(one.tokens) for one in best)

    found = []
    for size in batch_sizes:
        for first in range(0, min(count, _WARMUP_SENTENCES * size), size):
            translate(first, size)
        latencies, tokens, began = [], 0, now(device)
        for first in range(0, count, size):
            start = time.perf_counter()
            tokens += translate(first, size)
            latency = now(device)[0] - start
            latencies += [latency] * min(size, count - first)
        wall, cpu = (after - before for after, before in zip(now(device), began, strict=True))
        found.append(InferenceRow(size, latencies, tokens, wall, cpu))
    return found


def profile(
    settings: ProfiledTraining,
    run: Path | None,
    *,
    warmup: int,
    count: int,
    batch_sizes: Sequence[int],
    num_sentences: int,
    peak_tflops: float | None,
    trace: Path | None,
) -> dict[str, Any]:
    """Measure a training and its model; see `recipes/profile_run.py` for the arguments.

    Returns:
        What profile.json holds.
    """
    max_steps = num_updates(warmup, count)
    with prepared_training(settings, run, max_steps=max_steps) as (trainer, rows):
        device = trainer.args.device
        found = measure_training(trainer, warmup=warmup, count=count, trace=trace)
        objective = settings.objective
        used = utilization(
            trainer, found, peak=None if peak_tflops is None else peak_tflops * 1e12,
            one_pass=objective.r_drop is None and objective.scheduled_sampling is None,
        )  # fmt: skip
        validation = None
        if trainer.validation is not None:
            began = now(device)
            trainer.validate(num_beams=settings.training.validation_num_beams)
            wall, cpu = (after - before for after, before in zip(now(device), began, strict=True))
            validation = {"sentences": len(trainer.validation.sources), "wall_seconds": wall, "cpu_seconds": cpu}
        memory = _memory(trainer, found)
        in_epoch = None if trainer.sampler is None else len(trainer.sampler)
        model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
        tokenizer: Any = trainer.processing_class
        saved = run is not None and any((run / "best").glob("*.safetensors"))
        if saved and run is not None and settings.model.pretrained is None:
            loaded, tokenizer = load_model(run / "best")
            saved = loaded.config.to_diff_dict() == model.config.to_diff_dict() or _same_shape(loaded, model)
            model = loaded.to(device) if saved else model
        inference = measure_inference(
            model, tokenizer, rows, settings.decoding, languages=settings.data.usual_languages,
            batch_sizes=batch_sizes, num_sentences=num_sentences,
        )  # fmt: skip
        accumulation = trainer.args.gradient_accumulation_steps
        return {
            "schema_version": SCHEMA_VERSION,
            "run": None if run is None else str(run),
            "device": trainer.run.record["device"],
            "choices": trainer.run.record["choices"],
            "parameters": model.num_parameters(),
            "warmup_updates": warmup,
            "training": _training_record(found, used, accumulation, in_epoch, device),
            "validation": validation,
            "memory": memory,
            "inference": {
                "weights": "of best/" if saved else "after the updates above: translations may run to their limit",
                "num_beams": settings.decoding.num_beams,
                "sentences": min(num_sentences, len(rows)),
                "rows": [_inference_record(row) for row in inference],
            },
            "environment": environment(),
        }


def _same_shape(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    return {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in other.state_dict().items()
    }


def _memory(trainer: TranslationTrainer, found: TrainingProfile) -> dict[str, Any]:
    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, torch.Tensor))

    weights = list(trainer.model.parameters())
    state = trainer.optimizer.state.values()
    return {
        "weights_bytes": size(weights),
        "gradients_bytes": size(weight for weight in weights if weight.requires_grad),
        "optimizer_bytes": size(tensor for values in state for tensor in values.values()),
        "saved_for_backward_bytes": found.saved,
        "saved_for_backward_tokens": found.saved_tokens,
        "peak_bytes": found.peak_bytes,
        "peak_of": "the CUDA allocator" if trainer.args.device.type == "cuda" else "the process (RSS)",
    }


def _training_record(
    found: TrainingProfile, used: Utilization, accumulation: int, in_epoch: int | None, device: torch.device
) -> dict[str, Any]:
    updates = found.updates
    tokens = sum(update.tokens for update in updates)
    wall, cpu = sum(update.wall for update in updates), sum(update.cpu for update in updates)
    epoch = None
    if in_epoch is not None:
        per_epoch = in_epoch / accumulation
        epoch = {
            "updates": per_epoch, "wall_seconds": wall / len(updates) * per_epoch,
            "cpu_seconds": cpu / len(updates) * per_epoch, "tokens": tokens / len(updates) * per_epoch,
        }  # fmt: skip
    return {
        "updates": len(updates),
        "tokens": tokens,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "tokens_per_second": tokens / wall,
        "tokens_per_cpu_second": tokens / cpu,
        "update_wall_p50": percentile([update.wall for update in updates], 0.5),
        "update_wall_p95": percentile([update.wall for update in updates], 0.95),
        "padding_share": padding_share(updates),
        "mfu": dataclasses.asdict(used) | {"clock": "cpu" if device.type == "cpu" else "wall"},
        "epoch": epoch,
        "parts": {part: {"wall_seconds": wall, "cpu_seconds": cpu} for part, (wall, cpu) in found.parts.items()},
        "parts_wall_seconds": found.parts_wall,
        "operators": [{"name": name, "calls": calls, "self_seconds": spent} for name, calls, spent in found.operators],
    }


def _inference_record(row: InferenceRow) -> dict[str, Any]:
    return {
        "batch_size": row.batch_size,
        "latency_p50": row.percentile(0.5),
        "latency_p95": row.percentile(0.95),
        "latency_mean": statistics.fmean(row.latencies),
        "tokens": row.tokens,
        "tokens_per_second": row.tokens / row.wall,
        "tokens_per_cpu_second": row.tokens / row.cpu,
        "sentences_per_second": len(row.latencies) / row.wall,
    }


# The table


def sections_of(record: dict[str, Any]) -> list[Section]:
    """A profile for people."""
    training, memory, inference = record["training"], record["memory"], record["inference"]
    cpu = record["device"]["type"] == "cpu"
    clock = "cpu_seconds" if cpu else "wall_seconds"
    saved = memory["saved_for_backward_bytes"]
    total = {name: sum(part[name] for part in training["parts"].values()) for name in ("wall_seconds", "cpu_seconds")}
    rows = [
        [
            part,
            f"{training['parts'][part]['wall_seconds'] * 1e3:,.2f}",
            f"{training['parts'][part]['cpu_seconds'] * 1e3:,.2f}",
            f"{training['parts'][part][clock] / max(total[clock], 1e-12):.1%}",
            f"{saved[part] / _MIB:,.1f}" if part in saved else "",
        ]
        for part in PARTS
        if training["parts"][part]["wall_seconds"] > 0 or part in saved
    ]
    rows.append(["sum", *(f"{total[name] * 1e3:,.2f}" for name in ("wall_seconds", "cpu_seconds")), "100.0%",
                 f"{sum(saved.values()) / _MIB:,.1f}"])  # fmt: skip
    which = "processor time" if cpu else "wall time, the host waiting for the device at each border"
    return [
        Section("Training", table=Table(["", ""], _speed_rows(record), left=2)),
        Section(
            "Parts of an update",
            f"Means of {training['updates']} updates; shares of {which}. Saved: what is kept for the backward pass of "
            f"an update of {memory['saved_for_backward_tokens']:,} tokens.",
            Table(["part", "wall ms", "CPU ms", "share", "saved MiB"], rows),
        ),
        Section("Memory", table=Table(["", "MiB"], [
            ["weights", f"{memory['weights_bytes'] / _MIB:,.1f}"],
            ["gradients", f"{memory['gradients_bytes'] / _MIB:,.1f}"],
            ["optimizer", f"{memory['optimizer_bytes'] / _MIB:,.1f}"],
            [f"peak of {memory['peak_of']}", f"{memory['peak_bytes'] / _MIB:,.1f}"],
        ])),
        Section(
            "Slowest operators of an update",
            table=Table(["operator", "calls", "own ms"], [
                [one["name"], f"{one['calls']:,}", f"{one['self_seconds'] * 1e3:,.2f}"]
                for one in training["operators"]
            ]),
        ),
        Section(
            "Translating",
            f"{inference['sentences']} sentences, {inference['num_beams']} beams, weights {inference['weights']}. The "
            "latency of a sentence is that of the batch it is in.",
            Table(["batch", "p50 ms", "p95 ms", "tokens/s", "sentences/s", "tokens/CPU s"], [
                [
                    f"{row['batch_size']}", f"{row['latency_p50'] * 1e3:,.1f}", f"{row['latency_p95'] * 1e3:,.1f}",
                    f"{row['tokens_per_second']:,.0f}", f"{row['sentences_per_second']:,.1f}",
                    f"{row['tokens_per_cpu_second']:,.0f}",
                ]
                for row in inference["rows"]
            ]),
        ),
    ]  # fmt: skip


def _speed_rows(record: dict[str, Any]) -> list[list[str]]:
    training, validation = record["training"], record["validation"]
    mfu, epoch, padding = training["mfu"], training["epoch"], training["padding_share"]
    rows = [
        ["device", f"{record['device']['name']}, {record['choices']['mixed_precision']}"],
        ["parameters", f"{record['parameters']:,}"],
        ["tokens an update", f"{training['tokens'] / training['updates']:,.0f}"],
        [
            "tokens/s",
            f"{training['tokens_per_second']:,.0f} ({training['tokens_per_cpu_second']:,.0f} per CPU second)",
        ],
        [
            "update",
            f"p50 {training['update_wall_p50'] * 1e3:,.1f} ms, p95 {training['update_wall_p95'] * 1e3:,.1f} ms; "
            f"{training['parts_wall_seconds'] * 1e3:,.1f} ms on average with its parts timed",
        ],
        ["padding", ", ".join(f"{side} {share:.1%}" for side, share in padding.items())],
    ]
    if mfu["share"] is None:
        rows.append(["MFU", mfu["reason"]])
    else:
        unit = "a CPU second" if mfu["clock"] == "cpu" else "a second"
        rows.append(["MFU", f"{mfu['share']:.1%} of {mfu['peak'] / 1e9:,.1f} GFLOP {unit} ({mfu['peak_source']})"])
    if epoch is not None:
        rows.append([
            "epoch", f"about {epoch['updates']:,.0f} updates, {epoch['tokens']:,.0f} tokens, "
            f"{epoch['wall_seconds']:,.0f} s, {epoch['cpu_seconds']:,.0f} CPU s",
        ])  # fmt: skip
    if validation is not None:
        rows.append([
            "validation", f"{validation['sentences']:,} sentences in {validation['wall_seconds']:,.1f} s "
            f"({validation['cpu_seconds']:,.1f} CPU s)",
        ])  # fmt: skip
    return rows
