"""What a tokenizer makes of a text, measured before anything is trained with it."""

from __future__ import annotations

import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from hf_nmt.errors import DataError
from hf_nmt.models.sources_nmt import some_target
from hf_nmt.models.tokenization_nmt import SPECIAL_TOKENS, NmtTokenizer
from hf_nmt.tokenizer_training import BYTES, CHUNK, SPACE, chosen_texts

logger = logging.getLogger(__name__)


def check_tokenizer(
    tokenizer: NmtTokenizer,
    sources: Iterable[str],
    targets: Iterable[str],
    *,
    model_config: Any = None,
    max_sentences: int = 100_000,
    max_failures: float = 0.01,
) -> dict[str, Any]:
    """Refuse a tokenizer that does not fit its model or loses text, and report on it.

    All rates are shares between 0 and 1. "Words" are what white space separates; tokens are counted without `</s>`
    and tag. A round trip fails where decoding does not give back the text in the tokenizer's own normalisation.
    "Changed by normalisation" counts texts of which more than white space changed: what is lost there in targets, the
    model cannot learn to write.

    Args:
        model_config: an `NmtConfig` whose ids and sizes must fit; None checks the tokenizer alone.
        max_sentences: pairs looked at, drawn at random where there are more.
        max_failures: share of failed round trips, on either side, that is accepted.

    Returns:
        A dict for JSON.

    Raises:
        DataError: special ids or sizes do not fit, there is no text, or too many round trips fail.
    """
    problems = _id_problems(tokenizer, model_config)
    if problems:
        raise DataError("The tokenizer does not fit the model: " + " ".join(problems))
    sides = [list(texts) for texts in chosen_texts(sources, targets, max_sentences)]
    report: dict[str, Any] = {
        "sentences": len(sides[0]),
        "separate_vocabularies": tokenizer.separate_vocabularies,
        "special_ids": {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL_TOKENS},
    }
    backends = tokenizer.source_backend, tokenizer.target_backend
    for name, backend, texts in zip(("source", "target"), backends, sides, strict=True):
        found = report[name] = _check_side(backend, texts)
        if not found["tokens"]:
            raise DataError(f"The tokenizer cannot be checked: there is no {name} text.")
        failures = found["round_trip"]
        if failures["failure_rate"] > max_failures:
            raise DataError(
                f"The tokenizer loses {name} text: {failures['failures']} of {found['sentences']} sentences do not "
                f"come back from its ids (accepted: {max_failures:.1%}), such as {failures['examples'][0]!r}; "
                f"{found['unknown_rate']:.2%} of the tokens are <unk>. Train it with byte_fallback: true, or on text "
                "of these languages."
            )
    return report


def measure_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    sources: Iterable[str],
    targets: Iterable[str],
    *,
    max_sentences: int = 100_000,
    max_unknown: float = 0.01,
) -> dict[str, Any]:
    """Report on the tokenizer of a pretrained model, of whatever kind; what it loses is told in the log.

    A model brings its tokenizer, so there is no other to be had and nothing is refused. A round trip fails where
    decoding gives back another text, in normal form NFKC and with single spaces between words.

    Args:
        max_sentences: pairs looked at, drawn at random where there are more.
        max_unknown: share of unknown tokens on either side that is not worth a warning.

    Returns:
        A dict for JSON, with names as in `check_tokenizer`.
    """
    sides = [list(texts) for texts in chosen_texts(sources, targets, max_sentences)]
    report: dict[str, Any] = {"sentences": len(sides[0]), "tokenizer_class": type(tokenizer).__name__}
    for name, argument, texts in zip(("source", "target"), ("text", "text_target"), sides, strict=True):
        with some_target(tokenizer):
            found = report[name] = _measure_side(tokenizer, argument, texts)
        if found["unknown_rate"] > max_unknown:
            logger.warning(
                "The tokenizer of the pretrained model does not know %.1f%% of the %s tokens: they are %s to the "
                "model, which cannot %s them.",
                100 * found["unknown_rate"], name, tokenizer.unk_token, "read" if name == "source" else "write",
            )  # fmt: skip
    return report


