"""Layers of the transformer. They work on flat tokens: rows of real tokens only, no padding.

Shapes: B sequences, L positions of the longest, N real tokens of all, D model width, H heads, S source positions,
T target positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .ssru_nmt import SimplerSimpleRecurrentUnit

# Keys up to which the softmax on CPU is faster with the batch in the last place.
_SHORT_ROW = 24


@dataclass
class SequenceLayout:
    """Where the flat tokens lie in a padded batch.

    Attributes:
        batch_size: B.
        max_length: L.
        positions: place of each flat token in its own sequence, from 0, (N,).
        flat_index: place of each flat token in the padded batch seen as B * L rows, (N,); None where nothing is
            padded.
    """

    batch_size: int
    max_length: int
    positions: torch.Tensor
    flat_index: torch.Tensor | None

    @classmethod
    def from_mask(cls, mask: torch.Tensor | None, batch_size: int, max_length: int, past: int = 0, device=None):
        """Layout of the last `max_length` positions of a batch.

        Args:
            mask: (B, past + L), true where there is a token; None where all are.
            past: positions before these, already in the cache.
        """
        if mask is None or bool(mask.all()):
            positions = torch.arange(past, past + max_length, device=device).repeat(batch_size)
            return cls(batch_size, max_length, positions, None)
        mask = mask.to(torch.bool)
        flat_index = mask[:, -max_length:].reshape(-1).nonzero().squeeze(1)
        positions = (mask.cumsum(1) - 1)[:, -max_length:].reshape(-1)[flat_index]
        return cls(batch_size, max_length, positions, flat_index)

    def pad(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, ...) -> (B, L, ...), zeros where there is no token."""
        shape = (self.batch_size, self.max_length, *tokens.shape[1:])
        if self.flat_index is None:
            return tokens.view(shape)
        rows = tokens.new_zeros(self.batch_size * self.max_length, *tokens.shape[1:])
        return rows.index_copy(0, self.flat_index, tokens).view(shape)

    def flatten(self, padded: torch.Tensor) -> torch.Tensor:
        """(B, L, ...) -> (N, ...)."""
        rows = padded.reshape(self.batch_size * self.max_length, *padded.shape[2:])
        return rows if self.flat_index is None else rows.index_select(0, self.flat_index)


class _Dropout(torch.autograd.Function):
    """residual + scale * mask * states, in one pass; without a residual, scale * mask * states."""

    @staticmethod
    def forward(ctx, states, residual, mask, scale):
        ctx.save_for_backward(mask)
        ctx.scale, ctx.has_residual = scale, residual is not None
        if residual is None:
            return (states * mask).mul_(scale)
        return torch.addcmul(residual, states, mask, value=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), gradient if ctx.has_residual else None, None, None


def _draw_mask(states: torch.Tensor, probability: float) -> tuple[torch.Tensor, float]:
    """Ones, and zeros with `probability`; what the ones are to be scaled by.

    Four elements are taken from each draw of 64 bits. An element is kept where its 15 bits are below the threshold:
    the difference is then negative, its sign fills the whole number, and what is left of that in the pattern of
    bfloat16's 1.0 is 1.0 or 0.0. Comparing, and converting the answers, takes three times as long.
    """
    threshold = min(max(1, round((1 - probability) * 2**15)), 2**15 - 1)
    draws = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: states.numel()]
    bits.bitwise_and_(2**15 - 1).sub_(threshold).__irshift__(15).bitwise_and_(0x3F80)
    return bits.view(torch.bfloat16).view(states.shape).to(states.dtype), 2**15 / threshold


