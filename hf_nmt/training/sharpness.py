"""Gradients of where the loss is worst nearby: sharpness-aware minimization.

Foret et al. (2021), SAM, equation 2 and algorithm 1; adaptive: Kwon et al. (2021), ASAM, equation 8 with T = |w|.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def moved_uphill(parameters: Sequence[nn.Parameter], rho: float, *, adaptive: bool = False) -> Iterator[None]:
    """Inside, the weights are where the loss grows most at the distance `rho`, to first order; then as before, bit by
    bit.

    Args:
        parameters: with the gradient of the loss here; those without one stay.
        rho: norm of the step; adaptive: of the step divided by the weights, one by one.
    """
    moving = [parameter for parameter in parameters if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in moving]
    gradients = [parameter.grad for parameter in moving]
    with torch.no_grad():
        scaled = torch._foreach_mul(before, gradients) if adaptive else gradients
        # A gradient of zeros has no direction.
        length = float(rho / torch.nn.utils.get_total_norm(scaled).clamp(min=1e-12))
        step = torch._foreach_mul(before, scaled) if adaptive else gradients
        torch._foreach_add_(moving, step, alpha=length)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moving, before)


class RandomState:
    """What dropout draws from, as it is now."""

    def __init__(self, device: torch.device):
        self._device = device
        self._state = torch.get_rng_state()
        self._of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        torch.set_rng_state(self._state)
        if self._of_device is not None:
            torch.cuda.set_rng_state(self._of_device, self._device)
