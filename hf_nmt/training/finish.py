"""After the last update: which weights become `best/`, the saved model checked, the summary of the run."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nmt import runs
from hf_nmt.artifacts import atomic_folder, hash_model, quiet_files, write_json, write_text
from hf_nmt.config import fingerprint
from hf_nmt.generation import adapters
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.metrics import Score, ScoredSystem, dump_scores
from hf_nmt.models.sources_nmt import source_limit
from hf_nmt.protocols import LANGUAGE_COLUMNS
from hf_nmt.run_records import VALIDATION_SEGMENTS
from hf_nmt.training import checkpoints, moving_average
from hf_nmt.training.processes import from_first
from hf_nmt.training.saved import check_checkpoint, check_saved
from hf_nmt.training.trainer import TranslationTrainer
from hf_nmt.training.validation import ValidationResult, search_text

# Tokens that `generate` of a model without absolute positions (T5) may write: what T5 was trained on.
_NO_POSITIONS_LENGTH = 512

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Candidate:
    """Weights that may become the model of the run.

    Attributes:
        kind: "single" (the best checkpoint), "average" (of the last ones), "ema" (the moving average of the weights)
            or "last" (the final weights).
        steps: the checkpoints it is made of.
        result: its validation, or None where there are no validation texts.
    """

    kind: str
    steps: list[int]
    result: ValidationResult | None = None


def choose_model(trainer: TranslationTrainer) -> tuple[Candidate, list[Candidate]]:
    """Validate the best checkpoint, the average of the last ones and the moving average with all beams, and load the
    best of them.

    A checkpoint whose files are not as they were written is reported and left out.

    Without validation texts the moving average is taken, else the average of the last checkpoints, or the last weights
    where there are fewer than two.

    Returns:
        The chosen candidate, whose weights the trainer's model then holds, and all candidates.
    """
    candidates: dict[str, Candidate] = {}
    best, last = _whole_steps(trainer)
    if best is not None:
        candidates["single"] = Candidate("single", [best])
    else:
        candidates["last"] = Candidate("last", [trainer.state.global_step])
    if len(last) > 1:
        candidates["average"] = Candidate("average", last)
    elif trainer.settings.num_average_checkpoints > 1:
        logger.warning(
            "No average was made: of %d updates there are fewer than two whole checkpoints. Train longer, or lower "
            "training.save_steps.", trainer.state.global_step,
        )  # fmt: skip
    if trainer.average is not None:
        step = best if trainer.average.settings.use_for_validation else None
        candidates["ema"] = Candidate("ema", [trainer.state.global_step if step is None else step])
    held = {}
    if "last" in candidates:
        held = trainer.trained_weights()
    if trainer.validation is None:
        chosen = next(candidates[kind] for kind in ("ema", "average", "last") if kind in candidates)
        logger.warning("There are no validation texts: best/ is %s.", _described(chosen))
    else:
        for candidate in candidates.values():
            _load(trainer, candidate, held)
            candidate.result = trainer.validate()
            logger.info(
                "%s, validated with %s: loss %.4f  %s",
                _described(candidate),
                search_text(trainer.validation.decoding),
                candidate.result.metrics["loss"],
                candidate.result.score_lines()[0],
            )
        name = trainer.settings.metric_for_best_model
        sign = -1 if name == "loss" else 1
        chosen = max(
            candidates.values(),
            key=lambda candidate: (sign * candidate.result.metrics[name], -candidate.result.metrics["loss"]),
        )
    _load(trainer, chosen, held)
    trainer.run.update(best={"kind": chosen.kind, "steps": chosen.steps})
    return chosen, list(candidates.values())


def _whole_steps(trainer: TranslationTrainer) -> tuple[int | None, list[int]]:
    """The step of the best checkpoint and those of the last ones, as far as they are whole: what the first process
    finds, for the others must validate the same."""
    best = trainer.state.best_global_step if trainer.validation is not None else None
    steps: list[int] = []
    if trainer.args.process_index == 0:
        count = trainer.settings.num_average_checkpoints
        folders = checkpoints.newest_whole(trainer.run.checkpoints, count, planned=True)
        steps = [runs.step_of(folder) for folder in folders]
        if best is not None and best not in steps:
            if not checkpoints.is_whole(runs.checkpoint_folder(trainer.run.checkpoints, best)):
                logger.warning("The best checkpoint, of step %d, cannot be used: the last weights stand in.", best)
                best = None
    return from_first((best, steps), trainer.args.world_size)


def _described(candidate: Candidate) -> str:
    if candidate.kind == "average":
        return f"the average of {len(candidate.steps)} checkpoints (steps {', '.join(map(str, candidate.steps))})"
    name = {"single": "best checkpoint", "last": "last weights", "ema": "moving average of the weights"}[
        candidate.kind
    ]
    return f"the {name} (step {candidate.steps[0]})"


def _load(trainer: TranslationTrainer, candidate: Candidate, held: dict[str, torch.Tensor]) -> None:
    folders = [runs.checkpoint_folder(trainer.run.checkpoints, step) for step in candidate.steps]
    if candidate.kind == "last":
        trainer.load_weights(held)
    elif candidate.kind == "single":
        trainer._load_from_checkpoint(str(folders[0]))
    elif candidate.kind == "ema":
        is_last = candidate.steps[0] == trainer.state.global_step
        trainer.average.put(None if is_last else moving_average.read(folders[0])[0])
    else:
        trainer.load_weights(checkpoints.average_weights(folders))


def merge_adapter(
    trainer: TranslationTrainer,
    tokenizer: PreTrainedTokenizerBase,
    decoding: DecodingSettings,
    chosen: Candidate,
    full_precision: Callable[[], PreTrainedModel],
) -> Candidate:
    """Write `adapter/`, the adapter alone, and merge it: the trainer's model is then whole and needs peft no more.

    Every process calls this.

    Args:
        chosen: what the trainer's model holds.
        full_precision: makes the model with a new adapter, not quantized. An adapter that was trained over quantized
            weights is merged into these, which gives other translations, and so it is validated once more.

    Returns:
        The candidate, with the validation of the merged model.
    """
    if trainer.is_world_process_zero():
        save_adapter(trainer.model, tokenizer, trainer.run.adapter, decoding)
    if not adapters.is_quantized(trainer.model):
        adapters.merge_adapter(trainer.model)
        return chosen
    logger.info("the adapter is merged into the full weights:")
    model = full_precision().to(trainer.args.device)
    adapters.load_adapter_weights(model, trainer.trained_weights())
    trainer.model = adapters.merge_adapter(model)
    if trainer.validation is None:
        return chosen
    merged = dataclasses.replace(chosen, result=trainer.validate())
    before, after = (
        "  ".join([f"loss {result.metrics['loss']:.4f}", *(f"{one.name} {one.text}" for one in result.scores)])
        for result in (chosen.result, merged.result)
    )
    logger.info("over quantized weights: %s; merged into the full ones, as in best/: %s", before, after)
    return merged


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, decoding: DecodingSettings
) -> None:
    """Write a model folder that anyone can load, then load it and compare.

    Args:
        model: its weights as they are.
        tokenizer: of the model.
        folder: takes the place of an older one.
        decoding: what the model's own `generate` and pipeline do unless told otherwise.

    Raises:
        NmtError: it could not be written, or what was loaded differs from what was saved.
    """
    with quiet_files(), atomic_folder(folder, replace=True) as partial:
        _set_generation(model, tokenizer, decoding)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        check_saved(model, tokenizer, partial)


def _set_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, decoding: DecodingSettings) -> None:
    # What belongs to beams or sampling alone is taken out where it has no use: Transformers would not save it.
    every = DecodingSettings(num_beams=2, do_sample=True).generate_kwargs()
    model.generation_config.update(**(dict.fromkeys(every) | decoding.generate_kwargs()))
    # Otherwise a plain `generate` would stop after 20 tokens. One position is the start symbol's.
    limits = [source_limit(model, tokenizer), decoding.max_target_length and decoding.max_target_length + 1]
    model.generation_config.max_length = min(filter(None, limits), default=_NO_POSITIONS_LENGTH)


def save_adapter(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, decoding: DecodingSettings
) -> None:
    """Write the adapter in a model into a folder of its own, then read it and compare; see `save_model`."""
    with atomic_folder(folder, replace=True) as partial:
        _set_generation(model, tokenizer, decoding)
        adapters.write_adapter(model, partial)
        tokenizer.save_pretrained(partial)
        check_checkpoint(model, tokenizer, partial)
    base = adapters.adapter_config(model).base_model_name_or_path
    if base and Path(base).is_dir():
        logger.info(
            "%s belongs to the model in %s, a folder of this machine. Elsewhere it is of use only beside a copy, "
            "named in base_model_name_or_path of %s; best/ is whole.",
            folder, base, adapters.ADAPTER_CONFIG,
        )  # fmt: skip


def write_summary(trainer: TranslationTrainer, chosen: Candidate, candidates: list[Candidate]) -> dict[str, Any]:
    """Write summary.json: what the run cost and how good its model, saved in best/, is."""
    stopwatch, state, args = trainer.stopwatch, trainer.state, trainer.args
    ended_by = "max_steps" if args.max_steps > 0 else "num_train_epochs"
    if state.global_step < state.max_steps:
        ended_by = "early_stopping_patience"
    summary = {
        "schema_version": 1,
        "best": {"kind": chosen.kind, "steps": chosen.steps},
        "candidates": [
            {
                "kind": candidate.kind,
                "steps": candidate.steps,
                "metrics": candidate.result.metrics if candidate.result else None,
            }
            for candidate in candidates
        ],
        "scores": _score_records(trainer, chosen),
        "steps": state.global_step,
        "epochs": state.epoch,
        **({} if trainer.stream is None else {"stream": dataclasses.asdict(trainer.stream.position.totals)}),
        "ended_by": ended_by,
        "tokens": stopwatch.tokens,
        "seconds": round(stopwatch.seconds, 1),
        "training_seconds": round(stopwatch.training_seconds, 1),
        "cpu_seconds": round(stopwatch.cpu_seconds, 1),
        "tokens_per_second": round(stopwatch.tokens / max(stopwatch.training_seconds, 1e-9), 1),
        "processes": args.world_size,
        "parameters": trainer.model.num_parameters(),
    }
    if chosen.result is not None:
        _write_segments(trainer, chosen.result)
    write_json(trainer.run.folder / "summary.json", summary)
    return summary


def _write_segments(trainer: TranslationTrainer, result: ValidationResult) -> None:
    """Keep what the chosen model made of the validation texts, for significance tests against other runs."""
    validation = trainer.validation
    pairs = {row: pair for pair, rows in validation.rows_of_pair.items() for row in rows}
    rows = zip(validation.sources, validation.references, result.translations, strict=True)
    lines = [
        {"source": source, "references": references, "prediction": re.sub(r"[\r\n]+", " ", prediction)}
        | dict(zip(LANGUAGE_COLUMNS, pairs[row], strict=True))
        for row, (source, references, prediction) in enumerate(rows)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_text(trainer.run.folder / VALIDATION_SEGMENTS, text)


def _score_records(trainer: TranslationTrainer, chosen: Candidate) -> list[dict[str, Any]]:
    """The scores of the chosen model on the validation texts, with what was scored and by what."""
    if chosen.result is None or trainer.validation is None:
        return []
    data = {"hash": trainer.run.record["data"].get("validation"), "split": "validation"}
    system = ScoredSystem(
        hash=fingerprint(hash_model(trainer.run.best)),
        decoding=trainer.validation.decoding.model_dump(mode="json"),
    )
    return dump_scores(
        score.model_copy(update={"data": score.data.model_copy(update=data), "system": system})
        for score in chosen.result.scores
    )


def duration_text(seconds: float) -> str:
    """`1.5 s`, `1 min 10 s`, `2 h 05 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _stream_lines(stream: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "stream", f"{stream['pairs']:,} pairs read"
    for what in ("dropped", "changed"):
        if stream[what]:
            yield what, ", ".join(f"{count:,} {reason}" for reason, count in stream[what].items())


def summary_lines(trainer: TranslationTrainer, summary: dict[str, Any]) -> list[str]:
    """The summary as a table for people."""
    run, best = trainer.run, summary["best"]
    steps = best["steps"][0] if len(best["steps"]) == 1 else f"{best['steps'][0]} to {best['steps'][-1]}"
    search = search_text(trainer.validation.decoding) if trainer.validation is not None else ""
    rows = [
        *(_stream_lines(summary["stream"]) if "stream" in summary else []),
        ("best model", f"{best['kind']} (step {steps} of {summary['steps']})"),
        *(
            (
                f"{score['name']} {score['data']['domain'] or ''}".strip(),
                f"{Score(**score).text} on the validation text, {search}   {score['signature']}",
            )
            for score in summary["scores"]
        ),
        ("ended by", summary["ended_by"]),
        ("time", f"{duration_text(summary['seconds'])} ({duration_text(summary['cpu_seconds'])} of CPU in updates)"),
        ("speed", f"{summary['tokens_per_second']:,.0f} source and target tokens/s"),
        ("parameters", f"{summary['parameters']:,}"),
        ("model", str(run.best)),
        *([("adapter alone", str(run.adapter))] if run.adapter.is_dir() else []),
        ("plots", str(run.plots)),
        ("log", str(run.folder / "log.txt")),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]
