"""Sampling whose random numbers belong to each sentence: batches, their order and their size change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hf_nmt.generation.decoding import DecodingSettings


class KeyedDraw(LogitsProcessor):
    """Draws the next token of each row by one number of its own: the first whose cumulative probability is above it.

    All other tokens get no probability, so that `generate` can choose nothing else.

    Args:
        numbers: in [0, 1), of each row and step. Shape (rows, steps).
        prompt_length: decoder ids before the first step.
    """

    def __init__(self, numbers: torch.Tensor, prompt_length: int):
        self.numbers = numbers
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # (rows, V)
        # Sums over a vocabulary are too coarse in single precision, which is all that Apple's devices have.
        precise = scores.float() if scores.device.type == "mps" else scores.double()
        sums = precise.softmax(dim=-1).cumsum(dim=-1)
        step = input_ids.shape[1] - self.prompt_length
        numbers = self.numbers[:, step : step + 1].to(sums)
        # A sum is only above where its own token adds to it: what was filtered out before is never drawn.
        drawn = torch.searchsorted(sums, numbers * sums[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn.clamp_(max=scores.shape[1] - 1), 0.0)


def row_numbers(seed: int, key: Sequence[object], sample: int, steps: int) -> np.ndarray:
    """Numbers in [0, 1) of one sample of a sentence; a longer row opens with the same ones.

    Args:
        seed: of all.
        key: what tells this sentence from others.
        sample: which of its samples, from 0.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()[:16]
    generator = np.random.default_rng((seed, sample, int.from_bytes(digest, "big")))
    return generator.random(steps) * (1 - 1e-9)  # rounded, the last must not reach the sum of all


def keyed_processors(
    settings: DecodingSettings, keys: Sequence[Sequence[object]], steps: int, prompt_length: int
) -> LogitsProcessorList:
    """What `generate` needs to sample some sentences.

    Args:
        settings: with `do_sample`.
        keys: of the sentences; `settings.num_return_sequences` samples of one follow each other.
        steps: most tokens of any of them.
        prompt_length: decoder ids before the first.
    """
    rows = [
        row_numbers(settings.seed, key, sample, steps)
        for key in keys
        for sample in range(settings.num_return_sequences)
    ]
    processors = LogitsProcessorList()
    if settings.temperature != 1:
        processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        processors.append(TopPLogitsWarper(settings.top_p))
    processors.append(KeyedDraw(torch.from_numpy(np.stack(rows)), prompt_length))
    return processors
