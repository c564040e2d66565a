"""The batches of a sampler as several processes get them."""

from __future__ import annotations

from collections.abc import Iterable

from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler

from hf_nmt.batching import TokenBatchSampler


def check_division(
    whole: TokenBatchSampler, alone: TokenBatchSampler, world_size: int, *, epochs: Iterable[int]
) -> None:
    """The processes together have the batches of one that accumulates as many, and a resumed one goes on with its
    own."""
    ranks = [BatchSamplerShard(whole, num_processes=world_size, process_index=rank) for rank in range(world_size)]
    for epoch in epochs:
        whole.set_epoch(epoch)
        alone.set_epoch(epoch)
        batches = list(whole)
        assert batches == list(alone) and len(batches) == len(whole) and all(batches)
        dealt = [list(rank) for rank in ranks]
        assert [batch for step in zip(*dealt, strict=True) for batch in step] == batches
        skipped = len(dealt[0]) // 2
        assert list(SkipBatchSampler(ranks[-1], skip_batches=skipped)) == dealt[-1][skipped:]
