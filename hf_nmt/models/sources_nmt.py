"""From texts to what a model is given: languages, sentences, length limits, and the defaults of a translation.

The same for the translation pipeline and the translator of hf_nmt, and for every encoder-decoder of Transformers.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    # How a target language is chosen: "forced" first token (NLLB, mBART, M2M100), "tag" by the tokenizer (ours),
    # "text" in front of the source (Marian), or "fixed".
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
        source = source or (self.sources[0] if len(self.sources) == 1 else None)
        return source, f">>{target}<< " if self.kind == "text" and target is not None else "", None


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
    near = [code for code in known if spellings[code].startswith(wanted)] or difflib.get_close_matches(given, known)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"The {side} language {given!r} was asked for; this model has {_listed(known)}.{hint}")


def _listed(codes: Sequence[str]) -> str:
    return ", ".join(sorted(codes))


def source_limit(model: Any, tokenizer: Any) -> int | None:
    """Longest source in tokens, special ones included; None where neither model nor tokenizer sets a limit."""
    given = [getattr(model.config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    limits = [limit for limit in given if isinstance(limit, int) and 0 < limit < 10**9]
    return min(limits, default=None)


def target_limit(
    source_length: int, model: Any, ratio: float, extra: int, cap: int | None = None, prompt_length: int = 1
) -> int:
    """Longest translation of a source, in tokens: ratio * source_length + extra, within `cap` and the model's limit.

    Args:
        prompt_length: decoder ids that the search starts from, which take their place in the model.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    room = positions - prompt_length if isinstance(positions, int) else None
    limits = [int(ratio * source_length + extra), cap, room]
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
