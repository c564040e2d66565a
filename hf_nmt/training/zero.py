"""Weights, gradients and the state of the optimizer divided among the processes by DeepSpeed's ZeRO.

Stage 1 divides the state of the optimizer, 2 the gradients too, 3 the weights too.

Rajbhandari et al. (2020), ZeRO: Memory Optimizations Toward Training Trillion Parameter Models.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import warnings
from collections.abc import Mapping
from itertools import chain, islice, product
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from transformers import PreTrainedModel

from hf_nmt.errors import ConfigError, need

ASKED = "ACCELERATE_USE_DEEPSPEED"  # accelerate's launcher sets it, from deepspeed_zero2.yaml or --use_deepspeed
STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
# What a launch file may ask of DeepSpeed and would not get; as in fsdp.py.
LIMITS = {
    "zero_stage": (STAGE, ("1", "2", "3"), "write 1, 2 or 3"),
    "deepspeed_config_file": (
        "ACCELERATE_DEEPSPEED_CONFIG_FILE",
        (),
        "the configuration of DeepSpeed is made from our settings: write zero_stage instead",
    ),
    "offload_optimizer_device": ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", ("none",), "write none"),
    "offload_param_device": ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", ("none",), "write none"),
    "zero3_init_flag": ("ACCELERATE_DEEPSPEED_ZERO3_INIT", ("false",), "write false"),
    "gradient_clipping": (
        "ACCELERATE_GRADIENT_CLIPPING",
        (),
        "set training.max_grad_norm, and leave it out",
    ),
    "gradient_accumulation_steps": (
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        ("1", "auto"),
        "set training.gradient_accumulation_steps, and leave it out",
    ),
}
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW: what it keeps for each weight


def stage() -> int:
    """The stage of ZeRO that the launcher asks for."""
    return int(os.environ.get(STAGE, "2"))  # accelerate's own default


class _SteppedByDeepSpeed(AcceleratedOptimizer):
    """Shows the Trainer the optimizer of DeepSpeed, whose steps are made elsewhere."""

    _is_accelerate_prepared = True

    def step(self, closure: Any = None) -> None:
        pass

    def zero_grad(self, set_to_none: Any = None) -> None:
        pass


class ZeroDivided:
    """A copy of a model on `device` that DeepSpeed trains, divided among all processes; every method is collective.

    DeepSpeed makes each update itself, at the end of the backward pass of its last batch.

    Args:
        model: to copy.
        device: of this process.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        accumulation: batches of an update on each process.
        bf16: compute in bfloat16 under autocast; weights, gradients and updates stay in fp32.
    """

    def __init__(
        self, model: PreTrainedModel, device: torch.device, *, max_grad_norm: float, accumulation: int, bf16: bool
    ):
        self._deepspeed, self._device = _imported(device), device
        self.module = copy.deepcopy(model)
        zero: dict[str, Any] = {"stage": stage()}
        if stage() == 3:
            # Smaller weights, such as biases, stay whole; the bound that Transformers sets. DeepSpeed's own linear
            # layers would stay in place of PyTorch's for the whole process.
            threshold = 10 * model.config.hidden_size
            zero |= {"stage3_param_persistence_threshold": threshold, "memory_efficient_linear": False}
        self._configuration = {
            "train_micro_batch_size_per_gpu": 1,  # it wants a number, and uses it in its own reports alone
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": max_grad_norm,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            # Gradients are summed in fp32, as under data parallelism.
            "torch_autocast": {"enabled": bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        }
        self._engine: Any = None
        self._groups: list[list[nn.Parameter]] = []

    def divided_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer to train with, of one over the parameters of `module`; its steps are made by DeepSpeed."""
        self._groups = [[*group["params"]] for group in optimizer.param_groups]
        self._engine, zero, *_ = self._deepspeed.initialize(
            model=self.module, optimizer=optimizer, config=self._configuration, dist_init_required=False
        )
        self._make_moments(zero)
        # The Trainer wants to leave out summing gradients between the batches of an update; DeepSpeed knows by itself.
        self._engine.no_sync = contextlib.nullcontext
        return _SteppedByDeepSpeed(zero, device_placement=False)

    @staticmethod
    def _make_moments(zero: Any) -> None:
        """Give AdamW the state that it would make in its first step.

        DeepSpeed 0.19 knows after that step which part of the state belongs to which weight in the first group of
        weights alone, and we have two: with weight decay and without.
        """
        base, divides_weights = zero.optimizer, stage() == 3
        parts = zero.fp32_partitioned_groups_flat if divides_weights else zero.single_partition_of_fp32_groups
        for part in parts:
            step = torch.zeros((), device=part.device if base.defaults.get("fused") else "cpu")
            base.state[part] = {"step": step} | {name: torch.zeros_like(part) for name in _MOMENTS}
        if not divides_weights:
            zero._lazy_init_hp_params_optimizer_state()

    def prepared(self, accelerator: Accelerator) -> nn.Module:
        """What is called to train. `accelerator.backward` updates from now on."""

        def backward(loss: torch.Tensor, **_: Any) -> None:
            last = accelerator.sync_gradients
            self._engine.set_gradient_accumulation_boundary(last)
            self._engine.backward(loss, scale_wrt_gas=False)
            if last:
                self._engine.step()

        accelerator.backward = backward
        return self._engine

    def grad_norm(self) -> float:
        """The gradient norm of the last update, before it was scaled down; nan where DeepSpeed left the update out, as
        it does where a gradient is no finite number, and told the norm of the one before."""
        return float(self._engine.get_global_grad_norm()) if self._engine.was_step_applied() else math.nan

    @torch.no_grad()
    def gather(self, model: nn.Module) -> None:
        """Give `model`, from which this was divided, the weights of now."""
        for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
            whole = dict(tensors(model))
            for name, tensor in tensors(self.module):
                with self._deepspeed.zero.GatheredParameters([tensor] if hasattr(tensor, "ds_id") else []):
                    whole[name].copy_(tensor)

    def spread(self, model: nn.Module) -> None:
        raise AssertionError("watch.findings refuses what would come here")

    @torch.no_grad()
    def whole_state(self, optimizer: Any) -> dict[str, Any]:
        """The state of the optimizer as it would be if nothing were divided; whole on the first process alone."""
        base = self._engine.optimizer.optimizer
        step = next(iter(base.state.values()))["step"].cpu()
        state = {}
        for index, parameter in enumerate(chain(*self._groups)):
            moments = {name: self._deepspeed.utils.safe_get_full_optimizer_state(parameter, name) for name in _MOMENTS}
            if torch.distributed.get_rank() == 0:
                state[index] = {"step": step.clone()} | {name: tensor.cpu() for name, tensor in moments.items()}
        indices = iter(range(sum(map(len, self._groups))))
        groups = [
            {**group, "params": [*islice(indices, len(parameters))]}
            for group, parameters in zip(base.param_groups, self._groups, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    @torch.no_grad()
    def load_whole_state(self, optimizer: Any, state: Mapping[str, Any]) -> None:
        """Take this process's part of what `whole_state` gave, however that was trained."""
        base = self._engine.optimizer.optimizer
        for group, saved in zip(base.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for index, parameter in enumerate(chain(*self._groups)):
            if (values := state["state"].get(index)) is not None:
                for name in _MOMENTS:
                    whole = values[name].to(self._device)
                    self._deepspeed.utils.safe_set_full_optimizer_state(parameter, whole, name)
        for values, mine in product(islice(state["state"].values(), 1), base.state.values()):
            mine["step"].copy_(values["step"])

    def close(self, accelerator: Accelerator) -> None:
        """Training is over."""
        del accelerator.backward
        self._engine.destroy()
        self._engine = None


def stay_on_processor() -> None:
    """Before DeepSpeed is imported, which else takes a GPU where there is one, and says so where there is none."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _imported(device: torch.device) -> Any:
    """DeepSpeed, for the device of this process."""
    deepspeed = need("deepspeed", "deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="`torch.distributed.* is deprecated")  # which it calls in each update
    name = deepspeed.get_accelerator().device_name()
    if name != device.type:
        raise ConfigError(
            f"training.use_cpu: training runs on {device.type}, DeepSpeed on {name}. Take DS_ACCELERATOR out of the "
            "environment."
        )
    if name == "cpu":
        # An extension of DeepSpeed that sums gradients on one machine. It would be compiled here and now, and every
        # later run waits for ever for the lock of a compilation that was broken off. gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
