"""The largest token budget whose training fits memory: found by trying the longest pairs, once for each run."""

from __future__ import annotations

import copy
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import psutil
import pyarrow.compute
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

from hf_nmt.batching import BatchingSettings, TranslationCollator
from hf_nmt.errors import ConfigError
from hf_nmt.runs import Run
from hf_nmt.training.optimization import optimizer_for
from hf_nmt.training.recipe import TrainingRecipe
from hf_nmt.training.sharding import applied_in_backward

MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")

logger = logging.getLogger(__name__)

# Tokens of a batch -> bytes in use at the peak of an update, or None where memory ran out.
Trial = Callable[[int], int | None]


def largest_budget(trial: Trial, *, base: int, limit: int, row: int, most: int) -> tuple[int, list[list[int | None]]]:
    """The largest multiple of a row that needs at most `limit` bytes, nearly.

    Nothing is tried that is not expected to fit: what an update needs beyond `base` grows no faster than the tokens.

    Args:
        trial: measures.
        base: bytes in use before an update.
        limit: bytes that may be in use.
        row: tokens of the longest pair.
        most: the largest budget that is wanted.

    Returns:
        The budget, 0 where a single row does not fit; and what was tried: tokens, and bytes or None.
    """
    tried: list[list[int | None]] = []

    def fits(tokens: int) -> int | None:
        used = trial(tokens)
        tried.append([tokens, used])
        return None if used is None or used > limit else used

    most = most // row * row
    tokens, used = row, fits(row)
    if used is None:
        return 0, tried
    while tokens < most:
        following = min(2 * tokens, most)
        if base + (used - base) * following / tokens > limit:
            following = int(tokens * (limit - base) / (used - base)) // row * row
        if following <= tokens or (found := fits(following)) is None:
            break
        is_last = following < min(2 * tokens, most)
        tokens, used = following, found
        if is_last:
            break
    return tokens, tried


def fit_memory(
    run: Run,
    settings: TrainingRecipe,
    arguments: Seq2SeqTrainingArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    collator: TranslationCollator,
    pairs: Dataset | None,
) -> BatchingSettings:
    """The settings of batches with the budget that fits, which is recorded; that of before for a run that goes on.

    Args:
        model: with the attention that it will be trained with.
        pairs: the encoded training pairs; None where they are not known, and the longest that are allowed are tried.

    Raises:
        ConfigError: not even the longest pair fits; there are several processes; or the weights are updated before
            the gradients are whole.
    """
    batching = settings.batching
    if batching.memory_share is None:
        return batching
    if (before := run.record["choices"].get("batch_tokens")) is not None:
        return batching.model_copy(update={"batch_tokens": before})
    if arguments.world_size > 1:
        raise ConfigError(
            "batching.memory_share: the budget is found by one process, whose memory several share or divide in ways "
            "of their own. Start one, and give batching.batch_tokens what it finds."
        )
    if (early := applied_in_backward(arguments.optim)) is not None:
        raise ConfigError(
            f"batching.memory_share: {early} updates the weights in the backward pass and never has all gradients, "
            "which is not tried here. Leave it out, and set batching.batch_tokens."
        )
    device = arguments.device
    source, target = batching.max_source_length, batching.max_target_length
    if pairs is not None:
        source, target = (
            pyarrow.compute.max(pyarrow.compute.list_value_length(pairs.data[name])).as_py()
            for name in ("input_ids", "labels")
        )
    update = _Update(settings, arguments, model, tokenizer, collator, (source, target))
    update(max(source, target))  # makes the state of the optimizer
    base, limit = _in_use(device), int(batching.memory_share * _available(device))
    row = max(source, target)
    budget, tried = largest_budget(update, base=base, limit=limit, row=row, most=batching.batch_tokens)
    if not budget:
        raise ConfigError(
            f"batching.memory_share: the longest pair, of {source} and {target} tokens, needs "
            f"{(tried[0][1] or limit) // MIB:,} MiB, and {limit // MIB:,} MiB may be used. Lower "
            "batching.max_source_length and batching.max_target_length, raise memory_share, or take a smaller model."
        )
    logger.info(
        "batch_tokens %s: the largest budget, up to %s, that fits %s MiB of %s with pairs of %d and %d tokens",
        f"{budget:,}", f"{batching.batch_tokens:,}", f"{limit // MIB:,}", device.type, source, target,
    )  # fmt: skip
    figures = {"limit_bytes": limit, "base_bytes": base, "longest_pair": [source, target], "tried": tried}
    run.update(measurements={**run.record.get("measurements", {}), "batch_tokens": figures})
    run.choose(batch_tokens=budget)
    return batching.model_copy(update={"batch_tokens": budget})


