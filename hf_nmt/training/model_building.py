"""Settings of the model, and a new model of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pydantic
from pydantic import Field
from transformers import PreTrainedModel

from hf_nmt.artifacts import may_be_hub_id
from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.training.adapters import AdapterSettings, Quantization
from hf_nmt.translators import find_model

FROM_SAVED_WEIGHTS = (
    "to train a saved model further (to fine-tune it) write model.pretrained=MODEL: its folder, a run folder or an id "
    "of the Hub. A run that was stopped goes on with resume=runs/<id>."
)
_PATHS = ("path", "name_or_path", "model_name_or_path", "init_from", "from_pretrained", "checkpoint")
_RATES = {"dropout", "attention_dropout", "activation_dropout"}
# What may be set of a saved model; the rest is its shape.
_OF_SAVED = (
    "pretrained", "revision", "source_prefix", "dropout", "attention_dropout", "activation_dropout",
    "attn_implementation", "adapter", "quantization",
)  # fmt: skip


def names_saved_model(argv: Sequence[str]) -> bool:
    """Whether a command line names a model to train further, so that the settings of a new one are not wanted."""
    keys = [argument.removeprefix("--").partition("=")[0] for argument in argv]
    return "model.pretrained" in keys


class ModelSettings(Settings):
    """A saved model to train further, or the shape of a new transformer; names and defaults of a shape are those of
    `NmtConfig`, the base model of Vaswani et al. 2017."""

    renamed_keys: ClassVar[dict[str, str]] = dict.fromkeys(_PATHS, FROM_SAVED_WEIGHTS)
    no_section: ClassVar[str] = f"{FROM_SAVED_WEIGHTS[0].upper()}{FROM_SAVED_WEIGHTS[1:]}"

    pretrained: str | None = Field(
        None,
        description="Model to train further: its folder, a run folder (its best model is taken) or an id of the Hub, "
        "of any family that AutoModelForSeq2SeqLM opens. It brings its shape and its tokenizer. null starts from new "
        "weights.",
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of `pretrained` on the Hub; null takes the newest commit."
    )
    source_prefix: str | None = Field(
        None,
        description="Text in front of each source, saved with the model, for pretrained models that are told what to "
        "do in words, such as 'translate English to German: ' for T5. null keeps what the model has.",
    )
    adapter: AdapterSettings | None = Field(
        None,
        description="Train small matrices beside the weights of `pretrained` instead of these (LoRA, DoRA): a "
        "hundredth of the weights, little memory and small checkpoints. model.adapter.type=lora takes every default. "
        "null trains all weights.",
    )
    quantization: Quantization | None = Field(
        None,
        description="Keep the weights of `pretrained` in 8 bits or in 4 (nf4) while an adapter is trained, to fit a "
        "larger model into memory; slower, and best/ is validated anew with the full weights. null keeps them full.",
    )
    d_model: int = Field(NmtConfig.d_model, ge=2, description="Width of the residual stream.")
    encoder_layers: int = Field(NmtConfig.encoder_layers, ge=1, description="Layers of the encoder.")
    decoder_layers: int = Field(
        NmtConfig.decoder_layers,
        ge=1,
        description="Layers of the decoder. Run once for each target token; those of the encoder once a sentence.",
    )
    decoder_layer_type: Literal["self_attention", "ssru"] = Field(
        NmtConfig.decoder_layer_type,
        description="What a decoder layer sees the target so far by. ssru, a recurrent unit, decodes faster: its "
        "state does not grow with the translation.",
    )
    encoder_attention_heads: int = Field(
        NmtConfig.encoder_attention_heads,
        ge=1,
        description="Attention heads of an encoder layer; must divide d_model.",
    )
    decoder_attention_heads: int = Field(
        NmtConfig.decoder_attention_heads, ge=1, description="Attention heads of a decoder layer; must divide d_model."
    )
    encoder_ffn_dim: int = Field(
        NmtConfig.encoder_ffn_dim, ge=1, description="Width inside encoder feed-forward blocks."
    )
    decoder_ffn_dim: int = Field(
        NmtConfig.decoder_ffn_dim, ge=1, description="Width inside decoder feed-forward blocks."
    )
    activation_function: Literal["relu", "gelu", "swiglu"] = Field(
        NmtConfig.activation_function,
        description="Of the feed-forward blocks; swiglu has a third matrix, so take 2/3 of the width for equal size.",
    )
    norm_position: Literal["pre", "post"] = Field(
        NmtConfig.norm_position,
        description="Layer norm before each block (trains at higher learning rates) or after it (the original).",
    )
    position_embedding: Literal["sinusoidal", "learned", "rotary"] = Field(
        NmtConfig.position_embedding, description="How tokens know their place."
    )
    max_position_embeddings: int = Field(
        NmtConfig.max_position_embeddings, ge=2, description="Longest sequence in tokens, on either side."
    )
    scale_embedding: bool = Field(
        NmtConfig.scale_embedding, description="Multiply embeddings by the square root of d_model."
    )
    dropout: float = Field(
        NmtConfig.dropout,
        ge=0,
        lt=1,
        description="Share of activations dropped on embeddings and at the end of each block. Small corpora want 0.3. "
        "Of a pretrained model, as of the next two, its own unless given.",
    )
    attention_dropout: float = Field(
        NmtConfig.attention_dropout, ge=0, lt=1, description="Share of attention probabilities dropped."
    )
    activation_dropout: float = Field(
        NmtConfig.activation_dropout, ge=0, lt=1, description="Share dropped inside feed-forward blocks."
    )
    tie_word_embeddings: bool = Field(
        NmtConfig.tie_word_embeddings,
        description="One matrix for target embeddings and output projection, and for source embeddings too where the "
        "vocabulary is shared. Fewer weights, and better on small corpora.",
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = Field(
        "auto",
        description="auto: sdpa (fused kernels, less memory), but on a CPU two matrix products up to the length where "
        "these were measured to be faster, before training; eager is these two alone. Not saved with the model.",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if self.pretrained is None:
            findings = [
                f"{name}: it is for a saved model, and pretrained names none."
                for name in ("revision", "source_prefix")
                if getattr(self, name) is not None
            ]
            findings += [
                f"pretrained: required and not given, as there is {name}: new weights would stay random under an "
                f"adapter. Name a saved model, or leave {name} out."
                for name in ("adapter", "quantization")
                if getattr(self, name) is not None
            ]
            try:
                NmtConfig(**self.shape())
            except ValueError as error:
                findings.append(str(error))
        else:
            findings = self._check_shape()
            if self.quantization is not None and self.adapter is None:
                findings.append(
                    "quantization: weights of 8 or 4 bits cannot be trained, but an adapter over them can. Write "
                    "adapter.type=lora, or leave quantization out."
                )
        if findings:
            raise ConfigError(findings)
        return self

    @pydantic.field_validator("pretrained")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError(
                "required and not given: these settings train a saved model further. Write model.pretrained=MODEL: "
                "its folder, a run folder or an id of the Hub"
            )
        return value

    def _check_shape(self) -> list[str]:
        """What is set of the shape that a saved model brings; then also whether the model is there."""
        shape = [name for name in type(self).model_fields if name in self.model_fields_set and name not in _OF_SAVED]
        if not shape:
            return []
        here = self.pretrained is not None and not may_be_hub_id(self.pretrained)
        return [
            f"pretrained: the model {self.pretrained} has a shape of its own, and {', '.join(shape)} "
            f"{'are' if len(shape) > 1 else 'is'} that of a new one. Leave out what sets a shape; --config finetune "
            "sets none.",
            *([finding.removeprefix("model.") for finding in self.check_files()] if here else []),
        ]

    def check_files(self) -> list[str]:
        try:
            if self.pretrained is not None:
                find_model(self.pretrained)
        except NmtError as error:
            return [f"model.pretrained: {error}"]
        return []

    @pydantic.model_serializer(mode="wrap")
    def _what_holds(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what a pretrained model has of its own."""
        plain = serialize(self)
        if self.pretrained is None:
            return plain
        return {name: value for name, value in plain.items() if name in {*self.model_fields_set, "pretrained"}}

    def shape(self) -> dict[str, Any]:
        """Arguments of `NmtConfig`."""
        return self.model_dump(exclude={*_OF_SAVED} - _RATES)


def build_model(
    settings: ModelSettings,
    tokenizer: NmtTokenizer,
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> NmtForConditionalGeneration:
    """A model with random weights for the vocabularies of `tokenizer`.

    Raises:
        ConfigError: the attention implementation is not to be had on this machine.
    """
    config = NmtConfig(
        **settings.shape(),
        vocab_size=tokenizer.target_vocab_size,
        source_vocab_size=tokenizer.source_vocab_size if tokenizer.separate_vocabularies else None,
        source_language=source_language,
        target_language=target_language,
    )
    model = NmtForConditionalGeneration(config)
    set_attention(model, settings)
    return model


def set_attention(model: PreTrainedModel, settings: ModelSettings) -> None:
    """
    Raises:
        ConfigError: the attention implementation is not to be had on this machine, or not with this model.
    """
    wanted: str = settings.attn_implementation
    if wanted == "auto":
        wanted = "sdpa" if model._supports_sdpa else "eager"
    try:
        model.set_attn_implementation(wanted)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"model.attn_implementation: {wanted!r} cannot be used here: {error}") from error
