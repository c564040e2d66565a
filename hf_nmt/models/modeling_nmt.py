"""The encoder-decoder transformer behind `AutoModelForSeq2SeqLM`.

Takes padded ids and masks, as every model of Transformers does; inside, layers work on flat tokens (`layers_nmt`).
Shapes: B sequences, S source positions, T target positions, N real tokens, D model width, V target vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils import can_return_tuple

from .configuration_nmt import NmtConfig
from .layers_nmt import Attention, DecoderLayer, EncoderLayer, FeedForward, Positions, SequenceLayout, dropout
from .loss_nmt import smoothed_cross_entropy
from .ssru_nmt import SimplerSimpleRecurrentUnit, keep_states

if TYPE_CHECKING:
    # Transformers copies the files that this one imports, by reading its text; the pipeline must travel, too.
    from .pipeline_nmt import TranslationPipeline  # noqa: F401

# A logit this low has probability exactly 0 in float32 and still fits in float16.
MASKED_LOGIT = -1e4


class NmtPreTrainedModel(PreTrainedModel):
    config: NmtConfig
    config_class = NmtConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]

    def save_pretrained(self, save_directory, *args, push_to_hub: bool = False, **kwargs):
        """As in Transformers, but for `push_to_hub=True`, which would push weights without their tokenizer."""
        if push_to_hub:
            raise ValueError(
                "save_pretrained(push_to_hub=True) would push weights without their tokenizer. Write "
                'model.push_to_hub("owner/name").'
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    def _initialize_weights(self, module, is_custom_code: bool = False):
        """As in Transformers, which in code that is not its own passes over blocks without weights of their own."""
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module):
        """Xavier (Glorot and Bengio 2010); query, key and value as one matrix of three parts; what ends a residual
        branch divided by the square root of the layer's number (Zhang et al. 2019, equation 9), so that deep post-norm
        stacks train."""
        if isinstance(module, Attention):
            for projection in (module.q_proj, module.k_proj, module.v_proj):
                init.xavier_uniform_(projection.weight, gain=2**-0.5)
            init.xavier_uniform_(module.out_proj.weight, gain=(module.layer_idx + 1) ** -0.5)
        elif isinstance(module, SimplerSimpleRecurrentUnit):
            init.xavier_uniform_(module.forget_gate.weight)
            init.xavier_uniform_(module.candidate.weight, gain=(module.layer_idx + 1) ** -0.5)
        elif isinstance(module, FeedForward):
            init.xavier_uniform_(module.fc1.weight)
            init.xavier_uniform_(module.fc2.weight, gain=(module.layer_idx + 1) ** -0.5)
            if module.gate is not None:
                init.xavier_uniform_(module.gate.weight)
        elif isinstance(module, nn.Linear):
            # The weights of a block's own maps are set by the block, which comes after its parts; a map without bias
            # is the output projection, an embedding too.
            if module.bias is not None:
                init.zeros_(module.bias)
            else:
                init.copy_(module.weight, self._embedding_values(module.weight))
        elif isinstance(module, nn.Embedding):
            init.copy_(module.weight, self._embedding_values(module.weight))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Positions):
            if module.kind == "learned":
                init.normal_(module.weight, std=self.config.d_model**-0.5)
            else:
                # Not saved with the weights, and on loading first made on the meta device.
                init.copy_(module.table, module.make_table())

    def _embedding_values(self, weight: torch.Tensor) -> torch.Tensor:
        values = torch.empty_like(weight).normal_(std=self.config.d_model**-0.5)
        values[self.config.pad_token_id :][:1] = 0.0  # none where the weight has fewer rows
        return values

    def _check_attentions(self, output_attentions: bool | None) -> None:
        if output_attentions and self.config._attn_implementation != "eager":
            raise ValueError(
                f"Attention probabilities were asked for, and {self.config._attn_implementation!r} attention does not "
                'give them. Call model.set_attn_implementation("eager") first.'
            )


class _Stack(NmtPreTrainedModel):
    """What encoder and decoder share: embeddings, positions, layers, last norm."""

    def __init__(self, config: NmtConfig, vocab_size: int, num_heads: int, layers: list[nn.Module]):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions = Positions(config, num_heads)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(config.d_model) if config.norm_position == "pre" else nn.Identity()
        self.embedding_scale = math.sqrt(config.d_model) if config.scale_embedding else 1.0
        self.gradient_checkpointing = False

    def embed(self, input_ids, inputs_embeds, layout: SequenceLayout, past: int = 0) -> torch.Tensor:
        """Flat embeddings with positions, (N, D)."""
        if past + layout.max_length > self.config.max_position_embeddings:
            raise ValueError(
                f"A sequence of {past + layout.max_length} tokens was given; the model takes at most "
                f"{self.config.max_position_embeddings} (max_position_embeddings). Split or truncate the text."
            )
        if inputs_embeds is None:
            hidden = self.embed_tokens(layout.flatten(input_ids)) * self.embedding_scale
        else:
            hidden = layout.flatten(inputs_embeds)
        hidden = self.embed_positions(hidden, layout.positions)
        # In mixed precision the residual sums, too: in float32 each layer would convert them several times.
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        return dropout(hidden, self.config.dropout, self.training)


class NmtEncoder(_Stack):
    def __init__(self, config: NmtConfig):
        layers = [EncoderLayer(config, i) for i in range(config.encoder_layers)]
        vocab_size = config.source_vocab_size or config.vocab_size
        super().__init__(config, vocab_size, config.encoder_attention_heads, layers)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """Encode source ids (B, S), or scaled embeddings (B, S, D), to states (B, S, D)."""
        self._check_attentions(output_attentions)
        given = input_ids if input_ids is not None else inputs_embeds
        layout = SequenceLayout.from_mask(attention_mask, *given.shape[:2], device=given.device)
        hidden = self.embed(input_ids, inputs_embeds, layout)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=_like_embeddings(given, hidden), attention_mask=attention_mask
        )
        rotary = self.embed_positions.rotary_table(layout.positions)
        states, attentions = [], []
        for layer in self.layers:
            if output_hidden_states:
                states.append(layout.pad(hidden))
            hidden, probabilities = layer(hidden, layout, mask, rotary)
            attentions.append(probabilities)
        last = layout.pad(self.layer_norm(hidden))
        return BaseModelOutput(
            last_hidden_state=last,
            hidden_states=(*states, last) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


class NmtDecoder(_Stack):
    def __init__(self, config: NmtConfig):
        layers = [DecoderLayer(config, i) for i in range(config.decoder_layers)]
        super().__init__(config, config.vocab_size, config.decoder_attention_heads, layers)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        layout: SequenceLayout | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode target ids (B, T), or scaled embeddings (B, T, D), to states (B, T, D).

        Args:
            attention_mask: over the past and the given positions, (B, past + T).
            encoder_hidden_states: (B, S, D).
            encoder_attention_mask: (B, S).
            layout: positions to compute, where the caller knows that the others, all to the right, are padding.
        """
        self._check_attentions(output_attentions)
        given = input_ids if input_ids is not None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        cache = past_key_values
        is_recurrent = self.config.decoder_layer_type == "ssru"
        if is_recurrent and cache is not None:
            keep_states(cache.self_attention_cache, len(self.layers))
        past = cache.get_seq_length() if cache is not None else 0
        if layout is None:
            layout = SequenceLayout.from_mask(attention_mask, *given.shape[:2], past=past, device=given.device)
        hidden = self.embed(input_ids, inputs_embeds, layout, past)
        stand_in = _like_embeddings(given, hidden)
        mask = None
        if not is_recurrent:
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=stand_in,
                attention_mask=attention_mask,
                past_key_values=cache.self_attention_cache if cache is not None else None,
            )
        memory_layout = SequenceLayout.from_mask(
            encoder_attention_mask, *encoder_hidden_states.shape[:2], device=given.device
        )
        memory_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=stand_in,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        memory = memory_layout.flatten(encoder_hidden_states)
        rotary = self.embed_positions.rotary_table(layout.positions)
        states, attentions, cross_attentions = [], [], []
        for layer in self.layers:
            if output_hidden_states:
                states.append(layout.pad(hidden))
            hidden, probabilities, cross_probabilities = layer(
                hidden, memory, layout, mask, memory_layout, memory_mask, cache, rotary
            )
            attentions.append(probabilities)
            cross_attentions.append(cross_probabilities)
        last = layout.pad(self.layer_norm(hidden))
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=last,
            past_key_values=cache,
            hidden_states=(*states, last) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions and not is_recurrent else None,
            cross_attentions=tuple(cross_attentions) if output_attentions else None,
        )


