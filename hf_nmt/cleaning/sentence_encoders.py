"""Sentence encoders in folders: of sentence-transformers, or any model of Transformers with its vectors averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_nmt.cleaning.coherence import EncoderFolder
from hf_nmt.errors import DataError
from hf_nmt.protocols import SentenceEncoder

_TOKENS_OF_A_BATCH = 8192


def open_encoder(path: Path) -> SentenceEncoder:
    """The encoder in a folder: one of sentence-transformers where it has `modules.json`.

    Raises:
        DataError: there is no model.
    """
    return EncoderFolder(path) if (path / "modules.json").is_file() else MeanPooling(path)


class MeanPooling:
    """A `SentenceEncoder` of the last states of a model of Transformers, averaged over the tokens (Reimers and
    Gurevych 2019, section 3); on a GPU where there is one.

    Raises:
        DataError: the folder holds no model with a tokenizer.
    """

    def __init__(self, path: Path):
        import torch
        from transformers import AutoModel, AutoTokenizer

        if not (path / "config.json").is_file():
            raise DataError(f"{path}: there is no folder of a model here (config.json is missing).")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            model: Any = AutoModel.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: this is no encoder with a tokenizer: {error}") from error
        model = model.get_encoder() if model.config.is_encoder_decoder else model
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._most = getattr(model.config, "max_position_embeddings", None) or 512

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        rows = self._tokenizer(list(texts), truncation=True, max_length=self._most)["input_ids"] if len(texts) else []
        # What has no tokens is a vector of zeros.
        order = sorted((n for n in range(len(rows)) if rows[n]), key=lambda n: len(rows[n]))
        found = np.zeros((len(rows), self._model.config.hidden_size), np.float32)
        while order:
            size = max(_TOKENS_OF_A_BATCH // len(rows[order[-1]]), 1)
            order, batch = order[:-size], order[-size:]
            given = self._tokenizer.pad({"input_ids": [rows[n] for n in batch]}, return_tensors="pt")
            ids, mask = (given[name].to(self._model.device) for name in ("input_ids", "attention_mask"))
            with torch.inference_mode():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            sums = (states * mask[:, :, None]).sum(dim=1)
            found[batch] = torch.nn.functional.normalize(sums, dim=1).cpu().numpy()
        return found
