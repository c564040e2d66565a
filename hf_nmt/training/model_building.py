"""Settings of the model, and a fresh model of them."""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic
import torch
from pydantic import Field

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.tokenization_nmt import NmtTokenizer

FROM_NEW_WEIGHTS = (
    "training starts from new weights; a saved model cannot be trained further (fine-tuned) yet. A run that was "
    "stopped goes on with resume=runs/<id>."
)
_PATHS = ("path", "name_or_path", "model_name_or_path", "init_from", "from_pretrained", "pretrained", "checkpoint")


class ModelSettings(Settings):
    """Shape of the transformer; names and defaults are those of `NmtConfig`, the base model of Vaswani et al. 2017."""

    renamed_keys: ClassVar[dict[str, str]] = dict.fromkeys(_PATHS, FROM_NEW_WEIGHTS)
    no_section: ClassVar[str] = f"{FROM_NEW_WEIGHTS[0].upper()}{FROM_NEW_WEIGHTS[1:]}"

    d_model: int = Field(NmtConfig.d_model, ge=2, description="Width of the residual stream.")
    encoder_layers: int = Field(NmtConfig.encoder_layers, ge=1, description="Layers of the encoder.")
    decoder_layers: int = Field(
        NmtConfig.decoder_layers,
        ge=1,
        description="Layers of the decoder. Run once for each target token; those of the encoder once a sentence.",
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
        description="Share of activations dropped on embeddings and at the end of each block. Small corpora want 0.3.",
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
        description="auto: eager (two matrix products) on CPU, sdpa (fused kernels, less memory) elsewhere. "
        "Not saved with the model.",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModelSettings:
        try:
            NmtConfig(**self.model_dump(exclude={"attn_implementation"}))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return self

    def attention(self) -> str:
        """The attention implementation on this machine."""
        if self.attn_implementation != "auto":
            return self.attn_implementation
        return "sdpa" if torch.cuda.is_available() else "eager"


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
        **settings.model_dump(exclude={"attn_implementation"}),
        vocab_size=tokenizer.target_vocab_size,
        source_vocab_size=tokenizer.source_vocab_size if tokenizer.separate_vocabularies else None,
        source_language=source_language,
        target_language=target_language,
    )
    model = NmtForConditionalGeneration(config)
    try:
        model.set_attn_implementation(settings.attention())
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"model.attn_implementation: {settings.attention()!r} cannot be used here: {error}"
        ) from error
    return model