# Of a tokenizer on text that it was made for, next to none are bytes, and words of one language vary far less.
MANY_BYTES, MANY_TOKENS = 0.02, 1.5


def warn_of_split_tags(tokenizer: PreTrainedTokenizerBase, tags: list[str]) -> None:
    """Tell of tags of back-translated sources that a saved tokenizer has no token for."""
    for tag in tags:
        pieces = tokenizer(tag, add_special_tokens=False)["input_ids"]
        if len(pieces) > 1:
            logger.warning(
                "Back-translated sources of the training text open with %s, which the saved tokenizer spells in %d "
                "tokens. The model can learn that too; a tokenizer that is trained anew makes it one token.",
                tag, len(pieces),
            )  # fmt: skip


def warn_of_small_pieces(report: Mapping[str, Any], own: Mapping[str, Any], model: str) -> None:
    """Say in the log where a model that is trained further has to spell text out, which no unknown token shows.

    Args:
        report: of its tokenizer on the text to train on, from `measure_tokenizer` or `check_tokenizer`.
        own: the same on the text that it was made for; empty where that is not known.
        model: what messages call it.
    """
    for side in ("source", "target"):
        found = report[side]
        share, per_word = found.get("byte_fallback_rate", 0.0), found["tokens_per_word"]
        before = own.get(side, {}).get("tokens_per_word") or math.inf
        reasons = []
        if share > MANY_BYTES:
            reasons.append(f"{share:.1%} of the tokens are single bytes")
        if per_word > MANY_TOKENS * before:
            reasons.append(f"a word takes {per_word:.2f} tokens, against {before:.2f} in the text it was made for")
        if reasons:
            logger.warning(
                "The tokenizer of %s hardly knows the %s text: %s. This costs quality and time; "
                "recipes/adapt_vocabulary.py gives the model a vocabulary of this text first.",
                model, side, " and ".join(reasons),
            )  # fmt: skip


