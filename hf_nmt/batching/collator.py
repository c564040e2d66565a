"""Padded tensors of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

IGNORED = -100  # label of padding, as everywhere in Transformers


class TranslationCollator:
    """Pads rows with `input_ids` and `labels` on the right.

    The decoder's input is the labels moved one place to the right. Where `decoder_start_token_id` is None, each row's
    last label comes first, as mBART was trained. Models of Transformers make it themselves from `labels`, but not when
    the loss is computed outside of them, and M2M100 not at all.

    Args:
        pad_token_id: of both sides.
        decoder_start_token_id: what the decoder reads first.
        pad_to_multiple_of: padded lengths are rounded up to a multiple of this.
    """

    def __init__(
        self, pad_token_id: int, decoder_start_token_id: int | None, *, pad_to_multiple_of: int | None = None
    ):
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id
        self.multiple = pad_to_multiple_of or 1

    @classmethod
    def for_model(cls, model: PreTrainedModel, *, pad_to_multiple_of: int | None = None) -> TranslationCollator:
        """The collator that makes the decoder input which this model was, or will be, trained on."""
        config = model.config
        start = config.decoder_start_token_id
        if start is None and model.generation_config is not None:
            start = model.generation_config.decoder_start_token_id
        if config.model_type == "mbart":
            start = None
        return cls(config.pad_token_id, start, pad_to_multiple_of=pad_to_multiple_of)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """int64 tensors: `input_ids` and `attention_mask` (B, S), `labels` (B, T) padded with -100, and
        `decoder_input_ids` (B, T)."""
        input_ids = self._padded([row["input_ids"] for row in rows], self.pad_token_id)
        labels = self._padded([row["labels"] for row in rows], IGNORED)
        source_lengths = np.array([len(row["input_ids"]) for row in rows])
        target_lengths = np.array([len(row["labels"]) for row in rows])
        decoder_input_ids = np.full_like(labels, self.pad_token_id)
        if self.decoder_start_token_id is None:
            decoder_input_ids[:, 0] = labels[np.arange(len(rows)), target_lengths - 1]
        else:
            decoder_input_ids[:, 0] = self.decoder_start_token_id
        decoder_input_ids[:, 1:] = np.where(labels[:, :-1] == IGNORED, self.pad_token_id, labels[:, :-1])
        attention_mask = (np.arange(input_ids.shape[1]) < source_lengths[:, None]).astype(np.int64)
        arrays = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "decoder_input_ids": decoder_input_ids,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _padded(self, rows: list[Sequence[int]], padding: int) -> np.ndarray:
        longest = max(map(len, rows))
        array = np.full((len(rows), -(-longest // self.multiple) * self.multiple), padding, dtype=np.int64)
        for line, row in zip(array, rows, strict=True):
            line[: len(row)] = row
        return array
