"""Sentences before a sentence, for models that were trained to read them (`data.contexts`)."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from hf_nmt.generation.inputs import Line
from hf_nmt.protocols import CONTEXT_SEPARATOR


def sentences_read(system: Any) -> int:
    """How many sentences before each a model, or the model of a translator, was trained on; 0 where it reads them
    alone."""
    config = getattr(getattr(system, "model", system), "config", None)
    number = getattr(config, "context_sentences", 0)
    return number if isinstance(number, int) else 0


def shortened(texts: list[str], prefix: str, tokenizer: Any, limit: int | None) -> list[str]:
    """Texts whose oldest sentences are left out where all are more than so many tokens, the prefix included."""
    texts = list(texts)
    rows = list(range(len(texts))) if limit is not None else []
    while rows := [row for row in rows if CONTEXT_SEPARATOR in texts[row]]:
        ids = tokenizer([prefix + texts[row] for row in rows], verbose=False)["input_ids"]
        rows = [row for row, one in zip(rows, ids, strict=True) if len(one) > (limit or 0)]
        for row in rows:
            texts[row] = texts[row].partition(CONTEXT_SEPARATOR)[2].lstrip()
    return texts


def with_context(lines: Iterable[Line], sentences: int) -> Iterator[Line]:
    """Lines of input with up to so many before each.

    An empty line ends a document, and so does a row with another `article` than the row before, or with other
    languages.
    """
    before: collections.deque[str] = collections.deque(maxlen=sentences)
    document: tuple[Any, ...] = ()
    for line in lines:
        now = (line.article, *line.languages)
        if now != document or not line.text.strip():
            before.clear()
        document = now
        if line.text.strip():
            opening = "".join(f"{text} {CONTEXT_SEPARATOR} " for text in before)
            before.append(line.text)
            yield dataclasses.replace(line, before=opening)
        else:
            yield line