def dropout(
    states: torch.Tensor, probability: float, training: bool, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """Inverted dropout (Srivastava et al. 2014) of the states, added to the residual where one is given.

    On CPU, torch draws one random number for each element. There, four masks are taken from each draw of 64 bits
    instead, so that `probability` is rounded to a multiple of 1/32768, but not to 0 or 1.
    """
    if not training or probability == 0:
        return states if residual is None else residual + states
    if states.device.type != "cpu":
        states = nn.functional.dropout(states, probability)
        return states if residual is None else residual + states
    if residual is not None and residual.dtype != states.dtype:
        return residual + dropout(states, probability, training)
    return _Dropout.apply(states, residual, *_draw_mask(states, probability))


def sinusoidal_table(num_positions: int, dim: int) -> torch.Tensor:
    """Sines in the first half, cosines in the second, (num_positions, dim): Vaswani et al. 2017, section 3.5, but for
    the order of the columns."""
    frequencies = torch.pow(10000.0, -torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequencies  # (positions, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def rotate(states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, equation 34), the pairs being (i, i + dim / 2).

    Args:
        states: queries or keys, (N, H, D/H).
        table: rows of `sinusoidal_table` at the positions of the tokens, (N, D/H).
    """
    sine, cosine = table[:, None].to(states.dtype).chunk(2, dim=-1)  # (N, 1, D/2H)
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Positions(nn.Module):
    """Adds a vector for each position, learned or sinusoidal; where positions are rotary, it keeps their table."""

    def __init__(self, config, num_heads: int):
        super().__init__()
        self.kind, self.num_positions = config.position_embedding, config.max_position_embeddings
        self.table_dim = config.d_model // num_heads if self.kind == "rotary" else config.d_model
        if self.kind == "learned":
            self.weight = nn.Parameter(torch.empty(self.num_positions, config.d_model))
        else:
            self.register_buffer("table", self.make_table(), persistent=False)

    def make_table(self) -> torch.Tensor:
        return sinusoidal_table(self.num_positions, self.table_dim)

    def forward(self, embeddings: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self.kind == "rotary":
            return embeddings
        table = self.weight if self.kind == "learned" else self.table
        return embeddings + table[positions].to(embeddings.dtype)

    def rotary_table(self, positions: torch.Tensor) -> torch.Tensor | None:
        return self.table[positions] if self.kind == "rotary" else None


def eager_attention(module, query, key, value, attention_mask, scaling, **options):
    """Softmax attention as two matrix products. It works on every device and with every mask.

    Args:
        query: (B, H, T, D/H).
        key, value: (B, H, S, D/H).
        attention_mask: added to the scores, (B or 1, 1 or H, T, S), or None.
        options: `dropout` of the probabilities; the others do nothing here.

    Returns:
        output (B, T, H, D/H) and probabilities (B, H, T, S).
    """
    key = key.contiguous()  # else its transpose is copied row by row
    scores = torch.matmul(query.contiguous() * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = softmax(scores)
    dropped = dropout(probabilities, options.get("dropout", 0.0), module.training)
    return torch.matmul(dropped, value).transpose(1, 2), probabilities


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the keys of attention scores, (B, H, T, S).

    On CPU, torch takes one short row after the other, which is slow. There the batch comes last for it, so that many
    rows are computed side by side, copies and all in a fraction of the time.
    """
    if scores.device.type != "cpu" or scores.shape[-1] > _SHORT_ROW:
        return nn.functional.softmax(scores, dim=-1)
    return nn.functional.softmax(scores.permute(2, 3, 0, 1).contiguous(), dim=1).permute(2, 3, 0, 1).contiguous()


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2): linear maps on flat tokens, padding only between
    queries and keys."""

    def __init__(self, config, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__()
        self.config, self.layer_idx, self.is_causal = config, layer_idx, is_causal
        self.num_heads, self.head_dim = num_heads, config.d_model // num_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(-1, self.num_heads, self.head_dim)  # (N, H, D/H)

    def forward(self, hidden, layout, mask, cache=None, rotary=None, memory=None, memory_layout=None):
        """
        Args:
            hidden: (N, D).
            layout: of the queries.
            mask: as the attention implementation of the config wants it.
            cache: an `EncoderDecoderCache`, or None.
            rotary: table rows of the queries, (N, D/H); None where positions are not rotary.
            memory: encoder states for cross-attention, flat; None for self-attention.
            memory_layout: of the encoder states.

        Returns:
            output (N, D) and probabilities (B, H, T, S), None where the implementation does not give them.
        """
        query = self.split(self.q_proj(hidden))
        if rotary is not None:
            query = rotate(query, rotary)
        query = layout.pad(query).transpose(1, 2)  # (B, H, T, D/H)
        key, value = self.keys_and_values(hidden, layout, cache, rotary, memory, memory_layout)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, probabilities = attend(
            self,
            query,
            key,
            value,
            mask,
            scaling=self.scaling,
            dropout=self.config.attention_dropout if self.training else 0.0,
        )
        output = layout.flatten(output.reshape(layout.batch_size, layout.max_length, -1))  # (N, D)
        return self.out_proj(output), probabilities

    def keys_and_values(self, hidden, layout, cache, rotary, memory, memory_layout):
        is_cross = memory_layout is not None
        if is_cross and cache is not None and cache.is_updated.get(self.layer_idx):
            stored = cache.cross_attention_cache.layers[self.layer_idx]
            return stored.keys, stored.values
        states, states_layout = (memory, memory_layout) if is_cross else (hidden, layout)
        key, value = self.split(self.k_proj(states)), self.split(self.v_proj(states))
        if rotary is not None:
            key = rotate(key, rotary)
        key = states_layout.pad(key).transpose(1, 2)  # (B, H, S, D/H)
        value = states_layout.pad(value).transpose(1, 2)
        if cache is None:
            return key, value
        if is_cross:
            cache.is_updated[self.layer_idx] = True
            return cache.cross_attention_cache.update(key, value, self.layer_idx)
        return cache.self_attention_cache.update(key, value, self.layer_idx)


class FeedForward(nn.Module):
    """Position-wise feed-forward block; with "swiglu", `fc2(silu(gate(x)) * fc1(x))` (Shazeer 2020, equation 6)."""

    def __init__(self, config, ffn_dim: int, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.activation, self.dropout = config.activation_function, config.activation_dropout
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.gate = nn.Linear(config.d_model, ffn_dim) if self.activation == "swiglu" else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.gate is not None:
            inner = nn.functional.silu(self.gate(hidden)) * self.fc1(hidden)
        else:
            inner = {"relu": nn.functional.relu, "gelu": nn.functional.gelu}[self.activation](self.fc1(hidden))
        return self.fc2(dropout(inner, self.dropout, self.training))


class TransformerLayer(GradientCheckpointingLayer):
    """What encoder and decoder layers share: residual blocks with their layer norm before or after.

    "pre" is x + f(norm(x)), "post" is norm(x + f(x)) (Xiong et al. 2020).
    """

    def __init__(self, config, layer_idx: int):
        super().__init__()
        self.pre_norm, self.dropout, self.layer_idx = config.norm_position == "pre", config.dropout, layer_idx

    def enter(self, hidden: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
        return norm(hidden) if self.pre_norm else hidden

    def leave(self, hidden: torch.Tensor, output: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
        hidden = dropout(output, self.dropout, self.training, residual=hidden)
        return hidden if self.pre_norm else norm(hidden)


class EncoderLayer(TransformerLayer):
    def __init__(self, config, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = Attention(config, config.encoder_attention_heads, layer_idx)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config, config.encoder_ffn_dim, layer_idx)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden, layout, mask, rotary=None):
        """(N, D) -> (N, D) and the attention probabilities."""
        output, probabilities = self.self_attn(
            self.enter(hidden, self.self_attn_layer_norm), layout, mask, rotary=rotary
        )
        hidden = self.leave(hidden, output, self.self_attn_layer_norm)
        output = self.feed_forward(self.enter(hidden, self.final_layer_norm))
        return self.leave(hidden, output, self.final_layer_norm), probabilities


class DecoderLayer(TransformerLayer):
    def __init__(self, config, layer_idx: int):
        super().__init__(config, layer_idx)
        self.ssru = self.self_attn = None
        if config.decoder_layer_type == "ssru":
            self.ssru = SimplerSimpleRecurrentUnit(config, layer_idx)
        else:
            self.self_attn = Attention(config, config.decoder_attention_heads, layer_idx, is_causal=True)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config, config.decoder_attention_heads, layer_idx)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config, config.decoder_ffn_dim, layer_idx)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden, memory, layout, mask, memory_layout, memory_mask, cache=None, rotary=None):
        """(N, D) -> (N, D), self-attention and cross-attention probabilities; an SSRU has none of the former."""
        entered, self_probabilities = self.enter(hidden, self.self_attn_layer_norm), None
        if self.ssru is not None:
            output = self.ssru(entered, layout, cache.self_attention_cache if cache is not None else None)
        else:
            output, self_probabilities = self.self_attn(entered, layout, mask, cache, rotary)
        hidden = self.leave(hidden, output, self.self_attn_layer_norm)
        output, cross_probabilities = self.encoder_attn(
            self.enter(hidden, self.encoder_attn_layer_norm),
            layout,
            memory_mask,
            cache,
            memory=memory,
            memory_layout=memory_layout,
        )
        hidden = self.leave(hidden, output, self.encoder_attn_layer_norm)
        output = self.feed_forward(self.enter(hidden, self.final_layer_norm))
        return self.leave(hidden, output, self.final_layer_norm), self_probabilities, cross_probabilities
