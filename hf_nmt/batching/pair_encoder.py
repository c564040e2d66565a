"""Token ids of pairs, each side by the conventions of the model and of the languages of the row."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hf_nmt.artifacts import hash_folder
from hf_nmt.batching.settings import BatchingSettings
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.models.sources_nmt import Languages, languages_kept
from hf_nmt.protocols import CONTEXT_SEPARATOR, LANGUAGE_COLUMNS


@dataclass
class EncodedRows:
    """Ids of the pairs that were kept.

    Attributes:
        input_ids: of the sources, with their special tokens.
        labels: of the targets, with theirs.
        kept: which of the given rows these are, shape (rows,), bool.
        dropped, changed: how many went for which reason, how many were cut.
    """

    input_ids: list[list[int]]
    labels: list[list[int]]
    kept: np.ndarray
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


class PairEncoder:
    """Encodes pairs within the limits of length.

    Args:
        tokenizer: any tokenizer of Transformers that takes `text_target`.
        settings: limits of length, and what happens beyond them.
        languages: how the model marks its languages; None takes the tokenizer as it is set.
        source_language, target_language: of rows that name none.
        with_context: sources may hold sentences before the one that is translated (`data.contexts`); of those that are
            too long the oldest are left out.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: BatchingSettings,
        *,
        languages: Languages | None = None,
        source_language: str | None = None,
        target_language: str | None = None,
        with_context: bool = False,
    ):
        self.tokenizer = tokenizer
        self.with_context = with_context
        self.settings = settings
        self.languages = languages
        self._usual = source_language, target_language

    def fingerprint(self) -> list[Any]:
        """What determines the ids of a text, for cache keys."""
        with languages_kept(self.tokenizer):
            return self._fingerprint()

    def _fingerprint(self) -> list[Any]:
        # Whatever languages the rows name: how the model marks them, which is not all in the tokenizer.
        marks: list[Any] = []
        if self.languages is not None:
            if None not in self._usual:
                self._select(*self._usual)
            prefixes = sorted([*pair, prefix] for pair, prefix in self.languages.prefixes.items())
            marks = [self.languages.kind, self.languages.usual, self._usual, prefixes]
        set_to = [getattr(self.tokenizer, name, None) for name in ("src_lang", "tgt_lang")]
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return [hash_folder(folder), set_to, marks]

    def limits(self) -> dict[str, Any]:
        limits = self.settings.model_dump(include={"max_source_length", "max_target_length", "too_long"})
        return limits | ({"with_context": True} if self.with_context else {})

    def __call__(self, rows: Mapping[str, Sequence[str]], *, first: int = 0) -> EncodedRows:
        """Encode columns `source` and `target`, and the languages of each row where `LANGUAGE_COLUMNS` are given.

        Args:
            first: number of the first row, from 0, for messages.

        Raises:
            DataError: a pair is too long and `too_long` is `error`.
            ConfigError: the model does not have the language of a row.
        """
        count = len(rows["source"])
        result = EncodedRows([[]] * count, [[]] * count, np.ones(count, dtype=bool))
        with languages_kept(self.tokenizer):
            for pair, members in self._by_languages(rows, count).items():
                prefix = self._select(*pair) if self.languages is not None else ""
                texts = [rows["source"][i] for i in members]
                if self.with_context:
                    result.changed["context_shortened"] += self._shorten(prefix, texts)
                sources = [prefix + text for text in texts]
                targets = [rows["target"][i] for i in members]
                self._side("source", sources, members, result.input_ids, result, first)
                self._side("target", targets, members, result.labels, result, first)
        if not result.kept.all():
            result.input_ids = list(compress(result.input_ids, result.kept))
            result.labels = list(compress(result.labels, result.kept))
        return result

    def _shorten(self, prefix: str, texts: list[str]) -> int:
        """Leave out the oldest sentences of sources that are too long; returns of how many."""
        rows, shortened = list(range(len(texts))), set[int]()
        while rows := [row for row in rows if CONTEXT_SEPARATOR in texts[row]]:
            ids = self._ids_of_sources([prefix + texts[row] for row in rows])
            rows = [row for row, one in zip(rows, ids, strict=True) if len(one) > self.settings.max_source_length]
            shortened |= {*rows}
            for row in rows:
                texts[row] = texts[row].partition(CONTEXT_SEPARATOR)[2].lstrip()
        return len(shortened)

    def _by_languages(
        self, rows: Mapping[str, Sequence[str]], count: int
    ) -> dict[tuple[str | None, str | None], Sequence[int]]:
        """Positions of the rows of each pair of languages."""
        if self.languages is None or not any(name in rows for name in LANGUAGE_COLUMNS):
            return {self._usual: range(count)}
        sides = [
            rows[name] if name in rows else [usual] * count
            for name, usual in zip(LANGUAGE_COLUMNS, self._usual, strict=True)
        ]
        groups: dict[tuple[str | None, str | None], list[int]] = {}
        for index, (source, target) in enumerate(zip(*sides, strict=True)):
            groups.setdefault((source or self._usual[0], target or self._usual[1]), []).append(index)
        return dict(groups)

    def _select(self, source: str | None, target: str | None) -> str:
        """Set the tokenizer to a pair of languages; returns what opens each source."""
        assert self.languages is not None
        try:
            return self.languages.select(source, target).prefix
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _side(
        self,
        side: str,
        texts: list[str],
        members: Sequence[int],
        into: list[list[int]],
        result: EncodedRows,
        first: int,
    ) -> None:
        limit = getattr(self.settings, f"max_{side}_length")
        encode: Callable[..., list[list[int]]] = self._ids_of_sources if side == "source" else self._ids_of_targets
        ids = encode(texts)
        too_long = [row for row, one in enumerate(ids) if len(one) > limit]
        if too_long and self.settings.too_long == "error":
            raise DataError(
                f"The {side} of pair {first + members[too_long[0]] + 1} has {len(ids[too_long[0]])} tokens, more "
                f"than max_{side}_length={limit}. Raise the limit, or set too_long to drop or truncate."
            )
        if too_long and self.settings.too_long == "truncate":
            cut = encode([texts[row] for row in too_long], truncation=True, max_length=limit)
            for row, shorter in zip(too_long, cut, strict=True):
                ids[row] = shorter
            result.changed[f"{side}_truncated"] += len(too_long)
        elif too_long:
            # A pair that is too long on both sides counts once, for its source.
            places = np.array([members[row] for row in too_long])
            result.dropped[f"{side}_too_long"] += int(result.kept[places].sum())
            result.kept[places] = False
        for place, one in zip(members, ids, strict=True):
            into[place] = one

    def _ids_of_sources(self, texts: list[str], **cut: Any) -> list[list[int]]:
        return self._ids(cut, text=texts)

    def _ids_of_targets(self, texts: list[str], **cut: Any) -> list[list[int]]:
        return self._ids(cut, text_target=texts)

    def _ids(self, cut: dict[str, Any], **texts: list[str]) -> list[list[int]]:
        return self.tokenizer(**texts, **cut, return_attention_mask=False, return_token_type_ids=False, verbose=False)[
            "input_ids"
        ]
