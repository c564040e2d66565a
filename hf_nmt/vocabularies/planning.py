"""From what a corpus uses to a new vocabulary, and to what each of its rows starts from."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_nmt.errors import ConfigError
from hf_nmt.tokenizer_training import BYTES
from hf_nmt.vocabularies.model_rows import Origins
from hf_nmt.vocabularies.settings import VocabularySettings
from hf_nmt.vocabularies.tokenizer_files import Part, TokenizerFiles, Vocabulary, chunks


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a tokenizer makes of one side of a corpus.

    Attributes:
        pieces: how often each is used; what has no id under the text it stands for.
        unknown: of the tokens.
    """

    sentences: int
    words: int
    pieces: Counter[str]
    unknown: int

    @property
    def tokens(self) -> int:
        return self.pieces.total()

    def report(self) -> dict[str, Any]:
        """`tokens_per_word` is the fertility, over what white space separates; rates are shares of the tokens."""
        bytes_ = sum(self.pieces[piece] for piece in BYTES)
        return {
            "sentences": self.sentences,
            "words": self.words,
            "tokens": self.tokens,
            "tokens_per_word": _ratio(self.tokens, self.words),
            "unknown_rate": _ratio(self.unknown, self.tokens),
            "byte_rate": _ratio(bytes_, self.tokens),
            "pieces_used": len(self.pieces),
        }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def usage_of(files: TokenizerFiles, side: str, texts: Sequence[str]) -> Usage:
    pieces: Counter[str] = Counter()
    sentences = words = 0
    for some in chunks(texts):
        sentences += len(some)
        words += sum(len(text.split()) for text in some)
        for row in files.encode(side, some):
            pieces.update(row)
    tokens = {token for vocabulary in files.vocabularies if side in vocabulary.sides for token in vocabulary.tokens}
    unknown = sum(
        count for piece, count in pieces.items() if piece not in tokens or piece == files.tokenizer.unk_token
    )
    return Usage(sentences, words, pieces, unknown)


def adapted(
    old: Vocabulary,
    settings: VocabularySettings,
    usage: Mapping[str, Usage],
    words: Mapping[str, Counter[str]],
    codes: Sequence[str],
) -> Vocabulary:
    """The new vocabulary; where several subword models share one, each is given an equal part of the new pieces.

    Args:
        usage: of each side.
        words: of each side that pieces are learnt from.
        codes: tokens of new languages.
    """
    parts = [_adapted_part(part, old, settings, usage, words) for part in old.parts]
    pieces = {piece for part in parts for piece in part.model.pieces}
    if settings.trim or settings.retrain is not None:
        tokens = [token for token in old.tokens if token in old.fixed or token in pieces]
    else:
        tokens = [token for token in old.tokens if token is not None]
    # A piece of a SentencePiece model may have no id; only what is new is given one.
    new = pieces - {piece for part in old.parts for piece in part.model.pieces} - {*tokens}
    tokens = [*(token for token in tokens if token not in old.tail), *sorted(new), *codes, *old.tail]
    return dataclasses.replace(old, tokens=tokens, fixed=old.fixed | {*codes}, parts=tuple(parts))


def _adapted_part(
    part: Part,
    old: Vocabulary,
    settings: VocabularySettings,
    usage: Mapping[str, Usage],
    words: Mapping[str, Counter[str]],
) -> Part:
    model, its_words = part.model, Counter[str]()
    for side in part.sides:
        its_words += words.get(side, Counter())
    # The parts of a vocabulary that learn something share the number of new pieces.
    shares = sum(not words.keys().isdisjoint(one.sides) for one in old.parts) or 1
    if settings.retrain is not None:
        number = (settings.retrain - len(old.fixed)) // shares
        characters = len({character for word in its_words for character in word})
        if number < characters:
            raise ConfigError(
                f"retrain: {settings.retrain} is too small: {len(old.fixed)} special tokens, codes and bytes, and "
                f"{characters} characters of the {' and '.join(part.sides)} text have to be in it. Allowed: "
                f"{len(old.fixed) + characters * shares} or more; some thousand are usual."
            )
        return Part(part.sides, model.retrained(its_words, number))
    if settings.trim:
        used: Counter[str] = Counter()
        for side in old.sides:
            used += usage[side].pieces
        kept = {piece for piece, count in used.items() if count >= settings.min_count}
        if settings.keep_characters:
            kept |= {piece for piece in model.pieces if len(piece) == 1}
        model = model.trimmed(kept & model.pieces)
    if settings.grow and its_words:
        model = model.grown(its_words, settings.grow // shares)
    return Part(part.sides, model)


def origins_of(old: Vocabulary, new: Vocabulary, codes: Mapping[str, Sequence[str]]) -> Origins:
    """What the rows of a new vocabulary start from: their own, or the mean of the pieces that wrote them before.

    That is fast vocabulary transfer (Gee et al. 2022). What could not be written at all starts as the mean of all
    pieces (Hewitt 2021).

    Args:
        codes: tokens of new languages -> tokens that they start as the mean of.
    """
    index = {token: number for number, token in enumerate(old.tokens) if token is not None}
    every = tuple(number for token, number in index.items() if token not in old.fixed)
    origins: list[int | tuple[int, ...]] = []
    for token in new.tokens:
        assert token is not None
        if token in index:
            origins.append(index[token])
        elif token in codes:
            origins.append(tuple(index[code] for code in codes[token]))
        else:
            part = next(before for before, now in zip(old.parts, new.parts, strict=True) if token in now.model.pieces)
            origins.append(tuple(_written_with(token, part, index)) or every)
    return origins


def _written_with(token: str, part: Part, index: Mapping[str, int]) -> list[int]:
    """Old ids that wrote a piece."""
    found = []
    for piece in part.model.segment(token):
        bytes_ = [BYTES[byte] for byte in piece.encode()] if piece not in index else []
        found += [index[one] for one in (piece, *bytes_) if one in index]
    return found