def _measure_side(tokenizer: PreTrainedTokenizerBase, argument: str, texts: list[str]) -> dict[str, Any]:
    tokens = unknown = words = longest = 0
    failures: list[dict[str, str]] = []
    used: set[int] = set()
    vocabulary = tokenizer.get_vocab()
    bytes_ = {vocabulary[piece] for piece in BYTES if piece in vocabulary}
    num_bytes = 0
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        rows = tokenizer(**{argument: chunk}, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        for text, ids in zip(chunk, rows, strict=True):
            tokens, longest, words = tokens + len(ids), max(longest, len(ids)), words + len(text.split())
            unknown += ids.count(tokenizer.unk_token_id)
            num_bytes += sum(number in bytes_ for number in ids) if bytes_ else 0
            used.update(ids)
            # Two spellings of one text: spaces and compatibility characters are the tokenizer's to choose.
            plain, decoded = (
                " ".join(unicodedata.normalize("NFKC", one).split()) for one in (text, tokenizer.decode(ids))
            )
            if argument == "text_target" and decoded != plain:
                failures.append({"text": text, "decoded": decoded})
    report: dict[str, Any] = {
        "sentences": len(texts),
        "words": words,
        "tokens": tokens,
        "tokens_per_sentence": _ratio(tokens, len(texts)),
        "tokens_per_word": _ratio(tokens, words),
        "longest_sentence": longest,
        "vocabulary": len(tokenizer),
        "vocabulary_used": len(used),
        "unknown_rate": _ratio(unknown, tokens),
        "byte_fallback_rate": _ratio(num_bytes, tokens),
    }
    if argument == "text_target":  # `decode` is for targets: the sources of some families have pieces of their own
        report["round_trip"] = {
            "failures": len(failures),
            "failure_rate": _ratio(len(failures), len(texts)),
            "examples": failures[:5],
        }
    return report


def _id_problems(tokenizer: NmtTokenizer, model_config: Any) -> list[str]:
    problems = []
    for name, backend in (("source", tokenizer.source_backend), ("target", tokenizer.target_backend)):
        for number, token in enumerate(SPECIAL_TOKENS.values()):
            if (given := backend.token_to_id(token)) != number:
                problems.append(f"{token} has id {given} in the {name} vocabulary and must have {number}.")
    for name, ids in (
        ("sources", tokenizer("a", tgt_lang=next(iter(tokenizer.target_languages), None))),
        ("targets", tokenizer(text_target="a")),
    ):
        if ids["input_ids"][-1] != tokenizer.eos_token_id:
            problems.append(f"{name} do not end with {tokenizer.eos_token}.")
    if model_config is None:
        return problems
    for name, number in (("pad_token_id", 1), ("bos_token_id", 2), ("eos_token_id", 3), ("decoder_start_token_id", 2)):
        if (given := getattr(model_config, name, None)) != number:
            problems.append(f"{name} of the model is {given} and must be {number}.")
    sizes = {"vocab_size": tokenizer.target_vocab_size}
    if tokenizer.separate_vocabularies:
        sizes["source_vocab_size"] = tokenizer.source_vocab_size
    for name, needed in sizes.items():
        if (getattr(model_config, name, None) or 0) < needed:
            problems.append(f"{name} of the model is {getattr(model_config, name, None)}, the tokenizer has {needed}.")
    return problems


def _check_side(backend: Tokenizer, texts: list[str]) -> dict[str, Any]:
    backend.encode_special_tokens = True  # tags and special tokens in a text are text
    unknown = backend.token_to_id(SPECIAL_TOKENS["unk_token"])
    bytes_ = {number for piece in BYTES if (number := backend.token_to_id(piece)) is not None}
    characters: Counter[str] = Counter()
    pieces: Counter[int | None] = Counter()
    failures: list[dict[str, str]] = []
    changed: list[dict[str, str]] = []
    num_words = empty = longest = 0
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        rows = [encoding.ids for encoding in backend.encode_batch_fast(chunk, add_special_tokens=False)]
        for text, ids, decoded in zip(chunk, rows, backend.decode_batch(rows), strict=True):
            expected = backend.normalizer.normalize_str(text)
            characters.update(expected)
            pieces.update(ids)
            words = text.split()
            num_words, empty, longest = num_words + len(words), empty + (not words), max(longest, len(ids))
            if decoded != expected:
                failures.append({"text": text, "expected": expected, "decoded": decoded})
            if expected != " ".join(words):
                changed.append({"text": text, "normalized": expected})
    tokens = pieces.total()
    uncovered = [
        (character, count)
        for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0]))
        if backend.token_to_id(character.replace(" ", SPACE)) is None
    ]
    return {
        "sentences": len(texts),
        "empty_sentences": empty,
        "words": num_words,
        "characters": characters.total(),
        "tokens": tokens,
        "tokens_per_sentence": _ratio(tokens, len(texts)),
        "tokens_per_word": _ratio(tokens, num_words),
        "tokens_per_character": _ratio(tokens, characters.total()),
        "longest_sentence": longest,
        "vocabulary": backend.get_vocab_size(),
        "vocabulary_used": len(pieces),
        "unknown_rate": _ratio(pieces[unknown], tokens),
        "byte_fallback_rate": _ratio(sum(pieces[number] for number in bytes_), tokens),
        "uncovered_characters": {
            "distinct": len(uncovered),
            "rate": _ratio(sum(count for _, count in uncovered), characters.total()),
            "most_frequent": [
                {"character": character, "code_point": f"U+{ord(character):04X}", "count": count}
                for character, count in uncovered[:20]
            ],
        },
        "round_trip": {
            "failures": len(failures),
            "failure_rate": _ratio(len(failures), len(texts)),
            "examples": failures[:5],
        },
        "changed_by_normalization": {
            "sentences": len(changed),
            "rate": _ratio(len(changed), len(texts)),
            "examples": changed[:5],
        },
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0
