"""What a `DataLoader` of training reads: rows and the batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import datasets
import numpy as np
import torch

from hf_nmt.batching.encoding import length_columns
from hf_nmt.batching.groups import PairGroups
from hf_nmt.batching.mixing import MixingSettings
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings


class SubwordSampler(Protocol):
    """Random segmentations, such as `subwords.BpeDropout`."""

    def sample_source_ids(
        self, text: str, generator: np.random.Generator, usual: Sequence[int] | None = None
    ) -> list[int]: ...

    def sample_target_ids(self, text: str, generator: np.random.Generator) -> list[int]: ...


def sample_pair(
    subword_sampler: SubwordSampler,
    texts: tuple[str, str],
    usual: tuple[list[int], list[int]],
    limits: tuple[int, int],
    generator: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Random ids of source and target; the usual ones where a sample is beyond its limit of length."""
    source = subword_sampler.sample_source_ids(texts[0], generator, usual[0])
    target = subword_sampler.sample_target_ids(texts[1], generator)
    return (
        source if len(source) <= limits[0] else usual[0],
        target if len(target) <= limits[1] else usual[1],
    )


class SampledPairs(torch.utils.data.Dataset):
    """Rows that are segmented anew in each epoch.

    An index is use * N + row, as `TokenBatchSampler(epoch_in_index=True)` gives it: the use-th time that the row is
    used, which is the epoch where each row is used once in each. The segmentation depends on (seed, use, row) alone:
    not on workers, processes or where a run was resumed. A sample beyond the limit of length gives way to the
    tokenizer's own segmentation, which is within it. The token budget goes by the latter as well, so sampled batches
    are somewhat larger.

    Args:
        encoded: from `encode_pairs(..., keep_text=True)`, N rows.
        subword_sampler: draws the segmentations.
        settings: limits of length.
        seed: of the draws.
    """

    def __init__(
        self, encoded: datasets.Dataset, subword_sampler: SubwordSampler, settings: BatchingSettings, *, seed: int
    ):
        self._encoded = encoded.select_columns(["input_ids", "labels", "source", "target"])
        self._subword_sampler = subword_sampler
        self._limits = settings.max_source_length, settings.max_target_length
        self._seed = seed

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, list[int]]]:
        places = [divmod(index, len(self)) for index in indices]
        rows = self._encoded.__getitems__([row for _, row in places])
        for (use, number), row in zip(places, rows, strict=True):
            generator = np.random.default_rng((self._seed, use, number))
            texts = row.pop("source"), row.pop("target")
            usual = row["input_ids"], row["labels"]
            row["input_ids"], row["labels"] = sample_pair(self._subword_sampler, texts, usual, self._limits, generator)
        return rows


def training_batches(
    encoded: datasets.Dataset,
    settings: BatchingSettings,
    *,
    seed: int,
    world_size: int = 1,
    accumulation: int = 1,
    subword_sampler: SubwordSampler | None = None,
    sampling_temperature: float = 1,
    languages: tuple[str | None, str | None] = (None, None),
    mixing: MixingSettings | None = None,
) -> tuple[datasets.Dataset | SampledPairs, TokenBatchSampler]:
    """The dataset and the `batch_sampler` of a training `DataLoader`.

    Args:
        encoded: from `encode_pairs`; with a `subword_sampler`, from `encode_pairs(..., keep_text=True)`.
        settings: budget and limits.
        seed: of order and segmentations.
        world_size: number of processes.
        accumulation: batches of a process in one update.
        subword_sampler: segments the text anew in each epoch; None takes the ids as they are.
        sampling_temperature: of the language pairs, see `groups.drawn_rows`; 1 takes each pair once an epoch.
        languages: source and target of rows that name none.
        mixing: which groups are drawn how often, in place of `sampling_temperature`; `encoded` has its column.

    Raises:
        DataError, ConfigError: as `TokenBatchSampler`; a temperature for a single pair of languages.
    """
    groups = None if mixing is None else PairGroups.mixed_by(encoded, mixing)
    if sampling_temperature != 1:
        groups = PairGroups.of(encoded, sampling_temperature, usual=languages)
    sampler = TokenBatchSampler(
        *length_columns(encoded),
        settings,
        seed=seed,
        world_size=world_size,
        accumulation=accumulation,
        epoch_in_index=subword_sampler is not None,
        groups=groups,
    )
    if subword_sampler is None:
        return encoded.select_columns(["input_ids", "labels"]), sampler
    return SampledPairs(encoded, subword_sampler, settings, seed=seed), sampler
