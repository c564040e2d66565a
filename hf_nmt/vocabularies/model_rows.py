"""The weights, settings and generation settings of a model that depend on ids, moved to other ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_nmt.errors import NmtError

Origins = Sequence[int | tuple[int, ...]]
"""What each new id comes from: the old id of the same token, or for a new token those whose mean it starts as."""

_LISTS_OF_IDS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
_BY_POSITION = ("forced_decoder_ids", "sequence_bias")


def check_ids(model: PreTrainedModel) -> None:
    """
    Raises:
        NmtError: the model holds ids in a form that cannot be moved, or no embeddings are to be found.
    """
    for name in _BY_POSITION:
        if getattr(model.generation_config, name, None):
            raise NmtError(
                f"generation_config.json sets {name}, whose ids cannot be carried over. Take it out of the file, and "
                "set it anew for the new model."
            )
    for stack in (model.get_encoder(), model.get_decoder()):
        if not isinstance(getattr(stack, "embed_tokens", None), nn.Embedding):
            raise NmtError(f"The vocabulary of a {type(model).__name__} cannot be adapted: it has no embed_tokens.")


@torch.no_grad()
def move_rows(model: PreTrainedModel, source: Origins, target: Origins) -> None:
    """Give a model new vocabularies, in place: embeddings, output projection and its biases.

    Matrices that were one stay one. A new row is the mean of the old rows of its parts (fast vocabulary transfer, Gee
    et al. 2022), and so is a bias.

    Args:
        source, target: of the ids that the encoder and the decoder read; the decoder writes those that it reads.
    """
    source_module, output = model.get_encoder().embed_tokens, model.get_output_embeddings()
    moved: dict[int, nn.Parameter] = {}
    for module, origins in ((source_module, source), (model.get_decoder().embed_tokens, target), (output, target)):
        for name in ("weight", "bias"):
            old = getattr(module, name, None)
            if old is not None and id(old) not in moved:
                moved[id(old)] = nn.Parameter(_rows(old, origins), requires_grad=old.requires_grad)
    for module in list(model.modules()):
        for name, old in list(module._parameters.items()):
            if old is None or id(old) not in moved:
                continue
            new = moved[id(old)]
            setattr(module, name, new)
            if isinstance(module, nn.Embedding):
                module.num_embeddings = len(new)
                if module.padding_idx is not None:
                    module.padding_idx = new_ids(source if module is source_module else target)[module.padding_idx]
            elif isinstance(module, nn.Linear):
                module.out_features = len(new)
    if (bias := getattr(model, "final_logits_bias", None)) is not None:
        model.register_buffer("final_logits_bias", _rows(bias[0], target)[None])
    _resize(model.config, len(source), len(target))
    for settings in (model.config, model.generation_config):
        _move_ids(settings, target)
    for name in ("pad_token_id", "eos_token_id"):
        ids = getattr(model.config, name, None)
        if isinstance(ids, int) and (ids >= len(source) or source[ids] != target[ids]):
            raise NmtError(
                f"{name} would not be the same in both vocabularies. Its token has to lie before all that is removed."
            )


def _rows(old: torch.Tensor, origins: Origins) -> torch.Tensor:
    """Rows (or entries) of the new ids, (V', ...)."""
    single = torch.tensor([origin if isinstance(origin, int) else 0 for origin in origins], device=old.device)
    new = old[single].clone()
    means: dict[tuple[int, ...], torch.Tensor] = {}
    for number, origin in enumerate(origins):
        if isinstance(origin, tuple):
            if origin not in means:
                means[origin] = old[list(origin)].float().mean(0).to(old.dtype)
            new[number] = means[origin]
    return new


def new_ids(origins: Origins) -> dict[int, int]:
    """Old id -> new id, of the tokens that are kept."""
    return {origin: number for number, origin in enumerate(origins) if isinstance(origin, int)}


def _resize(config: Any, source: int, target: int) -> None:
    config.vocab_size = target
    if getattr(config, "source_vocab_size", None) is not None:
        config.source_vocab_size = source
    if hasattr(config, "decoder_vocab_size"):
        config.vocab_size, config.decoder_vocab_size = source, target


def _move_ids(settings: Any, origins: Origins) -> None:
    """Ids in a configuration. A list of ids loses what is no longer there."""
    new = new_ids(origins)

    def moved(value: Any) -> Any:
        if isinstance(value, list | tuple):
            kept = [moved(inner) for inner in value]
            return [inner for inner in kept if inner is not None]
        return new.get(value)

    for name, value in settings.to_dict().items():
        if value is not None and (name.endswith("_token_id") or name in _LISTS_OF_IDS):
            found = moved(value)
            if name == "bad_words_ids":
                found = [ids for ids, before in zip(found, value, strict=True) if len(ids) == len(before)]
            if found is None:
                raise NmtError(f"{name} is {value}, an id that no token of the tokenizer has.")
            setattr(settings, name, found or None if isinstance(found, list) else found)
