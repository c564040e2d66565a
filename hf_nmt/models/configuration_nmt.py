"""Configuration of the encoder-decoder transformer."""

from __future__ import annotations

import copy

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

ACTIVATION_FUNCTIONS = ("relu", "gelu", "swiglu")
NORM_POSITIONS = ("pre", "post")
DECODER_LAYER_TYPES = ("self_attention", "ssru")
POSITION_EMBEDDINGS = ("sinusoidal", "learned", "rotary")

CUSTOM_PIPELINES = {
    "translation": {
        "impl": "pipeline_nmt.TranslationPipeline",
        "pt": ["AutoModelForSeq2SeqLM"],
        "type": "text",
    }
}


@strict
class NmtConfig(PreTrainedConfig):
    """Shape of an `NmtForConditionalGeneration`.

    Args:
        vocab_size: entries of the target vocabulary; of both sides where `source_vocab_size` is None.
        source_vocab_size: entries of a source vocabulary of its own; None for one vocabulary on both sides.
        d_model: width of the residual stream.
        encoder_layers, decoder_layers: depths, independent of each other.
        decoder_layer_type: what a decoder layer sees the target so far by: "self_attention", or "ssru" (Kim et al.
            2019), a recurrent unit whose state does not grow with the translation.
        encoder_attention_heads, decoder_attention_heads: each must divide `d_model`; of an SSRU decoder, the heads of
            cross-attention.
        encoder_ffn_dim, decoder_ffn_dim: width inside the feed-forward blocks.
        activation_function: "relu", "gelu" or "swiglu" (Shazeer 2020, a third matrix per block).
        norm_position: "pre" (layer norm before each block, one more at the end) or "post" (Vaswani et al. 2017).
        position_embedding: "sinusoidal", "learned" or "rotary" (Su et al. 2021, in self-attention only, so that
            an SSRU decoder has none: the recurrence itself knows the order).
        max_position_embeddings: longest sequence, in tokens, on either side.
        scale_embedding: multiply embeddings by the square root of `d_model`.
        dropout: on embeddings and at the end of each block.
        attention_dropout: on attention probabilities.
        activation_dropout: inside the feed-forward blocks.
        tie_word_embeddings: one matrix for target embeddings and output projection, and for source embeddings too
            where the vocabulary is shared.
        source_language, target_language: codes the model was trained for; None where it has several.
    """

    model_type = "hf_nmt"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_attention_heads": "decoder_attention_heads",
        "num_hidden_layers": "decoder_layers",
    }

    vocab_size: int = 8000
    source_vocab_size: int | None = None
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    decoder_layer_type: str = "self_attention"
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    norm_position: str = "pre"
    position_embedding: str = "sinusoidal"
    max_position_embeddings: int = 512
    scale_embedding: bool = True
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    tie_word_embeddings: bool = True
    source_language: str | None = None
    target_language: str | None = None
    use_cache: bool = True
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int | None = 2

    def __post_init__(self, **kwargs):
        self._check_shape()
        # `pipeline()` refuses a folder with custom pipelines unless remote code is trusted. The installed package
        # registers the pipeline itself, so only the copy that was loaded from a folder tells of them.
        kwargs.pop("custom_pipelines", None)
        if __name__.split(".")[0] == "transformers_modules":
            self.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)  # `pipeline()` writes classes into it
        super().__post_init__(**kwargs)

    def _check_shape(self):
        """Refuse combinations that cannot be built."""
        for name, allowed in (
            ("activation_function", ACTIVATION_FUNCTIONS),
            ("norm_position", NORM_POSITIONS),
            ("position_embedding", POSITION_EMBEDDINGS),
            ("decoder_layer_type", DECODER_LAYER_TYPES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}.")
        for name in (
            "vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
            "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.d_model % 2:
            raise ValueError(f"d_model is {self.d_model}; it must be even.")
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            num_heads = getattr(self, name)
            if self.d_model % num_heads:
                raise ValueError(f"d_model ({self.d_model}) must be a multiple of {name} ({num_heads}).")
            if self.position_embedding == "rotary" and self.d_model // num_heads % 2:
                raise ValueError(
                    f"Rotary positions need an even width per head; d_model ({self.d_model}) / {name} ({num_heads}) "
                    "is odd."
                )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")

    def to_dict(self):
        return {**super().to_dict(), "custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}


NmtConfig.register_for_auto_class()
