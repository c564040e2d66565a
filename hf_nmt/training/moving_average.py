"""An exponential moving average of the weights, kept beside them in float32 while they are trained.

Polyak and Juditsky (1992), Acceleration of Stochastic Approximation by Averaging; Morales-Brotons et al. (2024),
Exponential Moving Average of Weights in Deep Learning.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

from hf_nmt.config import Settings
from hf_nmt.errors import NmtError

FILE = "ema.safetensors"  # of a checkpoint
_UPDATES = "updates"


class MovingAverageSettings(Settings):
    decay: float = Field(
        0.999,
        gt=0,
        lt=1,
        description="Share of the average that each update keeps; the rest is the new weights. It remembers about "
        "1 / (1 - decay) updates: 0.999 a thousand, which suits trainings of ten thousand updates and more.",
    )
    warmup: bool = Field(
        True,
        description="While n updates are fewer than that memory keep (1 + n) / (10 + n) instead, so that the first "
        "weights are soon forgotten. false keeps `decay` from the first update on.",
    )
    use_for_validation: bool = Field(
        False,
        description="The validations while training translate with the average, so that the best checkpoint and early "
        "stopping are told by it. It is a candidate for best/ in any case: that of the best checkpoint where this is "
        "true, else that of the last update.",
    )


class MovingAverage:
    """The average a of weights w: the first w, then a <- d a + (1 - d) w after each update.

    This is `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`, which however copies the whole model,
    with its frozen and quantized weights, in the type that they have, and whose d is always the same. Here what is
    trained is averaged, each weight once under however many names, in float32.

    Under data parallelism every process keeps the same average, without a word to the others.

    Args:
        model: its trained parameters are those that ask for a gradient at the first update.
        settings: d.
    """

    def __init__(self, model: nn.Module, settings: MovingAverageSettings):
        self.settings = settings
        self.updates = 0
        self._model = model
        self._average: dict[str, torch.Tensor] = {}

    @functools.cached_property
    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}

    def decay(self) -> float:
        """d of the next update."""
        seen = self.updates
        return min(self.settings.decay, (1 + seen) / (10 + seen)) if self.settings.warmup else self.settings.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of now into the average."""
        now = [weight.detach().float() for weight in self._trained.values()]
        if self.updates:
            torch._foreach_lerp_([*self._average.values()], now, 1 - self.decay())
        else:
            copies = (weight.clone(memory_format=torch.contiguous_format) for weight in now)
            self._average = dict(zip(self._trained, copies, strict=True))
        self.updates += 1

    def weights(self) -> dict[str, torch.Tensor]:
        """The average, by the first name of each weight."""
        return dict(self._average)

    @torch.no_grad()
    def put(self, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Give the model the average, or one that `read` gave, in the types of its own weights."""
        weights = self._average if weights is None else weights
        for name, weight in self._trained.items():
            weight.copy_(weights[name])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model has the average, and its own weights again afterwards, bit by bit."""
        own = {name: weight.detach().clone() for name, weight in self._trained.items()}
        self.put()
        try:
            yield
        finally:
            self.put(own)

    # Checkpoints

    def write(self, folder: Path) -> None:
        """Write the average into a checkpoint, and read it again.

        Raises:
            NmtError: it was read back differently.
        """
        save_file(self._average, folder / FILE, metadata={_UPDATES: str(self.updates)})
        weights, updates = read(folder)
        if updates != self.updates or not all(
            torch.equal(_bits(weight), _bits(weights[name])) for name, weight in self._average.items()
        ):
            raise NmtError(
                f"{folder.parent}: the moving average of the weights was written and read back differently. The "
                "folder was removed. Check the disk, or choose another output_dir."
            )

    def restore(self, folder: Path) -> None:
        """Go on from the average of a checkpoint."""
        weights, self.updates = read(folder)
        device = next(self._model.parameters()).device
        # In the order of the model: a file has its own.
        self._average = {name: weights[name].to(device) for name in self._trained}


def read(folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The average in a checkpoint, and of how many updates it is."""
    with safe_open(folder / FILE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()[_UPDATES])


def _bits(weight: torch.Tensor) -> torch.Tensor:
    return weight.cpu().view(torch.int32)  # -0.0 is not 0.0, and NaN is itself


class AverageEachUpdate(TrainerCallback):
    """Averages after each update that the optimizer made; one that it left out, as with fp16, is none."""

    def __init__(self, average: MovingAverage, accelerator: Accelerator):
        self.average, self.accelerator = average, accelerator

    def on_optimizer_step(self, args, state, control, **kwargs):
        if not self.accelerator.optimizer_step_was_skipped:
            self.average.update()