class NmtModel(NmtPreTrainedModel):
    """Encoder and decoder without the output projection."""

    def __init__(self, config: NmtConfig):
        super().__init__(config)
        self.encoder, self.decoder = NmtEncoder(config), NmtDecoder(config)
        self._tied_weights_keys = (
            {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
            if config.source_vocab_size is None
            else None
        )
        self.post_init()

    def get_input_embeddings(self):
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.encoder.embed_tokens = value
        if self.config.tie_word_embeddings and self.config.source_vocab_size is None:
            self.decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_inputs_embeds=None,
        use_cache=None,
        decoder_layout: SequenceLayout | None = None,
        **kwargs,
    ) -> Seq2SeqModelOutput:
        """Source ids (B, S) and decoder ids (B, T) to decoder states (B, T, D)."""
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            layout=decoder_layout,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class NmtForConditionalGeneration(NmtPreTrainedModel, GenerationMixin):
    """The translation model.

    The padding entry has a zero embedding and no probability: its row gets no gradient even where embeddings and
    output projection are one matrix, so that exported models that start from a zero vector decode the same.
    """

    def __init__(self, config: NmtConfig):
        super().__init__(config)
        self.model = NmtModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        decoder_embedding = "model.decoder.embed_tokens.weight"
        self._tied_weights_keys = {"lm_head.weight": decoder_embedding}
        if config.source_vocab_size is None:
            shared = "model.encoder.embed_tokens.weight"
            self._tied_weights_keys = {"lm_head.weight": shared, decoder_embedding: shared}
        self.post_init()

    def get_encoder(self, modality=None):
        return self.model.encoder

    def get_decoder(self):
        return self.model.decoder

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        label_smoothing: float = 0.0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool = True,
        token_function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Logits (B, T, V), and with labels the loss.

        Args:
            labels: target ids (B, T), -100 where there is no token. Without `decoder_input_ids` the decoder is fed the
                labels shifted right; positions without a label are not computed.
            label_smoothing: see `smoothed_cross_entropy`.
            num_items_in_batch: divisor of the summed loss, such as the tokens of all accumulated batches; by default
                the real tokens of this one.
            return_logits: False leaves them out, so that the loss never holds all of them at a time.
            token_function: what `loss` is instead, undivided: given decoder states (N, D) of all real target tokens,
                row by row, the output projection (V, D) and the target ids (N).
        """
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        layout = None
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                layout = SequenceLayout.from_mask(_up_to_last_label(labels), *labels.shape, device=labels.device)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=self.config.use_cache if use_cache is None else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            decoder_layout=layout,
        )
        loss = None
        if labels is not None:
            is_token = labels != -100
            tokens = outputs.last_hidden_state[is_token], self.lm_head.weight, labels[is_token]
            if token_function is not None:
                loss = token_function(*tokens)
            else:
                loss = smoothed_cross_entropy(*tokens, masked_id=self.config.pad_token_id, smoothing=label_smoothing)
                loss = loss / (is_token.sum() if num_items_in_batch is None else num_items_in_batch)
        logits = None
        if return_logits:
            logits = self.lm_head(outputs.last_hidden_state)
            logits[..., self.config.pad_token_id] = MASKED_LOGIT
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """The start symbol, then the labels but the last: (B, T) -> (B, T)."""
        shifted = labels.new_full(labels.shape, self.config.decoder_start_token_id)
        shifted[:, 1:] = labels[:, :-1]
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    @staticmethod
    def create_masks_for_generate(attention_mask: torch.Tensor | None, **kwargs) -> torch.Tensor | None:
        """The mask as it is: the decoder makes the causal one itself, of static caches too."""
        return attention_mask

    def push_to_hub(self, repo_id: str, *, tokenizer: Any = None, **options: Any) -> Any:
        """Push the model as it is now to the Hub, ready for use: with tokenizer, generation settings, code, pipeline
        and card, in one commit.

        Args:
            repo_id: `owner/name`, or a name alone for a repository of your own.
            tokenizer: None takes that of the folder or repository that the model was loaded from.
            options: private, token, revision, create_pr, exist_ok, commit_message, card, max_shard_size; see
                `sharing_nmt.push_model`.

        Returns:
            The commit, with `oid` and `commit_url`.

        Raises:
            ValueError: there is no tokenizer.
            PushError: it was not pushed, and nothing of it is in the repository.
        """
        from .sharing_nmt import push_model
        from .tokenization_nmt import NmtTokenizer

        if tokenizer is None:
            try:
                tokenizer = NmtTokenizer.from_pretrained(self.name_or_path)
            except (OSError, ValueError) as error:
                origin = self.name_or_path or "memory alone"
                raise ValueError(
                    f"A model is pushed with its tokenizer, and this one comes from {origin}, where there is none. "
                    "Write model.push_to_hub(repo_id, tokenizer=tokenizer)."
                ) from error
        return push_model(self, tokenizer, repo_id, **options)


def _up_to_last_label(labels: torch.LongTensor) -> torch.Tensor:
    """True from the first position to the last that has a label, (B, T): a gap before a label is still computed."""
    return (labels != -100).flip(1).cumsum(1).flip(1) > 0


def _like_embeddings(given: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """An empty (B, L, 0) of the dtype of the states: mask builders read shape, dtype and device only."""
    return hidden.new_empty(*given.shape[:2], 0)


NmtForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
