"""Floating-point operations of an update, in closed form, and what a device can do at best.

A product of an (n, k) and a (k, m) matrix is 2 n k m operations; all else (norms, softmax, dropout, embeddings) is
left out, as is usual. The backward pass of a product is two products of its size, so an update is three forward passes
(Kaplan et al. 2020, section 2.1, with the attention that they leave out).

Shapes: B sequences, S source and T target tokens of one sequence, D model width, F inner width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from hf_nmt.models.configuration_nmt import NmtConfig

_ROUNDS = 5


def forward_flops(
    config: NmtConfig, source_lengths: Sequence[int], target_lengths: Sequence[int], *, padded: bool = False
) -> dict[str, int]:
    """Operations of one forward pass by part: attention, feed_forward, ssru, projection.

    Args:
        config: of one of our models, which compute linear maps on real tokens only.
        source_lengths, target_lengths: S and T of each sequence, with their end symbols.
        padded: count scores of attention over padding as well, as they are computed; False counts what is needed.
    """
    sources, targets = sum(source_lengths), sum(target_lengths)

    def pairs(queries: Sequence[int], keys: Sequence[int]) -> int:
        if padded:
            return len(queries) * max(queries) * max(keys)
        return sum(one * other for one, other in zip(queries, keys, strict=True))

    width = config.d_model

    def attention(queries: int, keys: int, scores: int) -> int:
        # Maps of queries and output, of keys and values; scores, and their product with the values.
        return 4 * width**2 * (queries + keys) + 4 * width * scores

    def feed_forward(tokens: int, inner: int) -> int:
        return 2 * tokens * width * inner * (3 if config.activation_function == "swiglu" else 2)

    is_recurrent = config.decoder_layer_type == "ssru"
    own = 0 if is_recurrent else attention(targets, targets, pairs(target_lengths, target_lengths))
    cross = attention(targets, sources, pairs(target_lengths, source_lengths))
    return {
        "attention": config.encoder_layers * attention(sources, sources, pairs(source_lengths, source_lengths))
        + config.decoder_layers * (own + cross),
        "feed_forward": config.encoder_layers * feed_forward(sources, config.encoder_ffn_dim)
        + config.decoder_layers * feed_forward(targets, config.decoder_ffn_dim),
        "ssru": config.decoder_layers * 4 * width**2 * targets if is_recurrent else 0,
        "projection": 2 * targets * width * config.vocab_size,
    }


def product_shapes(width: int, inner: int, vocab_size: int, tokens: int) -> dict[str, tuple[int, int, int]]:
    """(n, k, m) of the products of a model on a batch of so many tokens on each side."""
    return {
        "attention maps": (tokens, width, width),
        "into the feed-forward": (tokens, width, inner),
        "out of the feed-forward": (tokens, inner, width),
        "projection": (min(tokens, 512), width, vocab_size),
    }


def measure_peak(
    shapes: dict[str, tuple[int, int, int]], dtype: torch.dtype, device: torch.device, clock: Callable[[], float]
) -> dict[str, float]:
    """Operations per second of plain matrix products on a device, the best of some rounds for each shape.

    Args:
        shapes: name -> (n, k, m).
        dtype: of the operands.
        device: where.
        clock: seconds; the device has done its work when it is asked.
    """
    rates = {}
    for name, (n, k, m) in shapes.items():
        left, right = torch.randn(n, k, device=device, dtype=dtype), torch.randn(k, m, device=device, dtype=dtype)
        flops, best = 2 * n * k * m, float("inf")
        # Long enough for the clock, whatever the device: ten times as many products until a round takes 5 ms.
        repeats, seconds = 1, 0.0
        while seconds < 5e-3 and repeats <= 100_000:
            seconds = _time(left, right, repeats, clock)
            best = min(best, seconds / repeats)
            repeats *= 10
        for _ in range(_ROUNDS):
            best = min(best, _time(left, right, max(1, repeats // 10), clock) / max(1, repeats // 10))
        rates[name] = flops / max(best, 1e-12)
    return rates


def _time(left: torch.Tensor, right: torch.Tensor, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        left @ right
    return clock() - began
