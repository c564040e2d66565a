"""Weights, gradients and the state of the optimizer divided among the processes: FSDP2 of PyTorch, ZeRO of DeepSpeed.

A checkpoint holds whole weights and the whole state of the optimizer: the same files as under data parallelism.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Seq2SeqTrainer

from hf_nmt.errors import ConfigError
from hf_nmt.generation.adapters import has_adapter
from hf_nmt.training import fsdp, zero
from hf_nmt.training.fsdp import FullySharded
from hf_nmt.training.zero import ZeroDivided

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # files of a checkpoint, named by the Trainer
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")
_NAMES = {fsdp: "FSDP", zero: "DeepSpeed"}


def _asked() -> list[Any]:
    """fsdp, zero: which of them the launcher asks for."""
    return [kind for kind in _NAMES if os.environ.get(kind.ASKED, "").lower() in ("true", "1")]


def is_asked_for() -> bool:
    """Whether the launcher asks for weights divided among the processes."""
    return bool(_asked())


def kind() -> str | None:
    """`fsdp`, `zero1`, `zero2`, `zero3`, or None where nothing is divided."""
    return {(): None, (fsdp,): "fsdp", (zero,): f"zero{zero.stage()}"}[tuple(_asked())]


def applied_in_backward(optim: str) -> str | None:
    """What updates the weights already in the backward pass, if anything does."""
    if (kind() or "").startswith("zero"):
        return "DeepSpeed"
    return next((name for name in ("lomo", "adalomo") if name == optim), None)  # and not the name of an Enum


def launcher_findings() -> list[str]:
    """What the launcher asks for and cannot have."""
    findings = []
    for asked in _asked():
        asks = f"training: the launcher asks for {_NAMES[asked]}"
        for key, (variable, allowed, remedy) in asked.LIMITS.items():
            given = os.environ.get(variable)
            if given is not None and given not in allowed:
                findings.append(f"{asks} with {key}={given}; {remedy} in the launch file.")
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            findings.append(f"{asks}, which needs several processes; launch two or more.")
    if zero in _asked() and find_spec("deepspeed") is None:
        findings.append(
            "training: the launcher asks for DeepSpeed, and the package 'deepspeed' is not installed. Install it "
            'with: pip install "hf_nmt[deepspeed]"'
        )
    if len(_asked()) > 1:
        findings.append("training: the launcher asks for FSDP and for DeepSpeed; launch with one of them.")
    return findings


class ShardingTrainer(Seq2SeqTrainer):
    """A Trainer that divides its model among the processes where the launcher asks for FSDP or DeepSpeed.

    `self.model` stays whole and plain, in the memory of the machine while training; what is trained is a copy of it
    that is divided. Whoever needs the weights of now (validation, checkpoints) has them gathered into `self.model`
    first, which all processes must do together, and after training there is nothing but `self.model` again. Where
    nothing is divided it is a Trainer like any other, and the methods cost nothing.
    """

    _divided: FullySharded | ZeroDivided | None = None

    def create_accelerator_and_postprocess(self) -> None:
        with unseen_by_accelerate():
            super().create_accelerator_and_postprocess()

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        if is_asked_for():
            check_model(adapter=has_adapter(self.model))
            self._divided = self._divide(self.model.to("cpu"))
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def _divide(self, model: PreTrainedModel) -> FullySharded | ZeroDivided:
        if kind() == "fsdp":
            return FullySharded(model, self.args.device)
        return ZeroDivided(
            model,
            self.args.device,
            max_grad_norm=self.args.max_grad_norm,
            accumulation=self.args.gradient_accumulation_steps,
            bf16=self.args.bf16,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._divided is None:
            return super().create_optimizer(model)
        self.optimizer = self._divided.divided_optimizer(super().create_optimizer(self._divided.module))
        return self.optimizer

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        if self._divided is None:
            return super()._wrap_model(model, training, dataloader)
        return self._divided.prepared(self.accelerator)

    def _clip_grad_norm(self, model: Any) -> Any:
        if isinstance(self._divided, ZeroDivided):
            return self._divided.grad_norm()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if isinstance(self._divided, ZeroDivided):
            return self._divided.grad_norm()
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def gather(self) -> None:
        """Give `self.model` the weights of now; collective."""
        if self._divided is not None:
            self._divided.gather(self.model)

    def spread(self) -> None:
        """Train on with the weights of `self.model`, which every process has whole; the reverse of `gather`."""
        if self._divided is not None:
            self._divided.spread(self.model)

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """`self.model` has the weights of now and lies on the device; collective."""
        if self._divided is None:
            yield
            return
        self.gather()
        self.model.to(self.args.device)
        try:
            yield
        finally:
            self.model.to("cpu")

    def whole_optimizer_state(self) -> dict[str, Any]:
        """The state of the optimizer; collective, and of use on the first process alone."""
        return self.optimizer.state_dict() if self._divided is None else self._divided.whole_state(self.optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._divided is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        # Each process takes its part; none reads the whole into the memory of its device.
        state = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", mmap=True, weights_only=True)
        self._divided.load_whole_state(self.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))

    def join(self) -> None:
        """After training: the weights of now in `self.model`, on the device, and nothing beside it; collective."""
        if self._divided is not None:
            self.gather()
            self._divided.close(self.accelerator)
            self._divided = self.optimizer = self.callback_handler.optimizer = None
            self.model_wrapped = self.model
            self.accelerator.free_memory()
            self.model.to(self.args.device)


@contextmanager
def unseen_by_accelerate() -> Iterator[None]:
    """Accelerate divides nothing of its own in here.

    Its FSDP2 puts the embeddings of an encoder-decoder whose source, target and output weights are one into several
    groups, which PyTorch refuses (accelerate 1.15). It ignores both FSDP and DeepSpeed on a processor. And the
    checkpoints of DeepSpeed, which it would have the Trainer write, are pickles for one number of processes.
    """
    before = {kind.ASKED: os.environ.pop(kind.ASKED) for kind in _NAMES if kind.ASKED in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def settings_findings(settings: Mapping[str, Any]) -> list[str]:
    """The settings of training that do not go with divided weights.

    Args:
        settings: fp16, torch_compile, optim, sam_rho.
    """
    name = " and ".join(_NAMES[asked] for asked in _asked())
    findings = []
    if settings["fp16"]:
        findings.append(f"training.fp16: its loss scaling was not made for divided gradients; under {name} use bf16.")
    if settings["torch_compile"]:
        findings.append(f"training.torch_compile: was not tried under {name}; set it to false.")
    if settings["optim"] not in OPTIMIZERS:
        findings.append(
            f"training.optim: given {settings['optim']}, allowed under {name}: {', '.join(OPTIMIZERS)}, whose update "
            "of a weight needs nothing of the others."
        )
    if settings["sam_rho"] is not None:
        findings.append(
            f"training.sam_rho: under {name} no process has the whole gradient, along which it moves; set it to null."
        )
    return findings


def check_model(*, adapter: bool) -> None:
    """Refuse a model that cannot be divided.

    Raises:
        ConfigError: it has an adapter.
    """
    if adapter:
        name = " and ".join(_NAMES[asked] for asked in _asked())
        raise ConfigError(
            f"model.adapter: under {name} all weights are trained. An adapter has few of them, so that the whole "
            "model fits where its weights do: launch with recipes/launch/multi_gpu.yaml, and set model.quantization "
            "where they do not."
        )
