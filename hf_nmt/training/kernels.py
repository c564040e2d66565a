"""What computes fastest on this processor, measured before training: the precision of matrix products, attention of
short sequences.

Shapes: B sequences, H heads, T query positions, S key positions, N rows, D model width, F inner width.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hf_nmt.artifacts import write_json
from hf_nmt.config import fingerprint
from hf_nmt.environment import processor
from hf_nmt.models.layers_nmt import eager_attention

_SHORT = re.compile(r"matmul_up_to_(\d+)")
_LENGTHS = (16, 32, 64, 128, 256)
_TOKENS = 1024  # of a measured batch
# Rows of a measured product: with few, kernels differ less than in training; with many, wide models take seconds.
_LEAST_ROWS, _MOST_ROWS, _MOST_PRODUCTS = 256, 2048, 2**29
_ROUNDS = 4
# What is not faster by a twentieth is noise.
_LEAST_GAIN = 1.05
# Exact kernels differ in the order of their sums; TF32 and bfloat16 have a thousand times the error.
_ERROR_RATIO = 8

logger = logging.getLogger(__name__)


class Choice(NamedTuple):
    """Attributes:
    matmul_precision: for `torch.set_float32_matmul_precision`.
    attention: for `set_attn_implementation`, see `known_attention`.
    figures: what was measured.
    """

    matmul_precision: str
    attention: str
    figures: dict[str, Any]


def measure(config: PretrainedConfig, dtype: torch.dtype, *, folder: Path | None = None) -> Choice:
    """The fastest way to compute a model on this processor that is exact in float32, in less than a second.

    Args:
        config: of the model: heads and widths.
        dtype: that attention computes in.
        folder: where what was measured is kept, so that runs on one machine with the same versions compute alike.
    """
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "d_kv", config.hidden_size // num_heads)
    inner = getattr(config, "encoder_ffn_dim", None) or getattr(config, "d_ff", 4 * config.hidden_size)
    shape = {"heads": num_heads, "head_dim": head_dim, "width": config.hidden_size, "inner": inner}
    key = fingerprint(processor(), torch.__version__, torch.get_num_threads(), str(dtype), shape)
    kept = folder / f"kernels-{key}.json" if folder is not None else None
    if kept is not None and kept.is_file():
        return Choice(**json.loads(kept.read_text(encoding="utf-8")))
    precision, products = measure_matmul_precision(config.hidden_size, inner)
    with matmul_precision(precision):
        longest, gains = measure_attention(num_heads, head_dim, dtype)
    attention = f"matmul_up_to_{longest}" if longest else "sdpa"
    choice = Choice(precision, attention, {"matmul_precision": products, "attention_gain_by_length": gains})
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, choice._asdict())
    return choice


# Attention


def known_attention(name: str) -> str:
    """The same name of an attention implementation, made known to Transformers where it is one of ours.

    `matmul_up_to_64` is two matrix products where neither queries nor keys have more than 64 positions, and sdpa
    otherwise.
    """
    if found := _SHORT.fullmatch(name):
        AttentionInterface.register(name, _attend_up_to(int(found[1])))
        AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _attend_up_to(longest: int) -> Callable[..., tuple[torch.Tensor, None]]:
    def attend(module, query, key, value, attention_mask, **options):
        if max(query.shape[2], key.shape[2]) > longest:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return matmul_attention(module, query, key, value, attention_mask, **options), None

    return attend


def matmul_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Softmax attention (Vaswani et al. 2017, equation 1) as two matrix products, under the masks that Transformers
    makes for sdpa.

    Args:
        query: (B, H, T, D/H).
        key, value: (B, H, S, D/H).
        attention_mask: true where a query sees a key, or added to the scores, (B or 1, H or 1, T, S). None: a query
            sees all keys, or those up to its own position where the attention is causal.
        position_bias: added to the scores, (B or 1, H, T, S).

    Returns:
        (B, T, H, D/H).
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and is_causal and num_queries > 1:
        attention_mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril()
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            nothing = torch.zeros(attention_mask.shape, dtype=query.dtype, device=query.device)
            attention_mask = nothing.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)
    if position_bias is not None:
        attention_mask = position_bias if attention_mask is None else attention_mask + position_bias
    return eager_attention(module, query, key, value, attention_mask, scaling, dropout=dropout)[0].contiguous()


def measure_attention(num_heads: int, head_dim: int, dtype: torch.dtype) -> tuple[int, dict[str, float]]:
    """The longest sequences up to which two matrix products are not slower than sdpa, forward and backward.

    Returns:
        The length, 0 where they are slower from the first; and for each length measured how many times as fast they
        were.
    """
    module = nn.Module()
    gains: dict[str, float] = {}
    longest = 0
    for length in _LENGTHS:
        shape = max(_TOKENS // length, 1), num_heads, length, head_dim
        states = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]
        mask = torch.ones(shape[0], 1, length, length, dtype=torch.bool)
        mask[0, :, :, -1] = False  # as in a batch with padding

        def run(attend: Callable[..., Any], states=states, mask=mask) -> None:
            output = attend(module, *states, mask)
            output = output[0] if isinstance(output, tuple) else output
            output.backward(torch.ones_like(output))

        fused, plain = _times(lambda run=run: run(sdpa_attention_forward), lambda run=run: run(matmul_attention))
        gains[str(length)] = round(fused / plain, 2)
        if gains[str(length)] < 1:
            break
        longest = length
    return longest, gains


# Matrix products


def measure_matmul_precision(width: int, inner: int) -> tuple[str, dict[str, dict[str, float]]]:
    """The fastest of torch's precisions whose float32 products are as exact as those of the highest.

    "medium" allows kernels that round to bfloat16; where the processor has others that are faster and still exact, it
    takes those (oneDNN's on AMD processors). Where it rounds, it is not chosen.

    Args:
        width, inner: D and F of the measured product, (N, D) x (D, F), and of the two of its backward pass.

    Returns:
        The precision, and for each the largest error relative to the largest entry, and how many times as fast as the
        highest it was.
    """
    generator = torch.Generator().manual_seed(0)
    rows = min(max(_MOST_PRODUCTS // (width * inner), _LEAST_ROWS), _MOST_ROWS)
    left = torch.randn(rows, width, generator=generator)
    right = torch.randn(width, inner, generator=generator)
    exact = left.double() @ right.double()

    def multiply(name: str) -> torch.Tensor:
        with matmul_precision(name):
            product = left @ right
            product @ right.t()
            left.t() @ product
            return product

    found: dict[str, dict[str, float]] = {}
    best = "highest"
    for name in ("highest", "high", "medium"):
        error = float((multiply(name).double() - exact).abs().max() / exact.abs().max())
        usual, taken = _times(lambda: multiply("highest"), lambda name=name: multiply(name))
        found[name] = {"error": error, "gain": round(usual / taken, 2)}
        is_exact = error <= _ERROR_RATIO * found["highest"]["error"]
        if name != "highest" and is_exact and usual / taken > _LEAST_GAIN * max(found[best]["gain"], 1):
            best = name
    return best, found


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _times(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """The least CPU seconds of each of two, called in turn after a first call that does not count."""
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(_ROUNDS):
        for call, times in zip((first, second), taken, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return min(taken[0][1:]), min(taken[1][1:])
