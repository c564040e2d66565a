"""Weights, gradients and the state of the optimizer divided among the processes by FSDP2 of PyTorch.

Zhao et al. (2023), PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

ASKED = "ACCELERATE_USE_FSDP"  # accelerate's launcher sets it, from fsdp.yaml or --use_fsdp
# What a launch file may ask of FSDP and would not get. Key of the file -> variable, what is allowed, what to do.
LIMITS = {
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


class FullySharded:
    """A copy of a model on `device` whose parameters are divided among all processes; every method is collective.

    Each layer is gathered when it computes; what belongs to no layer, as the embeddings, throughout an update, so that
    tied weights stay one. Calling `module` computes what the model would; its parameters are `DTensor`, named as
    before.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device):
        # It warns of changing outputs in place, which nothing here does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        self.module = copy.deepcopy(model)
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() == "true"
        layers = {*(model._no_split_modules or ())}
        for module in [module for module in self.module.modules() if type(module).__name__ in layers]:
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(self.module, mesh=mesh)

    def divided_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer to train with, of one over the parameters of `module`."""
        return optimizer

    def prepared(self, accelerator: Accelerator) -> nn.Module:
        """What is called to train."""
        # As the Trainer prepares models that came divided: mixed precision and nothing else.
        return accelerator.prepare_model(self.module, device_placement=False, evaluation_mode=True)

    @torch.no_grad()
    def gather(self, model: nn.Module) -> None:
        """Give `model`, from which this was divided, the weights of now."""
        for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
            whole = dict(tensors(model))
            for name, tensor in tensors(self.module):
                whole[name].copy_(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)

    @torch.no_grad()
    def spread(self, model: nn.Module) -> None:
        """Take the weights of `model`, the reverse of `gather`."""
        for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
            whole = dict(tensors(model))
            for name, tensor in tensors(self.module):
                tensor.copy_(_part(whole[name].to(tensor.device), tensor))

    def whole_state(self, optimizer: Any) -> dict[str, Any]:
        """The state of the optimizer as it would be if nothing were divided; whole on the first process alone."""
        state = optimizer.state_dict()
        return state | {
            "state": {
                index: {name: _gathered(value) for name, value in values.items()}
                for index, values in state["state"].items()
            }
        }

    def load_whole_state(self, optimizer: Any, state: Mapping[str, Any]) -> None:
        """Take this process's part of what `whole_state` gave, however that was trained."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        indices = [index for group in state["param_groups"] for index in group["params"]]
        parts = {}
        for index, parameter in zip(indices, parameters, strict=True):
            if index in state["state"]:
                parts[index] = {name: _part(value, parameter) for name, value in state["state"][index].items()}
        optimizer.load_state_dict({**state, "state": parts})

    def close(self, accelerator: Accelerator) -> None:
        """Training is over."""


def _gathered(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if torch.distributed.get_rank() == 0 else None


def _part(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(value, torch.Tensor) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
