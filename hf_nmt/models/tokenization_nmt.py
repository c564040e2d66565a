"""Subword tokenizer of a translation model: one vocabulary for both sides, or one for each, language tags, and tags of
sources."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import Tokenizer, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.utils import to_py_obj

SPECIAL_TOKENS = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
"""The order is that of the ids, from 0: the model family relies on them."""


def language_tag(language: str) -> str:
    """The token that asks for a target language, as in Johnson et al. 2017: `<2en>`."""
    return f"<2{language}>"


class NmtTokenizer(PreTrainedTokenizerFast):
    """Encodes source texts, encodes target texts as labels, decodes target ids.

    `tokenizer(texts)` gives source ids and `tokenizer(text_target=texts)` target ids, both closed by `</s>`.
    `decode` and `batch_decode` read TARGET ids; negative ids, the padding of labels, are left out. The folder holds
    `tokenizer.json` and, with separate vocabularies, `tokenizer_target.json`.

    Special tokens written out in a text (`</s>`, `<2de>`) are text: they are never read as special tokens. Tags of
    sources (`<BT>`) are written out, and each is one token wherever it stands in a source; in a target they are text,
    and decoded text has none.

    An encoding call sets padding, truncation and language on the shared Rust object, as in all of Transformers, so
    threads that encode need a copy each. Decoding is free of state.

    Args:
        target_tokenizer_object: Rust tokenizer of the target side; None where both sides share one vocabulary.
        target_tokenizer_file: the same as a file; `from_pretrained` finds it.
        separate_vocabularies: the target side has a vocabulary of its own.
        language_tags: a tag that names the target language opens every source.
        source_languages: codes that the model reads; empty where nothing is known.
        target_languages: codes that the model writes; empty where nothing is known.
        source_tags: words that tell something of a source, such as how it was made (Caswell et al. 2019).
        src_lang: language of the next sources; the only source language where there is one.
        tgt_lang: language to translate into; the only target language where there is one.

    Raises:
        ValueError: a language that the tokenizer was not trained for, or a missing target vocabulary.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "tokenizer_file": "tokenizer.json",
        "target_tokenizer_file": "tokenizer_target.json",
    }
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(
        self,
        *args,
        target_tokenizer_object: Tokenizer | None = None,
        target_tokenizer_file: str | None = None,
        separate_vocabularies: bool = False,
        language_tags: bool = False,
        source_languages: Sequence[str] = (),
        target_languages: Sequence[str] = (),
        source_tags: Sequence[str] = (),
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **kwargs,
    ):
        for name, token in SPECIAL_TOKENS.items():
            kwargs.setdefault(name, token)
        kwargs.setdefault("split_special_tokens", True)
        kwargs.setdefault("extra_special_tokens", [language_tag(code) for code in target_languages if language_tags])
        # What the base class is given is what it writes to tokenizer_config.json, read back from these attributes.
        super().__init__(
            *args,
            separate_vocabularies=separate_vocabularies,
            language_tags=language_tags,
            source_languages=list(source_languages),
            target_languages=list(target_languages),
            source_tags=list(source_tags),
            src_lang=src_lang,
            tgt_lang=tgt_lang,
            **kwargs,
        )
        for name in ("is_local", "local_files_only"):  # where it was read from, of no use in a saved folder
            self.init_kwargs.pop(name, None)
        self.separate_vocabularies = separate_vocabularies
        self.language_tags = language_tags
        self.source_languages = list(source_languages)
        self.target_languages = list(target_languages)
        self.source_tags = list(source_tags)
        self._source_backend = self._target_backend = self._tokenizer
        if separate_vocabularies:
            if target_tokenizer_object is None:
                if not target_tokenizer_file or not os.path.isfile(target_tokenizer_file):
                    raise ValueError(
                        f"The tokenizer in {self.name_or_path or 'memory'} has separate vocabularies, but the target "
                        "side is missing: tokenizer_target.json belongs beside tokenizer.json."
                    )
                target_tokenizer_object = Tokenizer.from_file(target_tokenizer_file)
            self._target_backend = target_tokenizer_object
        elif self.source_tags:
            self._target_backend = _with_special(self._tokenizer, self.source_tags)
        self.src_lang = src_lang
        self.tgt_lang = tgt_lang

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs) -> dict[str, Any]:
        # The base class rebuilds a subclass that has an `__init__` from its bare vocabulary and so loses normalizer,
        # pre-tokenizer and decoder; tokenizer.json is to be read whole.
        return kwargs

    # Vocabularies

    @property
    def source_backend(self) -> Tokenizer:
        return self._source_backend

    @property
    def target_backend(self) -> Tokenizer:
        """The Rust tokenizer of the target side: `source_backend` itself where the vocabulary is shared, but for tags
        of sources, which are text on this side."""
        return self._target_backend

    @property
    def source_vocab_size(self) -> int:
        """Number of source ids, added tokens included; also `len(tokenizer)`."""
        return self._source_backend.get_vocab_size(with_added_tokens=True)

    @property
    def target_vocab_size(self) -> int:
        return self._target_backend.get_vocab_size(with_added_tokens=True)

    def convert_target_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        """Target pieces of target ids, as text; `convert_ids_to_tokens` gives those of source ids."""
        special = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._target_backend.id_to_token(i) for i in map(int, to_py_obj(ids)) if i >= 0 and i not in special]

    # Languages

    @property
    def src_lang(self) -> str | None:
        return self._src_lang

    @src_lang.setter
    def src_lang(self, language: str | None) -> None:
        self._src_lang = self._known(language, self.source_languages, "src_lang")

    @property
    def tgt_lang(self) -> str | None:
        return self._tgt_lang

    @tgt_lang.setter
    def tgt_lang(self, language: str | None) -> None:
        self._tgt_lang = self._known(language, self.target_languages, "tgt_lang")
        self._switch_to_input_mode()

    @staticmethod
    def _known(language: str | None, languages: list[str], name: str) -> str | None:
        if language is None:
            return languages[0] if len(languages) == 1 else None
        if languages and language not in languages:
            raise ValueError(
                f"{name} is {language!r}, which this tokenizer was not trained for. Known: {', '.join(languages)}."
            )
        return language

    @property
    def language_tag_id(self) -> int:
        """Id of the tag of `tgt_lang`, which opens each source.

        Raises:
            ValueError: `tgt_lang` is not set, and there are several target languages.
        """
        if self.tgt_lang is None:
            raise ValueError(
                f"This tokenizer serves several target languages: set tgt_lang to {', '.join(self.target_languages)}."
            )
        return self._source_backend.token_to_id(language_tag(self.tgt_lang))

    def _template(self, language: str | None) -> processors.TemplateProcessing:
        tokens = [language_tag(language)] if language else []
        special = [*tokens, self.eos_token]
        return processors.TemplateProcessing(
            single=" ".join([*tokens, "$A", self.eos_token]),
            special_tokens=[(token, self._source_backend.token_to_id(token)) for token in special],
        )

    # Encoding

    def _switch_to_input_mode(self) -> None:
        self._tokenizer, self._reads_target = self._source_backend, False
        if self.language_tags:
            self._source_backend.post_processor = self._template(self.tgt_lang)

    def _switch_to_target_mode(self) -> None:
        self._tokenizer, self._reads_target = self._target_backend, True
        if self.language_tags and not self.separate_vocabularies:
            self._target_backend.post_processor = self._template(None)

    def __call__(self, *args, src_lang: str | None = None, tgt_lang: str | None = None, **kwargs) -> BatchEncoding:
        """As in Transformers; `src_lang` and `tgt_lang` hold for this call only."""
        languages = self.src_lang, self.tgt_lang
        try:
            if src_lang is not None:
                self.src_lang = src_lang
            if tgt_lang is not None:
                self.tgt_lang = tgt_lang
            return super().__call__(*args, **kwargs)
        finally:
            self._src_lang, self._tgt_lang = languages
            self._switch_to_input_mode()

    def _encode_plus(self, text, *args, **kwargs) -> BatchEncoding:
        if self.language_tags and not self._reads_target:
            _ = self.language_tag_id  # a source without its tag would be translated into any language
        if isinstance(text, (list, tuple)) and not text:
            return BatchEncoding(
                {name: [] for name in self.model_input_names}, tensor_type=kwargs.get("return_tensors")
            )
        try:
            return super()._encode_plus(text, *args, **kwargs)
        except TypeError as error:
            for number, one in enumerate([text] if isinstance(text, str) else text):
                if isinstance(one, str) and any("\ud800" <= character <= "\udfff" for character in one):
                    raise ValueError(f"Text {number} is not Unicode text: {one!r} holds a lone surrogate.") from error
            raise

    # Decoding

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs) -> str | list[str]:
        """Text of target ids: a string for one sequence, a list for a batch of lists, or of rows of an array."""
        ids = to_py_obj(token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids)
        if not isinstance(ids, (list, tuple)) or not ids or not isinstance(ids[0], (list, tuple)):
            return self._decode(ids, skip_special_tokens, **kwargs)
        texts = self._target_backend.decode_batch([_real(row) for row in ids], skip_special_tokens)
        return [self._cleaned(text, **kwargs) for text in texts]

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, *args, **kwargs) -> list[str]:
        ids = to_py_obj(sequences)
        return super().batch_decode(ids, skip_special_tokens, *args, **kwargs) if len(ids) else []

    def _decode(self, token_ids: Any, skip_special_tokens: bool = False, *args, **kwargs) -> str:
        token_ids = [token_ids] if isinstance(token_ids, int) else token_ids
        return self._cleaned(self._target_backend.decode(_real(token_ids), skip_special_tokens), *args, **kwargs)

    def _cleaned(self, text: str, clean_up_tokenization_spaces: bool | None = None, **kwargs) -> str:
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    # Saving

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike,
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        for backend in (self._source_backend, self._target_backend):
            # The last call's truncation would go into the file, and hold for whoever reads it with `tokenizers` alone.
            backend.no_truncation()
            backend.no_padding()
        files = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        if not self.separate_vocabularies:
            return files
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        target_file = os.path.join(str(save_directory), prefix + self.vocab_files_names["target_tokenizer_file"])
        self._target_backend.save(target_file)
        return (*files, target_file)


def _with_special(backend: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """A copy to which some added tokens are special: not read from a text, and left out of one that is decoded."""
    written = json.loads(backend.to_str())
    for token in written["added_tokens"]:
        token["special"] |= token["content"] in tokens
    return Tokenizer.from_str(json.dumps(written))


def _real(ids: Sequence[int]) -> list[int]:
    return [int(i) for i in ids if i >= 0]


NmtTokenizer.register_for_auto_class()
