"""Where the time and the memory of a training go, measured on the real trainer.

One training of a few updates passes through phases: warm-up, which is not counted; plain updates, which tell the
speed; updates in which each part of the step is timed; one that tells what is saved for the backward pass; and two
under torch.profiler. A part of the step has the time that is spent in it and in none of its own parts, so that the
parts sum to the whole. On a GPU the host waits for the device at each border between parts: that costs time, which the
plain updates do not have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from hf_nmt.generation.adapters import has_adapter
from hf_nmt.models import modeling_nmt
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.profiling.flops import forward_flops, measure_peak, product_shapes
from hf_nmt.training import cross_entropy, r_drop
from hf_nmt.training.memory_budget import forget_peak, peak_memory
from hf_nmt.training.trainer import TranslationTrainer

DATA, FORWARD, BACKWARD = "data wait", "forward: other", "backward"
CLIPPING, OPTIMIZER, LOGGING, OTHER = "gradient norm", "optimizer", "logging", "other"
EMBEDDINGS, ATTENTION, FEED_FORWARD = "forward: embeddings", "forward: attention", "forward: feed-forward"
RECURRENT, NORMS, PROJECTION = "forward: ssru", "forward: norms", "forward: projection and loss"
PARTS = (
    DATA, EMBEDDINGS, ATTENTION, RECURRENT, FEED_FORWARD, NORMS, PROJECTION, FORWARD, BACKWARD, CLIPPING, OPTIMIZER,
    LOGGING, OTHER,
)  # fmt: skip
# Class or attribute names of modules, in all families.
_KINDS = (
    (re.compile(r"\.(lm_head|output_projection)$"), PROJECTION),
    (re.compile(r"Norm$"), NORMS),
    (re.compile(r"(Embedding|Positions)$"), EMBEDDINGS),
    (re.compile(r"Attention$"), ATTENTION),
    (re.compile(r"RecurrentUnit$"), RECURRENT),
    (re.compile(r"(FeedForward|LayerFF|MLP)$|\.(fc1|fc2)$"), FEED_FORWARD),
)
_OPERATOR_UPDATES = 2


class Regions:
    """Time of nested regions: each has what is spent in it and in no region inside it.

    Attributes:
        wall, cpu: region -> seconds of the clock and of all threads of this process.
        calls: region -> how often it was entered.
        saved: region -> bytes saved there for the backward pass, where that is asked for.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.running = False
        self.clear()

    def clear(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.saved: dict[str, int] = defaultdict(int)
        self._stack: list[str] = []

    def start(self) -> None:
        self.clear()
        self.running, self._stack, self._last = True, [OTHER], now(self.device)
        self._began = self._last[0]

    def stop(self) -> None:
        self._charge()
        self.running = False

    @property
    def elapsed(self) -> float:
        """Wall seconds from the start to where time was last charged to a region."""
        return self._last[0] - self._began

    @property
    def current(self) -> str:
        return self._stack[-1]

    def _charge(self) -> None:
        wall, cpu = now(self.device)
        self.wall[self._stack[-1]] += wall - self._last[0]
        self.cpu[self._stack[-1]] += cpu - self._last[1]
        self._last = wall, cpu

    def enter(self, name: str) -> None:
        if self.running:
            self._charge()
            self._stack.append(name)
            self.calls[name] += 1

    def leave(self) -> None:
        if self.running and len(self._stack) > 1:
            self._charge()
            self._stack.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a region."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self.enter(name)
            try:
                return function(*arguments, **options)
            finally:
                self.leave()

        return call


def now(device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds, when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def part_of(name: str, module: nn.Module) -> str | None:
    """The part of the step that a module is, by its class or name; None where it belongs to what it is in."""
    for pattern, part in _KINDS:
        if pattern.search(type(module).__name__) or pattern.search(f".{name}"):
            return part
    return None


@contextlib.contextmanager
def watched_modules(model: nn.Module, regions: Regions) -> Iterator[None]:
    """Time the modules of a model as parts, and the loss with the projection onto the vocabulary."""
    handles = []
    for name, module in model.named_modules():
        if (part := part_of(name, module)) is not None:
            handles.append(module.register_forward_pre_hook(lambda *_, part=part: regions.enter(part), prepend=True))
            handles.append(module.register_forward_hook(lambda *_: regions.leave(), always_call=True))
    functions = (
        (modeling_nmt, "smoothed_cross_entropy"), (cross_entropy, "smoothed_cross_entropy_from_logits"),
        (r_drop, "paired_cross_entropy"), (r_drop, "paired_cross_entropy_from_logits"),
    )  # fmt: skip
    before = [(place, name, getattr(place, name)) for place, name in functions]
    for place, name, function in before:
        setattr(place, name, regions.timed(PROJECTION, function))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for place, name, function in before:
            setattr(place, name, function)


@dataclasses.dataclass
class Update:
    """One plain update.

    Attributes:
        wall, cpu: seconds.
        source_lengths, target_lengths: of the sequences, with their end symbols, batch by batch.
    """

    wall: float = 0.0
    cpu: float = 0.0
    source_lengths: list[list[int]] = dataclasses.field(default_factory=list)
    target_lengths: list[list[int]] = dataclasses.field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.source_lengths)) + sum(map(sum, self.target_lengths))


