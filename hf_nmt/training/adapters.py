"""Fine-tuning with adapters: LoRA, DoRA and, over quantized weights, QLoRA."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from hf_nmt.artifacts import atomic_folder, quiet_files
from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError, NmtError, need
from hf_nmt.generation.adapters import load_adapter_weights, merge_adapter, put_on, read_weights, row_holders
from hf_nmt.training.layerdrop import use_all_layers
from hf_nmt.training.saved import check_saved, probe_logits
from hf_nmt.translators import load_model

Quantization = Literal["int8", "nf4"]
_NF4_BLOCK = 64  # bitsandbytes' own; it fails in the first batch where a row does not fill its blocks
ALL_LINEAR = "all-linear"  # peft's word for what null means here

logger = logging.getLogger(__name__)


class AdapterSettings(Settings):
    """Small matrices that are trained in place of the weights: W x becomes W x + (alpha / rank) B A x, where A has
    `rank` rows and B as many columns (LoRA, Hu et al. 2021, eq. 3)."""

    type: Literal["lora", "dora"] = Field(
        "lora",
        description="dora also learns the length of every row of the sum (Liu et al. 2024, eq. 5): often a little "
        "better at low ranks, and slower.",
    )
    rank: int = Field(
        16, ge=1, description="Rows of A: what the adapter can learn, and its size. 4 to 64; a new domain wants less."
    )
    alpha: float = Field(
        32.0, gt=0, description="The adapter's output is multiplied by alpha / rank. Twice the rank is common."
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of an adapter's inputs dropped. 0.05 to 0.1 where the corpus is small."
    )
    target_modules: list[str] | None = Field(
        None,
        min_length=1,
        description="Names of the layers that get an adapter, such as [q_proj, v_proj]. null, or all-linear: every "
        "attention and feed-forward projection, which serves better than a higher rank on few.",
    )

    tokens: list[str] | Literal["new"] | None = Field(
        None,
        description="Tokens whose rows of the embeddings and of the output projection are trained besides, whole, as "
        "the adapter does not reach them: [xxx_Latn] for a code of NLLB, [<2ko>] for one of a model of ours. new: all "
        "that recipes/adapt_vocabulary.py has put into the model. null: none; enough where no token is new.",
    )

    @field_validator("tokens")
    @classmethod
    def _some_tokens(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("no token is named; write null for none, or new for those that were added")
        return value

    @field_validator("target_modules", mode="before")
    @classmethod
    def _all_linear(cls, value: Any) -> Any:
        return None if value in (ALL_LINEAR, [ALL_LINEAR]) else value


def projections(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The attention and feed-forward projections of a model by their names.

    They are the linear modules inside a numbered layer. The output projection is none, as its weights are those of
    the embeddings.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(part.isdecimal() for part in name.split("."))
    }


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def adapter_findings(config: PreTrainedConfig, settings: AdapterSettings, quantization: Quantization | None) -> list:
    """Why a model of this configuration cannot have the adapter, a sentence each; its weights are not read.

    Raises:
        NmtError: a package is not installed.
    """
    need("peft", "peft")
    if quantization is not None:
        how_to_pack(quantization)
    with torch.device("meta"):
        layers = projections(AutoModelForSeq2SeqLM.from_config(config))
    findings = []
    known = sorted({_last(name) for name in layers})
    if unknown := sorted({*(settings.target_modules or ())} - {*known}):
        findings.append(
            f"model.adapter.target_modules: given {', '.join(unknown)}; the layers of this model have "
            f"{', '.join(known)}."
        )
    odd = {
        f"{_last(name)} ({layer.in_features} to {layer.out_features})"
        for name, layer in layers.items()
        if layer.in_features % _NF4_BLOCK or layer.out_features % _NF4_BLOCK
    }
    if quantization == "nf4" and odd:
        findings.append(
            f"model.quantization: nf4 packs {_NF4_BLOCK} weights into a block, and these layers are no multiple of "
            f"that wide: {', '.join(sorted(odd))}. Write int8."
        )
    return findings


def how_to_pack(quantization: Quantization) -> BitsAndBytesConfig:
    """What `from_pretrained` is told to quantize a model.

    Raises:
        NmtError: bitsandbytes is not installed.
    """
    need("bitsandbytes", "qlora")
    # On a CPU it says for every layer of every batch that it rounds to float16 in between.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    # Double quantization: Dettmers et al. (2023), section 3. Products are computed in the type of the input.
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def add_adapter(
    model: PreTrainedModel,
    settings: AdapterSettings,
    *,
    rows: Mapping[str, Sequence[int]] | None = None,
    revision: str | None = None,
) -> None:
    """Put a new adapter into a pretrained model; all else of the model is frozen. Draws from torch's generator.

    Args:
        rows: ids of the tokens whose rows are trained too, for "source" and "target"; see `token_rows.rows_of`.
        revision: the commit of a model on the Hub.

    Raises:
        NmtError: peft is not installed.
    """
    peft = need("peft", "peft")
    targets = settings.target_modules or sorted({_last(name) for name in projections(model)})
    config = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        use_dora=settings.type == "dora",
        trainable_token_indices=None if rows is None else _by_matrix(model, rows),
    )
    put_on(model, config, revision)
    use_all_layers(model)  # of a small model all might be left out, and no adapter would have a gradient
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    logger.info(
        "adapter: %s of rank %d on %s%s; %s of %s weights are trained",
        settings.type, settings.rank, ", ".join(targets),
        "" if rows is None else f", and the rows of {max(map(len, rows.values()))} tokens",
        f"{trained:,}", f"{model.num_parameters():,}",
    )  # fmt: skip


def _by_matrix(model: PreTrainedModel, rows: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Name of each matrix with a row for every token -> the rows of it that are trained."""
    read = model.get_encoder().embed_tokens.weight
    sides = {name: "source" if model.get_submodule(name).weight is read else "target" for name in row_holders(model)}
    return {name: list(rows[side]) for name, side in sides.items() if rows[side]}


