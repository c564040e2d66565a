"""`pipeline("translation")`, which Transformers 5 removed, with the calls and the output of Transformers 4.

Unlike there, long input is split into sentences and put together again, and nothing is cut off unless asked for.
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GenerationConfig, Pipeline
from transformers.dynamic_module_utils import custom_object_save

from .decoding_nmt import decode
from .sharing_nmt import push_model
from .sources_nmt import (
    BATCH_TOKENS,
    MAX_LENGTH_EXTRA,
    MAX_LENGTH_RATIO,
    NUM_BEAMS,
    TASK_LANGUAGES,
    EncodedText,
    Languages,
    encode_texts,
    languages_kept,
    source_limit,
    target_limit,
)

logger = logging.getLogger(__name__)

# Whole numbers from 1 that are often given; `generate` would stumble over anything else somewhere inside.
_COUNTS = ("num_beams", "num_return_sequences", "max_new_tokens", "max_length", "max_source_length")


def _check_counts(given: dict[str, Any]) -> None:
    for name in _COUNTS:
        value = given.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise ValueError(f"{name} must be a whole number from 1, not {value!r}.")


class TranslationPipeline(Pipeline):
    """Translate a text, a list, a generator or a dataset of texts.

    Example: `pipeline("translation", model="runs/<id>/best")("Ein Hund rennt durch den Schnee.")` returns
    `[{"translation_text": "A dog runs through the snow."}]`; a list of texts gives a list of such dicts, and with
    `num_return_sequences` above 1 a list of lists. The task name `translation_de_to_en` sets both languages.

    Args, when it is made or called:
        src_lang, tgt_lang: language codes, for models that have several.
        split_sentences: False translates each text as it is, however many sentences it has. By default every sentence
            is translated on its own, and the translations get the white space of the text back; in an n-best list,
            rank i then joins rank i of every sentence, which keeps it best first. True insists: without sentencex it
            is an error, no warning.
        truncation: True cuts off what exceeds the limit of the source, with a warning. By default a sentence over the
            limit is cut into parts that are all translated, with a warning; with split_sentences=False it is refused.
        max_source_length: limit of the source in tokens, below that of the model.
        batch_size: texts that are translated together.
        return_tensors: token ids under `translation_token_ids` instead of text.
        clean_up_tokenization_spaces: passed to the tokenizer's `decode`.
        any generation parameter: num_beams, max_length, max_new_tokens, num_return_sequences, do_sample ...
    """

    _pipeline_calls_generate = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _load_tokenizer = True
    # Taken where neither the user nor the model's generation settings say otherwise.
    _default_generation_config = GenerationConfig(num_beams=NUM_BEAMS)

    def __init__(self, *args: Any, **kwargs: Any):
        self._languages: Languages | None = None
        _check_counts(kwargs)
        super().__init__(*args, **kwargs)
        self.model.eval()  # a model that comes straight from training would drop out at random
        # T5 names a prefix and generation settings for each translation task it was trained on.
        specific = (getattr(self.model.config, "task_specific_params", None) or {}).get(self.task) or {}
        self._prefix = specific.get("prefix") or getattr(self.model.config, "prefix", None) or ""
        self._generation_defaults |= {name: value for name, value in specific.items() if name != "prefix"}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Translate; see the class.

        Raises:
            ValueError: a text that is not text, a language that the model does not have, a text over the model's limit
                that may not be split.
        """
        if hasattr(inputs, "__getitem__") and not isinstance(inputs, str | list | dict | Dataset):
            inputs = list(inputs)  # a tuple, a column of a dataset, an array
        if isinstance(inputs, list) and not inputs:
            return []
        outputs = super().__call__(inputs, *args, **kwargs)
        if isinstance(inputs, list) and all(len(output) == 1 for output in outputs):
            return [output[0] for output in outputs]
        return outputs

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, tokenizer and the code of this pipeline, so that the folder can be used without hf_nmt."""
        super().save_pretrained(save_directory, **kwargs)
        custom_object_save(self, save_directory)  # the base class does so only where the pipeline was registered

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Push model, tokenizer, code, pipeline and card in one commit; see `sharing_nmt.push_model`."""
        return push_model(self.model, self.tokenizer, repo_id, **options)

    def _sanitize_parameters(
        self,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        split_sentences: bool | str | None = None,
        truncation: Any = None,
        max_source_length: int | None = None,
        return_tensors: bool | None = None,
        return_text: bool | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if self._languages is None:  # called by the constructor
            self._languages = Languages.of(self.model.config, self.tokenizer)
            if names := TASK_LANGUAGES.fullmatch(self.task or ""):
                src_lang, tgt_lang = src_lang or names[1], tgt_lang or names[2]
        if src_lang is not None or tgt_lang is not None:
            if not isinstance(src_lang, str | None) or not isinstance(tgt_lang, str | None):
                raise TypeError(
                    f"src_lang and tgt_lang are codes for all texts of a call, and {src_lang!r} and {tgt_lang!r} were "
                    "given. Call the pipeline once for each language."
                )
            self._check_languages(src_lang, tgt_lang)
        _check_counts({**generate_kwargs, "max_source_length": max_source_length})
        given = {
            "src_lang": src_lang,
            "tgt_lang": tgt_lang,
            "split_sentences": split_sentences,
            "truncation": truncation,
            "max_source_length": max_source_length,
        }
        preprocess = {name: value for name, value in given.items() if value is not None}
        forward = dict(generate_kwargs)
        if src_lang is not None:
            forward["src_lang"] = src_lang
        if tgt_lang is not None:
            forward["tgt_lang"] = tgt_lang
        postprocess: dict[str, Any] = {}
        if return_tensors is not None or return_text is not None:
            postprocess["return_tensors"] = bool(return_tensors) and not return_text
        if clean_up_tokenization_spaces is not None:
            postprocess["clean_up_tokenization_spaces"] = clean_up_tokenization_spaces
        return preprocess, forward, postprocess

    def _check_languages(self, src_lang: str | None, tgt_lang: str | None) -> None:
        """Refuse a wrong language when it is named, not when the first text comes."""
        with languages_kept(self.tokenizer):
            self._languages.select(src_lang, tgt_lang)

    def preprocess(
        self,
        text: str,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        split_sentences: bool | str = "auto",
        truncation: Any = False,
        max_source_length: int | None = None,
    ) -> dict[str, EncodedText]:
        if not isinstance(text, str):
            raise ValueError(
                f"A text to translate must be a string, not {type(text).__name__}: {str(text)[:80]!r}. For a dataset "
                'with several columns pass KeyDataset(dataset, "<column>") or dataset["<column>"].'
            )
        limits = [
            limit for limit in (source_limit(self.model, self.tokenizer), max_source_length) if limit is not None
        ]
        with languages_kept(self.tokenizer):
            selected = self._languages.select(src_lang, tgt_lang)
            (encoded,) = encode_texts(
                [text],
                self.tokenizer,
                language=selected.source_language,
                prefix=selected.prefix or self._prefix,
                split_sentences=split_sentences,
                limit=min(limits, default=None),
                truncate=truncation in (True, "longest_first", "only_first"),
            )
        if encoded.split.num_cut or encoded.num_truncated:
            done = "truncated" if encoded.num_truncated else "cut into parts"
            logger.warning("A sentence over the limit of %d tokens was %s: %.60r", min(limits), done, text)
        return {"texts": encoded}

    def _forward(self, inputs: dict[str, Any], src_lang: str | None = None, tgt_lang: str | None = None, **given: Any):
        texts = inputs["texts"] if isinstance(inputs["texts"], list) else [inputs["texts"]]
        sources = [sentence for text in texts for sentence in text.sentences]
        with languages_kept(self.tokenizer):
            selected = self._languages.select(src_lang, tgt_lang)
        tokens = {name: getattr(selected, name) for name in ("forced_bos_token_id", "decoder_start_token_id")}
        overrides = {name: token for name, token in tokens.items() if token is not None}
        kwargs = self._prepare_generate_kwargs(given, **overrides)
        if (config := kwargs.pop("generation_config", None)) is not None:
            kwargs = config.to_diff_dict() | kwargs
        limits = self._target_limits(sources, kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("max_length", "max_new_tokens")}
        hypotheses: list[Any] = [None] * len(sources)
        for batch in decode(self.model, sources, limits, batch_tokens=BATCH_TOKENS, **kwargs):
            for index, n_best in zip(batch.indices, batch.hypotheses, strict=True):
                hypotheses[index] = n_best
        remaining = iter(hypotheses)
        num_sequences = len(hypotheses[0]) if hypotheses else kwargs.get("num_return_sequences") or 1
        # Rank by rank: for each the ids of every sentence.
        ranks = [
            [list(sentence) for sentence in zip(*itertools.islice(remaining, len(text.sentences)), strict=True)]
            or [[]] * num_sequences
            for text in texts
        ]
        return {"splits": [text.split for text in texts], "ranks": ranks}

    def _target_limits(self, sources: list[list[int]], kwargs: dict[str, Any]) -> list[int]:
        """Longest translation of each source: what the user says, else the rule, at most what the model says."""
        own = self.model.generation_config
        if kwargs.get("max_new_tokens") is not None:
            return [max(1, min(kwargs["max_new_tokens"], self._room()))] * len(sources)
        if kwargs.get("max_length") is not None:
            return [max(1, min(kwargs["max_length"] - 1, self._room()))] * len(sources)
        cap = own.max_new_tokens or (own.max_length - 1 if own.max_length else None)
        return [target_limit(len(source), self.model, MAX_LENGTH_RATIO, MAX_LENGTH_EXTRA, cap) for source in sources]

    def _room(self) -> int:
        return target_limit(0, self.model, 0.0, 10**9)

    def postprocess(
        self, outputs: dict[str, Any], return_tensors: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[dict[str, Any]]:
        split, ranks = outputs["splits"], outputs["ranks"]
        if isinstance(split, list):
            (split,), (ranks,) = split, ranks
        if return_tensors:
            return [{"translation_token_ids": torch.tensor([i for ids in rank for i in ids])} for rank in ranks]
        options: dict[str, Any] = {"skip_special_tokens": True}
        if clean_up_tokenization_spaces is not None:
            options["clean_up_tokenization_spaces"] = clean_up_tokenization_spaces
        return [
            {"translation_text": split.join([self.tokenizer.decode(ids, **options) for ids in rank])} for rank in ranks
        ]
