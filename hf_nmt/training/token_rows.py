"""Which rows of the embeddings are trained beside an adapter: those of tokens that the model does not know yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from hf_nmt.errors import ConfigError
from hf_nmt.translators import SavedModel

NEW_TOKENS = "new_tokens.json"  # beside an adapted model: the tokens of each side that it did not have before
SIDES = ("source", "target")


def rows_of(tokens: Sequence[str] | str, tokenizer: Any, saved: SavedModel) -> dict[str, list[int]]:
    """
    Args:
        tokens: as `model.adapter.tokens` has them; "new" for those that were added when the vocabulary was adapted.
        tokenizer: of the model.
        saved: the model.

    Returns:
        Ids in the vocabularies of "source" and "target", sorted.

    Raises:
        ConfigError: it does not have all of them.
    """
    named: Mapping[str, Sequence[str]]
    named = _new_tokens(saved) if isinstance(tokens, str) else dict.fromkeys(SIDES, tokens)
    found = {side: {token: _id_of(tokenizer, token, side) for token in named[side]} for side in SIDES}
    missing = [token for token in dict.fromkeys([*named["source"], *named["target"]])
               if all(found[side].get(token) is None for side in SIDES)]  # fmt: skip
    if missing:
        raise ConfigError(
            f"model.adapter.tokens: {', '.join(missing[:10])} {'is' if len(missing) == 1 else 'are'} not in the "
            "vocabulary of the model. Write tokens as it has them, or add them first: recipes/adapt_vocabulary.py."
        )
    return {side: sorted(number for number in found[side].values() if number is not None) for side in SIDES}


def _new_tokens(saved: SavedModel) -> dict[str, list[str]]:
    options = saved.options()
    del options["trust_remote_code"]
    file = cached_file(saved.path, NEW_TOKENS, _raise_exceptions_for_missing_entries=False, **options)
    if file is None:
        raise ConfigError(
            f"model.adapter.tokens: new is for a model that recipes/adapt_vocabulary.py wrote, and {saved.path} has "
            f"no {NEW_TOKENS}. Name the tokens, or leave tokens out."
        )
    return json.loads(Path(file).read_text(encoding="utf-8"))


def _id_of(tokenizer: Any, token: str, side: str) -> int | None:
    """The id of a token in the vocabulary of a side; None where it is not in it."""
    if side == "target" and (backend := getattr(tokenizer, "target_backend", None)) is not None:
        return backend.token_to_id(token)
    if getattr(tokenizer, "separate_vocabs", False):  # Marian
        return (tokenizer.target_encoder if side == "target" else tokenizer.encoder).get(token)
    number = tokenizer.convert_tokens_to_ids(token)
    return None if number is None or (number == tokenizer.unk_token_id and token != tokenizer.unk_token) else number
