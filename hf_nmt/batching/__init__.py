"""From sentence pairs to tensors: encoded rows on disk, batches by token budget, padding."""

from __future__ import annotations

from hf_nmt.batching.collator import TranslationCollator
from hf_nmt.batching.encoding import encode_pairs, length_columns
from hf_nmt.batching.groups import PairGroups, drawn_rows, language_pairs
from hf_nmt.batching.pair_encoder import EncodedRows, PairEncoder
from hf_nmt.batching.rows import SampledPairs, training_batches
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.batching.streaming import StreamedBatches, StreamLoader

__all__ = [
    "BatchingSettings",
    "EncodedRows",
    "PairEncoder",
    "PairGroups",
    "SampledPairs",
    "StreamLoader",
    "StreamedBatches",
    "TokenBatchSampler",
    "TranslationCollator",
    "drawn_rows",
    "encode_pairs",
    "language_pairs",
    "length_columns",
    "training_batches",
]
