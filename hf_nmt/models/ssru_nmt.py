"""The simpler simple recurrent unit in place of the decoder's self-attention (Kim et al. 2019, WNGT).

It trains on all positions at a time, and decodes with one vector a layer, however long the translation is.

Shapes: B sequences, T target positions, N real tokens, D model width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.cache_utils import Cache, CacheLayerMixin


class SimplerSimpleRecurrentUnit(nn.Module):
    """f_t = sigmoid(W_f x_t + b_f), c_t = f_t * c_{t-1} + (1 - f_t) * W x_t, output relu(c_t).

    The recurrence is computed in float32, whatever the precision of the matrix products: a rounded forget gate near
    1 would change how long the unit remembers.
    """

    def __init__(self, config, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.forget_gate = nn.Linear(config.d_model, config.d_model)
        self.candidate = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, hidden: torch.Tensor, layout, cache: Cache | None = None) -> torch.Tensor:
        """
        Args:
            hidden: (N, D).
            layout: a `SequenceLayout`; where it has no token, the state stays as it was.
            cache: of self-attention, made ready by `keep_states`; the states in it are read and replaced.

        Returns:
            (N, D).
        """
        candidate, gate = self.candidate(hidden), self.forget_gate(hidden)
        precision = torch.promote_types(candidate.dtype, torch.float32)
        # Padding is filled with zeros: a renewal of 0 keeps the state.
        renewal = layout.pad(torch.sigmoid(-gate.to(precision)))  # (B, T, D), 1 - f_t
        inputs = renewal * layout.pad(candidate.to(precision))
        kept = cache.layers[self.layer_idx] if cache is not None else None
        initial = torch.zeros_like(inputs[:, 0]) if kept is None or kept.state is None else kept.state
        states = linear_recurrence(1 - renewal, inputs, initial)
        if kept is not None:
            kept.replace(states[:, -1], layout.max_length)
        return layout.flatten(nn.functional.relu(states)).to(candidate.dtype)


def linear_recurrence(decay: torch.Tensor, inputs: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """c_t = decay_t * c_{t-1} + inputs_t.

    A loop over the positions: on a processor it is 3 to 10 times as fast as scans that double the distance, which
    pass over all positions log2(T) times, and it neither divides nor takes logarithms.

    Args:
        decay, inputs: (B, T, D).
        initial: c_0, (B, D).

    Returns:
        c_1 to c_T, (B, T, D).
    """
    if torch.is_grad_enabled():
        return _LinearRecurrence.apply(decay, inputs, initial)
    return _recur(decay, inputs, initial)


def _recur(decay: torch.Tensor, inputs: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    if inputs.shape[1] == 1:
        return torch.addcmul(inputs, decay, initial[:, None])
    states = torch.empty_like(inputs)
    state = initial
    for step_inputs, step_decay, step_states in zip(inputs.unbind(1), decay.unbind(1), states.unbind(1), strict=True):
        state = torch.addcmul(step_inputs, step_decay, state, out=step_states)
    return states


class _LinearRecurrence(torch.autograd.Function):
    """`_recur` with its gradient: the recurrence from the last position to the first."""

    @staticmethod
    def forward(ctx, decay, inputs, initial):
        states = _recur(decay, inputs, initial)
        ctx.save_for_backward(decay, states, initial)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        decay, states, initial = ctx.saved_tensors
        totals = gradient.clone(memory_format=torch.contiguous_format)  # of all that follows from c_t, (B, T, D)
        steps, decays = totals.unbind(1), decay.unbind(1)
        for step in range(len(steps) - 2, -1, -1):
            steps[step].addcmul_(decays[step + 1], steps[step + 1])
        previous = torch.cat([initial[:, None], states[:, :-1]], dim=1)
        return totals * previous, totals, decays[0] * steps[0]


class StateLayer(CacheLayerMixin):
    """The place of one decoder layer in a cache: a state (B, D), and how many positions went into it."""

    supports_early_init = False
    is_sliding = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state: torch.Tensor | None = None
        self.num_positions = 0

    def replace(self, state: torch.Tensor, num_new_positions: int) -> None:
        self.state, self.is_initialized = state, True
        self.num_positions += num_new_positions

    def get_seq_length(self) -> int:
        return self.num_positions

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.num_positions + query_length, 0

    def get_max_length(self) -> int:
        return -1  # no maximum, in Transformers' terms

    def reset(self) -> None:
        self.state, self.num_positions, self.is_initialized = None, 0, False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.state is not None:
            self.state = self.state.index_select(0, indices.to(self.state.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            self.state = self.state.repeat_interleave(repeats, dim=0)

    def offload(self) -> None:
        """A state is too small to be worth it."""

    def prefetch(self) -> None:
        pass

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise ValueError(
                "An SSRU keeps no past states, so that tokens cannot be taken back. Decode without an assistant model."
            )

    def lazy_initialization(self, key_states, value_states) -> None:
        raise TypeError("An SSRU has neither keys nor values.")

    def update(self, key_states, value_states, *args, **kwargs):
        raise TypeError("An SSRU has neither keys nor values.")


def keep_states(cache: Cache, num_layers: int) -> None:
    """Let an empty self-attention cache of any kind keep states in place of keys and values.

    Raises:
        ValueError: it holds keys already.
    """
    if cache.layers and all(isinstance(layer, StateLayer) for layer in cache.layers):
        return
    if cache.get_seq_length():
        raise ValueError(
            "The cache given holds keys and values of self-attention, and this decoder has an SSRU in its place. Give "
            "a new cache, or none."
        )
    cache.layers[:] = [StateLayer() for _ in range(num_layers)]
    cache.layer_class_to_replicate = None