@dataclasses.dataclass
class TrainingProfile:
    """What was measured of a training.

    Attributes:
        updates: the plain ones.
        parts: part -> (wall, cpu seconds of an update).
        parts_wall: wall seconds of an update in which parts were timed, measured around all.
        saved: part -> bytes saved for the backward pass, of one update; `saved_tokens` are its tokens.
        peak_bytes: largest memory of the plain updates: what was allocated on a GPU, RSS of the process on a CPU.
        counted_flops: operations of one forward pass as torch counts them, over the tokens of its update.
        operators: (name, calls, self seconds) of the slowest operators, of an update.
    """

    updates: list[Update] = dataclasses.field(default_factory=list)
    parts: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    parts_wall: float = 0.0
    saved: dict[str, int] = dataclasses.field(default_factory=dict)
    saved_tokens: int = 0
    peak_bytes: int = 0
    counted_flops: float = 0.0
    operators: list[tuple[str, int, float]] = dataclasses.field(default_factory=list)


class _Profiler(TrainerCallback):
    """Leads the trainer through the phases; `measure_training` takes it down again."""

    def __init__(self, trainer: TranslationTrainer, warmup: int, count: int, trace: Path | None):
        self.trainer, self.warmup, self.count, self.trace = trainer, warmup, count, trace
        self.device = trainer.args.device
        self.regions = Regions(self.device)
        self.profile = TrainingProfile()
        self.stack = contextlib.ExitStack()
        self._update = Update()
        self._began: tuple[float, float] | None = None
        self._profiler: Any = None
        self._memory: contextlib.ExitStack | None = None

    @property
    def total(self) -> int:
        return self.warmup + 2 * self.count + 1 + _OPERATOR_UPDATES

    def install(self) -> None:
        trainer = self.trainer
        self._replace(trainer, "get_batch_samples", self._data)
        self._replace(trainer, "compute_loss", self.regions.timed(FORWARD, trainer.compute_loss))
        self._replace(trainer, "_clip_grad_norm", self.regions.timed(CLIPPING, trainer._clip_grad_norm))
        self._replace(trainer, "_maybe_log_save_evaluate", self._end_of_update)
        backward = self.regions.timed(BACKWARD, trainer.accelerator.backward)
        self._replace(trainer.accelerator, "backward", backward)

    def _replace(self, place: Any, name: str, function: Callable[..., Any]) -> None:
        if name == "get_batch_samples":
            self._get_batch_samples = place.get_batch_samples
        elif name == "_maybe_log_save_evaluate":
            self._log = self.regions.timed(LOGGING, place._maybe_log_save_evaluate)
        setattr(place, name, function)
        self.stack.callback(delattr, place, name)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for place, name in ((self.trainer.optimizer, "step"), (self.trainer.lr_scheduler, "step")):
            self._replace(place, name, self.regions.timed(OPTIMIZER, getattr(place, name)))
        model = self.trainer.model_wrapped
        self._replace(model, "zero_grad", self.regions.timed(OPTIMIZER, model.zero_grad))

    def _data(self, *arguments: Any, **options: Any) -> Any:
        """The first thing of an update."""
        step = self.trainer.state.global_step
        if step == self.warmup:
            forget_peak(self.device)
        elif step == self.warmup + self.count:
            on_gpu = self.device.type == "cuda"  # where the allocator holds more than is in use
            self.profile.peak_bytes = (
                torch.cuda.max_memory_allocated(self.device) if on_gpu else peak_memory(self.device)
            )
            self._modules = contextlib.ExitStack()
            self._modules.enter_context(watched_modules(self.trainer.model, self.regions))
            self.regions.start()
        elif step == self.warmup + 2 * self.count:
            self._watch_memory()
        elif step == self.warmup + 2 * self.count + 1:
            self._start_operators()
        self._update, self._began = Update(), now(self.device)
        self.regions.enter(DATA)
        try:
            samples, items = self._get_batch_samples(*arguments, **options)
        finally:
            self.regions.leave()
        if not self.regions.running or self._memory is not None:
            self._update.source_lengths = [batch["attention_mask"].sum(1).tolist() for batch in samples]
            self._update.target_lengths = [(batch["labels"] != -100).sum(1).tolist() for batch in samples]
        return samples, items

    def _end_of_update(self, *arguments: Any, **options: Any) -> None:
        """The last thing of an update; it is called once more at the end of an epoch."""
        self._log(*arguments, **options)
        done = self.trainer.state.global_step - 1
        if self._began is None:
            return
        if self.warmup <= done < self.warmup + self.count:
            wall, cpu = now(self.device)
            self._update.wall, self._update.cpu = wall - self._began[0], cpu - self._began[1]
            self.profile.updates.append(self._update)
        elif done == self.warmup + 2 * self.count - 1:
            self.regions.stop()
            self.profile.parts_wall = self.regions.elapsed / self.count
            self.profile.parts = {
                part: (self.regions.wall[part] / self.count, self.regions.cpu[part] / self.count) for part in PARTS
            }
        elif done == self.warmup + 2 * self.count:
            self._end_memory()
        elif done == self.total - 1:
            self._end_operators()
        self._began = None

    # Memory

    def _watch_memory(self) -> None:
        """Count what is saved for the backward pass, each storage once, weights not at all; and operations."""
        weights = {weight.untyped_storage().data_ptr() for weight in self.trainer.model.parameters()}
        seen: set[int] = set()

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights and storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                self.regions.saved[self.regions.current] += storage.nbytes()
            return tensor

        self._memory = contextlib.ExitStack()
        self.regions.start()
        compute_loss = self.trainer.compute_loss
        self._counter = FlopCounterMode(display=False)

        def watched(*arguments: Any, **options: Any) -> Any:
            with saved_tensors_hooks(pack, lambda tensor: tensor), self._counter:
                return compute_loss(*arguments, **options)

        self.trainer.compute_loss = watched  # type: ignore[method-assign]
        self._memory.callback(setattr, self.trainer, "compute_loss", compute_loss)

    def _end_memory(self) -> None:
        assert self._memory is not None
        self._memory.close()
        self._memory = None
        self.regions.stop()
        self._modules.close()
        self.profile.saved = dict(self.regions.saved)
        self.profile.saved_tokens = self._update.tokens
        self.profile.counted_flops = self._counter.get_total_flops()

    # Operators

    def _start_operators(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=kinds, record_shapes=False)
        self._profiler.start()

    def _end_operators(self) -> None:
        now(self.device)
        self._profiler.stop()
        if self.trace is not None:
            self._profiler.export_chrome_trace(str(self.trace))
        spent = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        events = sorted(self._profiler.key_averages(), key=lambda event: -getattr(event, spent))
        self.profile.operators = [
            (event.key, event.count // _OPERATOR_UPDATES, getattr(event, spent) / 1e6 / _OPERATOR_UPDATES)
            for event in events[:12]
        ]


def measure_training(
    trainer: TranslationTrainer, *, warmup: int, count: int, trace: Path | None = None
) -> TrainingProfile:
    """Train some updates and measure them. The weights are changed.

    Args:
        trainer: whose `args.max_steps` is `num_updates(warmup, count)`, without validations and checkpoints.
        warmup: updates before anything is counted.
        count: plain updates, and as many again with the parts timed.
        trace: file for a Chrome trace of the last two updates, or None.
    """
    profiler = _Profiler(trainer, warmup, count, trace)
    assert trainer.args.max_steps == profiler.total, (trainer.args.max_steps, profiler.total)
    trainer.add_callback(profiler)
    with profiler.stack:
        profiler.install()
        trainer.train()
    return profiler.profile


def num_updates(warmup: int, count: int) -> int:
    """Updates that `measure_training` needs."""
    return warmup + 2 * count + 1 + _OPERATOR_UPDATES


def padding_share(updates: list[Update]) -> dict[str, float]:
    """Share of the positions of padded batches that hold no token, on each side and on both."""
    real = {"source": 0, "target": 0}
    places = dict(real)
    for update in updates:
        for side, batches in (("source", update.source_lengths), ("target", update.target_lengths)):
            real[side] += sum(map(sum, batches))
            places[side] += sum(len(lengths) * max(lengths) for lengths in batches)
    shares = {side: 1 - real[side] / places[side] for side in real}
    return {**shares, "both": 1 - sum(real.values()) / sum(places.values())}


@dataclasses.dataclass(frozen=True)
class Utilization:
    """How much of the device is used.

    Attributes:
        flops: operations of the plain updates that the model needs, forward and backward.
        peak: operations a second at best, of one core where the clock counts processor seconds.
        peak_source: where that comes from.
        share: model FLOPs utilisation (MFU), or None with `reason`.
    """

    flops: float | None
    peak: float | None
    peak_source: str
    share: float | None
    reason: str = ""


def utilization(
    trainer: TranslationTrainer, profile: TrainingProfile, *, peak: float | None, one_pass: bool
) -> Utilization:
    """The MFU of the plain updates (Chowdhery et al. 2022, appendix B): operations needed over those possible.

    On a CPU both sides are counted in processor seconds, so that other programs do not change it.

    Args:
        peak: operations a second that the device can do, or None to measure it.
        one_pass: whether the objective is one pass through the model; two cannot be counted from the lengths.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    one_pass = one_pass and trainer.settings.sam_rho is None
    if has_adapter(model) or not one_pass:
        why = "an adapter is trained" if one_pass else "batches are computed more than once"
        return Utilization(None, None, "", None, f"not counted, as {why}.")
    if isinstance(model, NmtForConditionalGeneration):
        flops: float = sum(
            3 * sum(forward_flops(model.config, sources, targets).values())
            for update in profile.updates
            for sources, targets in zip(update.source_lengths, update.target_lengths, strict=True)
        )
    else:  # as torch counted one update: with padding, as these families compute it
        flops = 3 * profile.counted_flops / profile.saved_tokens * sum(update.tokens for update in profile.updates)
    device = trainer.args.device
    on_cpu = device.type == "cpu"
    source = "given"
    if peak is None:
        config = model.config
        inner = getattr(config, "encoder_ffn_dim", None) or getattr(config, "d_ff", 4 * config.hidden_size)
        tokens = max(1, round(sum(update.tokens for update in profile.updates) / len(profile.updates) / 2))
        shapes = product_shapes(config.hidden_size, inner, config.vocab_size, tokens)
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(trainer.args.mixed_precision), torch.float32)
        rates = measure_peak(shapes, dtype, device, lambda: now(device)[1 if on_cpu else 0])
        peak = max(rates.values())
        fastest = max(rates, key=lambda name: rates[name])
        source = f"a product of {str(dtype).removeprefix('torch.')} matrices, {' x '.join(map(str, shapes[fastest]))}"
    seconds = sum(update.cpu if on_cpu else update.wall for update in profile.updates)
    return Utilization(flops, peak, source, flops / seconds / peak)