def merge_folder(folder: Path, output: Path, *, base: str | None = None) -> float:
    """Merge a saved adapter into its model and write that into a folder, which takes the place of an older one.

    Args:
        base: where the model is; None takes what the adapter says.

    Returns:
        The largest difference of any logit of the probes, merged to not merged.

    Raises:
        NmtError: adapter or model cannot be opened, the merged model computes something else, or could not be written.
    """
    model, tokenizer = load_model(folder, base=base, merge=False)
    before = probe_logits(model, tokenizer)
    merge_adapter(model)
    after = probe_logits(model, tokenizer)
    difference = max((one - other).abs().max().item() for one, other in zip(before, after, strict=True))
    largest = max(logits.abs().max().item() for logits in before)
    # Sums in another order, in float32: some 1e-6 of the largest.
    if not difference <= 1e-4 * max(largest, 1.0):
        raise NmtError(
            f"The merged model differs from {folder} on its model by {difference:.2g} in a logit, where the largest "
            f"is {largest:.2g}. Nothing was written."
        )
    with quiet_files(), atomic_folder(output, replace=True) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        check_saved(model, tokenizer, partial)
    return difference


def load_checkpoint(model: PreTrainedModel, folder: Path) -> None:
    """Give the adapter in a model the weights of a checkpoint.

    Raises:
        ConfigError: the checkpoint was trained on other weights of the model.
        NmtError: it does not fit the model.
    """
    weights, trained_on = read_weights(folder)
    if trained_on != model.adapter_base_hash:
        raise ConfigError(
            f"resume: the weights in {model.name_or_path} are not those that the adapter in {folder} was trained on. "
            "Put the model back as it was."
        )
    load_adapter_weights(model, weights, folder)
