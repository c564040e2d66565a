"""From texts to what a model is given: languages, sentences, length limits, and the defaults of a translation.

The same for the translation pipeline and the translator of hf_nmt, and for every encoder-decoder of Transformers.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from transformers import MBart50Tokenizer, MBartTokenizer

from .language_codes_nmt import is_known, same_language
from .sentences_nmt import INSTALL_SPLITTER, SplitText, has_splitter, split_text

# Defaults of the pipeline and of DecodingSettings.
NUM_BEAMS = 5
MAX_LENGTH_RATIO = 2.0
MAX_LENGTH_EXTRA = 20
BATCH_TOKENS = 8192


class Selection(NamedTuple):
    """What a pair of languages asks of a translation.

    Attributes:
        source_language, target_language: the model's own codes, where they are known.
        prefix: text in front of each source.
        forced_bos_token_id: token that each translation must open with; None where there is none.
        decoder_start_token_id: token that the decoder starts from; None where it is the model's own.
    """

    source_language: str | None
    prefix: str = ""
    forced_bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    target_language: str | None = None


@dataclass(frozen=True)
class Languages:
    """The languages of a model, by the conventions of its configuration and tokenizer.

    Attributes:
        sources, targets: codes the model has; empty where it does not tell.
        kind: how a target language is chosen:
            "forced": as the first token of the translation (NLLB, M2M100, mBART-50);
            "start": as the token that the decoder starts from (mBART);
            "tag": by the tokenizer (ours); "text": as a code in front of the source (Marian);
            "prefix": as an instruction in front of the source (T5);
            "fixed": not at all.
        prefixes: the instructions, by (source, target).
        usual: the pair that is meant where none is named, as far as the tokenizer does not tell.
    """

    tokenizer: Any
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    kind: str
    prefixes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    usual: tuple[str | None, str | None] = (None, None)

    @classmethod
    def of(cls, config: Any, tokenizer: Any) -> Languages:
        """Read the languages of a loaded model and its tokenizer."""
        if hasattr(tokenizer, "_build_translation_inputs"):
            known = _codes(tokenizer)
            kind = "start" if isinstance(tokenizer, MBartTokenizer) else "forced"
            noted = getattr(config, "source_language", None)  # see `set_languages`
            return cls(tokenizer, known, known, kind, usual=(noted if noted in known else None, None))
        if getattr(tokenizer, "language_tags", False):
            return cls(tokenizer, tuple(tokenizer.source_languages), tuple(tokenizer.target_languages), "tag")
        source = getattr(config, "source_language", None)
        if source is None and (own := getattr(tokenizer, "source_lang", None)) and is_known(own):
            source = own  # and not a group of languages, such as `mul` or `ROMANCE` of Marian
        if codes := getattr(tokenizer, "supported_language_codes", None):
            usual = None, getattr(config, "target_language", None)
            targets = tuple(code.strip("<>") for code in codes)
            return cls(tokenizer, (source,) if source else (), targets, "text", usual=usual)
        if prefixes := _prefixes(config):
            sources, targets = (tuple(dict.fromkeys(codes)) for codes in zip(*prefixes, strict=True))
            usual = source, getattr(config, "target_language", None)
            return cls(tokenizer, sources, targets, "prefix", prefixes, usual)
        target = getattr(config, "target_language", None) or getattr(tokenizer, "target_lang", None)
        return cls(tokenizer, (source,) if source else (), (target,) if target else (), "fixed")

    def select(self, source: str | None, target: str | None) -> Selection:
        """Set the tokenizer to a language pair.

        Raises:
            ValueError: the model does not have the language, or needs one and none was given.
        """
        source = _chosen(source, self.sources, "source") or self.usual[0]
        target = _chosen(target, self.targets, "target") or self.usual[1]
        if self.kind in ("forced", "start", "tag"):
            source = source or self.tokenizer.src_lang
            target = target or getattr(self.tokenizer, "tgt_lang", None)
            if target is None:
                raise ValueError(f"This model has several target languages; choose one of {_listed(self.targets)}.")
            set_languages(self.tokenizer, source, target)
        if self.kind in ("forced", "start"):
            ids = getattr(self.tokenizer, "lang_code_to_id", None) or {}
            token = ids.get(target, self.tokenizer.convert_tokens_to_ids(target))
            return Selection(source, target_language=target, **{_TOKENS[self.kind]: token})
        source = source or (self.sources[0] if len(self.sources) == 1 else None)
        if self.kind == "text":
            return Selection(source, f">>{target}<< " if target is not None else "", target_language=target)
        if self.kind == "prefix":
            return Selection(source, self._instruction(source, target), target_language=target)
        target = target or (self.targets[0] if len(self.targets) == 1 else None)
        return Selection(source, target_language=target)

    def _instruction(self, source: str | None, target: str | None) -> str:
        if source is None or target is None:
            return ""  # the instruction may stand in the text already
        if (source, target) not in self.prefixes:
            pairs = _listed(f"{one}-{other}" for one, other in self.prefixes)
            raise ValueError(f"{source}-{target} was asked for; this model has {pairs}.")
        return self.prefixes[source, target]


# A special token that may be a code: deu_Latn, de_DE, and __de__ of M2M100 in the layout of NLLB.
_CODE = re.compile(r"(?:__)?[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*(?:__)?")


def _codes(tokenizer: Any) -> tuple[str, ...]:
    """The codes of a tokenizer that marks languages by tokens: those of its class, and those added to it."""
    own = getattr(tokenizer, "lang_code_to_id", None) or ()
    if hasattr(tokenizer, "get_lang_id"):  # M2M100, whose special tokens are not the codes
        return tuple(own)
    added = (str(token) for token in getattr(tokenizer, "extra_special_tokens", ()))
    return tuple(dict.fromkeys([*own, *filter(_CODE.fullmatch, added)]))


def set_languages(tokenizer: Any, source: str | None, target: str | None) -> None:
    """Set a tokenizer to a pair of languages, so that it can be saved and loaded again.

    MBart50Tokenizer looks the language it was saved with up in its own list as it is loaded, where a code that was
    added is not; it is saved without one then, and starts from its usual one.
    """
    tokenizer.src_lang, tokenizer.tgt_lang = source, target
    if not isinstance(tokenizer, MBart50Tokenizer):
        return
    if is_saved_with(tokenizer, source):
        tokenizer.init_kwargs["src_lang"] = source
    else:
        tokenizer.init_kwargs.pop("src_lang", None)


@contextlib.contextmanager
def languages_kept(tokenizer: Any) -> Iterator[None]:
    """Give the tokenizer back in the languages that it is set to now: it is saved with them."""
    if not hasattr(tokenizer, "src_lang"):
        yield
        return
    before = tokenizer.src_lang, tokenizer.tgt_lang
    try:
        yield
    finally:
        if (tokenizer.src_lang, tokenizer.tgt_lang) != before:
            set_languages(tokenizer, *before)


def is_saved_with(tokenizer: Any, source: str | None) -> bool:
    """Whether a tokenizer that is set to a source language is still set to it when it is loaded again."""
    return not isinstance(tokenizer, MBart50Tokenizer) or source is None or source in tokenizer.lang_code_to_id


@contextlib.contextmanager
def some_target(tokenizer: Any) -> Iterator[None]:
    """Have a tokenizer of many languages that is set to no target language (M2M100 refuses to encode one then) take
    that of its sources within the block."""
    unset = hasattr(tokenizer, "_build_translation_inputs") and tokenizer.tgt_lang is None
    if unset:
        tokenizer.tgt_lang = tokenizer.src_lang
    try:
        yield
    finally:
        if unset:
            tokenizer.tgt_lang = None


_TOKENS = {"forced": "forced_bos_token_id", "start": "decoder_start_token_id"}
# As T5 names its tasks: translation_en_to_de.
TASK_LANGUAGES = re.compile(r"translation_(.+)_to_(.+)")


def _prefixes(config: Any) -> dict[tuple[str, str], str]:
    """The instruction of each pair of languages, where the configuration has such."""
    tasks = getattr(config, "task_specific_params", None) or {}
    found = {task: TASK_LANGUAGES.fullmatch(task) for task in tasks}
    return {
        (names[1], names[2]): tasks[task]["prefix"]
        for task, names in found.items()
        if names is not None and "prefix" in tasks[task]
    }


def _chosen(given: str | None, known: Sequence[str], side: str) -> str | None:
    """The model's own spelling of a language code: `de` finds `de_DE` or `deu_Latn` where there is just one such."""
    if given is None or not known or given in known:
        return given
    spelling = _spelling(given)
    exact = [code for code in known if _spelling(code) == spelling]
    found = exact or same_language(given, known)
    if len(found) == 1:
        return found[0]
    asked = f"The {side} language {given!r} was asked for"
    if found:
        raise ValueError(f"{asked}, which may be {' or '.join(sorted(found))} of this model; write which.")
    near = [code for code in known if _spelling(code).startswith(spelling)] or difflib.get_close_matches(given, known)
    raise ValueError(f"{asked}; this model has {_listed(known)}.{f' Did you mean {near[0]!r}?' if near else ''}")


def _spelling(code: str) -> str:
    return code.strip("_").replace("-", "_").lower()


def _listed(codes: Iterable[str]) -> str:
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
