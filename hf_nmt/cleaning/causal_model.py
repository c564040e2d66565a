"""Causal language models of Transformers, asked how likely texts are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_nmt.errors import DataError

_TOKENS_OF_A_BATCH = 4096


class CausalModel:
    """A model in a folder, with its tokenizer; on a GPU where there is one.

    Texts are read after the symbol that begins one (the one that ends one, where there is no other) and up to the one
    that ends one.

    Raises:
        DataError: the folder holds no such model, or a tokenizer without any of these symbols.
    """

    def __init__(self, path: Path):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not (path / "config.json").is_file():
            raise DataError(f"{path}: there is no folder of a model here (config.json is missing).")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: this is no causal language model with a tokenizer: {error}") from error
        end = self._tokenizer.eos_token_id
        begin = self._tokenizer.bos_token_id
        if end is None and begin is None:
            raise DataError(f"{path}: the tokenizer has no symbol that begins or ends a text.")
        self._begin, self._end = begin if begin is not None else end, end
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._most = getattr(self._model.config, "max_position_embeddings", None) or 1024

    def cross_entropies(self, texts: Sequence[str]) -> np.ndarray:
        """Mean over tokens of minus the natural logarithm of their probability; not a number for a text without any.
        Of a text over the model's limit the first tokens count."""
        found = np.full(len(texts), np.nan)
        tokens = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
        last = [] if self._end is None else [self._end]
        rows = [[self._begin, *ids, *last][: self._most] if ids else [] for ids in tokens]
        order = sorted((n for n, row in enumerate(rows) if row), key=lambda n: len(rows[n]))
        while order:
            longest = len(rows[order[-1]])
            size = max(_TOKENS_OF_A_BATCH // longest, 1)
            order, batch = order[:-size], order[-size:]
            found[batch] = self._scored([rows[n] for n in batch], longest)
        return found

    def _scored(self, rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
        import torch

        device = self._model.device
        ids = torch.tensor([[*row, *[self._begin] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        chosen = logits.gather(2, ids[:, 1:, None]).squeeze(2) - logits.logsumexp(dim=2)
        sums = (chosen * mask[:, 1:]).sum(dim=1) / mask[:, 1:].sum(dim=1)
        return -sums.double().cpu().numpy()
