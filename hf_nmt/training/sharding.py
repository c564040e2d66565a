"""Weights, gradients and the state of the optimizer divided among the processes: FSDP2 of PyTorch.

A checkpoint holds whole weights and the whole state of the optimizer: the same files as under data parallelism.

Zhao et al. (2023), PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel, Seq2SeqTrainer

from hf_nmt.errors import ConfigError
from hf_nmt.generation.adapters import has_adapter

_ASKED = "ACCELERATE_USE_FSDP"  # accelerate's launcher sets it, from fsdp.yaml or --use_fsdp
# What a launch file may ask of FSDP and would not get. Key of the file -> variable, what is allowed, what to do.
_LIMITS = {
    "fsdp_version": ("FSDP_VERSION", ("2",), "write 2"),
    "fsdp_offload_params": ("FSDP_OFFLOAD_PARAMS", ("false",), "write false"),
    "fsdp_cpu_ram_efficient_loading": ("FSDP_CPU_RAM_EFFICIENT_LOADING", ("false",), "write false"),
    "fsdp_activation_checkpointing": (
        "FSDP_ACTIVATION_CHECKPOINTING",
        ("false",),
        "write false, and training.activation_checkpointing=true",
    ),
    "fsdp_auto_wrap_policy": ("FSDP_AUTO_WRAP_POLICY", ("TRANSFORMER_BASED_WRAP",), "write TRANSFORMER_BASED_WRAP"),
    "fsdp_transformer_layer_cls_to_wrap": (
        "FSDP_TRANSFORMER_CLS_TO_WRAP",
        (),
        "leave it out, for each model names its layers,",
    ),
}
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # files of a checkpoint, named by the Trainer
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


def is_asked_for() -> bool:
    """Whether the launcher asks for FSDP."""
    return os.environ.get(_ASKED, "").lower() in ("true", "1")


def launcher_findings() -> list[str]:
    """What the launcher asks of FSDP and cannot have."""
    findings = []
    for key, (variable, allowed, remedy) in _LIMITS.items():
        given = os.environ.get(variable)
        if given is not None and given not in allowed:
            findings.append(f"training: the launcher asks for FSDP with {key}={given}; {remedy} in the launch file.")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        findings.append("training: the launcher asks for FSDP, which needs several processes; launch two or more.")
    return findings


class ShardingTrainer(Seq2SeqTrainer):
    """A Trainer that divides its model among the processes where the launcher asks for FSDP.

    `self.model` stays whole and plain, in the memory of the machine while training; what is trained is a copy of it
    that is divided. Whoever needs the weights of now (validation, checkpoints) has them gathered into `self.model`
    first, which all processes must do together, and after training there is nothing but `self.model` again. Without
    FSDP it is a Trainer like any other, and the methods cost nothing.
    """

    _divided: PreTrainedModel | None = None

    def create_accelerator_and_postprocess(self) -> None:
        with _unseen_by_accelerate():
            super().create_accelerator_and_postprocess()

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        if is_asked_for():
            check_model(adapter=has_adapter(self.model))
            self._divided = divided(self.model.to("cpu"), self.args.device)
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        return super().create_optimizer(self._divided if model is None else model)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        if self._divided is None:
            return super()._wrap_model(model, training, dataloader)
        # As the Trainer prepares models that came divided: mixed precision and nothing else.
        return self.accelerator.prepare_model(self._divided, device_placement=False, evaluation_mode=True)

    def gather(self) -> None:
        """Give `self.model` the weights of now; collective."""
        if self._divided is not None:
            gather(self._divided, self.model)

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
        return whole_state(self.optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._divided is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        # Each process takes its part; none reads the whole into the memory of its device.
        state = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", mmap=True, weights_only=True)
        load_whole_state(self.optimizer, state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))

    def join(self) -> None:
        """After training: the weights of now in `self.model`, on the device, and nothing beside it; collective."""
        if self._divided is not None:
            self.gather()
            self._divided = self.optimizer = self.callback_handler.optimizer = None
            self.model_wrapped = self.model
            self.accelerator.free_memory()
            self.model.to(self.args.device)


@contextmanager
def _unseen_by_accelerate() -> Iterator[None]:
    """Accelerate makes no FSDP of its own in here.

    Its FSDP2 puts the embeddings of an encoder-decoder whose source, target and output weights are one into several
    groups, which PyTorch refuses (accelerate 1.15), and ignores FSDP on a processor.
    """
    before = os.environ.pop(_ASKED, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[_ASKED] = before


def divided(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """A copy of a model on `device` whose parameters are divided among all processes; collective.

    Each layer is gathered when it computes; what belongs to no layer, as the embeddings, throughout an update, so that
    tied weights stay one. Calling it computes what the model would; its parameters are `DTensor`, named as before.
    """
    # It warns of changing outputs in place, which nothing here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    twin = copy.deepcopy(model)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() == "true"
    layers = {*(model._no_split_modules or ())}
    for module in [module for module in twin.modules() if type(module).__name__ in layers]:
        fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(twin, mesh=mesh)
    return twin


@torch.no_grad()
def gather(twin: nn.Module, model: nn.Module) -> None:
    """Give `model` the weights of `twin`, which was divided from it; collective."""
    for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
        whole = dict(tensors(model))
        for name, tensor in tensors(twin):
            whole[name].copy_(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def whole_state(optimizer: Any) -> dict[str, Any]:
    """The state of an optimizer as it would be if nothing were divided; collective, and whole on the first process
    alone."""
    state = optimizer.state_dict()
    return state | {
        "state": {
            index: {name: _gathered(value) for name, value in values.items()}
            for index, values in state["state"].items()
        }
    }


def _gathered(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if torch.distributed.get_rank() == 0 else None


def load_whole_state(optimizer: Any, state: Mapping[str, Any]) -> None:
    """Take this process's part of what `whole_state` gave, here or under data parallelism."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    parts = {}
    for index, parameter in zip(indices, parameters, strict=True):
        if index in state["state"]:
            parts[index] = {name: _part(value, parameter) for name, value in state["state"][index].items()}
    optimizer.load_state_dict({**state, "state": parts})


def _part(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(value, torch.Tensor) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def settings_findings(settings: Mapping[str, Any]) -> list[str]:
    """The settings of training that do not go with FSDP here.

    Args:
        settings: fp16, torch_compile, optim.
    """
    findings = []
    if settings["fp16"]:
        findings.append("training.fp16: its loss scaling was not made for divided gradients; under FSDP use bf16.")
    if settings["torch_compile"]:
        findings.append("training.torch_compile: was not tried under FSDP; set it to false.")
    if settings["optim"] not in OPTIMIZERS:
        findings.append(
            f"training.optim: given {settings['optim']}, allowed under FSDP: {', '.join(OPTIMIZERS)}, whose update of "
            "a weight needs nothing of the others."
        )
    return findings


def check_model(*, adapter: bool) -> None:
    """Refuse a model that cannot be divided.

    Raises:
        ConfigError: it has an adapter.
    """
    if adapter:
        raise ConfigError(
            "model.adapter: under FSDP all weights are trained. An adapter has few of them, so that the whole model "
            "fits where its weights do: launch with recipes/launch/multi_gpu.yaml, and set model.quantization where "
            "they do not."
        )