class _Update:
    """Updates of a copy of the model, for nothing: called with the tokens of a batch, it tells the peak of memory.

    It holds what an update of the training holds: its optimizer with its state, activations as they are kept or
    computed again, and, where batches are accumulated, the gradients of those before.
    """

    def __init__(
        self,
        settings: TrainingRecipe,
        arguments: Seq2SeqTrainingArguments,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        collator: TranslationCollator,
        lengths: tuple[int, int],
    ):
        self._device = arguments.device
        self._model = copy.deepcopy(model).to(self._device).train()
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        if arguments.activation_checkpointing:
            options = dict(arguments.activation_checkpointing_kwargs or {})
            every, offload = options.pop("every_n_layers", 1), options.pop("offload", False)
            self._model.activation_checkpointing_enable(options or None, every_n_layers=every, offload=offload)
        self._optimizer = optimizer_for(self._model, arguments, settings.training)
        self._batches = min(arguments.gradient_accumulation_steps, 2)
        copies = (2 if settings.training.sam_rho is not None else 0) + (settings.objective.ema is not None)
        self._beside = [torch.empty_like(weight) for _ in range(copies) for weight in weights]
        self._objective = settings.objective.build(self._model, tokenizer, arguments)
        self._objective.begin(1)
        self._collator, self._lengths = collator, lengths
        self._token = tokenizer.eos_token_id
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
        self._autocast = nullcontext() if dtype is None else torch.autocast(self._device.type, dtype)

    def __call__(self, tokens: int) -> int | None:
        source, target = self._lengths
        row = {"input_ids": [self._token] * source, "labels": [self._token] * target}
        count = tokens // max(source, target)
        if not forget_peak(self._device):
            raise ConfigError(
                "batching.memory_share: the peak of memory is told by Linux and CUDA alone; leave it out here, and "
                "set batching.batch_tokens."
            )
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                batch = {name: value.to(self._device) for name, value in self._collator([row] * count).items()}
                for _ in range(self._batches):
                    with self._autocast:
                        loss = self._objective(self._model, batch, 1)
                    (loss / (count * target)).backward()
                    del loss
                del batch
                self._optimizer.step()
                return peak_memory(self._device)
            except (RuntimeError, MemoryError) as error:
                if not _ran_out(error):
                    raise
                return None
            finally:
                self._optimizer.zero_grad()
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()


# Memory. On a processor it is that of this process, and what the machine and the control group have left.


def _ran_out(error: Exception) -> bool:
    """Whether it tells that memory ran out; on a processor torch has no error of its own for that."""
    kinds = torch.OutOfMemoryError, MemoryError
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _in_use(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return psutil.Process().memory_info().rss


def _available(device: torch.device) -> int:
    """Bytes that this process could use in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    free = psutil.virtual_memory().available
    most, now = (_CGROUP / "memory.max", _CGROUP / "memory.current")
    if most.is_file() and now.is_file() and (text := most.read_text().strip()) != "max":
        free = min(free, int(text) - int(now.read_text()))
    return _in_use(device) + max(free, 0)


def forget_peak(device: torch.device) -> bool:
    """Let `peak_memory` begin anew; whether it can, as on a processor Linux alone does."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory(device: torch.device) -> int:
    """Bytes in use at most since `forget_peak`: those that the allocator holds of a GPU, else the resident ones of
    this process. Where that cannot forget, since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
