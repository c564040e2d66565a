"""Trains a tokenizer, and opens a saved one."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from hf_nmt.config import Settings
from hf_nmt.errors import ConfigError, DataError
from hf_nmt.models.tokenization_nmt import SPECIAL_TOKENS, NmtTokenizer, language_tag
from hf_nmt.subwords import (
    MAX_BPE_CHARACTERS,
    MAX_BPE_WORDS,
    MAX_UNIGRAM_CHARACTERS,
    MAX_UNIGRAM_WORDS,
    count_words,
    dropout_needs_bpe,
    most_frequent,
    repeated,
    split_words,
    train_unigram,
)

logger = logging.getLogger(__name__)

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for the space before a word inside pieces
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
UNEQUAL = "There are not as many sources as targets: each source needs its target."
CHUNK = 1000  # texts handed to the Rust tokenizer at once

# Letters stay apart from digits, punctuation and symbols, each digit stands alone, and Korean, Chinese and Japanese
# script is not joined to Latin. So a piece is a word part and no mixture, numbers are copied digit by digit, and no
# text can be read as a reserved piece: `</s>`, `<2de>` and `<0x41>` all mix letters or digits with punctuation.
PIECE_BORDERS = (
    rf"\p{{N}}|{SPACE}?[[\p{{P}}\p{{S}}]&&[^{SPACE}]]+|{SPACE}?\p{{Hangul}}+"
    rf"|{SPACE}?[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\u30FC]+"
)


class TokenizerSettings(Settings):
    path: Path | None = Field(
        None,
        description="Folder of a saved tokenizer to use; null (the default) trains one on the training text.",
    )
    algorithm: Literal["bpe", "unigram"] = Field(
        "bpe",
        description="Byte-pair encoding (Sennrich et al. 2016) or the unigram language model (Kudo 2018). BPE is the "
        "default because BPE-dropout needs it.",
    )
    vocab_size: int = Field(
        8000,
        ge=1,
        description="Pieces in the vocabulary, special tokens and bytes included; of each side where joint is false. "
        "8000 suits 30 thousand to a million pairs; take 1000 to 4000 for less and 32000 for several million.",
    )
    joint: bool = Field(
        True,
        description="One vocabulary for both sides, so that embeddings can be shared and names copied; false trains "
        "one for each side, better where the scripts differ.",
    )
    byte_fallback: bool = Field(
        True,
        description="Characters without a piece are spelt in UTF-8 bytes (256 pieces of the vocabulary) and never "
        "lost; false turns them into <unk>.",
    )
    normalization: Literal["nfkc", "nfc", "none"] = Field(
        "nfkc",
        description="Unicode form of all text, targets too. nfkc also replaces compatibility characters (full-width "
        "forms, ligatures, superscripts), which the model then never writes: take nfc where Chinese or Japanese is "
        "the target. White space is one space between words in all of them.",
    )
    language_tags: bool | None = Field(
        None,
        description="Open each source with a tag of the target language such as <2en> (Johnson et al. 2017). null "
        "does so where there are several target languages, which a new model needs.",
    )
    source_tags: list[str] | None = Field(
        None,
        description="Words in angle brackets, such as the tag of recipes/backtranslate.py, that are one token each in "
        "sources, never written by the model, and text in targets. null takes those that open sources of the training "
        "text that were translated back (column synthetic); []: none.",
    )
    character_coverage: float = Field(
        0.9999,
        gt=0,
        le=1,
        description="Share of the characters of the training text that get a piece of their own; the rarest are left "
        "to byte_fallback. 0.9999 keeps stray characters of a large corpus out; 0.9995 suits Chinese and Japanese.",
    )
    max_training_sentences: int = Field(
        500_000,
        ge=1,
        description="Pairs of sentences that the vocabulary is learnt from, drawn at random where the training text "
        "has more; frequencies are settled well before, and time and memory stay bounded.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="BPE-dropout (Provilkov et al. 2020): probability of leaving out a merge, in training only. 0 is "
        "off; 0.1 helps below about half a million pairs and costs longer sequences.",
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> TokenizerSettings:
        findings = []
        if self.path is not None:
            findings = self.settled("the tokenizer saved in path", "set path to null", beside=("path", "dropout"))
        elif self.algorithm == "unigram" and self.dropout > 0:
            findings = [dropout_needs_bpe(self.dropout)]
        for tag in self.source_tags or ():
            if not re.fullmatch(r"<[^<>\s]+>", tag):
                findings.append(f"source_tags: {tag!r} is no word in angle brackets. Give one such as <BT>.")
            elif is_reserved(tag):
                findings.append(
                    f"source_tags: {tag} is a token with another meaning. Take another word, such as <BT>."
                )
        reserved = len(SPECIAL_TOKENS) + (len(BYTES) if self.byte_fallback else 0)
        if self.path is None and self.vocab_size <= reserved:
            bytes_told = f" and {len(BYTES)} bytes (byte_fallback)" if self.byte_fallback else ""
            findings.append(
                f"vocab_size: given {self.vocab_size}, but {len(SPECIAL_TOKENS)} special tokens{bytes_told} come "
                f"before the characters. Allowed: more than {reserved}, and enough for the characters of the text."
            )
        if findings:
            raise ConfigError(findings)
        return self

    def settled(self, by: str, otherwise: str, *, beside: Sequence[str]) -> list[str]:
        """A finding for each key that was changed in vain, as a saved tokenizer settles it.

        Args:
            by: what settles it.
            otherwise: what to do where the key is wanted.
            beside: keys that still mean something.
        """
        return [
            f"{name}: {getattr(self, name)!r} was given, but {by} settles it. Leave {name} out, or {otherwise}."
            for name, field in type(self).model_fields.items()
            if name not in beside and getattr(self, name) != field.default
        ]


def is_reserved(tag: str) -> bool:
    """Whether a word in angle brackets is a special token, a language tag, or a byte."""
    return tag in SPECIAL_TOKENS.values() or tag in BYTES or tag.startswith(language_tag("").rstrip(">"))


# Training


def train_tokenizer(
    sources: Iterable[str],
    targets: Iterable[str],
    settings: TokenizerSettings,
    *,
    source_language: str | Sequence[str],
    target_language: str | Sequence[str],
) -> NmtTokenizer:
    """Train a tokenizer; the same text and settings give the same files.

    Ids: `<unk>` 0, `<pad>` 1, `<s>` 2, `</s>` 3, then language tags, tags of sources, bytes, pieces. The vocabulary is
    smaller than asked for, with a warning, where the text gives no more pieces (BPE joins what occurs twice or more).

    Args:
        sources, targets: as many of the one as of the other. Columns of a dataset are read slice by slice, and memory
            grows with the distinct words only; of other iterables, the sample is held.
        settings: `path` and `dropout` are not looked at; `source_tags` null is none.
        source_language, target_language: one code, or several for a model of several directions.

    Raises:
        ConfigError: `vocab_size` does not hold the reserved pieces and the characters.
        DataError: there is no text, or there are not as many sources as targets.
    """
    normalizer = _normalizer(settings.normalization)
    # One count for both sides of a joint vocabulary, so that a word they share is held once.
    words = [Counter[str]()] * 2 if settings.joint else [Counter[str](), Counter[str]()]
    sides = chosen_texts(sources, targets, settings.max_training_sentences)
    marks = list(dict.fromkeys(settings.source_tags or ()))
    if marks:
        logger.info("one token each in sources: %s", " ".join(marks))
        sides = (_without(marks, sides[0]), sides[1])
    num_texts = []
    for name, texts, counts in zip(("sources", "targets"), sides, words, strict=True):
        number, used = count_words(map(normalizer.normalize_str, texts), counts)
        if not used:
            raise DataError(f"No text to train a tokenizer on: the {name} hold {number} lines and all are empty.")
        num_texts.append(used)
    source_languages, target_languages = (
        [codes] if isinstance(codes, str) else list(codes) for codes in (source_language, target_language)
    )
    has_tags = len(target_languages) > 1 if settings.language_tags is None else settings.language_tags
    tags = [language_tag(code) for code in target_languages] if has_tags else []
    if settings.joint:
        source, target = _train_side(words[0], sum(num_texts), settings, tags, "joint", marks), None
    else:
        source = _train_side(words[0], num_texts[0], settings, tags, "source", marks)
        target = _train_side(words[1], num_texts[1], settings, [], "target")
    return NmtTokenizer(
        tokenizer_object=source,
        target_tokenizer_object=target,
        separate_vocabularies=not settings.joint,
        language_tags=has_tags,
        source_languages=source_languages,
        target_languages=target_languages,
        source_tags=marks,
    )


def _without(marks: list[str], texts: Iterable[str]) -> Iterator[str]:
    """The texts without the tags of sources, which are tokens before there are pieces."""
    pattern = re.compile("|".join(map(re.escape, marks)))
    return (pattern.sub(" ", text) for text in _read(texts))


def _read(texts: Any) -> Iterator[str]:
    """The texts one by one; a column of a dataset is read in slices, as each access costs."""
    if hasattr(texts, "__len__") and hasattr(texts, "__getitem__"):
        for start in range(0, len(texts), CHUNK):
            yield from texts[start : start + CHUNK]
    else:
        yield from texts


def _sample(items: Iterable[Any], limit: int, kept: Any) -> Any:
    """Fill `kept` with all, or `limit` of equal chance (Vitter 1985, algorithm R); the same each time."""
    draw = random.Random(0)
    for number, item in enumerate(items):
        if number < limit:
            kept.append(item)
        elif (place := draw.randrange(number + 1)) < limit:
            kept[place] = item
    return kept


def chosen_texts(sources: Any, targets: Any, limit: int) -> tuple[Iterable[str], Iterable[str]]:
    """The texts of all pairs, or of `limit` drawn at random, the same each time.

    Args:
        sources, targets: columns of a dataset, or lists, are read slice by slice; of what can be read only once, the
            drawn texts are held.

    Raises:
        DataError: there are not as many sources as targets.
    """
    if not all(hasattr(texts, "__len__") and hasattr(texts, "__getitem__") for texts in (sources, targets)):
        try:
            pairs = _sample(zip(_read(sources), _read(targets), strict=True), limit, [])
        except ValueError as error:
            raise DataError(UNEQUAL) from error
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(sources) != len(targets):
        raise DataError(UNEQUAL)
    taken = bytearray(len(sources))
    for row in _sample(range(len(sources)), limit, array("q")):
        taken[row] = 1
    return itertools.compress(_read(sources), taken), itertools.compress(_read(targets), taken)


def _normalizer(name: str) -> normalizers.Normalizer:
    forms: dict[str, list[Any]] = {"nfkc": [normalizers.NFKC()], "nfc": [normalizers.NFC()], "none": []}
    return normalizers.Sequence(
        [
            *forms[name],
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Replace(SPACE, "_"),  # in a text it would come back as a space
        ]
    )


def _train_side(
    words: Counter[str],
    num_texts: int,
    settings: TokenizerSettings,
    tags: list[str],
    side: str,
    marks: Sequence[str] = (),
) -> Tokenizer:
    """Train the Rust tokenizer of one vocabulary on the words of `count_words`."""
    special = [*SPECIAL_TOKENS.values(), *tags]
    reserved = [*special, *marks, *(BYTES if settings.byte_fallback else ())]
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    counts[SPACE] = counts.pop(" ", 0) + num_texts
    rare = _rare_characters(counts, settings.character_coverage)
    smallest = len(reserved) + len(counts) - len(rare)
    if smallest > settings.vocab_size:
        raise ConfigError(
            f"vocab_size: {settings.vocab_size} is too small for the {side} vocabulary: {len(special)} special "
            f"tokens{', 256 bytes' if settings.byte_fallback else ''} and {len(counts) - len(rare)} characters are "
            f"{smallest}. Raise tokenizer.vocab_size well above that, or lower tokenizer.character_coverage."
        )
    split = _pipeline(models.BPE(), "none").pre_tokenizer.pre_tokenize_str
    parts = split_words(words, split, rare)
    if settings.algorithm == "bpe":
        model = _train_bpe(most_frequent(parts, MAX_BPE_WORDS, MAX_BPE_CHARACTERS), settings, reserved)
    else:
        model = _train_unigram(most_frequent(parts, MAX_UNIGRAM_WORDS, MAX_UNIGRAM_CHARACTERS), settings, reserved)
    tokenizer = _pipeline(model, settings.normalization)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in marks])
    metaspace = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = (
        decoders.Sequence([decoders.ByteFallback(), metaspace]) if settings.byte_fallback else metaspace
    )
    end = SPECIAL_TOKENS["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    size = tokenizer.get_vocab_size()
    if size < settings.vocab_size:
        logger.warning(
            "tokenizer.vocab_size is %d, but the text gives only %d pieces for the %s vocabulary, which has no more. "
            "Train on more text, or set tokenizer.vocab_size to %d or less.",
            settings.vocab_size,
            size,
            side,
            size,
        )
    logger.info("%s vocabulary: %d pieces from %d texts, %d characters left out", side, size, num_texts, len(rare))
    return tokenizer


def _rare_characters(counts: Counter[str], coverage: float) -> list[str]:
    """The rarest characters that together stay below a share of 1 - coverage."""
    allowed, rare = (1 - coverage) * counts.total(), []
    for character, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        allowed -= count
        if allowed < 0 or character == SPACE:
            break
        rare.append(character)
    return rare


def _pipeline(model: models.Model, normalization: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(normalization)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"),
            pre_tokenizers.Split(Regex(PIECE_BORDERS), "isolated"),
        ]
    )
    return tokenizer


def _train_bpe(parts: Counter[str], settings: TokenizerSettings, reserved: list[str]) -> models.Model:
    scratch = Tokenizer(models.BPE())
    scratch.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    scratch.train_from_iterator(
        repeated(parts, CHUNK),
        trainers.BpeTrainer(
            vocab_size=settings.vocab_size, special_tokens=reserved, min_frequency=2, show_progress=False
        ),
    )
    trained = json.loads(scratch.to_str())["model"]
    # A new model: whatever a trainer reserves becomes a special token, and bytes must not be, or they would be left
    # out of decoded text.
    return models.BPE(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        unk_token=SPECIAL_TOKENS["unk_token"],
        fuse_unk=True,
        byte_fallback=settings.byte_fallback,
    )


def _train_unigram(parts: Counter[str], settings: TokenizerSettings, reserved: list[str]) -> models.Model:
    pieces = train_unigram(parts, settings.vocab_size - len(reserved))
    # The score of a reserved piece counts for nothing: no text holds one between two piece borders.
    vocabulary = [*((piece, 0.0) for piece in reserved), *pieces]
    return models.Unigram(vocabulary, unk_id=0, byte_fallback=settings.byte_fallback)


# Opening


def load_tokenizer(path: str | Path) -> NmtTokenizer:
    """Open a folder written by `save_pretrained` of a tokenizer or a model of ours.

    Raises:
        DataError: there is no such folder, or it does not hold a whole tokenizer of this family.
    """
    folder = Path(path)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"No tokenizer: {folder} {reason}. Give the folder that holds tokenizer.json.")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise DataError(f"No tokenizer: {folder} holds no {name}. Give a folder written by save_pretrained.")
    try:
        kind = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
        if kind != NmtTokenizer.__name__:
            raise DataError(
                f"{folder} holds a {kind}, not an {NmtTokenizer.__name__}. Give a tokenizer that hf_nmt trained."
            )
        return NmtTokenizer.from_pretrained(str(folder))
    except DataError:
        raise
    except Exception as error:  # the Rust parser raises plain Exception
        raise DataError(f"The tokenizer in {folder} cannot be read: {error}") from error
