"""What the translation pipeline and the translator of hf_nmt share: languages, length limits, sorted batches.

Works on every encoder-decoder of Transformers through its `generate`. Shapes: B sequences, S source positions.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.modeling_outputs import BaseModelOutput

from .sentences_nmt import INSTALL_SPLITTER, SplitText, has_splitter, split_text

# Defaults of the pipeline and of DecodingSettings.
NUM_BEAMS = 5
MAX_LENGTH_RATIO = 2.0
MAX_LENGTH_EXTRA = 20
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Languages:
    """The languages of a model, by the conventions of its tokenizer.

    Attributes:
        sources, targets: codes the model has; empty where it does not tell.
    """

    tokenizer: Any
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    # How a target language is chosen: "forced" first token (NLLB, mBART, M2M100), "tag" by the tokenizer (ours), "text"
    # in front of the source (Marian), or "fixed".
    kind: str

    @classmethod
    def of(cls, config: Any, tokenizer: Any) -> Languages:
        """Read the languages of a loaded model and its tokenizer."""
        if hasattr(tokenizer, "_build_translation_inputs"):
            codes = getattr(tokenizer, "lang_code_to_id", None) or getattr(tokenizer, "extra_special_tokens", ())
            return cls(tokenizer, tuple(codes), tuple(codes), "forced")
        if getattr(tokenizer, "language_tags", False):
            return cls(tokenizer, tuple(tokenizer.source_languages), tuple(tokenizer.target_languages), "tag")
        source = getattr(config, "source_language", None) or getattr(tokenizer, "source_lang", None)
        if codes := getattr(tokenizer, "supported_language_codes", None):
            return cls(tokenizer, (source,) if source else (), tuple(code.strip("<>") for code in codes), "text")
        target = getattr(config, "target_language", None) or getattr(tokenizer, "target_lang", None)
        return cls(tokenizer, (source,) if source else (), (target,) if target else (), "fixed")

    def select(self, source: str | None, target: str | None) -> tuple[str | None, str, int | None]:
        """Set the tokenizer to a language pair.

        Returns:
            The source language where known, the text to put in front of each source, the token that each translation
            must open with.

        Raises:
            ValueError: the model does not have the language, or needs one and none was given.
        """
        source = _chosen(source, self.sources, "source")
        target = _chosen(target, self.targets, "target")
        if self.kind in ("forced", "tag"):
            source = source or self.tokenizer.src_lang
            target = target or getattr(self.tokenizer, "tgt_lang", None)
            if target is None:
                raise ValueError(f"This model has several target languages; choose one of {_listed(self.targets)}.")
            self.tokenizer.src_lang, self.tokenizer.tgt_lang = source, target
        if self.kind == "forced":
            ids = getattr(self.tokenizer, "lang_code_to_id", None) or {}
            return source, "", ids.get(target, self.tokenizer.convert_tokens_to_ids(target))
        if self.kind == "text" and target is not None:
            return source, f">>{target}<< ", None
        return source or (self.sources[0] if len(self.sources) == 1 else None), "", None


def _chosen(given: str | None, known: Sequence[str], side: str) -> str | None:
    """The model's own spelling of a language code: `de` finds `de_DE` where there is just one such code."""
    if given is None or not known or given in known:
        return given
    wanted = given.replace("-", "_").lower()
    spellings = {code: code.replace("-", "_").lower() for code in known}
    exact = [code for code, spelling in spellings.items() if spelling == wanted]
    parts = [code for code, spelling in spellings.items() if spelling.split("_")[0] == wanted]
    if len(found := exact or parts) == 1:
        return found[0]
    near = difflib.get_close_matches(given, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"The {side} language {given!r} was asked for; this model has {_listed(known)}.{hint}")


def _listed(codes: Sequence[str]) -> str:
    return ", ".join(sorted(codes))


