"""Positions of Marian models that are not those which Transformers computes, as imported models have them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import MarianMTModel, PreTrainedModel

_COMPARED = 16  # positions that tell two tables apart: they differ from the second on


def position_table(num_positions: int, dim: int) -> torch.Tensor:
    """Marian's sinusoids, (P, D): sines, then cosines, of position / 10000 ** (i / (D / 2 - 1)).

    Like `sinusoidalPositionEmbeddings` of marian-dev (src/graph/node_initializers.cpp), in its float32.
    """
    half = dim // 2
    step = np.float32(np.log(np.float32(10000))) / np.float32(max(half - 1, 1))
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.arange(num_positions, dtype=np.float32)[:, None] * frequencies  # (P, D / 2)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


def keep_positions(model: PreTrainedModel) -> bool:
    """Let a MarianMTModel whose positions are not those that Transformers computes be saved with them.

    Transformers saves no positions of this family, and takes its own where a folder has none. So those of an imported
    model, which its configuration tells (`marian_positions`), are written again where they got lost like this. To be
    called on every model that is loaded; see `SavedModel.model`.

    Returns:
        Whether the model has positions of its own.
    """
    if not isinstance(model, MarianMTModel):
        return False
    tables = [model.model.encoder.embed_positions, model.model.decoder.embed_positions]
    for table in tables:
        table.weight.requires_grad_(False)
    if all(_is_computed(table) for table in tables):
        if not getattr(model.config, "marian_positions", False):
            return False
        for table in tables:
            table.weight.copy_(position_table(*table.weight.shape))
    positions = {"model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"}
    # What `save_pretrained` of Transformers leaves out: it reads no other list.
    model._keys_to_ignore_on_save = [name for name in model._keys_to_ignore_on_save or () if name not in positions]
    return True


def _is_computed(table: torch.nn.Embedding) -> bool:
    """Whether the first positions are those of Transformers; all of them would take seconds for a large model."""
    weight = table.weight[:_COMPARED]
    return torch.equal(weight, type(table)(*weight.shape).create_weight().to(weight))