def source_limit(model: Any, tokenizer: Any) -> int | None:
    """Longest source in tokens, special ones included; None where neither model nor tokenizer sets a limit."""
    limits = [getattr(model.config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    limits = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**9]
    return min(limits, default=None)


def target_limit(source_length: int, model: Any, ratio: float, extra: int, cap: int | None = None) -> int:
    """Longest translation of a source, in tokens: ratio * source_length + extra, at most `cap` and what the model takes.

    One position of the model is for the start symbol, one is kept free.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [int(ratio * source_length + extra), cap, positions - 2 if isinstance(positions, int) else None]
    return max(1, min(limit for limit in limits if limit is not None))


class LongTextError(ValueError):
    """A text over the limit that may not be split; `index` is its position among the texts."""

    def __init__(self, message: str, index: int):
        self.index = index
        super().__init__(message)


@dataclass(frozen=True)
class EncodedText:
    """A text, split and encoded.

    Attributes:
        split: its sentences, and how to put their translations together.
        sentences: source ids of each, special tokens included.
        num_truncated: sentences of which the end was cut off.
    """

    split: SplitText
    sentences: list[list[int]]
    num_truncated: int = 0


def encode_texts(
    texts: Sequence[str],
    tokenizer: Any,
    *,
    language: str | None = None,
    prefix: str = "",
    split_sentences: bool | str = "auto",
    limit: int | None = None,
    truncate: bool = False,
) -> list[EncodedText]:
    """Split texts into sentences and encode these.

    Args:
        language: code of the texts' language, for the splitter.
        prefix: put in front of every sentence.
        split_sentences: see `sentences_nmt.split_text`.
        limit: longest sentence in tokens. What is longer is cut into parts that are all translated.
        truncate: cut off what exceeds the limit instead.

    Raises:
        LongTextError: a text is over the limit and may not be split.
        ValueError: sentencex is asked for and not installed.
    """
    encode = functools.partial(tokenizer, return_attention_mask=False, return_token_type_ids=False)

    def all_ids(sentences: list[str], **options: Any) -> list[list[int]]:
        return encode([prefix + sentence for sentence in sentences], **options)["input_ids"] if sentences else []

    splits = [split_text(text, language, split_sentences) for text in texts]
    remaining = iter(all_ids([sentence for split in splits for sentence in split.sentences]))
    encoded = [EncodedText(split, list(itertools.islice(remaining, len(split.sentences)))) for split in splits]
    for index, text in enumerate(encoded):
        longest = max(map(len, text.sentences), default=0)
        if limit is None or longest <= limit:
            continue
        if truncate:
            ids = all_ids(text.split.sentences, truncation=True, max_length=limit)
            too_long = sum(1 for sentence in text.sentences if len(sentence) > limit)
            encoded[index] = EncodedText(text.split, ids, too_long)
            continue
        if split_sentences is False or not has_splitter():
            remedy = "Let it be split into sentences" if split_sentences is False else INSTALL_SPLITTER
            raise LongTextError(
                f"{longest} tokens were given, the limit is {limit}: {text.split.sentences[0][:60]!r}... "
                f"{remedy}, or ask for truncation.",
                index,
            )
        split = text.split.cut(lambda part: len(all_ids([part])[0]) <= limit)
        encoded[index] = EncodedText(split, all_ids(split.sentences))
    return encoded


class _RowLimits(StoppingCriteria):
    """Ends each sentence at its own length, so that a translation does not depend on its neighbours in the batch."""

    def __init__(self, lengths: torch.LongTensor):
        self.lengths = lengths

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        rows = input_ids.shape[0] // self.lengths.shape[0]  # beams or samples of one sentence follow each other
        return input_ids.shape[1] >= self.lengths.repeat_interleave(rows)


@dataclass(frozen=True)
class DecodedBatch:
    """Translations of some of the sources.

    Attributes:
        indices: which sources, in the order of the rows.
        hypotheses: for each row the n-best token ids, best first, as produced: without start symbol and prompt, with the
            end-of-sentence symbol unless the length limit came first.
        encoder_states: (B, S, D).
        attention_mask: (B, S).
        prompts: for each row the decoder ids it started from.
    """

    indices: list[int]
    hypotheses: list[list[list[int]]]
    encoder_states: torch.Tensor
    attention_mask: torch.Tensor
    prompts: list[list[int]]


def decode(
    model: Any,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    batch_tokens: int,
    prompts: Sequence[Sequence[int]] | None = None,
    **generate_kwargs: Any,
) -> Iterator[DecodedBatch]:
    """Translate encoded sources in batches of like length, longest first.

    Args:
        sources: source ids with their special tokens.
        limits: longest translation of each source, in tokens.
        batch_tokens: source positions of a batch, padding and beams counted; one source is always taken.
        prompts: decoder ids to continue from, start symbol included; None for the start symbol alone.
        generate_kwargs: for `model.generate`.
    """
    num_rows = max(
        _setting(model, generate_kwargs, "num_beams") or 1,
        _setting(model, generate_kwargs, "num_return_sequences") or 1,
    )
    start = _setting(model, generate_kwargs, "decoder_start_token_id")
    start = _setting(model, generate_kwargs, "bos_token_id") if start is None else start
    prompts = [[start]] * len(sources) if prompts is None else [list(prompt) for prompt in prompts]
    order = sorted(range(len(sources)), key=lambda i: (-len(prompts[i]), -len(sources[i])))
    batch: list[int] = []
    for index in order:
        longest = len(sources[batch[0]]) if batch else 0
        longest = max(longest, len(sources[index]))
        if batch and (
            len(prompts[index]) != len(prompts[batch[0]]) or longest * (len(batch) + 1) * num_rows > batch_tokens
        ):
            yield from _decode_batch(model, sources, limits, prompts, batch, generate_kwargs)
            batch = []
        batch.append(index)
    if batch:
        yield from _decode_batch(model, sources, limits, prompts, batch, generate_kwargs)


def _setting(model: Any, generate_kwargs: dict[str, Any], name: str) -> Any:
    value = generate_kwargs.get(name)
    return getattr(model.generation_config, name, None) if value is None else value


def _decode_batch(model, sources, limits, prompts, batch, generate_kwargs) -> Iterator[DecodedBatch]:
    try:
        yield _generate(model, sources, limits, prompts, batch, generate_kwargs)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from _decode_batch(model, sources, limits, prompts, half, generate_kwargs)


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Rows of ids as one tensor, padded on the right, and its mask: both (B, longest)."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values)
        mask[row, : len(values)] = 1
    return ids.to(device), mask.to(device)


def encoder_states(model: Any, input_ids: torch.LongTensor, attention_mask: torch.LongTensor) -> torch.Tensor:
    """Last states of the encoder, (B, S, D)."""
    outputs = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
    return outputs.last_hidden_state


@torch.inference_mode()
def _generate(model, sources, limits, prompts, batch, generate_kwargs) -> DecodedBatch:
    pad = _setting(model, generate_kwargs, "pad_token_id") or 0
    input_ids, attention_mask = padded([sources[i] for i in batch], pad, model.device)
    states = encoder_states(model, input_ids, attention_mask)
    decoder_ids = torch.tensor([prompts[i] for i in batch], device=model.device)
    prompt_length = decoder_ids.shape[1]
    lengths = torch.tensor([prompt_length + limits[i] for i in batch], device=model.device)
    generate_kwargs = {name: value for name, value in generate_kwargs.items() if name != "stopping_criteria"} | {
        "stopping_criteria": StoppingCriteriaList(
            [*generate_kwargs.get("stopping_criteria", ()), _RowLimits(lengths)]
        ),
        # One more than any row may reach: a forced end of sentence (mBART, Marian) would hide that a row was cut.
        "max_length": int(lengths.max()) + 1,
        "max_new_tokens": None,
    }
    ids = model.generate(
        input_ids,
        attention_mask=attention_mask,
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        decoder_input_ids=decoder_ids,
        **generate_kwargs,
    )
    ids = getattr(ids, "sequences", ids)[:, prompt_length:].tolist()
    eos = _setting(model, generate_kwargs, "eos_token_id")
    ends = set(eos) if isinstance(eos, list | tuple) else {eos}
    num_sequences = len(ids) // len(batch)
    hypotheses = [
        [_until_end(ids[row * num_sequences + n], ends, limits[i]) for n in range(num_sequences)]
        for row, i in enumerate(batch)
    ]
    return DecodedBatch(list(batch), hypotheses, states, attention_mask, [prompts[i] for i in batch])


def _until_end(ids: list[int], ends: set[int], limit: int) -> list[int]:
    """Cut after the first end of sentence. What follows is filled with the pad symbol, or by beam search with the end of
    sentence where the pad id is 0."""
    length = next((position + 1 for position, token in enumerate(ids) if token in ends), len(ids))
    return ids[: min(length, limit)]
